//! Events of one id, compared: copies of a job decide at different moments, and what they tell of their own way may differ. Nothing else may.

use serde_json::Value;

/// What belongs to the copy that tells it, and not to the job: when it looked, how often, and what it found of the rule.
const OF_THE_COPY: &[&str] = &[
    "source",
    "time",
    "traceparent",
    "tracestate",
    "data.attempts",
    "data.duration_ms",
    "data.finished_at",
    "data.next_look_at",
    "data.rule.state",
    "data.stage",
    "data.stages",
    "data.started_at",
    "data.waiting_for",
];

/// The same where nobody says when the request was made, or says a time that a worker's clock has not reached: each delivery dates it anew.
const OF_AN_UNDATED_COPY: &[&str] = &["data.deadline", "data.requested_at"];

/// The reasons of one success: of the copy that upgraded the device, and of one that found that done.
const OF_ONE_SUCCESS: [&str; 2] = ["upgraded", "already_done"];

/// How a copy ends that knows less than one that saw a result: it ran out of time, lost the rule to another job, was cancelled, or gave the NBI up.
const KNOWS_LESS: [&str; 6] = [
    "timed_out",
    "superseded",
    "device_busy",
    "nbi_unavailable",
    "nbi_protocol_error",
    "cancelled",
];

/// What such a copy may say otherwise than another one that ended with the same outcome.
const OF_WHAT_IS_KNOWN: [&str; 5] = [
    "data.reason",
    "data.fault",
    "data.impact",
    "data.result",
    "data.message",
];

/// Whether whoever gives this reason may know less than another copy of the job.
pub(crate) fn knows_less(reason: &str) -> bool {
    KNOWS_LESS.contains(&reason)
}

/// Where two events of one id differ and must not, each as `member: this and that`.
pub(crate) fn differences(one: &Value, other: &Value, is_dated: bool) -> Vec<String> {
    let mut found = Vec::new();
    compare("", one, other, &mut found);
    let is_of_success = |event: &Value| {
        let reason = event["data"]["reason"].as_str();
        reason.is_some_and(|reason| OF_ONE_SUCCESS.contains(&reason))
    };
    let is_one_success = one["data"]["reason"] != other["data"]["reason"]
        && [one, other].into_iter().all(is_of_success);
    let may_know_less = [one, other].into_iter().any(|event| {
        let reason = event["data"]["reason"].as_str();
        reason.is_some_and(knows_less)
    });
    let is_known = |path: &str| OF_WHAT_IS_KNOWN.iter().any(|part| path.starts_with(part));
    let may = |path: &str| {
        OF_THE_COPY.contains(&path)
            || !is_dated && OF_AN_UNDATED_COPY.contains(&path)
            || is_one_success && ["data.reason", "data.message"].contains(&path)
            || may_know_less && is_known(path)
    };
    found.retain(|(path, _)| !may(path));
    let texts = found.into_iter();
    texts
        .map(|(path, what)| format!("{path}: {what}"))
        .collect()
}

fn compare(path: &str, one: &Value, other: &Value, found: &mut Vec<(String, String)>) {
    if one == other {
        return;
    }
    if let (Some(left), Some(right)) = (one.as_object(), other.as_object()) {
        let new = right.keys().filter(|name| !left.contains_key(*name));
        for name in left.keys().chain(new) {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            let of = |event: &Value| event.get(name).cloned().unwrap_or_default();
            compare(&path, &of(one), &of(other), found);
        }
        return;
    }
    found.push((path.to_owned(), format!("{one} and {other}")));
}

#[test]
fn what_a_copy_tells_of_itself_may_differ_and_nothing_else() {
    let event = |data: Value| serde_json::json!({"type": "upgrade.completed", "data": data});
    let told = serde_json::json!({
        "reason": "upgraded", "impact": "applied", "attempts": 1, "requested_at": "a",
        "rule": {"state": "deactivated", "id": "R"}, "message": "done",
    });
    for (member, value, is_dated, expected) in [
        ("attempts", "2", true, ""),
        ("reason", "already_done", true, ""),
        ("requested_at", "b", false, ""),
        ("requested_at", "b", true, "data.requested_at"),
        ("reason", "device_fault", true, "data.reason"),
        ("reason", "timed_out", true, ""),
        ("impact", "none", true, "data.impact"),
        ("fault", "9010", true, "data.fault"),
        ("result", "a row", true, "data.result"),
        ("message", "other", true, "data.message"),
        ("cpe_id", "CPE2", true, "data.cpe_id"),
        ("rule", "none", true, "data.rule"),
        ("rule.state", "superseded", true, ""),
        ("rule.id", "S", true, "data.rule.id"),
    ] {
        let mut again = told.clone();
        match member.split_once('.') {
            Some((parent, name)) => again[parent][name] = Value::from(value),
            None => again[member] = Value::from(value),
        }
        let found = differences(&event(told.clone()), &event(again), is_dated);
        let is_right = if expected.is_empty() {
            found.is_empty()
        } else {
            found.len() == 1 && found[0].starts_with(expected)
        };
        assert!(is_right, "{member} {value}: {found:?}");
    }
}

/// What a copy that knows less may say otherwise is bound to its reason: each member beside a reason of each kind.
#[test]
fn only_a_copy_that_knows_less_may_say_less() {
    let event = |reason: &str, impact: &str, cpe_id: &str| serde_json::json!({"data": {"reason": reason, "impact": impact, "cpe_id": cpe_id}});
    let fault = event("device_fault", "possible", "CPE1");
    for reason in KNOWS_LESS {
        let less = event(reason, "none", "CPE1");
        assert_eq!(differences(&fault, &less, true), Vec::<String>::new());
        assert_eq!(differences(&less, &fault, true), Vec::<String>::new());
        let other = differences(&fault, &event(reason, "none", "CPE2"), true);
        assert!(
            other.len() == 1 && other[0].starts_with("data.cpe_id"),
            "{other:?}"
        );
    }
    let as_much = differences(&fault, &event("nbi_rejected", "possible", "CPE1"), true);
    assert!(
        as_much.len() == 1 && as_much[0].starts_with("data.reason"),
        "{as_much:?}"
    );
    // One success is told in two ways, and by nothing else.
    let success = event("upgraded", "applied", "CPE1");
    let done = event("already_done", "applied", "CPE1");
    assert_eq!(differences(&success, &done, true), Vec::<String>::new());
    let unlike = differences(&success, &event("already_done", "none", "CPE1"), true);
    assert!(
        unlike.len() == 1 && unlike[0].starts_with("data.impact"),
        "{unlike:?}"
    );
    let current = differences(&success, &event("already_current", "applied", "CPE1"), true);
    assert!(
        current.len() == 1 && current[0].starts_with("data.reason"),
        "{current:?}"
    );
}
