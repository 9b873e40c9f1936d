//! The places at the NBI: how many requests may be under way, and whose turn it is when all are taken.
//!
//! Two things a semaphore cannot do: the number of places changes while requests wait (`pace.rs`), and a free place goes to the
//! budgets of calls (writes, connection requests, reads) in turn, to the longest waiting call of each; among writes, to those that
//! put a rule away before those that arm one, and among reads, to those that stand right before either. So a budget waits for at most two calls of others per call of its own ahead of it,
//! however many calls of the others wait.
//!
//! Taking places away interrupts nothing: requests under way end, and the next ones find fewer places.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::budget::CallClass;

/// The classes of each budget, the more urgent first.
const BUDGETS: [&[CallClass]; 3] = [
    &[CallClass::PutAway, CallClass::Arm],
    &[CallClass::ConnectionRequest],
    &[
        CallClass::ReadToPutAway,
        CallClass::ReadToArm,
        CallClass::Read,
    ],
];

/// A changing number of places, given to the budgets in turn.
#[derive(Debug)]
pub(crate) struct Places {
    room: Mutex<Room>,
}

#[derive(Debug)]
struct Room {
    limit: usize,
    taken: usize,
    waiting: [VecDeque<oneshot::Sender<Place>>; CallClass::COUNT],
    /// The budget that is looked at first when a place is free.
    next: usize,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    /// How many places were taken when this one was, itself among them.
    pub(crate) under_way: usize,
    is_taken: bool,
}

impl Places {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            room: Mutex::new(Room {
                limit: limit.max(1),
                taken: 0,
                waiting: Default::default(),
                next: 0,
            }),
        })
    }

    /// Takes a place if one is free and nobody waits.
    pub(crate) fn take_now(self: &Arc<Self>, class: CallClass) -> Option<Place> {
        let mut room = self.lock();
        if room.taken >= room.limit || !room.waiting.iter().all(VecDeque::is_empty) {
            return None;
        }
        room.next = (budget_of(class) + 1) % BUDGETS.len();
        room.taken += 1;
        Some(self.place(room.taken))
    }

    /// Waits for a place.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the place back, or leaves the queue.
    pub(crate) async fn take(self: &Arc<Self>, class: CallClass) -> Option<Place> {
        if let Some(place) = self.take_now(class) {
            return Some(place);
        }
        let receiver = {
            let (sender, receiver) = oneshot::channel();
            let waiting = &mut self.lock().waiting[class.index()];
            // Who came first gives up first: they would pile up while others go before them.
            while waiting.front().is_some_and(oneshot::Sender::is_closed) {
                waiting.pop_front();
            }
            waiting.push_back(sender);
            receiver
        };
        self.hand_out();
        // The sender is dropped unused only with the places themselves.
        receiver.await.ok()
    }

    /// Changes the number of places, at least one.
    pub(crate) fn set_limit(self: &Arc<Self>, limit: usize) {
        self.lock().limit = limit.max(1);
        self.hand_out();
    }

    /// Gives free places to those who wait.
    fn hand_out(self: &Arc<Self>) {
        loop {
            let Some((sender, under_way)) = self.lock().next_waiting() else {
                return;
            };
            let place = self.place(under_way);
            // Outside the lock, as whoever gave up in between makes the place come back here.
            if let Err(mut refused) = sender.send(place) {
                refused.is_taken = false;
                self.lock().taken -= 1;
            }
        }
    }

    fn place(self: &Arc<Self>, under_way: usize) -> Place {
        Place {
            places: Arc::clone(self),
            under_way,
            is_taken: true,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Takes a place for whoever's turn it is; `None` if no place is free or nobody waits.
    fn next_waiting(&mut self) -> Option<(oneshot::Sender<Place>, usize)> {
        if self.taken >= self.limit {
            return None;
        }
        for offset in 0..BUDGETS.len() {
            let budget = (self.next + offset) % BUDGETS.len();
            for class in BUDGETS[budget] {
                while let Some(sender) = self.waiting[class.index()].pop_front() {
                    if sender.is_closed() {
                        continue;
                    }
                    self.next = (budget + 1) % BUDGETS.len();
                    self.taken += 1;
                    return Some((sender, self.taken));
                }
            }
        }
        None
    }
}

/// The number of a class's budget.
fn budget_of(class: CallClass) -> usize {
    match class {
        CallClass::PutAway | CallClass::Arm => 0,
        CallClass::ConnectionRequest => 1,
        CallClass::ReadToPutAway | CallClass::ReadToArm | CallClass::Read => 2,
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_taken {
            self.places.lock().taken -= 1;
            self.places.hand_out();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(10);

    async fn is_full(places: &Arc<Places>) -> bool {
        timeout(SOON, places.take(CallClass::Read)).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_places_grows_and_shrinks_under_way() {
        let places = Places::new(2);
        let first = places.take(CallClass::Read).await.unwrap();
        let second = places.take(CallClass::Read).await.unwrap();
        assert_eq!((first.under_way, second.under_way), (1, 2));
        assert!(is_full(&places).await);

        places.set_limit(3);
        let third = places.take(CallClass::Read).await.unwrap();
        places.set_limit(1);
        for place in [first, second] {
            drop(place);
            assert!(
                is_full(&places).await,
                "shrinking takes effect as places come back"
            );
        }
        drop(third);
        assert!(!is_full(&places).await);

        // No place for nobody is no place for ever.
        places.set_limit(0);
        assert!(!is_full(&places).await);
    }

    #[tokio::test(start_paused = true)]
    async fn more_places_wake_those_who_wait() {
        let places = Places::new(1);
        let _first = places.take(CallClass::Read).await.unwrap();
        let (woken, ()) = tokio::join!(timeout(SOON, places.take(CallClass::Arm)), async {
            tokio::task::yield_now().await;
            places.set_limit(2);
        });
        assert!(woken.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_holds_nothing_and_blocks_nobody() {
        let places = Places::new(1);
        let first = places.take(CallClass::Read).await.unwrap();
        for _ in 0..10_000 {
            assert!(
                timeout(Duration::ZERO, places.take(CallClass::Arm))
                    .await
                    .is_err()
            );
        }
        // One gives up after the place was given to it and before it looked.
        let mut late = Box::pin(places.take(CallClass::Arm));
        assert!(timeout(Duration::ZERO, &mut late).await.is_err());
        drop(first);
        drop(late);
        assert!(!is_full(&places).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_puts_away_goes_before_what_arms_and_the_others_have_their_turns() {
        let places = Places::new(1);
        let held = places.take(CallClass::Read).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        let classes = [
            CallClass::Arm,
            CallClass::Read,
            CallClass::ReadToArm,
            CallClass::ReadToPutAway,
            CallClass::PutAway,
        ];
        for class in [classes, classes].concat() {
            let (places, order) = (places.clone(), order.clone());
            tasks.spawn(async move {
                let _place = places.take(class).await;
                order.lock().unwrap().push(class);
            });
            tokio::task::yield_now().await;
        }
        drop(held);
        tasks.join_all().await;
        let [arm, read, read_to_arm, read_to_put_away, put_away] = classes;
        assert_eq!(
            *order.lock().unwrap(),
            [
                put_away,
                read_to_put_away,
                put_away,
                read_to_put_away,
                arm,
                read_to_arm,
                arm,
                read_to_arm,
                read,
                read
            ]
        );
    }
}
