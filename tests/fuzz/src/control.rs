//! Any bytes as commands, one a line, folded in their order, and looked at after each.
//!
//! A command that is accepted is the same when written and read again, and what stands afterwards is what a naive reading of the same commands
//! says. One that is not is refused with texts fit for one line, in an event that is bounded.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use nbi_upgrade::job::state::Order;
use nbi_upgrade::job::{CampaignId, JobId, Standing};
use nbi_upgrade::message::Incoming;
use nbi_upgrade::message::control::{Answer, AnswerReason, BODY_MAX, Command, Orders, Scope, Verb};

use super::{Accepted, EVENT_MAX, check_event, codec, is_one_line, now};

/// What stands, as one would do it without a thought for memory.
#[derive(Default)]
struct Naive {
    cancelled: BTreeSet<String>,
    paused: BTreeSet<String>,
    was_paused: BTreeMap<String, bool>,
}

fn scope(scope: &Scope) -> String {
    match scope {
        Scope::Job(id) => format!("j{id}"),
        Scope::Campaign(id) => format!("c{id}"),
        Scope::All => "a".to_owned(),
    }
}

impl Naive {
    fn apply(&mut self, command: &Command) {
        let scope = scope(&command.scope);
        match command.verb {
            Verb::Cancel => drop(self.cancelled.insert(scope)),
            Verb::Pause => drop(self.paused.insert(scope)),
            Verb::Resume => {
                if self.paused.remove(&scope) {
                    self.was_paused.insert(scope, true);
                }
            }
        }
    }
}

fn order(job_id: &str, campaign_id: Option<&str>) -> Option<Order> {
    let body = serde_json::json!({"job_id": job_id, "campaign_id": campaign_id, "cpe_id": "CPE1",
        "firmware_url": "https://files.example/fw.bin"});
    let body = body.to_string();
    let incoming = Incoming {
        body: body.as_bytes(),
        ..Incoming::default()
    };
    let job = codec(true).decode_request(&incoming, now()).ok()?.job;
    Some(Order::clone(&job.order))
}

/// One input; as what it was accepted.
///
/// # Panics
///
/// When a promise is broken.
pub fn play(bytes: &[u8]) -> Accepted {
    let mut accepted = Accepted::new();
    let codec = codec(true);
    let orders = Orders::new(SignedDuration::from_hours(24));
    let mut naive = Naive::default();
    for (number, line) in bytes.split(|byte| *byte == b'\n').take(64).enumerate() {
        let decoded = Command::decode(line);
        let command = match &decoded {
            Ok(command) => {
                assert!(line.len() <= BODY_MAX);
                assert_eq!(Command::decode(&command.encode()).as_ref(), Ok(command));
                Some(command)
            }
            Err(faults) => {
                assert!(!faults.is_empty());
                for fault in faults {
                    assert!(is_one_line(&fault.field), "{:?}", fault.field);
                    assert!(is_one_line(&fault.message), "{:?}", fault.message);
                }
                None
            }
        };
        let answer = Answer {
            key: "key",
            incoming: Incoming {
                body: line,
                correlation_id: std::str::from_utf8(line).ok(),
                ..Incoming::default()
            },
            command,
            reason: if command.is_some() {
                AnswerReason::Stands
            } else {
                AnswerReason::InvalidCommand
            },
            message: String::new(),
            faults: decoded.as_ref().err().cloned().unwrap_or_default(),
        };
        let event = codec.answer_event(&answer, now());
        check_event(&event, EVENT_MAX);
        let Some(command) = command else { continue };
        accepted.push(match command.verb {
            Verb::Cancel => "cancel",
            Verb::Pause => "pause",
            Verb::Resume => "resume",
        });
        let at = now() + SignedDuration::from_secs(i64::try_from(number).unwrap_or(0));
        orders.apply(command, at, at);
        naive.apply(command);
        assert_eq!(orders.is_all_paused(), naive.paused.contains("a"));
        let job = command.job_id().unwrap_or("another");
        let campaign = command.campaign_id();
        assert!(JobId::parse(job).is_ok());
        assert!(campaign.is_none_or(|id| CampaignId::parse(id).is_ok()));
        let Some(order) = order(job, campaign) else {
            continue;
        };
        let scopes = [
            format!("j{job}"),
            campaign.map(|id| format!("c{id}")).unwrap_or_default(),
            "a".to_owned(),
        ];
        let standing = orders.standing(&order);
        let is_cancelled = scopes.iter().any(|scope| naive.cancelled.contains(scope));
        let is_paused = scopes.iter().any(|scope| naive.paused.contains(scope));
        match standing {
            Standing::Cancelled { .. } => assert!(is_cancelled),
            Standing::Paused => assert!(is_paused && !is_cancelled),
            Standing::Resumed { .. } | Standing::Clear => assert!(!is_paused && !is_cancelled),
        }
        let was_paused = scopes
            .iter()
            .any(|scope| naive.was_paused.contains_key(scope));
        assert!(was_paused || !matches!(standing, Standing::Resumed { .. }));
    }
    accepted
}
