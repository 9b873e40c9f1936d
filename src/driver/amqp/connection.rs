//! One connection: parse the URL, connect, open channels, close; each within a bound.
//!
//! The client library's own recovery stays off: `supervisor.rs` builds a whole new generation instead. Nothing here prints a password.

use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream, OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, runtime};
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;

use super::error::{self, BrokerError, bounded};
use super::line::{HangsUp, Line};
use super::settings::{AmqpSettings, TlsSettings};
use crate::secret_file;
use crate::tls::{self, Peer};

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
    /// Whether the broker has refused a publish for want of a permission, and has not said since that it is there.
    pub(super) may_not_publish: AtomicBool,
}

impl Ending {
    /// The end of the generation after this one; whether it may publish goes on with it.
    pub(super) fn next(&self) -> Self {
        let may_not_publish = AtomicBool::new(self.may_not_publish.load(Ordering::Relaxed));
        Self {
            may_not_publish,
            ..Self::default()
        }
    }

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

/// Runs a task of a generation, which a panic of it ends: nobody else would notice that it is gone.
pub(super) async fn guarded(
    ending: Arc<Ending>,
    what: &'static str,
    task: impl Future<Output = ()>,
) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        ending.end(format!("the task for {what} panicked"));
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

/// The brokers to connect to now: from `amqp.url_file` as it is at this moment, else from the settings.
///
/// # Errors
///
/// The file cannot be read. What it held before is not used instead: an outdated password looks like an intruder's.
pub(super) async fn brokers(settings: &AmqpSettings) -> Result<Vec<SecretString>, BrokerError> {
    let Some(path) = settings.url_file.clone() else {
        return Ok(settings.urls.clone());
    };
    let shown = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || secret_file::read(&path)).await;
    let failed = |error: io::Error| {
        BrokerError::new(format!("read amqp.url_file {shown}"), error.to_string())
            .with_remedy("give the path of a file that this user may read, with the URL in it")
    };
    let url = read.map_err(io::Error::other).flatten().map_err(failed)?;
    Ok(vec![url])
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
    for url in &brokers(settings).await? {
        match connect(settings, url, purpose).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Connects to one broker. Certificates are read anew each time.
///
/// # Errors
///
/// [`BrokerError`] with the remedy where it is known.
pub(super) async fn connect(
    settings: &AmqpSettings,
    url: &SecretString,
    purpose: Purpose,
) -> Result<Connection, BrokerError> {
    let action = || format!("connect to {}", redacted(url));
    let uri = parse(settings, url)?;
    let scheme = uri.scheme.clone();
    let tls = tls_config(&settings.tls).await?;
    let name = format!("{} {}", settings.instance_name, purpose.name());
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let runtime = runtime::default_runtime().map_err(|error| BrokerError::of(action(), &error))?;
    let line = Arc::new(Line::default());
    let _hangs_up = HangsUp(Arc::clone(&line));
    let called = Arc::clone(&line);
    let connected = Connection::connector(
        uri,
        runtime,
        async move |uri, runtime| {
            let plain = AMQPUri {
                scheme: AMQPScheme::AMQP,
                ..uri.clone()
            };
            let dialled = async {
                let stream = plain
                    .connect_with_config_async(tls.as_ref(), &runtime)
                    .await?;
                if let AsyncTcpStream::Plain(stream) = &stream {
                    called.hold(stream.get_ref())?;
                }
                match uri.scheme {
                    AMQPScheme::AMQP => Ok(stream),
                    AMQPScheme::AMQPS => stream.into_tls(&uri.authority.host, tls.as_ref()).await,
                }
            };
            called.unless_hung_up(dialled).await.map_err(Into::into)
        },
        properties,
    );
    match tokio::time::timeout(settings.connect_timeout, connected).await {
        Ok(Ok(connection)) => {
            line.answered();
            Ok(connection)
        }
        Ok(Err(error)) => Err(explained(settings, &scheme, action(), &error)),
        Err(_) => Err(BrokerError::timeout(action(), settings.connect_timeout)),
    }
}

/// Why a connection could not be made, and what to do about it where that is known.
fn explained(
    settings: &AmqpSettings,
    scheme: &AMQPScheme,
    action: String,
    error: &lapin::Error,
) -> BrokerError {
    // An explanation stands alone: the library's text may name the present second, so that no two are the same.
    if let (ErrorKind::IOError(cause), AMQPScheme::AMQPS) = (error.kind(), scheme)
        && let Some(explanation) = tls::explain(&**cause, peer(&settings.tls))
    {
        return BrokerError::new(action, explanation);
    }
    let remedy = match (error.kind(), error::code(error)) {
        (_, Some(403)) => format!("check the user and password in {}", url_key(settings)),
        (_, Some(530)) => {
            "create the vhost and give the user permissions on it; a URL that ends in \"/\" names the vhost with the empty \
             name, the default vhost is \"/%2f\""
                .to_owned()
        }
        // The alert that would say so may be lost with the connection.
        (ErrorKind::IOError(cause), _) if *scheme == AMQPScheme::AMQPS && is_hang_up(cause) => {
            match &settings.tls.client_cert_file {
                None => "it may be that the broker asks for a client certificate: set amqp.client_cert_file and \
                    amqp.client_key_file"
                    .to_owned(),
                Some(path) => format!(
                    "it may be that the broker does not accept our certificate in amqp.client_cert_file ({})",
                    path.display()
                ),
            }
        }
        // A TLS server answers what is no handshake with an alert, or not at all.
        (ErrorKind::ParsingError(_), _) if *scheme == AMQPScheme::AMQP => {
            "what answers there speaks no AMQP; a port for TLS (5671 by habit) needs amqps://"
                .to_owned()
        }
        (ErrorKind::IOError(cause), _) if *scheme == AMQPScheme::AMQP && is_hang_up(cause) => {
            "the other side hung up at once; a port for TLS (5671 by habit) needs amqps://"
                .to_owned()
        }
        (ErrorKind::IOError(_), _) => {
            format!("is RabbitMQ running there, and is {} right?", url_key(settings))
        }
        _ => return BrokerError::of(action, error),
    };
    BrokerError::of(action, error).with_remedy(remedy)
}

/// The key that the URL comes from.
fn url_key(settings: &AmqpSettings) -> &'static str {
    if settings.url_file.is_some() {
        "amqp.url_file"
    } else {
        "amqp.url"
    }
}

/// Whether a connection that stood was ended by the other side before it was of any use.
fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::UnexpectedEof
    )
}

