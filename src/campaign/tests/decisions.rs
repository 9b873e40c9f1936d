//! What pauses, holds and ends a campaign, and when its deadline is in jeopardy.

use jiff::tz::TimeZone;

use super::*;

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

fn reason(action: &Action) -> Option<PauseReason> {
    match action {
        Action::Pause { reason, .. } => Some(*reason),
        Action::Wait { .. }
        | Action::Release { .. }
        | Action::Drain(_)
        | Action::Conclude(_)
        | Action::Abandon => None,
    }
}

fn pause(campaign: &mut Campaign, reason: PauseReason) {
    campaign.apply(&Record::Paused {
        at: at(0),
        reason,
        message: "x".to_owned(),
        order: None,
    });
}

#[test]
fn a_criterion_trips_at_its_share_and_not_before_enough_have_finished() {
    let mut campaign = Campaign::new(abort(FailureKind::Any, 10.0, 20));
    campaign.release(0..100, at(0));
    campaign.fail(0..19, FailureKind::TimedOut, at(1));
    assert_eq!(reason(&campaign.decide(900, at(1))), None);
    campaign.fail(19..20, FailureKind::TimedOut, at(1));
    assert_eq!(
        reason(&campaign.decide(900, at(1))),
        Some(PauseReason::Abort)
    );

    let mut campaign = Campaign::new(abort(FailureKind::Any, 10.0, 20));
    campaign.release(0..100, at(0));
    campaign.complete(0..82, at(1));
    campaign.fail(82..91, FailureKind::DeviceFault, at(1));
    assert_eq!(reason(&campaign.decide(900, at(1))), None, "9 of 91");
    campaign.fail(91..92, FailureKind::DeviceFault, at(1));
    let decided = campaign.decide(900, at(1));
    assert_eq!(reason(&decided), Some(PauseReason::Abort), "10 of 92");
    // The two shares are told apart.
    let told = format!("{decided:?}");
    assert!(
        told.contains("10 of 92 finished devices failed (any): 10.9 %; the limit is 10 %"),
        "{told}"
    );
}

#[test]
fn each_criterion_counts_its_own_kind_and_a_configuration_fault_is_a_device_fault_too() {
    use FailureKind::{Any, Configuration, DeviceFault, TimedOut};
    for (criterion, failure, trips) in [
        (Any, Any, true),
        (Any, DeviceFault, true),
        (Any, Configuration, true),
        (Any, TimedOut, true),
        (DeviceFault, DeviceFault, true),
        (DeviceFault, Configuration, true),
        (DeviceFault, TimedOut, false),
        (DeviceFault, Any, false),
        (TimedOut, TimedOut, true),
        (TimedOut, DeviceFault, false),
        (Configuration, Configuration, true),
        (Configuration, DeviceFault, false),
    ] {
        let mut campaign = Campaign::new(abort(criterion, 50.0, 4));
        campaign.release(0..4, at(0));
        campaign.fail(0..4, failure, at(1));
        assert_eq!(
            reason(&campaign.decide(9, at(1))).is_some(),
            trips,
            "{criterion:?} and {failure:?}"
        );
    }
}

#[test]
fn configuration_faults_pause_by_number_whatever_the_share() {
    let plan = Plan {
        configuration_faults: 3,
        ..Plan::default()
    };
    let mut campaign = Campaign::new(plan);
    campaign.release(0..5_000, at(0));
    campaign.complete(0..4_000, at(1));
    campaign.fail(4_000..4_002, FailureKind::Configuration, at(1));
    assert_eq!(reason(&campaign.decide(9, at(1))), None);
    campaign.fail(4_002..4_003, FailureKind::Configuration, at(1));
    assert_eq!(
        reason(&campaign.decide(9, at(1))),
        Some(PauseReason::ConfigurationFaults)
    );
}

#[test]
fn resuming_acknowledges_what_failed_before_and_new_failures_trip_again() {
    let mut campaign = Campaign::new(abort(FailureKind::Any, 50.0, 10));
    campaign.release(0..100, at(0));
    campaign.fail(0..10, FailureKind::Any, at(1));
    assert!(reason(&campaign.decide(900, at(1))).is_some());
    pause(&mut campaign, PauseReason::Abort);
    assert!(matches!(
        campaign.decide(900, at(2)),
        Action::Wait {
            gate: Gate::Paused,
            ..
        }
    ));
    campaign.apply(&Record::Resumed {
        at: at(3),
        arm_again: None,
        order: None,
    });
    assert!(matches!(
        campaign.decide(900, at(3)),
        Action::Release { .. }
    ));
    campaign.release(100..110, at(4));
    campaign.fail(100..109, FailureKind::Any, at(4));
    assert!(matches!(
        campaign.decide(900, at(4)),
        Action::Release { .. }
    ));
    campaign.fail(109..110, FailureKind::Any, at(5));
    assert!(reason(&campaign.decide(900, at(5))).is_some());
    assert_eq!(campaign.state.counts().failed, 20);
}

