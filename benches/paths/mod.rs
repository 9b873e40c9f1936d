//! The hot path without sockets, as named pieces of work: what `hot_path.rs` times and `instructions.rs` counts.
//!
//! The job is the plain one: a device without history, upgraded at the first try. Answers are the NBI's bytes, so that judging them
//! is part of the work; the whole path is every call of the core, codecs and judge that such a job costs a worker.

use jiff::Timestamp;
use nbi_upgrade::job::{self, Inputs, Job, JobEvent, NbiCall, Next, Policy, Purpose, Standing};
use nbi_upgrade::message::{Codec, EventSettings, Incoming, RequestSettings, Work};
use nbi_upgrade::nbi::wire::{Names, Request};
use nbi_upgrade::nbi::{RawAnswer, answer};

const REQUEST: &[u8] = br#"{"job_id":"campaign-7:001122-ABC000123","cpe_id":"001122-ABC000123","campaign_id":"campaign-7","firmware_url":"https://files.example.com/firmware/model-a/2.4.1.bin","requested_at":"2026-06-01T02:07:15Z","context":{"ticket":"INC-4711","by":"noc"}}"#;
const NO_ROW: &str = r#"{"code":404,"message":"response from FirmwareResultStorage","details":""}"#;
const WRITTEN: &str = r#"{"code":204,"message":"response from FirmwareStorage","details":""}"#;
const SENT: &str = r#"{"result":{"code":200,"message":"OK"}}"#;
const RULE: &str = r#"{"code":200,"message":"response from FirmwareStorage","details":[{"id":"UPGRADE_001122-ABC000123","enabled":true,"automatic":true,"file":"https://files.example.com/firmware/model-a/2.4.1.bin","condition":{"cpeid":"001122-ABC000123"},"executions":1,"priority":1,"author":"api"}]}"#;
const SUCCESS: &str = r#"{"code":200,"message":"response from FirmwareResultStorage","details":[{"id":"cd3627cd-1908-4ff8-8fe3-f7078723a684","status":true,"ts":1780279800,"cpeid":"001122-ABC000123","rule_description":"","campaignid":"UPGRADE_001122-ABC000123","result":{"code":200,"message":"Upgrade has succeeded"}}]}"#;

/// A piece of work to be done again and again.
pub(crate) struct Piece {
    /// Its name in tables.
    pub(crate) name: &'static str,
    /// Does it once.
    pub(crate) work: Box<dyn FnMut()>,
}

/// What a worker has around a job.
struct Bench {
    codec: Codec,
    policy: Policy,
    now: Timestamp,
}

/// Every piece.
pub(crate) fn all() -> Vec<Piece> {
    let bench = Bench::new();
    let stages = bench.whole_job();
    let waiting = stages.waiting.clone();
    let waiting_body = bench.codec.encode_step(&waiting);
    let (last, happened) = stages.last;
    vec![
        piece("request_decode", {
            let bench = Bench::new();
            move || drop(std::hint::black_box(bench.request()))
        }),
        piece("step_encode", {
            let (bench, work) = (Bench::new(), waiting.clone());
            move || drop(std::hint::black_box(bench.codec.encode_step(&work)))
        }),
        piece("step_decode", {
            let (bench, body) = (Bench::new(), waiting_body);
            move || drop(std::hint::black_box(bench.step(&body)))
        }),
        piece("step_key", {
            let work = waiting.clone();
            move || drop(std::hint::black_box(work.key()))
        }),
        piece("event_encode", {
            let bench = Bench::new();
            move || {
                let events = bench.codec.published_events(&last, &happened, bench.now);
                assert_eq!(std::hint::black_box(events).len(), 1);
            }
        }),
        piece("answer_judge", {
            let call = NbiCall::ReadResults {
                rule_id: waiting.job.order.rule_id.clone(),
                cpe_id: waiting.job.order.cpe_id.clone(),
                purpose: Purpose::Look,
            };
            let raw = raw(SUCCESS);
            move || {
                drop(std::hint::black_box(answer::judge(
                    &call,
                    &raw,
                    &[],
                    Timestamp::UNIX_EPOCH,
                )))
            }
        }),
        piece("poll", {
            let bench = Bench::new();
            move || {
                drop(std::hint::black_box(
                    bench.deliver(waiting.clone(), &[NO_ROW]),
                ))
            }
        }),
        piece("job", {
            let bench = Bench::new();
            move || drop(std::hint::black_box(bench.whole_job()))
        }),
    ]
}

