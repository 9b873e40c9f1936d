//! Tests of the core of campaigns: no async, no clock. `windows` has the nights on which clocks change, `paces` whole minutes and
//! failovers, `decisions` what pauses, ends and holds a campaign, `ends` its last devices, `crashes` coordinators that die, and broken ones.

mod crashes;
mod decisions;
mod ends;
mod paces;
mod windows;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::job::{CpeId, Outcome};

/// Monday noon: when every test's campaign began.
fn noon() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

/// That many milliseconds after noon.
fn at_ms(millis: i64) -> Timestamp {
    noon() + SignedDuration::from_millis(millis)
}

/// That many seconds after noon.
fn at(seconds: i64) -> Timestamp {
    at_ms(seconds * 1_000)
}

fn device(number: usize) -> Device {
    Device {
        cpe_id: CpeId::parse(format!("CPE{number:06}")).unwrap(),
        concurrency_key: None,
    }
}

fn devices(numbers: std::ops::Range<usize>) -> Vec<Device> {
    numbers.map(device).collect()
}

/// A campaign under test: a plan and the state so far.
struct Campaign {
    plan: Plan,
    state: State,
}

impl Campaign {
    fn new(plan: Plan) -> Self {
        let mut campaign = Self {
            plan,
            state: State::default(),
        };
        campaign.apply(&Record::Accepted {
            at: noon(),
            began_at: noon(),
        });
        campaign
    }

    fn apply(&mut self, record: &Record) {
        self.state.apply(record, &self.plan, noon());
    }

    fn release(&mut self, numbers: std::ops::Range<usize>, now: Timestamp) {
        self.apply(&Record::Released {
            coordinator: "a".to_owned(),
            at: now,
            devices: devices(numbers),
        });
        self.state.settle("a");
    }

    fn finish(
        &mut self,
        number: usize,
        outcome: Outcome,
        failure: Option<FailureKind>,
        now: Timestamp,
    ) {
        self.apply(&Record::Finished {
            at: now,
            cpe_id: device(number).cpe_id,
            outcome,
            failure,
        });
    }

    fn complete(&mut self, numbers: std::ops::Range<usize>, now: Timestamp) {
        for number in numbers {
            self.finish(number, Outcome::Completed, None, now);
        }
    }

    fn fail(&mut self, numbers: std::ops::Range<usize>, failure: FailureKind, now: Timestamp) {
        for number in numbers {
            self.finish(number, Outcome::Failed, Some(failure), now);
        }
    }

    fn decide(&mut self, waiting: u64, now: Timestamp) -> Action {
        self.state.expire(&self.plan, now);
        let situation = Situation {
            now,
            waiting,
            held: None,
            began_at: noon(),
        };
        decide(&self.plan, &self.state, situation)
    }
}
