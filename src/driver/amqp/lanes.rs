//! A few channels, through which everything but replies is published in batches.
//!
//! Callers put their groups of messages into one queue. A lane, which is a task with a channel of its own, takes all groups that wait, writes
//! them without waiting in between, awaits all their confirms, and judges them together (`confirms.rs`) before it takes more. So a group is
//! taken at once while few are under way, and batches form by themselves when there are many: the broker then confirms many messages at once.
//!
//! A caller that gives up harms nobody: its lane goes on. A channel is never closed with something on it that is not confirmed, as closing
//! overtakes messages that are not yet written, and the broker ends the connection over a message on a closed channel. So a lane keeps its
//! channel to the end of its task, which is stopped after the connection is closed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::FutureExt;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use super::confirms;
use super::connection::guarded;
use super::outgoing::Outgoing;
use super::publish::PublishError;
use super::wire::{Open, Wire};

/// Channels: batches under way at a time.
const LANES: usize = 3;
/// A batch grows to this many messages…
const BATCH_MESSAGES: usize = 256;
/// …or bytes of bodies; one group may be larger.
const BATCH_BYTES: usize = 1 << 20;

type Answers = Vec<Result<(), PublishError>>;

/// The lanes of one generation; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Lanes {
    wire: Arc<Wire>,
    queue: Arc<Queue>,
    _tasks: JoinSet<()>,
}

impl Lanes {
    /// Begins them. Each opens its channel when it is needed.
    pub(super) fn begin(wire: Arc<Wire>) -> Self {
        let queue = Arc::new(Queue::default());
        let mut tasks = JoinSet::new();
        for _ in 0..LANES {
            let lane = Lane {
                wire: Arc::clone(&wire),
                queue: Arc::clone(&queue),
                open: None,
                was_refused: false,
            };
            tasks.spawn(guarded(Arc::clone(&wire.ending), "publishing", lane.run()));
        }
        Self {
            wire,
            queue,
            _tasks: tasks,
        }
    }

    /// Publishes all of a group that are no replies, in order. One answer each. What is published `alone` shares its batch with nobody.
    pub(super) async fn publish(&self, messages: Arc<Vec<Outgoing>>, alone: bool) -> Answers {
        let (answer, answered) = oneshot::channel();
        let group = Group {
            messages,
            alone,
            answer,
        };
        let count = group.messages().count();
        if count == 0 {
            return Vec::new();
        }
        self.queue.put(group);
        let answered = async {
            match answered.await {
                Ok(answers) => answers,
                // The lane is gone, and ends the generation.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answers = answered => answers,
            () = self.wire.ending.ended() => vec![Err(PublishError::Lost(self.wire.ending.reason())); count],
        }
    }
}

/// Messages that are answered together.
#[derive(Debug)]
struct Group {
    messages: Arc<Vec<Outgoing>>,
    /// Its confirm did not come before, perhaps of one of these: it must not keep those of others from counting again and again.
    alone: bool,
    answer: oneshot::Sender<Answers>,
}

impl Group {
    fn messages(&self) -> impl Iterator<Item = &Outgoing> {
        self.messages.iter().filter(|message| !message.is_reply())
    }
}

/// The groups that wait for a lane.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<VecDeque<Group>>,
    news: Notify,
}

impl Queue {
    fn put(&self, group: Group) {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(group);
        self.news.notify_one();
    }

    /// The groups of the next batch, at least one.
    async fn take(&self) -> Vec<Group> {
        loop {
            let batch = self.waiting_now();
            if !batch.is_empty() {
                return batch;
            }
            self.news.notified().await;
        }
    }

    fn waiting_now(&self) -> Vec<Group> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut batch, mut count, mut bytes) = (Vec::new(), 0, 0);
        while let Some(group) = waiting.pop_front() {
            // Nobody waits for it any more.
            if group.answer.is_closed() {
                continue;
            }
            count += group.messages().count();
            bytes += group.messages().map(|it| it.body.len()).sum::<usize>();
            let is_full = group.alone || count > BATCH_MESSAGES || bytes > BATCH_BYTES;
            if is_full && !batch.is_empty() {
                waiting.push_front(group);
                break;
            }
            batch.push(group);
            if is_full {
                break;
            }
        }
        if !waiting.is_empty() {
            self.news.notify_one();
        }
        batch
    }
}

/// One task, and its channel.
struct Lane {
    wire: Arc<Wire>,
    queue: Arc<Queue>,
    open: Option<Open>,
    /// A channel that was refused something is not used again when it is old: a broker whose queue is no longer limited goes on refusing the
    /// channels that it refused before (seen on 3.10), and only a new one asks again.
    was_refused: bool,
}

