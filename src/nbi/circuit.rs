//! The circuit: closed while the NBI answers, open while it does not, probing to find out whether it does again.
//!
//! A pure state machine: time comes in as an argument, nothing is logged, nothing sleeps. `client.rs` asks [`Circuit::admit`]
//! before each request, tells [`Circuit::record`] what came of it and publishes [`Circuit::state`].
//!
//! While open nothing is sent. When the open time is over, exactly one request goes through as a probe: if the NBI answers, the
//! circuit closes; if not, it opens again for twice the time; if that cannot be told, the next request is the probe. What comes back of requests that began before the circuit last
//! changed is ignored, so that a slow failure of yesterday's trouble does not count today.

use std::time::Duration;

use tokio::time::Instant;

/// When the circuit opens, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitSettings {
    /// Consecutive failures that open it, at least 1.
    pub failures_to_open: u32,
    /// How long it stays open the first time; doubles with every failed probe.
    pub open_initial: Duration,
    /// The longest it stays open, unless the NBI itself asked for longer (`Retry-After`).
    pub open_max: Duration,
}

impl Default for CircuitSettings {
    /// Five failures are more than one call with its quick retries, so that one unlucky call does not stop the worker; five
    /// seconds are a restarted process, two minutes bound how late a recovery is noticed.
    fn default() -> Self {
        Self {
            failures_to_open: 5,
            open_initial: Duration::from_secs(5),
            open_max: Duration::from_secs(120),
        }
    }
}

/// What others may know of the circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitState {
    /// Requests go through.
    Closed,
    /// Nothing is sent before `until`.
    ///
    /// The state does not change by itself when `until` has passed: the next call becomes the probe. Who paused intake because of
    /// it goes on at `until`; where that brings no call, `idle.rs` makes one.
    Open {
        /// When the next request may go through.
        until: Instant,
    },
    /// One request is under way to find out whether the NBI answers; others are turned away.
    Probing,
}

/// What a request showed of the NBI's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It answers, whatever it said.
    Alive,
    /// No answer, an overload or internal error, or something that it would not say when healthy.
    Failing {
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// It does not take our credentials: every further request would fare the same.
    Refused,
    /// No answer in time to what asks a device: the device may sleep, or the NBI be in trouble.
    Unclear,
}

/// A request that was let through; given back with [`Circuit::record`] or [`Circuit::abandon`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    generation: u64,
    is_probe: bool,
}

/// The circuit.
#[derive(Debug)]
pub struct Circuit {
    settings: CircuitSettings,
    state: CircuitState,
    /// Consecutive failures while closed.
    failures: u32,
    /// Times it opened since it was last closed.
    openings: u32,
    /// Grows with each change of state.
    generation: u64,
}

