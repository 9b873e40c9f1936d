//! The house rules that no compiler keeps: headers, sizes, layers, forbidden words, and documents that agree with the code.
//!
//! Each rule is a function from files to complaints, so that [`every_rule_can_complain`] can show it something wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use nbi_upgrade::config;
use nbi_upgrade::telemetry::Telemetry;

/// Longest file, in lines, without its inline tests.
const FILE_LINES_MAX: usize = 400;

/// Longest `mod.rs`, in lines, without its inline tests: a front door, not a room.
const MOD_LINES_MAX: usize = 120;

/// Files that may be longer: how long, and why.
const LONGER: [(&str, usize, &str); 10] = [
    (
        "src/driver/amqp/topology.rs",
        450,
        "every object as data, with what to say where the broker refuses it",
    ),
    (
        "src/message/request.rs",
        470,
        "one wire type, each field with its check",
    ),
    (
        "src/job/turn.rs",
        630,
        "one type whose moves belong together; splitting it would hide which of them end a turn",
    ),
    (
        "src/job/state.rs",
        510,
        "the job's data, field for field with its meaning",
    ),
    (
        "src/message/event.rs",
        760,
        "one wire type with its schema, field for field as the contract has it",
    ),
    (
        "src/message/step.rs",
        550,
        "one wire type with both conversions, which must be read side by side",
    ),
    (
        "src/message/mod.rs",
        190,
        "the folder's main type, with the two ways in and the one way out",
    ),
    (
        "src/driver/mod.rs",
        140,
        "the seam itself: one trait, with what each method guarantees",
    ),
    (
        "src/telemetry/metrics.rs",
        440,
        "every metric in one list, with its help and labels",
    ),
    (
        "src/cli/mod.rs",
        270,
        "the command tree with its help texts",
    ),
];

/// What a part of `src/` may not use: crates of others, parts of the standard library.
const FORBIDDEN_CRATES: [(&str, &[&str]); 11] = [
    (
        "src/campaign/",
        &[
            "tokio",
            "lapin",
            "reqwest",
            "serde",
            "serde_json",
            "tracing",
            "prometheus",
            "fastrand",
            "config",
            "uuid",
            "std::net",
            "std::fs",
            "std::env",
            "std::thread",
            "std::time",
            "std::process",
        ],
    ),
    (
        "src/job/",
        &[
            "tokio",
            "lapin",
            "reqwest",
            "serde",
            "serde_json",
            "tracing",
            "prometheus",
            "fastrand",
            "config",
            "std::net",
            "std::fs",
            "std::env",
            "std::thread",
            "std::time",
            "std::process",
        ],
    ),
    (
        "src/message/",
        &[
            "tokio", "lapin", "reqwest", "tracing", "std::net", "std::fs", "std::env",
        ],
    ),
    ("src/nbi/", &["lapin", "std::env"]),
    (
        "src/orphan/",
        &["lapin", "reqwest", "serde_json", "tracing", "std::env"],
    ),
    ("src/driver/", &["reqwest", "std::env"]),
    ("src/driver/local.rs", &["lapin"]),
    (
        "src/worker.rs",
        &["lapin", "reqwest", "serde_json", "tracing", "std::env"],
    ),
    ("src/config/", &["tokio", "lapin", "reqwest", "tracing"]),
    ("src/cli/", &["lapin", "reqwest"]),
    ("src/simulator/", &["lapin", "reqwest", "std::env"]),
];

/// Which of our own modules a module of `src/` may use, besides itself.
const LAYERS: [(&str, &[&str]); 15] = [
    ("job", &[]),
    ("campaign", &["job"]),
    ("clock", &[]),
    ("secret_file", &[]),
    ("tls", &[]),
    ("message", &["job", "campaign"]),
    // The types of the core that settings build.
    ("config", &["job", "message", "secret_file"]),
    ("telemetry", &["job", "campaign", "message", "driver"]),
    ("nbi", &["job", "telemetry", "secret_file", "tls"]),
    (
        "driver",
        &[
            "job",
            "campaign",
            "message",
            "telemetry",
            "clock",
            "secret_file",
            "tls",
        ],
    ),
    (
        "worker",
        &["job", "message", "driver", "nbi", "telemetry", "clock"],
    ),
    (
        "orphan",
        &[
            "job",
            "campaign",
            "message",
            "nbi",
            "driver",
            "telemetry",
            "clock",
        ],
    ),
    // It must not share the logic that it tests: only the types of the seam.
    ("simulator", &["nbi"]),
    (
        "app",
        &[
            "config",
            "driver",
            "message",
            "nbi",
            "orphan",
            "telemetry",
            "worker",
            "clock",
        ],
    ),
    (
        "cli",
        &[
            "app",
            "campaign",
            "config",
            "driver",
            "job",
            "message",
            "nbi",
            "orphan",
            "simulator",
            "telemetry",
            "worker",
            "clock",
        ],
    ),
];

