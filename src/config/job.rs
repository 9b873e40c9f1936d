//! `[job]`: defaults of jobs, for requests that do not say otherwise.

use jiff::SignedDuration;

use super::reader::Reader;
use crate::job::policy::OnBusy;
use crate::job::state::Cleanup;

/// Defaults of jobs.
#[derive(Debug, Clone)]
pub struct Job {
    /// From `requested_at` (or `not_before`, if later) to the deadline.
    pub timeout: SignedDuration,
    /// A success of the same file this long before a request without `requested_at` counts as that request's.
    pub repeat_window: SignedDuration,
    /// What becomes of the rule.
    pub cleanup: Cleanup,
    /// How often the device may try when it reports a transient fault.
    pub max_attempts: u32,
    /// What to do when another job holds the device.
    pub on_busy: OnBusy,
    /// First interval of looking whether the device is free.
    pub busy_initial: SignedDuration,
    /// Longest interval.
    pub busy_max: SignedDuration,
    /// Pause before the device's second try; doubles.
    pub attempt_pause: SignedDuration,
    /// About how long a device takes; with less left a deadline is in jeopardy; zero: nobody asks.
    pub flash_time: SignedDuration,
    /// A rule that a pause disarmed is armed again this long after the resume, without a result by then; zero: never.
    pub flash_time_max: SignedDuration,
    /// How long a job that timed out is still watched; zero: not at all.
    pub late_watch: SignedDuration,
}

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

impl Job {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let cleanups = [Cleanup::Deactivate, Cleanup::Delete, Cleanup::Keep]
            .map(|cleanup| (cleanup.name(), cleanup));
        let on_busy = [
            ("wait", OnBusy::Wait),
            ("supersede", OnBusy::Supersede),
            ("fail", OnBusy::Fail),
        ];
        let job = Self {
            timeout: reader.duration("job.timeout", SECOND * 10..=DAY * 365),
            repeat_window: reader.duration("job.repeat_window", SignedDuration::ZERO..=DAY * 30),
            cleanup: reader.one_of("job.cleanup", &cleanups),
            max_attempts: reader.number("job.max_attempts", 1..=100),
            on_busy: reader.one_of("job.on_busy", &on_busy),
            busy_initial: reader.duration("job.busy_initial", SECOND..=DAY),
            busy_max: reader.duration("job.busy_max", SECOND..=DAY),
            attempt_pause: reader.duration("job.attempt_pause", SECOND..=DAY),
            flash_time: reader.duration("job.flash_time", SignedDuration::ZERO..=DAY),
            flash_time_max: reader.duration("job.flash_time_max", SignedDuration::ZERO..=DAY),
            late_watch: reader.duration("job.late_watch", SignedDuration::ZERO..=DAY * 30),
        };
        reader.check_order(
            ("job.busy_initial", job.busy_initial),
            ("job.busy_max", job.busy_max),
        );
        job
    }
}
