//! The state machine: which question comes first in a delivery, and who decides about an answer.
//!
//! [`begin`] looks once at what cuts across all stages (an outcome already fixed, a cancellation, the deadline, a pause, the time before
//! which nothing may happen), then asks the stage for its first [`Step`]. [`decide`] hands an answer to the stage whose step it was.

use jiff::Timestamp;

use super::call::{NbiAnswer, NbiCall, NbiFailure, Purpose, ResultRow, RuleSpec};
use super::decision::{Decision, Inputs, Next, Standing};
use super::event::WaitingFor;
use super::outcome::{Impact, Outcome, Reason, RuleState};
use super::policy::Policy;
pub use super::stages::preflight::Sign;
use super::stages::{
    await_result, connection_request, create_rule, deactivate_rule, preflight, verify,
};
use super::state::{Exit, Job, Stage};
use super::tag;
use super::turn::Turn;
use super::{late, pause};

/// One NBI call and the place in the job where its answer belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// `preflight`: what has the device reported before?
    ReadOldResults,
    /// `preflight`: a row is there that this job may have caused; whose rule caused it?
    ReadRuleOfOldResult {
        /// Every row seen.
        rows: Vec<ResultRow>,
        /// What made it look.
        sign: Sign,
    },
    /// `preflight`: does the device run the expected version already?
    ReadVersionFirst {
        /// The rows that become the baseline if it does not.
        known: Vec<ResultRow>,
    },
    /// `create_rule`: has it run for this job already?
    ReadResultsBeforeArming,
    /// `create_rule`: what stands there?
    ReadRuleBeforeArming {
        /// Every row seen just before.
        rows: Vec<ResultRow>,
        /// Whether it was read in this delivery before, and the results after it took long.
        again: bool,
    },
    /// `create_rule`: has it run while the rule was read? A copy may have seen the result and put the rule away in between.
    ReadResultsBeforeWriting {
        /// Whether a rule of this id is there to be updated.
        exists: bool,
        /// When the rule was read.
        seen_at: Timestamp,
        /// Whether that was the second time in this delivery.
        again: bool,
    },
    /// `create_rule`: POST found the id taken, which the read before had not shown: does any read show it?
    ReadRuleThatExists,
    /// `create_rule`: POST.
    CreateRule {
        /// Whether rules can be read here.
        readable: bool,
    },
    /// `create_rule`: full PUT.
    UpdateRule {
        /// Whether rules can be read here.
        readable: bool,
    },
    /// `create_rule`: does it stand now, and is it ours?
    ReadRuleAfterArming,
    /// `connection_request`.
    SendConnectionRequest,
    /// `await_result`: has the device reported?
    ReadResults,
    /// `await_result`: the device has worked for another job; does this job's rule stand still?
    ReadRuleOfOther,
    /// `await_result`: wake a silent device again.
    ResendConnectionRequest,
    /// Paused, or just resumed: is the armed rule still ours, and armed? Or has a delivery that died armed one?
    ReadRuleToPause,
    /// Paused: the seed's PUT; the device may have begun all the same.
    DisarmToPause,
    /// The job timed out and said so: has the device reported since?
    ReadLateResults,
    /// After the deadline: a result came; does this job's file still stand in the rule?
    ReadRuleOfLateResult {
        /// Every row seen.
        rows: Vec<ResultRow>,
    },
    /// `verify`.
    ReadVersion,
    /// `verify`: the version is waited for; is the rule ours still, and armed?
    ReadRuleToVerify,
    /// `verify`: it must not stay armed meanwhile.
    DisarmToVerify,
    /// `deactivate_rule`: is it still ours?
    ReadRuleBeforeDisarming,
    /// `deactivate_rule`: the seed's PUT.
    DisarmRule,
    /// `deactivate_rule`: DELETE.
    DeleteRule,
    /// `deactivate_rule`: a device that finished at the deadline still counts.
    ReadResultsOnceMore,
}

