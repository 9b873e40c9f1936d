//! What may have a device flashed twice for one job: limits that are known (`docs/reliability.md`), each only where it was there in the run.
//!
//! None of them without something done twice: a request that came twice, a copy, or a delivery that came again; of the job, or of another one
//! of its device.

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::simulator::{
    AttemptResult, Flash, Incomplete, PostOnExisting, Put, ReadingRules, ResultTime, Results,
    TakenRule,
};

use super::check::Seen;
use super::effects;
use super::history::{Rule, rule_id};

/// Why its device may be flashed again, if it may.
pub(crate) fn cause(seen: &Seen<'_>, flashes: &[&Flash]) -> Option<&'static str> {
    let last = flashes.iter().map(|flash| flash.started_at).max();
    let by = last.unwrap_or(Timestamp::MAX);
    // Another job's copies are enough for this one.
    if is_doubled(seen, by) {
        return Some("two rules of one id");
    }
    let causes = [
        ("rules that no read shows", is_never_shown(seen)),
        ("copies that read no rule", is_blind(seen, by)),
        ("a rule that lost its file", has_lost_its_file(seen, by)),
        ("a result in place of another", is_rewritten(seen, by)),
        ("a clock that is wrong", is_skewed(seen)),
        ("a rule that turned itself off", turns_off(seen)),
        (
            "a request after a pause",
            is_paused_and_asked_again(seen, by),
        ),
        ("a trace that is gone", has_lost_its_trace(seen, flashes)),
        (
            "a further attempt without a tag",
            is_put_away_too_early(seen, flashes),
        ),
        (
            "a result that is taken for an older one",
            is_taken_for_older(seen, flashes),
        ),
    ];
    let cause = causes.into_iter().find(|(_, is_there)| *is_there);
    cause.filter(|_| seen.came_again()).map(|(name, _)| name)
}

/// Reads show no rule: a delivery that comes again does not see its own.
fn is_never_shown(seen: &Seen<'_>) -> bool {
    seen.scenario.setup.semantics.reading_rules == ReadingRules::NeverFound404
}

/// Rules cannot be read, and there are copies, which cannot see each other's.
fn is_blind(seen: &Seen<'_>, by: Timestamp) -> bool {
    match seen.scenario.setup.semantics.reading_rules {
        ReadingRules::Allowed | ReadingRules::NeverFound404 => false,
        ReadingRules::Forbidden403
        | ReadingRules::MethodNotAllowed405
        | ReadingRules::NotImplemented501 => seen.was_copied_by(by),
    }
}

/// The rules of the device that stood there by then, at one time after the other.
fn rules<'a>(seen: &Seen<'a>, by: Timestamp) -> impl Iterator<Item = Vec<&'a Rule>> {
    let id = rule_id(&seen.job.cpe_id);
    let until = seen.facts.rules.iter().filter(move |(at, _)| *at <= by);
    until.map(move |(_, rules)| rules.iter().filter(|rule| rule.id == id).collect())
}

/// A PUT that disarms has dropped the file: nothing tells any more whose rule it was.
fn has_lost_its_file(seen: &Seen<'_>, by: Timestamp) -> bool {
    seen.scenario.setup.semantics.put == Put::Replace
        && rules(seen, by).any(|rules| rules.iter().any(|rule| rule.file.is_empty()))
}

/// A second POST has made a second rule: one is disarmed, the other runs.
fn is_doubled(seen: &Seen<'_>, by: Timestamp) -> bool {
    seen.scenario.setup.semantics.post_on_existing == PostOnExisting::Duplicate
        && rules(seen, by).any(|rules| rules.len() > 1)
}

/// The one row of the device has become another job's.
fn is_rewritten(seen: &Seen<'_>, by: Timestamp) -> bool {
    let flashes = effects::flashes_of_device(seen);
    seen.scenario.setup.semantics.results == Results::RowRewritten
        && flashes
            .iter()
            .any(|flash| flash.file != seen.job.file && flash.started_at <= by)
}

/// Of a rule that is deleted only times tell, and a worker whose clock is wrong takes the NBI's for wrong.
fn is_skewed(seen: &Seen<'_>) -> bool {
    let mut sends = seen.scenario.sends.iter();
    let deletes = sends.any(|send| send.job == seen.job.job_id && send.body["cleanup"] == "delete");
    deletes && !seen.scenario.skew_max().is_zero()
}

/// Nothing tells a rule that was turned off when a device took it from that of a job before: only a tag does, of a job that came once, tries once
/// and has the device alone.
fn turns_off(seen: &Seen<'_>) -> bool {
    let setup = &seen.scenario.setup;
    let mut jobs = seen.scenario.jobs.iter();
    let is_alone = jobs.all(|job| job.cpe_id != seen.job.cpe_id || job.job_id == seen.job.job_id);
    let mut sends = seen
        .scenario
        .sends
        .iter()
        .filter(|send| send.job == seen.job.job_id);
    let comes_once = sends.nth(1).is_none()
        && seen.scenario.faults.duplicate_request == 0.0
        && seen.scenario.faults.duplicate == 0.0;
    let tells = setup.policy.tag_rules && seen.job.max_attempts == 1 && is_alone && comes_once;
    setup.semantics.taken_rule == TakenRule::TurnsOff && !tells
}

