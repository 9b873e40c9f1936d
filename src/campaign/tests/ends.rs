//! What the last devices of a campaign, a resume and the deadline do to its criteria, and when it is over.

use super::*;
use crate::job::ArmAgain;

fn abort(failure: FailureKind, percent: f64, min_finished: u32) -> Plan {
    Plan {
        abort: vec![Abort {
            failure,
            percent,
            min_finished,
        }],
        ..Plan::default()
    }
}

fn pause(campaign: &mut Campaign, reason: PauseReason, at: Timestamp) {
    campaign.apply(&Record::Paused {
        at,
        reason,
        message: "x".to_owned(),
        order: None,
    });
}

fn resume(campaign: &mut Campaign, at: Timestamp) {
    resume_and_arm(campaign, at, None);
}

fn resume_and_arm(campaign: &mut Campaign, at: Timestamp, minutes: Option<(i64, i64)>) {
    campaign.apply(&Record::Resumed {
        at,
        arm_again: minutes.map(|(after, over)| ArmAgain {
            after: SignedDuration::from_mins(after),
            over: SignedDuration::from_mins(over),
        }),
        order: None,
    });
}

fn resume_everything(
    campaign: &mut Campaign,
    at: Timestamp,
    ends_pause: bool,
    after_minutes: Option<i64>,
) {
    campaign.apply(&Record::EverythingResumed {
        at,
        ends_pause,
        arm_again: after_minutes.map(|after| ArmAgain {
            after: SignedDuration::from_mins(after),
            over: SignedDuration::ZERO,
        }),
        order: "7".to_owned(),
    });
}

fn is_pause(action: &Action) -> bool {
    matches!(action, Action::Pause { .. })
}

/// A campaign of which 20 devices failed, so that it paused and disarmed 80 more, at 2 s.
fn tripped() -> Campaign {
    let mut campaign = Campaign::new(abort(FailureKind::Any, 10.0, 20));
    campaign.release(0..100, at(0));
    campaign.fail(0..20, FailureKind::Any, at(1));
    assert!(is_pause(&campaign.decide(900, at(1))));
    pause(&mut campaign, PauseReason::Abort, at(2));
    campaign
}

#[test]
fn what_a_pause_disarmed_for_good_does_not_pause_again_and_new_devices_do() {
    let mut campaign = tripped();
    resume(&mut campaign, at(100));
    campaign.release(100..200, at(101));
    campaign.fail(20..60, FailureKind::TimedOut, at(3_600));
    campaign.complete(60..80, at(3_600));
    let decided = campaign.decide(900, at(3_600));
    assert!(!is_pause(&decided), "{decided:?}");
    assert_eq!(campaign.state.counts().failed, 60);
    // Of the new ones each counts, and so few successes of before make them no healthier.
    campaign.fail(100..119, FailureKind::Any, at(3_601));
    assert!(!is_pause(&campaign.decide(900, at(3_601))));
    campaign.fail(119..120, FailureKind::Any, at(3_601));
    assert!(is_pause(&campaign.decide(900, at(3_601))));
}

#[test]
fn what_is_armed_again_counts_again() {
    // Those that are armed again over ten minutes are not all armed before these are over.
    for (is_told_later, over) in [(false, 0), (true, 0), (false, 10)] {
        let mut campaign = tripped();
        if is_told_later {
            resume(&mut campaign, at(50));
        }
        resume_and_arm(&mut campaign, at(100), Some((30, over)));
        let armed_at = 100 + 1_800 + over * 60;
        campaign.fail(20..60, FailureKind::TimedOut, at(armed_at - 1));
        let decided = campaign.decide(900, at(armed_at));
        assert!(!is_pause(&decided), "{decided:?}");
        campaign.fail(60..79, FailureKind::Any, at(armed_at));
        assert!(!is_pause(&campaign.decide(900, at(armed_at))));
        campaign.fail(79..80, FailureKind::Any, at(armed_at));
        assert!(is_pause(&campaign.decide(900, at(armed_at))));
    }
}

#[test]
fn a_resume_that_ends_no_pause_excuses_nothing_that_comes() {
    let mut campaign = Campaign::new(abort(FailureKind::Any, 10.0, 20));
    campaign.release(0..100, at(0));
    campaign.fail(0..15, FailureKind::Any, at(1));
    resume(&mut campaign, at(2));
    resume_everything(&mut campaign, at(2), false, Some(30));
    campaign.fail(15..34, FailureKind::Any, at(3));
    assert!(!is_pause(&campaign.decide(900, at(3))));
    campaign.fail(34..35, FailureKind::Any, at(3));
    assert!(is_pause(&campaign.decide(900, at(3))));
}

