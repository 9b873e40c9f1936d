//! What a run did to the NBI and to devices.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::simulator::{FailedAttempt, Flash};
use serde_json::Value;

use super::check::Seen;
use super::driver::LAG;
use super::history::{NbiWrite, Published, Rule};
use super::run::Facts;
use super::scenarios::{JobExpectation, Scenario};
use super::{again, outcomes};
use crate::support::world::start;

/// A time in which something must not be.
type Span = (Timestamp, Timestamp);

/// After an order a job that waits is looked at within 5 minutes (`await_result.max`); a minute for its calls.
const ORDER_TAKES: SignedDuration = SignedDuration::from_mins(6);

/// What operators have ordered of a job, and when.
fn orders(scenario: &Scenario, job: &JobExpectation) -> Vec<(Timestamp, Value)> {
    let orders = scenario.commands.iter().map(|command| {
        let body: Value = serde_json::from_str(&command.body).unwrap();
        (
            start() + SignedDuration::try_from(command.after).unwrap(),
            body,
        )
    });
    let is_ours = |body: &Value| {
        body["job_id"] == job.job_id.as_str()
            || body["campaign_id"].is_string() && body["campaign_id"] == job.campaign_id.as_str()
            || body["all"] == true
    };
    orders.filter(|(_, body)| is_ours(body)).collect()
}

/// When a command of this kind was first given for a job.
pub(crate) fn ordered_at(
    scenario: &Scenario,
    job: &JobExpectation,
    command: &str,
) -> Option<Timestamp> {
    let orders = orders(scenario, job).into_iter();
    orders
        .filter(|(_, body)| body["command"] == command)
        .map(|(at, _)| at)
        .min()
}

/// A connection request under way when an order comes is sent again at once where it hangs, for 10 s each.
const WAKING_TAKES: SignedDuration = SignedDuration::from_secs(30);

/// From when until when nothing may be armed for a job, as operators have ordered; with what an order takes to be known, and a call.
fn forbidden(scenario: &Scenario, job: &JobExpectation) -> Vec<Span> {
    let mut closed = Vec::new();
    let mut paused: BTreeMap<String, Timestamp> = BTreeMap::new();
    let slack = LAG + SignedDuration::from_secs(2);
    for (at, body) in orders(scenario, job) {
        let scope = body["campaign_id"].to_string();
        match body["command"].as_str() {
            Some("cancel") => closed.push((at + slack, Timestamp::MAX)),
            Some("pause") => {
                paused.entry(scope).or_insert(at + slack);
            }
            _ => closed.extend(paused.remove(&scope).map(|from| (from, at))),
        }
    }
    closed.extend(paused.into_values().map(|from| (from, Timestamp::MAX)));
    closed
}

fn span_of(spans: &[Span], at: Timestamp) -> Option<&Span> {
    spans.iter().find(|(from, until)| at > *from && at < *until)
}

/// Executions on the job's device, of any file.
pub(crate) fn flashes_of_device<'a>(seen: &Seen<'a>) -> Vec<&'a Flash> {
    let devices = seen.facts.devices.iter();
    devices
        .filter(|device| device.cpe_id == seen.job.cpe_id)
        .flat_map(|device| &device.flashes)
        .collect()
}

/// Executions of the job's file on its device.
pub(crate) fn flashes<'a>(seen: &Seen<'a>) -> Vec<&'a Flash> {
    let mut flashes = flashes_of_device(seen);
    flashes.retain(|flash| flash.file == seen.job.file);
    flashes
}

/// How many of them wrote firmware.
pub(crate) fn written(flashes: &[&Flash]) -> usize {
    let writing = flashes
        .iter()
        .filter(|flash| flash.result.writes_firmware());
    writing.count()
}

