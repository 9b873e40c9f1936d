//! Campaigns of 100,000 devices in virtual time: the product's own core decides, simulated devices answer.
//!
//! What devices do is taken from public figures: an upgrade takes 4 to 15 minutes; some percent are offline, half of those for longer
//! than a job waits; some percent report a fault. With `NBI_UPGRADE_FIGURES=DIR` each story writes what happened as `DIR/<name>.csv`;
//! `docs/campaigns/draw` makes the pictures of docs/campaigns.md from these.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt::Write as _;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::campaign::{
    Abort, Action, Admission, Conclusion, Device, FailureKind, Pace, PauseReason, Plan, Ramp,
    Record, Situation, State, Window, decide, forecast,
};
use nbi_upgrade::job::{CpeId, Outcome};

const DEVICES: usize = 100_000;
/// `job.timeout`.
const TIMEOUT: SignedDuration = SignedDuration::from_hours(1);

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// What a device does once it is started.
fn behaviour(
    rng: &mut fastrand::Rng,
    is_bad_image: bool,
) -> (SignedDuration, Outcome, Option<FailureKind>) {
    let minutes = |rng: &mut fastrand::Rng, from: f64, to: f64| {
        SignedDuration::from_secs_f64((from + (to - from) * rng.f64()) * 60.0)
    };
    match rng.u32(0..100) {
        // Offline: half of them come within the hour.
        0..3 => (minutes(rng, 20.0, 60.0), Outcome::Completed, None),
        3..6 => (TIMEOUT, Outcome::Failed, Some(FailureKind::TimedOut)),
        _ if is_bad_image => (
            minutes(rng, 2.0, 8.0),
            Outcome::Failed,
            Some(FailureKind::DeviceFault),
        ),
        6..8 => (
            minutes(rng, 2.0, 8.0),
            Outcome::Failed,
            Some(FailureKind::DeviceFault),
        ),
        _ => (minutes(rng, 4.0, 15.0), Outcome::Completed, None),
    }
}

/// What was to be seen in one minute.
#[derive(Default, Clone, Copy)]
struct Minute {
    starts: u64,
    finished: u64,
    failed: u64,
    in_flight: u32,
    waiting: usize,
}

/// A campaign under way in virtual time.
struct Story {
    plan: Plan,
    state: State,
    began_at: Timestamp,
    now: Timestamp,
    queue: VecDeque<Device>,
    under_way: BinaryHeap<Reverse<(Timestamp, usize)>>,
    ends: Vec<(CpeId, Outcome, Option<FailureKind>)>,
    rng: fastrand::Rng,
    is_bad_image: bool,
    minutes: BTreeMap<i64, Minute>,
}

impl Story {
    fn begin(plan: Plan, began_at: &str) -> Self {
        let began_at = time(began_at);
        let device = |number| Device {
            cpe_id: CpeId::parse(format!("CPE{number:06}")).expect("an id"),
            concurrency_key: None,
        };
        let mut story = Self {
            plan,
            state: State::default(),
            began_at,
            now: began_at,
            queue: (0..DEVICES).map(device).collect(),
            under_way: BinaryHeap::new(),
            ends: Vec::with_capacity(DEVICES),
            rng: fastrand::Rng::with_seed(26),
            is_bad_image: false,
            minutes: BTreeMap::new(),
        };
        story.write(&Record::Accepted {
            at: began_at,
            began_at,
        });
        story
    }

    fn write(&mut self, record: &Record) {
        self.state.apply(record, &self.plan, self.began_at);
    }

    fn minute(&mut self) -> &mut Minute {
        let number = self.now.duration_since(self.began_at).as_secs() / 60;
        let (in_flight, waiting) = (self.state.in_flight(), self.queue.len());
        let minute = self.minutes.entry(number).or_default();
        minute.in_flight = minute.in_flight.max(in_flight);
        minute.waiting = waiting;
        minute
    }

    /// Goes on until it pauses or is over.
    fn go_on(&mut self) -> Action {
        loop {
            self.state.expire(&self.plan, self.now);
            let situation = Situation {
                now: self.now,
                waiting: self.queue.len() as u64,
                held: None,
                began_at: self.began_at,
            };
            match decide(&self.plan, &self.state, situation) {
                Action::Release { at_most, places } => self.release(at_most.min(places) as usize),
                Action::Wait { until, .. } => self.sleep(until),
                other => return other,
            }
        }
    }

