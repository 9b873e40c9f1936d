//! A seeded plan of failures: what goes wrong between the caller and the model, and when.
//!
//! One draw per call, from a generator of its own, so that the same seed and the same calls meet the same troubles.
//! `Display` prints the seed and the plan: a failing test shows how to run it again.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use super::reply::Operation;

/// One thing that goes wrong with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trouble {
    /// HTTP 503 without effect.
    Unavailable,
    /// HTTP 503 without effect, with `Retry-After`.
    UnavailableRetryAfter,
    /// HTTP 429 without effect, with `Retry-After`.
    TooManyRequests,
    /// The effect is done, the connection breaks before the answer.
    AnswerLost,
    /// No connection, no effect.
    Refused,
    /// No effect, and no answer within any patience.
    HangBeforeEffect,
    /// The effect is done, and no answer comes within any patience.
    HangAfterEffect,
    /// The effect is done, the body is not text.
    Garbage,
    /// A page with HTTP 200 in place of the answer, without effect: a proxy's.
    HtmlPage,
    /// The effect is done, the connection breaks in the middle of the body.
    Truncated,
    /// The effect is done, the body is far too large.
    Huge,
    /// HTTP 401 without effect.
    Unauthorized,
}

impl Trouble {
    /// Every variant.
    pub const ALL: &'static [Self] = &[
        Self::Unavailable,
        Self::UnavailableRetryAfter,
        Self::TooManyRequests,
        Self::AnswerLost,
        Self::Refused,
        Self::HangBeforeEffect,
        Self::HangAfterEffect,
        Self::Garbage,
        Self::HtmlPage,
        Self::Truncated,
        Self::Huge,
        Self::Unauthorized,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::UnavailableRetryAfter => "unavailable_retry_after",
            Self::TooManyRequests => "too_many_requests",
            Self::AnswerLost => "answer_lost",
            Self::Refused => "refused",
            Self::HangBeforeEffect => "hang_before_effect",
            Self::HangAfterEffect => "hang_after_effect",
            Self::Garbage => "garbage",
            Self::HtmlPage => "html_page",
            Self::Truncated => "truncated",
            Self::Huge => "huge",
            Self::Unauthorized => "unauthorized",
        }
    }

    /// Whether the call is carried out all the same.
    #[must_use]
    pub fn leaves_the_effect(self) -> bool {
        match self {
            Self::AnswerLost
            | Self::HangAfterEffect
            | Self::Garbage
            | Self::Truncated
            | Self::Huge => true,
            Self::Unavailable
            | Self::UnavailableRetryAfter
            | Self::TooManyRequests
            | Self::Refused
            | Self::HangBeforeEffect
            | Self::HtmlPage
            | Self::Unauthorized => false,
        }
    }
}

/// A time in which every call meets the same trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spell {
    trouble: Trouble,
    from: Timestamp,
    until: Timestamp,
}

/// The plan.
#[derive(Debug, Clone)]
pub struct TroublePlan {
    seed: u64,
    rng: fastrand::Rng,
    chances: BTreeMap<Trouble, f64>,
    spells: Vec<Spell>,
    only: Vec<Operation>,
    quiet_from: Option<Timestamp>,
    retry_after_seconds: u32,
}

impl TroublePlan {
    /// Nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self::new(0)
    }

    /// Nothing goes wrong yet; the builder's methods add to it.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            rng: fastrand::Rng::with_seed(seed),
            chances: BTreeMap::new(),
            spells: Vec::new(),
            only: Vec::new(),
            quiet_from: None,
            retry_after_seconds: 5,
        }
    }

    /// Everything that costs the caller no credentials goes wrong, with `share` of all calls hit (0 to 1), evenly spread.
    ///
    /// 401 is left to spells: one of them makes a caller stop, as it should.
    #[must_use]
    pub fn storm(seed: u64, share: f64) -> Self {
        let kinds = Trouble::ALL
            .iter()
            .filter(|kind| **kind != Trouble::Unauthorized);
        let each = share / kinds.clone().count() as f64;
        kinds.fold(Self::new(seed), |plan, kind| plan.with(*kind, each))
    }

    /// `chance` (0 to 1) of this trouble for each call. The chances of all kinds add up; above 1 the later kinds lose.
    #[must_use]
    pub fn with(mut self, trouble: Trouble, chance: f64) -> Self {
        self.chances.insert(trouble, chance);
        self
    }

    /// Every call from `from` until before `until` meets this trouble: an outage, expired credentials.
    #[must_use]
    pub fn spell(mut self, trouble: Trouble, from: Timestamp, until: Timestamp) -> Self {
        self.spells.push(Spell {
            trouble,
            from,
            until,
        });
        self
    }

    /// Chances apply to these operations only; spells apply to all.
    #[must_use]
    pub fn only(mut self, operations: &[Operation]) -> Self {
        self.only = operations.to_vec();
        self
    }

    /// Chances end at this time, so that a storm may end well.
    #[must_use]
    pub fn quiet_from(mut self, time: Timestamp) -> Self {
        self.quiet_from = Some(time);
        self
    }

    /// What `Retry-After` says, in seconds; 5 if not set.
    #[must_use]
    pub fn retry_after_seconds(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = seconds;
        self
    }

    /// The seed that it was made with.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What `Retry-After` shall say for this trouble.
    pub(crate) fn retry_after(&self, trouble: Trouble) -> Option<String> {
        matches!(
            trouble,
            Trouble::UnavailableRetryAfter | Trouble::TooManyRequests
        )
        .then(|| self.retry_after_seconds.to_string())
    }

    /// What happens to this call.
    pub(crate) fn draw(&mut self, operation: Operation, now: Timestamp) -> Option<Trouble> {
        let spell = self
            .spells
            .iter()
            .find(|spell| spell.from <= now && now < spell.until);
        if let Some(spell) = spell {
            return Some(spell.trouble);
        }
        let is_quiet = self.quiet_from.is_some_and(|time| now >= time);
        let is_spared = !self.only.is_empty() && !self.only.contains(&operation);
        if self.chances.is_empty() || is_quiet || is_spared {
            return None;
        }
        let mut left = self.rng.f64();
        for (trouble, chance) in &self.chances {
            if left < *chance {
                return Some(*trouble);
            }
            left -= chance;
        }
        None
    }
}

impl fmt::Display for TroublePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "troubles with seed {}:", self.seed)?;
        for (trouble, chance) in &self.chances {
            write!(f, " {} {chance:.3}", trouble.name())?;
        }
        for spell in &self.spells {
            write!(
                f,
                " {} from {} until {}",
                spell.trouble.name(),
                spell.from,
                spell.until
            )?;
        }
        if !self.only.is_empty() {
            let names: Vec<_> = self.only.iter().map(|operation| operation.name()).collect();
            write!(f, " only {}", names.join(","))?;
        }
        if let Some(time) = self.quiet_from {
            write!(f, " quiet from {time}")?;
        }
        Ok(())
    }
}
