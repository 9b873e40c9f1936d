//! How many requests the NBI bears at once, learnt from how it answers: additive increase, multiplicative decrease.
//!
//! The idea is TCP's congestion avoidance (Chiu and Jain 1989; RFC 5681), which HTTP clients took over (Netflix's
//! concurrency-limits): the far side does not say what it bears, but shows it in time and errors. AIMD is chosen over a gradient
//! as it needs no tuning to converge and shares a server fairly among workers that do not know of each other. The rate needs no
//! control of its own: with a bound on what is under way, a slower NBI gets fewer requests a second (Little's law).
//!
//! Time is cut into windows. Only requests that began in a window count in it, so that each change is judged by what began
//! under it, and one bad moment cuts once. A window in which more than a tenth of the requests failed, or more than half took
//! far longer than their operation's baseline, takes the limit to 7/10 (the β of RFC 9438); a good one adds a 32nd of the
//! configured limit. A worker starts at a few places and doubles (slow start), so that the first baselines are those of an NBI
//! that is not crowded; a quiet NBI is at full speed after some seconds.
//!
//! The baseline follows faster answers quickly, and slower ones only from windows in which next to nothing was under way: what a
//! crowd takes says nothing about what is normal. An NBI that got slower for good is thereby found out at the latest when the
//! limit has reached two, and the limit rises again.
//!
//! Cuts need a crowd: while fewer than half of the places were used, the limit is not what makes the NBI slow. So light load never
//! loses places. Pure arithmetic: time is an argument, nothing sleeps. `limit.rs` is the only caller.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Places at the start.
const START: usize = 8;
/// A window lasts at least this long: several times a usual answer's time.
const WINDOW: Duration = Duration::from_millis(500);
/// After this long a good window counts even if few requests fell in it, so that recovery does not wait for traffic.
const WINDOW_MAX: Duration = Duration::from_secs(5);
/// So many requests say something about the NBI; fewer where the limit is lower.
const ENOUGH: usize = 10;
/// The part of the limit that is left after a bad window, in tenths.
const LEFT_TENTHS: usize = 7;
/// Good windows from nothing to the configured limit.
const STEPS: usize = 32;
/// With no more than this under way an answer's time is the NBI's own.
const ALONE: usize = 2;
/// What an answer may take beyond twice its baseline: jitter of networks and schedulers is no overload.
const SLACK: Duration = Duration::from_millis(25);

/// What one request showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The operation; each has its own baseline.
    pub operation: &'static str,
    /// When it was sent.
    pub begun: Instant,
    /// How long it took.
    pub took: Duration,
    /// Requests under way when it was sent, itself among them.
    pub under_way: usize,
    /// How it ended.
    pub end: End,
}

/// How a request ended, as far as the NBI's load is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The NBI answered out of its own store: the time taken is its own.
    Answered,
    /// It answered, but the time is another's (it asked the device), or it turned us away at once.
    Untimed,
    /// It failed as an overloaded NBI does.
    Failed,
}

/// The limit and what is known of the NBI.
#[derive(Debug)]
pub struct Pace {
    max: usize,
    limit: usize,
    /// Whether no bad window was seen since the start.
    is_starting: bool,
    baselines: BTreeMap<&'static str, Duration>,
    window: Window,
}

/// What was seen since `from`.
#[derive(Debug)]
struct Window {
    from: Instant,
    ended: usize,
    failed: usize,
    timed: usize,
    slow: usize,
    under_way: usize,
    /// Number and whole time of the answers of each operation.
    times: BTreeMap<&'static str, (u32, Duration)>,
}

impl Pace {
    /// A limit that starts low and may rise to `max`.
    #[must_use]
    pub fn new(max: usize, now: Instant) -> Self {
        let max = max.max(1);
        Self {
            max,
            limit: max.min(START),
            is_starting: true,
            baselines: BTreeMap::new(),
            window: Window::new(now),
        }
    }

    /// How many requests may be under way, from 1 to the configured limit.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Takes note of a request that ended at `now`, and says the limit if it changed.
    pub fn record(&mut self, seen: &Seen, now: Instant) -> Option<usize> {
        if seen.begun < self.window.from {
            return None;
        }
        let baseline = self.baselines.get(seen.operation).copied();
        self.window.add(seen, baseline);
        let before = self.limit;
        match self.window.verdict(self.limit, now) {
            Verdict::Open => return None,
            Verdict::Bad => {
                self.is_starting = false;
                self.limit = (self.limit * LEFT_TENTHS / 10).max(1);
            }
            Verdict::Good if self.is_starting => self.limit = (self.limit * 2).min(self.max),
            Verdict::Good => self.limit = (self.limit + (self.max / STEPS).max(1)).min(self.max),
            Verdict::SaysNothing => {}
        }
        self.learn();
        self.window = Window::new(now);
        (self.limit != before).then_some(self.limit)
    }

