//! What reaches the NBI at once and per second, across all calls of the process.
//!
//! [`Limiter::turn`] waits for the class's place and moment, then for a place and a moment of the whole; places are given back when
//! the [`Turn`] is dropped. In this order a class that has used up its share waits outside and holds nothing that another class
//! could use; and as nobody who holds a place of the whole waits for one of a class, there is no deadlock. Within a class places
//! are given in the order of asking, among classes in turn (`places.rs`): a flood of polls does not keep a rule armed.
//!
//! Moments are spaced evenly, without bursts after a quiet time: nothing is known of the NBI's own limits, and even spacing is what
//! every server takes best. A class's moment is taken before the place of the whole, so where the whole is full its calls may
//! come closer together afterwards; the average holds.
//!
//! The number of places of the whole follows what the NBI bears, if that is wanted (`pace.rs`). Time is tokio's, so that tests
//! run in virtual time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

use super::budget::{Budget, Budgets, CallClass};
use super::pace::{Pace, Seen};
use super::places::{Place, Places};

/// The longest spacing: a rate below one request an hour is taken as one an hour.
const SPACING_MAX: Duration = Duration::from_secs(3600);

/// Bounds concurrency and rate.
#[derive(Debug)]
pub struct Limiter {
    classes: [Share; CallClass::COUNT],
    places: Arc<Places>,
    rate: Option<Rate>,
    max_concurrency: usize,
    pace: Option<Mutex<Pace>>,
}

/// What one class may take.
#[derive(Debug)]
struct Share {
    places: Option<Semaphore>,
    rate: Option<Rate>,
}

/// Evenly spaced moments.
#[derive(Debug)]
struct Rate {
    spacing: Duration,
    /// The next free moment; in the past after a quiet time.
    next: Mutex<Option<Instant>>,
}

/// A place at the NBI; given back when dropped.
#[derive(Debug)]
#[must_use = "the place is given back when this is dropped"]
pub struct Turn<'a> {
    place: Option<Place>,
    _share: Option<SemaphorePermit<'a>>,
}

impl Limiter {
    /// At most `max_concurrency` (at least 1) at once, and `requests_per_second` if it is a number above zero; within that, of
    /// each class what `budgets` say. With `is_adaptive`, `max_concurrency` is the most that [`Limiter::learn`] may allow.
    #[must_use]
    pub fn new(
        max_concurrency: usize,
        requests_per_second: Option<f64>,
        budgets: &Budgets,
        is_adaptive: bool,
    ) -> Self {
        let max_concurrency = max_concurrency.clamp(1, Semaphore::MAX_PERMITS);
        let pace = is_adaptive.then(|| Pace::new(max_concurrency, Instant::now()));
        let begins_with = pace.as_ref().map_or(max_concurrency, Pace::limit);
        Self {
            // In the order of `CallClass::index`.
            classes: [
                Share::new(&budgets.writes),
                Share::new(&budgets.connection_requests),
                Share::new(&budgets.reads),
            ],
            places: Places::new(begins_with),
            rate: Rate::new(requests_per_second),
            max_concurrency,
            pace: pace.map(Mutex::new),
        }
    }

    /// How many requests may be under way now.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.pace.as_ref().map_or(self.max_concurrency, |pace| {
            pace.lock().unwrap_or_else(PoisonError::into_inner).limit()
        })
    }

    /// Waits for the class's turn, then for one of the whole.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives all places back; a moment that was already taken passes unused.
    pub async fn turn(&self, class: CallClass) -> Turn<'_> {
        let share = &self.classes[class.index()];
        let share_place = match &share.places {
            // The semaphore is never closed, so there is always a place in the end.
            Some(places) => places.acquire().await.ok(),
            None => None,
        };
        if let Some(rate) = &share.rate {
            sleep_until(rate.take()).await;
        }
        let place = self.places.take(class).await;
        if let Some(rate) = &self.rate {
            sleep_until(rate.take()).await;
        }
        Turn {
            place,
            _share: share_place,
        }
    }

    /// Takes note of what a request that ended at `now` showed of the NBI's load, and says the limit if that changed it.
    pub fn learn(&self, seen: &Seen, now: Instant) -> Option<usize> {
        let mut pace = self
            .pace
            .as_ref()?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let limit = pace.record(seen, now)?;
        // Still under the lock, so that of two changes the later one stays.
        self.places.set_limit(limit);
        Some(limit)
    }
}