impl Step {
    /// The call to make.
    #[must_use]
    pub fn call(&self, job: &Job, policy: &Policy) -> NbiCall {
        let order = &job.order;
        let rule_id = || order.rule_id.clone();
        let cpe_id = || order.cpe_id.clone();
        match self {
            Self::ReadVersionFirst { .. } | Self::ReadVersion => {
                NbiCall::ReadVersion { cpe_id: cpe_id() }
            }
            Self::ReadOldResults
            | Self::ReadResultsBeforeArming
            | Self::ReadResultsBeforeWriting { .. }
            | Self::ReadResults
            | Self::ReadLateResults
            | Self::ReadResultsOnceMore => NbiCall::ReadResults {
                rule_id: rule_id(),
                cpe_id: cpe_id(),
                purpose: self.purpose(),
            },
            Self::ReadRuleOfOldResult { .. }
            | Self::ReadRuleBeforeArming { .. }
            | Self::ReadRuleThatExists
            | Self::ReadRuleOfLateResult { .. }
            | Self::ReadRuleAfterArming
            | Self::ReadRuleOfOther
            | Self::ReadRuleToPause
            | Self::ReadRuleToVerify
            | Self::ReadRuleBeforeDisarming => NbiCall::ReadRule {
                rule_id: rule_id(),
                purpose: self.purpose(),
            },
            Self::CreateRule { .. } => NbiCall::CreateRule(rule_spec(job, policy)),
            Self::UpdateRule { .. } => NbiCall::UpdateRule(rule_spec(job, policy)),
            Self::SendConnectionRequest | Self::ResendConnectionRequest => {
                NbiCall::SendConnectionRequest { cpe_id: cpe_id() }
            }
            Self::DisarmRule | Self::DisarmToPause | Self::DisarmToVerify => {
                NbiCall::DisarmRule { rule_id: rule_id() }
            }
            Self::DeleteRule => NbiCall::DeleteRule { rule_id: rule_id() },
        }
    }

    /// What it is read for, where it is a read.
    fn purpose(&self) -> Purpose {
        let arms = matches!(
            self,
            Self::ReadResultsBeforeWriting { .. } | Self::ReadRuleBeforeArming { again: true, .. }
        );
        let puts_away = matches!(
            self,
            Self::ReadRuleBeforeDisarming
                | Self::ReadRuleToPause
                | Self::ReadRuleToVerify
                // The other half of what ends a job: one without the other would begin anew.
                | Self::ReadResultsOnceMore
        );
        match (arms, puts_away) {
            (true, _) => Purpose::Arm,
            (false, true) => Purpose::PutAway,
            (false, false) => Purpose::Look,
        }
    }

    /// Whether a device may begin because of it.
    fn may_begin(&self) -> bool {
        matches!(self, Self::CreateRule { .. } | Self::UpdateRule { .. }) || self.wakes()
    }

    /// Whether it is a connection request.
    fn wakes(&self) -> bool {
        matches!(
            self,
            Self::SendConnectionRequest | Self::ResendConnectionRequest
        )
    }
}

fn rule_spec(job: &Job, policy: &Policy) -> RuleSpec {
    RuleSpec {
        rule_id: job.order.rule_id.clone(),
        cpe_id: job.order.cpe_id.clone(),
        firmware_url: job.order.firmware_url.clone(),
        executions: job.order.executions,
        priority: job.order.priority,
        description: policy.tag_rules.then(|| tag::tag(job)),
    }
}

