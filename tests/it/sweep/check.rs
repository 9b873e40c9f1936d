//! The properties that hold in any run, whatever died when.
//!
//! 1. No loss: every job has a final event, one that the scenario allows and the facts bear out (`verdicts.rs`), and in time. 2. Safety: one
//!    verdict for a job, unless copies of it may judge differently and the two can be explained; events of one id say the same (`outcomes.rs`).
//! 3. Nothing is armed, no device is woken and none begins, before `not_before` or after the final event, or where an order forbids it. 4. No
//!    rule is armed at the end, nor at the final event, nor long after the deadline, whatever copies there were. 5. NBI calls are bounded. 6. A
//!    crash makes at most one copy of each copy that the dead worker had in hand: k crashes give at most 2^k copies a request. 7. At rest every
//!    message is acknowledged. 8. Once nothing goes wrong any more, everything ends. 9. No device is flashed twice, or tries more often, for one
//!    job, but for causes that are named and were there (`again.rs`). 10. "completed" and `impact` are true (3, 4, 9 and 10: `effects.rs`).

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::copies::Copies;
use super::history::{Published, Rule};
use super::run::Facts;
use super::scenarios::{JobExpectation, Scenario, Send};
use super::{again, effects, outcomes, verdicts};

/// NBI calls that a delivery which comes again may cost.
const OF_A_REPEAT: usize = 24;

/// A job with what became of it.
pub(crate) struct Seen<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) facts: &'a Facts,
    pub(crate) job: &'a JobExpectation,
    /// Its final events, in order.
    pub(crate) finals: Vec<&'a Published>,
    pub(crate) copies: Copies,
}

impl Seen<'_> {
    /// How wrong the clock of a worker is at most, and a second.
    pub(crate) fn skew(&self) -> SignedDuration {
        self.scenario.skew_max() + SignedDuration::from_secs(1)
    }

    /// Whether there had been two copies of it by then.
    pub(crate) fn was_copied_by(&self, at: Timestamp) -> bool {
        self.copies.since.is_some_and(|since| since <= at)
    }

    /// Whether anything of it can have been done twice: it was asked for twice, or copied, or a delivery came again.
    pub(crate) fn came_again(&self) -> bool {
        self.copies.may_be() > 1
    }

    /// When its requests were sent.
    pub(crate) fn sent_at(&self) -> impl Iterator<Item = Timestamp> {
        let sends = self.scenario.sends.iter();
        sends
            .filter(|send| send.job == self.job.job_id)
            .map(Send::at)
    }

    /// Since when its results count, by true clocks: what the last request by then says, or when it was sent where it says nothing. None: it has a
    /// date by which older ones count as well.
    pub(crate) fn asked_for_since(&self, by: Timestamp) -> Option<Timestamp> {
        let sends = self.scenario.sends.iter();
        let last = sends
            .filter(|send| send.job == self.job.job_id && send.at() <= by)
            .max_by_key(|send| send.at())?;
        let said = last.body["requested_at"].as_str();
        match said {
            Some(said) => said.parse().ok(),
            None => (last.body["force"] == true).then(|| last.at()),
        }
    }

    /// The dates of its requests, as events by then have told them.
    pub(crate) fn told_dates(&self, by: Timestamp) -> impl Iterator<Item = Timestamp> {
        let events = self.facts.events.iter();
        events
            .filter(move |event| event.at <= by && event.text("job_id") == self.job.job_id)
            .filter_map(|event| event.text("requested_at").parse().ok())
    }

    /// Other jobs of its device.
    pub(crate) fn others(&self) -> impl Iterator<Item = &JobExpectation> {
        let is_other = move |other: &&JobExpectation| {
            other.cpe_id == self.job.cpe_id && other.job_id != self.job.job_id
        };
        self.scenario.jobs.iter().filter(is_other)
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

/// What is counted over many runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) jobs: usize,
    pub(crate) completed: usize,
    /// Jobs of which copies have told two outcomes.
    pub(crate) differing: usize,
    /// Jobs whose rule a copy has armed after their first final event.
    pub(crate) armed_late: usize,
    /// Jobs with a cause for a second flash, and those with a second flash, by the cause.
    pub(crate) excusable: BTreeMap<&'static str, usize>,
    pub(crate) excused: BTreeMap<&'static str, usize>,
    /// First final events by verdict.
    pub(crate) verdicts: BTreeMap<String, usize>,
    /// How much of the bound of calls was used up, at most.
    pub(crate) of_calls_max: f64,
}

impl Tally {
    /// One more run.
    pub(crate) fn add(&mut self, other: &Self) {
        self.jobs += other.jobs;
        self.completed += other.completed;
        self.differing += other.differing;
        self.armed_late += other.armed_late;
        add(&mut self.excusable, &other.excusable);
        add(&mut self.excused, &other.excused);
        add(&mut self.verdicts, &other.verdicts);
        self.of_calls_max = self.of_calls_max.max(other.of_calls_max);
    }