    /// Moves the baselines towards what the window showed.
    fn learn(&mut self) {
        let is_alone = self.window.under_way <= ALONE;
        for (operation, (number, whole)) in &self.window.times {
            let mean = *whole / (*number).max(1);
            let baseline = self.baselines.entry(operation).or_insert(mean);
            if mean < *baseline {
                *baseline = (*baseline + mean) / 2;
            } else if is_alone {
                // A tenth at a time: some slow answers in a quiet hour do not blind it.
                *baseline = mean.min(*baseline * 11 / 10 + Duration::from_micros(1));
            }
        }
    }
}

/// What a window says.
enum Verdict {
    /// It goes on.
    Open,
    /// The NBI bears more.
    Good,
    /// It bears less.
    Bad,
    /// It is slow or failing, and not because of us.
    SaysNothing,
}

impl Window {
    fn new(from: Instant) -> Self {
        Self {
            from,
            ended: 0,
            failed: 0,
            timed: 0,
            slow: 0,
            under_way: 0,
            times: BTreeMap::new(),
        }
    }

    fn add(&mut self, seen: &Seen, baseline: Option<Duration>) {
        self.ended += 1;
        self.under_way = self.under_way.max(seen.under_way);
        match seen.end {
            End::Failed => self.failed += 1,
            End::Untimed => {}
            End::Answered => {
                self.timed += 1;
                let limit = baseline.map(|baseline| baseline * 2 + SLACK);
                self.slow += usize::from(limit.is_some_and(|limit| seen.took > limit));
                let (number, whole) = self.times.entry(seen.operation).or_default();
                *number = number.saturating_add(1);
                *whole = whole.saturating_add(seen.took);
            }
        }
    }

