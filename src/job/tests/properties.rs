//! Sequences that nobody thought of: whatever the NBI answers, a job ends, its end is final and within its bounds.

use proptest::prelude::*;

use super::*;

fn any_answer() -> impl Strategy<Value = Result<NbiAnswer, NbiFailure>> {
    let any_row = (
        0..6_u8,
        -100..4_000_i64,
        prop::sample::select(vec![200_i64, 204, 404, 500]),
        any::<bool>(),
    )
        .prop_map(|(id, seconds, code, is_fault)| {
            let message = if is_fault { "FaultCode 9017" } else { "" };
            row(&format!("row-{id}"), seconds, code, message)
        });
    let any_rule = (any::<bool>(), any::<bool>()).prop_map(|(is_ours, enabled)| {
        if is_ours {
            our_rule(enabled)
        } else {
            other_rule(enabled)
        }
    });
    prop_oneof![
        8 => prop::collection::vec(any_row, 0..4).prop_map(|rows| results(&rows)),
        8 => prop::collection::vec(any_rule, 0..3).prop_map(|rows| rules(&rows)),
        6 => Just(Ok(NbiAnswer::Done)),
        1 => Just(Ok(NbiAnswer::RulesUnreadable)),
        1 => Just(Ok(NbiAnswer::NoSuchRule)),
        1 => Just(Ok(NbiAnswer::RuleExists)),
        1 => Just(Ok(NbiAnswer::Version("2.0".to_owned()))),
        2 => Just(Err(transient())),
        1 => Just(Err(no_effect())),
        1 => Just(Err(rejected())),
        1 => Just(Err(unintelligible())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_job_ends_and_never_has_more_attempts_than_allowed(
        answers in prop::collection::vec(any_answer(), 60),
        max_attempts in 1..4_u32,
        redelivered in any::<bool>(),
    ) {
        let policy = Policy::default();
        let mut job = Job::new(order());
        job.order_mut().max_attempts = max_attempts;
        let mut now = noon();
        let mut answers = answers.into_iter().cycle();
        let mut deliveries = 0;
        let ending = loop {
            deliveries += 1;
            prop_assert!(deliveries < 2_000, "the job does not end");
            let inputs = Inputs { now, jitter: 0.5, standing: Standing::Clear, redelivered };
            let mut decision = begin(job, inputs, &policy);
            let mut steps = 0;
            while let Next::Step(step) = decision.next {
                steps += 1;
                let answer = if steps > policy.steps_max { Err(unintelligible()) } else { answers.next().unwrap() };
                prop_assert!(steps <= policy.steps_max + 20, "a delivery does not end");
                decision = decide(decision.job, step, answer, inputs, &policy);
            }
            job = decision.job;
            prop_assert!(job.progress.attempt <= max_attempts);
            prop_assert!(job.progress.stages.len() <= Stage::ALL.len());
            match decision.next {
                Next::Wait { until } | Next::Retry { until } | Next::Release { until } => {
                    prop_assert!(until >= now, "time goes forward");
                    now = until.max(now + SignedDuration::from_millis(1));
                }
                Next::Advance | Next::Step(_) => now += SignedDuration::from_millis(5),
                Next::Finish(ending) => break ending,
            }
        };
        // Retries of putting the rule away may outlast the deadline, by their own budget each.
        let limit = job.order.deadline + policy.retry_max_elapsed * 3;
        prop_assert!(now <= limit, "{now} is after {limit}");
        prop_assert!(job.progress.rule != RuleState::Armed || ending.impact != Impact::None);
    }

    #[test]
    fn delays_grow_to_their_bound_and_stay_there(n in 0..200_u32, jitter in 0.0..1.0_f64) {
        let backoff = Policy::default().await_result;
        let delay = backoff.delay(n, jitter);
        prop_assert!(delay >= backoff.initial * 9 / 10);
        prop_assert!(delay <= backoff.max * 11 / 10);
    }

    #[test]
    fn a_first_delay_of_zero_is_none_and_the_later_ones_grow(n in 1..200_u32, jitter in 0.0..1.0_f64) {
        let backoff = retry::Backoff { initial: SignedDuration::ZERO, ..Policy::default().await_result };
        prop_assert!(backoff.delay(0, jitter).is_zero());
        prop_assert!(backoff.delay(n, jitter) >= SignedDuration::from_millis(900));
        prop_assert!(backoff.delay(n + 4, jitter) > backoff.delay(n, jitter) || n > 10);
    }
}
