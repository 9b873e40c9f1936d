//! Layers the sources: compiled-in defaults, file, environment, flags. What each value was taken from is kept with it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use config::{FileFormat, Format, Map, Source, Value, ValueKind};

use super::fault::Fault;
use super::keys::DEFAULT_FILE;
use super::reader::{Leaf, Reader};

/// What every environment variable of ours begins with.
pub const ENVIRONMENT_PREFIX: &str = "NBI_UPGRADE_";

/// Variables that begin like ours and are no keys: the file's path (`--config`), the build's revision, and a flag of the simulator.
const NOT_KEYS: [&str; 3] = [
    "NBI_UPGRADE_CONFIG",
    "NBI_UPGRADE_REVISION",
    "NBI_UPGRADE_SIMULATOR_PASSWORD",
];

/// Variables of the test suite begin with this.
const TEST_PREFIX: &str = "NBI_UPGRADE_TEST_";

/// Where the configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file, if one is given; it must exist.
    pub file: Option<PathBuf>,
    /// Environment variables; those of others are passed over.
    pub environment: Vec<(OsString, OsString)>,
    /// Keys set on the command line, e.g. `("http.listen", "127.0.0.1:9464")`. Lists are separated by commas.
    pub flags: Vec<(String, String)>,
    /// The host's name: the default of `instance.name`.
    pub host_name: Option<String>,
}

impl Sources {
    /// The sources of this process: its environment and host name, and what its command line gave.
    #[must_use]
    pub fn of_this_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        let host_name = std::env::var("HOSTNAME")
            .ok()
            .or_else(|| std::fs::read_to_string("/etc/hostname").ok())
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty());
        Self {
            file,
            environment: std::env::vars_os().collect(),
            flags,
            host_name,
        }
    }
}

/// The environment variable that sets a key.
#[must_use]
pub fn environment_variable(key: &str) -> String {
    format!(
        "{ENVIRONMENT_PREFIX}{}",
        key.to_uppercase().replace('.', "__")
    )
}

/// The layered values, ready to be read; faults of the layering itself are already noted.
pub(super) fn layers(sources: &Sources) -> Reader {
    let mut notes = Notes::default();
    let mut builder = config::Config::builder();
    builder = builder.add_source(default_layer(&mut notes));
    if let Some(path) = &sources.file {
        builder = builder.add_source(file_layer(path, &mut notes));
    }
    builder = builder.add_source(environment_layer(&sources.environment, &mut notes));
    builder = builder.add_source(flag_layer(&sources.flags, &mut notes));
    let mut values = BTreeMap::new();
    match builder.build().and_then(|layered| layered.collect()) {
        Ok(root) => root
            .into_iter()
            .for_each(|(section, value)| flatten(section, value, &mut values)),
        Err(error) => notes
            .faults
            .push(whole("configuration", "", error.to_string())),
    }
    Reader::new(values, notes.faults, notes.strangers)
}

/// What was noticed while layering.
#[derive(Default)]
struct Notes {
    faults: Vec<Fault>,
    /// Names that cannot be keys, with their origin.
    strangers: Vec<(String, String)>,
}

/// One source, as `config` wants it.
#[derive(Debug, Clone)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

fn default_layer(notes: &mut Notes) -> Layer {
    toml_layer("default", DEFAULT_FILE, notes)
}

fn file_layer(path: &Path, notes: &mut Notes) -> Layer {
    let origin = format!("file {}", path.display());
    match std::fs::read_to_string(path) {
        Ok(text) => toml_layer(&origin, &text, notes),
        Err(error) => {
            let remedy = "give the path of a TOML file that this user may read";
            notes.faults.push(Fault {
                remedy: remedy.to_owned(),
                ..whole("--config", &origin, format!("cannot be read: {error}"))
            });
            Layer(Map::new())
        }
    }
}

fn toml_layer(origin: &str, text: &str, notes: &mut Notes) -> Layer {
    let mut layer = Map::new();
    match FileFormat::Toml.parse(Some(&origin.to_owned()), text) {
        Ok(sections) => {
            for (section, value) in sections {
                if !is_plain(&section) || !matches!(value.kind, ValueKind::Table(_)) {
                    notes.strangers.push((section, origin.to_owned()));
                } else {
                    layer.insert(section, value);
                }
            }
        }
        Err(error) => {
            let problem = format!("is not valid TOML: {}", without_source(&error.to_string()));
            let remedy =
                "strings and durations stand in quotes; see deploy/nbi-upgrade.default.toml"
                    .to_owned();
            notes.faults.push(Fault {
                remedy,
                ..whole("--config", origin, problem)
            });
        }
    }
    Layer(layer)
}