/// Crates that only one folder may use.
const KEPT_IN: [(&str, &str); 3] = [
    ("lapin", "src/driver/amqp/"),
    ("reqwest", "src/nbi/"),
    ("prometheus", "src/telemetry/"),
];

/// The metrics that the contract promises, with their labels.
const METRICS: [(&str, &[&str]); 18] = [
    ("jobs_accepted_total", &[]),
    ("jobs_rejected_total", &["field"]),
    ("jobs_finished_total", &["outcome", "reason"]),
    ("job_duration_seconds", &["outcome"]),
    ("stage_attempts_total", &["result", "stage"]),
    ("stage_duration_seconds", &["stage"]),
    ("nbi_request_duration_seconds", &["operation", "status"]),
    ("nbi_circuit_open", &[]),
    ("device_faults_total", &["code"]),
    ("messages_received_total", &["queue"]),
    ("messages_redelivered_total", &["queue"]),
    ("messages_published_total", &["exchange"]),
    ("publish_confirm_seconds", &["exchange"]),
    ("broker_connected", &[]),
    ("broker_reconnects_total", &[]),
    ("deliveries_in_hand", &[]),
    ("step_lateness_seconds", &[]),
    ("build_info", &["revision", "version"]),
];

/// Metrics beyond the contract.
const MORE_METRICS: [(&str, &[&str]); 33] = [
    ("orphan_rules", &["certainty"]),
    ("orphan_rules_disarmed_total", &[]),
    ("sweeps_total", &["result"]),
    ("jobs_in_jeopardy_total", &["waiting_for"]),
    ("jobs_corrected_total", &["outcome"]),
    ("emergency_stop", &[]),
    ("commands_answered_total", &["answer"]),
    ("campaign_leader", &[]),
    ("campaigns_active", &[]),
    ("campaigns_paused", &[]),
    ("campaign_devices", &["campaign", "state"]),
    ("campaign_condition", &["campaign", "condition"]),
    ("campaign_devices_released_total", &[]),
    ("campaign_pauses_total", &["reason"]),
    ("waits_total", &["waiting_for"]),
    ("released_total", &[]),
    ("panics_total", &[]),
    ("hand_overs_failed_total", &[]),
    ("duplicates_dropped_total", &[]),
    ("jobs_impact_total", &["impact", "outcome"]),
    ("rules_ended_total", &["state"]),
    ("oldest_job_seconds", &[]),
    ("job_deadline_used_ratio", &[]),
    ("queue_messages", &["queue"]),
    ("nbi_refusals_total", &[]),
    ("nbi_circuit_state", &["state"]),
    ("nbi_limiter_wait_seconds", &["class"]),
    ("nbi_concurrency_limit", &[]),
    ("dead_lettered_total", &["reason"]),
    ("steps_parked_total", &[]),
    ("replies_failed_total", &[]),
    ("broker_blocked", &[]),
    ("instance_info", &["name", "prefix"]),
];

/// The types of events that the contract promises.
const EVENT_TYPES: [&str; 17] = [
    "upgrade.jeopardy",
    "upgrade.corrected",
    "upgrade.control.accepted",
    "upgrade.control.refused",
    "upgrade.campaign.accepted",
    "upgrade.campaign.progress",
    "upgrade.campaign.paused",
    "upgrade.campaign.resumed",
    "upgrade.campaign.jeopardy",
    "upgrade.campaign.completed",
    "upgrade.campaign.cancelled",
    "upgrade.accepted",
    "upgrade.progress",
    "upgrade.completed",
    "upgrade.failed",
    "upgrade.cancelled",
    "upgrade.rejected",
];

/// A file: its path from the root, and its text.
struct File {
    path: String,
    text: String,
}

