//! Every key with its default and its doc, read from `deploy/nbi-upgrade.default.toml`, which is compiled in.

/// The default file. Documentation and lowest layer at once, so the two cannot differ.
pub const DEFAULT_FILE: &str = include_str!("../../deploy/nbi-upgrade.default.toml");

/// One key, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDoc {
    /// The path, e.g. `nbi.timeout`.
    pub path: String,
    /// The default as TOML; `None` where the key is not set by default.
    pub default: Option<String>,
    /// For a key that is not set by default: an example as TOML.
    pub example: Option<String>,
    /// What it is, its unit and range, and the reason of its default.
    pub doc: String,
}

/// Every key, in the order of the default file.
///
/// The file's form: a `[section]` line; comment lines; then `key = value` or, where there is no default, `# key = example`.
#[must_use]
pub fn keys() -> Vec<KeyDoc> {
    let mut section = "";
    let mut doc: Vec<&str> = Vec::new();
    let mut keys = Vec::new();
    for line in DEFAULT_FILE.lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name;
            doc.clear();
        } else if let Some((name, value)) = assignment(line) {
            keys.push(key(section, name, &doc, Some(value), None));
            doc.clear();
        } else if let Some((name, value)) = line.strip_prefix("# ").and_then(assignment) {
            keys.push(key(section, name, &doc, None, Some(value)));
            doc.clear();
        } else if let Some(comment) = line.strip_prefix("# ") {
            doc.push(comment);
        } else {
            doc.clear();
        }
    }
    keys
}

fn key(
    section: &str,
    name: &str,
    doc: &[&str],
    default: Option<&str>,
    example: Option<&str>,
) -> KeyDoc {
    KeyDoc {
        path: format!("{section}.{name}"),
        default: default.map(str::to_owned),
        example: example.map(str::to_owned),
        doc: doc.join(" "),
    }
}

fn assignment(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(" = ")?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    is_name.then_some((name, value))
}
