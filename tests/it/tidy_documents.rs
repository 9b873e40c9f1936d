//! Documents are true: their examples are read by what they are written for, and their links lead somewhere.
//!
//! JSON that is a request or an event against its schema, TOML through the loader of the configuration, command lines through the parser of
//! the command line. As in `tidy.rs`, each rule is a function from documents to complaints.

use std::io::Write as _;
use std::path::{Component, Path, PathBuf};

use jsonschema::Validator;
use nbi_upgrade::cli;
use nbi_upgrade::config::{Config, Sources};
use nbi_upgrade::job::Reason;
use nbi_upgrade::message::{EventKind, schema};
use serde_json::Value;

/// A document: its path from the root, and its text.
struct Document {
    path: PathBuf,
    text: String,
}

/// A fenced block: its language and its text.
struct Block<'a> {
    language: &'a str,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document of the repository.
fn documents() -> Vec<Document> {
    let mut open = vec![root().to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                let is_ours = !name.starts_with('.') && !["target", "node_modules"].contains(&name);
                open.extend(is_ours.then_some(path));
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let text = std::fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root()).unwrap().to_owned();
                found.push(Document { path, text });
            }
        }
    }
    assert!(found.len() >= 10);
    found
}

impl Document {
    fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks: Vec<Block<'_>> = Vec::new();
        let mut is_inside = false;
        for line in self.text.lines() {
            match (line.strip_prefix("```"), is_inside) {
                (Some(language), false) => {
                    is_inside = true;
                    blocks.push(Block {
                        language: language.trim(),
                        text: String::new(),
                    });
                }
                (Some(_), true) => is_inside = false,
                (None, true) => {
                    let text = &mut blocks.last_mut().unwrap().text;
                    text.push_str(line);
                    text.push('\n');
                }
                (None, false) => {}
            }
        }
        blocks
    }

    fn blocks_of(&self, language: &str) -> Vec<String> {
        let wanted = |block: Block<'_>| (block.language == language).then_some(block.text);
        self.blocks().into_iter().filter_map(wanted).collect()
    }

    fn complaint(&self, what: impl std::fmt::Display) -> String {
        format!("{}: {what}", self.path.display())
    }
}

fn validator(schema: &Value) -> Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap()
}

fn json(documents: &[Document]) -> Vec<String> {
    let (request, event) = (validator(&schema::request()), validator(&schema::event()));
    let mut complaints = Vec::new();
    for document in documents {
        for block in document.blocks_of("json") {
            for value in serde_json::Deserializer::from_str(&block).into_iter::<Value>() {
                let value = match value {
                    Ok(value) => value,
                    Err(error) => {
                        complaints.push(document.complaint(format_args!("{error} in {block}")));
                        break;
                    }
                };
                let schema = if value.get("specversion").is_some() {
                    &event
                } else if value.get("job_id").is_some() && value.get("command").is_none() {
                    &request
                } else {
                    continue;
                };
                if let Err(error) = schema.validate(&value) {
                    complaints.push(document.complaint(format_args!("{error} in {value}")));
                }
            }
        }
    }
    complaints
}

fn toml(documents: &[Document]) -> Vec<String> {
    let mut complaints = Vec::new();
    // Secrets stand in files that are read at once.
    let secrets = tempfile::tempdir().unwrap();
    for (name, secret) in [
        ("nbi-password", "secret"),
        (
            "amqp-url-operator",
            "amqps://upgrade-operator:secret@rabbitmq.example.com/upgrade",
        ),
    ] {
        std::fs::write(secrets.path().join(name), secret).unwrap();
    }
    for document in documents {
        for block in document.blocks_of("toml") {
            let block = block.replace("/run/secrets", secrets.path().to_str().unwrap());
            let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
            file.write_all(block.as_bytes()).unwrap();
            let sources = Sources {
                file: Some(file.path().to_owned()),
                environment: Vec::new(),
                flags: Vec::new(),
                host_name: Some("host".to_owned()),
            };
            if let Err(error) = Config::load(&sources) {
                complaints.push(document.complaint(error));
            }
        }
    }
    complaints
}

/// The words of each command of ours in a shell's text.
fn commands(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let lines = text
        .lines()
        .map(|line| line.split(" #").next().unwrap_or_default());
    let parts = lines.flat_map(|line| line.split("&&").flat_map(|part| part.split(['|', ';'])));
    let ours = parts.filter_map(|part| {
        let words = part
            .split_whitespace()
            .skip_while(|word| ["$", "sudo"].contains(word));
        let words: Vec<&str> = words.collect();
        let begin = match words.first()? {
            &"nbi-upgrade" | &"target/release/nbi-upgrade" => 1,
            &"cargo" if words.get(1) == Some(&"run") => {
                words.iter().position(|word| *word == "--")? + 1
            }
            _ => return None,
        };
        let words = words[begin..]
            .iter()
            .filter(|word| !word.starts_with(['<', '>']));
        Some(
            words
                .map(|word| word.trim_matches(['"', '\'']).to_owned())
                .collect(),
        )
    });
    ours.collect()
}