    fn release(&mut self, at_most: usize) {
        let at_hand: Vec<_> = self.queue.iter().take(200).cloned().collect();
        let count = at_most.min(at_hand.len());
        let answers = self.state.admit(&self.plan, &at_hand, count, count);
        let started = answers.iter().take_while(|one| **one == Admission::Start);
        assert_eq!(started.count(), count);
        let devices: Vec<_> = self.queue.drain(..count).collect();
        for device in &devices {
            let (takes, outcome, failure) = behaviour(&mut self.rng, self.is_bad_image);
            self.under_way
                .push(Reverse((self.now + takes, self.ends.len())));
            self.ends.push((device.cpe_id.clone(), outcome, failure));
        }
        self.write(&Record::Released {
            coordinator: "a".to_owned(),
            at: self.now,
            devices,
        });
        self.state.settle("a");
        self.minute().starts += count as u64;
    }

    /// Sleeps until then or until a device ends.
    fn sleep(&mut self, until: Timestamp) {
        match self.under_way.peek() {
            Some(Reverse((at, index))) if *at <= until => {
                let (at, index) = (*at, *index);
                self.under_way.pop();
                self.now = at;
                let (cpe_id, outcome, failure) = self.ends[index].clone();
                self.write(&Record::Finished {
                    at,
                    cpe_id,
                    outcome,
                    failure,
                });
                let minute = self.minute();
                minute.finished += 1;
                minute.failed += u64::from(outcome == Outcome::Failed);
            }
            _ => {
                self.now = until.max(self.now + SignedDuration::from_millis(1));
                self.minute();
            }
        }
    }

    /// Every device started once and ended once, and no minute above the pace.
    fn check(&self) {
        let counts = self.state.counts();
        assert_eq!(counts.released, DEVICES as u64);
        assert_eq!(counts.completed + counts.failed, DEVICES as u64);
        assert_eq!((self.state.in_flight(), self.state.unfinished()), (0, 0));
    }

    fn write_figures(&self, name: &str) {
        let Some(folder) = std::env::var_os("NBI_UPGRADE_FIGURES") else {
            return;
        };
        let mut csv = "minute,time,starts,in_flight,waiting,finished,failed\n".to_owned();
        let (mut finished, mut failed) = (0, 0);
        for (number, minute) in &self.minutes {
            finished += minute.finished;
            failed += minute.failed;
            let at = self.began_at + SignedDuration::from_mins(*number);
            let Minute {
                starts,
                in_flight,
                waiting,
                ..
            } = minute;
            writeln!(
                csv,
                "{number},{at},{starts},{in_flight},{waiting},{finished},{failed}"
            )
            .expect("a string takes all");
        }
        let path = std::path::Path::new(&folder).join(format!("{name}.csv"));
        std::fs::write(path, csv).expect("the folder of the figures is there");
    }
}

#[test]
fn a_hundred_thousand_devices_in_the_nights_of_a_change_of_clocks() {
    let zone = TimeZone::get("Europe/Berlin").expect("a zone");
    let (start, end) = (Time::constant(1, 0, 0, 0), Time::constant(5, 0, 0, 0));
    let plan = Plan {
        deadline: Some(time("2026-11-01T00:00:00Z")),
        pace: Pace {
            starts_per_minute: Some(120),
            max_in_flight: Some(5_000),
            in_flight_timeout: Some(SignedDuration::from_mins(30)),
            ramp: None,
        },
        window: Some(Window {
            start,
            end,
            time_zone: zone.clone(),
            days: Vec::new(),
        }),
        ..Plan::default()
    };
    // Thursday noon; the clocks go back in the night to Sunday.
    let mut story = Story::begin(plan, "2026-10-22T10:00:00Z");
    let forecast =
        forecast::done_at(&story.plan, &story.state, DEVICES as u64, story.now).expect("it ends");
    assert_eq!(story.go_on(), Action::Conclude(Conclusion::Completed));
    story.check();
    story.write_figures("nights");
    let mut nights: BTreeMap<_, u64> = BTreeMap::new();
    for (number, minute) in story.minutes.iter().filter(|(_, minute)| minute.starts > 0) {
        let local = zone.to_datetime(story.began_at + SignedDuration::from_mins(*number));
        assert!((start..end).contains(&local.time()), "a start at {local}");
        assert!(minute.starts <= 122, "{} starts at {local}", minute.starts);
        *nights.entry(local.date().to_string()).or_default() += minute.starts;
    }
    eprintln!(
        "starts by night: {nights:?}; over at {}, forecast {forecast}",
        story.now
    );
    let share = |date: &str| nights.get(date).copied().unwrap_or(0);
    // Four hours at 120 a minute; five in the night in which an hour comes twice.
    for (date, expected) in [
        ("2026-10-23", 28_800),
        ("2026-10-24", 28_800),
        ("2026-10-25", 36_000),
        ("2026-10-26", 6_400),
    ] {
        let found = share(date);
        assert!(
            found.abs_diff(expected) <= 60,
            "{date}: {found}, expected {expected}"
        );
    }
    // The forecast at the beginning knows nothing of how long devices take; an hour is the longest.
    let off = story.now.duration_since(forecast);
    assert!(
        off > SignedDuration::ZERO && off < SignedDuration::from_mins(62),
        "{off:?}"
    );
}