#[test]
fn a_repeated_outcome_counts_once() {
    let mut campaign = Campaign::new(Plan::default());
    campaign.release(0..2, at(0));
    campaign.complete(0..1, at(1));
    campaign.complete(0..1, at(1));
    campaign.fail(0..1, FailureKind::Any, at(2));
    assert_eq!(
        (
            campaign.state.counts().finished(),
            campaign.state.in_flight()
        ),
        (1, 1)
    );
}

#[test]
fn a_campaign_is_over_when_nothing_waits_and_nothing_is_under_way() {
    let mut campaign = Campaign::new(Plan::default());
    assert!(matches!(campaign.decide(2, at(0)), Action::Release { .. }));
    campaign.release(0..2, at(0));
    assert!(matches!(
        campaign.decide(0, at(1)),
        Action::Wait {
            gate: Gate::NothingWaits,
            ..
        }
    ));
    campaign.complete(0..2, at(2));
    // More requests of the same campaign may follow.
    assert!(
        matches!(campaign.decide(0, at(2)), Action::Wait { gate: Gate::NothingWaits, until } if until == at(5))
    );
    assert_eq!(
        campaign.decide(0, at(5)),
        Action::Conclude(Conclusion::Completed)
    );
    campaign.apply(&Record::Concluded { began_at: noon() });
    assert!(campaign.state.is_concluded);
}

/// A coordinator that was superseded may say late that all is over.
#[test]
fn what_is_added_to_a_campaign_that_is_over_is_to_be_done() {
    let mut campaign = Campaign::new(Plan::default());
    campaign.apply(&Record::Concluded { began_at: noon() });
    campaign.apply(&Record::Accepted {
        at: at(9),
        began_at: noon(),
    });
    assert!(!campaign.state.is_concluded);
}

/// A campaign as its coordinator finds it that has not read of any request.
fn unaccepted(plan: Plan) -> Campaign {
    let mut campaign = Campaign::new(plan);
    campaign.state = State::default();
    campaign
}

#[test]
fn nothing_starts_before_the_first_request_is_accepted() {
    let mut campaign = unaccepted(Plan::default());
    for (waiting, now) in [(0, at(99)), (9, at(99)), (9, at(86_400))] {
        assert!(matches!(
            campaign.decide(waiting, now),
            Action::Wait {
                gate: Gate::NotAccepted,
                ..
            }
        ));
    }
}

#[test]
fn a_campaign_that_lost_its_log_still_ends_by_an_order_and_at_its_deadline() {
    let mut campaign = unaccepted(Plan::default());
    campaign.apply(&Record::Cancelling {
        at: at(1),
        order: None,
    });
    assert_eq!(
        campaign.decide(7, at(1)),
        Action::Drain(Conclusion::Cancelled)
    );
    assert_eq!(
        campaign.decide(0, at(2)),
        Action::Conclude(Conclusion::Cancelled)
    );
    let mut campaign = unaccepted(Plan {
        deadline: Some(at(100)),
        ..Plan::default()
    });
    assert!(matches!(campaign.decide(7, at(99)), Action::Wait { .. }));
    assert_eq!(
        campaign.decide(7, at(100)),
        Action::Drain(Conclusion::Completed)
    );
}

#[test]
fn a_campaign_of_which_nothing_is_left_and_nothing_known_is_given_up_after_a_while() {
    let mut campaign = unaccepted(Plan::default());
    assert!(matches!(campaign.decide(0, at(599)), Action::Wait { .. }));
    assert_eq!(campaign.decide(0, at(600)), Action::Abandon);
    assert!(matches!(campaign.decide(1, at(600)), Action::Wait { .. }));
}

#[test]
fn the_end_of_an_earlier_campaign_of_the_same_name_is_not_taken_for_this_one() {
    let mut campaign = Campaign::new(Plan::default());
    campaign.release(0..5, at(-900));
    campaign.apply(&Record::Concluded {
        began_at: at(-1_000),
    });
    assert!(!campaign.state.is_concluded);
    assert_eq!(campaign.state.counts(), Counts::default());
    assert_eq!(
        campaign.state.admit(&campaign.plan, &devices(0..1), 1, 1),
        [Admission::Start]
    );
}

#[test]
fn a_cancelled_campaign_tells_what_waits_and_ends_when_the_rest_has() {
    let mut campaign = Campaign::new(abort(FailureKind::Any, 1.0, 1));
    campaign.release(0..2, at(0));
    campaign.apply(&Record::Cancelling {
        at: at(1),
        order: Some("c-1".to_owned()),
    });
    assert_eq!(
        campaign.decide(7, at(1)),
        Action::Drain(Conclusion::Cancelled)
    );
    for number in 2..9 {
        campaign.finish(number, Outcome::Cancelled, None, at(2));
    }
    assert!(matches!(campaign.decide(0, at(2)), Action::Wait { .. }));
    campaign.complete(0..1, at(3));
    campaign.fail(1..2, FailureKind::TimedOut, at(3));
    assert_eq!(
        campaign.decide(0, at(3)),
        Action::Conclude(Conclusion::Cancelled)
    );
    let counts = campaign.state.counts();
    assert_eq!(
        (
            counts.released,
            counts.completed,
            counts.failed,
            counts.cancelled
        ),
        (2, 1, 1, 7)
    );
}

