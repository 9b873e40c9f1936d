//! What comes in: to the worker, back unchanged, or to the dead letters, as `driver/amqp/consume.rs` and `take.rs` do it.

use std::sync::Arc;
use std::time::Duration;

use nbi_upgrade::driver::{Delivery, Intake};
use nbi_upgrade::message::{DeadLetter, Incoming, Work, unix_seconds};
use tokio::task::JoinSet;

use super::broker::Taken;
use super::driver::{Item, ModelToken, Outgoing, Parts, Progress};
use super::message::{Message, Queue};

impl Parts {
    /// Takes messages in until the worker stops or the process dies. Each is opened in a task of its own, as parking one may take its time.
    pub(super) async fn take_in(self: Arc<Self>) {
        let mut wanted = self.gate.wanted.subscribe();
        let mut tasks = JoinSet::new();
        // The one delivery that was taken to see whether the NBI is back.
        let mut probe = None;
        loop {
            let now = *wanted.borrow_and_update();
            for item in self.gate.left_over() {
                tasks.spawn(Arc::clone(&self).give_back(item));
            }
            if now.is_stopping {
                break;
            }
            while tasks.try_join_next().is_some() {}
            let changed = self.broker.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if now.intake != Intake::Probe {
                probe = None;
            }
            let is_probing = probe.is_some_and(|tag| self.broker.is_in_hand(tag));
            let taken = match now.intake {
                Intake::Closed => Taken::Empty(None),
                Intake::Probe if is_probing => Taken::Empty(None),
                Intake::Open | Intake::Probe => self.broker.take(self.life.worker),
            };
            let pause = match taken {
                Taken::Delivery(tag, message) => {
                    probe = Some(tag);
                    tasks.spawn(Arc::clone(&self).open(tag, message));
                    continue;
                }
                Taken::Empty(pause) => pause,
            };
            let pause = async {
                match pause {
                    // A timer counts whole milliseconds.
                    Some(pause) => tokio::time::sleep(pause + Duration::from_millis(1)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = wanted.changed() => {}
                () = changed => {}
                () = pause => {}
            }
        }
        self.gate.progress.send_replace(Progress::TakesNothing);
        while tasks.join_next().await.is_some() {}
        self.gate.progress.send_replace(Progress::Settled);
    }

    /// To the worker, or back into a delay queue if it is early, or to the dead letters.
    async fn open(self: Arc<Self>, tag: u64, message: Message) {
        let travels = self.broker.travel();
        if !travels.is_zero() {
            tokio::time::sleep(travels).await;
        }
        let redelivered = message.is_redelivered();
        self.life
            .point(|| format!("{} taken in", message.job))
            .await;
        let incoming = Incoming {
            body: &message.body,
            timestamp: message.timestamp,
            ..Incoming::default()
        };
        let now = (self.clock)();
        let decoded = match message.queue {
            Queue::Requests => self
                .codec
                .decode_request(&incoming, now)
                .map_err(|rejection| {
                    let event = self.codec.rejected_event(&incoming, &rejection, now);
                    let letter = DeadLetter::invalid_request(&rejection);
                    (vec![Outgoing::Event(event)], letter.reason)
                }),
            Queue::Steps => self
                .codec
                .decode_step(&incoming)
                .map_err(|_| (Vec::new(), DeadLetter::MALFORMED_STEP)),
        };
        let work = match decoded {
            Ok(work) => work,
            Err((mut messages, reason)) => {
                let job = message.job.clone();
                messages.push(Outgoing::Dead { message, reason });
                return self.replace(tag, &job, messages).await;
            }
        };
        if let Some(ttl) = work.not_due_before.and_then(|due| self.until(due)) {
            return self.park(tag, message, Some(ttl)).await;
        }
        let Work { job, .. } = &work;
        let (stage, seq) = (job.progress.stage.name(), job.progress.seq);
        let again = if redelivered { ", redelivered" } else { "" };
        self.life
            .note(format!("got {} {stage} seq {seq}{again}", message.job));
        let token = ModelToken {
            tag,
            job: message.job.clone(),
        };
        let delivery = Delivery {
            work,
            redelivered,
            token,
        };
        let item = Item { delivery, message };
        if self.gate.keeps() {
            self.gate.push(item);
        } else {
            self.give_back(item).await;
        }
    }

    /// What is not wanted any more: published again while the NBI is away, requeued when the worker stops.
    async fn give_back(self: Arc<Self>, item: Item) {
        let Item { delivery, message } = item;
        let ModelToken { tag, job } = delivery.token;
        if !self.broker.is_in_hand(tag) {
            self.broker.let_go(tag);
            return;
        }
        if self.gate.is_stopping() {
            self.life.note(format!("requeues {job}"));
            self.broker.nack(tag);
            return;
        }
        self.life.note(format!("publishes {job} again"));
        self.park(tag, message, None).await;
    }

    /// Publishes a message again unchanged, then acknowledges it.
    async fn park(&self, tag: u64, message: Message, ttl: Option<Duration>) {
        let job = message.job.clone();
        let mut message = Message {
            marked: message.is_redelivered(),
            deliveries: 0,
            ..message
        };
        if message.queue == Queue::Requests && !message.marked && message.timestamp.is_none() {
            // Copies of it may part here: all of them must know since when it was asked for.
            message.timestamp = Some(unix_seconds((self.clock)()));
        }
        let again = Outgoing::Again { message, ttl };
        self.replace(tag, &job, vec![again]).await;
    }

    /// Publishes what takes a delivery's place, then acknowledges it.
    async fn replace(&self, tag: u64, job: &str, messages: Vec<Outgoing>) {
        if !self.publish(tag, job, messages, true).await {
            self.broker.nack(tag);
            return;
        }
        self.broker.is_over(tag);
        // Where it fails, it comes again, and is replaced again.
        self.ack(tag, job).await;
    }
}
