//! `docs/cli.md`: every command in it is run against a real broker and a simulated NBI, and what it prints must be what stands there.
//!
//! Files that the document shows are written, commands are run in its order, and the output takes the old one's place. Where the new
//! document says something else, it is left beside the tests, to be looked at and taken over. Times, durations, ports and the ids of
//! letters differ from run to run; they are compared by their form only.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use lapin::BasicProperties;

use crate::support::collector::{Collector, Seen};
use crate::support::processes::until;
use crate::support::site::{PATIENCE, PREFIX, Plan, Site};

const DOCUMENT: &str = "docs/cli.md";

/// The document's ids of letters, and this run's.
#[derive(Default)]
struct Ids {
    documented: Vec<String>,
    found: Vec<String>,
}

impl Ids {
    fn of(document: &str) -> Self {
        let mut ids = Self::default();
        collect(document, &mut ids.documented);
        ids
    }

    /// The command as it must be typed here.
    fn here(&self, command: &str) -> String {
        self.replaced(command, &self.documented, &self.found)
    }

    /// The output as it would stand in the document.
    fn there(&mut self, output: &str) -> String {
        collect(output, &mut self.found);
        self.replaced(output, &self.found, &self.documented)
    }

    fn replaced(&self, text: &str, from: &[String], to: &[String]) -> String {
        let mut text = text.to_owned();
        for (from, to) in from.iter().zip(to) {
            text = text.replace(from, to);
        }
        text
    }
}

/// The ids of letters in a text, in order: ten hexadecimal digits.
fn collect(text: &str, ids: &mut Vec<String>) {
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()) {
        let is_id = word.len() == 10
            && word
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if is_id && !ids.iter().any(|id| id == word) {
            ids.push(word.to_owned());
        }
    }
}

