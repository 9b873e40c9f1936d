//! What was measured, as a table for people and as JSON for the history.

use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};

/// A report that grows.
pub(crate) struct Report {
    head: Value,
    tables: Vec<Table>,
    targets: Vec<Target>,
    printed: usize,
    targets_printed: usize,
}

struct Table {
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<(String, Vec<f64>)>,
}

struct Target {
    what: String,
    value: f64,
    bound: Bound,
}

/// What a figure is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("at most {limit}"),
            Self::AtLeast(limit) => format!("at least {limit}"),
        }
    }
}

impl Report {
    pub(crate) fn new(broker: String) -> Self {
        let head = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "revision": output("git", &["rev-parse", "--short", "HEAD"]),
            "rustc": output("rustc", &["--version"]),
            "rabbitmq": broker,
            "kernel": output("uname", &["-sr"]),
            "processor": processor(),
            "processors": std::thread::available_parallelism().map_or(0, usize::from),
            "time": jiff::Timestamp::now().to_string(),
        });
        for (name, value) in head.as_object().into_iter().flatten() {
            println!(
                "{name:<11} {}",
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned)
            );
        }
        Self {
            head,
            tables: Vec::new(),
            targets: Vec::new(),
            printed: 0,
            targets_printed: 0,
        }
    }

    /// Adds a table; each row has a name and one value for each column.
    pub(crate) fn table(
        &mut self,
        title: impl Into<String>,
        columns: &[&'static str],
        rows: Vec<(String, Vec<f64>)>,
    ) {
        self.tables.push(Table {
            title: title.into(),
            columns: columns.to_vec(),
            rows,
        });
    }

    /// Adds a figure that is to keep a bound.
    pub(crate) fn target(&mut self, what: impl Into<String>, value: f64, bound: Bound) {
        self.targets.push(Target {
            what: what.into(),
            value,
            bound,
        });
    }

    /// Prints what was added since the last time.
    pub(crate) fn print_new(&mut self) {
        for table in &self.tables[self.printed..] {
            let widths = table
                .columns
                .iter()
                .map(|column| column.len().max(8))
                .collect::<Vec<_>>();
            let heads = table
                .columns
                .iter()
                .zip(&widths)
                .map(|(column, width)| format!("  {column:>width$}"));
            println!("\n{}\n{:<28}{}", table.title, "", heads.collect::<String>());
            for (name, values) in &table.rows {
                let cells = values
                    .iter()
                    .zip(&widths)
                    .map(|(value, width)| format!("  {:>width$}", shown(*value)));
                println!("{name:<28}{}", cells.collect::<String>());
            }
        }
        if self.targets_printed < self.targets.len() {
            println!();
        }
        for target in &self.targets[self.targets_printed..] {
            let word = if target.bound.holds(target.value) {
                "met   "
            } else {
                "MISSED"
            };
            println!(
                "{word}  {:<58} {:>9}  {}",
                target.what,
                shown(target.value),
                target.bound.text()
            );
        }
        (self.printed, self.targets_printed) = (self.tables.len(), self.targets.len());
    }

    /// Writes all of it as JSON.
    pub(crate) fn write(&self, path: &Path) {
        let tables = self.tables.iter().map(|table| {
            let rows = table.rows.iter().map(|(name, values)| {
                let cells = table
                    .columns
                    .iter()
                    .zip(values)
                    .map(|(column, value)| ((*column).to_owned(), json!(value)));
                let mut row: Map<String, Value> = cells.collect();
                row.insert("name".to_owned(), json!(name));
                Value::Object(row)
            });
            json!({"title": table.title, "rows": rows.collect::<Vec<_>>()})
        });
        let targets = self.targets.iter().map(|target| {
            json!({"what": target.what, "value": target.value, "bound": target.bound.text(), "met": target.bound.holds(target.value)})
        });
        let all = json!({"run": self.head, "tables": tables.collect::<Vec<_>>(), "targets": targets.collect::<Vec<_>>()});
        std::fs::write(path, format!("{all:#}\n")).expect("the JSON can be written");
        println!("\nJSON: {}", path.display());
    }
}

/// Three digits that count.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The median.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn output(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    line.map_or_else(
        || "unknown".to_owned(),
        |line| line.trim_start_matches([' ', '\t', ':']).to_owned(),
    )
}
