//! One decision in the making: the job, what is known at this moment, and the few moves that every stage shares.
//!
//! A stage takes a [`Turn`] and ends it with exactly one verdict. Book-keeping (stage records, retries, sequence numbers, events)
//! happens here, so that no stage repeats it.

use jiff::{SignedDuration, Timestamp};

use super::call::{NbiFailure, ResultRow, RuleRow};
use super::decision::{Decision, Inputs, Next, Standing};
use super::event::{JobEvent, WaitingFor};
use super::fault::Fault;
use super::machine::Step;
use super::outcome::{Ending, Impact, Outcome, Reason, RuleState};
use super::policy::Policy;
use super::state::{Exit, Job, Stage, StageRecord, elapsed};

/// One decision in the making.
#[derive(Debug)]
pub struct Turn<'a> {
    /// The job as it is by now.
    pub job: Job,
    /// What is known at this moment.
    pub inputs: Inputs,
    /// The operator's settings.
    pub policy: &'a Policy,
    events: Vec<JobEvent>,
}

/// What a final result row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The upgrade succeeded.
    Success,
    /// The device reported a fault.
    Faulted(Fault),
}

/// Whose rule it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// This job's, or a copy's of it.
    Ours,
    /// Another job's.
    Other,
    /// Nobody can tell: an NBI whose PUT replaces the row has dropped the file with the seed's disarming PUT.
    Unknown,
}

impl<'a> Turn<'a> {
    /// Opens a turn.
    #[must_use]
    pub fn new(job: Job, inputs: Inputs, policy: &'a Policy) -> Self {
        let mut turn = Self {
            job,
            inputs,
            policy,
            events: Vec::new(),
        };
        turn.job.progress.started_at.get_or_insert(inputs.now);
        turn.open_record();
        turn
    }

    // ----- verdicts: each ends the turn -----

    /// Asks the NBI again, same delivery.
    #[must_use]
    pub fn step(self, step: Step) -> Decision {
        Decision {
            job: self.job,
            next: Next::Step(step),
            events: self.events,
        }
    }

    /// Hands the job over durably.
    #[must_use]
    pub fn advance(mut self) -> Decision {
        self.hand_over();
        Decision {
            job: self.job,
            next: Next::Advance,
            events: self.events,
        }
    }

    /// Comes back after `delay`, at the deadline at the latest; costs nothing.
    #[must_use]
    pub fn wait(self, delay: SignedDuration, waiting_for: WaitingFor) -> Decision {
        let until = self.later(delay);
        self.come_back(until, waiting_for)
    }

    /// Comes back at that time, or a moment from now if that is sooner: what is handed over for a time that is nearly there comes back at
    /// once, and would again and again. Costs nothing.
    #[must_use]
    pub fn wait_until(self, until: Timestamp, waiting_for: WaitingFor) -> Decision {
        let until = until.max(self.after(MOMENT));
        self.come_back(until, waiting_for)
    }

    fn come_back(mut self, until: Timestamp, waiting_for: WaitingFor) -> Decision {
        let stage = self.job.progress.stage;
        self.look_ahead(until, Some(waiting_for));
        self.hand_over();
        self.events.push(JobEvent::StageWaits {
            stage,
            until,
            waiting_for,
        });
        Decision {
            job: self.job,
            next: Next::Wait { until },
            events: self.events,
        }
    }

    /// Comes back as the retry policy says; costs an attempt.
    #[must_use]
    pub fn retry(mut self, failure: &NbiFailure) -> Decision {
        let failures = self.job.progress.retries.failures.saturating_sub(1);
        let asked = failure.retry_after();
        let until = self.later(
            self.policy
                .retry
                .delay(failures, self.inputs.jitter)
                .max(asked),
        );
        let stage = self.job.progress.stage;
        self.look_ahead(until, None);
        self.hand_over();
        self.events.push(JobEvent::StageRetried {
            stage,
            until,
            error: failure.to_string(),
        });
        Decision {
            job: self.job,
            next: Next::Retry { until },
            events: self.events,
        }
    }

