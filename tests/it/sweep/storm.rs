//! Storms: many things at once, drawn from a seed. Devices that succeed, fail, are silent, late or away, under most of the vendor's semantics
//! (ten switches of `Semantics`, and its clock), one or two jobs each, an NBI and a broker with faults, clocks that are wrong, orders, workers
//! that die anywhere or are stopped; then quiet, in which all must end well.
//!
//! What cannot be had is not asked for: a device whose rules cannot be read may be left alone after a crash, copies that look at different
//! moments around a deadline or a take-over may judge differently, where that can be explained, and few do; copies that write within the time of one call are no danger as long as a
//! device needs longer to call in, so calls are quick here. No storm may lose a job, give an outcome that the facts contradict, or one outcome two
//! ids, leave a rule armed or a message behind, or flash a device twice for one job, but for a cause that was there (`again.rs`).

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use nbi_upgrade::simulator::{
    AttemptResult, Device, FailedAttempt, Filter, HttpStatus, Incomplete, PostOnExisting, Put,
    ReadingRules, ResultTime, Results, RowOrder, Semantics, TakenRule, TroublePlan,
};
use serde_json::json;

use super::check::Tally;
use super::crashes::LISTED;
use super::faults::Cut;
use super::points::Plan;
use super::run::{Run, run};
use super::scenarios::{Ordered, Scenario};
use crate::support::world::{request, start};

/// Storms in the default run.
const STORMS: u64 = 1_000;

/// Faults end this long after the beginning.
const QUIET_AFTER: SignedDuration = SignedDuration::from_mins(40);

fn one_of<T: Copy>(rng: &mut fastrand::Rng, all: &[T]) -> T {
    all[rng.usize(..all.len())]
}

/// The likeliest answer more often than all others together, so that not every storm is exotic.
fn semantics(rng: &mut fastrand::Rng) -> Semantics {
    let mut drawn = Semantics::default();
    macro_rules! maybe {
        ($($field:ident $switch:ident),+) => {
            $(if rng.u8(..3) == 0 { drawn.$field = one_of(rng, $switch::ALL); })+
        };
    }
    maybe!(
        post_on_existing PostOnExisting, put Put, filter Filter, http_status HttpStatus,
        reading_rules ReadingRules, failed_attempt FailedAttempt, results Results,
        row_order RowOrder, incomplete Incomplete, result_time ResultTime
    );
    if rng.u8(..3) == 0 {
        drawn.clock_offset = SignedDuration::from_secs(rng.i64(-600..=600));
    }
    drawn
}

fn device(rng: &mut fastrand::Rng, cpe_id: &str) -> Device {
    let flaky = [
        AttemptResult::fault(9017, "broken off"),
        AttemptResult::Success,
    ];
    let mut device = match rng.u8(..8) {
        0 => Device::new(cpe_id).with_attempts(&flaky),
        1 => Device::new(cpe_id).with_attempts(&[AttemptResult::fault(9018, "corrupted")]),
        2 => Device::new(cpe_id).with_attempts(&[AttemptResult::Silent]),
        _ => Device::new(cpe_id),
    };
    device.session_delay = SignedDuration::from_secs(rng.i64(1..=30));
    device.download = SignedDuration::from_secs(rng.i64(1..=300));
    device.reboot = SignedDuration::from_secs(rng.i64(1..=120));
    if rng.u8(..4) == 0 {
        device.offline_until = Some(start() + SignedDuration::from_secs(rng.i64(0..=2_400)));
    }
    device.accepts_connection_requests = rng.u8(..6) != 0;
    device
}

