//! Which continuations are in hand, and which were replaced although their acknowledgement was lost.
//!
//! RabbitMQ has no atomicity between publish and acknowledgement. What this process knows helps all the same: a copy of a continuation
//! that is being worked on waits for the end of that work, and a redelivery of one whose replacement is confirmed is acknowledged without
//! running. The broker never confirms an acknowledgement: one written shortly before its connection ended may be lost as well. Copies made by a killed process are not caught here; they converge because every stage may run twice.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use tokio::sync::watch;

use crate::message::StepKey;

/// A continuation.
pub(super) type Key = StepKey;

/// Written acknowledgements are kept in view as many times as there can be unacknowledged deliveries: one connection loses no more than once,
/// and that for each prefetch that followed another shortly before its end. No more than that, as they are memory that is passed over
/// again and again.
const TIMES_IN_VIEW: usize = 4;
/// Continuations known: what one connection loses with both prefetches at their highest.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(20_000).expect("20,000 is not 0");
/// A lost acknowledgement of a request is answered by a redelivery soon, or by another worker. Later the same key may be a new life of the job.
const REQUEST_REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// The key of a later step says when its stages began, and is that of no other life: it is remembered for as long as an outage may last.
const STEP_REMEMBERED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// What became of the continuation that a copy waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    InHand,
    Replaced,
    LetGo,
}

/// What is known of a continuation that may come again.
#[derive(Debug, Default)]
struct Known {
    /// When its acknowledgement was lost, or may have been, after its replacement was confirmed.
    lost_ack: Option<Instant>,
    /// It may be there twice, under two publishes: whatever comes after the first is a copy, though it is new to the broker.
    is_doubtful: bool,
}

#[derive(Debug)]
struct Entries {
    /// A channel only where a copy waits.
    in_hand: HashMap<Key, Option<watch::Sender<Fate>>>,
    known: LruCache<Key, Known>,
    /// Acknowledgements that were written, with their generation, oldest first.
    written_acks: VecDeque<(Key, usize, Instant)>,
    /// The last generation that has ended.
    ended: Option<usize>,
}

impl Entries {
    fn lost_ack(&mut self, key: Key) {
        let known = self.known.get_or_insert_mut(key, Known::default);
        known.lost_ack = Some(Instant::now());
    }
}

/// The books of one process.
#[derive(Debug)]
pub(super) struct Ledger {
    entries: Mutex<Entries>,
    /// Most written acknowledgements kept.
    in_view: usize,
}

/// Whether a delivery may be worked on.
#[derive(Debug)]
pub(super) enum Admission {
    /// It may, as long as the claim is held.
    Claimed(Claim),
    /// A copy is in hand.
    InHand(Twin),
    /// Its replacement is confirmed.
    Replaced,
}