impl Lane {
    async fn run(mut self) {
        loop {
            let batch = self.queue.take().await;
            // Whoever waits for an answer sees the end as well.
            if self.wire.ending.is_over() {
                continue;
            }
            let messages: Vec<_> = batch.iter().flat_map(Group::messages).collect();
            let mut answers = match self.publish(&messages).await {
                Ok(answers) => answers,
                Err(error) => vec![Err(error); messages.len()],
            }
            .into_iter();
            let counts: Vec<_> = batch.iter().map(|it| it.messages().count()).collect();
            for (group, count) in batch.into_iter().zip(counts) {
                // Whoever asked may have gone.
                drop(group.answer.send(answers.by_ref().take(count).collect()));
            }
        }
    }

    async fn publish(&mut self, messages: &[&Outgoing]) -> Result<Answers, PublishError> {
        let wire = &self.wire;
        let is_usable = |open: &Open| !(self.was_refused && wire.is_old(open));
        let open = match self.open.take().filter(is_usable) {
            Some(open) => open,
            None => {
                self.was_refused = false;
                wire.open().await.inspect_err(|error| wire.ends_by(error))?
            }
        };
        let begun = Instant::now();
        let written: Vec<Result<_, PublishError>> = messages
            .iter()
            .map(|message| {
                let write = wire.write(&open.channel, message)?;
                let mut confirmed = Box::pin(async { write.await?.await });
                // The first look writes it. Nobody need be woken yet.
                let early = (&mut confirmed).now_or_never();
                Ok(async move {
                    match early {
                        Some(outcome) => outcome,
                        None => confirmed.await,
                    }
                })
            })
            .collect();
        let mut heard = Vec::with_capacity(messages.len());
        let mut took = Vec::with_capacity(messages.len());
        let hearing = async {
            // One after the other: what is not awaited yet has its answer kept, and wakes nobody.
            for confirmed in written {
                heard.push(match confirmed {
                    Ok(confirmed) => confirms::heard(confirmed.await?),
                    Err(error) => Err(error),
                });
                took.push(begun.elapsed());
            }
            Ok(())
        };
        if let Err(error) = wire.patiently(wire.timeout, hearing).await {
            wire.ends_by(&error);
            // Which of the others are confirmed makes no difference.
            heard.resize(messages.len(), Err(error));
            took.resize(messages.len(), begun.elapsed());
        }
        self.was_refused |= heard
            .iter()
            .any(|heard| matches!(heard, Ok(heard) if !heard.is_ack));
        self.open = Some(open);
        let answers = confirms::judge(heard, |number| self.wire.known(messages[number]));
        for ((message, answer), took) in messages.iter().zip(&answers).zip(took) {
            if answer.is_ok() {
                self.wire.telemetry.published(message.target.label(), took);
            }
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::super::outgoing::Target;
    use super::*;
    use lapin::BasicProperties;

    /// Puts groups of so many messages of so many bytes, those of which are alone; the receivers of their answers.
    fn put(queue: &Queue, groups: &[(usize, usize, bool)]) -> Vec<oneshot::Receiver<Answers>> {
        let put = groups.iter().map(|(count, bytes, alone)| {
            let message = Outgoing {
                target: Target::Steps,
                properties: BasicProperties::default(),
                body: vec![0; *bytes],
            };
            let (answer, answered) = oneshot::channel();
            queue.put(Group {
                messages: Arc::new(vec![message; *count]),
                alone: *alone,
                answer,
            });
            answered
        });
        put.collect()
    }

    /// How many messages the groups of the next batches have.
    fn batches(queue: &Queue) -> Vec<Vec<usize>> {
        let next = || Some(queue.waiting_now()).filter(|batch| !batch.is_empty());
        let sizes = |batch: Vec<Group>| batch.iter().map(|it| it.messages.len()).collect();
        std::iter::from_fn(next).map(sizes).collect()
    }

    #[test]
    fn a_batch_is_all_that_waits_up_to_its_bounds_and_a_group_is_never_cut() {
        let queue = Queue::default();
        let _answers = put(
            &queue,
            &[
                (2, 1, false),
                (250, 1, false),
                (5, 1, false),
                (300, 1, false),
                (1, 1, false),
            ],
        );
        assert_eq!(batches(&queue), [vec![2, 250], vec![5], vec![300], vec![1]]);
        let half = BATCH_BYTES / 2;
        let _answers = put(&queue, &[(1, half, false), (2, half, false), (3, 1, false)]);
        assert_eq!(batches(&queue), [vec![1], vec![2], vec![3]]);
    }

    #[test]
    fn what_was_in_doubt_shares_its_batch_with_nobody() {
        let queue = Queue::default();
        let _answers = put(
            &queue,
            &[
                (1, 1, false),
                (2, 1, true),
                (3, 1, true),
                (4, 1, false),
                (5, 1, false),
            ],
        );
        assert_eq!(batches(&queue), [vec![1], vec![2], vec![3], vec![4, 5]]);
    }

    #[test]
    fn a_group_that_nobody_waits_for_is_left_out() {
        let queue = Queue::default();
        let mut answers = put(&queue, &[(1, 1, false), (2, 1, false), (3, 1, false)]);
        drop(answers.remove(1));
        assert_eq!(batches(&queue), [vec![1, 3]]);
    }
}