/// The storm of a seed, and who dies in it.
fn storm(seed: u64) -> (Scenario, Plan) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut scenario = Scenario::new(&format!("storm {seed}"));
    let setup = &mut scenario.setup;
    setup.semantics = semantics(&mut rng);
    let quiet_from = start() + QUIET_AFTER;
    if rng.bool() {
        setup.troubles = TroublePlan::storm(seed, rng.f64() * 0.3).quiet_from(quiet_from);
    }
    let devices = one_of(&mut rng, &[1, 1, 1, 2]);
    let cpe_ids: Vec<String> = (1..=devices).map(|number| format!("CPE{number}")).collect();
    setup.devices = cpe_ids.iter().map(|id| device(&mut rng, id)).collect();
    scenario.workers = rng.usize(1..=3);
    if rng.u8(..3) == 0 {
        scenario.skews = (0..3)
            .map(|_| SignedDuration::from_secs(rng.i64(-600..=600)))
            .collect();
    }
    let chance = |rng: &mut fastrand::Rng| {
        if rng.bool() {
            rng.f64().powi(2) * 0.2
        } else {
            0.0
        }
    };
    let faults = &mut scenario.faults;
    faults.seed = seed;
    faults.quiet_from = Some(quiet_from);
    for fault in [
        &mut faults.duplicate,
        &mut faults.reorder,
        &mut faults.nack,
        &mut faults.returned,
        &mut faults.confirm_lost,
        &mut faults.publish_lost,
        &mut faults.confirm_late,
        &mut faults.ack_lost,
        &mut faults.early,
        &mut faults.late,
    ] {
        *fault = chance(&mut rng);
    }
    faults.redelivers_after = Duration::from_secs(one_of(&mut rng, &[0, 0, 1, 40, 100, 300, 900]));
    faults.latency = Duration::from_millis(one_of(&mut rng, &[0, 50, 300]));
    faults.restarts = (0..rng.usize(..3))
        .map(|_| start() + SignedDuration::from_secs(rng.i64(0..2_400)))
        .collect();
    let is_blind = scenario.setup.semantics.reading_rules != ReadingRules::Allowed;
    for cpe_id in &cpe_ids {
        scenario = jobs(scenario, &mut rng, cpe_id, is_blind);
    }
    // Two jobs of a device are told apart for certain by their tags alone.
    scenario.setup.policy.tag_rules = scenario.jobs.len() > devices || rng.bool();
    scenario.patience = Duration::from_hours(12);
    scenario = orders(scenario, &mut rng);
    scenario.stops = (0..one_of(&mut rng, &[0, 0, 0, 1, 2]))
        .map(|_| Duration::from_secs(rng.u64(..2_400)))
        .collect();
    scenario.stops.sort();
    broker_troubles(&mut scenario, seed);
    let crashes = rng.usize(..=4);
    later(&mut scenario, seed);
    paused_again(&mut scenario, seed);
    let last = scenario.jobs.iter().map(|job| job.deadline).max().unwrap();
    let lifetime = last.duration_since(start()).as_secs();
    scenario.calls = Some(scenario.sends.len() * (60 + usize::try_from(lifetime / 20).unwrap()));
    let plan = Plan {
        chance: Some((seed, 0.01, crashes)),
        ..Plan::default()
    };
    (scenario, plan)
}

/// What the broker does beyond single messages, from draws of its own.
fn broker_troubles(scenario: &mut Scenario, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed_b40c);
    let forced = |body: &serde_json::Value| body["force"] == true;
    let is_an_order_each_time = scenario.sends.iter().any(|send| forced(&send.body));
    let faults = &mut scenario.faults;
    let at = |secs| start() + SignedDuration::from_secs(secs);
    faults.cuts = (0..one_of(&mut rng, &[0, 0, 1, 2]))
        .map(|_| Cut {
            at: at(rng.i64(0..2_280)),
            lasts: Duration::from_secs(one_of(&mut rng, &[1, 20, 120])),
            worker: one_of(&mut rng, &[None, Some(0), Some(1)]),
        })
        .collect();
    if rng.u8(..6) == 0 {
        let from = rng.i64(0..400);
        faults.full = Some((at(from), at(from + rng.i64(0..2_000))));
    }
    faults.overtakes = one_of(&mut rng, &[0.0, 0.0, 0.3, 1.0]);
    faults.ack_vanishes = one_of(&mut rng, &[0.0, 0.0, 0.02]);
    faults.ack_unreported = one_of(&mut rng, &[0.0, 0.0, 0.1]);
    faults.commands_again = rng.bool();
    faults.travel = Duration::from_secs(one_of(&mut rng, &[0, 0, 1, 20]));
    faults.backlog = Duration::from_secs(one_of(&mut rng, &[0, 0, 0, 300]));
    if !is_an_order_each_time {
        faults.duplicate_request = one_of(&mut rng, &[0.0, 0.0, 0.3]);
    }
}

/// Drawn apart, so that a seed goes on to mean the storm that it was: jobs that may not begin yet, and stages that are told.
fn later(scenario: &mut Scenario, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(!seed);
    scenario.setup.progress = rng.u8(..4) == 0;
    if rng.u8(..6) == 0 {
        for job in &mut scenario.jobs {
            let not_before = start() + SignedDuration::from_secs(rng.i64(0..1_800));
            job.not_before = Some(not_before);
            for send in &mut scenario.sends {
                if send.job == job.job_id {
                    send.body["not_before"] = json!(not_before.to_string());
                }
            }
        }
    }
}

/// How long operators say that a device takes at most: the slowest of these takes seven and a half minutes.
const DEVICE_TAKES: SignedDuration = SignedDuration::from_mins(20);

