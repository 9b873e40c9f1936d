//! The configuration in the words of the parts that take it, and what only some commands require.

use jiff::SignedDuration;
use secrecy::SecretString;
use url::Url;

use super::events::Progress;
use super::load::environment_variable;
use super::{Config, ConfigError, Fault};
use crate::job::Policy;
use crate::job::policy::OnBusy;
use crate::job::retry::Backoff;
use crate::message::{EventSettings, RequestSettings};

/// Where the NBI is and how to get in.
#[derive(Debug, Clone)]
pub struct NbiAccess {
    /// Its base, without `/v1`.
    pub url: Url,
    /// The user of Basic authentication.
    pub username: String,
    /// Their password.
    pub password: SecretString,
}

impl Config {
    /// What is valid and advised against all the same: what may come of it, and the remedy.
    #[must_use]
    pub fn advice(&self) -> Option<(&'static str, &'static str)> {
        (self.job.on_busy == OnBusy::Supersede && !self.nbi.tag_rules).then_some((
            "job.on_busy = \"supersede\" without nbi.tag_rules: a job that takes over may take the other's result for its own",
            "set nbi.tag_rules = true if the NBI keeps descriptions, or read versions back (verify.enabled)",
        ))
    }

    /// What decisions about jobs depend on.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let doubling = |initial, max| Backoff {
            initial,
            multiplier: 2.0,
            max,
        };
        let built_in = Policy::default();
        Policy {
            on_busy: self.job.on_busy,
            retry: self.retry.backoff,
            retry_max_elapsed: self.retry.max_elapsed,
            unintelligible_max: self.retry.unintelligible_max,
            connection_request_attempts: self.connection_request.attempts,
            connection_request_resend_interval: self.connection_request.resend_interval,
            connection_request_on_failure: self.connection_request.on_failure,
            await_result: self.await_result.backoff,
            success_codes: self.nbi.success_codes.clone(),
            faults: self.faults.policy.clone(),
            // A device that has failed several times hourly will hardly do better at longer intervals.
            attempt_pause: doubling(
                self.job.attempt_pause,
                self.job.attempt_pause.max(SignedDuration::from_hours(1)),
            ),
            busy_interval: doubling(self.job.busy_initial, self.job.busy_max),
            flash_time: self.job.flash_time,
            flash_time_max: self.job.flash_time_max,
            late_watch: self.job.late_watch,
            release_pause: built_in.release_pause,
            tag_rules: self.nbi.tag_rules,
            verify: self.verify.enabled,
            steps_max: built_in.steps_max,
        }
    }

    /// Defaults and limits of requests.
    #[must_use]
    pub fn requests(&self) -> RequestSettings {
        RequestSettings {
            timeout: self.job.timeout,
            cleanup: self.job.cleanup,
            repeat_window: self.job.repeat_window,
            max_attempts: self.job.max_attempts,
            rule_id: self.nbi.rule_id.clone(),
            allowed_url_prefixes: self.firmware.allowed_url_prefixes.clone(),
            allow_url_credentials: self.firmware.allow_credentials,
            verify: self.verify.enabled,
            campaign_configuration_faults: self.campaign.configuration_faults,
            configuration_codes: self.faults.policy.configuration.clone(),
        }
    }

    /// Where events come from and which are wanted.
    #[must_use]
    pub fn events(&self) -> EventSettings {
        EventSettings {
            source: format!("/nbi-upgrade/{}", self.instance.name),
            progress: match self.events.progress {
                Progress::None => false,
                Progress::Milestones => true,
            },
        }
    }

    /// The broker's nodes, at least one.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] where no URL is given.
    pub fn require_amqp(&self) -> Result<Vec<SecretString>, ConfigError> {
        if self.amqp.urls.is_empty() {
            return Err(ConfigError {
                faults: vec![missing("amqp.url", "amqp.url_file or amqp.urls")],
            });
        }
        Ok(self.amqp.urls.clone())
    }

    /// Where the NBI is and how to get in.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names each of URL, user and password that is not given.
    pub fn require_nbi(&self) -> Result<NbiAccess, ConfigError> {
        let nbi = &self.nbi;
        if let (Some(url), Some(username), Some(password)) =
            (&nbi.url, &nbi.username, &nbi.password)
        {
            return Ok(NbiAccess {
                url: url.clone(),
                username: username.clone(),
                password: password.clone(),
            });
        }
        let given = [
            (nbi.url.is_some(), missing("nbi.url", "")),
            (nbi.username.is_some(), missing("nbi.username", "")),
            (
                nbi.password.is_some(),
                missing("nbi.password", "nbi.password_file"),
            ),
        ];
        Err(ConfigError {
            faults: given
                .into_iter()
                .filter(|(is_given, _)| !is_given)
                .map(|(_, fault)| fault)
                .collect(),
        })
    }

    /// Both, with the faults of both at once.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names everything that is not given.
    pub fn require_both(&self) -> Result<(Vec<SecretString>, NbiAccess), ConfigError> {
        match (self.require_amqp(), self.require_nbi()) {
            (Ok(amqp), Ok(nbi)) => Ok((amqp, nbi)),
            (amqp, nbi) => {
                let faults = amqp
                    .err()
                    .into_iter()
                    .chain(nbi.err())
                    .flat_map(|error| error.faults)
                    .collect();
                Err(ConfigError { faults })
            }
        }
    }
}

fn missing(key: &str, instead: &str) -> Fault {
    let or = if instead.is_empty() {
        String::new()
    } else {
        format!(" (or {instead})")
    };
    Fault {
        key: key.to_owned(),
        value: None,
        origin: String::new(),
        problem: "is not set, and this command needs it".to_owned(),
        remedy: format!(
            "set {key}{or} in the file, or {}",
            environment_variable(key)
        ),
    }
}