fn peer(tls: &TlsSettings) -> Peer<'_> {
    Peer {
        section: "amqp",
        name: "the broker",
        plain: "amqp://",
        ca_file: tls.ca_file.as_deref(),
        cert_file: tls.client_cert_file.as_deref(),
    }
}

fn parse(settings: &AmqpSettings, url: &SecretString) -> Result<AMQPUri, BrokerError> {
    let key = url_key(settings);
    let wrong = |cause: &str| {
        BrokerError::new(format!("read {key}"), cause)
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
    let cert_chain = match &tls.ca_file {
        Some(path) => {
            let pem = read("amqp.ca_file", path, tls::check_certificates).await?;
            let not_text = |_| unusable("amqp.ca_file", path, "is not text");
            Some(String::from_utf8(pem).map_err(not_text)?)
        }
        None => None,
    };
    let identity = match (&tls.client_cert_file, &tls.client_key_file) {
        (Some(cert), Some(key)) => Some(OwnedIdentity::PKCS8 {
            pem: read("amqp.client_cert_file", cert, tls::check_certificates).await?,
            key: read("amqp.client_key_file", key, tls::check_key).await?,
        }),
        (None, None) => None,
        _ => {
            return Err(BrokerError::new(
                "set TLS up",
                "only one of amqp.client_cert_file and amqp.client_key_file is given",
            )
            .with_remedy("give both, or none"));
        }
    };
    Ok(OwnedTLSConfig {
        identity,
        cert_chain,
    })
}

/// Reads a file in PEM and looks whether it holds what it should: the library takes what it can use and is silent about the rest.
async fn read(
    key: &'static str,
    path: &Path,
    check: impl Fn(&[u8]) -> Result<(), String>,
) -> Result<Vec<u8>, BrokerError> {
    let pem = tokio::fs::read(path)
        .await
        .map_err(|error| unusable(key, path, &format!("cannot be read: {error}")))?;
    check(&pem).map_err(|problem| unusable(key, path, &problem))?;
    Ok(pem)
}

fn unusable(key: &str, path: &Path, problem: &str) -> BrokerError {
    BrokerError::new("set TLS up", format!("{key} {} {problem}", path.display()))
}

/// Opens a channel.
///
/// The library keeps the number of a channel that the broker closed, and says the old refusal again when that number's turn comes after 2,047
/// others; the broker itself refuses no channel so. The connection is closed then, as a new one has all its numbers.
pub(super) async fn channel(
    connection: &Connection,
    purpose: &str,
) -> Result<Channel, BrokerError> {
    let action = || format!("open the {purpose} channel");
    let opened = bounded(action, CALL_TIMEOUT, connection.create_channel()).await;
    if let Err(error) = &opened
        && error.code.is_some_and(|code| (403..=406).contains(&code))
    {
        close(connection).await;
    }
    opened
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

    #[tokio::test]
    async fn a_task_that_panics_ends_its_generation_and_one_that_ends_does_not() {
        let ending = Arc::new(Ending::default());
        guarded(Arc::clone(&ending), "nothing", async {}).await;
        assert!(!ending.is_over());
        guarded(Arc::clone(&ending), "poison", async { panic!("poison") }).await;
        assert_eq!(ending.reason(), "the task for poison panicked");
        ending.ended().await;
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