impl Ledger {
    /// For at most so many unacknowledged deliveries at a time.
    pub(super) fn of(unacknowledged: usize) -> Arc<Self> {
        Arc::new(Self {
            in_view: unacknowledged * TIMES_IN_VIEW,
            entries: Mutex::new(Entries {
                in_hand: HashMap::new(),
                known: LruCache::new(REMEMBERED),
                written_acks: VecDeque::new(),
                ended: None,
            }),
        })
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a delivery. Only a *re*delivery, or a copy of what may be there twice, can be dropped: the same key as a new message is the job's
    /// next life.
    pub(super) fn admit(self: &Arc<Self>, key: &Key, redelivered: bool) -> Admission {
        let mut entries = self.entries();
        if let Some(sender) = entries.in_hand.get_mut(key) {
            let sender = sender.get_or_insert_with(|| watch::Sender::new(Fate::InHand));
            return Admission::InHand(Twin {
                fate: sender.subscribe(),
            });
        }
        if let Some(known) = entries.known.peek(key)
            && (redelivered || known.is_doubtful)
            && known
                .lost_ack
                .is_some_and(|since| is_remembered(key, since.elapsed()))
        {
            return Admission::Replaced;
        }
        entries.in_hand.insert(key.clone(), None);
        Admission::Claimed(Claim {
            ledger: Arc::clone(self),
            key: key.clone(),
            fate: Fate::LetGo,
        })
    }

    /// Remembers that the replacement is confirmed and the acknowledgement lost.
    pub(super) fn remember(&self, key: Key) {
        self.entries().lost_ack(key);
    }

    /// A continuation is published again although it may have arrived. Requests are not: the same key may be the job's next life.
    pub(super) fn doubt(&self, key: Key) {
        if key.seq > 0 {
            let mut entries = self.entries();
            let known = entries.known.get_or_insert_mut(key, Known::default);
            known.is_doubtful = true;
        }
    }

    /// The acknowledgement is written; whether it arrives is not known. It may come to be written when its generation is over already.
    pub(super) fn acknowledged(&self, key: Key, generation: usize) {
        let mut entries = self.entries();
        if entries.ended.is_some_and(|ended| generation <= ended) {
            entries.lost_ack(key);
            return;
        }
        match entries.known.peek(&key) {
            // Its copy is still to come.
            Some(known) if known.is_doubtful => entries.lost_ack(key.clone()),
            Some(_) => {
                entries.known.pop(&key);
            }
            None => {}
        }
        if entries.written_acks.len() >= self.in_view {
            entries.written_acks.pop_front();
        }
        entries
            .written_acks
            .push_back((key, generation, Instant::now()));
    }

    /// A generation is over: what it wrote within this time may be lost. What it wrote before has arrived, as the connection was alive.
    pub(super) fn generation_ended(&self, generation: usize, uncertain_for: Duration) {
        let mut entries = self.entries();
        let now = Instant::now();
        entries.ended = Some(generation);
        while let Some((key, of, since)) = entries.written_acks.pop_front() {
            if of > generation {
                entries.written_acks.push_front((key, of, since));
                return;
            }
            if now.duration_since(since) <= uncertain_for {
                entries.lost_ack(key);
            }
        }
    }
}

/// Whether an acknowledgement that was lost so long ago still counts.
fn is_remembered(key: &Key, ago: Duration) -> bool {
    let limit = if key.seq == 0 {
        REQUEST_REMEMBERED_FOR
    } else {
        STEP_REMEMBERED_FOR
    };
    ago < limit
}

/// The right to work on a continuation; given up when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    ledger: Arc<Ledger>,
    key: Key,
    fate: Fate,
}

impl Claim {
    /// The continuation.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Gives the claim up after something else has taken the continuation's place: copies that wait are dropped.
    pub(super) fn replaced(mut self) {
        self.fate = Fate::Replaced;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(Some(sender)) = self.ledger.entries().in_hand.remove(&self.key) {
            sender.send_replace(self.fate);
        }
    }
}

/// A copy that waits for the one in hand.
#[derive(Debug)]
pub(super) struct Twin {
    fate: watch::Receiver<Fate>,
}