fn command_lines(documents: &[Document]) -> Vec<String> {
    let mut complaints = Vec::new();
    for document in documents {
        for words in document
            .blocks_of("sh")
            .iter()
            .flat_map(|text| commands(text))
        {
            if let Err(error) = cli::understands(words) {
                complaints.push(document.complaint(error));
            }
        }
    }
    complaints
}

/// Where a link leads, as a path from the root without `..`.
fn target(document: &Document, link: &str) -> PathBuf {
    let mut path = PathBuf::new();
    let folder = document.path.parent().unwrap_or_else(|| Path::new(""));
    for part in folder.join(link).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            part => path.push(part),
        }
    }
    path
}

/// The anchors of a document's headings, as forges make them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let kept = line
                .trim_start_matches('#')
                .trim()
                .to_lowercase()
                .replace(' ', "-");
            kept.chars()
                .filter(|c| c.is_alphanumeric() || "-_".contains(*c))
                .collect()
        })
        .collect()
}

fn links(documents: &[Document]) -> Vec<String> {
    let mut complaints = Vec::new();
    for document in documents {
        for (_, rest) in document
            .text
            .match_indices("](")
            .map(|(at, found)| document.text.split_at(at + found.len()))
        {
            let link = rest.split([')', ' ', '\n']).next().unwrap_or_default();
            if link.contains("://") || link.starts_with("mailto:") || link.is_empty() {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = if path.is_empty() {
                document.path.clone()
            } else {
                target(document, path)
            };
            let known = documents.iter().find(|other| other.path == path);
            if known.is_none() && !root().join(&path).exists() {
                complaints.push(document.complaint(format_args!("{link} leads nowhere")));
            } else if let Some(other) = known
                && !anchor.is_empty()
                && !anchors(&other.text).iter().any(|found| found == anchor)
            {
                complaints.push(document.complaint(format_args!("{link}: no such heading")));
            }
        }
    }
    complaints
}

/// What an integrator may meet, and the guide does not name.
fn unnamed(guide: &str) -> Vec<String> {
    let reasons = Reason::ALL.iter().map(|reason| reason.name());
    let types = EventKind::ALL.iter().map(|kind| kind.event_type());
    let fields = nbi_upgrade::message::request::FIELDS;
    reasons
        .chain(types)
        .chain(fields)
        .filter(|name| !guide.contains(&format!("`{name}`")))
        .map(|name| format!("docs/integrators-guide.md does not name `{name}`"))
        .collect()
}

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn examples_in_documents_are_what_they_seem() {
    let documents = documents();
    assert_none(&json(&documents));
    assert_none(&toml(&documents));
    assert_none(&command_lines(&documents));
}

#[test]
fn links_in_documents_lead_somewhere() {
    assert_none(&links(&documents()));
}

#[test]
fn the_guide_names_every_event_reason_and_field() {
    let guide = std::fs::read_to_string(root().join("docs/integrators-guide.md")).unwrap();
    assert_none(&unnamed(&guide));
    assert!(unnamed("").len() > 30);
}

#[test]
fn every_rule_about_documents_can_complain() {
    let complains = |rule: fn(&[Document]) -> Vec<String>, text: &str| {
        let document = Document {
            path: "docs/x.md".into(),
            text: text.to_owned(),
        };
        assert_eq!(rule(&[document]).len(), 1, "{text}");
    };
    complains(json, "```json\n{\"job_id\": \"a b\"}\n```\n");
    complains(json, "```json\n{\"specversion\": \"1.0\"}\n```\n");
    complains(json, "```json\n{,}\n```\n");
    complains(toml, "```toml\n[nbi]\ntimeuot = \"1s\"\n```\n");
    complains(
        command_lines,
        "```sh\ncd / && nbi-upgrade sumbit jobs.jsonl\n```\n",
    );
    complains(
        command_lines,
        "```sh\nnbi-upgrade submit \\\n  --wiat jobs.jsonl\n```\n",
    );
    complains(
        command_lines,
        "```sh\ncargo run --release -- demo --nothing # as if\n```\n",
    );
    complains(links, "see [this](nowhere.md)");
    complains(links, "see [this](../README.md/x)");
    complains(links, "# Here\n[there](#there)");
}
