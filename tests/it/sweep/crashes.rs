//! The sweep: each scenario once without a crash, then with one at every point, then with two.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::points::Plan;
use super::run::{Run, run};
use super::scenarios::{self, Scenario};

/// Pairs of points sampled a scenario in the default run.
const PAIRS: usize = 6;

/// Of the points of a late redelivery, every so many are taken in the default run; no divisor of a step's six points.
const EVERY: usize = 7;

/// Wrong runs that are listed at most.
pub(crate) const LISTED: usize = 200;

/// A run that went wrong.
pub(crate) struct Case {
    pub(crate) replay: String,
    pub(crate) run: Run,
}

/// What came of a scenario.
pub(crate) struct Cases {
    pub(crate) points: usize,
    pub(crate) runs: usize,
    /// How often which verdicts were seen.
    pub(crate) verdicts: BTreeMap<String, usize>,
    pub(crate) failed: Vec<Case>,
}

impl Cases {
    fn note(&mut self, scenario: &Scenario, at: &[usize], run: Run) {
        self.runs += 1;
        for (job, verdicts) in &run.verdicts {
            let verdicts: Vec<&str> = verdicts.iter().map(String::as_str).collect();
            let text = format!("{job} {}", verdicts.join(" and "));
            *self.verdicts.entry(text).or_default() += 1;
        }
        if !run.violations.is_empty() {
            let mut replay = format!("NBI_UPGRADE_REPLAY={}", scenario.name);
            for point in at {
                replay.push_str(&format!(":{point}"));
            }
            self.failed.push(Case { replay, run });
        }
    }
}

/// Runs without a crash, which says how many points there are and how many calls a sound run makes.
fn undisturbed(scenario: &mut Scenario) -> Cases {
    let mut cases = Cases {
        points: 0,
        runs: 0,
        verdicts: BTreeMap::new(),
        failed: Vec::new(),
    };
    let first = run(scenario, Plan::default());
    cases.points = first.points;
    scenario.calls = Some(first.calls);
    cases.note(scenario, &[], first);
    cases
}

/// A crash at every point.
pub(crate) fn every_single_crash(scenario: &Scenario) -> Cases {
    crash_at(scenario, 1)
}

/// A crash at every point, or at every so many of them.
fn crash_at(scenario: &Scenario, every: usize) -> Cases {
    let mut scenario = scenario.clone();
    let mut cases = undisturbed(&mut scenario);
    for point in (1..=cases.points).step_by(every) {
        cases.note(&scenario, &[point], run(&scenario, Plan::at(&[point])));
    }
    cases
}

/// Two crashes: at every pair of points, or at so many sampled ones.
fn pairs(scenario: &Scenario, sample: Option<usize>, seed: u64) -> Cases {
    let mut scenario = scenario.clone();
    let mut cases = undisturbed(&mut scenario);
    let mut rng = fastrand::Rng::with_seed(seed);
    match sample {
        None => {
            for first in 1..=cases.points {
                // The second crash may be in what only the first one made necessary.
                let points = run(&scenario, Plan::at(&[first])).points;
                for second in first + 1..=points {
                    let at = [first, second];
                    cases.note(&scenario, &at, run(&scenario, Plan::at(&at)));
                }
            }
        }
        Some(count) => {
            for _ in 0..count {
                let first = rng.usize(1..=cases.points);
                // Mostly soon after, where the first one is being mended.
                let reach = if rng.bool() { 30 } else { 2 * cases.points };
                let at = [first, first + rng.usize(1..=reach)];
                cases.note(&scenario, &at, run(&scenario, Plan::at(&at)));
            }
        }
    }
    cases
}

/// The scenarios that are wanted: by a part of their name, and every n-th of them, for processes that share the work.
fn chosen() -> impl Iterator<Item = Scenario> {
    let only = std::env::var("NBI_UPGRADE_SWEEP_ONLY").unwrap_or_default();
    let part = std::env::var("NBI_UPGRADE_SWEEP_PART").unwrap_or_else(|_| "1/1".to_owned());
    let (which, of) = part.split_once('/').unwrap();
    let (which, of): (usize, usize) = (which.parse().unwrap(), of.parse().unwrap());
    assert!((1..=of).contains(&which), "NBI_UPGRADE_SWEEP_PART={part}");
    let part = scenarios::all().into_iter().skip(which - 1).step_by(of);
    part.filter(move |scenario| scenario.name.contains(&only))
}

