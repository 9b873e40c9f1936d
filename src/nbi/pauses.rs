//! The pauses between quick retries, as `backoff` counts them. `client.rs` decides whether there is one at all.

use backoff::exponential::ExponentialBackoff;
use tokio::time::Instant;

use super::settings::NbiSettings;

/// A clock for `backoff` that is tokio's, so that its elapsed time is virtual where time is.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokioClock;

impl backoff::Clock for TokioClock {
    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

/// The pauses of what was begun then and has failed once by now: `backoff` counts from now on, so only what is left of the time is its.
pub(super) fn since(begun: Instant, settings: &NbiSettings) -> ExponentialBackoff<TokioClock> {
    ExponentialBackoff {
        current_interval: settings.quick_retry_initial,
        initial_interval: settings.quick_retry_initial,
        randomization_factor: backoff::default::RANDOMIZATION_FACTOR,
        multiplier: backoff::default::MULTIPLIER,
        max_interval: settings.quick_retry_max_elapsed,
        start_time: Instant::now().into_std(),
        max_elapsed_time: Some(
            settings
                .quick_retry_max_elapsed
                .saturating_sub(begun.elapsed()),
        ),
        clock: TokioClock,
    }
}
