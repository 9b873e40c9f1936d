//! What reaches the NBI at once and per second, across all calls of the process.
//!
//! [`Limiter::turn`] waits in two lines: that of the class's budget, then that of the whole. In each it waits for its turn, for a
//! place, then for its moment; places are given back when the [`Turn`] is dropped. In this order a budget that has used up its share
//! waits outside and holds nothing that another one could use; and as nobody who is in the line of the whole waits for one of a
//! budget, there is no deadlock. Whose turn it is says `places.rs`: budgets in turn, so that a flood of polls does not keep a rule armed;
//! among writes, those that put a rule away first, and among reads, those right before such a write.
//!
//! Nobody waits for long ([`wait_max`]): what a call does was decided by what was seen and ordered before it waited. Who waited in
//! vain is told when to come again, one after the other as the rate allows, so that the rate is used and nobody asks in vain
//! all the time.
//!
//! Moments are spaced evenly, without bursts after a quiet time: nothing is known of the NBI's own limits, and even spacing is what
//! every server takes best. Only one call of a line waits for a moment that is not near, so that whoever comes and is more urgent
//! has the next one. A budget's moment is taken before the line of the whole, so where the whole is full its calls may come closer
//! together afterwards; the average holds.
//!
//! The number of places of the whole follows what the NBI bears, if that is wanted (`pace.rs`). Time is tokio's, so that tests
//! run in virtual time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::{Instant, sleep_until, timeout};

use super::budget::{Budget, Budgets, CallClass};
use super::pace::{Pace, Seen};
use super::places::{Place, Places};
use crate::job::NbiFailure;

/// The longest spacing: a rate below one request an hour is taken as one an hour.
const SPACING_MAX: Duration = Duration::from_secs(3600);

/// How long a call that may have a device begin waits, and the last look before a rule is armed: so late may it be sent after an order to stop, after the deadline, or after
/// another worker has done the same, and so old may be what was seen before. A worker that only has a burst gets through it in that time.
const BEGIN_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long all others wait. A delivery makes some of them one after the other, and the broker takes a delivery back after
/// half an hour.
const OTHER_WAIT_MAX: Duration = Duration::from_secs(180);

/// When who waited in vain comes again, at the earliest and at the latest. Its rule may be armed meanwhile, or an order may wait for it.
const REST_MIN: Duration = Duration::from_secs(10);
const REST_MAX: Duration = Duration::from_secs(120);

/// Who waits for a moment that is nearer lets the next one take its own: timers are coarse, and a high rate would not be reached.
const NEAR: Duration = Duration::from_millis(100);

/// How long a call waits in lines for its turn; its own moment (one divided by the rate, if there is a rate) may be as far away again.
#[must_use]
pub fn wait_max(class: CallClass) -> Duration {
    if class.may_begin() {
        BEGIN_WAIT_MAX
    } else {
        OTHER_WAIT_MAX
    }
}

/// Bounds concurrency and rate.
#[derive(Debug)]
pub struct Limiter {
    writes: Line,
    connection_requests: Line,
    reads: Line,
    whole: Line,
    max_concurrency: usize,
    pace: Option<Mutex<Pace>>,
}

/// What is waited for: a place and a moment, if either is bounded.
#[derive(Debug)]
struct Line {
    places: Option<Arc<Places>>,
    rate: Option<Rate>,
}

/// Evenly spaced moments.
#[derive(Debug)]
struct Rate {
    spacing: Duration,
    /// One place, for who waits for the next moment.
    front: Arc<Places>,
    moments: Mutex<Moments>,
}

#[derive(Debug, Default)]
struct Moments {
    /// The next free moment; in the past after a quiet time.
    next: Option<Instant>,
    /// When the last one comes again of those who waited in vain; in the past if there was none for a while.
    booked: Option<Instant>,
}

/// A place at the NBI; given back when dropped.
#[derive(Debug)]
#[must_use = "the place is given back when this is dropped"]
pub struct Turn {
    place: Option<Place>,
    _share: Option<Place>,
}