    fn count(&mut self, seen: &Seen<'_>) {
        let outcomes: BTreeSet<&str> = seen.finals.iter().map(|e| e.text("outcome")).collect();
        let flashes = effects::flashes(seen);
        self.jobs += 1;
        self.completed += usize::from(outcomes.contains("completed"));
        self.differing += usize::from(outcomes.len() > 1);
        self.armed_late += usize::from(effects::is_armed_after_the_end(seen));
        if let Some(cause) = again::cause(seen, &flashes) {
            *self.excusable.entry(cause).or_default() += 1;
            if effects::written(&flashes) > 1 {
                *self.excused.entry(cause).or_default() += 1;
            }
        }
        if let Some(first) = seen.finals.first() {
            *self.verdicts.entry(first.verdict()).or_default() += 1;
        }
    }
}

fn add<K: Ord + Clone>(all: &mut BTreeMap<K, usize>, more: &BTreeMap<K, usize>) {
    for (key, count) in more {
        *all.entry(key.clone()).or_default() += count;
    }
}

/// Everything that is wrong with a run, and what is counted.
pub(crate) fn check(scenario: &Scenario, facts: &Facts) -> (Vec<String>, Tally) {
    let mut wrong = Vec::new();
    let mut tally = Tally::default();
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
    for job in &scenario.jobs {
        let is_of_job =
            |event: &&Published| event.is_final && event.text("job_id") == job.job_id.as_str();
        let copies = facts.copies.get(&job.job_id).cloned().unwrap_or_default();
        let seen = Seen {
            scenario,
            facts,
            job,
            finals: facts.events.iter().filter(is_of_job).collect(),
            copies,
        };
        outcomes::check(&seen, &mut wrong);
        outcomes::repeats(&seen, &mut wrong);
        verdicts::check(&seen, &mut wrong);
        effects::check(&seen, &mut wrong);
        tally.count(&seen);
    }
    armed(scenario, facts, &mut wrong);
    effects::strangers(scenario, facts, &mut wrong);
    copies(scenario, facts, &mut wrong);
    if let Some(most) = calls_max(scenario, facts) {
        let calls = facts.calls;
        if calls > most {
            wrong.push(format!("{calls} NBI calls, at most {most} may be"));
        }
        tally.of_calls_max = calls as f64 / most.max(1) as f64;
    }
    (wrong, tally)
}

/// At the end nothing is armed but what was asked to stay.
fn armed(scenario: &Scenario, facts: &Facts, wrong: &mut Vec<String>) {
    let stays = |rule: &&Rule| {
        let mut keeping = scenario.jobs.iter().filter(|job| job.leaves_rule);
        keeping.any(|job| rule.arms(&job.cpe_id, &job.file))
    };
    let is_armed = |rule: &&Rule| rule.is_armed && !stays(rule);
    let left: Vec<&Rule> = facts.at_the_end.iter().filter(is_armed).collect();
    if !left.is_empty() {
        wrong.push(format!("rules are left armed: {left:?}"));
    }
}

fn copies(scenario: &Scenario, facts: &Facts, wrong: &mut Vec<String>) {
    for (job, copies) in &facts.copies {
        let requests = scenario.sends.iter().filter(|send| send.job == *job);
        let may_be = copies.may_be();
        let allowed = if scenario.is_calm() {
            (requests.count() << facts.crashes).min(may_be)
        } else {
            may_be
        };
        if copies.most > allowed {
            let most = copies.most;
            wrong.push(format!("{most} copies of {job}, at most {allowed} may be"));
        }
    }
}

/// The most NBI calls that there may be, where that is known: those of a run without copies, as many for each copy that was made and for each
/// delivery whose worker died, which may change the course of every job, and those of the deliveries that came again. None at all where nothing
/// may be asked. A copy that rests before it has armed anything reads the rule beside the results.
fn calls_max(scenario: &Scenario, facts: &Facts) -> Option<usize> {
    let calls = scenario.calls?;
    if calls == 0 {
        return Some(0);
    }
    let sum = |count: fn(&Copies) -> usize| facts.copies.values().map(count).sum::<usize>();
    let of_the_dead = sum(|copies| copies.of_the_dead);
    let copies = sum(|copies| copies.made).saturating_sub(scenario.sends.len());
    let given_back = sum(|copies| copies.given_back);
    let again = copies + of_the_dead;
    let rests = scenario
        .commands
        .iter()
        .any(|command| command.body.contains("pause"));
    let of_a_copy = if again > 0 || facts.crashes > 0 {
        calls + OF_A_REPEAT + if rests { calls / 2 } else { 0 }
    } else {
        calls
    };
    Some(of_a_copy * (1 + again * scenario.jobs.len()) + given_back * OF_A_REPEAT)
}
