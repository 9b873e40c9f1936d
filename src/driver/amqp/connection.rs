//! One connection: parse the URL, connect, open channels, close; each within a bound.
//!
//! The client library's own recovery stays off: `supervisor.rs` builds a whole new generation instead. Nothing here prints a password.

use std::sync::OnceLock;
use std::time::Duration;

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connect, Connection, ConnectionProperties, runtime};
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;

use super::error::{BrokerError, bounded};
use super::settings::{AmqpSettings, TlsSettings};

/// Bound of a call that the broker answers at once.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bound of a close: it hangs while the broker blocks the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// AMQP's reply code for a normal end.
const REPLY_SUCCESS: u16 = 200;

/// The end of a generation: said once, seen by all.
#[derive(Debug, Default)]
pub(super) struct Ending {
    token: CancellationToken,
    reason: OnceLock<String>,
}

impl Ending {
    /// Ends the generation; only the first reason counts.
    pub(super) fn end(&self, reason: impl Into<String>) {
        self.reason.get_or_init(|| reason.into());
        self.token.cancel();
    }

    /// Waits for the end.
    pub(super) async fn ended(&self) {
        self.token.cancelled().await;
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Why.
    pub(super) fn reason(&self) -> String {
        self.reason.get().cloned().unwrap_or_default()
    }
}

/// What a connection is for; part of its name on the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Publishing,
    Consuming,
    Topology,
    Requesting,
    Reading,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Publishing => "publishing",
            Self::Consuming => "consuming",
            Self::Topology => "topology",
            Self::Requesting => "requesting",
            Self::Reading => "reading",
        }
    }
}

/// The URL without user, password and query.
pub(super) fn redacted(url: &SecretString) -> String {
    match url::Url::parse(url.expose_secret()) {
        // A password with a bare slash or without `//` before it would end up in the path.
        Ok(url) if url.has_host() && !url.path().contains('@') => {
            let port = url
                .port()
                .map(|port| format!(":{port}"))
                .unwrap_or_default();
            format!(
                "{}://{}{port}{}",
                url.scheme(),
                url.host_str().unwrap_or("localhost"),
                url.path()
            )
        }
        _ => "the broker's URL".to_owned(),
    }
}