/// What was done for a job.
pub(crate) fn check(seen: &Seen<'_>, wrong: &mut Vec<String>) {
    let Seen { job, finals, .. } = seen;
    let name = &job.job_id;
    let flashes = flashes(seen);
    when(seen, &flashes, wrong);
    how_often(seen, &flashes, wrong);
    until_when(seen, &flashes, wrong);
    let written = written(&flashes);
    for event in finals {
        let is_completed = event.text("outcome") == "completed";
        let (verdict, impact) = (event.verdict(), event.text("impact"));
        if (is_completed || impact == "applied") && written == 0 {
            wrong.push(format!(
                "{name} is {verdict} with impact {impact} and {} was never flashed",
                job.cpe_id
            ));
        }
        let knows_less = job.may_differ && outcomes::may_know_less(seen, event);
        if impact == "none" && has_run_until_asked_again(seen, &flashes, event) && !knows_less {
            wrong.push(format!(
                "{name} is {verdict} with impact none and {} ran its file",
                job.cpe_id
            ));
        }
    }
    // A copy that comes late, out of a pause, may arm while another one ends (`docs/reliability.md`); that it disarms, `check.rs` sees.
    let over_at = finals.first().map(|event| event.at);
    let may_overlap = over_at.is_some_and(|at| seen.was_copied_by(at))
        && (job.may_differ || !seen.scenario.commands.is_empty());
    let rules = seen.facts.rules.iter();
    let then = over_at.and_then(|over_at| rules.rev().find(|(at, _)| *at <= over_at));
    if let (Some((at, rules)), Some(first)) = (then, finals.first())
        && rules.iter().any(|rule| rule.arms(&job.cpe_id, &job.file))
        && !job.leaves_rule
        && !may_overlap
        && first.body["data"]["rule"]["state"] != "cleanup_failed"
    {
        wrong.push(format!(
            "{name}: its rule, as written at {at}, is armed at the final event"
        ));
    }
}

/// Whether anything of the job was armed or run, but for what came of a request that was sent after this event: a job that has failed is then
/// carried out anew.
fn has_run_until_asked_again(seen: &Seen<'_>, flashes: &[&Flash], event: &Published) -> bool {
    let asked_again = seen.sent_at().filter(|at| *at > event.at).min();
    let is_before = |at: Timestamp| asked_again.is_none_or(|asked_again| at < asked_again);
    !flashes.is_empty()
        && (flashes.iter().any(|flash| is_before(flash.started_at))
            || armings(seen).any(|write| is_before(write.at)))
}

/// Writes that arm the job's file on its device.
pub(crate) fn armings<'a>(seen: &Seen<'a>) -> impl Iterator<Item = &'a NbiWrite> + Clone {
    let (facts, job) = (seen.facts, seen.job);
    facts.writes.iter().filter(move |write| {
        write.cpe_id == job.cpe_id && write.file.as_deref() == Some(job.file.as_str())
    })
}

/// Whether a copy has armed its rule after the job's first final event.
pub(crate) fn is_armed_after_the_end(seen: &Seen<'_>) -> bool {
    let first = seen.finals.first();
    first.is_some_and(|first| armings(seen).any(|write| write.at > first.at))
}

/// Nothing before its time, after the end, or against an order.
fn when(seen: &Seen<'_>, flashes: &[&Flash], wrong: &mut Vec<String>) {
    let Seen {
        scenario,
        job,
        finals,
        ..
    } = seen;
    let name = &job.job_id;
    let over_at = finals.iter().map(|event| event.at).min();
    let begins_at = job.not_before.map(|time| time - seen.skew());
    let armings = armings(seen).map(|write| (write.at, write.operation));
    let begun = flashes.iter().map(|flash| (flash.started_at, "flash"));
    let closed = forbidden(scenario, job);
    // A job that waits hears of an order when its time comes.
    let settled: Vec<Span> = closed
        .iter()
        .map(|(from, until)| (seen.at_the_latest(*from, ORDER_TAKES), *until))
        .collect();
    let against = armings
        .clone()
        .map(|(at, what)| (at, what, span_of(&closed, at)))
        .chain(
            begun
                .clone()
                .map(|(at, what)| (at, what, span_of(&settled, at))),
        );
    for (at, what, span) in against {
        if let Some((from, until)) = span {
            wrong.push(format!(
                "{name}: {what} at {at}, which an order forbids from {from} to {until}"
            ));
        }
    }
    for (at, what) in armings.chain(begun) {
        if begins_at.is_some_and(|time| at < time) {
            wrong.push(format!("{name}: {what} at {at}, before not_before"));
        }
        let is_over = over_at.is_some_and(|over_at| at > over_at);
        if is_over && !(job.may_differ && seen.was_copied_by(at)) {
            wrong.push(format!("{name}: {what} at {at}, after the final event"));
        }
    }
}

