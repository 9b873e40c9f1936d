//! Workers that are wrong on purpose: each must be found out by the sweep, or the sweep proves nothing.

use std::sync::Arc;

use jiff::SignedDuration;
use nbi_upgrade::clock::Clock;
use nbi_upgrade::driver::{Delivery, Destination, Driver, HandOver};
use nbi_upgrade::job::{self, Inputs, NbiAnswer, Next, Policy, Stage, Step};
use nbi_upgrade::message::{Codec, Work};
use nbi_upgrade::nbi::Nbi;
use tokio::task::JoinSet;

use super::crashes::every_single_crash;
use super::scenarios::{self, Scenario};

/// What is wrong with a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Acknowledges before the replacement is confirmed.
    AckFirst,
    /// Gives an event another id each time.
    RandomEventId,
    /// Goes on from `preflight` to `create_rule` without handing the baseline over.
    NoHandOver,
    /// Knows no order that was given before it was born.
    ForgetsOrders,
    /// Creates the rule without looking what stands there.
    BlindPost,
    /// Writes over a rule without a second look at the results.
    NoSecondLook,
    /// Takes a pause for carried out, and leaves the rule armed.
    KeepsArmed,
    /// Nothing: the copy of the loop as it is, which shows that what is found is the flaw's.
    Nothing,
}

impl Broken {
    /// Whether it is the loop that is wrong, and not the driver.
    pub(crate) fn is_of_the_loop(self) -> bool {
        match self {
            Self::NoHandOver
            | Self::BlindPost
            | Self::NoSecondLook
            | Self::KeepsArmed
            | Self::Nothing => true,
            Self::AckFirst | Self::RandomEventId | Self::ForgetsOrders => false,
        }
    }
}

/// A small copy of the worker's loop, with a flaw.
pub(crate) struct BrokenWorker<N, D> {
    pub(crate) broken: Broken,
    pub(crate) nbi: Arc<N>,
    pub(crate) driver: Arc<D>,
    pub(crate) codec: Codec,
    pub(crate) policy: Policy,
    pub(crate) clock: Clock,
}

impl<N: Nbi, D: Driver> BrokenWorker<N, D> {
    /// Works until it is killed.
    pub(crate) async fn run(self) {
        let this = Arc::new(self);
        let mut tasks = JoinSet::new();
        while let Some(delivery) = this.driver.receive().await {
            tasks.spawn(Arc::clone(&this).handle(delivery));
        }
    }

    fn inputs(&self, job: &job::Job, redelivered: bool) -> Inputs {
        Inputs {
            now: (self.clock)(),
            jitter: fastrand::f64(),
            standing: self.driver.standing(&job.order),
            redelivered,
        }
    }

    async fn handle(self: Arc<Self>, delivery: Delivery<D::Token>) {
        let Delivery {
            work,
            redelivered,
            token,
        } = delivery;
        let Work { job, carried, .. } = work;
        let mut happened = Vec::new();
        let inputs = self.inputs(&job, redelivered);
        let mut decision = job::begin(job, inputs, &self.policy);
        let next = loop {
            happened.append(&mut decision.events);
            let step = match decision.next {
                Next::Step(Step::ReadResultsBeforeArming) if self.broken == Broken::BlindPost => {
                    Step::CreateRule { readable: true }
                }
                Next::Step(Step::ReadResultsBeforeWriting { exists: true, .. })
                    if self.broken == Broken::NoSecondLook =>
                {
                    Step::UpdateRule { readable: true }
                }
                Next::Step(Step::DisarmToPause) if self.broken == Broken::KeepsArmed => {
                    let inputs = self.inputs(&decision.job, redelivered);
                    let done = Ok(NbiAnswer::Done);
                    let step = Step::DisarmToPause;
                    decision = job::decide(decision.job, step, done, inputs, &self.policy);
                    continue;
                }
                Next::Step(step) => step,
                Next::Advance
                    if self.broken == Broken::NoHandOver
                        && decision.job.progress.stage == Stage::CreateRule =>
                {
                    let inputs = self.inputs(&decision.job, redelivered);
                    decision = job::begin(decision.job, inputs, &self.policy);
                    continue;
                }
                next => break next,
            };
            let answer = self.nbi.call(&step.call(&decision.job, &self.policy)).await;
            let inputs = self.inputs(&decision.job, redelivered);
            decision = job::decide(decision.job, step, answer, inputs, &self.policy);
        };
        let (to, not_due_before) = match next {
            Next::Wait { until } | Next::Retry { until } | Next::Release { until } => {
                (Destination::At(until), Some(until))
            }
            Next::Advance | Next::Step(_) => (Destination::Now, None),
            Next::Finish(_) => (Destination::Nowhere, None),
        };
        let work = Work {
            job: decision.job,
            carried,
            not_due_before,
        };
        let events = self
            .codec
            .published_events(&work, &happened, (self.clock)());
        // The broker brings it again.
        let _ = self
            .driver
            .carry_out(token, HandOver { work, to, events })
            .await;
    }
}