/// Connects to the first broker of the list that lets us in.
///
/// # Errors
///
/// The last broker's [`BrokerError`].
pub(super) async fn connect_any(
    settings: &AmqpSettings,
    purpose: Purpose,
) -> Result<Connection, BrokerError> {
    let mut last = BrokerError::new("connect to a broker", "no URL is configured");
    for url in &settings.urls {
        match connect(settings, url, purpose).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Connects to one broker.
///
/// # Errors
///
/// [`BrokerError`] with the remedy where it is known.
pub(super) async fn connect(
    settings: &AmqpSettings,
    url: &SecretString,
    purpose: Purpose,
) -> Result<Connection, BrokerError> {
    let action = || format!("connect to {} ({})", redacted(url), purpose.name());
    let uri = parse(settings, url)?;
    let tls = tls_config(&settings.tls).await?;
    let name = format!("{} {}", settings.instance_name, purpose.name());
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let runtime = runtime::default_runtime().map_err(|error| BrokerError::of(action(), &error))?;
    let connected = uri.connect_with_config(properties, tls, runtime);
    bounded(action, settings.connect_timeout, connected).await.map_err(|error| {
        let remedy = match error.code {
            Some(403) => "check the user and password in amqp.url",
            Some(530) => {
                "create the vhost and give the user permissions on it; a URL that ends in \"/\" names the vhost with the empty \
                 name, the default vhost is \"/%2f\""
            }
            _ => return error,
        };
        error.with_remedy(remedy)
    })
}

fn parse(settings: &AmqpSettings, url: &SecretString) -> Result<AMQPUri, BrokerError> {
    let wrong = |cause: &str| {
        BrokerError::new("read amqp.url", cause)
            .with_remedy("write it as amqp://user:password@host:5672/vhost")
    };
    let parsed = url::Url::parse(url.expose_secret()).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(parsed.scheme(), "amqp" | "amqps") {
        return Err(wrong("the scheme is neither amqp nor amqps"));
    }
    // The library's own message would print the whole URL.
    let mut uri: AMQPUri = url
        .expose_secret()
        .parse()
        .map_err(|_| wrong("the host, the port, the vhost or a parameter is not valid"))?;
    // The library takes the host only where it is a name, and would silently connect to localhost otherwise.
    if let Some(url::Host::Ipv6(address)) = parsed.host() {
        uri.authority.host = address.to_string();
    }
    let heartbeat = u16::try_from(settings.heartbeat.as_secs()).unwrap_or(u16::MAX);
    uri.query.heartbeat.get_or_insert(heartbeat);
    let connect_timeout = u64::try_from(settings.connect_timeout.as_millis()).unwrap_or(u64::MAX);
    uri.query.connection_timeout.get_or_insert(connect_timeout);
    Ok(uri)
}

async fn tls_config(tls: &TlsSettings) -> Result<OwnedTLSConfig, BrokerError> {
    let read = async |key: &str, path: &std::path::Path| {
        let failed = |error: std::io::Error| {
            BrokerError::new(
                format!("read amqp.tls.{key} {}", path.display()),
                error.to_string(),
            )
        };
        tokio::fs::read(path).await.map_err(failed)
    };
    let cert_chain = match &tls.ca_file {
        Some(path) => {
            let pem = read("ca_file", path).await?;
            let not_text = |_| {
                BrokerError::new(
                    format!("read amqp.tls.ca_file {}", path.display()),
                    "it is not a PEM file",
                )
            };
            Some(String::from_utf8(pem).map_err(not_text)?)
        }
        None => None,
    };
    let identity = match (&tls.client_cert_file, &tls.client_key_file) {
        (Some(cert), Some(key)) => Some(OwnedIdentity::PKCS8 {
            pem: read("client_cert_file", cert).await?,
            key: read("client_key_file", key).await?,
        }),
        (None, None) => None,
        _ => {
            return Err(BrokerError::new(
                "set TLS up",
                "only one of client_cert_file and client_key_file is given",
            )
            .with_remedy("give both in amqp.tls, or none"));
        }
    };
    Ok(OwnedTLSConfig {
        identity,
        cert_chain,
    })
}

/// Opens a channel.
pub(super) async fn channel(
    connection: &Connection,
    purpose: &str,
) -> Result<Channel, BrokerError> {
    bounded(
        || format!("open the {purpose} channel"),
        CALL_TIMEOUT,
        connection.create_channel(),
    )
    .await
}

/// Closes a channel; what does not answer is left to the connection's close.
pub(super) async fn close_channel(channel: &Channel) {
    if channel.status().connected() {
        drop(tokio::time::timeout(CLOSE_TIMEOUT, channel.close(REPLY_SUCCESS, "OK".into())).await);
    }
}

/// Closes a connection; the socket goes with the process at the latest.
pub(super) async fn close(connection: &Connection) {
    drop(tokio::time::timeout(CLOSE_TIMEOUT, connection.close(REPLY_SUCCESS, "OK".into())).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    #[test]
    fn no_password_is_ever_printed() {
        for text in [
            "amqp://user:s3cret@host:5671/v?heartbeat=s3cret",
            "amqp:s3cret",
            "amqp://user:12/s3cret@host/v",
            "s3cret",
            "amqp://u:s3cret@h:99999/",
        ] {
            assert!(!redacted(&url(text)).contains("s3cret"), "{text}");
            if let Err(error) = parse(&AmqpSettings::default(), &url(text)) {
                assert!(!error.to_string().contains("s3cret"), "{error}");
            }
        }
        assert_eq!(
            redacted(&url("amqps://user:s3cret@host/v")),
            "amqps://host/v"
        );
    }

    #[test]
    fn an_address_of_the_new_protocol_is_not_taken_for_localhost() {
        let uri = parse(&AmqpSettings::default(), &url("amqp://u:p@[::1]:5673/%2f")).unwrap();
        assert_eq!(uri.authority.host, "::1");
        assert_eq!(
            (uri.authority.port, uri.vhost.as_str(), uri.query.heartbeat),
            (5673, "/", Some(20))
        );
        let uri = parse(
            &AmqpSettings::default(),
            &url("amqp://127.0.0.2?heartbeat=5"),
        )
        .unwrap();
        assert_eq!(
            (uri.authority.host.as_str(), uri.query.heartbeat),
            ("127.0.0.2", Some(5))
        );
    }
}