impl File {
    /// The lines before the inline tests.
    fn without_tests(&self) -> Vec<&str> {
        let lines: Vec<_> = self.text.lines().collect();
        let is_test_module = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].ends_with('{');
        let end = lines.windows(2).position(is_test_module);
        lines[..end.unwrap_or(lines.len())].to_vec()
    }

    /// The code alone, without tests and comments.
    fn code(&self) -> String {
        let lines = self.without_tests().into_iter();
        let code: Vec<_> = lines
            .map(|line| {
                if line.trim_start().starts_with("//") {
                    ""
                } else {
                    line
                }
            })
            .collect();
        code.join("\n")
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Rust file below these folders.
fn rust_files(folders: &[&str]) -> Vec<File> {
    let mut open: Vec<_> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut files = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(root())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                files.push(File {
                    text: read(&name),
                    path: name,
                });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!files.is_empty());
    files
}

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Whether `code` names `wanted` as a path's beginning, e.g. `tokio::`, `std::net`, or in `use std::{env, …}`.
fn uses(code: &str, wanted: &str) -> bool {
    let begins_there =
        |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    let ends_there = |at: usize| !code[at..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
    if let Some((_, name)) = wanted.split_once("std::") {
        return modules_below(code, "std").contains(name);
    }
    code.match_indices(wanted).any(|(at, _)| {
        begins_there(at)
            && ends_there(at + wanted.len())
            && code[at + wanted.len()..].starts_with("::")
    })
}

/// The modules named directly below `parent`: in `parent::name` and in `parent::{name, …}`.
fn modules_below(code: &str, parent: &str) -> BTreeSet<String> {
    let name_of = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let mut found = BTreeSet::new();
    for (at, matched) in code.match_indices(&format!("{parent}::")) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + matched.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(name_of(rest));
            continue;
        };
        let (mut depth, mut begun) = (0, 0);
        for (index, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                ',' if depth == 0 => {
                    found.insert(name_of(&group[begun..index]));
                    begun = index + 1;
                }
                '}' if depth == 0 => {
                    found.insert(name_of(&group[begun..index]));
                    break;
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    found.remove("");
    found
}

// ----- the rules -----

fn headers(files: &[File]) -> Vec<String> {
    let lacking = files.iter().filter(|file| !file.text.starts_with("//! "));
    lacking
        .map(|file| {
            format!(
                "{}: begin it with `//!` and one sentence that says what it is for",
                file.path
            )
        })
        .collect()
}

fn sizes(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| !file.is_test()) {
        let lines = file.without_tests().len();
        let exception = LONGER.iter().find(|(path, ..)| *path == file.path);
        let usual = if file.path.ends_with("/mod.rs") {
            MOD_LINES_MAX
        } else {
            FILE_LINES_MAX
        };
        let max = exception.map_or(usual, |(_, max, _)| *max);
        if lines > max {
            complaints.push(format!(
                "{}: {lines} lines without tests, at most {max}",
                file.path
            ));
        }
        if exception.is_some() && lines <= usual {
            complaints.push(format!(
                "{}: short enough by now; take it out of LONGER",
                file.path
            ));
        }
    }
    complaints
}

fn forbidden_crates(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.path.starts_with("src/") && !file.is_test())
    {
        let code = file.code();
        for (part, forbidden) in FORBIDDEN_CRATES {
            if !file.path.starts_with(part) {
                continue;
            }
            for name in forbidden.iter().filter(|name| uses(&code, name)) {
                complaints.push(format!("{}: {part} may not use {name}", file.path));
            }
        }
        for (name, folder) in KEPT_IN {
            if !file.path.starts_with(folder) && uses(&code, name) {
                complaints.push(format!("{}: only {folder} may use {name}", file.path));
            }
        }
    }
    complaints
}

fn layers(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.path.starts_with("src/") && !file.is_test())
    {
        let Some(module) = file.path["src/".len()..].split(['/', '.']).next() else {
            continue;
        };
        if matches!(module, "main" | "lib") {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            complaints.push(format!(
                "{}: say in LAYERS what {module} may use",
                file.path
            ));
            continue;
        };
        let used = modules_below(&file.code(), "crate");
        for name in used
            .iter()
            .filter(|name| *name != module && !allowed.contains(&name.as_str()))
        {
            complaints.push(format!("{}: {module} may not use {name}", file.path));
        }
        let is_bounded = matches!(module, "cli" | "simulator");
        if is_bounded && file.code().contains("job::machine") {
            complaints.push(format!("{}: {module} may not use job::machine", file.path));
        }
    }
    complaints
}