#[test]
fn devices_that_wait_at_the_deadline_are_told_even_while_it_is_paused() {
    let plan = Plan {
        deadline: Some(at(100)),
        ..Plan::default()
    };
    let mut campaign = Campaign::new(plan);
    pause(&mut campaign, PauseReason::Operator);
    assert!(
        matches!(campaign.decide(7, at(99)), Action::Wait { gate: Gate::Paused, until } if until == at(100))
    );
    assert_eq!(
        campaign.decide(7, at(100)),
        Action::Drain(Conclusion::Completed)
    );
}

#[test]
fn nothing_starts_before_its_time_or_outside_the_window_or_while_everything_is_held() {
    let window = Window {
        start: "14:00".parse().unwrap(),
        end: "15:00".parse().unwrap(),
        time_zone: TimeZone::UTC,
        days: Vec::new(),
    };
    let plan = Plan {
        not_before: Some(at(7_230)),
        window: Some(window),
        ..Plan::default()
    };
    let mut campaign = Campaign::new(plan);
    assert!(
        matches!(campaign.decide(7, at(7_229)), Action::Wait { gate: Gate::Window, until } if until == at(7_230))
    );
    assert!(matches!(
        campaign.decide(7, at(7_230)),
        Action::Release { .. }
    ));
    assert!(matches!(
        campaign.decide(7, at(3 * 3_600)),
        Action::Wait {
            gate: Gate::Window,
            ..
        }
    ));
    let situation = Situation {
        now: at(7_230),
        waiting: 7,
        held: Some(Held::Nbi),
        began_at: noon(),
    };
    assert!(matches!(
        decide(&campaign.plan, &campaign.state, situation),
        Action::Wait {
            gate: Gate::Held,
            ..
        }
    ));
}

#[test]
fn the_forecast_knows_pace_places_ramp_and_windows() {
    let done = |plan: Plan, took: i64, waiting: u64| {
        let mut campaign = Campaign::new(plan);
        campaign.release(0..1, at(-took));
        campaign.complete(0..1, at(0));
        forecast::done_at(&campaign.plan, &campaign.state, waiting, at(0))
            .map(|time| time.duration_since(at(0)).as_secs())
    };
    let pace = |starts_per_minute, max_in_flight| Pace {
        starts_per_minute,
        max_in_flight,
        ..Pace::default()
    };
    let plan = |pace| Plan {
        pace,
        ..Plan::default()
    };
    assert_eq!(done(plan(pace(None, None)), 300, 1_000), Some(300));
    assert_eq!(done(plan(pace(Some(60), None)), 300, 1_000), Some(1_300));
    // Ten places, five minutes each: two a minute.
    assert_eq!(
        done(plan(pace(Some(60), Some(10))), 300, 100),
        Some(45 * 60 + 300)
    );
    assert_eq!(done(plan(pace(Some(60), Some(10))), 300, 0), Some(0));
    let ramp = Ramp {
        factor: 2.0,
        after_successes: 101,
        max_starts_per_minute: 120,
    };
    let ramped = Pace {
        ramp: Some(ramp),
        ..pace(Some(60), None)
    };
    assert_eq!(done(plan(ramped), 300, 300), Some(100 + 100 + 300));
    let window = Window {
        start: "12:00".parse().unwrap(),
        end: "12:30".parse().unwrap(),
        time_zone: TimeZone::UTC,
        days: Vec::new(),
    };
    let windowed = Plan {
        window: Some(window),
        ..plan(pace(Some(60), None))
    };
    // 1,800 a day, and the rest on the third day.
    assert_eq!(done(windowed, 300, 4_000), Some(2 * 86_400 + 400 + 300));
}

#[test]
fn a_deadline_is_in_jeopardy_when_the_forecast_is_behind_it() {
    let plan = Plan {
        deadline: Some(at(600)),
        pace: Pace {
            starts_per_minute: Some(60),
            ..Pace::default()
        },
        ..Plan::default()
    };
    let campaign = Campaign::new(plan);
    let is_in_jeopardy = |waiting, now| {
        forecast::is_in_jeopardy(&campaign.plan, &campaign.state, waiting, now).unwrap()
    };
    assert!(!is_in_jeopardy(590, at(0)));
    assert!(is_in_jeopardy(610, at(0)));
    // A pause costs what it takes.
    assert!(is_in_jeopardy(590, at(60)));
}