#[test]
fn a_stop_of_everything_pauses_no_campaign_for_what_it_disarmed() {
    let held = |campaign: &Campaign, held| {
        let situation = Situation {
            now: at(4_000),
            waiting: 900,
            held: Some(held),
            began_at: noon(),
        };
        decide(&campaign.plan, &campaign.state, situation)
    };
    let mut campaign = Campaign::new(abort(FailureKind::Any, 10.0, 20));
    campaign.release(0..100, at(0));
    campaign.fail(0..40, FailureKind::TimedOut, at(3_600));
    let decided = held(&campaign, Held::Operator);
    assert!(!is_pause(&decided), "{decided:?}");
    // A circuit that is open disarms nothing.
    assert!(is_pause(&held(&campaign, Held::Nbi)));
    resume_everything(&mut campaign, at(5_000), true, None);
    campaign.fail(40..80, FailureKind::TimedOut, at(7_200));
    let decided = campaign.decide(900, at(7_200));
    assert!(matches!(decided, Action::Release { .. }), "{decided:?}");
    assert_eq!(campaign.state.order.as_deref(), Some("7"));
}

#[test]
fn the_end_of_a_stop_leaves_a_pause_of_the_campaign() {
    let mut campaign = tripped();
    resume_everything(&mut campaign, at(5_000), true, None);
    let decided = campaign.decide(900, at(5_000));
    assert!(
        matches!(
            decided,
            Action::Wait {
                gate: Gate::Paused,
                ..
            }
        ),
        "{decided:?}"
    );
}

#[test]
fn the_last_failure_pauses_too_and_holds_what_is_added_later() {
    let plan = Plan {
        configuration_faults: 1,
        ..Plan::default()
    };
    let mut campaign = Campaign::new(plan);
    campaign.release(0..1, at(0));
    campaign.fail(0..1, FailureKind::Configuration, at(1));
    let decided = campaign.decide(0, at(10));
    assert!(is_pause(&decided), "{decided:?}");
    pause(&mut campaign, PauseReason::ConfigurationFaults, at(10));
    for waiting in [0, 5] {
        let decided = campaign.decide(waiting, at(60));
        let is_held =
            matches!(decided, Action::Wait { gate: Gate::Paused, until } if until > at(60));
        assert!(is_held, "{decided:?}");
    }
    resume(&mut campaign, at(100));
    assert_eq!(
        campaign.decide(0, at(100)),
        Action::Conclude(Conclusion::Completed)
    );
}

#[test]
fn a_campaign_that_paused_itself_with_nothing_left_ends_when_cancelled_and_at_its_deadline() {
    let plan = Plan {
        configuration_faults: 1,
        deadline: Some(at(500)),
        ..Plan::default()
    };
    let mut campaign = Campaign::new(plan);
    campaign.release(0..1, at(0));
    campaign.fail(0..1, FailureKind::Configuration, at(1));
    pause(&mut campaign, PauseReason::ConfigurationFaults, at(10));
    assert!(
        matches!(campaign.decide(0, at(490)), Action::Wait { gate: Gate::Paused, until } if until == at(500))
    );
    assert_eq!(
        campaign.decide(0, at(500)),
        Action::Conclude(Conclusion::Completed)
    );
    campaign.apply(&Record::Cancelling {
        at: at(20),
        order: None,
    });
    assert_eq!(
        campaign.decide(0, at(20)),
        Action::Conclude(Conclusion::Cancelled)
    );
}

#[test]
fn a_campaign_that_an_operator_paused_is_over_when_nothing_is_left() {
    let mut campaign = Campaign::new(abort(FailureKind::Any, 10.0, 20));
    campaign.release(0..1, at(0));
    pause(&mut campaign, PauseReason::Operator, at(1));
    campaign.complete(0..1, at(2));
    assert_eq!(
        campaign.decide(0, at(10)),
        Action::Conclude(Conclusion::Completed)
    );
}

/// A coordinator that was superseded says so late, after another one has accepted devices: their end is told as well.
#[test]
fn what_was_added_before_a_late_word_that_all_is_over_is_over_when_it_ends() {
    let accepted = |at| Record::Accepted {
        at,
        began_at: noon(),
    };
    let over = Record::Concluded { began_at: noon() };
    let mut campaign = Campaign::new(Plan::default());
    campaign.release(0..1, at(0));
    campaign.complete(0..1, at(1));
    campaign.apply(&accepted(at(8)));
    campaign.apply(&over);
    assert!(campaign.state.is_concluded);
    // Its own devices again: they add nothing to what was said.
    campaign.release(0..1, at(9));
    campaign.complete(0..1, at(9));
    assert!(campaign.state.is_concluded);
    campaign.release(1..2, at(10));
    assert!(!campaign.state.is_concluded);
    campaign.complete(1..2, at(20));
    assert_eq!(
        campaign.decide(0, at(21)),
        Action::Conclude(Conclusion::Completed)
    );
    campaign.apply(&over);
    assert!(campaign.state.is_concluded);
    // One that is told its outcome without having been started.
    campaign.apply(&accepted(at(30)));
    campaign.apply(&over);
    campaign.finish(2, Outcome::Cancelled, None, at(31));
    assert!(!campaign.state.is_concluded);
    assert_eq!(campaign.state.conclusions, 3);
    // Of an earlier campaign of the same name.
    campaign.apply(&Record::Concluded { began_at: at(-1) });
    assert_eq!(campaign.state.conclusions, 0);
}