impl Turn<'_> {
    /// Requests under way when the place was given, this one among them.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.place.as_ref().map_or(1, |place| place.under_way)
    }
}

impl Share {
    fn new(budget: &Budget) -> Self {
        let places = budget.max_concurrency.filter(|max| *max > 0);
        Self {
            places: places.map(|max| Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
            rate: Rate::new(budget.per_second),
        }
    }
}

impl Rate {
    /// `None` unless it is a number above zero.
    fn new(per_second: Option<f64>) -> Option<Self> {
        let rate = per_second.filter(|rate| rate.is_finite() && *rate > 0.0)?;
        let spacing = Duration::try_from_secs_f64(rate.recip()).unwrap_or(SPACING_MAX);
        Some(Self {
            spacing: spacing.min(SPACING_MAX),
            next: Mutex::new(None),
        })
    }

    /// Takes the next moment.
    fn take(&self) -> Instant {
        let now = Instant::now();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let moment = next.map_or(now, |next| next.max(now));
        *next = Some(moment + self.spacing);
        moment
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;

    fn whole(max_concurrency: usize, rate: Option<f64>) -> Limiter {
        Limiter::new(max_concurrency, rate, &Budgets::default(), false)
    }

    fn at_once(max_concurrency: usize) -> Budget {
        Budget {
            max_concurrency: Some(max_concurrency),
            ..Budget::default()
        }
    }

    /// Starts this many calls of a class, each holding its turn for a second.
    fn flood(
        tasks: &mut JoinSet<()>,
        limiter: &Arc<Limiter>,
        class: CallClass,
        number: usize,
        done: &Arc<AtomicUsize>,
    ) {
        for _ in 0..number {
            let (limiter, done) = (limiter.clone(), done.clone());
            tasks.spawn(async move {
                let _turn = limiter.turn(class).await;
                sleep(Duration::from_secs(1)).await;
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_limit_are_under_way_at_once() {
        let limiter = Arc::new(whole(3, None));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..9 {
            let (limiter, now, most) = (limiter.clone(), now.clone(), most.clone());
            tasks.spawn(async move {
                let _turn = limiter.turn(CallClass::Read).await;
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                sleep(Duration::from_secs(1)).await;
                now.fetch_sub(1, Ordering::SeqCst);
            });
        }
        tasks.join_all().await;
        assert_eq!(most.load(Ordering::SeqCst), 3);
        assert_eq!(begun.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_spaced_evenly_without_a_burst_after_a_quiet_time() {
        let limiter = whole(10, Some(4.0));
        let begun = Instant::now();
        let mut moments = Vec::new();
        for index in 0..6 {
            if index == 3 {
                sleep(Duration::from_secs(10)).await;
            }
            drop(limiter.turn(CallClass::Read).await);
            moments.push(begun.elapsed().as_millis());
        }
        // The clock of tokio's timers has a millisecond's grain.
        let expected = [0, 250, 500, 10_500, 10_750, 11_000];
        assert!(
            moments
                .iter()
                .zip(expected)
                .all(|(at, wanted)| at.abs_diff(wanted) <= 3),
            "{moments:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_that_is_no_rate_does_not_block() {
        for rate in [
            None,
            Some(0.0),
            Some(-1.0),
            Some(f64::NAN),
            Some(f64::INFINITY),
        ] {
            let limiter = whole(0, rate);
            let begun = Instant::now();
            for _ in 0..3 {
                drop(limiter.turn(CallClass::Read).await);
            }
            assert_eq!(begun.elapsed(), Duration::ZERO, "{rate:?}");
        }
        let limiter = whole(1, Some(1e-300));
        drop(limiter.turn(CallClass::Read).await);
        let begun = Instant::now();
        drop(limiter.turn(CallClass::Read).await);
        assert_eq!(begun.elapsed().as_secs(), 3600);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_gives_up_gives_its_place_back() {
        let limiter = whole(1, None);
        let turn = limiter.turn(CallClass::Read).await;
        assert!(
            tokio::time::timeout(Duration::from_secs(1), limiter.turn(CallClass::Read))
                .await
                .is_err()
        );
        drop(turn);
        assert!(
            tokio::time::timeout(Duration::from_secs(1), limiter.turn(CallClass::Read))
                .await
                .is_ok()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_polls_does_not_keep_writes_waiting() {
        let limiter = Arc::new(whole(4, None));
        let mut tasks = JoinSet::new();
        let (polls, writes) = (Arc::default(), Arc::default());
        flood(&mut tasks, &limiter, CallClass::Read, 10_000, &polls);
        sleep(Duration::from_millis(500)).await;
        let begun = Instant::now();
        flood(&mut tasks, &limiter, CallClass::Write, 8, &writes);
        while writes.load(Ordering::SeqCst) < 8 {
            sleep(Duration::from_millis(10)).await;
        }
        // Every second place is theirs: eight writes are through after four rounds and the one under way.
        assert!(
            begun.elapsed() <= Duration::from_millis(4_600),
            "{:?}",
            begun.elapsed()
        );
        // Nor do writes starve polls.
        assert!(polls.load(Ordering::SeqCst) >= 4 + 8, "{polls:?}");
        tasks.shutdown().await;
        assert!(
            tokio::time::timeout(Duration::from_secs(1), limiter.turn(CallClass::Read))
                .await
                .is_ok()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_class_that_used_up_its_share_leaves_the_rest_to_the_others() {
        let budgets = Budgets {
            connection_requests: at_once(2),
            reads: Budget {
                per_second: Some(1.0),
                ..Budget::default()
            },
            ..Budgets::default()
        };
        let limiter = Arc::new(Limiter::new(4, None, &budgets, false));
        let mut tasks = JoinSet::new();
        let (wakes, polls, writes) = (Arc::default(), Arc::default(), Arc::default());
        flood(
            &mut tasks,
            &limiter,
            CallClass::ConnectionRequest,
            100,
            &wakes,
        );
        flood(&mut tasks, &limiter, CallClass::Read, 100, &polls);
        sleep(Duration::from_millis(100)).await;
        flood(&mut tasks, &limiter, CallClass::Write, 10, &writes);
        sleep(Duration::from_millis(10_050)).await;
        // At most two wake-ups at once and one poll a second; the writes get through beside them.
        for (done, least, most) in [(&wakes, 14, 20), (&polls, 9, 10), (&writes, 10, 10)] {
            let done: usize = AtomicUsize::load(done, Ordering::SeqCst);
            assert!(
                (least..=most).contains(&done),
                "{wakes:?} {polls:?} {writes:?}"
            );
        }
        tasks.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_above_the_whole_is_bounded_by_the_whole() {
        let budgets = Budgets {
            reads: at_once(100),
            writes: at_once(0),
            ..Budgets::default()
        };
        let limiter = Arc::new(Limiter::new(3, None, &budgets, false));
        let (mut tasks, done) = (JoinSet::new(), Arc::default());
        flood(&mut tasks, &limiter, CallClass::Read, 9, &done);
        flood(&mut tasks, &limiter, CallClass::Write, 9, &done);
        let begun = Instant::now();
        tasks.join_all().await;
        assert_eq!(begun.elapsed().as_secs(), 6);
    }
}