/// Without tags nothing tells a request that is sent again after a pause from a new order: it may find what the pause disarmed.
fn is_paused_and_asked_again(seen: &Seen<'_>, by: Timestamp) -> bool {
    let Some(paused_at) = effects::ordered_at(seen.scenario, seen.job, "pause") else {
        return false;
    };
    let sends = seen.scenario.sends.iter();
    let requests = sends.filter(|send| send.job == seen.job.job_id).count();
    let is_disarmed = |rule: &Rule| {
        rule.id == rule_id(&seen.job.cpe_id) && rule.file == seen.job.file && !rule.is_armed
    };
    let rules = &seen.facts.rules;
    requests > 1
        && !seen.scenario.setup.policy.tag_rules
        && rules
            .iter()
            .any(|(at, rules)| *at <= by && *at >= paused_at && rules.iter().any(is_disarmed))
}

/// Whether each execution that wrote firmware after another one is explained so; false where there are no two.
fn is_each(flashes: &[&Flash], is_explained: impl Fn(&Flash, &Flash) -> bool) -> bool {
    let written: Vec<&Flash> = flashes
        .iter()
        .copied()
        .filter(|flash| flash.result.writes_firmware())
        .collect();
    let mut pairs = written.windows(2);
    written.len() > 1 && pairs.all(|pair| is_explained(pair[0], pair[1]))
}

/// The rules of the device as they were written after one moment and until another.
fn rules_between<'a>(
    seen: &Seen<'a>,
    from: Timestamp,
    until: Timestamp,
) -> impl Iterator<Item = Vec<&'a Rule>> {
    let id = rule_id(&seen.job.cpe_id);
    let written = seen.facts.rules.iter();
    let then = written.filter(move |(at, _)| *at > from && *at <= until);
    then.map(move |(_, rules)| rules.iter().filter(|rule| rule.id == id).collect())
}

/// How many times `job.flash_time` a row without a verdict is waited for.
const UNDER_WAY: i32 = 3;

/// A device that never reports, whose rule another job has written over, or somebody has deleted, before it was armed again: what tells of it is
/// a row without a verdict at most, which is waited for so long and no longer.
fn has_lost_its_trace(seen: &Seen<'_>, flashes: &[&Flash]) -> bool {
    let setup = &seen.scenario.setup;
    let is_another = |rule: &&Rule| !rule.file.is_empty() && rule.file != seen.job.file;
    is_each(flashes, |first, second| {
        let armings = effects::armings(seen).map(|write| write.at);
        let Some(armed_at) = armings.filter(|at| *at <= second.started_at).max() else {
            return false;
        };
        let begun = first.started_at;
        let is_open = setup.semantics.incomplete != Incomplete::NoRow
            && armed_at < begun + setup.policy.flash_time * UNDER_WAY;
        first.result == AttemptResult::Silent
            && !is_open
            && rules_between(seen, begun, armed_at).any(|rules| rules.iter().all(is_another))
    })
}

/// Without tags a copy that is behind takes the rule of the next attempt for that of its own one, and puts it away while the device is at it; a
/// copy that goes on to the next attempt finds it so, and arms it again before the device has reported.
fn is_put_away_too_early(seen: &Seen<'_>, flashes: &[&Flash]) -> bool {
    let is_ours = |rule: &&Rule| rule.file == seen.job.file;
    let may_be = !seen.scenario.setup.policy.tag_rules && seen.job.max_attempts > 1;
    may_be
        && is_each(flashes, |first, _| {
            let begun = first.started_at;
            let is_further = flashes.iter().any(|flash| {
                !flash.result.writes_firmware() && flash.ended_at.is_some_and(|at| at <= begun)
            });
            let mut meanwhile =
                rules_between(seen, begun, first.ended_at.unwrap_or(Timestamp::MIN));
            let is_put_away = meanwhile
                .any(|rules| rules.iter().any(is_ours) && !rules.iter().any(|rule| rule.is_armed));
            let is_armed_again =
                meanwhile.any(|rules| rules.iter().any(|rule| is_ours(rule) && rule.is_armed));
            is_further && seen.was_copied_by(begun) && is_put_away && is_armed_again
        })
}

/// A difference between a worker's clock and the NBI's that a worker takes for none.
const CLOCKS_AGREE: SignedDuration = SignedDuration::from_secs(5);

/// Without tags a result counts for a request that comes again only if it is newer than that. One that is looks older where the clock of the
/// worker that has dated the request is ahead, or where that of the worker that compares is behind like the NBI's.
fn is_taken_for_older(seen: &Seen<'_>, flashes: &[&Flash]) -> bool {
    let (scenario, semantics) = (seen.scenario, &seen.scenario.setup.semantics);
    let behind = scenario.skews.iter().map(|skew| {
        let ahead = semantics.clock_offset - *skew;
        if ahead > -CLOCKS_AGREE {
            SignedDuration::ZERO
        } else {
            ahead
        }
    });
    let may_be = !scenario.setup.policy.tag_rules && !scenario.skew_max().is_zero();
    may_be
        && is_each(flashes, |first, second| {
            let until = second.started_at;
            let reported_at = match semantics.result_time {
                ResultTime::Begin => Some(first.started_at),
                ResultTime::End => first.ended_at,
            };
            let Some(reported_at) = reported_at else {
                return false;
            };
            let row_at = reported_at + semantics.clock_offset;
            let is_newer = seen
                .asked_for_since(until)
                .is_some_and(|since| since <= reported_at);
            let mut dates = seen.told_dates(until);
            let looks_older = dates.any(|date| behind.clone().any(|behind| row_at < date + behind));
            is_newer && looks_older
        })
}
