//! What the broker does wrong: chances for each message, drawn by seed, until a time after which all is well.

use std::time::Duration;

use jiff::Timestamp;

/// Chances, each in 0 to 1.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// The seed of every draw.
    pub(crate) seed: u64,
    /// A message comes out of a delay queue twice, as when the broker is killed while it dead-letters; the copy is no redelivery.
    pub(crate) duplicate: f64,
    /// Another message than the oldest is delivered.
    pub(crate) reorder: f64,
    /// A publish is refused.
    pub(crate) nack: f64,
    /// A publish comes back unroutable.
    pub(crate) returned: f64,
    /// A publish takes effect, the confirm is lost with the connection.
    pub(crate) confirm_lost: f64,
    /// A publish is lost with the connection.
    pub(crate) publish_lost: f64,
    /// A publish takes effect, and neither confirm nor error comes in time.
    pub(crate) confirm_late: f64,
    /// The acknowledgement is lost: the message is delivered again.
    pub(crate) ack_lost: f64,
    /// A message comes out of a delay queue before its time, by up to half of it.
    pub(crate) early: f64,
    /// It comes three minutes late, as after a restart of the broker.
    pub(crate) late: f64,
    /// Times at which the broker restarts: every unacknowledged message is delivered again.
    pub(crate) restarts: Vec<Timestamp>,
    /// A request comes out of its queue twice; the copy is no redelivery.
    pub(crate) duplicate_request: f64,
    /// A continuation takes effect before the events that were published with it.
    pub(crate) overtakes: f64,
    /// The acknowledgement is lost, and the worker does not notice.
    pub(crate) ack_vanishes: f64,
    /// The acknowledgement takes effect, and the worker does not get to know.
    pub(crate) ack_unreported: f64,
    /// Connections that are lost for a while.
    pub(crate) cuts: Vec<Cut>,
    /// From when until when what goes on is refused: continuations, and requests that are given back.
    pub(crate) full: Option<(Timestamp, Timestamp)>,
    /// Workers read the stream of commands again and again from its beginning.
    pub(crate) commands_again: bool,
    /// The longest that a delivery takes to its worker.
    pub(crate) travel: Duration,
    /// How long a request that is published waits behind others.
    pub(crate) backlog: Duration,
    /// From when on nothing goes wrong.
    pub(crate) quiet_from: Option<Timestamp>,
    /// How long the broker takes to notice that a consumer is gone.
    pub(crate) redelivers_after: Duration,
    /// The longest that a confirm or an NBI call takes, beyond what it takes anyway.
    pub(crate) latency: Duration,
}

/// A connection that is lost, while the worker lives on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) at: Timestamp,
    pub(crate) lasts: Duration,
    /// The how manieth of the workers that live then; none: all of them, as the broker is away.
    pub(crate) worker: Option<usize>,
}

/// What becomes of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Confirmed,
    Nacked,
    Returned,
    ConfirmLost,
    PublishLost,
    ConfirmLate,
}

impl Fate {
    /// Whether the message is with the broker.
    pub(crate) fn takes_effect(self) -> bool {
        matches!(
            self,
            Self::Confirmed | Self::ConfirmLost | Self::ConfirmLate
        )
    }

    /// Whether the publisher cannot know.
    pub(crate) fn is_unknown(self) -> bool {
        matches!(
            self,
            Self::ConfirmLost | Self::PublishLost | Self::ConfirmLate
        )
    }
}

/// Copies that faults of single messages may make in a run: each copy makes its own, and a chance alone would breed them without end.
const FORKS_MAX: usize = 6;

/// The draws.
#[derive(Debug)]
pub(crate) struct Draws {
    pub(crate) faults: Faults,
    forks_left: usize,
    rng: fastrand::Rng,
}

impl Draws {
    pub(crate) fn new(faults: Faults) -> Self {
        let rng = fastrand::Rng::with_seed(faults.seed);
        Self {
            faults,
            forks_left: FORKS_MAX,
            rng,
        }
    }

    fn happens(&mut self, chance: f64, now: Timestamp) -> bool {
        let is_quiet = self.faults.quiet_from.is_some_and(|time| now >= time);
        chance > 0.0 && !is_quiet && self.rng.f64() < chance
    }

    /// The same for what makes a copy.
    fn forks(&mut self, chance: f64, now: Timestamp) -> bool {
        let happens = self.forks_left > 0 && self.happens(chance, now);
        self.forks_left -= usize::from(happens);
        happens
    }

    /// What becomes of a publish.
    pub(crate) fn publish(&mut self, now: Timestamp) -> Fate {
        for (chance, fate) in [
            (self.faults.nack, Fate::Nacked),
            (self.faults.returned, Fate::Returned),
            (self.faults.confirm_lost, Fate::ConfirmLost),
            (self.faults.publish_lost, Fate::PublishLost),
            (self.faults.confirm_late, Fate::ConfirmLate),
        ] {
            let makes_a_copy = fate.takes_effect();
            let happens = if makes_a_copy {
                self.forks(chance, now)
            } else {
                self.happens(chance, now)
            };
            if happens {
                return fate;
            }
        }
        Fate::Confirmed
    }

    pub(crate) fn ack_is_lost(&mut self, now: Timestamp) -> bool {
        self.forks(self.faults.ack_lost, now)
    }

    pub(crate) fn ack_vanishes(&mut self, now: Timestamp) -> bool {
        self.forks(self.faults.ack_vanishes, now)
    }

    pub(crate) fn ack_is_unreported(&mut self, now: Timestamp) -> bool {
        self.happens(self.faults.ack_unreported, now)
    }

    pub(crate) fn is_request_duplicated(&mut self, now: Timestamp) -> bool {
        self.forks(self.faults.duplicate_request, now)
    }

    pub(crate) fn overtakes(&mut self, now: Timestamp) -> bool {
        self.happens(self.faults.overtakes, now)
    }

    /// How long a delivery takes to its worker.
    pub(crate) fn travel(&mut self, now: Timestamp) -> Duration {
        if self.faults.travel.is_zero() || !self.happens(1.0, now) {
            return Duration::ZERO;
        }
        self.faults.travel.mul_f64(self.rng.f64())
    }

    pub(crate) fn is_duplicated(&mut self, now: Timestamp) -> bool {
        self.forks(self.faults.duplicate, now)
    }

    /// Which of so many messages comes next.
    pub(crate) fn next_of(&mut self, count: usize, now: Timestamp) -> usize {
        if count > 1 && self.happens(self.faults.reorder, now) {
            self.rng.usize(..count)
        } else {
            0
        }
    }

    /// How long a message stays in a delay queue of this length.
    pub(crate) fn stay(&mut self, ttl: Duration, now: Timestamp) -> Duration {
        if self.happens(self.faults.early, now) {
            ttl.mul_f64(0.5 + 0.5 * self.rng.f64())
        } else if self.happens(self.faults.late, now) {
            ttl + Duration::from_secs(180)
        } else {
            ttl
        }
    }

    /// How long something takes beyond its least.
    pub(crate) fn latency(&mut self, now: Timestamp) -> Duration {
        if self.faults.latency.is_zero() || !self.happens(0.5, now) {
            return Duration::ZERO;
        }
        self.faults.latency.mul_f64(self.rng.f64().powi(3))
    }
}