fn words(files: &[File]) -> Vec<String> {
    // Written in two parts, so that this file may stand.
    let forbidden = [
        ["to", "do!("],
        ["db", "g!("],
        ["#[al", "low"],
        ["#![al", "low"],
        ["unimp", "lemented!("],
        ["#[ign", "ore"],
    ];
    let mut complaints = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            let place = format!("{}:{}", file.path, number + 1);
            for word in forbidden.map(|parts| parts.concat()) {
                if line.contains(&word) {
                    complaints.push(format!("{place}: {word} may not stay"));
                }
            }
            for word in [["TO", "DO"], ["FIX", "ME"]].map(|parts| parts.concat()) {
                let is_numbered = line.contains(&format!("{word}(#"));
                if line.contains(&word) && !is_numbered {
                    complaints.push(format!("{place}: {word} needs a number, {word}(#12)"));
                }
            }
        }
    }
    complaints
}

/// Every folder of `src/`, every file beside `lib.rs` and every stage stands in the map, and everything in the map exists.
fn map(files: &[File], text: &str) -> Vec<String> {
    let mut wanted = BTreeSet::new();
    for file in files
        .iter()
        .filter(|file| file.path.starts_with("src/") && !file.is_test())
    {
        let path = &file.path["src/".len()..];
        match path.rsplit_once('/') {
            Some((folder, _)) => {
                wanted.insert(format!("{folder}/"));
            }
            None => {
                wanted.insert(path.to_owned());
            }
        }
        if path.starts_with("job/stages/") && !path.ends_with("mod.rs") {
            wanted.insert(path["job/stages/".len()..].to_owned());
        }
    }
    let quoted: BTreeSet<&str> = text.split('`').skip(1).step_by(2).collect();
    let missing = wanted.iter().filter(|name| !quoted.contains(name.as_str()));
    let is_there = |name: &str| {
        let mut paths = files.iter().map(|file| format!("/{}", file.path));
        match name.strip_suffix('/') {
            Some(_) => paths.any(|path| path.contains(&format!("/{name}"))),
            None => paths.any(|path| path.ends_with(&format!("/{name}"))),
        }
    };
    let gone = quoted
        .iter()
        .filter(|name| name.ends_with(".rs") || name.ends_with('/'))
        .filter(|name| !is_there(name));
    missing
        .map(|name| format!("ARCHITECTURE.md does not name `{name}`"))
        .chain(gone.map(|name| format!("ARCHITECTURE.md names `{name}`, which is not there")))
        .collect()
}

/// Every test that a document names exists. A name with three words or more is taken for a test's.
fn named_tests(files: &[File], document: &str, text: &str) -> Vec<String> {
    let is_name = |word: &str| {
        word.matches('_').count() >= 3
            && word
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let quoted = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| is_name(word));
    quoted
        .filter(|name| {
            !files
                .iter()
                .any(|file| file.text.contains(&format!("fn {name}(")))
        })
        .map(|name| format!("{document} names the test `{name}`, which is not there"))
        .collect()
}

/// The table of the configuration, made from the default file.
fn key_table() -> String {
    let mut table = "| key | default | what |\n| --- | --- | --- |\n".to_owned();
    for key in config::keys() {
        let default = match (&key.default, &key.example) {
            (Some(default), _) => format!("`{default}`"),
            (None, Some(example)) => format!("–, e.g. `{example}`"),
            (None, None) => String::new(),
        };
        writeln!(
            table,
            "| `{}` | {default} | {} |",
            key.path,
            key.doc.replace('|', "\\|")
        )
        .unwrap();
    }
    table
}

/// The text between two marks of a document.
fn between<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<!-- {name}: begin -->\n"))?;
    rest.split_once(&format!("<!-- {name}: end -->"))
        .map(|(inside, _)| inside)
}

/// Name and labels of every metric of ours that an exposition shows.
fn exposed(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut metrics = BTreeMap::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("# TYPE nbi_upgrade_") else {
            continue;
        };
        let name = rest.split(' ').next().unwrap_or_default();
        let sample = text
            .lines()
            .find(|line| !line.starts_with('#') && line.starts_with(&format!("nbi_upgrade_{name}")))
            .unwrap_or_default();
        let labels = sample.split_once('{').map_or("", |(_, rest)| rest);
        let names = labels
            .split("\",")
            .filter_map(|label| label.split_once("=\"").map(|(name, _)| name.to_owned()))
            .filter(|name| name != "le");
        metrics.insert(name.to_owned(), names.collect());
    }
    metrics
}