/// What a pause meets besides, from draws of its own: another pause after it, an operator who says when a device has certainly not begun, and
/// an NBI that turns a rule off when a device takes it.
fn paused_again(scenario: &mut Scenario, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed_0bad);
    if rng.u8(..24) == 0 {
        scenario.setup.semantics.taken_rule = TakenRule::TurnsOff;
    }
    let resumes = |command: &Ordered| command.body.contains("resume");
    let Some(resume) = scenario.commands.iter().position(resumes) else {
        return;
    };
    let ended = scenario.commands[resume].after.as_secs();
    let stays = scenario.setup.semantics.taken_rule == TakenRule::Stays;
    let mut attempts = scenario
        .setup
        .devices
        .iter()
        .flat_map(|device| &device.attempts);
    let all_report = !attempts.any(|attempt| *attempt == AttemptResult::Silent);
    let mut go = json!({"command": "resume", "all": true});
    match rng.u8(..4) {
        0 if all_report => scenario.setup.policy.flash_time_max = DEVICE_TAKES,
        1 if all_report && stays => {
            go["arm_again_after"] = json!(format!("{}s", DEVICE_TAKES.as_secs()));
            scenario.commands[resume].body = go.to_string();
        }
        _ => {}
    }
    if rng.bool() {
        let begins = ended + rng.u64(1..1_800);
        let mut again = std::mem::replace(scenario, Scenario::new(""))
            .order(begins, &json!({"command": "pause", "all": true}))
            .order(begins + rng.u64(1..1_800), &go);
        again.commands.sort_by_key(|command| command.after);
        *scenario = again;
    }
}

/// One job for a device, or the same twice, or two; never two where rules cannot be read, as nothing tells them apart there.
fn jobs(mut scenario: Scenario, rng: &mut fastrand::Rng, cpe_id: &str, is_blind: bool) -> Scenario {
    let count = if is_blind {
        1
    } else {
        one_of(rng, &[1, 1, 1, 2])
    };
    for number in 1..=count {
        let job = format!("{cpe_id}-{number}");
        let mut body = request(&job, cpe_id, &format!("{job}.bin"));
        body["requested_at"] = json!(start().to_string());
        let deadline = start() + SignedDuration::from_secs(rng.i64(2_400..7_200));
        body["deadline"] = json!(deadline.to_string());
        body["max_attempts"] = json!(rng.u8(1..=3));
        body["cleanup"] = json!(one_of(rng, &["deactivate", "deactivate", "delete"]));
        // Nobody says when it was made. Of a rule that is deleted nothing would tell a repeat from a new order then.
        let is_undated = rng.u8(..6) == 0;
        if is_undated && let Some(fields) = body.as_object_mut() {
            fields.remove("requested_at");
            body["cleanup"] = json!("deactivate");
            body["force"] = json!(rng.bool());
        }
        let after = rng.u64(..600);
        scenario = scenario.send(after, &body, &[]);
        let is_an_order_each_time = body["force"] == true;
        if !is_blind && !is_an_order_each_time && rng.u8(..4) == 0 {
            scenario = scenario.send(after + rng.u64(..3_000), &body, &[]);
        }
    }
    scenario
        .jobs
        .iter_mut()
        .for_each(|job| job.may_differ = true);
    scenario
}

/// Some storms have an operator in them.
fn orders(mut scenario: Scenario, rng: &mut fastrand::Rng) -> Scenario {
    if rng.u8(..4) == 0 {
        let job = scenario.jobs[rng.usize(..scenario.jobs.len())]
            .job_id
            .clone();
        let cancel = json!({"command": "cancel", "job_id": job});
        scenario = scenario.order(rng.u64(..3_000), &cancel);
    }
    if rng.u8(..4) == 0 {
        let begins = rng.u64(..2_000);
        let ends = begins + rng.u64(1..2_000);
        scenario = scenario
            .order(begins, &json!({"command": "pause", "all": true}))
            .order(ends, &json!({"command": "resume", "all": true}));
    }
    if !scenario.commands.is_empty() {
        // A job that is paused lives long, and each repeated delivery of it is one more copy: hundreds of them show nothing new.
        let faults = &mut scenario.faults;
        for fault in [
            &mut faults.ack_lost,
            &mut faults.confirm_lost,
            &mut faults.confirm_late,
            &mut faults.duplicate,
        ] {
            *fault = fault.min(0.04);
        }
    }
    scenario.commands.sort_by_key(|command| command.after);
    scenario
}

