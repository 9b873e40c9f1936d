//! The properties that hold in any run, whatever died when.
//!
//! 1. No loss: every job has a final event, and one that the scenario allows. 2. Safety: never two kinds of final event for a job, and one
//!    id for all of them. 3. Nothing is armed, and no device begins, before `not_before` or after the final event; nothing is
//!    armed once the job is cancelled, or while it is paused. 4. No rule is armed at the
//!    end. 5. NBI calls are bounded. 6. A crash makes at most one
//!    copy of each copy that the dead worker had in hand: k crashes give at most 2^k copies a request. 7. At rest every message is acknowledged. 8. Once
//!    nothing goes wrong any more, everything ends. 9. No device is flashed twice, or tries more often, for one job. 10. "completed" is true.
//!
//! Not had, and why: equal *bytes* for an equal event id. Two copies decide at two moments, and times, attempts and the stages' records
//! are those of the copy; there is no shared record of a decision. Outcome and id are equal.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::simulator::FailedAttempt;
use serde_json::Value;

use super::driver::LAG;
use super::history::Final;
use super::run::Facts;
use super::scenarios::{JobExpectation, Scenario};
use crate::support::world::start;

/// Everything that is wrong with a run.
pub(crate) fn check(scenario: &Scenario, facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut finals: BTreeMap<&str, Vec<&Final>> = BTreeMap::new();
    for event in &facts.finals {
        finals.entry(event.text("job_id")).or_default().push(event);
    }
    if facts.left > 0 {
        wrong.push(format!("{} messages are left", facts.left));
    }
    let dead: BTreeSet<&str> = facts.dead.iter().map(String::as_str).collect();
    if dead != scenario.dead {
        wrong.push(format!(
            "dead letters: {dead:?}, expected {:?}",
            scenario.dead
        ));
    }
    if scenario.leaves_rule {
        // The requester asked for it.
    } else if !facts.armed.is_empty() {
        wrong.push(format!("rules are left armed: {:?}", facts.armed));
    }
    for job in &scenario.jobs {
        let of_job = finals
            .get(job.job_id.as_str())
            .map_or(&[][..], Vec::as_slice);
        outcomes(job, of_job, &mut wrong);
        effects(scenario, job, of_job, facts, &mut wrong);
    }
    for (job, (most, allowed)) in &facts.copies {
        let requests = scenario
            .sends
            .iter()
            .filter(|send| send.job == *job)
            .count();
        let allowed = if scenario.is_calm() {
            requests << facts.crashes
        } else {
            *allowed
        };
        if *most > allowed {
            wrong.push(format!("{most} copies of {job}, at most {allowed} may be"));
        }
    }
    if facts.calls > scenario.calls_max(facts.crashes) {
        wrong.push(format!(
            "{} NBI calls, at most {} may be",
            facts.calls,
            scenario.calls_max(facts.crashes)
        ));
    }
    wrong
}

/// From when until when nothing may be armed for a job, as operators have ordered; with what an order takes to be known, and a call.
fn forbidden(scenario: &Scenario, job: &JobExpectation) -> Vec<(Timestamp, Timestamp)> {
    let mut closed = Vec::new();
    let mut paused: BTreeMap<String, Timestamp> = BTreeMap::new();
    let slack = LAG + SignedDuration::from_secs(2);
    for command in &scenario.commands {
        let body: Value = serde_json::from_str(&command.body).unwrap();
        let at = start() + SignedDuration::try_from(command.after).unwrap();
        let is_ours = body["job_id"] == job.job_id.as_str()
            || body["campaign_id"].is_string() && body["campaign_id"] == job.campaign_id.as_str()
            || body["all"] == true;
        let scope = body["campaign_id"].to_string();
        match body["command"].as_str() {
            _ if !is_ours => {}
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

fn outcomes(job: &JobExpectation, finals: &[&Final], wrong: &mut Vec<String>) {
    let name = &job.job_id;
    if finals.is_empty() {
        wrong.push(format!("{name} has no outcome"));
    }
    let kinds: BTreeSet<&str> = finals.iter().map(|event| event.text("outcome")).collect();
    if kinds.len() > 1 && !job.may_differ {
        wrong.push(format!("{name} has two outcomes: {kinds:?}"));
    }
    let ids: BTreeSet<(&str, &str)> = finals
        .iter()
        .map(|event| (event.text("outcome"), event.id.as_str()))
        .collect();
    if ids.len() > kinds.len() {
        wrong.push(format!("{name}: one outcome under two ids: {ids:?}"));
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
}

fn effects(
    scenario: &Scenario,
    job: &JobExpectation,
    finals: &[&Final],
    facts: &Facts,
    wrong: &mut Vec<String>,
) {
    let name = &job.job_id;
    let over_at = finals.iter().map(|event| event.at).min();
    let skew = scenario
        .skews
        .iter()
        .map(|skew| skew.abs())
        .max()
        .unwrap_or_default()
        + SignedDuration::from_secs(1);
    let begins_at = job.not_before.map(|time| time - skew);
    let flashes: Vec<_> = facts
        .devices
        .iter()
        .filter(|device| device.cpe_id == job.cpe_id)
        .flat_map(|device| &device.flashes)
        .filter(|flash| flash.file == job.file)
        .collect();
    let armings = facts
        .writes
        .iter()
        .filter(|write| write.file.as_deref() == Some(job.file.as_str()))
        .map(|write| (write.at, write.operation));
    let begun = flashes.iter().map(|flash| (flash.started_at, "flash"));
    let closed = forbidden(scenario, job);
    for (at, what) in armings.clone() {
        if let Some((from, until)) = closed
            .iter()
            .find(|(from, until)| at > *from && at < *until)
        {
            wrong.push(format!(
                "{name}: {what} at {at}, which an order forbids from {from} to {until}"
            ));
        }
    }
    for (at, what) in armings.chain(begun) {
        if begins_at.is_some_and(|time| at < time) {
            wrong.push(format!("{name}: {what} at {at}, before not_before"));
        }
        if over_at.is_some_and(|over_at| at > over_at) && !job.may_differ {
            wrong.push(format!("{name}: {what} at {at}, after the final event"));
        }
    }
    let written = flashes
        .iter()
        .filter(|flash| flash.result.writes_firmware())
        .count();
    if written > 1 && !job.may_flash_again {
        wrong.push(format!(
            "{name}: {} was flashed {written} times",
            job.cpe_id
        ));
    }
    let uses_up = scenario.setup.semantics.failed_attempt == FailedAttempt::UsesUpExecution;
    // Each copy counts its own tries: strict while there is one request and a broker that makes no copies.
    let copies = if scenario.is_calm() {
        1
    } else {
        facts.copies.get(name).map_or(1, |(_, may_be)| *may_be)
    };
    if uses_up && !job.may_flash_again && flashes.len() > job.max_attempts * copies {
        wrong.push(format!(
            "{name}: {} tried {} times, asked for were {}",
            job.cpe_id,
            flashes.len(),
            job.max_attempts
        ));
    }
    let is_completed = finals
        .iter()
        .any(|event| event.text("outcome") == "completed");
    if is_completed && written == 0 {
        wrong.push(format!(
            "{name} is completed and {} was never flashed",
            job.cpe_id
        ));
    }
}