/// What the sweep finds wrong with such a worker.
fn found(broken: Broken, scenarios: impl IntoIterator<Item = Scenario>) -> Vec<String> {
    let mut found = Vec::new();
    for mut scenario in scenarios {
        scenario.broken = Some(broken);
        let cases = every_single_crash(&scenario);
        found.extend(
            cases
                .failed
                .into_iter()
                .flat_map(|case| case.run.violations),
        );
    }
    found
}

/// Asserts that among what was found is this.
fn assert_found(found: &[String], what: &str) {
    assert!(
        found.iter().any(|violation| violation.contains(what)),
        "{what:?} is not among {} violations: {found:#?}",
        found.len()
    );
}

#[test]
fn an_acknowledgement_before_the_confirm_is_found_out() {
    let found = found(Broken::AckFirst, [scenarios::named("success")]);
    assert_found(&found, "has no outcome");
    assert_found(&found, "are left armed");
}

#[test]
fn random_event_ids_are_found_out() {
    let found = found(Broken::RandomEventId, [scenarios::named("success")]);
    assert_found(&found, "one outcome under two ids");
}

#[test]
fn a_baseline_that_is_not_handed_over_is_found_out() {
    let found = found(Broken::NoHandOver, LOOPED.map(scenarios::named));
    // Of its second try a crash leaves no trace: the first try's fault is taken for it.
    assert_found(&found, "ended failed/device_fault");
}

/// What the flaws of the loop are looked for in.
const LOOPED: [&str; 6] = [
    "success",
    "success+100s",
    "transient_fault",
    "transient_fault+600s",
    "pause_call_in",
    "slow_worker_cut_off",
];

/// Without this the flaws of the loop would prove nothing: what is found might be the copy's.
#[test]
fn the_copy_of_the_loop_is_sound_without_a_flaw() {
    let scenarios = LOOPED.map(scenarios::named);
    assert_eq!(found(Broken::Nothing, scenarios), Vec::<String>::new());
}

#[test]
fn a_worker_that_forgets_what_was_ordered_before_it_was_born_is_found_out() {
    // Alone, or the other worker would know.
    let scenarios = ["cancel_before", "pause_before"]
        .map(|name| scenarios::named(name).with(|scenario| scenario.workers = 1));
    let found = found(Broken::ForgetsOrders, scenarios);
    assert_found(&found, "which an order forbids");
}

#[test]
fn a_rule_that_stays_armed_in_a_pause_is_found_out() {
    let found = found(Broken::KeepsArmed, [scenarios::named("pause_call_in")]);
    assert_found(
        &found,
        "flash at 2026-11-23T12:15:00Z, which an order forbids",
    );
}

#[test]
fn a_rule_that_is_written_over_without_a_second_look_is_found_out() {
    let scenarios = [scenarios::named("slow_worker_cut_off")];
    let found = found(Broken::NoSecondLook, scenarios);
    assert_found(&found, "was flashed 2 times");
}

/// What `job.flash_time_max` is for: with one that is too short, a device that is at it is armed again right after a pause.
#[test]
fn a_rule_that_is_armed_again_right_after_a_pause_is_found_out() {
    let violations: Vec<String> = ["pause_flashing", "pause_brief"]
        .map(|name| {
            scenarios::named(name)
                .with(|s| s.setup.policy.flash_time_max = SignedDuration::from_secs(1))
        })
        .iter()
        .flat_map(|scenario| every_single_crash(scenario).failed)
        .flat_map(|case| case.run.violations)
        .collect();
    assert_found(&violations, "was flashed 2 times");
}

#[test]
fn a_rule_that_is_created_blindly_is_found_out() {
    let scenarios = ["success", "success+100s"].map(scenarios::named);
    let found = found(Broken::BlindPost, scenarios);
    assert_found(&found, "was flashed 2 times");
}
