//! One simulator for many callers: a lock and a clock around the model.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::model::Simulator;
use super::reply::{Call, Reply};

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A clock that begins at `start` and follows tokio's, which tests may pause.
///
/// To be called inside a tokio runtime.
#[must_use]
pub fn tokio_clock(start: Timestamp) -> Clock {
    let origin = Instant::now();
    Arc::new(move || {
        let gone = SignedDuration::try_from(origin.elapsed()).unwrap_or(SignedDuration::MAX);
        start.saturating_add(gone).unwrap_or(Timestamp::MAX)
    })
}

/// A handle; clones share the simulator.
#[derive(Clone)]
pub struct SharedSimulator {
    simulator: Arc<Mutex<Simulator>>,
    clock: Clock,
}

impl std::fmt::Debug for SharedSimulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedSimulator").finish_non_exhaustive()
    }
}

impl SharedSimulator {
    /// Shares a simulator that lives by this clock.
    #[must_use]
    pub fn new(simulator: Simulator, clock: Clock) -> Self {
        Self {
            simulator: Arc::new(Mutex::new(simulator)),
            clock,
        }
    }

    /// Shares a simulator that lives by the system's clock.
    #[must_use]
    pub fn in_real_time(simulator: Simulator) -> Self {
        Self::new(simulator, Arc::new(Timestamp::now))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Does something with the simulator, advanced to the present, which is passed along.
    pub fn with<T>(&self, act: impl FnOnce(&mut Simulator, Timestamp) -> T) -> T {
        let now = self.now();
        // The model holds no invariant across calls that a panic in `act` could break beyond its own test.
        let mut simulator = self
            .simulator
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        simulator.advance(now);
        act(&mut simulator, now)
    }

    /// Answers a call, now.
    #[must_use]
    pub fn handle(&self, call: Call<'_>) -> Reply {
        self.with(|simulator, now| simulator.handle(call, now))
    }
}