fn piece(name: &'static str, work: impl FnMut() + 'static) -> Piece {
    Piece {
        name,
        work: Box::new(work),
    }
}

/// What a whole job left behind, for the pieces that need a part of it.
struct Whole {
    waiting: Work,
    last: (Work, Vec<JobEvent>),
}

impl Bench {
    fn new() -> Self {
        let now = "2026-06-01T02:07:16Z".parse();
        Self {
            codec: Codec {
                requests: RequestSettings::default(),
                events: EventSettings {
                    source: "/nbi-upgrade/worker-1".to_owned(),
                    progress: false,
                },
            },
            policy: Policy::default(),
            now: now.expect("it is a time"),
        }
    }

    fn request(&self) -> Work {
        let incoming = Incoming {
            body: REQUEST,
            content_type: Some("application/json"),
            ..Incoming::default()
        };
        self.codec
            .decode_request(&incoming, self.now)
            .expect("the request is valid")
    }

    fn step(&self, body: &[u8]) -> Work {
        let incoming = Incoming {
            body,
            content_type: Some("application/json"),
            ..Incoming::default()
        };
        self.codec.decode_step(&incoming).expect("it is ours")
    }

    fn inputs(&self) -> Inputs {
        Inputs {
            now: self.now,
            jitter: 0.5,
            standing: Standing::Clear,
            redelivered: false,
        }
    }

    /// One delivery as the worker carries it out: decisions and answers to a verdict, then what is published.
    fn deliver(&self, work: Work, answers: &[&str]) -> (Work, Vec<JobEvent>) {
        let mut answers = answers.iter();
        let Work { job, carried, .. } = work;
        let mut happened = Vec::new();
        let mut decision = job::begin(job, self.inputs(), &self.policy);
        let (job, not_due_before) = loop {
            happened.append(&mut decision.events);
            let step = match decision.next {
                Next::Step(step) => step,
                Next::Wait { until } => break (decision.job, Some(until)),
                _ => break (decision.job, None),
            };
            let call = step.call(&decision.job, &self.policy);
            let answer = self.answer(
                &decision.job,
                &call,
                answers.next().expect("an answer for each call"),
            );
            decision = job::decide(decision.job, step, answer, self.inputs(), &self.policy);
        };
        assert!(answers.next().is_none(), "fewer calls than answers");
        let work = Work {
            job,
            carried,
            not_due_before,
        };
        (work, happened)
    }

    fn answer(
        &self,
        job: &Job,
        call: &NbiCall,
        body: &str,
    ) -> Result<job::NbiAnswer, job::NbiFailure> {
        let names = Names {
            query: "id",
            version_path: "",
            version_parameters: &[],
        };
        let request = std::hint::black_box(Request::of(call, &names));
        assert!(!request.is_unfiltered(), "{}", job.order.job_id);
        answer::judge(call, &raw(body), &[], self.now).outcome
    }

    /// The whole job: three deliveries, nine calls, two events, two continuations.
    fn whole_job(&self) -> Whole {
        let (work, happened) = self.deliver(self.request(), &[NO_ROW]);
        assert_eq!(
            self.codec
                .published_events(&work, &happened, self.now)
                .len(),
            1
        );
        let body = self.codec.encode_step(&work);
        let (waiting, _) = self.deliver(self.step(&body), &[NO_ROW, NO_ROW, WRITTEN, RULE, SENT]);
        let body = self.codec.encode_step(&waiting);
        let last = self.deliver(self.step(&body), &[SUCCESS, RULE, WRITTEN]);
        assert_eq!(
            self.codec
                .published_events(&last.0, &last.1, self.now)
                .len(),
            1
        );
        Whole { waiting, last }
    }
}

fn raw(body: &str) -> RawAnswer {
    RawAnswer {
        status: 200,
        body: body.as_bytes().to_vec(),
        retry_after: None,
        date: Some("Mon, 01 Jun 2026 02:07:16 GMT".to_owned()),
        location: None,
    }
}
