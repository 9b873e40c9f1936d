//! Troubles, and the way in the same process.

use std::time::Duration;

use super::*;
use crate::nbi::wire::Request;
use crate::nbi::{RawAnswer, Transport, TransportError};

fn troubled(plan: TroublePlan) -> Bench {
    Bench::with(SimulatorSettings {
        troubles: plan,
        ..SimulatorSettings::default()
    })
}

#[test]
fn each_trouble_leaves_the_effect_that_it_claims() {
    for trouble in Trouble::ALL {
        let mut bench = troubled(TroublePlan::new(1).with(*trouble, 1.0));
        let reply = bench.raw(Verb::Post, RULES, &[], &rule("A"));
        assert_eq!(reply.trouble, Some(*trouble));
        assert_eq!(
            bench.simulator.rules().len(),
            usize::from(trouble.leaves_the_effect()),
            "{trouble:?}"
        );
        assert_eq!(
            bench.simulator.summary(bench.now).troubles[trouble.name()],
            1
        );
    }
}

#[test]
fn statuses_are_those_of_the_trouble() {
    for (trouble, status, retry_after) in [
        (Trouble::Unavailable, 503, None),
        (Trouble::UnavailableRetryAfter, 503, Some("7")),
        (Trouble::TooManyRequests, 429, Some("7")),
        (Trouble::Unauthorized, 401, None),
        (Trouble::HtmlPage, 200, None),
    ] {
        let mut bench = troubled(
            TroublePlan::new(1)
                .with(trouble, 1.0)
                .retry_after_seconds(7),
        );
        let reply = bench.raw(Verb::Get, RULES, &[], &Value::Null);
        assert_eq!(
            (reply.status, reply.retry_after.as_deref()),
            (status, retry_after),
            "{trouble:?}"
        );
    }
}

#[test]
fn spells_hit_every_call_of_their_time_and_no_other() {
    let until = start() + SignedDuration::from_secs(60);
    let plan = TroublePlan::new(1).spell(Trouble::Unauthorized, start(), until);
    let mut bench = troubled(plan);
    assert_eq!(bench.raw(Verb::Get, RULES, &[], &Value::Null).status, 401);
    bench.pass(60);
    assert_eq!(bench.raw(Verb::Get, RULES, &[], &Value::Null).status, 200);
}

#[test]
fn a_storm_spares_other_operations_ends_and_repeats_itself_by_its_seed() {
    let quiet = start() + SignedDuration::from_secs(10);
    let plan = TroublePlan::storm(77, 0.5)
        .only(&[Operation::ReadRule])
        .quiet_from(quiet);
    assert!(
        plan.to_string()
            .starts_with("troubles with seed 77: unavailable 0.045"),
        "{plan}"
    );
    assert!(
        plan.to_string()
            .ends_with("only read_rule quiet from 2026-01-05T08:00:10Z"),
        "{plan}"
    );
    let play = |plan: &TroublePlan| {
        let mut bench = troubled(plan.clone());
        let met: Vec<_> = (0..1000)
            .map(|_| bench.raw(Verb::Get, RULES, &[], &Value::Null).trouble)
            .collect();
        assert!((0..1000).all(|_| {
            bench
                .raw(Verb::Get, RESULTS, &[], &Value::Null)
                .trouble
                .is_none()
        }));
        bench.pass(10);
        assert!((0..1000).all(|_| {
            bench
                .raw(Verb::Get, RULES, &[], &Value::Null)
                .trouble
                .is_none()
        }));
        met
    };
    let met = play(&plan);
    assert_eq!(met, play(&plan));
    let share = met.iter().flatten().count();
    assert!((400..600).contains(&share), "{share}");
}

async fn send(trouble: Option<Trouble>) -> (Result<RawAnswer, TransportError>, Duration) {
    let plan = trouble.map_or_else(TroublePlan::none, |trouble| {
        TroublePlan::new(1).with(trouble, 1.0)
    });
    let simulator = Simulator::new(SimulatorSettings {
        troubles: plan,
        ..SimulatorSettings::default()
    });
    let shared = SharedSimulator::new(simulator, tokio_clock(start()));
    let transport = InProcessTransport::new(
        shared,
        InProcessSettings {
            latency: Duration::from_millis(40),
            ..InProcessSettings::default()
        },
    );
    let request = Request {
        verb: Verb::Get,
        path: RULES,
        query: vec![("campaignid".to_owned(), "UPGRADE_A".to_owned())],
        body: None,
        operation: "read_rule",
        timeout: None,
    };
    let begun = tokio::time::Instant::now();
    (transport.send(&request).await, begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn the_way_in_the_same_process_acts_troubles_out_in_virtual_time() {
    let (answer, took) = send(None).await;
    let answer = answer.unwrap();
    assert_eq!(
        (answer.status, answer.date.as_deref()),
        (200, Some("Mon, 05 Jan 2026 08:00:00 GMT"))
    );
    assert_eq!(took, Duration::from_millis(40));
    assert!(matches!(
        send(Some(Trouble::Refused)).await.0,
        Err(TransportError::Connect(_))
    ));
    for trouble in [Trouble::AnswerLost, Trouble::Truncated] {
        assert!(matches!(
            send(Some(trouble)).await.0,
            Err(TransportError::NoAnswer(_))
        ));
    }
    assert!(matches!(
        send(Some(Trouble::Huge)).await.0,
        Err(TransportError::TooLarge { limit: 1_048_576 })
    ));
    let (answer, took) = send(Some(Trouble::HangAfterEffect)).await;
    assert!(matches!(answer, Err(TransportError::TimedOut(_))));
    assert_eq!(took, Duration::from_millis(10_040));
}
