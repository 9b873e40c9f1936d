//! What must have happened where an event says so: told from devices, orders and clocks alone, without the product's code.

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::job::policy::{OnBusy, OnConnectionRequestFailure};
use nbi_upgrade::simulator::{AttemptResult, Flash, ReadingRules, Results};

use super::check::Seen;
use super::effects;
use super::history::Published;

/// A job that waits looks for its result every 5 minutes (`await_result.max`), or sooner; a minute for its calls.
const LOOKING_TAKES: SignedDuration = SignedDuration::from_mins(6);

/// Every final event of a job is borne out by what happened.
pub(crate) fn check(seen: &Seen<'_>, wrong: &mut Vec<String>) {
    for event in &seen.finals {
        if let Some(why) = contradiction(seen, event) {
            let (name, verdict, at) = (&seen.job.job_id, event.verdict(), event.at);
            wrong.push(format!("{name} is {verdict} at {at}, but {why}"));
        }
    }
}

/// Why it cannot be as the event says.
fn contradiction(seen: &Seen<'_>, event: &Published) -> Option<String> {
    let policy = &seen.scenario.setup.policy;
    let at = event.at;
    let unless = |is_so: bool, why: String| (!is_so).then_some(why);
    match event.text("reason") {
        "upgraded" => unless(has_reported_success(seen, at), no_success(seen)),
        "already_done" if !seen.came_again() => {
            Some("it was asked for once, and no delivery came again".to_owned())
        }
        "already_done" => unless(has_reported_success(seen, at), no_success(seen)),
        "device_fault" => unless(
            has_reported_fault(seen, event),
            "the device had not reported this fault".to_owned(),
        ),
        "timed_out" => before_the_deadline(seen, at).or_else(|| missed(seen, event)),
        "device_busy" if seen.others().next().is_none() => {
            Some("its device has no other job".to_owned())
        }
        "device_busy" if policy.on_busy == OnBusy::Fail => None,
        "device_busy" => before_the_deadline(seen, at),
        "superseded" => unless(
            is_taken_over(seen, at) || cannot_see_whose(seen, at),
            "no other job had written its rule by then".to_owned(),
        ),
        "cancelled" => unless(
            effects::ordered_at(seen.scenario, seen.job, "cancel")
                .is_some_and(|ordered_at| ordered_at <= at),
            "nobody had cancelled it by then".to_owned(),
        ),
        "nbi_unavailable" => unless(
            has_failed_for_long(seen, at),
            format!("calls had not failed for {}", policy.retry_max_elapsed),
        ),
        "nbi_protocol_error" => unless(
            was_unintelligible(seen, at) >= policy.unintelligible_max as usize,
            "too few answers were not to be understood".to_owned(),
        ),
        "connection_request_failed" => unless(
            policy.connection_request_on_failure == OnConnectionRequestFailure::Fail,
            "a connection request that fails is no reason".to_owned(),
        ),
        "already_current" | "version_mismatch" => {
            unless(policy.verify, "no version is read".to_owned())
        }
        // What is asked of the NBI is never wrong; a request is where the scenario says so.
        "invalid_request" => unless(
            seen.job.allowed.contains(&"rejected/invalid_request"),
            "it is valid".to_owned(),
        ),
        reason => Some(format!("there is no reason for {reason:?}")),
    }
}

/// What the device had run and reported by then: of the job's file, or, where nothing tells jobs of a device apart, of any.
fn reported<'a>(seen: &Seen<'a>, by: Timestamp) -> Vec<&'a Flash> {
    let is_tagged = seen.scenario.setup.policy.tag_rules;
    let mut flashes = if is_tagged || seen.others().next().is_none() {
        effects::flashes(seen)
    } else {
        effects::flashes_of_device(seen)
    };
    flashes.retain(|flash| flash.ended_at.is_some_and(|ended_at| ended_at <= by));
    flashes
}

fn has_reported_success(seen: &Seen<'_>, by: Timestamp) -> bool {
    let reported = reported(seen, by);
    reported
        .iter()
        .any(|flash| flash.result == AttemptResult::Success)
}

fn no_success(seen: &Seen<'_>) -> String {
    let cpe_id = &seen.job.cpe_id;
    format!("{cpe_id} had not reported success with its file")
}

