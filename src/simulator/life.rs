//! How devices live: the queue of events, and what each does.
//!
//! A device keeps the times that it counts on; an event that does not match them any more is passed over. So nothing is ever
//! searched for in the queue.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use jiff::{SignedDuration, Timestamp};

use super::device::{AttemptResult, Device, DeviceState, Flash, LiveDevice, Phase, version_of};
use super::results::{Report, Results};
use super::rules::{Rules, Runnable};
use super::semantics::{FailedAttempt, Incomplete, ResultTime, Semantics, TakenRule};

/// The least that a download, a reboot or the time between informs takes: without it a device without durations would live for
/// ever in one instant.
const STEP_MIN: SignedDuration = SignedDuration::from_millis(10);

/// The devices, the rules they run and the results they leave.
#[derive(Debug)]
pub(crate) struct World {
    /// The switches.
    pub(crate) semantics: Semantics,
    /// The rules.
    pub(crate) rules: Rules,
    /// The results.
    pub(crate) results: Results,
    /// The devices, in the order of their coming.
    pub(crate) devices: Vec<LiveDevice>,
    /// The draws of ids and orders.
    pub(crate) rng: fastrand::Rng,
    by_cpe_id: HashMap<String, usize>,
    running: HashMap<usize, Running>,
    queue: BinaryHeap<Event>,
    events: u64,
    attempts: u64,
}

/// An attempt under way.
#[derive(Debug, Clone)]
struct Running {
    attempt: u64,
    begun_at: Timestamp,
    rule: Runnable,
}

#[derive(Debug)]
struct Event {
    at: Timestamp,
    number: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    ComesOnline(usize),
    Informs(usize),
    OpensSession(usize),
    EndsPhase(usize),
    Recorded(Box<Report>),
}

/// Earliest first out of the heap, in the order of entry among equals.
impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Event {}

impl World {
    /// Empty.
    pub(crate) fn new(semantics: Semantics, seed: u64) -> Self {
        Self {
            semantics,
            rules: Rules::new(),
            results: Results::new(),
            devices: Vec::new(),
            rng: fastrand::Rng::with_seed(seed),
            by_cpe_id: HashMap::new(),
            running: HashMap::new(),
            queue: BinaryHeap::new(),
            events: 0,
            attempts: 0,
        }
    }

    /// Adds a device; one of the same id stays as it is.
    pub(crate) fn add(&mut self, device: Device, now: Timestamp) {
        if self.by_cpe_id.contains_key(&device.cpe_id) {
            return;
        }
        let index = self.devices.len();
        self.by_cpe_id.insert(device.cpe_id.clone(), index);
        let mut live = LiveDevice::new(device);
        if live.device.inform_interval.is_some() {
            live.inform_at = later(now, live.device.first_inform_after);
        }
        let (inform_at, online_at) = (live.inform_at, live.device.offline_until);
        self.devices.push(live);
        if let Some(at) = inform_at {
            self.push(at, What::Informs(index));
        }
        if let Some(at) = online_at {
            self.push(at, What::ComesOnline(index));
        }
    }

    /// The device of this id.
    pub(crate) fn find(&self, cpe_id: &str) -> Option<usize> {
        self.by_cpe_id.get(cpe_id).copied()
    }

    /// Takes a device offline, or back online with `now` or earlier.
    pub(crate) fn set_offline_until(&mut self, index: usize, until: Timestamp) {
        self.devices[index].device.offline_until = Some(until);
        self.push(until, What::ComesOnline(index));
    }

    /// A connection request reached the device.
    pub(crate) fn request_session(&mut self, index: usize, now: Timestamp) {
        let live = &mut self.devices[index];
        if live.session_at.is_none() {
            live.session_at = later(now, live.device.session_delay);
            if let Some(at) = live.session_at {
                self.push(at, What::OpensSession(index));
            }
        }
    }