    /// Gives the job back: not its fault. It rests as long as the failure says, else as long as the policy does; spread by half, as
    /// everything in hand is given back at the same moment.
    #[must_use]
    pub fn release(mut self, failure: &NbiFailure) -> Decision {
        let rest = match failure {
            NbiFailure::NotSent { retry_after, .. } => {
                (*retry_after).max(SignedDuration::from_secs(1))
            }
            NbiFailure::Refused { .. }
            | NbiFailure::Transient { .. }
            | NbiFailure::Rejected { .. }
            | NbiFailure::Unintelligible { .. } => self.policy.release_pause,
        };
        let spread = SignedDuration::try_from_secs_f64(
            rest.as_secs_f64() * (1.0 + self.inputs.jitter / 2.0),
        )
        .unwrap_or(rest);
        let until = self.after(spread);
        if matches!(failure, NbiFailure::Refused { .. }) {
            // Nor does the time count for which it has been failing: a wrong password may stand for hours.
            let since = &mut self.job.progress.retries.since;
            *since = since.and_then(|since| since.checked_add(spread).ok());
        }
        let stage = self.job.progress.stage;
        self.look_ahead(until, None);
        self.hand_over();
        self.events.push(JobEvent::Released {
            stage,
            error: failure.to_string(),
        });
        Decision {
            job: self.job,
            next: Next::Release { until },
            events: self.events,
        }
    }

    /// The job is over.
    #[must_use]
    pub fn finish(mut self, mut ending: Ending) -> Decision {
        // What a copy may have done is not known before the rule was looked at.
        let may_be_a_copys =
            self.job.progress.may_have_twin && self.job.progress.stage != Stage::DeactivateRule;
        // A result of its own tells that a copy has, too.
        let is_untouched = !self.may_have_touched_the_device()
            && !may_be_a_copys
            && !self.rests_for_a_copy()
            && ending.result.is_none();
        if ending.impact == Impact::Possible && is_untouched {
            ending.impact = Impact::None;
        }
        self.announce();
        let failed = match self.job.progress.stage {
            Stage::DeactivateRule => self.job.progress.rule == RuleState::CleanupFailed,
            Stage::Preflight
            | Stage::CreateRule
            | Stage::ConnectionRequest
            | Stage::AwaitResult
            | Stage::Verify => ending.outcome == Outcome::Failed,
        };
        self.leave_for_good(failed.then(|| ending.message.clone()));
        let took = elapsed(self.job.order.requested_at, self.inputs.now);
        let ending = Box::new(ending);
        self.events.push(JobEvent::Finished {
            ending: ending.clone(),
            took,
        });
        let is_watched = ending.reason == Reason::TimedOut
            && self.may_have_touched_the_device()
            && !self.policy.late_watch.is_zero();
        if is_watched {
            return self.watch(&ending);
        }
        Decision {
            job: self.job,
            next: Next::Finish(ending),
            events: self.events,
        }
    }

    /// The job is over and says so; its continuation only looks for a result that comes late.
    fn watch(mut self, ending: &Ending) -> Decision {
        self.job.progress.watched_until = self.inputs.now.checked_add(self.policy.late_watch).ok();
        self.job.progress.exit = Some(Exit::End(ending.clone()));
        self.look_later()
    }

    /// Looks for a late result at the longest of the polling intervals.
    #[must_use]
    pub fn look_later(mut self) -> Decision {
        let until = self.after(self.policy.await_result.max);
        self.hand_over();
        Decision {
            job: self.job,
            next: Next::Wait { until },
            events: self.events,
        }
    }

    /// Ends without another word: it was said before.
    #[must_use]
    pub fn leave_silently(self, ending: Ending) -> Decision {
        Decision {
            job: self.job,
            next: Next::Finish(Box::new(ending)),
            events: self.events,
        }
    }

    // ----- moves: the turn goes on -----

    /// Leaves the current stage as done and enters another.
    pub fn enter(&mut self, stage: Stage) {
        self.leave(stage, None);
    }

    /// Leaves the current stage as failed and enters another.
    pub fn give_up_and_enter(&mut self, stage: Stage, error: &str) {
        self.leave(stage, Some(error.to_owned()));
    }

    /// Fixes the outcome and goes on to put the rule away.
    #[must_use]
    pub fn end(mut self, ending: Ending) -> Decision {
        self.set_exit(Exit::End(ending));
        self.step(Step::ReadRuleBeforeDisarming)
    }