/// Once, and no more tries than asked for.
fn how_often(seen: &Seen<'_>, flashes: &[&Flash], wrong: &mut Vec<String>) {
    let Seen {
        scenario,
        job,
        copies,
        ..
    } = seen;
    let name = &job.job_id;
    let written = written(flashes);
    let cause = again::cause(seen, flashes);
    if written > 1 && cause.is_none() {
        wrong.push(format!(
            "{name}: {} was flashed {written} times",
            job.cpe_id
        ));
    }
    let uses_up = scenario.setup.semantics.failed_attempt == FailedAttempt::UsesUpExecution;
    // Each copy counts its own tries: strict while there is one request and a broker that makes no copies.
    let copies = if scenario.is_calm() { 1 } else { copies.made };
    if uses_up && cause.is_none() && flashes.len() > job.max_attempts * copies {
        wrong.push(format!(
            "{name}: {} tried {} times, asked for were {}",
            job.cpe_id,
            flashes.len(),
            job.max_attempts
        ));
    }
}

/// Whatever copies there were: long after the deadline nothing is armed for the job, and nothing is run.
fn until_when(seen: &Seen<'_>, flashes: &[&Flash], wrong: &mut Vec<String>) {
    let Seen { job, facts, .. } = seen;
    let name = &job.job_id;
    if job.leaves_rule {
        return;
    }
    let latest = seen.at_the_latest(job.deadline, outcomes::ENDING_TAKES);
    let arms = |rules: &[Rule]| rules.iter().any(|rule| rule.arms(&job.cpe_id, &job.file));
    let then = facts.rules.iter().rfind(|(at, _)| *at <= latest);
    if then.is_some_and(|(_, rules)| arms(rules)) {
        wrong.push(format!("{name}: its rule is armed still at {latest}"));
    }
    let armed = facts.rules.iter().filter(|(_, rules)| arms(rules));
    let runs = flashes.iter().map(|flash| flash.started_at);
    for at in armed.map(|(at, _)| *at).chain(runs) {
        if at > latest {
            wrong.push(format!(
                "{name}: armed or run at {at}, after {latest}, its deadline is {}",
                job.deadline
            ));
        }
    }
}

/// What no job asked for: a file of nobody, and a device that is woken while none of its jobs may begin or after all have ended.
pub(crate) fn strangers(scenario: &Scenario, facts: &Facts, wrong: &mut Vec<String>) {
    for write in &facts.writes {
        let NbiWrite {
            at,
            operation,
            cpe_id,
            file,
        } = write;
        let mut jobs = scenario.jobs.iter().filter(|job| job.cpe_id == *cpe_id);
        if let Some(file) = file
            && !jobs.clone().any(|job| job.file == *file)
        {
            wrong.push(format!(
                "{operation} of {cpe_id} at {at} with {file}, which no job has"
            ));
        }
        let may_wake = |job: &JobExpectation| {
            let skew = scenario.skew_max() + SignedDuration::from_secs(1);
            let last = facts
                .events
                .iter()
                .filter(|event| event.is_final && event.text("job_id") == job.job_id)
                .map(|event| event.at)
                .max();
            // A worker that is cut off goes on, and may die before it says so.
            let is_cut_off = facts
                .copies
                .get(&job.job_id)
                .is_some_and(|copies| copies.cut_off > 0);
            job.not_before.is_none_or(|time| *at >= time - skew)
                && (is_cut_off || last.is_none_or(|last| *at <= last))
                && !forbidden(scenario, job)
                    .iter()
                    .any(|(from, until)| *at > *from + WAKING_TAKES && *at < *until)
        };
        if *operation == "connection_request" && !jobs.any(may_wake) {
            wrong.push(format!(
                "{cpe_id} is woken at {at}, which no job of it may do"
            ));
        }
    }
}
