//! The fuzz targets, and what they share: codecs, policies, bytes as choices, and the promises that every output must keep.
//!
//! The promises are written from the contract and not taken from the code under test. Nothing here knows a fuzzer: the product's tests
//! include this file and play the committed corpus (`tests/it/fuzz_corpus.rs`).

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::job::fault::FaultPolicy;
use nbi_upgrade::job::policy::{OnBusy, OnConnectionRequestFailure};
use nbi_upgrade::job::{CpeId, NbiAnswer, NbiCall, NbiFailure, Policy, ResultRow, RuleId, RuleRow};
use nbi_upgrade::message::{Codec, EventMessage, EventSettings, RequestSettings, Work};
use serde_json::Value;

pub mod campaign;
pub mod control;
pub mod event;
pub mod headers;
pub mod nbi_answer;
pub mod request;
pub mod step;

/// As what an input was accepted, by each way in; none: it was refused everywhere.
pub type Accepted = Vec<&'static str>;

/// Plays one input.
pub type Play = fn(&[u8]) -> Accepted;

/// Each target by its name, which is also its folder's in `corpus/`.
pub const TARGETS: [(&str, Play); 7] = [
    ("campaign", campaign::play),
    ("control", control::play),
    ("event", event::play),
    ("headers", headers::play),
    ("nbi_answer", nbi_answer::play),
    ("request", request::play),
    ("step", step::play),
];

/// Largest event that is published: far below the smallest limit of a broker, whatever a request or the NBI says.
pub const EVENT_MAX: usize = 256 * 1024;

/// The contract's limit of a request's `context`, in bytes.
pub const CONTEXT_MAX: usize = 16 * 1024;

/// A moment in the year of the project.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::from_second(1_795_435_200).expect("a time of this century")
}

/// A codec as strict, or as permissive, as configuration can make it.
#[must_use]
pub fn codec(is_strict: bool) -> Codec {
    let requests = if is_strict {
        RequestSettings::default()
    } else {
        RequestSettings {
            timeout: SignedDuration::from_hours(24 * 365),
            rule_id: "UPGRADE_{cpe_id}_{job_id}".to_owned(),
            allow_url_credentials: true,
            verify: true,
            ..RequestSettings::default()
        }
    };
    Codec {
        requests,
        events: EventSettings {
            source: "/nbi-upgrade/fuzz".to_owned(),
            progress: true,
        },
    }
}