    fn verdict(&self, limit: usize, now: Instant) -> Verdict {
        let age = now.saturating_duration_since(self.from);
        let is_bad = self.failed * 10 > self.ended || self.slow * 2 > self.timed;
        let is_enough = self.ended >= ENOUGH.min(limit);
        if age < WINDOW || !(is_enough || !is_bad && age >= WINDOW_MAX) {
            Verdict::Open
        } else if !is_bad {
            Verdict::Good
        } else if self.under_way * 2 >= limit {
            Verdict::Bad
        } else {
            Verdict::SaysNothing
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Time that each of `under_way` requests takes.
    type Server = fn(under_way: u32) -> Duration;

    /// What a crowd of callers met, in the last third of the time.
    #[derive(Debug)]
    struct Run {
        limit: usize,
        lowest: usize,
        per_second: f64,
        mean: Duration,
    }

    /// So many callers ask again as soon as they have an answer, under the limit, for this long.
    ///
    /// A simulation of events: `Reverse((end, begin, under_way))` of what is under way, in the order of ending.
    fn crowd(pace: &mut Pace, begun: Instant, callers: usize, seconds: u64, server: Server) -> Run {
        let mut under_way = BinaryHeap::new();
        let (mut now, end) = (begun, begun + Duration::from_secs(seconds));
        let measured_from = begun + Duration::from_secs(seconds * 2 / 3);
        let (mut done, mut whole, mut lowest) = (0_u32, Duration::ZERO, usize::MAX);
        while now < end {
            while under_way.len() < callers.min(pace.limit()) {
                let with_it = under_way.len() + 1;
                let took = server(u32::try_from(with_it).unwrap());
                under_way.push(Reverse((now + took, now, with_it)));
            }
            let Reverse((ended, sent, with_it)) = under_way.pop().unwrap();
            now = ended;
            let seen = Seen {
                operation: "read_results",
                begun: sent,
                took: ended - sent,
                under_way: with_it,
                end: End::Answered,
            };
            pace.record(&seen, now);
            if now >= measured_from {
                done += 1;
                whole += seen.took;
                lowest = lowest.min(pace.limit());
            }
        }
        Run {
            limit: pace.limit(),
            lowest,
            per_second: f64::from(done) / (end - measured_from).as_secs_f64(),
            mean: whole / done.max(1),
        }
    }

    fn seen(begun: Instant, took: Duration, under_way: usize, end: End) -> Seen {
        Seen {
            operation: "read_rule",
            begun,
            took,
            under_way,
            end,
        }
    }

    /// At full speed, with a baseline of 5 ms.
    fn at_full_speed(max: usize) -> (Pace, Instant) {
        let begun = Instant::now();
        let mut pace = Pace::new(max, begun);
        crowd(&mut pace, begun, max, 10, |_| 5 * MS);
        assert_eq!(pace.limit(), max);
        (pace, begun + Duration::from_secs(10))
    }

    #[test]
    fn a_healthy_fast_nbi_gets_every_place_after_two_seconds_and_keeps_it() {
        let begun = Instant::now();
        for max in [1, 2, 7, 8, 64, 4_096] {
            let mut pace = Pace::new(max, begun);
            let mut now = begun;
            if max <= 64 {
                crowd(&mut pace, begun, max, 2, |_| 5 * MS);
                assert_eq!(pace.limit(), max);
                now += Duration::from_secs(2);
            } else {
                crowd(&mut pace, begun, max, 6, |_| 5 * MS);
                now += Duration::from_secs(6);
            }
            let run = crowd(&mut pace, now, max, 6, |_| 5 * MS);
            assert_eq!((run.limit, run.lowest), (max, max), "{run:?}");
        }
    }

    #[test]
    fn jitter_of_a_fast_nbi_costs_nothing() {
        let (mut pace, begun) = at_full_speed(64);
        let mut random = fastrand::Rng::with_seed(7);
        let mut now = begun;
        for index in 0..20_000_u32 {
            now += MS;
            // 1 to 25 ms, one in twenty far slower, one in fifty failing.
            let took = match index % 20 {
                0 => 3_000 * MS,
                _ => MS * random.u32(1..25),
            };
            let end = if index % 50 == 0 {
                End::Failed
            } else {
                End::Answered
            };
            pace.record(&seen(now, took, 64, end), now + took);
            assert_eq!(pace.limit(), 64, "at {index}");
        }
    }

    #[test]
    fn light_load_keeps_every_place_even_where_the_nbi_is_bad() {
        for end in [End::Answered, End::Failed, End::Untimed] {
            let (mut pace, begun) = at_full_speed(64);
            for index in 0..2_000_u32 {
                let now = begun + Duration::from_secs(3) * index;
                pace.record(&seen(now, 2_500 * MS, 3, end), now + 2_500 * MS);
                assert_eq!(pace.limit(), 64, "{end:?}");
            }
        }
    }

    #[test]
    fn a_light_load_reaches_every_place() {
        let begun = Instant::now();
        let mut pace = Pace::new(64, begun);
        for index in 0..20_u32 {
            let now = begun + Duration::from_secs(2) * index;
            pace.record(&seen(now, 5 * MS, 1, End::Answered), now + 5 * MS);
        }
        assert_eq!(pace.limit(), 64);
    }

    #[test]
    fn under_overload_throughput_stays_near_capacity_and_latency_bounded() {
        // Eight at once in 20 ms: 400 a second; more wait in line inside the NBI.
        let queueing: Server = |n| 20 * MS * n.max(8) / 8;
        let begun = Instant::now();
        let run = crowd(&mut Pace::new(64, begun), begun, 64, 120, queueing);
        println!("queueing: {run:?}; unbounded: 400 a second, 160 ms");
        assert!(run.per_second > 360.0 && run.mean < 75 * MS, "{run:?}");
        assert!((8..40).contains(&run.limit), "{run:?}");

        // The same, but crowding costs it more than it brings: 64 at once would take 1280 ms, 50 a second.
        let thrashing: Server = |n| 20 * MS * n.max(8) * n.max(8) / 64;
        let run = crowd(&mut Pace::new(64, begun), begun, 64, 120, thrashing);
        println!("thrashing: {run:?}; unbounded: 50 a second, 1280 ms");
        assert!(run.per_second > 200.0 && run.mean < 75 * MS, "{run:?}");
    }

    #[test]
    fn trouble_cuts_quickly_and_is_forgotten_step_by_step() {
        let (mut pace, begun) = at_full_speed(64);
        let run = crowd(&mut pace, begun, 64, 60, |_| 2_000 * MS);
        assert!(run.lowest <= 16, "{run:?}");
        let run = crowd(&mut pace, begun + Duration::from_secs(60), 64, 40, |_| {
            5 * MS
        });
        assert_eq!(run.limit, 64, "{run:?}");
    }

    #[test]
    fn an_nbi_that_got_slower_for_good_gets_every_place_again() {
        let (mut pace, begun) = at_full_speed(64);
        let run = crowd(&mut pace, begun, 64, 180, |_| 100 * MS);
        assert_eq!(run.limit, 64, "{run:?}");
    }

    #[test]
    fn failures_of_a_crowd_cut_to_one_and_never_to_nothing() {
        let (mut pace, begun) = at_full_speed(64);
        for step in 0..600_u32 {
            let now = begun + 100 * MS * step;
            for _ in 0..pace.limit() {
                pace.record(&seen(now, MS, pace.limit(), End::Failed), now + MS);
            }
        }
        assert_eq!(pace.limit(), 1);
    }

    #[test]
    fn one_bad_moment_cuts_once() {
        let (mut pace, begun) = at_full_speed(64);
        // All 64 began before the cut and end after it.
        for index in 0..64 {
            let now = begun + 600 * MS + MS * index;
            pace.record(&seen(begun + MS, now - begun, 64, End::Failed), now);
        }
        assert_eq!(pace.limit(), 44);
    }

    #[test]
    fn what_devices_take_is_not_held_against_the_nbi() {
        let (mut pace, begun) = at_full_speed(64);
        for step in 0..100_u32 {
            let now = begun + 100 * MS * step;
            let seen = seen(now, 29_000 * MS, 64, End::Untimed);
            pace.record(&seen, now + 29_000 * MS);
        }
        assert_eq!(pace.limit(), 64);
    }
}
