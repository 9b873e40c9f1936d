//! The loop: receive, ask, decide, observe, carry out.
//!
//! It knows no HTTP status, no retry arithmetic and no queue name; it brings the parts together. A delivery is worked on in a
//! task of its own, whose panic is caught and costs the job one of the broker's delivery counts.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use jiff::SignedDuration;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::clock::Clock;
use crate::driver::{Delivery, Destination, Driver, HandOver};
use crate::job::{self, Inputs, JobEvent, NbiAnswer, NbiCall, NbiFailure, Next, Policy};
use crate::message::{Codec, Work};
use crate::nbi::Nbi;
use crate::telemetry::{Telemetry, Trace};

/// Carries jobs from deliveries to verdicts.
#[derive(Debug)]
pub struct Worker<N, D> {
    parts: Arc<Parts<N, D>>,
}

struct Parts<N, D> {
    nbi: Arc<N>,
    driver: Arc<D>,
    codec: Codec,
    policy: Policy,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    /// Cancelled when the time of grace is over: calls to the NBI are given up.
    hurry: CancellationToken,
}

impl<N, D> std::fmt::Debug for Parts<N, D> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Parts")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// When a worker that stops gives what up; bounded, so that nothing can hold the process.
#[derive(Debug, Clone, Copy)]
pub struct Grace {
    /// What was begun may go on for this long.
    pub finish: Duration,
    /// Then it is given back to the broker, which may take this long.
    pub give_back: Duration,
}

impl Default for Grace {
    /// 25 s fit into the 30 s that orchestrators give by default.
    fn default() -> Self {
        Self {
            finish: Duration::from_secs(20),
            give_back: Duration::from_secs(5),
        }
    }
}

impl<N: Nbi, D: Driver> Worker<N, D> {
    /// Brings the parts together.
    pub fn new(
        nbi: Arc<N>,
        driver: Arc<D>,
        codec: Codec,
        policy: Policy,
        telemetry: Arc<Telemetry>,
        clock: Clock,
    ) -> Self {
        let hurry = CancellationToken::new();
        Self {
            parts: Arc::new(Parts {
                nbi,
                driver,
                codec,
                policy,
                telemetry,
                clock,
                hurry,
            }),
        }
    }

    /// Works until `stop` is cancelled or the driver has no more, then finishes what is in hand.
    pub async fn run(&self, stop: CancellationToken, grace: Grace) {
        let mut tasks = JoinSet::new();
        let stopped = stop.cancelled();
        tokio::pin!(stopped);
        loop {
            let delivery = tokio::select! {
                biased;
                () = &mut stopped => break,
                delivery = self.parts.driver.receive() => delivery,
            };
            let Some(delivery) = delivery else { break };
            tasks.spawn(Arc::clone(&self.parts).handle(delivery));
            // What has ended is let go here: waiting for each end would wake this loop once more for every delivery.
            while tasks.try_join_next().is_some() {}
        }
        self.parts.telemetry.stopping();
        tokio::join!(self.parts.driver.stop(), self.finish(tasks, grace));
        self.parts.driver.close().await;
    }

    /// Lets what was begun end by itself, then has it given back, then drops it: the broker delivers it again.
    async fn finish(&self, mut tasks: JoinSet<()>, grace: Grace) {
        let all = async |tasks: &mut JoinSet<()>| while tasks.join_next().await.is_some() {};
        if tokio::time::timeout(grace.finish, all(&mut tasks))
            .await
            .is_ok()
        {
            return;
        }
        self.parts.hurry.cancel();
        if tokio::time::timeout(grace.give_back, all(&mut tasks))
            .await
            .is_err()
        {
            tasks.abort_all();
        }
    }
}

impl<N: Nbi, D: Driver> Parts<N, D> {
    async fn handle(self: Arc<Self>, delivery: Delivery<D::Token>) {
        let Delivery {
            work,
            redelivered,
            token,
        } = delivery;
        let trace = self.telemetry.delivery(&work, redelivered);
        let work = trace.carried_by(work);
        let job = work.job.clone();
        self.telemetry.in_hand(1);
        // Boxed: it would be moved as a whole, and this task with it.
        let settled = Box::pin(self.settle(work, redelivered, token, &trace, &job));
        let settled = trace.clone().scope(settled);
        if AssertUnwindSafe(settled).catch_unwind().await.is_err() {
            self.telemetry.step_panicked(&job);
        }
        self.telemetry.in_hand(-1);
    }

    /// Works on it and hands it over; what panics is rejected.
    async fn settle(
        &self,
        work: Work,
        redelivered: bool,
        token: D::Token,
        trace: &Trace,
        job: &job::Job,
    ) {
        match AssertUnwindSafe(self.work_on(work, redelivered, trace))
            .catch_unwind()
            .await
        {
            Ok((hand_over, happened)) => {
                let (to, begun) = (hand_over.to.name(), Instant::now());
                let result = self.driver.carry_out(token, hand_over).await;
                self.telemetry
                    .handed_over(to, begun.elapsed(), result.is_err());
                match result {
                    Ok(()) => self.telemetry.job(&happened.0, &happened.1),
                    Err(error) => self.telemetry.hand_over_failed(&happened.0, &error),
                }
            }
            Err(_) => {
                self.telemetry.step_panicked(job);
                self.driver.reject(token).await;
            }
        }
    }