#[test]
fn what_the_deadline_ends_before_its_start_pauses_nothing() {
    let plan = Plan {
        deadline: Some(at(100)),
        ..abort(FailureKind::TimedOut, 10.0, 5)
    };
    let mut campaign = Campaign::new(plan);
    campaign.release(0..1, at(0));
    campaign.fail(1..50, FailureKind::TimedOut, at(100));
    for now in [100, 101] {
        let decided = campaign.decide(0, at(now));
        assert!(!is_pause(&decided), "{decided:?}");
    }
    // Nor by a clock that is behind.
    let decided = campaign.decide(0, at(99));
    assert!(!is_pause(&decided), "{decided:?}");
    assert_eq!(campaign.state.counts().timed_out, 49);
}

#[test]
fn the_end_of_the_last_devices_is_told_from_when_they_were_started() {
    let plan = Plan {
        deadline: Some(at(450)),
        ..Plan::default()
    };
    let mut campaign = Campaign::new(plan);
    campaign.release(0..2, at(-300));
    campaign.complete(0..1, at(0));
    campaign.release(2..3, at(0));
    let done_at = |campaign: &Campaign, now| {
        forecast::done_at(&campaign.plan, &campaign.state, 0, at(now)).unwrap()
    };
    assert_eq!(done_at(&campaign, 100), at(300));
    assert_eq!(done_at(&campaign, 400), at(400), "it is late already");
    let is_in_jeopardy = |campaign: &Campaign, now| {
        forecast::is_in_jeopardy(&campaign.plan, &campaign.state, 0, at(now))
    };
    assert_eq!(is_in_jeopardy(&campaign, 400), Some(false));
    assert_eq!(
        is_in_jeopardy(&campaign, 450),
        None,
        "the deadline has come"
    );
    campaign.plan.deadline = Some(at(200));
    assert_eq!(is_in_jeopardy(&campaign, 100), Some(true));
    campaign.apply(&Record::Cancelling {
        at: at(1),
        order: None,
    });
    assert_eq!(
        is_in_jeopardy(&campaign, 100),
        None,
        "it is being cancelled"
    );
}

#[test]
fn the_forecast_counts_places_by_how_long_all_devices_kept_them() {
    let plan = Plan {
        pace: Pace {
            max_in_flight: Some(10),
            in_flight_timeout: Some(SignedDuration::from_mins(30)),
            ..Pace::default()
        },
        ..Plan::default()
    };
    let mut campaign = Campaign::new(plan);
    campaign.release(0..4, at(-3_600));
    campaign.complete(0..1, at(-3_000));
    campaign.fail(1..2, FailureKind::TimedOut, at(-1_000));
    campaign.state.expire(&campaign.plan, at(-900));
    campaign.fail(2..3, FailureKind::TimedOut, at(0));
    campaign.release(4..9, at(0));
    // Ten minutes once and thirty three times make 25; one of four is silent still, and five take places.
    let mean = SignedDuration::from_mins(25);
    assert_eq!(campaign.state.mean_place_time(), Some(mean));
    let done_at = forecast::done_at(&campaign.plan, &campaign.state, 25, at(0));
    assert_eq!(done_at, Some(at(20 * 150 + 600)));
}

#[test]
fn a_forecast_with_a_slow_ramp_does_not_run_out_of_steps() {
    let ramp = Ramp {
        factor: 1.001,
        after_successes: 1,
        max_starts_per_minute: 1_000_000,
    };
    let plan = Plan {
        pace: Pace {
            starts_per_minute: Some(1),
            ramp: Some(ramp),
            ..Pace::default()
        },
        ..Plan::default()
    };
    let campaign = Campaign::new(plan);
    let done_at = forecast::done_at(&campaign.plan, &campaign.state, 1_000_000, at(0));
    // The sum of 60 s / 1.001^n is 1,001 minutes.
    let minutes = done_at.unwrap().duration_since(at(0)).as_mins();
    assert!((990..1_030).contains(&minutes), "{minutes}");
}
