//! Connection requests that the worker could not send: its own limits held them back, the circuit was open, or it stopped.

use super::*;
use crate::job::policy::OnConnectionRequestFailure;

/// Neither a failed request ends the job, nor is a silent device woken again.
fn strict() -> Policy {
    Policy {
        connection_request_on_failure: OnConnectionRequestFailure::Fail,
        connection_request_resend_interval: SignedDuration::ZERO,
        ..Policy::default()
    }
}

#[test]
fn a_device_that_could_not_be_woken_is_looked_at_and_woken_as_soon_as_that_is_possible() {
    let policy = strict();
    let mut job = job(Stage::ConnectionRequest);
    job.progress.retries.failures = policy.connection_request_attempts;
    let goes_on = decide(
        job,
        Step::SendConnectionRequest,
        Err(not_sent()),
        inputs(60),
        &policy,
    );
    assert_eq!(describe(&goes_on, at(60)), "Wait 30s in await_result");
    assert_eq!(goes_on.job.progress.connection_requested_at, None);
    let record = &goes_on.job.progress.stages[0];
    assert_eq!(
        (record.stage, record.attempts),
        (Stage::ConnectionRequest, 0)
    );

    // Tried between the looks, which come at growing distances.
    let mut job = goes_on.job;
    let mut now = 90;
    for waits in [45, 67, 101] {
        let looks = decide(job, Step::ReadResults, results(&[]), inputs(now), &policy);
        assert_eq!(describe(&looks, at(now)), "Step ResendConnectionRequest");
        let step = Step::ResendConnectionRequest;
        let tried = decide(looks.job, step, Err(not_sent()), inputs(now), &policy);
        let Next::Wait { until } = tried.next else {
            panic!("{:?}", tried.next)
        };
        assert_eq!(until.duration_since(at(now)).as_secs(), waits);
        assert_eq!(tried.job.progress.connection_requested_at, None);
        job = tried.job;
        now += waits;
    }

    // A refusal is the worker's fault, as ever.
    let step = Step::ResendConnectionRequest;
    let refused = decide(job.clone(), step, Err(refused()), inputs(now), &policy);
    assert!(
        matches!(refused.next, Next::Release { .. }),
        "{:?}",
        refused.next
    );
    assert_eq!(refused.job.progress.connection_requested_at, None);

    // Once it is sent, it is not sent again.
    let step = Step::ResendConnectionRequest;
    let sent = decide(job, step, Ok(NbiAnswer::Done), inputs(now), &policy);
    assert_eq!(sent.job.progress.connection_requested_at, Some(at(now)));
    let looks = decide(
        sent.job,
        Step::ReadResults,
        results(&[]),
        inputs(now + 300),
        &policy,
    );
    assert!(matches!(looks.next, Next::Wait { .. }), "{:?}", looks.next);
}

#[test]
fn one_that_could_not_be_sent_again_is_tried_at_the_next_look() {
    let policy = Policy::default();
    let step = Step::ResendConnectionRequest;
    let tried = decide(
        job(Stage::AwaitResult),
        step,
        Err(not_sent()),
        inputs(900),
        &policy,
    );
    assert!(matches!(tried.next, Next::Wait { .. }), "{:?}", tried.next);
    assert_eq!(tried.job.progress.connection_requested_at, Some(noon()));
    let looks = decide(
        tried.job,
        Step::ReadResults,
        results(&[]),
        inputs(945),
        &policy,
    );
    assert_eq!(describe(&looks, at(945)), "Step ResendConnectionRequest");
}

#[test]
fn nor_is_one_sent_in_a_pause() {
    let mut job = job(Stage::AwaitResult);
    job.progress.connection_requested_at = None;
    let paused = Inputs {
        standing: Standing::Paused,
        ..inputs(90)
    };
    let looks = decide(job, Step::ReadResults, results(&[]), paused, &strict());
    assert!(matches!(looks.next, Next::Wait { .. }), "{:?}", looks.next);
}
