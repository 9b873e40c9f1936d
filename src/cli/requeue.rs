//! `dead requeue`: letters back to the workers, and what became of each.
//!
//! A letter goes back as it was before it died: same body, same properties, without the broker's and our own headers about its death.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anyhow::Context as _;
use console::Style;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::blocked::Blocked;
use super::columns::{Cell, Columns};
use super::dead::{self, Choice, found_all};
use super::output::{self, Format, Status, Usage, plain};
use crate::config::Config;
use crate::driver::amqp::{DeadLetters, Letter, Origin};
use crate::message::Named;

/// Sends letters back.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nbi-upgrade dead requeue 5b0f8c1d2e
  nbi-upgrade dead requeue --reason delivery_limit
  nbi-upgrade dead requeue --error firmware_url --wait 1m

Each letter goes back to the queue it came from, as it was, without the
headers about its death. It is removed here only when the broker has confirmed
it there. A request that was wrong is still wrong: requeue it when the
configuration was at fault, else send a corrected one and drop the letter.")]
pub(super) struct Requeue {
    #[command(flatten)]
    choice: Choice,
    /// Waits so long to see what becomes of them; 0s: not at all.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = output::duration)]
    wait: Duration,
    /// The queue for letters of which it is not known where they came from.
    #[arg(long, value_name = "QUEUE", value_enum)]
    to: Option<Queue>,
}

/// A queue that letters go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Queue {
    Requests,
    Steps,
}

impl From<Queue> for Origin {
    fn from(queue: Queue) -> Self {
        match queue {
            Queue::Requests => Self::Requests,
            Queue::Steps => Self::Steps,
        }
    }
}

