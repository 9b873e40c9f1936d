//! Upgrade requests.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::{Incoming, Work};
use crate::job::state::Cleanup;

/// Defaults and limits of requests, from the configuration.
#[derive(Debug, Clone)]
pub struct RequestSettings {
    /// `job.timeout`.
    pub timeout: SignedDuration,
    /// `job.cleanup`.
    pub cleanup: Cleanup,
    /// `job.max_attempts`.
    pub max_attempts: u32,
    /// `nbi.rule_id`: a template with `{cpe_id}` and, if wanted, `{job_id}`.
    pub rule_id: String,
    /// `firmware.allowed_url_prefixes`; empty: any.
    pub allowed_url_prefixes: Vec<String>,
    /// `firmware.allow_credentials`: whether a URL may carry a user and password.
    pub allow_url_credentials: bool,
    /// `verify.enabled`: without it `expected_version` is refused.
    pub verify: bool,
}

/// Largest request, in bytes.
pub const BODY_MAX: usize = 64 * 1024;

/// One field at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFault {
    /// The field, or `body` for the whole.
    pub field: String,
    /// What is wrong with which value, and the remedy.
    pub message: String,
}

/// A request that is not valid, with every field at fault.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rejection {
    /// The job's id, if it could be read.
    pub job_id: Option<String>,
    /// The device, if it could be read.
    pub cpe_id: Option<String>,
    /// The campaign, if it could be read and is valid.
    pub campaign_id: Option<String>,
    /// What is wrong.
    pub faults: Vec<FieldFault>,
}

impl fmt::Display for Rejection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(formatter, "{separator}{}: {}", fault.field, fault.message)?;
        }
        Ok(())
    }
}

pub(super) fn decode(_incoming: &Incoming<'_>, _settings: &RequestSettings, _now: Timestamp) -> Result<Work, Rejection> {
    Err(Rejection::default())
}