/// Prints a line a scenario, and fails with the first cases that went wrong.
fn sweep(
    what: &str,
    scenarios: impl IntoIterator<Item = Scenario>,
    mut each: impl FnMut(&Scenario) -> Cases,
) {
    let begun = Instant::now();
    let (mut runs, mut points, mut failed) = (0, 0, Vec::new());
    for scenario in scenarios {
        let cases = each(&scenario);
        println!(
            "{what} {:<36} {:>4} points {:>5} runs, seed {}: {:?}",
            scenario.name, cases.points, cases.runs, scenario.faults.seed, cases.verdicts
        );
        runs += cases.runs;
        points += cases.points;
        failed.extend(cases.failed);
    }
    println!(
        "{what}: {points} points, {runs} runs, {} wrong, {:.1} s",
        failed.len(),
        begun.elapsed().as_secs_f64()
    );
    assert_none(&failed);
}

/// Fails with a list of what went wrong and the whole history of the first case.
fn assert_none(failed: &[Case]) {
    let Some(first) = failed.first() else { return };
    let mut list = String::new();
    for case in failed.iter().take(LISTED) {
        list.push_str(&format!(
            "{}  {}\n",
            case.replay,
            case.run.violations.join("; ")
        ));
    }
    panic!(
        "{} cases are wrong:\n{list}\nthe first one:\n{}",
        failed.len(),
        first.run.report(&first.replay)
    );
}

#[test]
fn a_crash_at_every_point_of_every_scenario() {
    let at_once = chosen().filter(Scenario::comes_at_once);
    sweep("single", at_once, every_single_crash);
}

#[test]
fn a_crash_whose_deliveries_come_again_late() {
    let wanted = std::env::var("NBI_UPGRADE_SWEEP_PAIRS").is_ok();
    let every = if wanted { 1 } else { EVERY };
    let late = chosen().filter(|scenario| !scenario.comes_at_once());
    sweep("late", late, |scenario| crash_at(scenario, every));
}

#[test]
fn two_crashes_in_every_scenario() {
    let wanted = std::env::var("NBI_UPGRADE_SWEEP_PAIRS").ok();
    let sample = match wanted.as_deref() {
        Some("all") => None,
        Some(count) => Some(count.parse().unwrap()),
        None => Some(PAIRS),
    };
    sweep("pairs", chosen(), |scenario| pairs(scenario, sample, 1));
}

/// The calls that the bound of every run is made of, so that a change that asks more shows.
#[test]
fn what_an_undisturbed_run_asks_of_the_nbi() {
    if std::env::var("NBI_UPGRADE_SWEEP_SEED").is_ok() {
        return;
    }
    let calls: String = scenarios::all()
        .iter()
        .filter(|scenario| scenario.comes_at_once())
        .map(|scenario| {
            let calls = run(scenario, Plan::default()).calls;
            format!("{:<36} {calls:>4}\n", scenario.name)
        })
        .collect();
    insta::assert_snapshot!(calls);
}

#[test]
fn the_same_plan_gives_the_same_run() {
    for name in ["success", "two_jobs_wait+100s", "nbi_down"] {
        let scenario = scenarios::named(name);
        let [one, other] = [(); 2].map(|()| run(&scenario, Plan::at(&[23])).lines);
        assert_eq!(one, other, "{name}");
    }
}

/// Does nothing unless `NBI_UPGRADE_REPLAY` names a case.
#[test]
fn replay() {
    let Ok(case) = std::env::var("NBI_UPGRADE_REPLAY") else {
        return;
    };
    let mut parts = case.split(':');
    let mut scenario = scenarios::named(parts.next().unwrap());
    let at: Vec<usize> = parts.map(|point| point.parse().unwrap()).collect();
    undisturbed(&mut scenario);
    let begun = Instant::now();
    let run = run(&scenario, Plan::at(&at));
    println!("{}", run.report(&format!("NBI_UPGRADE_REPLAY={case}")));
    println!("{} points, {} crashes", run.points, run.crashes);
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert!(run.violations.is_empty(), "{:#?}", run.violations);
}