impl Twin {
    /// Waits for the end of that work; true: the continuation was replaced and this copy is superfluous.
    pub(super) async fn replaced_meanwhile(mut self) -> bool {
        match self.fate.wait_for(|fate| *fate != Fate::InHand).await {
            Ok(fate) => *fate == Fate::Replaced,
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seq: u64) -> Key {
        Key {
            job_id: crate::job::JobId::parse("job").unwrap(),
            seq,
            content: 0,
        }
    }

    #[tokio::test]
    async fn a_copy_waits_and_is_dropped_when_the_first_was_replaced() {
        let ledger = Ledger::of(10);
        let Admission::Claimed(claim) = ledger.admit(&key(1), false) else {
            panic!("nobody else has it")
        };
        let Admission::InHand(copy) = ledger.admit(&key(1), true) else {
            panic!("it is in hand")
        };
        claim.replaced();
        assert!(copy.replaced_meanwhile().await);
    }

    #[tokio::test]
    async fn a_copy_is_worked_on_when_the_first_was_let_go() {
        let ledger = Ledger::of(10);
        let Admission::Claimed(claim) = ledger.admit(&key(1), false) else {
            panic!("nobody else has it")
        };
        let Admission::InHand(copy) = ledger.admit(&key(1), true) else {
            panic!("it is in hand")
        };
        drop(claim);
        assert!(!copy.replaced_meanwhile().await);
        assert!(matches!(ledger.admit(&key(1), true), Admission::Claimed(_)));
    }

    #[test]
    fn only_the_redelivery_of_a_lost_acknowledgement_is_dropped() {
        let ledger = Ledger::of(10);
        ledger.remember(key(1));
        assert!(matches!(ledger.admit(&key(2), true), Admission::Claimed(_)));
        assert!(matches!(
            ledger.admit(&key(1), false),
            Admission::Claimed(_)
        ));
        assert!(matches!(ledger.admit(&key(1), true), Admission::Replaced));
        ledger.acknowledged(key(1), 1);
        assert!(matches!(ledger.admit(&key(1), true), Admission::Claimed(_)));
    }

    #[test]
    fn a_lost_acknowledgement_of_a_step_outlives_an_outage_and_that_of_a_request_does_not() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert!(is_remembered(&key(0), minutes(9)) && is_remembered(&key(1), minutes(9)));
        assert!(!is_remembered(&key(0), minutes(11)) && is_remembered(&key(1), minutes(11)));
        assert!(is_remembered(&key(1), minutes(23 * 60)));
        assert!(!is_remembered(&key(1), minutes(25 * 60)));
    }

    #[test]
    fn of_what_may_be_there_twice_the_second_is_dropped_whichever_it_is() {
        for is_marked in [true, false] {
            let ledger = Ledger::of(10);
            ledger.doubt(key(1));
            let Admission::Claimed(first) = ledger.admit(&key(1), !is_marked) else {
                panic!("it is the first")
            };
            ledger.acknowledged(key(1), 1);
            first.replaced();
            let second = ledger.admit(&key(1), is_marked);
            assert!(matches!(second, Admission::Replaced), "{is_marked}");
        }
        // The same request may be a new life of the job.
        let ledger = Ledger::of(10);
        ledger.doubt(key(0));
        ledger.acknowledged(key(0), 1);
        assert!(matches!(ledger.admit(&key(0), true), Admission::Claimed(_)));
    }

    #[test]
    fn all_that_one_connection_can_lose_is_remembered() {
        let most = 2 * 10_000;
        let ledger = Ledger::of(20_000);
        // Those before have arrived long ago.
        for seq in most..5 * most {
            ledger.acknowledged(key(seq), 1);
        }
        for seq in 0..most {
            ledger.acknowledged(key(seq), 1);
        }
        ledger.generation_ended(1, Duration::from_secs(60));
        for seq in 0..most {
            assert!(
                matches!(ledger.admit(&key(seq), true), Admission::Replaced),
                "{seq}"
            );
        }
    }

    #[test]
    fn an_acknowledgement_that_is_written_after_the_end_counts_as_lost() {
        let ledger = Ledger::of(10);
        ledger.remember(key(1));
        ledger.generation_ended(1, Duration::from_secs(60));
        ledger.acknowledged(key(1), 1);
        assert!(matches!(ledger.admit(&key(1), true), Admission::Replaced));
        ledger.acknowledged(key(1), 2);
        assert!(matches!(ledger.admit(&key(1), true), Admission::Claimed(_)));
    }

    #[test]
    fn an_acknowledgement_written_shortly_before_the_end_counts_as_lost() {
        let ledger = Ledger::of(10);
        ledger.acknowledged(key(1), 1);
        ledger.generation_ended(1, Duration::ZERO);
        assert!(matches!(ledger.admit(&key(1), true), Admission::Claimed(_)));
        ledger.acknowledged(key(2), 2);
        ledger.acknowledged(key(3), 3);
        ledger.generation_ended(2, Duration::from_secs(60));
        assert!(matches!(ledger.admit(&key(2), true), Admission::Replaced));
        assert!(matches!(ledger.admit(&key(3), true), Admission::Claimed(_)));
    }
}