/// The first decision of a delivery: nothing was asked yet.
#[must_use]
pub fn begin(job: Job, inputs: Inputs, policy: &Policy) -> Decision {
    let mut turn = Turn::new(job, inputs, policy);
    let stage = turn.job.progress.stage;
    let is_before_arming = matches!(stage, Stage::Preflight | Stage::CreateRule);
    // A rule that a pause has put away may have been armed again by the delivery that this one repeats.
    if inputs.redelivered && (is_before_arming || turn.job.progress.rests_until.is_some()) {
        turn.job.progress.may_have_twin = true;
    }
    pause::forget_failures(&mut turn);
    if turn.job.progress.watched_until.is_some() {
        return turn.step(Step::ReadLateResults);
    }
    if let Some(exit) = turn.job.progress.exit.clone() {
        return begin_exit(turn, exit);
    }
    if matches!(inputs.standing, Standing::Cancelled { .. }) {
        // A copy of this job may have gone on, as a request may be sent twice: look before judging.
        if stage == Stage::Preflight && !turn.job.may_have_left_a_rule() {
            return turn.step(Step::ReadOldResults);
        }
        return end_early(
            turn,
            Outcome::Cancelled,
            Reason::Cancelled,
            "cancelled by an operator",
        );
    }
    if turn.is_past_deadline() {
        // A copy of this job may have gone on while this delivery was away: look before judging, which has no effect on the device.
        let progress = &turn.job.progress;
        let may_have_gone_on = progress.may_have_twin || progress.attempt > 1;
        let looks_first = stage == Stage::Preflight && may_have_gone_on;
        if !looks_first {
            return timed_out(turn);
        }
    } else if let Some(not_before) = turn.job.order.not_before
        && stage == Stage::Preflight
        && inputs.now < not_before
    {
        return turn.wait_until(not_before, WaitingFor::NotBefore);
    } else if inputs.standing == Standing::Paused && is_before_arming {
        if pause::may_be_armed_already(&turn) {
            return turn.step(Step::ReadRuleToPause);
        }
        return pause::wait_for_resume(turn);
    } else if pause::concerns(&turn) {
        return turn.step(Step::ReadRuleToPause);
    }
    match stage {
        Stage::Preflight => turn.step(Step::ReadOldResults),
        Stage::CreateRule => turn.step(Step::ReadResultsBeforeArming),
        Stage::ConnectionRequest => turn.step(Step::SendConnectionRequest),
        Stage::AwaitResult => turn.step(Step::ReadResults),
        Stage::Verify => turn.step(Step::ReadVersion),
        Stage::DeactivateRule => turn.step(Step::ReadRuleBeforeDisarming),
    }
}

/// What follows from the answer to `step`.
#[must_use]
pub fn decide(
    job: Job,
    step: Step,
    answer: Result<NbiAnswer, NbiFailure>,
    inputs: Inputs,
    policy: &Policy,
) -> Decision {
    let decision = follow(job, step, answer, inputs, policy);
    // What an operator ordered while this delivery was under way, and the deadline, hold from the next call on that has a device begin.
    let is_ordered = matches!(
        inputs.standing,
        Standing::Cancelled { .. } | Standing::Paused
    );
    match decision {
        Decision {
            job,
            next: Next::Step(step),
            mut events,
        } if step.may_begin() && (is_ordered || inputs.now >= job.order.deadline) => {
            let mut decision = begin(job, inputs, policy);
            events.append(&mut decision.events);
            Decision { events, ..decision }
        }
        other => other,
    }
}

