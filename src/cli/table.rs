//! A live table of devices: many small cells in as many columns as the terminal has room for. Pure text.

use console::{Style, measure_text_width, truncate_str};

/// A device in the table.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    /// Its id.
    pub(super) name: String,
    /// What it is like.
    pub(super) character: String,
    /// Where its job stands, or how it ended.
    pub(super) state: String,
    /// How that looks.
    pub(super) look: Look,
}

/// How a cell's state looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Not begun.
    Waiting,
    /// Under way.
    Working,
    /// Ended well.
    Good,
    /// Ended otherwise.
    Bad,
}

impl Look {
    fn mark(self) -> (&'static str, Style) {
        match self {
            Self::Waiting => ("·", Style::new().dim()),
            Self::Working => ("▸", Style::new().yellow()),
            Self::Good => ("✓", Style::new().green()),
            Self::Bad => ("✗", Style::new().red()),
        }
    }
}

/// Width of a cell with mark, id, character and state.
const WIDE: usize = 50;

/// Width of a cell without the character.
const NARROW: usize = 33;

/// The table's lines for a terminal of this width, at most `height` of them.
pub(super) fn render(cells: &[Cell], width: usize, height: usize) -> Vec<String> {
    let cell_width = if width >= 2 * WIDE { WIDE } else { NARROW };
    let columns = (width / cell_width).max(1);
    let rows = cells.len().div_ceil(columns);
    let shown = rows.min(height.max(1));
    let mut lines: Vec<String> = (0..shown)
        .map(|row| {
            let in_row = (0..columns).filter_map(|column| cells.get(column * rows + row));
            let line: String = in_row.map(|cell| render_cell(cell, cell_width)).collect();
            line.trim_end().to_owned()
        })
        .collect();
    if shown < rows {
        lines.push(format!(
            "… and {} more lines; widen the terminal to see all",
            rows - shown
        ));
    }
    lines
}

fn render_cell(cell: &Cell, width: usize) -> String {
    let (mark, style) = cell.look.mark();
    let character = if width == WIDE {
        format!("{:<17}", cell.character)
    } else {
        String::new()
    };
    let text = format!("{:<10} {character}{}", cell.name, cell.state);
    let text = truncate_str(&text, width - 3, "…");
    let padding = " ".repeat((width - 2).saturating_sub(measure_text_width(&text)));
    format!("{} {}{padding}", style.apply_to(mark), style.apply_to(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(count: usize) -> Vec<Cell> {
        let looks = [Look::Waiting, Look::Working, Look::Good, Look::Bad];
        (0..count)
            .map(|number| Cell {
                name: format!("CPE{number:06}"),
                character: "offline_at_first".to_owned(),
                state: "await_result, rebooting for a long time".to_owned(),
                look: looks[number % looks.len()],
            })
            .collect()
    }

    #[test]
    fn a_table_fits_into_its_terminal() {
        for (count, width, height) in [
            (50, 80, 20),
            (50, 160, 40),
            (1, 10, 1),
            (0, 80, 24),
            (7, 200, 3),
        ] {
            let lines = render(&cells(count), width, height);
            assert!(
                lines.len() <= height.max(1) + 1,
                "{count} devices: {} lines",
                lines.len()
            );
            let widest = lines
                .iter()
                .map(|line| measure_text_width(line))
                .max()
                .unwrap_or(0);
            assert!(widest <= width.max(NARROW), "{widest} columns of {width}");
        }
    }

    #[test]
    fn every_device_is_in_a_table_that_is_tall_enough() {
        let text = render(&cells(50), 104, 100).join("\n");
        assert!((0..50).all(|number| text.contains(&format!("CPE{number:06}"))));
    }
}
