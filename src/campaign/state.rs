//! What a campaign has come to, folded from its log.
//!
//! Bounded by the number of devices released: about 150 bytes each, 15 MB for 100,000. Devices that wait are in the queue and not here.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::counts::Counts;
use super::pace::Pacer;
use super::plan::{FailureKind, Plan};
use super::record::{Device, PauseReason, Record};
use crate::job::{CpeId, Outcome};

/// Where a released device stands.
#[derive(Debug, Clone)]
enum Place {
    /// It is under way and takes a place.
    InFlight {
        since: Timestamp,
        key: Option<Arc<str>>,
    },
    /// It has been under way for too long to keep its place.
    Silent { since: Timestamp },
    /// It has its outcome.
    Finished,
}

/// Since when and why a campaign is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paused {
    /// Since when.
    pub at: Timestamp,
    /// Why.
    pub reason: PauseReason,
    /// For people.
    pub message: String,
}

/// What becomes of a device whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may be started.
    Start,
    /// It was started before, or its message is a copy: the message can go.
    Drop,
    /// Too many of its key are under way: it keeps waiting.
    KeyIsBusy,
}

/// What a campaign has come to.
#[derive(Debug, Clone, Default)]
pub struct State {
    devices: HashMap<CpeId, Place>,
    /// Devices in the order of their release, for the in-flight timeout.
    in_order: VecDeque<(Timestamp, CpeId)>,
    in_flight: u32,
    unfinished: u64,
    per_key: HashMap<Arc<str>, u32>,
    /// The last release of each coordinator: whether its requests were published is not known.
    unsettled: HashMap<String, Vec<CpeId>>,
    counts: Counts,
    acknowledged: Counts,
    pacer: Pacer,
    /// Sum and number of the times that completed devices took.
    took: (SignedDuration, u32),
    /// When devices were added last.
    pub accepted_at: Option<Timestamp>,
    /// Since when and why it is paused.
    pub paused: Option<Paused>,
    /// How often it was paused; numbers the events.
    pub pauses: u32,
    /// How often it was resumed; numbers the events.
    pub resumes: u32,
    /// Since when it is being cancelled.
    pub cancelling: Option<Timestamp>,
    /// The last order of an operator that was carried out.
    pub order: Option<String>,
    /// When counts were published last, and which.
    pub progressed: Option<(Timestamp, Counts)>,
    /// Whether the deadline is in jeopardy, as far as it was announced.
    pub is_in_jeopardy: bool,
    /// How often that changed; numbers the events.
    pub jeopardies: u32,
    /// Whether it is over.
    pub is_concluded: bool,
}

impl State {
    /// Takes an entry of the log in. `began_at` is when this campaign began.
    pub fn apply(&mut self, record: &Record, plan: &Plan, began_at: Timestamp) {
        match record {
            Record::Accepted { at } => self.accepted_at = Some(*at),
            Record::Released {
                coordinator,
                at,
                devices,
            } => self.released(coordinator, *at, devices, plan),
            Record::Finished {
                at,
                cpe_id,
                outcome,
                failure,
            } => self.finished(*at, cpe_id, *outcome, *failure),
            Record::Paused {
                at,
                reason,
                message,
                order,
            } => {
                self.pauses += 1;
                self.paused = Some(Paused {
                    at: *at,
                    reason: *reason,
                    message: message.clone(),
                });
                self.ordered(order.as_ref());
            }
            Record::Resumed { order, .. } => {
                self.resumes += 1;
                self.paused = None;
                self.acknowledged = self.counts;
                self.ordered(order.as_ref());
            }
            Record::Cancelling { at, order } => {
                self.cancelling.get_or_insert(*at);
                self.ordered(order.as_ref());
            }
            Record::Progressed { at } => self.progressed = Some((*at, self.counts)),
            Record::Jeopardy { is_in_jeopardy } => {
                self.jeopardies += 1;
                self.is_in_jeopardy = *is_in_jeopardy;
            }
            Record::Concluded { began_at: of } if *of == began_at => self.is_concluded = true,
            // What came before belongs to an earlier campaign of the same name.
            Record::Concluded { .. } => *self = Self::default(),
        }
    }

    fn ordered(&mut self, order: Option<&String>) {
        if let Some(order) = order {
            self.order = Some(order.clone());
        }
    }

    fn released(&mut self, coordinator: &str, at: Timestamp, devices: &[Device], plan: &Plan) {
        if let Some(rate) = plan.pace.rate(self.counts.completed) {
            self.pacer.took(devices.len(), rate, at);
        }
        let ids = devices.iter().map(|device| device.cpe_id.clone()).collect();
        self.unsettled.insert(coordinator.to_owned(), ids);
        for device in devices {
            // One that is started again, as nobody knows whether it was: it has its place already.
            if self.devices.contains_key(&device.cpe_id) {
                continue;
            }
            let key = device.concurrency_key.as_deref().map(Arc::<str>::from);
            if let Some(key) = &key {
                *self.per_key.entry(Arc::clone(key)).or_default() += 1;
            }
            self.devices
                .insert(device.cpe_id.clone(), Place::InFlight { since: at, key });
            self.in_order.push_back((at, device.cpe_id.clone()));
            self.in_flight += 1;
            self.unfinished += 1;
            self.counts.released += 1;
        }
    }

