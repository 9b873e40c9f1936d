//! What travels through the broker: requests in, continuations between workers, events out. Versioned; our JSON is known here alone.
//!
//! Wire types are separate from the core's types, because messages of the previous release are in the queues while a new one starts.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::job::{Job, JobEvent, JobId};

pub mod campaign;
pub mod control;
pub mod event;
mod fields;
mod firmware;
pub mod headers;
pub mod journal;
mod json;
pub mod named;
pub mod orders;
pub mod past;
pub mod request;
pub mod schema;
pub mod step;
pub(crate) mod time;

pub use campaign::{CampaignRequest, Definition};
pub use control::{Answer, Command, Orders, Scope, Verb};
pub use event::{EventKind, EventMessage, EventSettings, job_id_of_event};
pub use headers::{DeadLetter, Incoming};
pub use named::Named;
pub use request::{FieldFault, Rejection, RequestSettings};
pub use step::StepError;

/// A job and what travels with it.
#[derive(Debug, Clone)]
pub struct Work {
    /// The job.
    pub job: Job,
    /// What is passed through untouched.
    pub carried: Carried,
    /// The job is not due before this moment. Set by the codec when a continuation that waits is decoded.
    pub not_due_before: Option<Timestamp>,
}

impl Work {
    /// Names one continuation of one job.
    #[must_use]
    pub fn key(&self) -> StepKey {
        let order = &self.job.order;
        let progress = &self.job.progress;
        let mut hasher = DefaultHasher::new();
        (&order.cpe_id, &order.firmware_url).hash(&mut hasher);
        (progress.stage, progress.attempt, progress.polls).hash(&mut hasher);
        (progress.rule, progress.started_at).hash(&mut hasher);
        for record in &progress.stages {
            (record.started_at, record.finished_at).hash(&mut hasher);
        }
        StepKey {
            job_id: order.job_id.clone(),
            seq: self.job.progress.seq,
            content: hasher.finish(),
        }
    }
}

/// Names one continuation of one job within a process.
///
/// What was ordered is part of it: two requests that carry one job id by mistake and name different devices are no copies of each other,
/// and none of them may be dropped for the other. So is how far it has come: two copies of a job count their hand-overs alike and may
/// stand at different stages, and the one that has armed the rule must not be dropped for the one that waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StepKey {
    /// The job.
    pub job_id: JobId,
    /// Its hand-overs so far; 0 for a request.
    pub seq: u64,
    /// A hash of what was ordered and of how far it has come.
    pub content: u64,
}

/// What the requester sent along and gets back with every event.
#[derive(Debug, Clone, Default)]
pub struct Carried {
    /// The request's `context`, byte for byte.
    pub context: Option<Box<RawValue>>,
    /// The request's `correlation_id`.
    pub correlation_id: Option<String>,
    /// The queue that also gets the final event.
    pub reply_to: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// W3C trace state.
    pub tracestate: Option<String>,
}

/// Turns messages into work and work into messages.
#[derive(Debug, Clone)]
pub struct Codec {
    /// Defaults and limits of requests.
    pub requests: RequestSettings,
    /// Where events come from and which are wanted.
    pub events: EventSettings,
}

impl Codec {
    /// A job from a request, or every field at fault.
    ///
    /// # Errors
    ///
    /// [`Rejection`] names each field at fault with its value and the remedy.
    pub fn decode_request(
        &self,
        incoming: &Incoming<'_>,
        now: Timestamp,
    ) -> Result<Work, Rejection> {
        request::decode(incoming, &self.requests, now)
    }

    /// A campaign from a request that has `devices`, or every field at fault; `None` for other requests.
    #[must_use]
    pub fn decode_campaign(
        &self,
        incoming: &Incoming<'_>,
        now: Timestamp,
    ) -> Option<Result<CampaignRequest, Rejection>> {
        campaign::decode(incoming, &self.requests, now)
    }

    /// A job from a continuation.
    ///
    /// # Errors
    ///
    /// [`StepError::NewerVersion`] or [`StepError::NewerName`] for a continuation of a newer release (park it), else [`StepError::Malformed`].
    pub fn decode_step(&self, incoming: &Incoming<'_>) -> Result<Work, StepError> {
        step::decode(incoming)
    }

    /// The events that others see among what happened to a job, in order.
    #[must_use]
    pub fn published_events(
        &self,
        work: &Work,
        events: &[JobEvent],
        now: Timestamp,
    ) -> Vec<EventMessage> {
        event::published(work, events, &self.events, now)
    }

    /// The event about a request that is not valid.
    #[must_use]
    pub fn rejected_event(
        &self,
        incoming: &Incoming<'_>,
        rejection: &Rejection,
        now: Timestamp,
    ) -> EventMessage {
        event::rejected(incoming, rejection, &self.events, now)
    }

    /// The answer to a command.
    #[must_use]
    pub fn answer_event(&self, answer: &Answer<'_>, now: Timestamp) -> EventMessage {
        event::of_command(answer, &self.events, now)
    }

    /// The continuation's body; `work.not_due_before` travels in it.
    #[must_use]
    pub fn encode_step(&self, work: &Work) -> Vec<u8> {
        step::encode(work)
    }
}

/// A broker's timestamp property: Unix seconds.
#[must_use]
pub fn unix_seconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_second()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