/// It waited in vain; nothing may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdue {
    /// When asking again makes sense.
    pub rest: Duration,
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
        let max_concurrency = max_concurrency.max(1);
        let pace = is_adaptive.then(|| Pace::new(max_concurrency, Instant::now()));
        let begins_with = pace.as_ref().map_or(max_concurrency, Pace::limit);
        Self {
            writes: Line::of(&budgets.writes),
            connection_requests: Line::of(&budgets.connection_requests),
            reads: Line::of(&budgets.reads),
            whole: Line {
                places: Some(Places::new(begins_with)),
                rate: Rate::new(requests_per_second),
            },
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

    /// Waits for the turn of the class's budget, then for one of the whole; [`wait_max`] at most, and for its own moments.
    ///
    /// # Errors
    ///
    /// When the wait was too long; no moment of the line where it waited in vain is used up.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives all places back; a moment that was already taken passes unused.
    pub async fn turn(&self, class: CallClass) -> Result<Turn, Overdue> {
        let mut patience = wait_max(class);
        let share = self.share(class).pass(class, &mut patience).await?;
        let place = self.whole.pass(class, &mut patience).await?;
        Ok(Turn {
            place,
            _share: share,
        })
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
        if let Some(places) = &self.whole.places {
            places.set_limit(limit);
        }
        Some(limit)
    }

    fn share(&self, class: CallClass) -> &Line {
        match class {
            CallClass::PutAway | CallClass::Arm => &self.writes,
            CallClass::ConnectionRequest => &self.connection_requests,
            CallClass::ReadToPutAway | CallClass::ReadToArm | CallClass::Read => &self.reads,
        }
    }
}

impl Turn {
    /// Requests under way when the place was given, this one among them.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.place.as_ref().map_or(1, |place| place.under_way)
    }
}

impl Overdue {
    /// What the core is told; the circuit has no part in it.
    pub(crate) fn failure(self, operation: &'static str, class: CallClass) -> NbiFailure {
        let seconds = wait_max(class).as_secs();
        let message = format!(
            "{operation}: not sent, as it would have waited longer than {seconds} s for its turn: the limits of calls to the NBI let through less than is wanted"
        );
        let rest = SignedDuration::try_from(self.rest).unwrap_or(SignedDuration::MAX);
        NbiFailure::NotSent {
            message,
            retry_after: rest,
        }
    }
}

impl Line {
    fn of(budget: &Budget) -> Self {
        let places = budget.max_concurrency.filter(|max| *max > 0);
        Self {
            places: places.map(Places::new),
            rate: Rate::new(budget.per_second),
        }
    }

    /// Waits for its turn, a place and a moment. The moment does not count as waiting, but must not be further away than the class
    /// may wait.
    async fn pass(
        &self,
        class: CallClass,
        patience: &mut Duration,
    ) -> Result<Option<Place>, Overdue> {
        let front = match &self.rate {
            Some(rate) => Some(self.take(&rate.front, class, patience).await?),
            None => None,
        };
        let place = match &self.places {
            Some(places) => Some(self.take(places, class, patience).await?),
            None => None,
        };
        if let Some(rate) = &self.rate {
            // Whoever was before it has left when its own moment was near.
            let spacing = rate.spacing.min(OTHER_WAIT_MAX);
            let moment = rate.take(wait_max(class).max(spacing) + NEAR);
            let moment = moment.ok_or_else(|| self.overdue())?;
            if moment.saturating_duration_since(Instant::now()) > NEAR {
                sleep_until(moment - NEAR).await;
            }
            drop(front);
            sleep_until(moment).await;
        }
        Ok(place)
    }

    async fn take(
        &self,
        places: &Arc<Places>,
        class: CallClass,
        patience: &mut Duration,
    ) -> Result<Place, Overdue> {
        if let Some(place) = places.take_now(class) {
            return Ok(place);
        }
        let begun = Instant::now();
        let taken = timeout(*patience, places.take(class)).await;
        *patience = patience.saturating_sub(begun.elapsed());
        // There is always a place in the end, as whoever waits keeps the places themselves.
        taken.ok().flatten().ok_or_else(|| self.overdue())
    }

