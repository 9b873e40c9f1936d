//! The schema of events: what each type always holds, on top of what any event may hold.

use serde_json::{Map, Value, json};

use super::{DEFINITIONS, document, of_output, take_definitions};
use crate::job::{Outcome, Reason};
use crate::message::campaign::{EventData as CampaignData, STATES};
use crate::message::control::AnswerReason;
use crate::message::event::{CloudEvent, DATA_SCHEMA, Data as JobData, EventKind};

/// The schema of every event; `definitions` has one for each type, named by the last word of it.
#[must_use]
pub fn event() -> Value {
    let mut any = of_output::<CloudEvent<'_, JobData<'_>>>();
    let mut definitions = take_definitions(&mut any);
    let dialect = any["$schema"].take();
    definitions.insert(
        "CloudEvent".to_owned(),
        without_dialect(any, "Any upgrade event"),
    );
    let mut campaign = of_output::<CloudEvent<'_, CampaignData<'_>>>();
    definitions.append(&mut take_definitions(&mut campaign));
    definitions.insert(
        "CampaignEvent".to_owned(),
        without_dialect(campaign, "Any event of a campaign"),
    );
    let mut kinds = Vec::new();
    for kind in EventKind::ALL {
        let name = kind.event_type().replace("upgrade.", "");
        kinds.push(json!({"$ref": format!("#/{DEFINITIONS}/{name}")}));
        definitions.insert(name, of_kind(kind));
    }
    let schema = json!({
        "$schema": dialect,
        "title": "Upgrade event",
        "description": "A CloudEvent 1.0 in structured JSON mode, published to the exchange `<prefix>.results` (content type \
            `application/cloudevents+json`). It may come twice, with the same `id`.",
        "oneOf": kinds,
        DEFINITIONS: definitions,
    });
    document(DATA_SCHEMA, schema)
}

fn without_dialect(mut schema: Value, title: &str) -> Value {
    if let Value::Object(entries) = &mut schema {
        entries.remove("$schema");
        entries.insert("title".to_owned(), json!(title));
    }
    schema
}

fn of_kind(kind: EventKind) -> Value {
    let (title, fields): (&str, &[&str]) = match kind {
        EventKind::Accepted => (
            "The request is valid and safe in the broker",
            &["requested_at"],
        ),
        EventKind::Progress => (
            "A stage is done",
            &["requested_at", "stage", "attempts", "stages"],
        ),
        EventKind::Jeopardy => (
            "The deadline of a job can hardly be met",
            &[
                "message",
                "requested_at",
                "deadline",
                "stage",
                "waiting_for",
                "next_look_at",
                "attempts",
                "stages",
            ],
        ),
        EventKind::Completed => (
            "The device runs the firmware, as far as its management system says",
            &FINAL,
        ),
        EventKind::Failed => ("The upgrade failed, or nobody knows", &FINAL),
        EventKind::Cancelled => ("An operator ended the job", &FINAL),
        EventKind::Rejected => (
            "The request is not valid and was not carried out",
            &[
                "outcome",
                "reason",
                "impact",
                "message",
                "finished_at",
                "errors",
            ],
        ),
        EventKind::Corrected => (
            "A result came after the final event and says otherwise",
            &FINAL,
        ),
        EventKind::CommandAccepted => (
            "The order of an operator stands",
            &["command", "reason", "message"],
        ),
        EventKind::CommandRefused => (
            "The order of an operator changes nothing",
            &["reason", "message"],
        ),
        EventKind::CampaignAccepted => (
            "A campaign was taken on, or devices were added to it",
            &["devices"],
        ),
        EventKind::CampaignProgress => ("The counts of a campaign", &[]),
        EventKind::CampaignPaused => ("A campaign starts nothing any more", &["reason", "message"]),
        EventKind::CampaignResumed => ("A campaign goes on", &[]),
        EventKind::CampaignJeopardy => (
            "The deadline of a campaign can no longer be met, or can again",
            &["deadline", "in_jeopardy"],
        ),
        EventKind::CampaignCompleted => ("Every device of a campaign has its outcome", &[]),
        EventKind::CampaignCancelled => (
            "An operator ended a campaign, and every device has its outcome",
            &[],
        ),
    };
    let mut required: Vec<&str> = fields.to_vec();
    let mut attributes = vec!["data"];
    let is_of_a_job = !matches!(
        kind,
        EventKind::Rejected | EventKind::CommandAccepted | EventKind::CommandRefused
    ) && !kind.is_of_campaign();
    let base = if kind.is_of_campaign() {
        attributes.push("subject");
        "CampaignEvent"
    } else {
        "CloudEvent"
    };
    if is_of_a_job {
        required.extend(["job_id", "cpe_id", "firmware_url"]);
        attributes.push("subject");
    }
    let mut data = Map::new();
    data.insert("required".to_owned(), json!(required));
    if matches!(kind, EventKind::CommandAccepted | EventKind::CommandRefused) {
        let is_accepted = kind == EventKind::CommandAccepted;
        let reasons: Vec<&str> = AnswerReason::ALL
            .iter()
            .filter(|reason| reason.is_accepted() == is_accepted)
            .map(|reason| reason.name())
            .collect();
        data.insert(
            "properties".to_owned(),
            json!({"reason": {"enum": reasons}}),
        );
    }
    if kind.is_of_campaign() {
        data.insert(
            "properties".to_owned(),
            json!({"state": {"enum": states(kind)}}),
        );
    }
    if let Some(outcome) = outcome(kind) {
        let reasons: Vec<&str> = Reason::ALL
            .iter()
            .filter(|reason| reason.outcome() == outcome)
            .map(|reason| reason.name())
            .collect();
        data.insert(
            "properties".to_owned(),
            json!({"outcome": {"const": outcome.name()}, "reason": {"enum": reasons}}),
        );
    }
    json!({
        "title": title,
        "allOf": [
            {"$ref": format!("#/{DEFINITIONS}/{base}")},
            {"required": attributes, "properties": {"type": {"const": kind.event_type()}, "data": data}},
        ],
    })
}

/// How a campaign stands in an event of this kind.
fn states(kind: EventKind) -> &'static [&'static str] {
    match kind {
        EventKind::CampaignPaused => &["paused"],
        EventKind::CampaignResumed => &["running"],
        EventKind::CampaignCompleted => &["completed"],
        EventKind::CampaignCancelled => &["cancelled"],
        _ => &STATES[..3],
    }
}

/// What every final event about an accepted job holds.
const FINAL: [&str; 8] = [
    "outcome",
    "reason",
    "impact",
    "message",
    "rule",
    "attempts",
    "requested_at",
    "finished_at",
];

fn outcome(kind: EventKind) -> Option<Outcome> {
    Outcome::ALL
        .iter()
        .copied()
        .find(|outcome| EventKind::of_outcome(*outcome) == kind)
}