    /// Fixes the outcome of a stage that gave up, and goes on to put the rule away.
    #[must_use]
    pub fn give_up(mut self, ending: Ending) -> Decision {
        self.leave(Stage::DeactivateRule, Some(ending.message.clone()));
        self.job.progress.exit = Some(Exit::End(ending));
        self.step(Step::ReadRuleBeforeDisarming)
    }

    /// Sets what follows once the rule is put away.
    pub fn set_exit(&mut self, exit: Exit) {
        self.job.progress.exit = Some(exit);
        if self.job.progress.stage != Stage::DeactivateRule {
            self.enter(Stage::DeactivateRule);
        }
    }

    /// Counts a failed try; says whether the stage has used up its tries.
    pub fn count_failure(&mut self, failure: &NbiFailure) -> bool {
        let now = self.inputs.now;
        let error = truncated(&failure.to_string());
        if let Some(record) = self.record_mut() {
            record.attempts = record.attempts.saturating_add(1);
            record.last_error = Some(error);
        }
        let retries = self.job.progress.retries;
        match failure {
            NbiFailure::Unintelligible { .. } => {
                self.job.progress.retries = retries.unintelligible(now);
                self.job.progress.retries.unintelligible >= self.policy.unintelligible_max
            }
            NbiFailure::Rejected { .. } => true,
            NbiFailure::Transient { .. }
            | NbiFailure::Refused { .. }
            | NbiFailure::NotSent { .. } => {
                self.job.progress.retries = retries.failed(now);
                self.job
                    .progress
                    .retries
                    .are_used_up(now, self.policy.retry_max_elapsed)
            }
        }
    }

    /// Adds an event.
    pub fn happened(&mut self, event: JobEvent) {
        self.events.push(event);
    }

    /// Remembers rows as no news: their verdict was seen, or they are another job's. Another row may still become this job's result.
    pub fn remember(&mut self, rows: &[ResultRow]) {
        let decided: Vec<ResultRow> = rows
            .iter()
            .filter(|row| self.verdict_of(row).is_some() || self.is_tagged_by_other(row))
            .cloned()
            .collect();
        self.remember_whole(&decided);
    }

    /// Remembers rows that were there before this job could have caused them, with a verdict or without.
    pub fn remember_whole(&mut self, rows: &[ResultRow]) {
        self.job
            .progress
            .baseline
            .extend(rows.iter().map(|row| (row.id.as_str(), row.ts)));
    }

    // ----- questions -----

    /// Whether a rule like this job's stood there disarmed, and this job wrote none: after a pause that has ended, or where a delivery came again,
    /// a copy may have armed it before.
    #[must_use]
    pub fn rests_for_a_copy(&self) -> bool {
        let progress = &self.job.progress;
        let is_resumed = matches!(self.inputs.standing, Standing::Resumed { .. });
        (is_resumed || progress.may_have_twin)
            && progress.looked_alike
            && progress.rule == RuleState::NotCreated
    }

    /// Whether a rule that a pause has put away may have been armed since, by a copy of this job.
    #[must_use]
    pub fn may_be_armed_again(&self) -> bool {
        let progress = &self.job.progress;
        progress.rule == RuleState::Deactivated
            && progress.rests_until.is_some()
            && progress.may_have_twin
    }

    /// Whether the deadline is reached.
    #[must_use]
    pub fn is_past_deadline(&self) -> bool {
        self.inputs.now >= self.job.order.deadline
    }

    /// Whether this job, in this or an earlier try, may have made the device do something.
    #[must_use]
    pub fn may_have_touched_the_device(&self) -> bool {
        self.job.may_be_armed() || self.job.progress.attempt > 1 || self.job.progress.arming
    }

    /// Whether an operator had cancelled the job before the device reported: then that is part of what the cancelled job has done. What it had
    /// reported before is the outcome, so that copies of the job that look before and after the order say the same.
    #[must_use]
    pub fn is_cancelled_before(&self, row: &ResultRow) -> bool {
        matches!(self.inputs.standing, Standing::Cancelled { at } if row.ts > at.as_second())
    }

