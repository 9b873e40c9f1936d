//! What is wrong with a configuration: every fault names the key, the value, where it came from and the remedy.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key, as a path with dots; for a whole file, its path.
    pub key: String,
    /// The value, cut; `None` where there is none or where it may hold a secret.
    pub value: Option<String>,
    /// Where the value came from: `file …`, `environment variable …`, `command line`, `default`; empty where it is not set.
    pub origin: String,
    /// What is wrong; completes "`key` …".
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.key)?;
        if let Some(value) = &self.value {
            write!(formatter, " = {value:?}")?;
        }
        if !self.origin.is_empty() {
            write!(formatter, " ({})", self.origin)?;
        }
        write!(formatter, ": {}", self.problem)?;
        if !self.remedy.is_empty() {
            write!(formatter, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// The configuration is wrong. The operator's fault; nothing was opened yet, and the process ends with status 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Every fault, in the order of the sections.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.faults.as_slice() {
            [only] => write!(formatter, "the configuration has a fault: {only}"),
            faults => {
                write!(formatter, "the configuration has {} faults:", faults.len())?;
                faults
                    .iter()
                    .try_for_each(|fault| write!(formatter, "\n  {fault}"))
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// The key that was probably meant.
///
/// Separators do not count, as `NBI_UPGRADE_NBI_URL` for `NBI_UPGRADE_NBI__URL` is the most likely slip of all. A right name in
/// the wrong section is found too.
pub(super) fn suggestion<'a>(
    wrong: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let plain = |key: &str| key.to_lowercase().replace(['.', '_', '-'], "");
    let wanted = plain(wrong);
    let limit = (wanted.chars().count() / 4).max(2);
    let near = known
        .clone()
        .map(|key| (distance(&wanted, &plain(key)), key))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance);
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_lowercase();
    near.map(|(_, key)| key).or_else(|| {
        let mut same_name = known.filter(|key| last(key) == last(wrong));
        same_name.next().filter(|_| same_name.next().is_none())
    })
}

/// Edits (insert, delete, replace) that turn one text into the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, from_char) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, to_char) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(from_char != *to_char);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 6] = [
        "nbi.url",
        "nbi.timeout",
        "job.timeout",
        "amqp.prefetch",
        "amqp.prefetch_requests",
        "amqp.heartbeat",
    ];

    #[test]
    fn distance_counts_edits() {
        for (from, to, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("url", "ulr", 2),
            ("a", "a", 0),
        ] {
            assert_eq!(distance(from, to), edits, "{from} {to}");
            assert_eq!(distance(to, from), edits, "{to} {from}");
        }
    }

    #[test]
    fn the_key_that_was_meant_is_suggested() {
        for (wrong, meant) in [
            ("nbi_url", Some("nbi.url")),
            ("nbi.timout", Some("nbi.timeout")),
            ("amqp.prefetch_request", Some("amqp.prefetch_requests")),
            ("nbi.heartbeat", Some("amqp.heartbeat")),
            ("AMQP.Prefetch", Some("amqp.prefetch")),
            ("something.else", None),
        ] {
            assert_eq!(suggestion(wrong, KNOWN.into_iter()), meant, "{wrong}");
        }
    }
}