    /// Lets everything happen that is due by `now`.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        while self.queue.peek().is_some_and(|event| event.at <= now) {
            if let Some(event) = self.queue.pop() {
                self.happen(event);
            }
        }
    }

    /// When something happens next, for callers that sleep until then.
    pub(crate) fn next_event_at(&self) -> Option<Timestamp> {
        self.queue.peek().map(|event| event.at)
    }

    fn push(&mut self, at: Timestamp, what: What) {
        self.events += 1;
        self.queue.push(Event {
            at,
            number: self.events,
            what,
        });
    }

    fn happen(&mut self, Event { at, what, .. }: Event) {
        match what {
            What::ComesOnline(index) if self.devices[index].device.offline_until == Some(at) => {
                self.devices[index].device.offline_until = None;
                self.hold_session(index, at);
            }
            What::Informs(index) if self.devices[index].inform_at == Some(at) => {
                self.plan_inform(index, at);
                self.hold_session(index, at);
            }
            What::OpensSession(index) if self.devices[index].session_at == Some(at) => {
                self.devices[index].session_at = None;
                self.hold_session(index, at);
            }
            What::EndsPhase(index) => match self.devices[index].phase {
                Phase::Downloading(until) if until == at => self.end_download(index, at),
                Phase::Rebooting(until) if until == at => self.end_reboot(index, at),
                Phase::Idle | Phase::Gone | Phase::Downloading(_) | Phase::Rebooting(_) => {}
            },
            What::Recorded(report) => {
                self.results
                    .record(&report, self.semantics.results, &mut self.rng)
            }
            What::ComesOnline(_) | What::Informs(_) | What::OpensSession(_) => {}
        }
    }

    fn plan_inform(&mut self, index: usize, now: Timestamp) {
        let live = &mut self.devices[index];
        live.inform_at = live
            .device
            .inform_interval
            .and_then(|interval| later(now, interval.max(STEP_MIN)));
        if let Some(at) = live.inform_at {
            self.push(at, What::Informs(index));
        }
    }

    /// The device talks to the system, if it can: a rule that applies is carried out.
    fn hold_session(&mut self, index: usize, now: Timestamp) {
        let live = &self.devices[index];
        if live.state(now) != DeviceState::Idle {
            return;
        }
        let Some(rule) = self.rules.runnable(&live.device.cpe_id) else {
            return;
        };
        let result = live.next_result();
        let until = later(now, live.device.download.max(STEP_MIN));
        self.rules.count_execution(rule.key, &live.device.cpe_id);
        if self.semantics.taken_rule == TakenRule::TurnsOff {
            self.rules.turn_off(rule.key);
        }
        self.attempts += 1;
        let live = &mut self.devices[index];
        live.flashes.push(Flash {
            started_at: now,
            ended_at: None,
            rule_id: rule.rule_id.clone(),
            file: rule.file.clone(),
            result,
        });
        live.phase = until.map_or(Phase::Gone, Phase::Downloading);
        self.running.insert(
            index,
            Running {
                attempt: self.attempts,
                begun_at: now,
                rule,
            },
        );
        if let Some(at) = until {
            self.push(at, What::EndsPhase(index));
        }
        if self.semantics.incomplete == Incomplete::UndecidedRow {
            self.report(index, now, 500, "Upgrade is in progress", false);
        }
    }

    fn end_download(&mut self, index: usize, now: Timestamp) {
        match self.current_result(index) {
            AttemptResult::Fault { code, text } => {
                self.devices[index].phase = Phase::Idle;
                self.end_flash(index, now);
                let message =
                    format!("Upgrade has failed with FaultCode {code}. FaultString: {text}");
                self.report(index, now, 500, &message, true);
                if let Some(Running { rule, .. }) = self.running.remove(&index)
                    && self.semantics.failed_attempt == FailedAttempt::KeepsExecution
                {
                    let cpe_id = &self.devices[index].device.cpe_id;
                    self.rules.uncount_execution(rule.key, cpe_id);
                }
            }
            AttemptResult::Lost => {
                self.devices[index].phase = Phase::Gone;
                self.running.remove(&index);
            }
            AttemptResult::Success | AttemptResult::Silent | AttemptResult::SameVersion => {
                let reports = self.devices[index].device.reports_before_flashing;
                if reports && self.current_result(index) != AttemptResult::Silent {
                    self.report(index, now, 200, "OK", true);
                }
                let until = later(now, self.devices[index].device.reboot.max(STEP_MIN));
                self.devices[index].phase = until.map_or(Phase::Gone, Phase::Rebooting);
                if let Some(at) = until {
                    self.push(at, What::EndsPhase(index));
                }
            }
        }
    }

    /// The device is up again: it reports, and informs.
    fn end_reboot(&mut self, index: usize, now: Timestamp) {
        let result = self.current_result(index);
        self.devices[index].phase = Phase::Idle;
        self.end_flash(index, now);
        if result != AttemptResult::SameVersion
            && let Some(Running { rule, .. }) = self.running.get(&index)
        {
            self.devices[index].device.version = version_of(&rule.file);
        }
        if result != AttemptResult::Silent && !self.devices[index].device.reports_before_flashing {
            self.report(index, now, 200, "OK", true);
        }
        self.running.remove(&index);
        self.plan_inform(index, now);
        self.hold_session(index, now);
    }

    fn current_result(&self, index: usize) -> AttemptResult {
        self.devices[index]
            .flashes
            .last()
            .map_or(AttemptResult::Lost, |flash| flash.result.clone())
    }

    fn end_flash(&mut self, index: usize, now: Timestamp) {
        if let Some(flash) = self.devices[index].flashes.last_mut() {
            flash.ended_at = Some(now);
        }
    }

    fn report(&mut self, index: usize, now: Timestamp, code: i64, message: &str, is_final: bool) {
        let Some(Running {
            attempt,
            begun_at,
            rule,
        }) = self.running.get(&index)
        else {
            return;
        };
        let time = match self.semantics.result_time {
            ResultTime::Begin => *begun_at,
            ResultTime::End => now,
        };
        let report = Report {
            attempt: *attempt,
            cpe_id: self.devices[index].device.cpe_id.clone(),
            rule_id: rule.rule_id.clone(),
            description: rule.description.clone(),
            code,
            message: message.to_owned(),
            ts: self.nbi_time(time).as_second(),
            is_final,
        };
        match later(now, self.semantics.result_delay) {
            Some(at) if at > now => self.push(at, What::Recorded(Box::new(report))),
            _ => self
                .results
                .record(&report, self.semantics.results, &mut self.rng),
        }
    }

    /// The NBI's clock.
    pub(crate) fn nbi_time(&self, now: Timestamp) -> Timestamp {
        later(now, self.semantics.clock_offset).unwrap_or(now)
    }
}

/// `None` past the end of time.
fn later(time: Timestamp, by: SignedDuration) -> Option<Timestamp> {
    time.checked_add(by).ok()
}
