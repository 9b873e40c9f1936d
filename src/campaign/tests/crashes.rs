//! A coordinator in miniature that dies at every point, again and again, over a model of queue, log and exchange; and the same with
//! flaws, each of which must be found out, or the test proves nothing. The product's own core decides; the order of the steps is that of
//! `driver/amqp/campaign/starts.rs`.

use std::collections::{BTreeSet, VecDeque};

use super::*;

const DEVICES: usize = 60;
/// Starts a minute: one in 100 ms, five for the credit.
const RATE: u32 = 600;
/// Kills in a row before the campaign is left in peace.
const KILLS: usize = 60;

/// What is wrong with the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// Publishes the requests before the release stands in the log.
    PublishBeforeLog,
    /// Acknowledges devices before their requests are confirmed.
    AckBeforeConfirm,
    /// Begins with a fresh pace when it takes over.
    ForgetsPace,
    /// Takes every device in the log for published.
    BelievesTheLog,
}

/// What a device takes, from its first request on.
const TAKES: SignedDuration = SignedDuration::from_secs(2);

/// The broker, as far as a campaign needs it, and its devices.
struct Broker {
    plan: Plan,
    queue: VecDeque<Device>,
    log: Vec<Record>,
    /// When each request was published.
    requests: Vec<(Timestamp, CpeId)>,
    finished: BTreeSet<CpeId>,
    most_under_way: usize,
    now: Timestamp,
}

/// It died.
struct Killed;

/// Dies after so many steps.
struct Life(usize);

impl Life {
    fn step(&mut self) -> Result<(), Killed> {
        self.0 = self.0.checked_sub(1).ok_or(Killed)?;
        Ok(())
    }
}

fn paced() -> Plan {
    Plan {
        pace: Pace {
            starts_per_minute: Some(RATE),
            ..Pace::default()
        },
        ..Plan::default()
    }
}

fn placed(max_in_flight: u32) -> Plan {
    Plan {
        pace: Pace {
            max_in_flight: Some(max_in_flight),
            ..Pace::default()
        },
        ..Plan::default()
    }
}

/// Two keys.
fn keyed(device: Device) -> Device {
    let number = device.cpe_id.as_str().as_bytes().last().copied();
    let key = number.map(|last| format!("olt-{}", last % 2));
    Device {
        concurrency_key: key,
        ..device
    }
}

impl Broker {
    fn new(plan: Plan) -> Self {
        Self {
            plan,
            queue: devices(0..DEVICES).into_iter().map(keyed).collect(),
            log: vec![Record::Accepted {
                at: noon(),
                began_at: noon(),
            }],
            requests: Vec::new(),
            finished: BTreeSet::new(),
            most_under_way: 0,
            now: noon(),
        }
    }

    /// Time passes; devices that were requested long enough ago have finished.
    fn pass(&mut self, until: Timestamp, state: &mut State) {
        self.now = until.max(self.now + SignedDuration::from_millis(1));
        let done: Vec<_> = self
            .requests
            .iter()
            .filter(|(at, id)| *at + TAKES <= self.now && !self.finished.contains(id))
            .map(|(_, id)| id.clone())
            .collect();
        for cpe_id in done {
            if self.finished.insert(cpe_id.clone()) {
                let record = Record::Finished {
                    at: self.now,
                    cpe_id,
                    outcome: Outcome::Completed,
                    failure: None,
                };
                state.apply(&record, &self.plan, noon());
                self.log.push(record);
            }
        }
    }

    /// One coordinator from its takeover until nothing waits, or until it dies.
    fn coordinate(&mut self, name: &str, flaw: Flaw, mut life: Life) -> Result<(), Killed> {
        let plan = self.plan.clone();
        let mut state = State::default();
        let remembered = if flaw == Flaw::ForgetsPace {
            Plan::default()
        } else {
            plan.clone()
        };
        for record in &self.log {
            state.apply(record, &remembered, noon());
            if let (Flaw::BelievesTheLog, Record::Released { coordinator, .. }) = (flaw, record) {
                state.settle(coordinator);
            }
        }
        while !self.queue.is_empty() && self.now < noon() + SignedDuration::from_hours(2) {
            let situation = Situation {
                now: self.now,
                waiting: self.queue.len() as u64,
                held: None,
                began_at: noon(),
            };
            match decide(&plan, &state, situation) {
                Action::Release { at_most, places } => {
                    let at_hand: Vec<Device> = self.queue.iter().cloned().collect();
                    let answers = state.admit(&plan, &at_hand, at_most as usize, places as usize);
                    let of = |wanted| {
                        let chosen = at_hand.iter().zip(&answers);
                        let chosen = chosen.filter(|(_, answer)| **answer == wanted);
                        chosen.map(|(device, _)| device.clone()).collect::<Vec<_>>()
                    };
                    self.acknowledge(&of(Admission::Drop), &mut life)?;
                    let starting = of(Admission::Start);
                    if starting.is_empty() {
                        self.pass(self.now + SignedDuration::from_secs(1), &mut state);
                        continue;
                    }
                    self.start(name, flaw, &starting, &mut state, &mut life)?;
                }
                Action::Wait { until, .. } => self.pass(until, &mut state),
                other @ (Action::Pause { .. }
                | Action::Drain(_)
                | Action::Conclude(_)
                | Action::Abandon) => panic!("{other:?}"),
            }
        }
        Ok(())
    }

