//! What the events of a run must say.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use nbi_upgrade::simulator::{
    AttemptResult, FailedAttempt, Flash, ReadingRules, ResultTime, Results,
};

use super::check::Seen;
use super::effects;
use super::history::Published;
use super::scenarios::Send;
use crate::support::repeats;

/// From a deadline to the final event, where nothing is in the way: the last calls, each with its repeats.
pub(crate) const ENDING_TAKES: SignedDuration = SignedDuration::from_mins(15);

/// How a job ended, by whichever copy: `already_done` is another copy's `upgraded`.
fn verdict(event: &Published) -> String {
    event.verdict().replace("already_done", "upgraded")
}

/// Each job has ended as it may, in time, and in one way unless that can be explained.
pub(crate) fn check(seen: &Seen<'_>, wrong: &mut Vec<String>) {
    let Seen { job, finals, .. } = seen;
    let name = &job.job_id;
    let Some(first) = finals.first() else {
        wrong.push(format!("{name} has no outcome"));
        return;
    };
    let verdicts: BTreeSet<String> = finals.iter().map(|event| verdict(event)).collect();
    let may_differ = |event: &Published| job.may_differ && seen.was_copied_by(event.at);
    let mut differing = finals
        .iter()
        .filter(|event| verdict(event) != verdict(first));
    if !differing.all(|event| may_differ(event)) {
        wrong.push(format!("{name} has two outcomes: {verdicts:?}"));
    } else if !can_be_explained(seen, &verdicts) {
        wrong.push(format!("{name} has outcomes that contradict: {verdicts:?}"));
    } else if is_completed_after_the_order(seen, &verdicts) {
        wrong.push(format!(
            "{name} is cancelled, and completed by what its device reported after the order"
        ));
    }
    let kinds: BTreeSet<&str> = finals.iter().map(|event| event.text("outcome")).collect();
    let ids: BTreeSet<(&str, &str)> = finals
        .iter()
        .map(|event| (event.text("outcome"), event.id.as_str()))
        .collect();
    if ids.len() > kinds.len() {
        wrong.push(format!("{name}: one outcome under two ids: {ids:?}"));
    }
    let by_delivery: BTreeSet<(u64, &str)> = finals
        .iter()
        .map(|event| (event.delivery, event.id.as_str()))
        .collect();
    let deliveries: BTreeSet<u64> = finals.iter().map(|event| event.delivery).collect();
    if by_delivery.len() > deliveries.len() {
        wrong.push(format!("{name}: one delivery has two outcomes: {ids:?}"));
    }
    for event in finals {
        let verdict = event.verdict();
        if !job.allowed.is_empty() && !job.allowed.contains(&verdict.as_str()) {
            wrong.push(format!(
                "{name} ended {verdict} ({}), expected one of {:?}",
                event.text("message"),
                job.allowed
            ));
        }
        if verdict == "failed/timed_out" && event.text("impact") == "applied" {
            wrong.push(format!("{name} timed out with impact applied"));
        }
    }
    let latest = seen.at_the_latest(job.deadline, ENDING_TAKES);
    if first.at > latest {
        let (at, deadline) = (first.at, job.deadline);
        wrong.push(format!(
            "{name} ended at {at} only, by {latest} at the latest it must, its deadline is {deadline}"
        ));
    }
}

/// Whether this is the word of a copy that may know less than another one of the job.
pub(crate) fn may_know_less(seen: &Seen<'_>, event: &Published) -> bool {
    seen.was_copied_by(event.at) && repeats::knows_less(event.text("reason"))
}