fn follow(
    job: Job,
    step: Step,
    answer: Result<NbiAnswer, NbiFailure>,
    inputs: Inputs,
    policy: &Policy,
) -> Decision {
    let turn = Turn::new(job, inputs, policy);
    let answer = match answer {
        // Rows of others and none of ours: ours may be beyond the end of the page.
        Ok(NbiAnswer::Rules {
            rows,
            filter_ignored: true,
        }) if rows.is_empty() => Ok(NbiAnswer::RulesUnreadable),
        // A device that was not woken may come by itself.
        Err(failure @ NbiFailure::NotSent { .. }) if step.wakes() => Err(failure),
        Err(failure @ (NbiFailure::Refused { .. } | NbiFailure::NotSent { .. })) => {
            return turn.release(&failure);
        }
        other => other,
    };
    match step {
        Step::ReadOldResults => preflight::on_results(turn, answer),
        Step::ReadRuleOfOldResult { rows, sign } => preflight::on_rule(turn, rows, sign, answer),
        Step::ReadVersionFirst { known } => preflight::on_version(turn, &known, answer),
        Step::ReadResultsBeforeArming => create_rule::on_results(turn, answer),
        Step::ReadRuleBeforeArming { rows, again } => {
            create_rule::on_rule(turn, &rows, again, answer)
        }
        Step::ReadResultsBeforeWriting {
            exists,
            seen_at,
            again,
        } => create_rule::on_results_again(turn, exists, seen_at, again, answer),
        Step::ReadRuleThatExists => create_rule::on_rule_that_exists(turn, answer),
        Step::CreateRule { readable } => create_rule::on_created(turn, readable, answer),
        Step::UpdateRule { readable } => create_rule::on_updated(turn, readable, answer),
        Step::ReadRuleAfterArming => create_rule::on_rule_after_arming(turn, answer),
        Step::SendConnectionRequest => connection_request::on_sent(turn, answer),
        Step::ReadResults => await_result::on_results(turn, answer),
        Step::ReadRuleOfOther => await_result::on_rule_of_other(turn, answer),
        Step::ResendConnectionRequest => await_result::on_resent(turn, answer),
        Step::ReadRuleToPause => pause::on_rule(turn, answer),
        Step::DisarmToPause => pause::on_disarmed(turn, answer),
        Step::ReadLateResults => late::on_results(turn, answer),
        Step::ReadRuleOfLateResult { rows } => late::on_rule(turn, &rows, answer),
        Step::ReadVersion => verify::on_version(turn, answer),
        Step::ReadRuleToVerify => verify::on_rule(turn, answer),
        Step::DisarmToVerify => verify::on_disarmed(turn, answer),
        Step::ReadRuleBeforeDisarming => deactivate_rule::on_rule(turn, answer),
        Step::DisarmRule => deactivate_rule::on_disarmed(turn, RuleState::Deactivated, answer),
        Step::DeleteRule => deactivate_rule::on_disarmed(turn, RuleState::Deleted, answer),
        Step::ReadResultsOnceMore => deactivate_rule::on_results_once_more(turn, answer),
    }
}

/// An outcome, or another try, was fixed in an earlier delivery; only the rule has to be put away.
fn begin_exit(mut turn: Turn<'_>, exit: Exit) -> Decision {
    if let Exit::TryAgain(fault) = exit {
        if matches!(turn.inputs.standing, Standing::Cancelled { .. }) {
            let ending = turn.cancelled(None);
            turn.job.progress.exit = Some(Exit::End(ending));
        } else if turn.is_past_deadline() {
            let ending = await_result::fault_ending(&turn, fault, None);
            turn.job.progress.exit = Some(Exit::End(ending));
        }
    }
    if turn.job.progress.stage == Stage::Verify {
        return turn.step(Step::ReadVersion);
    }
    // Left to another job before: what stands there now is a copy's, which puts it away.
    let is_left = matches!(&turn.job.progress.exit, Some(Exit::End(ending)) if ending.reason == Reason::Superseded)
        && turn.job.progress.rule == RuleState::Superseded
        && turn.policy.tag_rules;
    if is_left {
        return turn.step(Step::ReadResultsOnceMore);
    }
    turn.step(Step::ReadRuleBeforeDisarming)
}

/// The deadline is reached.
fn timed_out(turn: Turn<'_>) -> Decision {
    if turn.job.progress.waited_for_other {
        return end_early(
            turn,
            Outcome::Failed,
            Reason::DeviceBusy,
            "another job held the device until the deadline",
        );
    }
    end_early(
        turn,
        Outcome::Failed,
        Reason::TimedOut,
        "the deadline passed before the device reported a result",
    )
}

/// Ends a job from outside its stages: at once while nothing can be armed, else by way of disarming.
fn end_early(turn: Turn<'_>, outcome: Outcome, reason: Reason, message: &str) -> Decision {
    let ending = turn.ending(outcome, reason, Impact::Possible, message);
    let may_have_twin = turn.inputs.redelivered || turn.job.progress.may_have_twin;
    let is_before_arming = turn.job.progress.stage == Stage::Preflight && !may_have_twin;
    if is_before_arming && !turn.job.may_have_left_a_rule() {
        return turn.finish(ending);
    }
    turn.give_up(ending)
}
