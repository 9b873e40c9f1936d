//! Records of a run's journal: what a broker would hold of a job, as lines of JSON. Versioned, as a journal may outlive a release.
//!
//! The file is `driver/journal.rs`'s. A record is whole or it is not there: the reader drops a last line that was cut.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Codec, EventMessage, Work};

/// The version that this release writes.
const VERSION: u64 = 1;

/// What is known of one job after reading a journal.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The job.
    pub job_id: String,
    /// Its request, as it was given.
    pub request: Vec<u8>,
    /// Its latest continuation; none before the first hand-over and after the end.
    pub step: Option<Vec<u8>>,
    /// Its events so far, in order.
    pub events: Vec<Vec<u8>>,
    /// Whether it has its outcome.
    pub is_over: bool,
}

/// A line that is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a newer release.
    #[error("it was written by a newer release (version {found}, this one reads {VERSION})")]
    NewerVersion {
        /// Version found.
        found: u64,
    },
    /// Not a record.
    #[error("{0}")]
    Malformed(String),
}

#[derive(Serialize, Deserialize)]
struct RecordV1 {
    v: u64,
    job_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    events: Vec<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "is_false")]
    is_over: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

/// A record as a line with its end.
fn line(record: &RecordV1) -> Vec<u8> {
    let mut line = serde_json::to_vec(record).unwrap_or_default();
    line.push(b'\n');
    line
}

/// JSON that came in as bytes; something that is none is kept as text, so that no record is lost over it.
fn raw(body: &[u8]) -> Option<Box<RawValue>> {
    let text = String::from_utf8_lossy(body);
    // A line break between two tokens would end the record.
    let text = text.replace(['\n', '\r'], " ");
    RawValue::from_string(text).ok()
}

/// The record of a new job.
#[must_use]
pub fn of_request(job_id: &str, request: &[u8]) -> Vec<u8> {
    line(&RecordV1 {
        v: VERSION,
        job_id: job_id.to_owned(),
        request: raw(request),
        step: None,
        events: Vec::new(),
        is_over: false,
    })
}

/// The record of one hand-over: the continuation, or the end, with the events that go with it.
#[must_use]
pub fn of_hand_over(codec: &Codec, work: &Work, is_over: bool, events: &[EventMessage]) -> Vec<u8> {
    let step = if is_over {
        None
    } else {
        raw(&codec.encode_step(work))
    };
    line(&RecordV1 {
        v: VERSION,
        job_id: work.job.order.job_id.to_string(),
        request: None,
        step,
        events: events.iter().filter_map(|event| raw(&event.body)).collect(),
        is_over,
    })
}

impl Kept {
    /// All that is known of the job as one record, to begin a shorter journal with.
    #[must_use]
    pub fn record(&self) -> Vec<u8> {
        line(&RecordV1 {
            v: VERSION,
            job_id: self.job_id.clone(),
            request: raw(&self.request),
            step: self.step.as_deref().and_then(raw),
            events: self.events.iter().filter_map(|event| raw(event)).collect(),
            is_over: self.is_over,
        })
    }
}

/// What a journal says, job by job, in the order in which they were first seen.
#[derive(Debug, Clone, Default)]
pub struct Jobs {
    list: Vec<Kept>,
    places: HashMap<String, usize>,
}

impl Jobs {
    /// Takes one line.
    ///
    /// # Errors
    ///
    /// [`RecordError`]: the line is no record that this release can read.
    pub fn take(&mut self, line: &[u8]) -> Result<(), RecordError> {
        #[derive(Deserialize)]
        struct VersionOnly {
            v: u64,
        }
        let malformed = |error: serde_json::Error| RecordError::Malformed(error.to_string());
        let VersionOnly { v } = serde_json::from_slice(line).map_err(malformed)?;
        if v > VERSION {
            return Err(RecordError::NewerVersion { found: v });
        }
        let record: RecordV1 = serde_json::from_slice(line).map_err(malformed)?;
        let bytes = |value: Box<RawValue>| value.get().as_bytes().to_vec();
        let job = self.entry(record.job_id);
        if let Some(request) = record.request {
            job.request = bytes(request);
        }
        if let Some(step) = record.step {
            job.step = Some(bytes(step));
        }
        job.events.extend(record.events.into_iter().map(bytes));
        if record.is_over {
            job.is_over = true;
            job.step = None;
        }
        Ok(())
    }

    fn entry(&mut self, job_id: String) -> &mut Kept {
        let place = *self.places.entry(job_id).or_insert_with_key(|job_id| {
            self.list.push(Kept {
                job_id: job_id.clone(),
                request: Vec::new(),
                step: None,
                events: Vec::new(),
                is_over: false,
            });
            self.list.len() - 1
        });
        &mut self.list[place]
    }

    /// The job of this id.
    #[must_use]
    pub fn get(&self, job_id: &str) -> Option<&Kept> {
        self.places.get(job_id).map(|place| &self.list[*place])
    }

    /// All of them.
    #[must_use]
    pub fn list(&self) -> &[Kept] {
        &self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_add_up_and_survive_a_rewrite() {
        let lines = [
            r#"{"v":1,"job_id":"a","request":{"job_id":"a","context":[1, 2]}}"#,
            r#"{"v":1,"job_id":"b","request":{"job_id":"b"}}"#,
            r#"{"v":1,"job_id":"a","step":{"v":1,"n":1},"events":[{"type":"upgrade.accepted"}]}"#,
            r#"{"v":1,"job_id":"a","step":{"v":1,"n":2}}"#,
            r#"{"v":1,"job_id":"b","events":[{"type":"upgrade.completed"}],"is_over":true}"#,
        ];
        let mut jobs = Jobs::default();
        for line in lines {
            jobs.take(line.as_bytes()).unwrap();
        }
        let mut again = Jobs::default();
        for job in jobs.list() {
            let record = job.record();
            assert_eq!(record.iter().filter(|byte| **byte == b'\n').count(), 1);
            again.take(&record).unwrap();
        }
        for jobs in [&jobs, &again] {
            let ids: Vec<_> = jobs.list().iter().map(|job| job.job_id.as_str()).collect();
            assert_eq!(ids, ["a", "b"]);
            let a = jobs.get("a").unwrap();
            assert_eq!(a.request, br#"{"job_id":"a","context":[1, 2]}"#);
            assert_eq!(a.step.as_deref(), Some(&br#"{"v":1,"n":2}"#[..]));
            assert_eq!((a.events.len(), a.is_over), (1, false));
            let b = jobs.get("b").unwrap();
            assert_eq!((&b.step, b.is_over), (&None, true));
        }
    }

    #[test]
    fn what_is_no_record_is_said_to_be_none() {
        let mut jobs = Jobs::default();
        assert_eq!(
            jobs.take(br#"{"v":2,"odd":true}"#),
            Err(RecordError::NewerVersion { found: 2 })
        );
        for line in [&b""[..], b"{", b"{}", br#"{"v":1}"#, b"[1]"] {
            assert!(matches!(jobs.take(line), Err(RecordError::Malformed(_))));
        }
        assert!(jobs.list().is_empty());
    }
}
