//! A model of RabbitMQ as the worker sees it: two queues, the delay ladder, confirms and acknowledgements, redelivery and dead letters.
//!
//! It outlives every worker. Nothing here waits: each operation has its effect at once and says what the worker gets to see, so that a
//! crash point can stand on either side of the effect. It never loses a message that it confirmed; everything else is allowed by seed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::clock;
use nbi_upgrade::message::{Command, EventMessage};
use serde_json::Value;
use tokio::sync::Notify;

use super::copies::Copies;
use super::faults::{Draws, Fate, Faults};
use super::history::History;
use super::message::{Message, Queue};

/// Deliveries of one message before it is dead-lettered (`x-delivery-limit`).
const DELIVERY_LIMIT: u32 = 20;

#[derive(Debug)]
struct Unacked {
    message: Message,
    worker: usize,
    /// Something took its place already: it is no copy of its own unless it comes back.
    is_replaced: bool,
    /// The job's final event is published: if it comes back, it is a copy of what is over.
    has_ended: bool,
}

#[derive(Debug)]
struct Later {
    at: Timestamp,
    message: Message,
    /// Out of a delay queue, which may repeat it.
    by_dead_lettering: bool,
}

#[derive(Debug)]
struct State {
    draws: Draws,
    steps: VecDeque<Message>,
    requests: VecDeque<Message>,
    later: Vec<Later>,
    unacked: BTreeMap<u64, Unacked>,
    /// Deliveries that come again, while the worker that lost its connection goes on with them.
    taken_back: BTreeMap<u64, Unacked>,
    tags: u64,
    dead: Vec<(Message, String)>,
    copies: BTreeMap<String, Copies>,
    /// The stream of commands, with their times.
    commands: Vec<(Timestamp, Command)>,
    /// Until when the broker is away, and until when a worker has no connection.
    away_until: Timestamp,
    cut_until: BTreeMap<usize, Timestamp>,
}

/// The broker; clones share it.
#[derive(Clone)]
pub(crate) struct Broker {
    state: Arc<Mutex<State>>,
    history: History,
    changed: Arc<Notify>,
    pub(crate) settled: Arc<Notify>,
}

/// What a worker does with a delivery that comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Dies,
    GivesBack,
    /// It goes on with it.
    IsCutOff,
}

/// What a worker that wants a message gets.
pub(crate) enum Taken {
    Delivery(u64, Message),
    /// Nothing before then, if at all.
    Empty(Option<Duration>),
}

