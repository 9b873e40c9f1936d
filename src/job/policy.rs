//! What the operator configured about jobs, resolved: the core is handed this and reads no configuration.

use jiff::SignedDuration;

use super::fault::FaultPolicy;
use super::retry::Backoff;

/// The operator's settings as far as decisions depend on them.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// What to do when another job holds the device.
    pub on_busy: OnBusy,
    /// Durable retries of failed NBI calls.
    pub retry: Backoff,
    /// A stage whose calls have failed for this long gives up.
    pub retry_max_elapsed: SignedDuration,
    /// Unintelligible answers in a row after which a stage gives up.
    pub unintelligible_max: u32,
    /// Tries of the connection request before the job goes on without.
    pub connection_request_attempts: u32,
    /// A silent device gets another connection request after this long; zero: never.
    pub connection_request_resend_interval: SignedDuration,
    /// What a failed connection request means.
    pub connection_request_on_failure: OnConnectionRequestFailure,
    /// Polling intervals of the result storage.
    pub await_result: Backoff,
    /// `result.code`s that mean success, as inclusive ranges.
    pub success_codes: Vec<(i64, i64)>,
    /// Which device faults are transient.
    pub faults: FaultPolicy,
    /// Pause between two tries of a device.
    pub attempt_pause: Backoff,
    /// How often a job looks whether the device is free, or whether it may go on.
    pub busy_interval: Backoff,
    /// About how long a device takes from its wake-up to its report: with less left a job's deadline is in jeopardy; zero: nobody asks.
    /// As long after its success it may not run the expected version yet; zero: until the deadline.
    pub flash_time: SignedDuration,
    /// A rule that a pause disarmed is armed again only when this time has passed since the resume without a result; zero: never, as nobody can see a
    /// device that is at it, and some never report.
    pub flash_time_max: SignedDuration,
    /// How long the results of a job that timed out are still looked at; zero: not at all.
    pub late_watch: SignedDuration,
    /// How long a released job rests at least.
    pub release_pause: SignedDuration,
    /// Whether rules carry the job's id in `description`.
    pub tag_rules: bool,
    /// Whether the version is read back.
    pub verify: bool,
    /// NBI calls in one delivery: a bound against a loop, never reached by a sound run.
    pub steps_max: u32,
}

/// What to do when another job holds the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBusy {
    /// Come back later, until the deadline.
    #[default]
    Wait,
    /// Take the rule over.
    Supersede,
    /// End the job.
    Fail,
}

/// What it means for the job when all tries of its connection request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConnectionRequestFailure {
    /// The device comes by itself at its next periodic Inform.
    #[default]
    Continue,
    /// The job fails.
    Fail,
}

impl Default for Policy {
    fn default() -> Self {
        let growing = |initial, max| Backoff {
            initial: SignedDuration::from_secs(initial),
            multiplier: 2.0,
            max: SignedDuration::from_secs(max),
        };
        Self {
            on_busy: OnBusy::default(),
            retry: growing(5, 300),
            retry_max_elapsed: SignedDuration::from_mins(30),
            unintelligible_max: 5,
            connection_request_attempts: 3,
            connection_request_resend_interval: SignedDuration::from_mins(15),
            connection_request_on_failure: OnConnectionRequestFailure::default(),
            await_result: Backoff {
                initial: SignedDuration::from_secs(30),
                multiplier: 1.5,
                max: SignedDuration::from_secs(300),
            },
            success_codes: vec![(200, 299)],
            faults: FaultPolicy::default(),
            attempt_pause: growing(600, 3_600),
            busy_interval: growing(30, 300),
            flash_time: SignedDuration::from_mins(10),
            flash_time_max: SignedDuration::ZERO,
            late_watch: SignedDuration::ZERO,
            release_pause: SignedDuration::from_secs(30),
            tag_rules: false,
            verify: false,
            steps_max: 40,
        }
    }
}