    fn finished(
        &mut self,
        at: Timestamp,
        cpe_id: &CpeId,
        outcome: Outcome,
        failure: Option<FailureKind>,
    ) {
        let before = self.devices.insert(cpe_id.clone(), Place::Finished);
        let since = match before {
            Some(Place::Finished) => return,
            Some(Place::InFlight { since, key }) => {
                self.free(key.as_ref());
                self.unfinished -= 1;
                Some(since)
            }
            Some(Place::Silent { since }) => {
                self.unfinished -= 1;
                Some(since)
            }
            // It was told its outcome without having been started.
            None => None,
        };
        match outcome {
            Outcome::Completed => self.counts.completed += 1,
            Outcome::Cancelled => self.counts.cancelled += 1,
            Outcome::Failed | Outcome::Rejected => self.counts.failed += 1,
        }
        match failure {
            Some(FailureKind::DeviceFault) => self.counts.device_fault += 1,
            Some(FailureKind::TimedOut) => self.counts.timed_out += 1,
            Some(FailureKind::Configuration) => self.counts.configuration += 1,
            Some(FailureKind::Any) | None => {}
        }
        if let (Outcome::Completed, Some(since)) = (outcome, since) {
            let one = at.duration_since(since).max(SignedDuration::ZERO);
            self.took = (self.took.0.saturating_add(one), self.took.1 + 1);
        }
    }

    fn free(&mut self, key: Option<&Arc<str>>) {
        self.in_flight -= 1;
        if let Some(key) = key
            && let Some(count) = self.per_key.get_mut(key)
        {
            *count -= 1;
            if *count == 0 {
                self.per_key.remove(key);
            }
        }
    }

    /// Frees the places of devices that have been under way for longer than the plan waits.
    pub fn expire(&mut self, plan: &Plan, now: Timestamp) {
        while let Some((since, cpe_id)) = self.in_order.front() {
            let is_silent = plan
                .pace
                .in_flight_timeout
                .is_some_and(|timeout| now.duration_since(*since) >= timeout);
            let place = self.devices.get_mut(cpe_id);
            match place {
                Some(place @ Place::InFlight { .. }) if is_silent => {
                    let silent = Place::Silent { since: *since };
                    let Place::InFlight { key, .. } = std::mem::replace(place, silent) else {
                        return;
                    };
                    self.free(key.as_ref());
                }
                Some(Place::InFlight { .. }) => return,
                Some(Place::Silent { .. } | Place::Finished) | None => {}
            }
            self.in_order.pop_front();
        }
    }

    /// When the next place becomes free by itself.
    #[must_use]
    pub fn expires_at(&self, plan: &Plan) -> Option<Timestamp> {
        let (since, _) = self.in_order.front()?;
        since.checked_add(plan.pace.in_flight_timeout?).ok()
    }

    /// Chooses among devices whose messages are at hand, in order: at most `at_most` of the answers are [`Admission::Start`], and devices
    /// behind the last of them get none.
    #[must_use]
    pub fn admit(&self, plan: &Plan, at_hand: &[Device], at_most: usize) -> Vec<Admission> {
        let mut chosen: HashSet<&CpeId> = HashSet::new();
        let mut keys: HashMap<&str, u32> = HashMap::new();
        let mut answers = Vec::with_capacity(at_hand.len());
        for device in at_hand {
            if self.is_known(&device.cpe_id) || chosen.contains(&device.cpe_id) {
                answers.push(Admission::Drop);
                continue;
            }
            if let (Some(most), Some(key)) = (
                plan.max_in_flight_per_key,
                device.concurrency_key.as_deref(),
            ) {
                let is_again = self.devices.contains_key(&device.cpe_id);
                let under_way = self.per_key.get(key).copied().unwrap_or(0);
                let batch = keys.entry(key).or_default();
                if !is_again && under_way + *batch >= most {
                    answers.push(Admission::KeyIsBusy);
                    continue;
                }
                if chosen.len() < at_most {
                    *batch += 1;
                }
            }
            if chosen.len() >= at_most {
                break;
            }
            chosen.insert(&device.cpe_id);
            answers.push(Admission::Start);
        }
        answers
    }

    /// Whether a device is under way or has its outcome, for certain.
    fn is_known(&self, cpe_id: &CpeId) -> bool {
        match self.devices.get(cpe_id) {
            None => false,
            Some(Place::Finished) => true,
            Some(Place::InFlight { .. } | Place::Silent { .. }) => {
                !self.unsettled.values().any(|ids| ids.contains(cpe_id))
            }
        }
    }

    /// Whether a device was started, as far as the log says.
    #[must_use]
    pub fn is_released(&self, cpe_id: &CpeId) -> bool {
        self.devices.contains_key(cpe_id)
    }

    /// Whether a device has its outcome.
    #[must_use]
    pub fn is_finished(&self, cpe_id: &CpeId) -> bool {
        matches!(self.devices.get(cpe_id), Some(Place::Finished))
    }

    /// Notes that everything which this coordinator released is published.
    pub fn settle(&mut self, coordinator: &str) {
        self.unsettled.remove(coordinator);
    }

    /// All counts.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The counts since the last resumption: what abort criteria look at.
    #[must_use]
    pub fn unacknowledged(&self) -> Counts {
        self.counts.since(self.acknowledged)
    }

    /// Devices that take a place.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Devices that were started and have no outcome, silent ones among them.
    #[must_use]
    pub fn unfinished(&self) -> u64 {
        self.unfinished
    }

    /// When the next may start.
    #[must_use]
    pub fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    /// Starts in a minute now; `None`: no bound.
    #[must_use]
    pub fn rate(&self, plan: &Plan) -> Option<f64> {
        plan.pace.rate(self.counts.completed)
    }

    /// What a completed device took on average; `None` while none completed.
    #[must_use]
    pub fn mean_duration(&self) -> Option<SignedDuration> {
        let (sum, count) = self.took;
        sum.checked_div(i32::try_from(count).ok().filter(|count| *count > 0)?)
    }
}