impl Broker {
    pub(crate) fn new(faults: Faults, history: History) -> Self {
        let state = State {
            draws: Draws::new(faults),
            steps: VecDeque::new(),
            requests: VecDeque::new(),
            later: Vec::new(),
            unacked: BTreeMap::new(),
            taken_back: BTreeMap::new(),
            tags: 0,
            dead: Vec::new(),
            copies: BTreeMap::new(),
            commands: Vec::new(),
            away_until: Timestamp::MIN,
            cut_until: BTreeMap::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            history,
            changed: Arc::default(),
            settled: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request of upstream.
    pub(crate) fn submit(&self, job: &str, body: Vec<u8>) {
        self.history.note(0, format!("request of {job}"));
        let now = self.history.now();
        let mut state = self.state();
        let copies = 1 + usize::from(state.draws.is_request_duplicated(now));
        let known = state.copies_of(job);
        if known.made > 0 {
            known.is_copied_at(now);
        }
        known.made += copies;
        for _ in 0..copies {
            state
                .requests
                .push_back(Message::new(Queue::Requests, job, body.clone(), false));
        }
        state.count_copies(job, now);
        drop(state);
        self.changed.notify_waiters();
    }

    /// A command of an operator.
    pub(crate) fn order(&self, body: &str) {
        self.history.note(0, format!("command {body}"));
        let now = self.history.now();
        let command = Command::decode(body.as_bytes()).unwrap();
        self.state().commands.push((now, command));
    }

    /// The commands from this one on, as far as they are older than that.
    pub(crate) fn commands(&self, from: usize, until: Timestamp) -> Vec<(Timestamp, Command)> {
        let state = self.state();
        let rest = state.commands.iter().skip(from);
        rest.take_while(|(at, _)| *at <= until).cloned().collect()
    }

    /// The next message for this worker.
    pub(crate) fn take(&self, worker: usize) -> Taken {
        let now = self.history.now();
        let mut state = self.state();
        let cut_until = state.cut_until(worker);
        if now < cut_until {
            return Taken::Empty(Some(clock::until(now, cut_until)));
        }
        state.promote(now);
        let count = if state.steps.is_empty() {
            state.requests.len()
        } else {
            state.steps.len()
        };
        let index = state.draws.next_of(count, now);
        let message = match state.steps.remove(index) {
            Some(message) => Some(message),
            None => state.requests.remove(index),
        };
        let Some(message) = message else {
            let next = state.later.iter().map(|later| later.at).min();
            return Taken::Empty(next.map(|at| clock::until(now, at)));
        };
        state.tags += 1;
        let tag = state.tags;
        let unacked = Unacked {
            message: message.clone(),
            worker,
            is_replaced: false,
            has_ended: false,
        };
        state.unacked.insert(tag, unacked);
        Taken::Delivery(tag, message)
    }

    /// Waits until something may have changed; to be created before looking.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Publishes a continuation in place of the delivery `tag`, to `steps` or to a delay queue.
    pub(crate) fn publish_step(
        &self,
        worker: usize,
        tag: u64,
        message: Message,
        ttl: Option<Duration>,
    ) -> Fate {
        let now = self.history.now();
        let mut state = self.state();
        let is_full = state.draws.faults.full;
        let is_full = is_full.is_some_and(|(from, until)| (from..until).contains(&now));
        let fate = if is_full && now >= state.cut_until(worker) {
            Fate::Nacked
        } else {
            state.publish(worker, now)
        };
        let job = message.job.clone();
        let backlog = state.draws.faults.backlog;
        if fate.takes_effect() {
            match ttl {
                None if message.queue == Queue::Requests && !backlog.is_zero() => {
                    state.later.push(Later {
                        at: now + SignedDuration::try_from(backlog).unwrap(),
                        message,
                        by_dead_lettering: false,
                    });
                }
                None => state.queue(message),
                Some(ttl) => {
                    let stay = state.draws.stay(ttl, now);
                    let at = now + SignedDuration::try_from(stay).unwrap();
                    state.later.push(Later {
                        at,
                        message,
                        by_dead_lettering: true,
                    });
                }
            }
            if fate != Fate::Confirmed {
                // It will be published again: the first one is a copy.
                state.copies_of(&job).made += 1;
            } else if let Some(unacked) = state.delivery(tag) {
                unacked.is_replaced = true;
            }
            state.count_copies(&job, now);
        }
        drop(state);
        if fate != Fate::Confirmed {
            self.history.note(
                worker,
                format!("publish of a continuation of {job}: {fate:?}"),
            );
        }
        self.changed.notify_waiters();
        fate
    }

    /// Publishes an event that the delivery `tag` has brought about.
    pub(crate) fn publish_event(&self, worker: usize, tag: u64, event: &EventMessage) -> Fate {
        let mut state = self.state();
        let fate = state.publish(worker, self.history.now());
        if fate.takes_effect()
            && let Some(unacked) = state.delivery(tag)
        {
            unacked.has_ended |= event.kind.is_final();
        }
        drop(state);
        if fate.takes_effect() {
            let body: Value = serde_json::from_slice(&event.body).unwrap();
            let reason = body["data"]["reason"].as_str().unwrap_or_default();
            let job = body["data"]["job_id"].as_str().unwrap_or_default();
            let (kind, id) = (event.event_type, &event.id[..8]);
            self.history.note(
                worker,
                format!("event {kind} {reason} of {job}, id {id}…, {fate:?}"),
            );
            let is_final = event.kind.is_final();
            self.history
                .add_event(tag, event.id.clone(), is_final, body);
        }
        fate
    }

    /// The delivery is over: what takes its place, if anything does, is confirmed.
    pub(crate) fn is_over(&self, tag: u64) {
        if let Some(unacked) = self.state().delivery(tag) {
            unacked.is_replaced = true;
        }
    }

    /// A worker has thrown away what it took in: its connection was lost before it began.
    pub(crate) fn let_go(&self, tag: u64) {
        self.state().taken_back.remove(&tag);
    }

    /// Acknowledges; false: the worker cannot know that it took effect, and mostly it did not: the message comes again.
    pub(crate) fn ack(&self, worker: usize, tag: u64) -> bool {
        let now = self.history.now();
        let mut state = self.state();
        state.taken_back.remove(&tag);
        if state.draws.ack_is_lost(now) {
            drop(state);
            self.history.note(worker, "acknowledgement lost");
            self.redeliver(|key, _| *key == tag, Duration::ZERO, Why::GivesBack);
            return false;
        }
        if state.draws.ack_vanishes(now) {
            drop(state);
            self.history.note(worker, "acknowledgement lost unnoticed");
            self.redeliver(|key, _| *key == tag, Duration::ZERO, Why::GivesBack);
            return true;
        }
        let is_reported = !state.draws.ack_is_unreported(now);
        let was_there = state.unacked.remove(&tag).is_some();
        let is_settled = state.depth() == 0;
        drop(state);
        if is_settled {
            self.settled.notify_waiters();
        }
        // It makes room for another one.
        self.changed.notify_waiters();
        was_there && is_reported
    }

    /// Whether a delivery is not settled yet.
    pub(crate) fn is_in_hand(&self, tag: u64) -> bool {
        self.state().unacked.contains_key(&tag)
    }

    /// Gives a delivery back.
    pub(crate) fn nack(&self, tag: u64) {
        self.let_go(tag);
        self.redeliver(|key, _| *key == tag, Duration::ZERO, Why::GivesBack);
    }

    /// Publishes a message to the dead letters, with the reason.
    pub(crate) fn publish_dead(&self, worker: usize, message: &Message, reason: &str) -> Fate {
        let now = self.history.now();
        let mut state = self.state();
        let fate = state.publish(worker, now);
        if fate.takes_effect() {
            state.dead.push((message.clone(), reason.to_owned()));
        }
        drop(state);
        self.history.note(
            worker,
            format!("dead letter {} {reason}: {fate:?}", message.job),
        );
        fate
    }

    /// A worker is gone: what it had in hand comes again once the broker notices.
    pub(crate) fn consumer_died(&self, worker: usize) {
        let mut state = self.state();
        let after = state.draws.faults.redelivers_after;
        state
            .taken_back
            .retain(|_, unacked| unacked.worker != worker);
        drop(state);
        self.redeliver(|_, unacked| unacked.worker == worker, after, Why::Dies);
    }

    /// The broker restarts: everything in hand comes again.
    pub(crate) fn restart(&self) {
        self.history.note(0, "the broker restarts");
        self.redeliver(|_, _| true, Duration::from_secs(1), Why::IsCutOff);
    }

    /// A worker has no connection for a while, or the broker is away from all: what is in hand comes again, and the workers live on.
    pub(crate) fn cut(&self, worker: Option<usize>, lasts: Duration) {
        let until = self.history.now() + SignedDuration::try_from(lasts).unwrap();
        let mut state = self.state();
        let notices_after = match worker {
            Some(worker) => {
                state.cut_until.insert(worker, until);
                state.draws.faults.redelivers_after
            }
            None => {
                state.away_until = until;
                lasts
            }
        };
        drop(state);
        let whose = worker.unwrap_or(0);
        self.history
            .note(whose, format!("no connection until {until}"));
        self.redeliver(
            |_, unacked| worker.is_none_or(|worker| worker == unacked.worker),
            notices_after,
            Why::IsCutOff,
        );
    }

    /// Deliveries come again, after this.
    fn redeliver(&self, which: impl Fn(&u64, &Unacked) -> bool, after: Duration, why: Why) {
        let (goes_on, dies) = (why == Why::IsCutOff, why == Why::Dies);
        let now = self.history.now();
        let at = now + SignedDuration::try_from(after).unwrap();
        let mut state = self.state();
        let tags: Vec<u64> = state
            .unacked
            .iter()
            .filter(|(tag, unacked)| which(tag, unacked))
            .map(|(tag, _)| *tag)
            .collect();
        for tag in tags {
            let Some(unacked) = state.unacked.remove(&tag) else {
                continue;
            };
            let mut message = unacked.message.clone();
            message.deliveries += 1;
            let job = message.job.clone();
            let copies = state.copies_of(&job);
            if goes_on || unacked.is_replaced || unacked.has_ended {
                copies.made += 1;
            } else {
                let counted = if dies {
                    &mut copies.of_the_dead
                } else {
                    &mut copies.given_back
                };
                *counted += 1;
            }
            if unacked.has_ended {
                copies.is_copied_at(now);
            }
            copies.cut_off += usize::from(goes_on);
            if goes_on {
                state.taken_back.insert(tag, unacked);
            }
            if message.deliveries > DELIVERY_LIMIT {
                state.dead.push((message, "delivery_limit".to_owned()));
            } else {
                state.later.push(Later {
                    at,
                    message,
                    by_dead_lettering: false,
                });
            }
            state.count_copies(&job, now);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Draws how long something takes.
    pub(crate) fn latency(&self) -> Duration {
        let now = self.history.now();
        self.state().draws.latency(now)
    }

    /// Draws how long a delivery takes to its worker.
    pub(crate) fn travel(&self) -> Duration {
        let now = self.history.now();
        self.state().draws.travel(now)
    }

    /// Draws whether a continuation takes effect before what was published with it.
    pub(crate) fn overtakes(&self) -> bool {
        let now = self.history.now();
        self.state().draws.overtakes(now)
    }

    /// Whether commands are read from the beginning of their stream each time.
    pub(crate) fn commands_come_again(&self) -> bool {
        self.state().draws.faults.commands_again
    }

    /// Messages that wait or are in hand.
    pub(crate) fn depth(&self) -> usize {
        self.state().depth()
    }

    /// What was dead-lettered, with the reason.
    pub(crate) fn dead(&self) -> Vec<String> {
        self.state()
            .dead
            .iter()
            .map(|(message, reason)| format!("{} {reason}", message.job))
            .collect()
    }

    /// By job: its copies.
    pub(crate) fn copies(&self) -> BTreeMap<String, Copies> {
        self.state().copies.clone()
    }
}

impl State {
    /// Until when a worker has no connection.
    fn cut_until(&self, worker: usize) -> Timestamp {
        let cut = self.cut_until.get(&worker).copied();
        self.away_until.max(cut.unwrap_or(Timestamp::MIN))
    }

    /// What becomes of a publish of this worker.
    fn publish(&mut self, worker: usize, now: Timestamp) -> Fate {
        if now < self.cut_until(worker) {
            return Fate::PublishLost;
        }
        self.draws.publish(now)
    }

    fn queue(&mut self, message: Message) {
        match message.queue {
            Queue::Steps => self.steps.push_back(message),
            Queue::Requests => self.requests.push_back(message),
        }
    }

    /// Moves what is due into its queue.
    fn promote(&mut self, now: Timestamp) {
        while let Some(index) = self
            .later
            .iter()
            .enumerate()
            .filter(|(_, later)| later.at <= now)
            .min_by_key(|(index, later)| (later.at, *index))
            .map(|(index, _)| index)
        {
            let Later {
                message,
                by_dead_lettering,
                ..
            } = self.later.remove(index);
            if by_dead_lettering && self.draws.is_duplicated(now) {
                let job = message.job.clone();
                self.copies_of(&job).made += 1;
                self.queue(message.clone());
                self.queue(message);
                self.count_copies(&job, now);
            } else {
                self.queue(message);
            }
        }
    }

    /// A delivery that a worker has in hand, whether or not it comes again.
    fn delivery(&mut self, tag: u64) -> Option<&mut Unacked> {
        match self.unacked.get_mut(&tag) {
            Some(unacked) => Some(unacked),
            None => self.taken_back.get_mut(&tag),
        }
    }

    fn copies_of(&mut self, job: &str) -> &mut Copies {
        self.copies.entry(job.to_owned()).or_default()
    }

    fn count_copies(&mut self, job: &str, now: Timestamp) {
        let is_job = |message: &Message| message.job == job;
        let waiting = self
            .steps
            .iter()
            .chain(&self.requests)
            .filter(|m| is_job(m));
        let later = self.later.iter().filter(|later| is_job(&later.message));
        let in_hand = self
            .unacked
            .values()
            .chain(self.taken_back.values())
            .filter(|unacked| !unacked.is_replaced && is_job(&unacked.message));
        let count = waiting.count() + later.count() + in_hand.count();
        let copies = self.copies_of(job);
        copies.most = copies.most.max(count);
        if count > 1 {
            copies.is_copied_at(now);
        }
    }

    fn depth(&self) -> usize {
        self.steps.len() + self.requests.len() + self.later.len() + self.unacked.len()
    }
}
