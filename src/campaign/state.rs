//! What a campaign has come to, folded from its log.
//!
//! Bounded by the number of devices released: about 150 bytes each, 15 MB for 100,000. Devices that wait are in the queue and not here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::counts::Counts;
use super::criteria::Disarmed;
use super::pace::Pacer;
use super::plan::{FailureKind, Plan};
use super::record::{Device, PauseReason, Record};
use crate::job::{ArmAgain, CpeId, Outcome};

/// Where a released device stands.
#[derive(Debug, Clone)]
pub(super) enum Place {
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

/// A mean in the making.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: SignedDuration,
    count: i32,
}

impl Mean {
    fn add(&mut self, one: SignedDuration) {
        self.sum = self.sum.saturating_add(one.max(SignedDuration::ZERO));
        self.count = self.count.saturating_add(1);
    }

    fn get(self) -> Option<SignedDuration> {
        self.sum
            .checked_div(Some(self.count).filter(|count| *count > 0)?)
    }
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

/// What a campaign has come to.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub(super) devices: HashMap<CpeId, Place>,
    /// Devices in the order of their releases, for the in-flight timeout.
    in_order: VecDeque<(Timestamp, CpeId)>,
    in_flight: u32,
    unfinished: u64,
    pub(super) per_key: HashMap<Arc<str>, u32>,
    /// Devices without an outcome whose last release is the last of this coordinator: whether their requests were published is not known.
    pub(super) unsettled: HashMap<CpeId, Arc<str>>,
    pub(super) counts: Counts,
    /// Those of `counts` that no criterion looks at.
    pub(super) acknowledged: Counts,
    disarmed: Option<Disarmed>,
    pacer: Pacer,
    /// What completed devices took.
    took: Mean,
    /// For how long devices kept their places.
    kept: Mean,
    /// When devices were started last.
    pub released_at: Option<Timestamp>,
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
    /// Whether a coordinator has said that it is over, and no devices were added, started or ended since.
    pub is_concluded: bool,
    /// How often that was said; numbers the events.
    pub conclusions: u32,
}

impl State {
    /// Takes an entry of the log in. `began_at` is when this campaign began.
    pub fn apply(&mut self, record: &Record, plan: &Plan, began_at: Timestamp) {
        match record {
            Record::Accepted { at, .. } => {
                self.accepted_at = Some(*at);
                // What was added is to be done, whatever a coordinator said that did not know of it.
                self.is_concluded = false;
            }
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
            } => self.finished(*at, cpe_id, (*outcome, *failure), plan),
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
            Record::Resumed {
                at,
                arm_again,
                order,
            } => {
                self.resumes += 1;
                let ends_pause = self.paused.take().is_some();
                self.acknowledge(*at, ends_pause, *arm_again);
                self.ordered(order.as_ref());
            }
            Record::EverythingResumed {
                at,
                ends_pause,
                arm_again,
                order,
            } => {
                self.acknowledge(*at, *ends_pause, *arm_again);
                self.ordered(Some(order));
            }
            Record::Cancelling { at, order } => {
                self.cancelling.get_or_insert(*at);
                self.ordered(order.as_ref());
            }
            Record::Progressed { at, counts } => self.progressed = Some((*at, *counts)),
            Record::Jeopardy { is_in_jeopardy } => {
                self.jeopardies += 1;
                self.is_in_jeopardy = *is_in_jeopardy;
            }
            Record::Concluded { began_at: of } if *of == began_at => {
                self.is_concluded = true;
                self.conclusions += 1;
            }
            // What came before belongs to an earlier campaign of the same name.
            Record::Concluded { .. } => *self = Self::default(),
        }
    }

    fn acknowledge(&mut self, at: Timestamp, ends_pause: bool, arm_again: Option<ArmAgain>) {
        self.acknowledged = self.counts;
        self.disarmed = Disarmed::resumed(self.disarmed, at, ends_pause, arm_again);
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
        self.released_at = self.released_at.max(Some(at));
        // It says that its last one is done.
        self.settle(coordinator);
        let coordinator = Arc::<str>::from(coordinator);
        for device in devices {
            match self.devices.get_mut(&device.cpe_id) {
                // Started again, as nobody knows whether it was: it has its place already.
                Some(Place::InFlight { since, .. }) => {
                    *since = at;
                    self.in_order.push_back((at, device.cpe_id.clone()));
                }
                Some(Place::Silent { since }) => *since = at,
                Some(Place::Finished) => continue,
                None => {
                    // It was added before a coordinator said that all is over, which did not know of it.
                    self.is_concluded = false;
                    self.take_place(at, device);
                }
            }
            self.unsettled
                .insert(device.cpe_id.clone(), Arc::clone(&coordinator));
        }
    }

    fn take_place(&mut self, at: Timestamp, device: &Device) {
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

    fn finished(
        &mut self,
        at: Timestamp,
        cpe_id: &CpeId,
        (outcome, failure): (Outcome, Option<FailureKind>),
        plan: &Plan,
    ) {
        let before = self.devices.insert(cpe_id.clone(), Place::Finished);
        self.unsettled.remove(cpe_id);
        let since = match before {
            Some(Place::Finished) => return,
            Some(Place::InFlight { since, key }) => {
                let kept = at.duration_since(since);
                let most = plan.pace.in_flight_timeout;
                self.free(key.as_ref(), most.map_or(kept, |most| kept.min(most)));
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
        // What was said before does not count it.
        self.is_concluded = false;
        self.counts.finish(outcome, failure);
        let says_nothing = since.is_none_or(|since| {
            self.disarmed
                .is_some_and(|disarmed| disarmed.holds(since, at))
        });
        if says_nothing {
            self.acknowledged.finish(outcome, failure);
        }
        if let (Outcome::Completed, Some(since)) = (outcome, since) {
            self.took.add(at.duration_since(since));
        }
    }

    fn free(&mut self, key: Option<&Arc<str>>, kept: SignedDuration) {
        self.in_flight -= 1;
        self.kept.add(kept);
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
        while let Some((released_at, cpe_id)) = self.in_order.front() {
            let timeout = plan.pace.in_flight_timeout;
            let silent_for = timeout.filter(|timeout| now.duration_since(*released_at) >= *timeout);
            match self.devices.get_mut(cpe_id) {
                // It was released again since, and stands there a second time.
                Some(Place::InFlight { since, .. }) if *since > *released_at => {}
                Some(place @ Place::InFlight { .. }) => {
                    let Some(kept) = silent_for else { return };
                    let silent = Place::Silent {
                        since: *released_at,
                    };
                    let Place::InFlight { key, .. } = std::mem::replace(place, silent) else {
                        return;
                    };
                    self.free(key.as_ref(), kept);
                }
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
        self.unsettled.retain(|_, of| &**of != coordinator);
    }

    /// Whether there are devices of which nobody knows whether they were started.
    #[must_use]
    pub fn has_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// Whether it is paused by one of its own criteria.
    #[must_use]
    pub fn has_paused_itself(&self) -> bool {
        self.paused
            .as_ref()
            .is_some_and(|paused| paused.reason != PauseReason::Operator)
    }

    /// All counts.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
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
        self.took.get()
    }

    /// For how long a device kept its place on average; `None` while none gave it back.
    #[must_use]
    pub fn mean_place_time(&self) -> Option<SignedDuration> {
        self.kept.get()
    }
}
