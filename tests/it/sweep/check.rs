//! The properties that hold in any run, whatever died when.
//!
//! 1. No loss: every job has a final event, one that the scenario allows, and in time. 2. Safety: one verdict for a job, unless copies of it may
//!    judge differently and the two can be explained; events of one id say the same (`outcomes.rs`). 3. Nothing is armed, no device is woken and
//!    none begins, before `not_before` or after the final event, or where an order forbids it. 4. No rule is armed at the
//!    end, nor at the final event. 5. NBI calls are bounded. 6. A crash makes at most one
//!    copy of each copy that the dead worker had in hand: k crashes give at most 2^k copies a request. 7. At rest every message is acknowledged. 8. Once
//!    nothing goes wrong any more, everything ends. 9. No device is flashed twice, or tries more often, for one job. 10. "completed" and `impact`
//!    are true (3, 4, 9 and 10: `effects.rs`).

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::history::Published;
use super::run::Facts;
use super::scenarios::{JobExpectation, Scenario};
use super::{effects, outcomes};

/// A job with what became of it.
pub(crate) struct Seen<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) facts: &'a Facts,
    pub(crate) job: &'a JobExpectation,
    /// Its final events, in order.
    pub(crate) finals: Vec<&'a Published>,
    /// Whether there may have been two copies of it at any time, requests counted.
    pub(crate) is_copied: bool,
}

impl Seen<'_> {
    /// How wrong the clock of a worker is at most, and a second.
    pub(crate) fn skew(&self) -> SignedDuration {
        let skews = self.scenario.skews.iter().map(|skew| skew.abs());
        skews.max().unwrap_or_default() + SignedDuration::from_secs(1)
    }

    /// By when something that is due then has been done: after the troubles, what crashes hold up, and so long.
    pub(crate) fn at_the_latest(&self, due: Timestamp, takes: SignedDuration) -> Timestamp {
        let Self {
            scenario, facts, ..
        } = self;
        let times = facts.crashes + scenario.stops.len();
        let held_up = scenario.faults.redelivers_after * u32::try_from(times).unwrap();
        let due = scenario.faults.quiet_from.map_or(due, |time| due.max(time));
        due.saturating_add(SignedDuration::try_from(held_up).unwrap() + self.skew() + takes)
            .unwrap()
    }
}

/// Everything that is wrong with a run.
pub(crate) fn check(scenario: &Scenario, facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
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
        let is_of_job =
            |event: &&Published| event.is_final && event.text("job_id") == job.job_id.as_str();
        let seen = Seen {
            scenario,
            facts,
            job,
            finals: facts.events.iter().filter(is_of_job).collect(),
            is_copied: forks(facts, &job.job_id) > 1,
        };
        outcomes::check(&seen, &mut wrong);
        outcomes::repeats(&seen, &mut wrong);
        effects::check(&seen, &mut wrong);
    }
    effects::strangers(scenario, facts, &mut wrong);
    copies(scenario, facts, &mut wrong);
    let most = calls_max(scenario, facts);
    if facts.calls > most {
        let calls = facts.calls;
        wrong.push(format!("{calls} NBI calls, at most {most} may be"));
    }
    wrong
}

/// How many copies of a job there may have been at any time: requests, and whatever may have made a copy.
fn forks(facts: &Facts, job: &str) -> usize {
    facts.copies.get(job).map_or(1, |(_, forks)| *forks)
}

fn copies(scenario: &Scenario, facts: &Facts, wrong: &mut Vec<String>) {
    for (job, (most, forks)) in &facts.copies {
        let requests = scenario.sends.iter().filter(|send| send.job == *job);
        let allowed = if scenario.is_calm() {
            (requests.count() << facts.crashes).min(*forks)
        } else {
            *forks
        };
        if *most > allowed {
            wrong.push(format!("{most} copies of {job}, at most {allowed} may be"));
        }
    }
}

/// The most NBI calls that copies may make.
fn calls_max(scenario: &Scenario, facts: &Facts) -> usize {
    let forks: usize = scenario
        .jobs
        .iter()
        .map(|job| forks(facts, &job.job_id))
        .sum();
    forks.saturating_mul(scenario.calls_of_a_copy())
}