    fn start(
        &mut self,
        name: &str,
        flaw: Flaw,
        starting: &[Device],
        state: &mut State,
        life: &mut Life,
    ) -> Result<(), Killed> {
        let release = Record::Released {
            coordinator: name.to_owned(),
            at: self.now,
            devices: starting.to_vec(),
        };
        if flaw == Flaw::PublishBeforeLog {
            self.publish(starting, life)?;
        }
        if flaw == Flaw::AckBeforeConfirm {
            self.acknowledge(starting, life)?;
        }
        life.step()?;
        self.log.push(release.clone());
        state.apply(&release, &self.plan, noon());
        if flaw != Flaw::PublishBeforeLog {
            self.publish(starting, life)?;
        }
        self.acknowledge(starting, life)?;
        state.settle(name);
        Ok(())
    }

    fn publish(&mut self, devices: &[Device], life: &mut Life) -> Result<(), Killed> {
        for device in devices {
            life.step()?;
            self.requests.push((self.now, device.cpe_id.clone()));
            let started: BTreeSet<_> = self.requests.iter().map(|(_, id)| id).collect();
            let under_way = started.len() - self.finished.len();
            self.most_under_way = self.most_under_way.max(under_way);
        }
        Ok(())
    }

    fn acknowledge(&mut self, devices: &[Device], life: &mut Life) -> Result<(), Killed> {
        for device in devices {
            life.step()?;
            self.queue.retain(|waiting| waiting != device);
        }
        Ok(())
    }

    /// What is not as it should be, once the queue is empty.
    fn complaints(&self) -> BTreeSet<&'static str> {
        let mut complaints = BTreeSet::new();
        let started: BTreeSet<_> = self.requests.iter().map(|(_, device)| device).collect();
        if started.len() < DEVICES {
            complaints.insert("a device is lost");
        }
        let places = self.plan.pace.max_in_flight.unwrap_or(u32::MAX);
        if self.most_under_way > places as usize {
            complaints.insert("too many are under way");
        }
        if !self.queue.is_empty() {
            complaints.insert("it stands still");
        }
        let Some(per_minute) = self.plan.pace.starts_per_minute else {
            return complaints;
        };
        let per_second = per_minute as usize / 60;
        for (index, (from, _)) in self.requests.iter().enumerate() {
            for seconds in [1, 2, 5] {
                let end = *from + SignedDuration::from_secs(seconds as i64);
                let count = self.requests[index..]
                    .iter()
                    .filter(|(at, _)| *at < end)
                    .count();
                if count > (seconds + 1) * per_second {
                    complaints.insert("the pace is exceeded");
                }
            }
        }
        complaints
    }
}

/// Every complaint of runs whose coordinators die after 0, 1, 2, … steps each.
fn found(flaw: Flaw, plan: &Plan) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    for steps in 0..40 {
        let mut broker = Broker::new(plan.clone());
        for kill in 0..KILLS {
            let died = broker.coordinate(&format!("c-{kill}"), flaw, Life(steps));
            if died.is_ok() {
                break;
            }
        }
        let last = broker.coordinate("last", flaw, Life(usize::MAX));
        assert!(last.is_ok());
        found.extend(broker.complaints());
    }
    found
}

#[test]
fn coordinators_that_die_at_every_point_lose_no_device_and_keep_the_pace() {
    assert_eq!(found(Flaw::None, &paced()), BTreeSet::new());
}

/// Where every place is taken by a batch that was written down and never published, only its devices can free them: they need none to be
/// started again.
#[test]
fn coordinators_that_die_at_every_point_leave_no_place_taken_by_nobody() {
    for max_in_flight in [1, 5] {
        let plan = placed(max_in_flight);
        assert_eq!(found(Flaw::None, &plan), BTreeSet::new(), "{plan:?}");
    }
    for per_key in [1, 5] {
        let plan = Plan {
            max_in_flight_per_key: Some(per_key),
            ..placed(7)
        };
        assert_eq!(found(Flaw::None, &plan), BTreeSet::new(), "{plan:?}");
    }
    let both = Pace {
        max_in_flight: Some(5),
        ..paced().pace
    };
    let plan = Plan {
        pace: both,
        ..Plan::default()
    };
    assert_eq!(found(Flaw::None, &plan), BTreeSet::new(), "{plan:?}");
}

#[test]
fn a_coordinator_that_publishes_before_it_writes_is_found_out() {
    assert!(found(Flaw::PublishBeforeLog, &paced()).contains("the pace is exceeded"));
}

#[test]
fn a_coordinator_that_acknowledges_before_the_confirm_is_found_out() {
    assert!(found(Flaw::AckBeforeConfirm, &paced()).contains("a device is lost"));
}

#[test]
fn a_coordinator_that_forgets_the_pace_at_a_takeover_is_found_out() {
    assert!(found(Flaw::ForgetsPace, &paced()).contains("the pace is exceeded"));
}

#[test]
fn a_coordinator_that_takes_the_log_for_what_was_published_is_found_out() {
    assert!(found(Flaw::BelievesTheLog, &paced()).contains("a device is lost"));
}

/// Faults come sooner than successes: without a minimum a healthy campaign would pause at once.
#[test]
fn a_criterion_without_a_minimum_stops_a_healthy_campaign_and_is_found_out() {
    let pauses = |min_finished| {
        let abort = vec![Abort {
            failure: FailureKind::DeviceFault,
            percent: 5.0,
            min_finished,
        }];
        let mut campaign = Campaign::new(Plan {
            abort,
            ..Plan::default()
        });
        campaign.release(0..1_000, at(1));
        // Two percent fail, and most of those within the first minutes.
        let mut paused_at = None;
        for number in 0..1_000 {
            if number < 100 && number % 5 == 0 {
                campaign.fail(number..number + 1, FailureKind::DeviceFault, at(60));
            } else {
                campaign.complete(number..number + 1, at(300));
            }
            if let Action::Pause { .. } = campaign.decide(100, at(301)) {
                paused_at.get_or_insert(number);
            }
        }
        paused_at
    };
    assert_eq!(pauses(500), None);
    assert_eq!(pauses(1), Some(0));
}