fn metrics(exposition: &str, readme: &str) -> Vec<String> {
    let exposed = exposed(exposition);
    let wanted: BTreeMap<String, BTreeSet<String>> = METRICS
        .iter()
        .chain(&MORE_METRICS)
        .map(|(name, labels)| {
            (
                (*name).to_owned(),
                labels.iter().map(|label| (*label).to_owned()).collect(),
            )
        })
        .collect();
    let mut complaints = Vec::new();
    for (name, labels) in &wanted {
        match exposed.get(name) {
            None => complaints.push(format!("the metric {name} is promised and not there")),
            Some(found) if found != labels => {
                complaints.push(format!(
                    "the metric {name} has the labels {found:?}, promised are {labels:?}"
                ));
            }
            Some(_) => {}
        }
    }
    for name in exposed.keys() {
        if !wanted.contains_key(name) {
            complaints.push(format!("the metric {name} is not in the list of this test"));
        }
        if !readme.contains(&format!("`{name}")) {
            complaints.push(format!(
                "docs/operators-guide.md does not name the metric `{name}`"
            ));
        }
    }
    complaints
}

fn event_types(code: &str, readme: &str) -> Vec<String> {
    let found: BTreeSet<&str> = code
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|text| text.starts_with("upgrade.") && !text.contains('{'))
        .collect();
    let promised = BTreeSet::from(EVENT_TYPES);
    let differing = found.symmetric_difference(&promised);
    let unnamed = EVENT_TYPES
        .iter()
        .filter(|name| !readme.contains(&format!("`{name}`")));
    differing
        .map(|name| {
            format!("the event type {name} is in the code or in the list of this test, not in both")
        })
        .chain(
            unnamed
                .map(|name| format!("docs/integrators-guide.md does not name the event `{name}`")),
        )
        .collect()
}

fn lengths(documents: &[(&str, usize, usize)]) -> Vec<String> {
    let too_long = documents.iter().filter(|(_, lines, max)| lines > max);
    too_long
        .map(|(name, lines, max)| format!("{name}: {lines} lines, at most {max}"))
        .collect()
}

// ----- the house as it stands -----

#[test]
fn every_file_says_what_it_is_for() {
    assert_none(&headers(&rust_files(&["src", "tests"])));
}

#[test]
fn no_file_is_longer_than_agreed() {
    let files = rust_files(&["src"]);
    assert_none(&sizes(&files));
    for (path, _, reason) in LONGER {
        assert!(
            files.iter().any(|file| file.path == path) && !reason.is_empty(),
            "{path} in LONGER is not there"
        );
    }
}

#[test]
fn no_module_uses_what_it_must_not() {
    let files = rust_files(&["src"]);
    assert_none(&forbidden_crates(&files));
    assert_none(&layers(&files));
}

#[test]
fn only_one_file_reads_the_environment() {
    let reading: Vec<_> = rust_files(&["src"])
        .into_iter()
        .filter(|file| {
            !file.is_test() && (uses(&file.code(), "std::env") || file.code().contains("env::var"))
        })
        .map(|file| file.path)
        .collect();
    // The log asks `NO_COLOR`, as every program does.
    assert_eq!(reading, ["src/config/load.rs", "src/telemetry/log.rs"]);
}

#[test]
fn only_one_folder_writes_log_lines() {
    let levels = ["error", "warn", "info", "debug", "trace"];
    let writing: Vec<_> = rust_files(&["src"])
        .into_iter()
        .filter(|file| !file.is_test() && !file.path.starts_with("src/telemetry/observe/"))
        .filter(|file| {
            let code = file.code();
            let is_written = |level: &&str| code.contains(&format!("tracing::{level}!("));
            levels.iter().any(is_written)
        })
        .map(|file| file.path)
        .collect();
    assert_eq!(
        writing,
        Vec::<String>::new(),
        "lines are in docs/logs.md, so that somebody finds them"
    );
}

#[test]
fn nothing_unfinished_is_left() {
    assert_none(&words(&rust_files(&["src", "tests"])));
}

