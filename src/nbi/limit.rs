//! What reaches the NBI at once and per second, across all calls of the process.
//!
//! [`Limiter::turn`] waits for a place and then for a moment; the place is given back when the [`Turn`] is dropped. Places are
//! given in the order of asking (tokio's semaphore is fair), moments are spaced evenly, without bursts after a quiet time:
//! nothing is known of the NBI's own limits, and even spacing is what every server takes best.
//!
//! Time is tokio's, so that tests run in virtual time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

/// The longest spacing: a rate below one request an hour is taken as one an hour.
const SPACING_MAX: Duration = Duration::from_secs(3600);

/// Bounds concurrency and rate.
#[derive(Debug)]
pub struct Limiter {
    places: Semaphore,
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
    _place: Option<SemaphorePermit<'a>>,
}

impl Limiter {
    /// At most `max_concurrency` (at least 1) at once, and `requests_per_second` if it is a number above zero.
    #[must_use]
    pub fn new(max_concurrency: usize, requests_per_second: Option<f64>) -> Self {
        let spacing = requests_per_second
            .filter(|rate| rate.is_finite() && *rate > 0.0)
            .map(|rate| {
                Duration::try_from_secs_f64(rate.recip())
                    .unwrap_or(SPACING_MAX)
                    .min(SPACING_MAX)
            });
        Self {
            places: Semaphore::new(max_concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            rate: spacing.map(|spacing| Rate {
                spacing,
                next: Mutex::new(None),
            }),
        }
    }

    /// Waits for a place, then for a moment.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the place back; a moment that was already taken passes unused.
    pub async fn turn(&self) -> Turn<'_> {
        // The semaphore is never closed, so there is always a place in the end.
        let place = self.places.acquire().await.ok();
        if let Some(rate) = &self.rate {
            sleep_until(rate.take()).await;
        }
        Turn { _place: place }
    }
}

impl Rate {
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_limit_are_under_way_at_once() {
        let limiter = Arc::new(Limiter::new(3, None));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..9 {
            let (limiter, now, most) = (limiter.clone(), now.clone(), most.clone());
            tasks.spawn(async move {
                let _turn = limiter.turn().await;
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
        let limiter = Limiter::new(10, Some(4.0));
        let begun = Instant::now();
        let mut moments = Vec::new();
        for index in 0..6 {
            if index == 3 {
                sleep(Duration::from_secs(10)).await;
            }
            drop(limiter.turn().await);
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
            let limiter = Limiter::new(0, rate);
            let begun = Instant::now();
            for _ in 0..3 {
                drop(limiter.turn().await);
            }
            assert_eq!(begun.elapsed(), Duration::ZERO, "{rate:?}");
        }
        let limiter = Limiter::new(1, Some(1e-300));
        drop(limiter.turn().await);
        let begun = Instant::now();
        drop(limiter.turn().await);
        assert_eq!(begun.elapsed().as_secs(), 3600);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_gives_up_gives_its_place_back() {
        let limiter = Limiter::new(1, None);
        let turn = limiter.turn().await;
        assert!(
            tokio::time::timeout(Duration::from_secs(1), limiter.turn())
                .await
                .is_err()
        );
        drop(turn);
        assert!(
            tokio::time::timeout(Duration::from_secs(1), limiter.turn())
                .await
                .is_ok()
        );
    }
}