impl Circuit {
    /// A closed circuit.
    #[must_use]
    pub fn new(settings: CircuitSettings) -> Self {
        Self {
            settings,
            state: CircuitState::Closed,
            failures: 0,
            openings: 0,
            generation: 0,
        }
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> CircuitState {
        self.state
    }

    /// How long a request would be turned away for; `None` if it would be let through. Changes nothing.
    #[must_use]
    pub fn turned_away_for(&self, now: Instant) -> Option<Duration> {
        match self.state {
            CircuitState::Closed => None,
            CircuitState::Open { until } if until <= now => None,
            CircuitState::Open { until } => Some(until.saturating_duration_since(now)),
            // How long the probe takes is not known; the shortest open time is as good a guess as any.
            CircuitState::Probing => Some(self.settings.open_initial),
        }
    }

    /// Lets a request through, as a probe if the circuit was open.
    ///
    /// # Errors
    ///
    /// How long to wait, if it is turned away.
    pub fn admit(&mut self, now: Instant) -> Result<Ticket, Duration> {
        if let Some(wait) = self.turned_away_for(now) {
            return Err(wait);
        }
        let is_probe = self.state != CircuitState::Closed;
        if is_probe {
            self.change(CircuitState::Probing);
        }
        Ok(Ticket {
            generation: self.generation,
            is_probe,
        })
    }

    /// Takes note of what a request showed.
    pub fn record(&mut self, ticket: Ticket, sign: Sign, now: Instant) {
        if ticket.generation != self.generation {
            return;
        }
        match sign {
            Sign::Alive => {
                self.failures = 0;
                if ticket.is_probe {
                    self.openings = 0;
                    self.change(CircuitState::Closed);
                }
            }
            Sign::Failing { retry_after } => {
                self.failures = self.failures.saturating_add(1);
                if ticket.is_probe || self.failures >= self.settings.failures_to_open {
                    self.open(now, retry_after);
                }
            }
            Sign::Refused => self.open(now, None),
            Sign::Unclear => self.abandon(ticket, now),
        }
    }

    /// Takes note that a request ended, or was given up, before anything was known; a probe leaves its place to the next request.
    pub fn abandon(&mut self, ticket: Ticket, now: Instant) {
        if ticket.is_probe && ticket.generation == self.generation {
            self.change(CircuitState::Open { until: now });
        }
    }

    fn open(&mut self, now: Instant, retry_after: Option<Duration>) {
        let doublings = 2_u32.saturating_pow(self.openings);
        let open_for = self
            .settings
            .open_initial
            .saturating_mul(doublings)
            .min(self.settings.open_max);
        let open_for = open_for.max(retry_after.unwrap_or_default());
        self.openings = self.openings.saturating_add(1);
        self.failures = 0;
        self.change(CircuitState::Open {
            until: now + open_for,
        });
    }

    fn change(&mut self, state: CircuitState) {
        self.state = state;
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILING: Sign = Sign::Failing { retry_after: None };

    fn circuit() -> Circuit {
        Circuit::new(CircuitSettings {
            failures_to_open: 3,
            open_initial: Duration::from_secs(5),
            open_max: Duration::from_secs(15),
        })
    }

    fn show(circuit: &mut Circuit, sign: Sign, now: Instant) {
        let ticket = circuit.admit(now).unwrap();
        circuit.record(ticket, sign, now);
    }

    fn opened() -> (Circuit, Instant) {
        let (mut circuit, now) = (circuit(), Instant::now());
        for _ in 0..3 {
            show(&mut circuit, FAILING, now);
        }
        (circuit, now)
    }

    #[test]
    fn failures_in_a_row_open_it_and_an_answer_between_them_does_not_let_it() {
        let (mut circuit, now) = (circuit(), Instant::now());
        for sign in [FAILING, FAILING, Sign::Alive, FAILING, FAILING] {
            show(&mut circuit, sign, now);
            assert_eq!(circuit.state(), CircuitState::Closed);
        }
        show(&mut circuit, FAILING, now);
        assert_eq!(
            circuit.state(),
            CircuitState::Open {
                until: now + Duration::from_secs(5)
            }
        );
        assert_eq!(
            circuit.admit(now + Duration::from_secs(2)),
            Err(Duration::from_secs(3))
        );
    }

    #[test]
    fn refused_credentials_open_it_at_once() {
        let (mut circuit, now) = (circuit(), Instant::now());
        show(&mut circuit, Sign::Refused, now);
        assert_eq!(
            circuit.state(),
            CircuitState::Open {
                until: now + Duration::from_secs(5)
            }
        );
    }

    #[test]
    fn one_probe_goes_through_and_success_closes_it() {
        let (mut circuit, now) = opened();
        let later = now + Duration::from_secs(5);
        let probe = circuit.admit(later).unwrap();
        assert_eq!(circuit.state(), CircuitState::Probing);
        assert_eq!(circuit.admit(later), Err(Duration::from_secs(5)));
        circuit.record(probe, Sign::Alive, later);
        assert_eq!(circuit.state(), CircuitState::Closed);
        assert!(circuit.admit(later).is_ok());
    }

    #[test]
    fn the_open_time_doubles_up_to_its_limit_and_starts_anew_after_a_success() {
        let (mut circuit, mut now) = opened();
        for expected in [10, 15, 15] {
            let CircuitState::Open { until } = circuit.state() else {
                panic!("{:?}", circuit.state())
            };
            now = until;
            show(&mut circuit, FAILING, now);
            assert_eq!(
                circuit.state(),
                CircuitState::Open {
                    until: now + Duration::from_secs(expected)
                }
            );
        }
        now += Duration::from_secs(15);
        show(&mut circuit, Sign::Alive, now);
        show(&mut circuit, Sign::Refused, now);
        assert_eq!(
            circuit.state(),
            CircuitState::Open {
                until: now + Duration::from_secs(5)
            }
        );
    }

    #[test]
    fn the_nbi_may_ask_for_a_longer_time_than_the_limit() {
        let (mut circuit, now) = (circuit(), Instant::now());
        for _ in 0..3 {
            show(
                &mut circuit,
                Sign::Failing {
                    retry_after: Some(Duration::from_secs(60)),
                },
                now,
            );
        }
        assert_eq!(
            circuit.state(),
            CircuitState::Open {
                until: now + Duration::from_secs(60)
            }
        );
    }

    #[test]
    fn what_began_before_the_last_change_does_not_count() {
        let (mut circuit, now) = (circuit(), Instant::now());
        let slow = circuit.admit(now).unwrap();
        show(&mut circuit, Sign::Refused, now);
        let opened = circuit.state();
        circuit.record(slow, Sign::Alive, now);
        assert_eq!(circuit.state(), opened);
        circuit.record(slow, Sign::Refused, now + Duration::from_secs(1));
        assert_eq!(circuit.state(), opened);
    }

    #[test]
    fn an_abandoned_probe_leaves_its_place_to_the_next() {
        let (mut circuit, now) = opened();
        let later = now + Duration::from_secs(5);
        let probe = circuit.admit(later).unwrap();
        circuit.abandon(probe, later);
        assert_eq!(circuit.state(), CircuitState::Open { until: later });
        assert!(circuit.admit(later).is_ok());
    }

    #[test]
    fn what_tells_nothing_neither_opens_it_nor_keeps_it_open_nor_clears_it() {
        let (mut circuit, now) = (circuit(), Instant::now());
        for sign in [Sign::Unclear; 10] {
            show(&mut circuit, sign, now);
            assert_eq!(circuit.state(), CircuitState::Closed);
        }
        for sign in [FAILING, FAILING, Sign::Unclear, FAILING] {
            show(&mut circuit, sign, now);
        }
        let until = now + Duration::from_secs(5);
        assert_eq!(circuit.state(), CircuitState::Open { until });
        show(&mut circuit, Sign::Unclear, until);
        assert_eq!(circuit.state(), CircuitState::Open { until });
        show(&mut circuit, Sign::Alive, until);
        assert_eq!(circuit.state(), CircuitState::Closed);
    }

    #[test]
    fn an_abandoned_ordinary_request_changes_nothing() {
        let (mut circuit, now) = (circuit(), Instant::now());
        let ticket = circuit.admit(now).unwrap();
        circuit.abandon(ticket, now);
        assert_eq!(circuit.state(), CircuitState::Closed);
    }
}