#[test]
fn the_map_names_every_module() {
    assert_none(&map(
        &rust_files(&["src", "tests", "benches"]),
        &read("ARCHITECTURE.md"),
    ));
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let files = rust_files(&["src", "tests"]);
    for document in [
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/nbi-semantics.md",
        "docs/decisions.md",
    ] {
        assert_none(&named_tests(&files, document, &read(document)));
    }
}

#[test]
fn the_configuration_has_every_key_as_the_default_file_has_it() {
    let wanted = key_table();
    let document = read("docs/configuration.md");
    if between(&document, "keys") != Some(wanted.as_str()) {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("keys.md");
        std::fs::write(&path, wanted).unwrap();
        panic!(
            "put the table from {} between the marks `keys` of docs/configuration.md",
            path.display()
        );
    }
}

#[test]
fn metrics_are_those_that_are_promised() {
    let telemetry = Telemetry::default();
    telemetry.worker_named("upgrade", "worker-1");
    let exposition = telemetry.metrics_text().unwrap();
    assert_none(&metrics(&exposition, &read("docs/operators-guide.md")));
}

#[test]
fn event_types_are_those_that_are_promised() {
    let file = File {
        path: "src/message/event.rs".to_owned(),
        text: read("src/message/event.rs"),
    };
    assert_none(&event_types(
        &file.code(),
        &read("docs/integrators-guide.md"),
    ));
}

#[test]
fn documents_stay_short() {
    let lines = |path: &str| read(path).lines().count();
    assert_none(&lengths(&[
        ("README.md", lines("README.md"), 110),
        ("ARCHITECTURE.md", lines("ARCHITECTURE.md"), 230),
        ("CONTRIBUTING.md", lines("CONTRIBUTING.md"), 150),
    ]));
}

#[test]
fn every_rule_can_complain() {
    let file = |path: &str, text: &str| File {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let long = "//! Long.\n".to_owned() + &"fn x() {}\n".repeat(401);
    let tested = "//! Short.\n#[cfg(test)]\nmod tests {\n".to_owned() + &"fn x() {}\n".repeat(401);
    let one = |complaints: Vec<String>| assert_eq!(complaints.len(), 1, "{complaints:?}");
    one(headers(&[
        file("src/a.rs", "// Not a header.\n"),
        file("src/b.rs", "//! A header.\n"),
    ]));
    one(sizes(&[
        file("src/a.rs", &long),
        file("src/b.rs", &tested),
        file("src/job/tests/c.rs", &long),
    ]));
    one(sizes(&[file("src/a/mod.rs", &"//! x\n".repeat(121))]));
    one(sizes(&[file("src/job/turn.rs", "//! Short by now.\n")]));
    one(forbidden_crates(&[file(
        "src/job/a.rs",
        "//! x\n// tokio::spawn\nuse std::{fmt, net::{self}};\nuse jiff::tz;\n",
    )]));
    one(forbidden_crates(&[file(
        "src/app.rs",
        "//! x\nuse lapin::Channel;\n",
    )]));
    one(layers(&[file(
        "src/message/a.rs",
        "//! x\nuse crate::{job::{Job, state}, nbi};\n",
    )]));
    one(layers(&[file("src/stranger.rs", "//! x\n")]));
    one(layers(&[file(
        "src/cli/a.rs",
        "//! x\nuse crate::job::machine;\n",
    )]));
    one(words(&[file(
        "src/a.rs",
        &["    to", "do!()\n// TO", "DO(#12): later\n"].concat(),
    )]));
    one(words(&[file(
        "src/a.rs",
        &["// TO", "DO: later\n"].concat(),
    )]));
    let house = [file("src/new/mod.rs", ""), file("src/app.rs", "")];
    one(map(&house, "`app.rs`"));
    one(map(&house, "`app.rs` `new/` `gone.rs`"));
    one(named_tests(
        &[file("src/a.rs", "fn what_is_there_is_there() {}")],
        "x",
        "`what_is_there_is_there`, `what_is_not_is_not`",
    ));
    assert_eq!(metrics("", "").len(), METRICS.len() + MORE_METRICS.len());
    let all_named = EVENT_TYPES.map(|name| format!("`{name}`")).concat();
    assert_eq!(
        event_types(r#"x("upgrade.started")"#, &all_named).len(),
        EVENT_TYPES.len() + 1
    );
    one(lengths(&[("x", 2, 1), ("y", 1, 1)]));
    assert_eq!(
        between("a<!-- k: begin -->\nb\n<!-- k: end -->", "k"),
        Some("b\n")
    );
}