/// A share of all jobs, and the percentage that it may be.
struct Share {
    what: &'static str,
    count: fn(&Tally) -> usize,
    may_be: RangeInclusive<usize>,
}

/// Each case can be explained; many of them would be a worker that cannot judge or gives up, or checks that excuse too much.
const SHARES: [Share; 5] = [
    Share {
        what: "have completed",
        count: |tally| tally.completed,
        may_be: 54..=100,
    },
    Share {
        what: "were judged in two ways",
        count: |tally| tally.differing,
        may_be: 0..=2,
    },
    Share {
        what: "were armed after their end",
        count: |tally| tally.armed_late,
        may_be: 0..=2,
    },
    Share {
        what: "might be flashed again",
        count: |tally| tally.excusable.values().sum(),
        may_be: 0..=32,
    },
    Share {
        what: "were flashed again",
        count: |tally| tally.excused.values().sum(),
        may_be: 0..=3,
    },
];

/// Which shares are not as they may be.
fn wrong_shares(tally: &Tally) -> Vec<String> {
    let wrong = SHARES.iter().filter_map(|share| {
        let (count, jobs) = ((share.count)(tally), tally.jobs);
        let Share { what, may_be, .. } = share;
        let is_within = (may_be.start() * jobs..=may_be.end() * jobs).contains(&(count * 100));
        (!is_within).then(|| format!("{count} of {jobs} jobs {what}: not {may_be:?} percent"))
    });
    wrong.collect()
}

fn report(seed: u64, run: &Run) -> String {
    run.report(&format!("NBI_UPGRADE_STORM_SEED={seed}"))
}

#[test]
fn the_same_seed_gives_the_same_storm() {
    for seed in 0..5 {
        let [one, other] = [(); 2].map(|()| {
            let (scenario, plan) = storm(seed);
            run(&scenario, plan).lines
        });
        assert_eq!(one, other, "seed {seed}");
    }
}

#[test]
fn storms() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    if let Some(seed) = number("NBI_UPGRADE_STORM_SEED") {
        let (scenario, plan) = storm(seed);
        println!("{scenario:#?}");
        let run = run(&scenario, plan);
        println!("{}", report(seed, &run));
        assert!(run.violations.is_empty(), "{:#?}", run.violations);
        return;
    }
    let begun = Instant::now();
    let count = number("NBI_UPGRADE_STORMS").unwrap_or(STORMS);
    let (mut crashes, mut calls, mut tally) = (0, 0, Tally::default());
    let mut failed = Vec::new();
    for seed in 0..count {
        let (scenario, plan) = storm(seed);
        let run = run(&scenario, plan);
        crashes += run.crashes;
        calls += run.calls;
        tally.add(&run.tally);
        if !run.violations.is_empty() {
            failed.push((seed, run));
        }
    }
    println!(
        "{count} storms, {crashes} crashes, {calls} NBI calls, {} wrong, {:.1} s: {tally:#?}",
        failed.len(),
        begun.elapsed().as_secs_f64()
    );
    let Some((seed, run)) = failed.first() else {
        if count >= STORMS {
            assert_eq!(wrong_shares(&tally), Vec::<String>::new());
        }
        return;
    };
    let mut list = String::new();
    for (seed, run) in failed.iter().take(LISTED) {
        list.push_str(&format!("seed {seed}: {}\n", run.violations.join("; ")));
    }
    panic!(
        "{} storms are wrong:\n{list}\nthe first one:\n{}",
        failed.len(),
        report(*seed, run)
    );
}

#[test]
fn a_share_at_its_bound_may_be_and_one_beyond_may_not() {
    let tally = |per_mille: [usize; 5]| Tally {
        jobs: 1_000,
        completed: per_mille[0],
        differing: per_mille[1],
        armed_late: per_mille[2],
        excusable: [("a cause", per_mille[3])].into(),
        excused: [("a cause", per_mille[4])].into(),
        ..Tally::default()
    };
    let [completed, differing, armed_late, excusable, excused] = SHARES.map(|share| share.may_be);
    let at = [
        completed.start() * 10,
        differing.end() * 10,
        armed_late.end() * 10,
        excusable.end() * 10,
        excused.end() * 10,
    ];
    assert_eq!(wrong_shares(&tally(at)), Vec::<String>::new());
    for (index, share) in SHARES.iter().enumerate() {
        let mut beyond = at;
        beyond[index] = if index == 0 { at[0] - 1 } else { at[index] + 1 };
        let wrong = wrong_shares(&tally(beyond));
        assert!(
            wrong.len() == 1 && wrong[0].contains(share.what),
            "{wrong:?}"
        );
    }
}