/// What is known of a letter that was sent back.
struct Sent {
    id: String,
    job_id: Option<String>,
    body: Vec<u8>,
    queue: String,
    fate: Option<Fate>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fate {
    is_well: bool,
    text: String,
}

impl Requeue {
    pub(super) async fn run(self, config: &Config, format: Format) -> anyhow::Result<Status> {
        let choice = self.choice.clone().checked()?;
        let mut dead = dead::open(config).await?;
        let prefix = config.amqp.prefix.as_str();
        let waits = !self.wait.is_zero();
        let listening = if waits {
            Some(dead.listen().await.context("failed to listen to results")?)
        } else {
            None
        };
        let mut sent = Vec::new();
        let mut stuck = Vec::new();
        let mut blocked = Blocked::of(dead.blocked());
        let ended = loop {
            let letter = match dead.next().await {
                Ok(Some(letter)) => letter,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            let named = Named::in_body(&letter.body);
            if !choice.takes(&letter, &named) {
                dead.keep(letter);
                continue;
            }
            let sending = self.send(&mut dead, &letter, prefix);
            match blocked.told_while(sending).await {
                Ok(queue) => sent.push(Sent {
                    id: letter.id,
                    job_id: named.job_id,
                    body: letter.body,
                    queue,
                    fate: None,
                }),
                Err(error) => {
                    stuck.push((letter.id.clone(), error));
                    dead.keep(letter);
                }
            }
        };
        if let Some(events) = listening
            && ended.is_ok()
            && !sent.is_empty()
        {
            if format == Format::Text {
                output::note(&format!(
                    "{} sent back and confirmed; waiting up to {} to see what becomes of it (--wait)",
                    output::count(sent.len(), "letter"),
                    spoken(self.wait)
                ));
            }
            follow(&mut sent, events, self.wait).await;
        }
        let closed = blocked.told_while(dead.close()).await;
        let found = sent.iter().map(|sent| &sent.id);
        let found: HashSet<String> = found
            .chain(stuck.iter().map(|(id, _)| id))
            .cloned()
            .collect();
        report(&sent, &stuck, waits, format);
        ended.and(closed)?;
        let is_well = stuck.is_empty()
            && sent
                .iter()
                .all(|sent| sent.fate.as_ref().is_none_or(|fate| fate.is_well));
        Ok(match found_all(&choice, &found) {
            Status::Done if !is_well => Status::Failed,
            status => status,
        })
    }

    async fn send(
        &self,
        dead: &mut DeadLetters,
        letter: &Letter,
        prefix: &str,
    ) -> anyhow::Result<String> {
        let origin = letter
            .origin(prefix)
            .or_else(|| self.to.map(Origin::from))
            .ok_or_else(|| {
                let problem = match &letter.queue {
                    Some(queue) => format!(
                        "it came from queue \"{queue}\", to which this command sends nothing back; if it belongs to the workers, say"
                    ),
                    None => "it is not known where it came from; say".to_owned(),
                };
                Usage(format!("{problem} --to requests or --to steps"))
            })?;
        dead.requeue(letter, origin).await?;
        Ok(format!("{prefix}.{}", origin.name()))
    }
}

fn spoken(wait: Duration) -> String {
    format!("{} s", wait.as_secs_f32())
}

/// Takes what is said about the letters until something is known of each, or the time is over.
async fn follow(sent: &mut [Sent], mut events: mpsc::Receiver<Vec<u8>>, wait: Duration) {
    let deadline = Instant::now() + wait;
    while sent.iter().any(|sent| sent.fate.is_none()) {
        let Ok(Some(body)) = tokio::time::timeout_at(deadline, events.recv()).await else {
            return;
        };
        take(sent, &body);
    }
}

fn take(sent: &mut [Sent], body: &[u8]) {
    // The same message on the exchange of the dead: it died again.
    if let Some(again) = sent
        .iter_mut()
        .find(|sent| sent.body == body && sent.fate.as_ref().is_none_or(|fate| fate.is_well))
    {
        again.fate = Some(Fate {
            is_well: false,
            text: "dead again".to_owned(),
        });
        return;
    }
    let Ok(event) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    let data = &event["data"];
    let (Some(kind), Some(job_id)) = (event["type"].as_str(), data["job_id"].as_str()) else {
        return;
    };
    let Some(about) = sent
        .iter_mut()
        .find(|sent| sent.fate.is_none() && sent.job_id.as_deref() == Some(job_id))
    else {
        return;
    };
    let is_well = kind != "upgrade.rejected";
    let mut text = match (data["outcome"].as_str(), data["reason"].as_str()) {
        (Some(outcome), Some(reason)) => format!("{outcome}/{reason}"),
        _ => kind.trim_start_matches("upgrade.").to_owned(),
    };
    if let Some(error) = data["errors"][0]["field"].as_str() {
        let message = data["errors"][0]["message"].as_str().unwrap_or_default();
        text = format!("dead again: {error}: {message}");
    }
    about.fate = Some(Fate { is_well, text });
}

fn report(sent: &[Sent], stuck: &[(String, anyhow::Error)], waits: bool, format: Format) {
    if format == Format::Json {
        for sent in sent {
            let fate = sent.fate.as_ref().map(|fate| plain(&fate.text));
            let line = json!({"id": sent.id, "job_id": sent.job_id, "result": "requeued", "queue": sent.queue,
                "fate": fate, "is_dead_again": sent.fate.as_ref().is_some_and(|fate| !fate.is_well)});
            output::line(&line.to_string());
        }
        for (id, error) in stuck {
            output::line(
                &json!({"id": id, "result": "kept", "error": format!("{error:#}")}).to_string(),
            );
        }
        return;
    }
    let mut columns = Columns::new(&["ID", "JOB", "BACK IN", "WHAT BECAME OF IT"]);
    let mut counts = BTreeMap::new();
    let unknown = if waits {
        "nothing heard yet; is a worker running?"
    } else {
        "not waited for"
    };
    for sent in sent {
        let fate = match &sent.fate {
            Some(fate) if fate.is_well => Cell::styled(&fate.text, Style::new().green()),
            Some(fate) => Cell::styled(&fate.text, Style::new().red()),
            None => Cell::from(unknown),
        };
        let job = sent.job_id.as_deref().unwrap_or("-");
        columns.push(vec![
            (&sent.id).into(),
            job.into(),
            (&sent.queue).into(),
            fate,
        ]);
        *counts.entry("sent back").or_insert(0_usize) += 1;
    }
    for (id, error) in stuck {
        let text = format!("kept: {error:#}");
        columns.push(vec![
            id.into(),
            "-".into(),
            "-".into(),
            Cell::styled(&text, Style::new().red()),
        ]);
        *counts.entry("kept").or_insert(0) += 1;
    }
    if !counts.is_empty() {
        columns.print();
        let counts: Vec<_> = counts
            .iter()
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        output::note(&counts.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent() -> [Sent; 1] {
        [Sent {
            id: "a".to_owned(),
            job_id: Some("j".to_owned()),
            body: br#"{"job_id":"j"}"#.to_vec(),
            queue: "upgrade.requests".to_owned(),
            fate: None,
        }]
    }

    fn fate(bodies: &[&str]) -> Option<(bool, String)> {
        let mut sent = sent();
        for body in bodies {
            take(&mut sent, body.as_bytes());
        }
        let [Sent { fate, .. }] = sent;
        fate.map(|fate| (fate.is_well, fate.text))
    }

    #[test]
    fn what_became_of_a_letter_is_read_from_events_and_from_what_dies() {
        let rejected = r#"{"type":"upgrade.rejected","data":{"job_id":"j","outcome":"rejected","reason":"invalid_request","errors":[{"field":"cpe_id","message":"is missing"}]}}"#;
        let accepted = r#"{"type":"upgrade.accepted","data":{"job_id":"j"}}"#;
        let other = r#"{"type":"upgrade.accepted","data":{"job_id":"k"}}"#;
        let letter = r#"{"job_id":"j"}"#;
        assert_eq!(fate(&[other, "no json", "{}"]), None);
        assert_eq!(
            fate(&[other, accepted]),
            Some((true, "accepted".to_owned()))
        );
        assert_eq!(
            fate(&[rejected, letter]),
            Some((false, "dead again: cpe_id: is missing".to_owned()))
        );
        assert_eq!(fate(&[letter]), Some((false, "dead again".to_owned())));
        // A job may be accepted, and die later.
        assert_eq!(
            fate(&[accepted, letter]),
            Some((false, "dead again".to_owned()))
        );
    }
}