fn environment_layer(environment: &[(OsString, OsString)], notes: &mut Notes) -> Layer {
    // Not `config::Environment`: it forgets which variable a value came from, and rejects the whole environment for one bad value.
    let mut layer = Map::new();
    for (name, value) in environment {
        let Some(name) = name.to_str() else { continue };
        let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else {
            continue;
        };
        if NOT_KEYS.contains(&name)
            || name.starts_with(TEST_PREFIX)
            || is_kubernetes_service_link(rest)
        {
            continue;
        }
        let origin = format!("environment variable {name}");
        let key = rest.to_lowercase().replace("__", ".");
        if !key.contains('.') || !is_plain(&key) || environment_variable(&key) != name {
            notes.strangers.push((name.to_owned(), origin));
            continue;
        }
        match value.to_str() {
            Some(value) => drop(layer.insert(key, Value::new(Some(&origin), value))),
            None => notes
                .faults
                .push(whole(&key, &origin, "is not valid UTF-8".to_owned())),
        }
    }
    Layer(layer)
}

fn flag_layer(flags: &[(String, String)], notes: &mut Notes) -> Layer {
    let origin = "command line".to_owned();
    let mut layer = Map::new();
    for (key, value) in flags {
        if key.contains('.') && is_plain(key) {
            layer.insert(key.clone(), Value::new(Some(&origin), value.as_str()));
        } else {
            notes.strangers.push((key.clone(), origin.clone()));
        }
    }
    Layer(layer)
}

/// Kubernetes adds variables for every service of the namespace (documented: "Accessing the Service", environment variables), so
/// a service named `nbi-upgrade` or `nbi-upgrade-metrics` brings `NBI_UPGRADE_SERVICE_HOST`, `NBI_UPGRADE_METRICS_PORT_9464_TCP_ADDR` …
fn is_kubernetes_service_link(rest: &str) -> bool {
    if rest.contains("__") {
        return false;
    }
    let rest = format!("_{rest}");
    let is_port = |text: &str| {
        text.is_empty()
            || text
                .strip_prefix('_')
                .and_then(|numbered| numbered.split_once('_'))
                .is_some_and(|(number, protocol)| {
                    number.parse::<u16>().is_ok()
                        && ["TCP", "UDP", "SCTP"].iter().any(|known| {
                            protocol.strip_prefix(known).is_some_and(|part| {
                                ["", "_PROTO", "_PORT", "_ADDR"].contains(&part)
                            })
                        })
                })
    };
    rest.ends_with("_SERVICE_HOST")
        || rest.contains("_SERVICE_PORT")
        || rest
            .match_indices("_PORT")
            .any(|(at, found)| is_port(&rest[at + found.len()..]))
}

/// Whether a name is made of what keys are made of; `config` would read anything else as a path expression.
fn is_plain(name: &str) -> bool {
    name.split('.').all(|part| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    })
}

fn flatten(path: String, value: Value, into: &mut BTreeMap<String, Leaf>) {
    let origin = value.origin().unwrap_or_default().to_owned();
    match value.kind {
        ValueKind::Table(table) => {
            table
                .into_iter()
                .for_each(|(key, value)| flatten(format!("{path}.{key}"), value, into));
        }
        kind => drop(into.insert(path, Leaf { kind, origin })),
    }
}

fn whole(key: &str, origin: &str, problem: String) -> Fault {
    Fault {
        key: key.to_owned(),
        value: None,
        origin: origin.to_owned(),
        problem,
        remedy: String::new(),
    }
}

/// The parser's words without the lines of the file that it quotes: a password may stand there.
fn without_source(error: &str) -> String {
    let lines: Vec<&str> = error
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.contains('|'))
        .collect();
    lines.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_kubernetes_adds_for_a_service_of_this_name_are_passed_over() {
        for theirs in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_METRICS",
            "PORT",
            "PORT_9464_TCP",
            "PORT_9464_TCP_ADDR",
            "METRICS_SERVICE_HOST",
            "METRICS_PORT_9464_TCP_PROTO",
        ] {
            assert!(is_kubernetes_service_link(theirs), "{theirs}");
        }
        for ours in [
            "NBI__URL",
            "NBI_URL",
            "HTTP__PORT",
            "IMPORT",
            "PORTS",
            "PORT_X_TCP",
        ] {
            assert!(!is_kubernetes_service_link(ours), "{ours}");
        }
    }

    #[test]
    fn a_syntax_error_does_not_quote_the_file() {
        let quoted = "TOML parse error at line 2, column 9\n  |\n2 | password = hunter2\n  |         ^\ninvalid value\n";
        assert_eq!(
            without_source(quoted),
            "TOML parse error at line 2, column 9: invalid value"
        );
    }
}