fn has_reported_fault(seen: &Seen<'_>, event: &Published) -> bool {
    let told = &event.body["data"]["fault"]["code"];
    let is_it =
        |flash: &&Flash| matches!(&flash.result, AttemptResult::Fault { code, .. } if told == code);
    reported(seen, event.at).iter().any(is_it)
}

fn before_the_deadline(seen: &Seen<'_>, at: Timestamp) -> Option<String> {
    let deadline = seen.job.deadline;
    (at + seen.skew() < deadline).then(|| format!("its deadline is {deadline}"))
}

/// The device reported success so long before the deadline that a look must have shown it, and nothing was in the way. A request that comes after
/// the deadline, or is held up by a pause until then, is answered without a look.
fn missed(seen: &Seen<'_>, event: &Published) -> Option<String> {
    let is_late = |sent_at: Timestamp| sent_at + seen.skew() >= seen.job.deadline;
    // A copy that looks when the one row has become another job's, or that takes the result for one of before its time, sees nothing.
    let is_rewritten = seen.scenario.setup.semantics.results == Results::RowRewritten
        && seen.others().next().is_some();
    let is_before_its_time = seen.job.not_before.is_some() && !seen.scenario.skew_max().is_zero();
    let may_be_held_up = seen.sent_at().count() > 1
        && effects::ordered_at(seen.scenario, seen.job, "pause").is_some();
    if seen.sent_at().any(is_late) || may_be_held_up || is_rewritten || is_before_its_time {
        return None;
    }
    let flashes = effects::flashes(seen);
    let first = flashes
        .iter()
        .filter(|flash| flash.ended_at.is_some_and(|ended_at| ended_at <= event.at))
        .filter(|flash| flash.result == AttemptResult::Success)
        .filter_map(|flash| flash.ended_at)
        .min()?;
    if is_dated_after(seen, event, first) {
        return None;
    }
    let shown_at = seen.at_the_latest(first, LOOKING_TAKES);
    (shown_at < seen.job.deadline).then(|| format!("the device had reported success at {first}"))
}

/// A forced request without a date was delivered again after the device had reported, and is dated by that delivery, as the event itself tells. An
/// older result counts only under a rule with this file, or with a tag, which nobody can see.
fn is_dated_after(seen: &Seen<'_>, event: &Published, reported_at: Timestamp) -> bool {
    let setup = &seen.scenario.setup;
    let mut sends = seen.scenario.sends.iter();
    let is_undated = sends.all(|send| {
        send.job != seen.job.job_id
            || send.body["requested_at"].is_null() && send.body["force"] == true
    });
    let date = event.text("requested_at").parse::<Timestamp>();
    is_undated
        && !setup.policy.tag_rules
        && setup.semantics.reading_rules != ReadingRules::Allowed
        && seen.came_again()
        && date.is_ok_and(|date| date > reported_at)
}

/// Whether another job had armed its own file in the rule of the device.
fn is_taken_over(seen: &Seen<'_>, by: Timestamp) -> bool {
    let rules = seen.facts.rules.iter().filter(|(at, _)| *at <= by);
    rules.flat_map(|(_, rules)| rules).any(|rule| {
        seen.others()
            .any(|other| rule.arms(&other.cpe_id, &other.file))
    })
}

/// Without tags, after a pause, where rules are not to be read: another job may have had the device meanwhile, for all that anybody can see.
fn cannot_see_whose(seen: &Seen<'_>, by: Timestamp) -> bool {
    let setup = &seen.scenario.setup;
    let paused_at = effects::ordered_at(seen.scenario, seen.job, "pause");
    !setup.policy.tag_rules
        && setup.semantics.reading_rules != ReadingRules::Allowed
        && paused_at.is_some_and(|paused_at| paused_at <= by)
}

fn has_failed_for_long(seen: &Seen<'_>, by: Timestamp) -> bool {
    let long = seen.scenario.setup.policy.retry_max_elapsed;
    let first = seen.facts.failures.first();
    // Begun by one clock, and ended by another.
    first.is_some_and(|first| first.at + long <= by + seen.skew() * 2)
}

fn was_unintelligible(seen: &Seen<'_>, by: Timestamp) -> usize {
    let failures = seen.facts.failures.iter();
    let unintelligible = failures.filter(|failure| failure.is_unintelligible && failure.at <= by);
    unintelligible.count()
}
