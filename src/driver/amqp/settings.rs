//! What the AMQP driver must be told: where the broker is, how its objects are named, and how patient to be.
//!
//! Values arrive checked for form by `config/`; what only the broker can judge (permissions, arguments) is judged at connect.

use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use secrecy::SecretString;

/// Whether the worker creates its broker objects or only looks whether they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TopologyMode {
    /// Declare everything at every connect: 20 ms when it stands already.
    #[default]
    Declare,
    /// Passive declares only, for sites that provision centrally. Existence is checked; arguments cannot be.
    Check,
}

/// TLS for `amqps://` URLs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM bundle of a private certificate authority; without it the platform's.
    pub ca_file: Option<PathBuf>,
    /// PEM client certificate; needs `client_key_file`.
    pub client_cert_file: Option<PathBuf>,
    /// PEM (PKCS#8) key of the client certificate.
    pub client_key_file: Option<PathBuf>,
}

/// Everything the driver must be told.
#[derive(Debug, Clone)]
pub struct AmqpSettings {
    /// Brokers, tried in turn and in a circle; a worker begins at one of them by chance. They hold passwords and are never printed.
    pub urls: Vec<SecretString>,
    /// `amqp.url_file`: if it is given, the URL is read from it at every connect, so that a changed one needs no restart.
    pub url_file: Option<PathBuf>,
    /// Start of every object's name.
    pub prefix: String,
    /// Unacknowledged steps at a time; also the pipelining depth, which below 16 costs the broker double.
    pub prefetch: u16,
    /// Unacknowledged requests at a time.
    pub prefetch_requests: u16,
    /// Declare or check.
    pub topology: TopologyMode,
    /// Names the connections and the dead letters.
    pub instance_name: String,
    /// A dead peer is noticed after twice this.
    pub heartbeat: Duration,
    /// Bound of TCP, TLS and AMQP handshake together.
    pub connect_timeout: Duration,
    /// A publish without confirm ends the connection after this, as its outcome is unknown.
    pub publish_timeout: Duration,
    /// Age kept in `<p>.events`, in RabbitMQ's notation (`7D`).
    pub events_max_age: String,
    /// Size kept in `<p>.events`.
    pub events_max_length_bytes: u64,
    /// Age kept in `<p>.control`.
    pub control_max_age: String,
    /// The same, for what a worker remembers of it.
    pub control_kept_for: SignedDuration,
    /// Size kept in `<p>.control`.
    pub control_max_length_bytes: u64,
    /// Patterns (`*` stands for any text) of queues that `reply_to` may name; empty: any.
    pub reply_to_allowed: Vec<String>,
    /// A campaign's counts are published this often, while they change.
    pub campaign_progress_interval: Duration,
    /// How long the leader of campaigns holds a message before it gives it back and gets it again: less than the 30 minutes after which
    /// the broker takes a delivery away.
    pub campaign_held_max: Duration,
    /// After the end of a pause devices that it disarmed may be armed again after this even where no operator says so
    /// (`job.flash_time_max`); zero: they are not.
    pub campaign_arm_again_after: SignedDuration,
    /// A refused publish asks again through a new channel where the one in use is older than this.
    pub refused_anew_after: Duration,
    /// TLS.
    pub tls: TlsSettings,
}

impl Default for AmqpSettings {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            url_file: None,
            prefix: "upgrade".to_owned(),
            prefetch: 256,
            prefetch_requests: 64,
            topology: TopologyMode::Declare,
            instance_name: "nbi-upgrade".to_owned(),
            heartbeat: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(10),
            publish_timeout: Duration::from_secs(30),
            events_max_age: "7D".to_owned(),
            events_max_length_bytes: 5_000_000_000,
            control_max_age: "30D".to_owned(),
            control_kept_for: SignedDuration::from_hours(24 * 30),
            control_max_length_bytes: 100_000_000,
            reply_to_allowed: Vec::new(),
            campaign_progress_interval: Duration::from_secs(60),
            campaign_held_max: Duration::from_secs(600),
            campaign_arm_again_after: SignedDuration::ZERO,
            refused_anew_after: Duration::from_secs(60),
            tls: TlsSettings::default(),
        }
    }
}

impl AmqpSettings {
    /// Whether a final event may be sent to this queue: never one of our own, and only what the patterns allow.
    #[must_use]
    pub fn reply_is_allowed(&self, queue: &str) -> bool {
        let is_ours = queue
            .strip_prefix(self.prefix.as_str())
            .is_some_and(|rest| rest.starts_with('.'));
        let is_listed = || {
            self.reply_to_allowed
                .iter()
                .any(|pattern| matches(pattern, queue))
        };
        !queue.is_empty()
            && queue.len() <= 255
            && !is_ours
            && (self.reply_to_allowed.is_empty() || is_listed())
    }
}

/// Whether `text` fits `pattern`, where each `*` stands for any text, also none.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("*", "anything", true),
            ("app.*", "app.replies", true),
            ("app.*", "other.replies", false),
            ("*.replies", "app.replies", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c", false),
            ("ab*ba", "aba", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} against {text}");
        }
    }

    #[test]
    fn replies_never_go_to_our_own_queues() {
        let settings = AmqpSettings::default();
        assert!(settings.reply_is_allowed("upgraded.replies"));
        assert!(!settings.reply_is_allowed("upgrade.steps"));
        assert!(!settings.reply_is_allowed(""));
        let settings = AmqpSettings {
            reply_to_allowed: vec!["crm.*".to_owned()],
            ..settings
        };
        assert!(settings.reply_is_allowed("crm.firmware"));
        assert!(!settings.reply_is_allowed("billing"));
    }
}