    /// Asks and decides until there is a verdict for the driver.
    async fn work_on(
        &self,
        work: Work,
        redelivered: bool,
        trace: &Trace,
    ) -> (HandOver, (job::Job, Vec<JobEvent>)) {
        let Work { job, carried, .. } = work;
        let mut happened = Vec::new();
        // Registered once, not for each call.
        let hurry = self.hurry.cancelled();
        tokio::pin!(hurry);
        let inputs = self.inputs(&job, redelivered);
        let mut decision = job::begin(job, inputs, &self.policy);
        let mut steps = 0;
        let (job, next) = loop {
            happened.append(&mut decision.events);
            let Next::Step(step) = decision.next else {
                break (decision.job, decision.next);
            };
            let call = step.call(&decision.job, &self.policy);
            steps += 1;
            let answer = if steps > self.policy.steps_max {
                Err(endless(steps))
            } else {
                self.ask(&call, hurry.as_mut()).await
            };
            let inputs = self.inputs(&decision.job, redelivered);
            decision = job::decide(decision.job, step, answer, inputs, &self.policy);
        };
        let to = match next {
            Next::Wait { until } | Next::Retry { until } | Next::Release { until } => {
                Destination::At(until)
            }
            Next::Advance | Next::Step(_) => Destination::Now,
            Next::Finish(_) => Destination::Nowhere,
        };
        let not_due_before = match to {
            Destination::At(time) => Some(time),
            Destination::Now | Destination::Nowhere => None,
        };
        let work = Work {
            job: job.clone(),
            carried,
            not_due_before,
        };
        let events = self
            .codec
            .published_events(&trace.told_by(&work), &happened, (self.clock)());
        (HandOver { work, to, events }, (job, happened))
    }

    async fn ask(
        &self,
        call: &NbiCall,
        hurry: Pin<&mut WaitForCancellationFuture<'_>>,
    ) -> Result<NbiAnswer, NbiFailure> {
        const MESSAGE: &str = "the worker stops";
        let not_sent = || NbiFailure::NotSent {
            message: MESSAGE.to_owned(),
            retry_after: SignedDuration::from_secs(1),
        };
        if self.hurry.is_cancelled() {
            return Err(not_sent());
        }
        tokio::select! {
            biased;
            answer = self.nbi.call(call) => answer,
            () = hurry => Err(if call.is_repeatable() {
                not_sent()
            } else {
                // How far it came nobody knows: it may have armed the rule, and must not be sent as if it had not been.
                NbiFailure::Transient {
                    message: MESSAGE.to_owned(),
                    retry_after: None,
                    no_effect: false,
                }
            }),
        }
    }

    fn inputs(&self, job: &job::Job, redelivered: bool) -> Inputs {
        Inputs {
            now: (self.clock)(),
            jitter: fastrand::f64(),
            standing: self.driver.standing(&job.order),
            redelivered,
        }
    }
}

/// A bound against answers that send a job round in a circle; a sound run never comes near it.
fn endless(steps: u32) -> NbiFailure {
    NbiFailure::Unintelligible {
        message: format!("no verdict after {steps} NBI calls in one delivery"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use jiff::Timestamp;

    use super::*;
    use crate::driver::{DriverError, Intake};
    use crate::job::Standing;
    use crate::job::state::Order;
    use crate::message::{EventSettings, Incoming, RequestSettings};

    struct Deaf;

    impl Nbi for Deaf {
        async fn call(&self, _: &NbiCall) -> Result<NbiAnswer, NbiFailure> {
            Err(NbiFailure::NotSent {
                message: "nobody listens".to_owned(),
                retry_after: SignedDuration::from_secs(1),
            })
        }
    }

    /// Brings one delivery, and panics when it is handed over.
    struct Broken(Mutex<Option<Work>>);

    impl Driver for Broken {
        type Token = ();

        async fn receive(&self) -> Option<Delivery<()>> {
            let work = self.0.lock().unwrap().take()?;
            Some(Delivery {
                work,
                redelivered: false,
                token: (),
            })
        }

        async fn carry_out(&self, (): (), _: HandOver) -> Result<(), DriverError> {
            panic!("poison")
        }

        async fn reject(&self, (): ()) {}

        fn standing(&self, _: &Order) -> Standing {
            Standing::default()
        }

        fn set_intake(&self, _: Intake) {}

        async fn stop(&self) {}

        async fn close(&self) {}
    }

    #[tokio::test]
    async fn a_panic_while_a_delivery_is_handed_over_is_counted_and_leaves_nothing_in_hand() {
        let codec = Codec {
            requests: RequestSettings::default(),
            events: EventSettings {
                source: "/nbi-upgrade/test".to_owned(),
                progress: false,
            },
        };
        let body = br#"{"job_id":"j","cpe_id":"C","firmware_url":"http://files.example/f.bin"}"#;
        let incoming = Incoming {
            body,
            ..Incoming::default()
        };
        let work = codec.decode_request(&incoming, Timestamp::now()).unwrap();
        let telemetry: Arc<Telemetry> = Arc::default();
        let worker = Worker::new(
            Arc::new(Deaf),
            Arc::new(Broken(Mutex::new(Some(work)))),
            codec,
            Policy::default(),
            Arc::clone(&telemetry),
            crate::clock::system(),
        );
        worker.run(CancellationToken::new(), Grace::default()).await;
        let metrics = telemetry.metrics_text().unwrap();
        for line in [
            "nbi_upgrade_deliveries_in_hand 0",
            "nbi_upgrade_panics_total 1",
        ] {
            assert!(
                metrics.lines().any(|shown| shown == line),
                "{line}: {metrics}"
            );
        }
    }
}
