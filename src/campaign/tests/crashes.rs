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

/// The broker, as far as a campaign needs it.
struct Broker {
    queue: VecDeque<Device>,
    log: Vec<Record>,
    /// When each request was published.
    requests: Vec<(Timestamp, CpeId)>,
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

fn plan() -> Plan {
    Plan {
        pace: Pace {
            starts_per_minute: Some(RATE),
            ..Pace::default()
        },
        ..Plan::default()
    }
}

impl Broker {
    fn new() -> Self {
        Self {
            queue: devices(0..DEVICES).into(),
            log: vec![Record::Accepted { at: noon() }],
            requests: Vec::new(),
            now: noon(),
        }
    }

    /// One coordinator from its takeover until nothing waits, or until it dies.
    fn coordinate(&mut self, name: &str, flaw: Flaw, mut life: Life) -> Result<(), Killed> {
        let plan = plan();
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
        while !self.queue.is_empty() {
            let situation = Situation {
                now: self.now,
                waiting: self.queue.len() as u64,
                is_held: false,
                began_at: noon(),
            };
            match decide(&plan, &state, situation) {
                Action::Release { at_most } => {
                    let at_hand: Vec<Device> = self.queue.iter().cloned().collect();
                    let answers = state.admit(&plan, &at_hand, at_most as usize);
                    let of = |wanted| {
                        let chosen = at_hand.iter().zip(&answers);
                        let chosen = chosen.filter(|(_, answer)| **answer == wanted);
                        chosen.map(|(device, _)| device.clone()).collect::<Vec<_>>()
                    };
                    self.acknowledge(&of(Admission::Drop), &mut life)?;
                    let starting = of(Admission::Start);
                    if starting.is_empty() {
                        continue;
                    }
                    self.start(name, flaw, &starting, &mut state, &mut life)?;
                }
                Action::Wait { until, .. } => {
                    self.now = until.max(self.now + SignedDuration::from_millis(1));
                }
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
        state.apply(&release, &plan(), noon());
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
        let per_second = RATE as usize / 60;
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
fn found(flaw: Flaw) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    for steps in 0..40 {
        let mut broker = Broker::new();
        for kill in 0..KILLS {
            let died = broker.coordinate(&format!("c-{kill}"), flaw, Life(steps));
            if died.is_ok() {
                break;
            }
        }
        let last = broker.coordinate("last", flaw, Life(usize::MAX));
        assert!(last.is_ok() && broker.queue.is_empty());
        found.extend(broker.complaints());
    }
    found
}

#[test]
fn coordinators_that_die_at_every_point_lose_no_device_and_keep_the_pace() {
    assert_eq!(found(Flaw::None), BTreeSet::new());
}

#[test]
fn a_coordinator_that_publishes_before_it_writes_is_found_out() {
    assert!(found(Flaw::PublishBeforeLog).contains("the pace is exceeded"));
}

#[test]
fn a_coordinator_that_acknowledges_before_the_confirm_is_found_out() {
    assert!(found(Flaw::AckBeforeConfirm).contains("a device is lost"));
}

#[test]
fn a_coordinator_that_forgets_the_pace_at_a_takeover_is_found_out() {
    assert!(found(Flaw::ForgetsPace).contains("the pace is exceeded"));
}

#[test]
fn a_coordinator_that_takes_the_log_for_what_was_published_is_found_out() {
    assert!(found(Flaw::BelievesTheLog).contains("a device is lost"));
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
