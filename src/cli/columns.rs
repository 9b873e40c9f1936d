//! Rows in columns, for people: aligned, cut to the width of the terminal, whole where the output goes elsewhere.

use std::borrow::Cow;

use console::{Style, Term, measure_text_width, pad_str, truncate_str};

use super::output::{self, plain};

/// Between two columns.
const GAP: usize = 2;

/// What a column keeps when there is not room for all, if it has as much.
const KEPT: usize = 8;

/// Rows below a head.
#[derive(Debug)]
pub(super) struct Columns {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// One cell: text of anybody, and how it looks on a terminal.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self {
            text: plain(text.as_ref()),
            style: Style::new(),
        }
    }
}

impl Cell {
    /// Text with a look.
    pub(super) fn styled(text: &str, style: Style) -> Self {
        Self {
            style,
            ..Self::from(text)
        }
    }
}

impl Columns {
    /// No rows yet.
    pub(super) fn new(head: &[&'static str]) -> Self {
        Self {
            head: head.to_vec(),
            rows: Vec::new(),
        }
    }

    /// One more row, with a cell for every column.
    pub(super) fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.head.len());
        self.rows.push(row);
    }

    /// Prints all to standard output.
    pub(super) fn print(&self) {
        for line in self.render(output::width()) {
            output::line(&line);
        }
    }

    /// The lines; at most `width` columns wide where it is given and not absurdly small.
    pub(super) fn render(&self, width: Option<usize>) -> Vec<String> {
        let mut widths: Vec<usize> = self.head.iter().map(|text| text.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(measure_text_width(&cell.text));
            }
        }
        if let Some(width) = width {
            fit(&mut widths, width);
        }
        let dim = Style::new().dim();
        let head: Vec<_> = self
            .head
            .iter()
            .map(|text| Cell::styled(text, dim.clone()))
            .collect();
        std::iter::once(&head)
            .chain(&self.rows)
            .map(|row| line(row, &widths))
            .collect()
    }
}

/// Takes away from the last column first, then from the widest.
fn fit(widths: &mut [usize], width: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    let mut over = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
    if let Some(last) = widths.last_mut() {
        let taken = over.min(last.saturating_sub(3 * KEPT));
        *last -= taken;
        over -= taken;
    }
    while over > 0 {
        let Some(widest) = widths.iter_mut().max().filter(|widest| **widest > KEPT) else {
            return;
        };
        *widest -= 1;
        over -= 1;
    }
}

fn line(row: &[Cell], widths: &[usize]) -> String {
    let mut line = String::new();
    for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
        let is_last = index + 1 == widths.len();
        let text = truncate_str(&cell.text, *width, "…");
        let text = if is_last {
            text
        } else {
            Cow::Owned(pad_str(&text, width + GAP, console::Alignment::Left, None).into_owned())
        };
        line.push_str(&cell.style.apply_to(text).to_string());
    }
    line.truncate(line.trim_end().len());
    line
}

/// How wide standard output is, where it is a terminal.
pub(super) fn width_of(terminal: &Term) -> Option<usize> {
    let (_, width) = terminal.size_checked()?;
    terminal.is_term().then_some(usize::from(width))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Columns {
        let mut columns = Columns::new(&["ID", "REASON", "ERROR"]);
        columns.push(vec![
            "3f2a".into(),
            "invalid_request".into(),
            "cpe_id: \u{1b}[31mis\nmissing".repeat(9).into(),
        ]);
        columns.push(vec!["9".into(), "-".into(), "日本語のテキスト".into()]);
        columns
    }

    #[test]
    fn rows_are_aligned_and_whole_where_there_is_no_terminal() {
        let lines = table().render(None);
        assert_eq!(lines[0], "ID    REASON           ERROR");
        assert_eq!(lines[2], "9     -                日本語のテキスト");
        assert!(lines[1].contains("missing") && !lines[1].contains(char::is_control));
    }

    #[test]
    fn rows_fit_into_the_terminal() {
        for width in [34, 40, 80, 200] {
            for line in table().render(Some(width)) {
                assert!(measure_text_width(&line) <= width, "{width}: {line}");
            }
        }
    }
}