    /// What a result row says: success, a fault, or nothing final.
    ///
    /// A fault code in the message is stronger than the code: the one example of the vendor has both, and a success with a fault
    /// code in it would be a contradiction that must not be read as success.
    #[must_use]
    pub fn verdict_of(&self, row: &ResultRow) -> Option<Verdict> {
        if let Some(fault) = self.policy.faults.fault_in(&row.message) {
            return Some(Verdict::Faulted(fault));
        }
        let code = row.code?;
        let is_success = self
            .policy
            .success_codes
            .iter()
            .any(|(low, high)| (*low..=*high).contains(&code));
        is_success.then_some(Verdict::Success)
    }

    /// Whether this job can have caused a row: not in the baseline, not tagged by another job.
    #[must_use]
    pub fn is_fresh(&self, row: &ResultRow) -> bool {
        !self.job.progress.baseline.contains(&row.id, row.ts) && !self.is_tagged_by_other(row)
    }

    /// The newest final result that this job can have caused, and that is news: a fault of an earlier attempt is none.
    #[must_use]
    pub fn newest_fresh(&self, rows: &[ResultRow]) -> Option<(ResultRow, Verdict)> {
        rows.iter()
            .filter(|row| self.is_fresh(row))
            .filter_map(|row| self.verdict_of(row).map(|verdict| (row.clone(), verdict)))
            .filter(|(row, verdict)| *verdict == Verdict::Success || !self.is_of_earlier(row))
            .max_by(|(a, _), (b, _)| a.ts.cmp(&b.ts).then_with(|| a.id.cmp(&b.id)))
    }

    /// Whose rule it is: told by its file, and by its tag where rules are tagged.
    #[must_use]
    pub fn owner_of(&self, rule: &RuleRow) -> Owner {
        let is_same_file = rule.file.as_deref() == Some(self.job.order.firmware_url.as_str());
        let is_other_tag = self.names_other(rule.description.as_deref());
        match &rule.file {
            _ if is_other_tag => Owner::Other,
            _ if is_same_file => Owner::Ours,
            Some(_) => Owner::Other,
            None if self.has_own_tag(rule) => Owner::Ours,
            None => Owner::Unknown,
        }
    }

    /// Whose the rules of one id are: ours if any is, as the last one written tells what ran last. `None` when there is none.
    #[must_use]
    pub fn owner_of_all(&self, rules: &[RuleRow]) -> Option<Owner> {
        let armed: Vec<&RuleRow> = rules.iter().filter(|rule| rule.is_armed()).collect();
        let deciding = if armed.is_empty() {
            rules.iter().collect()
        } else {
            armed
        };
        let owners: Vec<Owner> = deciding
            .into_iter()
            .map(|rule| self.owner_of(rule))
            .collect();
        [Owner::Ours, Owner::Other, Owner::Unknown]
            .into_iter()
            .find(|owner| owners.contains(owner))
    }

    /// An ending decided now.
    #[must_use]
    pub fn ending(
        &self,
        outcome: Outcome,
        reason: Reason,
        impact: Impact,
        message: impl Into<String>,
    ) -> Ending {
        Ending {
            outcome,
            reason,
            impact,
            message: message.into(),
            result: None,
            fault: None,
            decided_at: self.inputs.now,
        }
    }

    /// The ending of a job that an operator has cancelled, with what the device has reported since.
    #[must_use]
    pub fn cancelled(&self, since: Option<(ResultRow, Verdict)>) -> Ending {
        let impact = match &since {
            Some((_, Verdict::Success)) => Impact::Applied,
            Some((_, Verdict::Faulted(_))) | None => Impact::Possible,
        };
        Ending {
            result: since.map(|(row, _)| row),
            ..self.ending(
                Outcome::Cancelled,
                Reason::Cancelled,
                impact,
                "cancelled by an operator",
            )
        }
    }

    /// The ending for a stage that gave up on the NBI. `impact` is lowered to `none` when nothing can have been armed.
    #[must_use]
    pub fn nbi_ending(&self, failure: &NbiFailure) -> Ending {
        let reason = match failure {
            NbiFailure::Rejected { .. } => Reason::NbiRejected,
            NbiFailure::Unintelligible { .. } => Reason::NbiProtocolError,
            NbiFailure::Transient { .. }
            | NbiFailure::Refused { .. }
            | NbiFailure::NotSent { .. } => Reason::NbiUnavailable,
        };
        self.ending(
            Outcome::Failed,
            reason,
            Impact::Possible,
            failure.to_string(),
        )
    }

