//! The dashboards in `deploy/` are what this folder makes, the chart has copies of them, and neither they nor the rules and the runbook name
//! anything that is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use nbi_upgrade::job::fault::FaultPolicy;
use nbi_upgrade::telemetry::{Telemetry, names};

use super::board::Board;
use super::promql::CONFIGURATION_FAULTS;
use super::{campaigns, fleet, nbi, worker};

/// Where the Helm chart has its copy.
const CHART: &str = "deploy/helm/nbi-upgrade/files";

/// Set to write the files anew, and the chart's copies of them.
const ACCEPT: &str = "NBI_UPGRADE_ACCEPT";

/// Labels that Prometheus, our rules or Alertmanager add.
const LABELS_OF_OTHERS: [&str; 6] = [
    "job",
    "instance",
    "le",
    "alertname",
    "alertstate",
    "severity",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every dashboard with its file.
pub(super) fn dashboards() -> Vec<(PathBuf, Board)> {
    let file = |name: &str| root().join("deploy/grafana").join(format!("{name}.json"));
    vec![
        (file("fleet"), fleet::board()),
        (file("campaigns"), campaigns::board()),
        (file("nbi"), nbi::board()),
        (file("worker"), worker::board()),
    ]
}

#[test]
fn the_dashboards_are_those_that_this_makes() {
    for (path, board) in dashboards() {
        let wanted = serde_json::to_string_pretty(&board.value()).unwrap() + "\n";
        if std::env::var_os(ACCEPT).is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        is_in_the_chart(&format!("dashboards/{}", file_name(&path)), &wanted);
        assert!(
            found == wanted,
            "{} is not what tests/it/observe makes: {ACCEPT}=1 cargo test --test it the_dashboards_are",
            path.display()
        );
    }
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .expect("it is named here")
}

/// A chart can only use what is in its own folder.
fn is_in_the_chart(name: &str, wanted: &str) {
    let path = root().join(CHART).join(name);
    if std::env::var_os(ACCEPT).is_some() {
        std::fs::write(&path, wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "{} is not as it should be: {ACCEPT}=1 cargo test --test it observe::drift",
        path.display()
    );
}

#[test]
fn the_chart_has_the_rules() {
    is_in_the_chart("rules.yml", &read("deploy/prometheus/rules.yml"));
}

/// Every metric of a worker with its labels, as its endpoint shows them; of a histogram also its parts.
fn exposed() -> BTreeMap<String, BTreeSet<String>> {
    let telemetry = Telemetry::default();
    telemetry.worker_named("upgrade", "worker-1");
    let text = telemetry.metrics_text().unwrap();
    let mut metrics = BTreeMap::<String, BTreeSet<String>>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').unwrap().0;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.split(',').filter_map(|pair| pair.split_once('='));
        metrics
            .entry(name.to_owned())
            .or_default()
            .extend(labels.map(|(label, _)| label.to_owned()));
    }
    metrics
}

/// What is wrong with the metrics and labels that a text with queries names. Names with a colon are recorded by the rules themselves.
fn strangers(text: &str, metrics: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut complaints = BTreeSet::new();
    for (at, _) in text.match_indices("nbi_upgrade") {
        if text[..at].ends_with(is_name) {
            continue;
        }
        let name: String = text[at..].chars().take_while(|c| is_name(*c)).collect();
        if name.contains(':') || !name.contains("nbi_upgrade_") {
            continue;
        }
        let Some(known) = metrics.get(&name) else {
            complaints.insert(format!("there is no metric {name}"));
            continue;
        };
        let Some(selector) = text[at + name.len()..].strip_prefix('{') else {
            continue;
        };
        // In JSON, quotes are escaped.
        let selector = selector.replace("\\\"", "\"");
        for label in labels_in(&selector) {
            if !known.contains(&label) && !LABELS_OF_OTHERS.contains(&label.as_str()) {
                complaints.insert(format!("the metric {name} has no label {label}"));
            }
        }
    }
    complaints.into_iter().collect()
}

/// The labels of a selector, from behind its opening brace.
fn labels_in(selector: &str) -> Vec<String> {
    let mut labels = Vec::new();
    let mut label = String::new();
    let mut is_quoted = false;
    for character in selector.chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            '}' => break,
            ',' => label.clear(),
            '=' | '!' if !label.is_empty() => {
                labels.push(std::mem::take(&mut label).trim().to_owned())
            }
            '=' | '!' | '~' => {}
            _ => label.push(character),
        }
    }
    labels
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn dashboards_rules_and_runbook_name_only_metrics_that_are_there() {
    let metrics = exposed();
    let mut complaints = Vec::new();
    for (_, board) in dashboards() {
        complaints.extend(strangers(&board.value().to_string(), &metrics));
    }
    for path in [
        "deploy/prometheus/rules.yml",
        "deploy/prometheus/rules.test.yml",
        "docs/runbook.md",
        "docs/dashboards.md",
    ] {
        complaints.extend(
            strangers(&read(path), &metrics)
                .into_iter()
                .map(|text| format!("{path}: {text}")),
        );
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn every_metric_is_shown_or_watched() {
    let boards: String = dashboards()
        .into_iter()
        .map(|(_, board)| board.value().to_string())
        .collect();
    let shown = boards + &read("deploy/prometheus/rules.yml");
    let forgotten: Vec<_> = names::ALL
        .iter()
        .filter(|name| !shown.contains(**name))
        .collect();
    assert!(
        forgotten.is_empty(),
        "in no dashboard and no rule: {forgotten:?}"
    );
}

#[test]
fn configuration_faults_are_those_of_the_default_configuration() {
    let codes = FaultPolicy::default().configuration;
    let wanted = codes
        .iter()
        .map(u16::to_string)
        .collect::<Vec<_>>()
        .join("|");
    assert_eq!(CONFIGURATION_FAULTS, wanted);
    assert!(read("deploy/prometheus/rules.yml").contains(&format!("code=~\"{wanted}\"")));
}

/// An alert as it stands in the rules.
#[derive(Default)]
struct Alert {
    name: String,
    fields: BTreeMap<String, String>,
}

/// The alerts of a rules file; promtool sees to its syntax, this only reads lines.
fn alerts(text: &str) -> Vec<Alert> {
    let mut alerts = Vec::<Alert>::new();
    for line in text.lines().map(str::trim) {
        let line = line.strip_prefix("- ").unwrap_or(line);
        let Some((key, value)) = line.split_once(": ") else {
            continue;
        };
        if key == "alert" {
            alerts.push(Alert {
                name: value.to_owned(),
                ..Alert::default()
            });
        } else if key == "record" {
            alerts.push(Alert::default());
        } else if let Some(alert) = alerts.last_mut() {
            alert
                .fields
                .insert(key.to_owned(), value.trim_matches('"').to_owned());
        }
    }
    alerts.retain(|alert| !alert.name.is_empty());
    alerts
}

/// What an alert lacks.
fn lacking(alert: &Alert, runbook: &str, tests: &str) -> Vec<String> {
    let name = &alert.name;
    let mut complaints = Vec::new();
    let field = |key: &str| alert.fields.get(key).map_or("", String::as_str);
    if !["critical", "warning"].contains(&field("severity")) {
        complaints.push(format!("{name}: severity is {:?}", field("severity")));
    }
    for key in ["summary", "description", "for"] {
        if field(key).is_empty() {
            complaints.push(format!("{name} has no {key}"));
        }
    }
    let anchor = name.to_ascii_lowercase();
    if field("runbook_url") != format!("docs/runbook.md#{anchor}") {
        complaints.push(format!("{name}: runbook_url is {:?}", field("runbook_url")));
    }
    let section = runbook
        .split_once(&format!("\n## {name}\n"))
        .map(|(_, rest)| rest);
    match section.map(|rest| rest.split("\n## ").next().unwrap_or_default()) {
        None => complaints.push(format!("docs/runbook.md has no section {name}")),
        Some(section) => {
            for part in ["**Meaning.**", "**Impact.**", "**Look at.**", "**Do.**"] {
                if !section.contains(part) {
                    complaints.push(format!("docs/runbook.md, {name}: {part} is missing"));
                }
            }
        }
    }
    if !tests.contains(&format!("alertname: {name}\n")) {
        complaints.push(format!("rules.test.yml does not try {name}"));
    }
    complaints
}

#[test]
fn every_alert_says_what_it_means_and_what_to_do() {
    let alerts = alerts(&read("deploy/prometheus/rules.yml"));
    assert!(alerts.len() >= 10, "{}", alerts.len());
    let (runbook, tests) = (
        read("docs/runbook.md"),
        read("deploy/prometheus/rules.test.yml"),
    );
    let mut complaints: Vec<_> = alerts
        .iter()
        .flat_map(|alert| lacking(alert, &runbook, &tests))
        .collect();
    let known: BTreeSet<_> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    let sections = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## NbiUpgrade"));
    complaints.extend(
        sections
            .map(|rest| format!("NbiUpgrade{rest}"))
            .filter(|name| !known.contains(name.as_str()))
            .map(|name| {
                format!("docs/runbook.md has a section {name}, and there is no such alert")
            }),
    );
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn the_checks_can_complain() {
    let metrics = exposed();
    let bad = r#"sum(nbi_upgrade_jobs_acepted_total) + nbi_upgrade_waits_total{job="x",reason="y"} + nbi_upgrade:recorded"#;
    assert_eq!(
        strangers(bad, &metrics),
        [
            "the metric nbi_upgrade_waits_total has no label reason",
            "there is no metric nbi_upgrade_jobs_acepted_total"
        ]
    );
    let rules = "  - alert: NbiUpgradeX\n    expr: up\n    labels:\n      severity: bad\n";
    let alerts = alerts(rules);
    assert_eq!(lacking(&alerts[0], "", "").len(), 7);
}
