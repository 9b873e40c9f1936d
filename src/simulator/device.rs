//! A device: what it is like, what it does when a rule applies, and what it has done.
//!
//! Times follow TR-069: a session within 30 s of a connection request, several requests one session; unreachable while it
//! downloads and reboots; after the reboot it informs again, and would run again a rule that still has executions left.

use jiff::{SignedDuration, Timestamp};

/// What becomes of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptResult {
    /// Flashed, rebooted, reported, new version.
    Success,
    /// The download fails; reported with this fault. Nothing is written.
    Fault {
        /// The TR-069 code.
        code: u16,
        /// Its text.
        text: String,
    },
    /// Flashed, rebooted, new version; the report never arrives.
    Silent,
    /// Flashed, rebooted, reported as a success; the old version runs (seen in the field).
    SameVersion,
    /// Goes dark while flashing and never comes back.
    Lost,
}

impl AttemptResult {
    /// A fault.
    #[must_use]
    pub fn fault(code: u16, text: &str) -> Self {
        Self::Fault {
            code,
            text: text.to_owned(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Fault { .. } => "fault",
            Self::Silent => "silent",
            Self::SameVersion => "same_version",
            Self::Lost => "lost",
        }
    }

    /// Whether firmware is written to the device.
    #[must_use]
    pub fn writes_firmware(&self) -> bool {
        !matches!(self, Self::Fault { .. })
    }
}

/// A device as it is put into the world; change the fields as needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its id.
    pub cpe_id: String,
    /// The software version that it runs.
    pub version: String,
    /// Unreachable until then; it informs as it comes online. [`Timestamp::MAX`] for never.
    pub offline_until: Option<Timestamp>,
    /// Whether connection requests reach it (not behind NAT, say).
    pub accepts_connection_requests: bool,
    /// Time between its periodic informs; `None` for none.
    pub inform_interval: Option<SignedDuration>,
    /// From being added to its first periodic inform; spreads a fleet.
    pub first_inform_after: SignedDuration,
    /// From connection request to session; at most 30 s in TR-069.
    pub session_delay: SignedDuration,
    /// From session to the end of the download, or to its failure.
    pub download: SignedDuration,
    /// Flashing and reboot.
    pub reboot: SignedDuration,
    /// Whether it reports its success when the file is there, and flashes and boots afterwards: for half of that time it answers with the version
    /// that it ran before, then not at all.
    pub reports_before_flashing: bool,
    /// What becomes of its attempts, in order; the last one repeats. Empty means success.
    pub attempts: Vec<AttemptResult>,
    /// What it is called in tables.
    pub character: &'static str,
}

impl Device {
    /// An online device with version "1.0.0" that succeeds: session after 5 s, download 60 s, reboot 60 s, inform every hour.
    #[must_use]
    pub fn new(cpe_id: &str) -> Self {
        Self {
            cpe_id: cpe_id.to_owned(),
            version: "1.0.0".to_owned(),
            offline_until: None,
            accepts_connection_requests: true,
            inform_interval: Some(SignedDuration::from_hours(1)),
            first_inform_after: SignedDuration::from_hours(1),
            session_delay: SignedDuration::from_secs(5),
            download: SignedDuration::from_secs(60),
            reboot: SignedDuration::from_secs(60),
            reports_before_flashing: false,
            attempts: Vec::new(),
            character: "plain",
        }
    }

    /// The same with these results of its attempts.
    #[must_use]
    pub fn with_attempts(mut self, attempts: &[AttemptResult]) -> Self {
        self.attempts = attempts.to_vec();
        self
    }

    fn attempt_result(&self, number: usize) -> AttemptResult {
        self.attempts
            .get(number)
            .or_else(|| self.attempts.last())
            .cloned()
            .unwrap_or(AttemptResult::Success)
    }
}

/// One execution of a rule by a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flash {
    /// When the session began in which it started.
    pub started_at: Timestamp,
    /// When it was over: the download failed, or the device was up again.
    pub ended_at: Option<Timestamp>,
    /// The rule's id.
    pub rule_id: String,
    /// The file.
    pub file: String,
    /// What becomes of it, decided at the start.
    pub result: AttemptResult,
}

/// Where a device stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceState {
    /// Online, nothing under way.
    Idle,
    /// Not online.
    Offline,
    /// Downloading.
    Downloading,
    /// Flashing and rebooting.
    Rebooting,
    /// Gone dark for good.
    Gone,
}

impl DeviceState {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Offline => "offline",
            Self::Downloading => "downloading",
            Self::Rebooting => "rebooting",
            Self::Gone => "gone",
        }
    }
}

/// What a device is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing.
    Idle,
    /// Downloading until then.
    Downloading(Timestamp),
    /// Rebooting until then.
    Rebooting(Timestamp),
    /// Gone.
    Gone,
}

/// A device with its life.
#[derive(Debug)]
pub(crate) struct LiveDevice {
    /// What it is like.
    pub(crate) device: Device,
    /// What it is in the middle of.
    pub(crate) phase: Phase,
    /// The session that a connection request has brought about.
    pub(crate) session_at: Option<Timestamp>,
    /// Its next periodic inform.
    pub(crate) inform_at: Option<Timestamp>,
    /// What it has done.
    pub(crate) flashes: Vec<Flash>,
}

impl LiveDevice {
    /// A device at the beginning of its life.
    pub(crate) fn new(device: Device) -> Self {
        Self {
            device,
            phase: Phase::Idle,
            session_at: None,
            inform_at: None,
            flashes: Vec::new(),
        }
    }

    /// Where it stands.
    pub(crate) fn state(&self, now: Timestamp) -> DeviceState {
        match self.phase {
            Phase::Downloading(_) => DeviceState::Downloading,
            Phase::Rebooting(_) => DeviceState::Rebooting,
            Phase::Gone => DeviceState::Gone,
            Phase::Idle if self.device.offline_until.is_some_and(|time| now < time) => {
                DeviceState::Offline
            }
            Phase::Idle => DeviceState::Idle,
        }
    }

    /// Whether a request from outside reaches it now.
    pub(crate) fn is_reachable(&self, now: Timestamp) -> bool {
        self.state(now) == DeviceState::Idle && self.device.accepts_connection_requests
    }

    /// What becomes of the attempt that it is about to make.
    pub(crate) fn next_result(&self) -> AttemptResult {
        self.device.attempt_result(self.flashes.len())
    }

    /// How often firmware was written.
    pub(crate) fn times_written(&self) -> usize {
        self.flashes
            .iter()
            .filter(|flash| flash.result.writes_firmware())
            .count()
    }
}

/// The version that a file brings: its name without query and without an extension that has a letter in it.
///
/// `https://files/fw/ALPHA-2.4.bin?x=1` brings `ALPHA-2.4`; `https://files/2.4.1` brings `2.4.1`.
#[must_use]
pub fn version_of(firmware_url: &str) -> String {
    let path = firmware_url.split(['?', '#']).next().unwrap_or_default();
    let name = path
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    match name.rsplit_once('.') {
        Some((stem, extension))
            if !stem.is_empty() && extension.contains(|c: char| c.is_ascii_alphabetic()) =>
        {
            stem.to_owned()
        }
        _ => name.to_owned(),
    }
}
