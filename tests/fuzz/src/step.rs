//! Any bytes as a continuation; behind a zero byte, choices for the world that it meets.
//!
//! Accepted: the same after being written and read again, also after every hand-over; then the job runs through random answers, times
//! and orders, and ends once the world is calm and its deadline has passed. It never outgrows what a worker reads.

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::job::{self, Inputs, JobEvent, Next, Policy, Standing};
use nbi_upgrade::message::{Codec, DeadLetter, Incoming, StepError, Work, step};

use super::{
    Accepted, Choices, EVENT_MAX, answer, calm_answer, check_event, check_ids, check_round_trip,
    codec, is_one_line, now, policy,
};

/// Deliveries under random answers.
const WILD_MAX: usize = 40;
/// Deliveries in which a job must end once nothing goes wrong any more.
const CALM_MAX: usize = 12;

/// One input; as what it was accepted.
///
/// # Panics
///
/// When a promise is broken.
pub fn play(data: &[u8]) -> Accepted {
    let (body, choices) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[][..]),
    };
    let codec = codec(false);
    let work = match codec.decode_step(&Incoming {
        body,
        ..Incoming::default()
    }) {
        Ok(work) => work,
        Err(StepError::NewerVersion { found, known }) => {
            assert!(found > known);
            return vec!["newer version"];
        }
        Err(StepError::NewerName { name, .. }) => {
            assert!((1..=64).contains(&name.len()) && is_one_line(&name));
            return vec!["newer name"];
        }
        Err(StepError::Malformed(error)) => {
            let letter = DeadLetter::malformed_step(&error);
            assert!(letter.error.chars().count() <= DeadLetter::ERROR_MAX + 1);
            assert!(is_one_line(&letter.error), "{:?}", letter.error);
            return Accepted::new();
        }
    };
    check_ids(&work);
    let first = check_round_trip(&codec, &work);
    // What is near the limit was not written by a worker.
    if first.len() > step::BODY_MAX / 2 {
        return vec!["large"];
    }
    run(&codec, work, &mut Choices::new(choices));
    if choices.is_empty() {
        vec!["calm"]
    } else {
        vec!["wild"]
    }
}

/// Runs the job until it ends.
fn run(codec: &Codec, mut work: Work, choices: &mut Choices<'_>) {
    let policy = policy(choices);
    let mut now = match choices.below(4) {
        0 => work.job.order.requested_at,
        1 => work.job.order.deadline,
        2 => work.not_due_before.unwrap_or_else(now),
        _ => Timestamp::from_second(choices.long() / 1_000_000).unwrap_or_else(|_| now()),
    };
    for _ in 0..WILD_MAX {
        if choices.are_used_up() {
            break;
        }
        let standing = match choices.below(16) {
            0 => Standing::Cancelled { at: now },
            1 | 2 => Standing::Paused,
            _ => Standing::Clear,
        };
        let redelivered = choices.below(4) == 0;
        let pause = SignedDuration::from_secs(i64::from(choices.byte()));
        let Some((next, until)) = deliver(
            codec,
            work,
            &policy,
            now,
            standing,
            redelivered,
            Some(choices),
        ) else {
            return;
        };
        work = next;
        now = until.max(now).checked_add(pause).unwrap_or(Timestamp::MAX);
    }
    now = now.max(work.job.order.deadline);
    for _ in 0..CALM_MAX {
        let Some((next, until)) = deliver(codec, work, &policy, now, Standing::Clear, false, None)
        else {
            return;
        };
        work = next;
        now = until.max(now);
    }
    panic!(
        "a job past its deadline does not end in a calm world: {:?}",
        work.job
    );
}

/// One delivery as the worker does it: `None` when the job is over.
fn deliver(
    codec: &Codec,
    work: Work,
    policy: &Policy,
    now: Timestamp,
    standing: Standing,
    redelivered: bool,
    mut choices: Option<&mut Choices<'_>>,
) -> Option<(Work, Timestamp)> {
    let Work { job, carried, .. } = work;
    let inputs = Inputs {
        now,
        jitter: choices
            .as_mut()
            .map_or(0.5, |choices| f64::from(choices.byte()) / 256.0),
        standing,
        redelivered,
    };
    let seq = job.progress.seq;
    let mut decision = job::begin(job, inputs, policy);
    let mut happened: Vec<JobEvent> = Vec::new();
    let mut steps = 0;
    let (job, next) = loop {
        happened.append(&mut decision.events);
        let Next::Step(step) = decision.next else {
            break (decision.job, decision.next);
        };
        let call = step.call(&decision.job, policy);
        steps += 1;
        assert!(
            steps <= policy.steps_max + 10,
            "a delivery without end: {step:?}"
        );
        let answer = if steps > policy.steps_max {
            Err(job::NbiFailure::Unintelligible {
                message: "no verdict".to_owned(),
            })
        } else {
            match choices.as_mut() {
                Some(choices) => answer(&call, choices, now),
                None => Ok(calm_answer(&call)),
            }
        };
        decision = job::decide(decision.job, step, answer, inputs, policy);
    };
    let until = match next {
        Next::Wait { until } | Next::Retry { until } | Next::Release { until } => Some(until),
        Next::Advance | Next::Step(_) | Next::Finish(_) => None,
    };
    let is_over = matches!(next, Next::Finish(_));
    assert!(
        is_over || job.progress.seq > seq || seq == u64::MAX,
        "{next:?} without a new name"
    );
    let work = Work {
        job,
        carried,
        not_due_before: until,
    };
    for event in codec.published_events(&work, &happened, now) {
        check_event(&event, EVENT_MAX);
    }
    let body = check_round_trip(codec, &work);
    assert!(
        body.len() <= step::BODY_MAX,
        "a continuation of {} bytes",
        body.len()
    );
    (!is_over).then(|| (work, until.unwrap_or(now)))
}