#[test]
fn a_hundred_thousand_devices_with_a_rate_that_grows() {
    let plan = Plan {
        pace: Pace {
            starts_per_minute: Some(60),
            max_in_flight: Some(8_000),
            in_flight_timeout: None,
            ramp: Some(Ramp {
                factor: 1.5,
                after_successes: 500,
                max_starts_per_minute: 900,
            }),
        },
        abort: vec![Abort {
            failure: FailureKind::Any,
            percent: 15.0,
            min_finished: 100,
        }],
        ..Plan::default()
    };
    let mut story = Story::begin(plan, "2026-11-23T08:00:00Z");
    assert_eq!(story.go_on(), Action::Conclude(Conclusion::Completed));
    story.check();
    story.write_figures("ramp");
    let most = story.minutes.values().map(|minute| minute.starts).max();
    let first = story.minutes.get(&1).map(|minute| minute.starts);
    eprintln!(
        "first minute {first:?}, most {most:?}, over at {}",
        story.now
    );
    assert!(
        first <= Some(61) && (Some(890)..=Some(915)).contains(&most),
        "{first:?} {most:?}"
    );
    assert!(
        story
            .minutes
            .values()
            .all(|minute| minute.in_flight <= 8_000)
    );
}

#[test]
fn a_bad_image_touches_the_threshold_and_what_was_in_flight_of_a_hundred_thousand() {
    let plan = Plan {
        pace: Pace {
            starts_per_minute: Some(300),
            max_in_flight: Some(1_000),
            ..Pace::default()
        },
        abort: vec![Abort {
            failure: FailureKind::DeviceFault,
            percent: 20.0,
            min_finished: 200,
        }],
        ..Plan::default()
    };
    let mut story = Story::begin(plan, "2026-11-23T08:00:00Z");
    story.is_bad_image = true;
    let Action::Pause {
        reason: PauseReason::Abort,
        message,
    } = story.go_on()
    else {
        panic!("it does not pause");
    };
    let (counts, in_flight) = (story.state.counts(), story.state.in_flight());
    eprintln!(
        "paused at {}: {message}; {} started, {in_flight} in flight",
        story.now, counts.released
    );
    assert_eq!(counts.finished(), 200);
    assert_eq!(counts.released, 200 + u64::from(in_flight));
    story.write(&Record::Paused {
        at: story.now,
        reason: PauseReason::Abort,
        message,
        order: None,
    });
    // An hour later the image is repaired: nothing was started meanwhile, and what has failed is acknowledged.
    let resumed_at = story.now + SignedDuration::from_mins(75);
    while story.now < resumed_at {
        story.state.expire(&story.plan, story.now);
        story.sleep(resumed_at);
    }
    assert_eq!(story.state.counts().released, counts.released);
    story.is_bad_image = false;
    story.write(&Record::Resumed {
        at: story.now,
        arm_again: None,
        order: None,
    });
    assert_eq!(story.go_on(), Action::Conclude(Conclusion::Completed));
    story.check();
    story.write_figures("bad-image");
}
