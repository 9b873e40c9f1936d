//! `[amqp]`: the broker.

use std::path::PathBuf;

use jiff::SignedDuration;
use secrecy::SecretString;
use url::Url;

use super::reader::Reader;
use super::tls::Tls;

/// The broker.
#[derive(Debug, Clone)]
pub struct Amqp {
    /// The nodes, tried in this order, in a circle; they carry credentials. Empty where no URL is given.
    pub urls: Vec<SecretString>,
    /// The file that the URL came from: it is read again at every connect.
    pub url_file: Option<PathBuf>,
    /// What the names of all broker objects begin with.
    pub prefix: String,
    /// Unacknowledged continuations that one worker holds at most.
    pub prefetch: u16,
    /// Unacknowledged requests that one worker holds at most.
    pub prefetch_requests: u16,
    /// What happens to the topology at start.
    pub topology: Topology,
    /// Heartbeat of both connections.
    pub heartbeat: SignedDuration,
    /// Longest time for making a connection.
    pub connect_timeout: SignedDuration,
    /// Longest wait for a publisher confirm.
    pub publish_timeout: SignedDuration,
    /// Queues that a request's `reply_to` may name, `*` standing for any text; empty: any.
    pub reply_to_allowed: Vec<String>,
    /// Certificates, for `amqps`.
    pub tls: Tls,
    /// How long orders (cancel, pause, resume) are kept for workers that start later.
    pub control_retention: SignedDuration,
}

/// What happens to exchanges and queues at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Topology {
    /// They are declared.
    #[default]
    Declare,
    /// They are only looked for; somebody else declares them.
    Check,
}

const SECOND: SignedDuration = SignedDuration::from_secs(1);

impl Amqp {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            urls: urls(reader),
            url_file: reader.secret_path("amqp.url_file"),
            // Queue names have at most 255 bytes; the longest suffix is `.campaign.` and an id of 64.
            prefix: reader.name("amqp.prefix", 64, "._-"),
            prefetch: reader.number("amqp.prefetch", 1..=10_000),
            prefetch_requests: reader.number("amqp.prefetch_requests", 1..=10_000),
            topology: reader.one_of(
                "amqp.topology",
                &[("declare", Topology::Declare), ("check", Topology::Check)],
            ),
            heartbeat: reader.duration("amqp.heartbeat", SECOND * 5..=SECOND * 600),
            connect_timeout: reader.duration("amqp.connect_timeout", SECOND..=SECOND * 300),
            publish_timeout: reader.duration("amqp.publish_timeout", SECOND..=SECOND * 600),
            reply_to_allowed: reader.list("amqp.reply_to_allowed", |item| Ok(item.to_owned())),
            tls: Tls::read(
                reader,
                "amqp.ca_file",
                "amqp.client_cert_file",
                "amqp.client_key_file",
            ),
            control_retention: reader.duration(
                "amqp.control_retention",
                SECOND * 3_600..=SignedDuration::from_hours(24 * 3_650),
            ),
        }
    }
}

fn urls(reader: &mut Reader) -> Vec<SecretString> {
    let one = reader.secret("amqp.url", "amqp.url_file");
    reader.hide("amqp.urls");
    let many = reader.list("amqp.urls", |item| {
        check(item).map(|()| SecretString::from(item))
    });
    for other in ["amqp.url", "amqp.url_file"] {
        if reader.is_set("amqp.urls") && reader.is_set(other) {
            reader.both_given("amqp.urls", other);
        }
    }
    if let Some(url) = &one
        && let Err((problem, remedy)) = check(secrecy::ExposeSecret::expose_secret(url))
    {
        let key = if reader.is_set("amqp.url") {
            "amqp.url"
        } else {
            "amqp.url_file"
        };
        reader.fault(key, problem, remedy);
    }
    one.map_or(many, |url| vec![url])
}

fn check(url: &str) -> Result<(), (String, String)> {
    let remedy = || {
        "give amqp://USER:PASSWORD@HOST:5672/VHOST or amqps://…, VHOST / written as %2f".to_owned()
    };
    match Url::parse(url) {
        Err(error) => Err((format!("is not a URL: {error}"), remedy())),
        Ok(url) if !matches!(url.scheme(), "amqp" | "amqps") => {
            Err((format!("has the scheme {:?}", url.scheme()), remedy()))
        }
        Ok(url) if url.host_str().is_none_or(str::is_empty) => {
            Err(("names no host".to_owned(), remedy()))
        }
        Ok(_) => Ok(()),
    }
}