    /// That much later, but not after the deadline (unless that is past).
    ///
    /// A look that comes right before the deadline would come again at once, and again, until it is reached: the next one is a moment
    /// behind it then.
    #[must_use]
    pub fn later(&self, delay: SignedDuration) -> Timestamp {
        let until = self.after(delay);
        if self.is_past_deadline() {
            until
        } else {
            let soonest = self.after(delay.min(MOMENT));
            until.min(self.job.order.deadline).max(soonest)
        }
    }

    fn after(&self, delay: SignedDuration) -> Timestamp {
        self.inputs.now.checked_add(delay).unwrap_or(Timestamp::MAX)
    }

    // ----- book-keeping -----

    /// Says, once, that the deadline can hardly be met: at the next look less is left than a device takes, and the device has not begun as
    /// far as this job can have made it, or has been silent for as long as it usually takes.
    fn look_ahead(&mut self, next_look_at: Timestamp, waiting_for: Option<WaitingFor>) {
        let usual = self.policy.flash_time;
        let progress = &self.job.progress;
        let is_decided = progress.exit.is_some() || self.is_past_deadline();
        if usual.is_zero() || progress.in_jeopardy || is_decided {
            return;
        }
        let stage = progress.stage;
        let is_left_to_the_device = stage == Stage::AwaitResult && progress.rests_until.is_none();
        let is_silent = progress.stages.iter().any(|record| {
            record.stage == stage && elapsed(record.started_at, self.inputs.now) >= usual
        });
        if elapsed(next_look_at, self.job.order.deadline) >= usual
            || is_left_to_the_device && !is_silent
        {
            return;
        }
        self.job.progress.in_jeopardy = true;
        self.events.push(JobEvent::InJeopardy {
            stage,
            next_look_at,
            waiting_for,
        });
    }

    fn hand_over(&mut self) {
        self.announce();
        self.job.progress.seq = self.job.progress.seq.saturating_add(1);
    }

    fn announce(&mut self) {
        if !self.job.progress.announced {
            self.job.progress.announced = true;
            self.events.insert(0, JobEvent::Accepted);
        }
    }

    fn leave_for_good(&mut self, failed: Option<String>) {
        let stage = self.job.progress.stage;
        let attempt = self.job.progress.attempt;
        let started_at = self.close_record(failed.is_some());
        self.events.push(match failed {
            Some(error) => JobEvent::StageFailed { stage, error },
            None => JobEvent::StageDone {
                stage,
                attempt,
                took: elapsed(started_at, self.inputs.now),
            },
        });
    }

    fn leave(&mut self, next: Stage, failed: Option<String>) {
        self.leave_for_good(failed);
        self.job.progress.stage = next;
        self.job.progress.retries = super::retry::Retries::default();
        self.job.progress.polls = 0;
        self.open_record();
    }

    fn open_record(&mut self) {
        let stage = self.job.progress.stage;
        let now = self.inputs.now;
        if self.record_mut().is_none() {
            self.job.progress.stages.push(StageRecord {
                stage,
                attempts: 0,
                started_at: now,
                finished_at: None,
                failed: false,
                last_error: None,
            });
        }
    }

    fn close_record(&mut self, failed: bool) -> Timestamp {
        let now = self.inputs.now;
        let Some(record) = self.record_mut() else {
            return now;
        };
        record.failed = failed;
        record.finished_at = Some(now);
        if !failed {
            record.attempts = record.attempts.saturating_add(1);
        }
        record.started_at
    }

    fn record_mut(&mut self) -> Option<&mut StageRecord> {
        let stage = self.job.progress.stage;
        self.job
            .progress
            .stages
            .iter_mut()
            .find(|record| record.stage == stage)
    }
}

/// The least between two looks, where a longer one was asked for.
const MOMENT: SignedDuration = SignedDuration::from_secs(1);

fn truncated(text: &str) -> String {
    text.chars().take(StageRecord::ERROR_MAX).collect()
}