/// A line without what differs from run to run.
fn steady(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut steady = Vec::with_capacity(words.len());
    for (index, word) in words.iter().enumerate() {
        let core = word.trim_matches([',', ';', '(', ')', '"']);
        let unit = words
            .get(index + 1)
            .map_or("", |next| next.trim_matches([',', ';', ')']));
        let is_number = core.parse::<f64>().is_ok();
        let is_age = ['s', 'm', 'h', 'd'].iter().any(|unit| {
            let number = core.strip_suffix(*unit).unwrap_or_default();
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        let is_version =
            core.split('.').count() == 3 && core.split('.').all(|part| part.parse::<u32>().is_ok());
        steady.push(if core.parse::<Timestamp>().is_ok() {
            word.replace(core, "TIME")
        } else if is_number && ["s", "ms", "min", "h"].contains(&unit) {
            word.replace(core, "N")
        } else if is_age {
            word.replace(core, "AGE")
        } else if is_version {
            "VERSION".to_owned()
        } else if core
            .strip_prefix('v')
            .is_some_and(|number| number.parse::<u32>().is_ok())
        {
            "VHOST".to_owned()
        } else if core.contains("127.0.0.1:") {
            "ADDRESS".to_owned()
        } else if core.len() >= 5
            && core
                .bytes()
                .all(|b| b.is_ascii_digit() || b == b'-' || b == b':')
        {
            // 06-01, 12:00:07
            "WHEN".to_owned()
        } else {
            (*word).to_owned()
        });
    }
    steady.join(" ")
}

/// The lines to be compared; what depends on the broker's version is no matter of the document.
fn steady_text(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| !line.contains("before 3.12.2") && !line.contains(" checks: "))
        .map(|line| steady(&line.replace("note  broker reachable", "ok    broker reachable")))
        .collect()
}

/// Runs a command line as a shell would, with all that is printed in one.
async fn typed(site: &Site, command: &str) -> String {
    let output = site.shell(&format!("{{ {command}; }} 2>&1")).await;
    output
        .replace(&format!("{PREFIX}."), "upgrade.")
        .replace(&format!("\"{PREFIX}\""), "\"upgrade\"")
        // The column is as wide as the longer name.
        .replace("BACK IN         ", "BACK IN           ")
}

/// The document with the output of this run.
async fn renewed(site: &mut Site, document: &str) -> String {
    let mut ids = Ids::of(document);
    let mut renewed = String::new();
    let mut lines = document.lines();
    let mut outputs = BTreeMap::new();
    while let Some(line) = lines.next() {
        renewed.push_str(line);
        renewed.push('\n');
        let Some(info) = line.strip_prefix("```").filter(|info| !info.is_empty()) else {
            continue;
        };
        let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        match info.split_once(' ') {
            Some((_, file)) => {
                let text = block.join("\n") + "\n";
                std::fs::write(site.directory().join(file), &text).expect("the directory is ours");
                renewed.push_str(&text);
            }
            None if info == "console" => {
                for command in block.iter().filter_map(|line| line.strip_prefix("$ ")) {
                    let output = typed(&*site, &ids.here(command)).await;
                    let output = ids.there(&output);
                    if command.contains("submit autumn") {
                        let is_over =
                            |seen: &Seen| seen.body["type"] == "upgrade.campaign.completed";
                        let over = |all: &Collector| all.events().any(is_over);
                        assert!(site.results.take_until(PATIENCE, over).await);
                    }
                    renewed.push_str(&format!("$ {command}\n{output}"));
                    outputs.insert(command.to_owned(), output);
                }
            }
            None => renewed.push_str(&(block.join("\n") + "\n")),
        }
        renewed.push_str("```\n");
    }
    assert!(outputs.len() > 8, "the document has lost its commands");
    renewed
}

#[tokio::test]
async fn the_document_shows_what_the_commands_print() {
    let plan = Plan {
        environment: &[("NBI_UPGRADE_INSTANCE__NAME", "worker-1")],
        ..Plan::default()
    };
    let mut site = Site::begin(1, plan).await;
    // Two letters, one after the other.
    let step = br#"{"v":1,"order":{"job_id":"order-4720"}}"#;
    let request = br#"{"job_id":"order-4719","cpe_id":"CPE*","firmware_url":"https://files.example/fw-2.bin"}"#;
    for (number, (queue, body)) in [("requests", &request[..]), ("steps", &step[..])]
        .into_iter()
        .enumerate()
    {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_message_id("m-1".into());
        site.client()
            .publish("", &format!("{PREFIX}.{queue}"), body, properties)
            .await;
        until("the letter", PATIENCE, async || {
            let dead = site.client().depth(&format!("{PREFIX}.dead")).await;
            (usize::try_from(dead).ok()? == number + 1).then_some(())
        })
        .await;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    let document = std::fs::read_to_string(&path).expect("the document");
    let renewed = renewed(&mut site, &document).await;
    site.workers.remove(0).stop(PATIENCE).await;
    site.delete_vhost().await;
    let (old, new) = (steady_text(&document), steady_text(&renewed));
    if old != new {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli.md");
        std::fs::write(&place, &renewed).expect("the directory is cargo's");
        let at = old.iter().zip(&new).position(|(old, new)| old != new);
        let at = at.unwrap_or_else(|| old.len().min(new.len()));
        panic!(
            "{DOCUMENT} shows something else than the commands print, first in line {}:\n  {}\n  {}\nlook at {} and take it over",
            at + 1,
            old.get(at).map_or("", |line| line),
            new.get(at).map_or("", |line| line),
            place.display()
        );
    }
}

#[test]
fn what_differs_is_compared_by_its_form_and_nothing_else_is() {
    for (one, other) in [
        ("took 0.4 s", "took  12 s"),
        (
            "finished   2026-06-01T02:14:07Z",
            "finished 2026-07-02T03:00:00.123Z",
        ),
        ("06-01 02:14:07  accepted", "11-25 23:14:07 accepted"),
        (
            "broker reachable: 127.0.0.1:5672, RabbitMQ",
            "broker reachable: 127.0.0.1:3333, RabbitMQ",
        ),
        ("x  3s  y", "x 12m y"),
    ] {
        assert_eq!(steady(one), steady(other));
    }
    for (one, other) in [
        ("2 jobs", "3 jobs"),
        ("order-4711", "order-4712"),
        ("1 sent back", "2 sent back"),
    ] {
        assert_ne!(steady(one), steady(other));
    }
}