    fn overdue(&self) -> Overdue {
        Overdue {
            rest: self.rate.as_ref().map_or(REST_MIN, Rate::book),
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
            front: Places::new(1),
            moments: Mutex::default(),
        })
    }

    /// Takes the next moment, unless it is further away than that.
    fn take(&self, at_most: Duration) -> Option<Instant> {
        let now = Instant::now();
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let moment = moments.next.map_or(now, |next| next.max(now));
        if moment > now + at_most {
            return None;
        }
        moments.next = Some(moment + self.spacing);
        Some(moment)
    }

    /// How long who waited in vain rests: one after the other comes again, as far apart as the moments.
    fn book(&self) -> Duration {
        let now = Instant::now();
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now + REST_MIN;
        let booked = moments.booked.map_or(earliest, |last| {
            (last + self.spacing).clamp(earliest, now + REST_MAX)
        });
        moments.booked = Some(booked);
        booked - now
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
                let Ok(_turn) = limiter.turn(class).await else {
                    return;
                };
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
                let _turn = limiter.turn(CallClass::Read).await.unwrap();
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
            drop(limiter.turn(CallClass::Read).await.unwrap());
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
                drop(limiter.turn(CallClass::Read).await.unwrap());
            }
            assert_eq!(begun.elapsed(), Duration::ZERO, "{rate:?}");
        }
        let limiter = whole(1, Some(1e-300));
        drop(limiter.turn(CallClass::Read).await.unwrap());
        let begun = Instant::now();
        assert!(limiter.turn(CallClass::Read).await.is_err());
        sleep(Duration::from_secs(3500)).await;
        drop(limiter.turn(CallClass::Read).await.unwrap());
        assert_eq!(begun.elapsed().as_secs(), 3600);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_gives_up_gives_its_place_back() {
        let limiter = whole(1, None);
        let turn = limiter.turn(CallClass::Read).await.unwrap();
        assert!(
            timeout(Duration::from_secs(1), limiter.turn(CallClass::Read))
                .await
                .is_err()
        );
        drop(turn);
        assert!(
            timeout(Duration::from_secs(1), limiter.turn(CallClass::Read))
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
        flood(&mut tasks, &limiter, CallClass::Arm, 8, &writes);
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
            timeout(Duration::from_secs(1), limiter.turn(CallClass::Read))
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
        flood(&mut tasks, &limiter, CallClass::Arm, 10, &writes);
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
        flood(&mut tasks, &limiter, CallClass::Arm, 9, &done);
        let begun = Instant::now();
        tasks.join_all().await;
        assert_eq!(begun.elapsed().as_secs(), 6);
    }
    fn writes(per_second: f64) -> Arc<Limiter> {
        let budgets = Budgets {
            writes: Budget {
                per_second: Some(per_second),
                ..Budget::default()
            },
            ..Budgets::default()
        };
        Arc::new(Limiter::new(64, None, &budgets, false))
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_place_longer_than_its_class_may_and_then_holds_nothing() {
        for (class, seconds) in [
            (CallClass::Arm, 10),
            (CallClass::ConnectionRequest, 10),
            (CallClass::PutAway, 180),
            (CallClass::ReadToPutAway, 180),
            (CallClass::ReadToArm, 10),
            (CallClass::Read, 180),
        ] {
            let one = at_once(1);
            let budgets = Budgets {
                writes: one,
                connection_requests: one,
                reads: one,
            };
            for limiter in [
                whole(1, None),
                whole(1, Some(100.0)),
                Limiter::new(9, None, &budgets, false),
            ] {
                let turn = limiter.turn(class).await.unwrap();
                let begun = Instant::now();
                let overdue = limiter.turn(class).await.unwrap_err();
                assert_eq!(begun.elapsed().as_secs(), seconds, "{class:?}");
                assert_eq!(overdue.rest, REST_MIN);
                drop(turn);
                for _ in 0..3 {
                    let begun = Instant::now();
                    drop(limiter.turn(class).await.unwrap());
                    assert!(begun.elapsed() < Duration::from_millis(50), "{class:?}");
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_writes_that_arm_at_a_low_rate_only_those_are_sent_whose_turn_comes_soon() {
        let limiter = writes(0.5);
        let mut tasks = JoinSet::new();
        let begun = Instant::now();
        for _ in 0..256 {
            let limiter = limiter.clone();
            tasks.spawn(async move {
                let turn = limiter.turn(CallClass::Arm).await;
                (turn.map(drop), begun.elapsed().as_secs_f64())
            });
        }
        let mut rests = Vec::new();
        let mut sent = 0;
        for (outcome, at) in tasks.join_all().await {
            assert!(at < 12.1, "{outcome:?} after {at} s");
            match outcome {
                Ok(()) => sent += 1,
                Err(overdue) => rests.push(overdue.rest.as_secs()),
            }
        }
        assert!((5..=7).contains(&sent), "{sent}");
        // They come again one after the other, as far apart as the moments.
        rests.sort_unstable();
        assert_eq!(rests[..4], [10, 12, 14, 16]);
        assert_eq!(rests.last(), Some(&120));
    }

    /// Asks again and again, as jobs do that are given back, and says how often.
    async fn until_sent(limiter: &Limiter, class: CallClass) -> u32 {
        for times in 1.. {
            match limiter.turn(class).await {
                Ok(_) => return times,
                Err(Overdue { rest }) => {
                    sleep(rest.mul_f64(1.0 + fastrand::f64() / 2.0)).await;
                }
            }
        }
        unreachable!()
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_again_finds_its_turn_and_the_rate_is_used() {
        for (per_second, calls) in [(0.05, 20_u32), (0.1, 40), (0.5, 256), (5.0, 1_000)] {
            let limiter = writes(per_second);
            let begun = Instant::now();
            let mut tasks = JoinSet::new();
            for _ in 0..calls {
                let limiter = limiter.clone();
                tasks.spawn(async move { until_sent(&limiter, CallClass::Arm).await });
            }
            let asked: u32 = tasks.join_all().await.iter().sum();
            let best = f64::from(calls) / per_second;
            let took = begun.elapsed().as_secs_f64();
            assert!(
                took < 1.7 * best + 180.0,
                "{per_second}/s: {took} s, at best {best}"
            );
            assert!(
                f64::from(asked) < 2.0 * f64::from(calls) + best * f64::from(calls) / 120.0,
                "{per_second}/s: {calls} calls asked {asked} times"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_puts_away_goes_before_all_that_waits_to_arm() {
        let limiter = writes(1.0);
        let mut tasks = JoinSet::new();
        let armed = Arc::default();
        flood(&mut tasks, &limiter, CallClass::Arm, 200, &armed);
        sleep(Duration::from_millis(2_500)).await;
        let begun = Instant::now();
        let mut disarms = JoinSet::new();
        for _ in 0..5 {
            let limiter = limiter.clone();
            disarms.spawn(async move { limiter.turn(CallClass::PutAway).await.map(drop) });
        }
        assert_eq!(disarms.join_all().await, [Ok(()); 5]);
        // The one that waits for its moment already, and their own.
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(5_700), "{took:?}");
        tasks.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_polls_does_not_keep_the_look_before_a_write_waiting() {
        let limiter = Arc::new(whole(4, None));
        let (mut tasks, polls) = (JoinSet::new(), Arc::default());
        flood(&mut tasks, &limiter, CallClass::Read, 10_000, &polls);
        sleep(Duration::from_millis(500)).await;
        for class in [CallClass::ReadToPutAway, CallClass::ReadToArm] {
            let begun = Instant::now();
            let looks = Arc::default();
            flood(&mut tasks, &limiter, class, 4, &looks);
            while looks.load(Ordering::SeqCst) < 4 {
                sleep(Duration::from_millis(10)).await;
            }
            // What is under way, and their own time.
            let took = begun.elapsed();
            assert!(took < Duration::from_millis(2_100), "{class:?} {took:?}");
        }
        assert!(polls.load(Ordering::SeqCst) >= 4, "{polls:?}");
        tasks.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn polls_that_use_up_the_rate_of_the_whole_leave_writes_their_turns() {
        for per_second in [0.1, 0.5, 5.0] {
            let limiter = Arc::new(whole(64, Some(per_second)));
            let mut tasks = JoinSet::new();
            for _ in 0..256 {
                let limiter = limiter.clone();
                tasks.spawn(async move {
                    loop {
                        until_sent(&limiter, CallClass::Read).await;
                    }
                });
            }
            sleep(Duration::from_secs(30)).await;
            let begun = Instant::now();
            let mut arming = JoinSet::new();
            for _ in 0..20 {
                let limiter = limiter.clone();
                arming.spawn(async move { until_sent(&limiter, CallClass::Arm).await });
            }
            arming.join_all().await;
            let took = begun.elapsed().as_secs_f64();
            // Alone they would take 20 moments; every second one is theirs.
            let best = 40.0 / per_second;
            assert!(
                took < 4.0 * best + 180.0,
                "{per_second}/s: {took} s, at best {best}"
            );
            tasks.shutdown().await;
        }
    }
}