/// Choices out of the fuzzer's bytes; zeros once they are used up.
#[derive(Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// From these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether all bytes are used up.
    #[must_use]
    pub fn are_used_up(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    /// A coin.
    pub fn is_odd(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Eight bytes as a number.
    pub fn long(&mut self) -> i64 {
        i64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }
}

/// A policy out of choices.
pub fn policy(choices: &mut Choices<'_>) -> Policy {
    let flags = choices.byte();
    Policy {
        on_busy: match flags & 3 {
            0 | 1 => OnBusy::Wait,
            2 => OnBusy::Supersede,
            _ => OnBusy::Fail,
        },
        connection_request_on_failure: if flags & 4 == 0 {
            OnConnectionRequestFailure::Continue
        } else {
            OnConnectionRequestFailure::Fail
        },
        tag_rules: flags & 8 != 0,
        verify: flags & 16 != 0,
        faults: FaultPolicy {
            transient: if flags & 32 == 0 {
                [].into()
            } else {
                [9016, 9003].into()
            },
            ..FaultPolicy::default()
        },
        ..Policy::default()
    }
}

/// An answer that fits the call, or any other, or a failure.
pub fn answer(
    call: &NbiCall,
    choices: &mut Choices<'_>,
    now: Timestamp,
) -> Result<NbiAnswer, NbiFailure> {
    let message = || "fuzz: failed".to_owned();
    let kind = choices.below(16);
    match kind {
        10 => Err(NbiFailure::Transient {
            message: message(),
            retry_after: choices
                .is_odd()
                .then(|| SignedDuration::from_secs(i64::from(choices.byte()) * 14)),
            no_effect: choices.is_odd(),
        }),
        11 => Err(NbiFailure::Refused { message: message() }),
        12 => Err(NbiFailure::NotSent {
            message: message(),
            retry_after: SignedDuration::from_secs(i64::from(choices.byte())),
        }),
        13 => Err(NbiFailure::Rejected { message: message() }),
        14 => Err(NbiFailure::Unintelligible { message: message() }),
        15 => Ok(match choices.below(7) {
            0 => NbiAnswer::RulesUnreadable,
            1 => NbiAnswer::NoSuchRule,
            2 => NbiAnswer::RuleExists,
            3 => NbiAnswer::Version("2.0".to_owned()),
            4 => NbiAnswer::Done,
            5 => rules(choices, call),
            _ => results(choices, now),
        }),
        _ => Ok(match call {
            NbiCall::ReadResults { .. } => results(choices, now),
            NbiCall::ReadRule { .. } => match choices.below(8) {
                0 => NbiAnswer::RulesUnreadable,
                _ => rules(choices, call),
            },
            NbiCall::ListRules { .. } => NbiAnswer::RuleList(Vec::new()),
            NbiCall::CreateRule(_) => match choices.below(4) {
                0 => NbiAnswer::RuleExists,
                _ => NbiAnswer::Done,
            },
            NbiCall::UpdateRule(_) | NbiCall::DisarmRule { .. } | NbiCall::DeleteRule { .. } => {
                match choices.below(4) {
                    0 => NbiAnswer::NoSuchRule,
                    _ => NbiAnswer::Done,
                }
            }
            NbiCall::SendConnectionRequest { .. } => NbiAnswer::Done,
            NbiCall::ReadVersion { .. } => {
                NbiAnswer::Version(if choices.is_odd() { "2.0" } else { "1.0" }.to_owned())
            }
        }),
    }
}

/// The answer of a world in which everything works and nothing happened.
#[must_use]
pub fn calm_answer(call: &NbiCall) -> NbiAnswer {
    match call {
        NbiCall::ReadResults { .. } => NbiAnswer::Results {
            rows: Vec::new(),
            nbi_time: None,
        },
        NbiCall::ReadRule { .. } => NbiAnswer::Rules {
            rows: Vec::new(),
            filter_ignored: false,
        },
        NbiCall::ListRules { .. } => NbiAnswer::RuleList(Vec::new()),
        NbiCall::CreateRule(_)
        | NbiCall::UpdateRule(_)
        | NbiCall::DisarmRule { .. }
        | NbiCall::DeleteRule { .. }
        | NbiCall::SendConnectionRequest { .. } => NbiAnswer::Done,
        NbiCall::ReadVersion { .. } => NbiAnswer::Version("2.0".to_owned()),
    }
}

fn results(choices: &mut Choices<'_>, now: Timestamp) -> NbiAnswer {
    let count = match choices.byte() {
        255 => 250,
        few => few % 4,
    };
    let rows = (0..count)
        .map(|index| {
            let kind = choices.byte();
            let ts = match kind & 3 {
                0 => now.as_second() - 7_200,
                1 => now.as_second(),
                2 => choices.long(),
                _ => i64::from(index),
            };
            let (code, message) = match (kind >> 2) & 7 {
                0 | 1 => (Some(200), "OK"),
                2 => (
                    Some(500),
                    "Upgrade has failed with FaultCode 9010. FaultString: timeout",
                ),
                3 => (Some(500), "FaultCode 9016"),
                4 => (None, ""),
                5 => (Some(i64::MIN), "in progress"),
                6 => (Some(200), "FaultCode: 9899"),
                _ => (Some(102), "FaultCode FaultCode"),
            };
            let id = match kind >> 5 {
                0 => format!("{index}"),
                1 => "i".repeat(ResultRow::ID_MAX),
                _ => format!("cd3627cd-1908-4ff8-8fe3-f7078723a6{index:02x}"),
            };
            let tag = (kind & 64 != 0).then(|| "nbi-upgrade job other".to_owned());
            ResultRow {
                id,
                ts,
                code,
                message: message.to_owned(),
                rule_description: tag,
            }
        })
        .collect();
    let nbi_time = choices
        .is_odd()
        .then(|| Timestamp::from_second(choices.long()).unwrap_or(Timestamp::MAX));
    NbiAnswer::Results { rows, nbi_time }
}

fn rules(choices: &mut Choices<'_>, call: &NbiCall) -> NbiAnswer {
    let file = match call {
        NbiCall::CreateRule(spec) | NbiCall::UpdateRule(spec) => spec.firmware_url.to_string(),
        _ => "https://files.example/fw-2.bin".to_owned(),
    };
    let rows = (0..choices.below(3))
        .map(|_| {
            let kind = choices.byte();
            RuleRow {
                enabled: kind & 1 != 0,
                automatic: kind & 2 != 0,
                file: match kind & 12 {
                    0 => None,
                    4 => Some("http://elsewhere/fw".to_owned()),
                    _ => Some(file.clone()),
                },
                description: (kind & 16 != 0).then(|| "nbi-upgrade job other".to_owned()),
            }
        })
        .collect();
    NbiAnswer::Rules {
        rows,
        filter_ignored: choices.is_odd(),
    }
}

/// The contract's limits of a request (section 2).
///
/// # Panics
///
/// When an accepted one breaks one.
pub fn check_request(work: &Work) {
    check_ids(work);
    let order = &work.job.order;
    assert!(
        order
            .cpe_id
            .as_str()
            .contains(|c: char| c.is_ascii_alphanumeric())
    );
    assert!(order.requested_at.as_second() >= -62_167_219_200);
    let file = order.firmware_url.as_str();
    assert!(
        file.len() <= 2048 && file.chars().all(|c| c.is_ascii_graphic()),
        "{file:?}"
    );
    if let Some(version) = &order.expected_version {
        assert!(
            (1..=256).contains(&version.chars().count()) && is_one_line(version),
            "{version:?}"
        );
    }
    if let Some(context) = &work.carried.context {
        assert!(context.get().len() <= CONTEXT_MAX);
    }
}

/// The contract's limits of identifiers, which hold for continuations too.
///
/// # Panics
///
/// When a job breaks one.
pub fn check_ids(work: &Work) {
    let order = &work.job.order;
    let is_id = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    let job_id = order.job_id.as_str();
    assert!(
        (1..=128).contains(&job_id.len()) && job_id.chars().all(is_id),
        "{job_id:?}"
    );
    check_device(&order.cpe_id);
    check_rule(&order.rule_id);
    if let Some(campaign) = &order.campaign_id {
        let text = campaign.as_str();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        assert!(
            (1..=64).contains(&text.len()) && text.chars().all(is_plain),
            "{text:?}"
        );
    }
}

fn check_device(cpe_id: &CpeId) {
    let text = cpe_id.as_str();
    assert!((1..=128).contains(&text.len()), "{text:?}");
    assert!(text.chars().all(|c| ('!'..='~').contains(&c)), "{text:?}");
    assert!(
        !text.chars().any(|c| "*?%/\\\"'[](){}|^$+`<>~!".contains(c)),
        "{text:?}"
    );
}

fn check_rule(rule_id: &RuleId) {
    let text = rule_id.as_str();
    assert!((1..=320).contains(&text.len()), "{text:?}");
    assert!(
        text.chars()
            .all(|c| ('!'..='~').contains(&c) && !"*?%/\\\"'".contains(c)),
        "{text:?}"
    );
}

/// Whether text is fit for a log line, a header and a terminal.
#[must_use]
pub fn is_one_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// The promises about a published event: JSON that others can read, bounded, with the attributes that CloudEvents wants.
///
/// # Panics
///
/// When one is broken.
pub fn check_event(event: &EventMessage, max: usize) -> Value {
    assert!(
        event.body.len() <= max,
        "an event of {} bytes",
        event.body.len()
    );
    let value: Value = serde_json::from_slice(&event.body).expect("an event is JSON");
    for name in [
        "id",
        "source",
        "type",
        "time",
        "dataschema",
        "datacontenttype",
    ] {
        assert!(
            value[name].as_str().is_some_and(|text| !text.is_empty()),
            "{name}"
        );
    }
    assert_eq!(value["specversion"], "1.0");
    assert_ne!(value["subject"], "");
    assert!(value["data"].is_object());
    assert!(event.routing_key.len() <= 255 && is_one_line(&event.routing_key));
    for carried in [
        &event.correlation_id,
        &event.reply_to,
        &event.traceparent,
        &event.tracestate,
    ] {
        assert!(
            carried.as_ref().is_none_or(|text| text.len() <= 512),
            "{carried:?}"
        );
    }
    value
}

/// Encodes a job, decodes it, and wants the same job, whose date stays from here on.
///
/// # Panics
///
/// When it is not the same.
pub fn check_round_trip(codec: &Codec, work: &Work) -> Vec<u8> {
    let body = codec.encode_step(work);
    let incoming = nbi_upgrade::message::Incoming {
        body: &body,
        ..Default::default()
    };
    let again = codec
        .decode_step(&incoming)
        .expect("what was encoded can be decoded");
    let mut expected = work.job.clone();
    // A date that nobody gave stays from the first hand-over on, unless a copy may have come before.
    expected.order_mut().is_dated_on_arrival &= work.job.progress.may_have_twin;
    assert_eq!(again.job, expected);
    assert_eq!(again.not_due_before, work.not_due_before);
    let context = |work: &Work| {
        work.carried
            .context
            .as_ref()
            .map(|raw| raw.get().to_owned())
    };
    assert_eq!(context(&again), context(work));
    assert_eq!(again.carried.correlation_id, work.carried.correlation_id);
    assert_eq!(again.carried.reply_to, work.carried.reply_to);
    assert_eq!(again.carried.traceparent, work.carried.traceparent);
    assert_eq!(again.carried.tracestate, work.carried.tracestate);
    body
}