/// Whether copies that looked at different moments may have come to each two of these. Success and fault of one job contradict each other,
/// except where copies cannot tell whose result they see, or since when, where a device tries again by itself, where a request that nobody
/// dated came again after a fault, which is a new order, or where one copy had time for another attempt and the other one had not.
fn can_be_explained(seen: &Seen<'_>, verdicts: &BTreeSet<String>) -> bool {
    let Seen { scenario, job, .. } = seen;
    let semantics = &scenario.setup.semantics;
    let sends = scenario.sends.iter();
    let requests: Vec<_> = sends.filter(|send| send.job == job.job_id).collect();
    let is_dated = |send: &&Send| send.body["requested_at"].is_string();
    let is_limited = requests.len() > 1 && !requests.iter().all(is_dated)
        || semantics.failed_attempt == FailedAttempt::KeepsExecution
        || semantics.reading_rules != ReadingRules::Allowed
        || semantics.results == Results::RowRewritten
        || scenario.skews.len() > 1
        || had_no_time(seen);
    let results: Vec<&str> = verdicts
        .iter()
        .map(String::as_str)
        .filter(|verdict| {
            let reason = verdict.split_once('/').map(|(_, reason)| reason);
            !reason.is_some_and(repeats::knows_less)
        })
        .collect();
    match results[..] {
        [] | [_] => true,
        ["completed/upgraded", "failed/device_fault"] => is_limited,
        _ => false,
    }
}

/// Whether a fault was told so late that there was no time for another attempt.
fn had_no_time(seen: &Seen<'_>) -> bool {
    let Seen { scenario, job, .. } = seen;
    let pause = &scenario.setup.policy.attempt_pause;
    let before_the_last = u32::try_from(job.max_attempts.saturating_sub(2)).unwrap();
    let pause = pause.delay(before_the_last, 1.0) + seen.skew();
    let is_late = |event: &&Published| event.at + pause >= job.deadline;
    let mut faults = seen.finals.iter().copied();
    job.max_attempts > 1
        && faults.any(|event| event.text("reason") == "device_fault" && is_late(&event))
}

/// Whether a copy has told by a success since the order that the job is completed, where another one says that it is cancelled. Nobody can
/// tell where it may be another job's success.
fn is_completed_after_the_order(seen: &Seen<'_>, verdicts: &BTreeSet<String>) -> bool {
    let told = |verdict: &str| verdicts.iter().any(|told| told.starts_with(verdict));
    let ordered_at = effects::ordered_at(seen.scenario, seen.job, "cancel");
    let is_its_own = seen.scenario.setup.policy.tag_rules || seen.others().next().is_none();
    let flashes = effects::flashes(seen);
    let successes = flashes
        .iter()
        .filter(|flash| flash.result == AttemptResult::Success);
    let semantics = &seen.scenario.setup.semantics;
    // As the row has it, or as it was: clocks differ.
    let dated = |flash: &&Flash| {
        let time = match semantics.result_time {
            ResultTime::Begin => Some(flash.started_at),
            ResultTime::End => flash.ended_at,
        };
        Some((time? + semantics.clock_offset).min(flash.ended_at?))
    };
    let first = successes.filter_map(dated).min();
    let is_since = first
        .zip(ordered_at)
        .is_some_and(|(first, ordered_at)| first > ordered_at + seen.skew());
    told("cancelled/") && told("completed/upgraded") && is_its_own && is_since
}

/// Events of one id say the same, except for what belongs to the copy that tells it and to what it knows; where a device has two results
/// that may be the job's, each copy tells the one that it saw.
pub(crate) fn repeats(seen: &Seen<'_>, wrong: &mut Vec<String>) {
    let Seen {
        scenario,
        facts,
        job,
        ..
    } = seen;
    let name = &job.job_id;
    let mut sends = scenario.sends.iter().filter(|send| send.job == *name);
    let is_dated =
        scenario.skews.len() == 1 && sends.all(|send| send.body["requested_at"].is_string());
    let of_device = scenario
        .jobs
        .iter()
        .filter(|other| other.cpe_id == job.cpe_id);
    let may_be_others = of_device.count() > 1 && !scenario.setup.policy.tag_rules;
    let has_two_results = effects::flashes(seen).len() > 1 || may_be_others;
    let mut first_of: BTreeMap<&str, &Published> = BTreeMap::new();
    for event in facts
        .events
        .iter()
        .filter(|event| event.text("job_id") == name)
    {
        let first = *first_of.entry(&event.id).or_insert(event);
        let mut differences = repeats::differences(&first.body, &event.body, is_dated);
        differences
            .retain(|difference| !(has_two_results && difference.starts_with("data.result.")));
        if !differences.is_empty() {
            let kind = &event.body["type"];
            wrong.push(format!(
                "{kind} of {name} came twice and differs: {differences:?}"
            ));
        }
    }
}
