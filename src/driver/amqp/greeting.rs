//! The broker's greeting: whether something answers at all, whether it speaks AMQP, and which version it is.
//!
//! The client library keeps the server's properties to itself, so the first frame is read here; over TLS only the connection is tried.

use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::connection;
use super::error::BrokerError;
use super::probe::Probed;
use super::settings::AmqpSettings;

/// Enough of the broker's first frame for its version.
const GREETING_MAX: usize = 4 * 1024;
/// The version from which nothing is missing that jobs depend on, and the one from which delay queues do not strand.
const VERSION_NEEDED: (u32, u32, u32) = (3, 10, 0);
const VERSION_ADVISED: (u32, u32, u32) = (3, 12, 2);

/// TCP, and the broker's greeting where it is not encrypted.
pub(super) async fn reach(settings: &AmqpSettings, url: &SecretString) -> Probed {
    let what = "broker reachable";
    let shown = connection::redacted(url);
    let action = || format!("reach {shown}");
    let wrong = || {
        let error = BrokerError::new(action(), "the URL has no host");
        Probed::new(what, Err(error.with_remedy("correct amqp.url")))
    };
    let Ok(parsed) = url::Url::parse(url.expose_secret()) else {
        return wrong();
    };
    let Some(host) = parsed.host_str() else {
        return wrong();
    };
    let is_encrypted = parsed.scheme() == "amqps";
    let port = parsed
        .port()
        .unwrap_or(if is_encrypted { 5671 } else { 5672 });
    let greeted = tokio::time::timeout(settings.connect_timeout, async {
        // An IPv6 address stands in brackets in a URL and nowhere else.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut stream = TcpStream::connect((host, port)).await?;
        if is_encrypted {
            return Ok::<_, std::io::Error>(None);
        }
        // Who ends the connection instead of answering is reachable, and speaks something else.
        Ok(Some(greeting(&mut stream).await.unwrap_or_default()))
    });
    let unreachable = |cause: String| {
        let remedy = format!(
            "check host and port in amqp.url, that the broker runs, and that a firewall lets port {port} through"
        );
        Probed::new(
            what,
            Err(BrokerError::new(action(), cause).with_remedy(remedy)),
        )
    };
    match greeted.await {
        Err(_) => unreachable(format!(
            "no answer within {} s",
            settings.connect_timeout.as_secs_f32()
        )),
        Ok(Err(error)) => unreachable(error.to_string()),
        Ok(Ok(None)) => Probed::new(what, Ok(format!("{host}:{port} accepts connections"))),
        Ok(Ok(Some(greeting))) => greeted_by(&greeting, host, port),
    }
}

/// Speaks first, as the protocol wants, and takes what comes back.
async fn greeting(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
    let mut greeting = Vec::with_capacity(GREETING_MAX);
    // Type, channel, size, payload and an end mark: connection.start is one frame.
    while greeting.len() < GREETING_MAX && !is_whole(&greeting) {
        if stream.read_buf(&mut greeting).await? == 0 {
            break;
        }
    }
    Ok(greeting)
}

fn is_whole(frame: &[u8]) -> bool {
    let size = frame.get(3..7).and_then(|size| size.try_into().ok());
    size.map(u32::from_be_bytes)
        .and_then(|size| usize::try_from(size).ok())
        .is_some_and(|size| frame.len() >= size + 8)
}

fn greeted_by(greeting: &[u8], host: &str, port: u16) -> Probed {
    let what = "broker reachable";
    if greeting.first() != Some(&1) {
        let error = BrokerError::new(
            format!("reach {host}:{port}"),
            "what listens there does not speak AMQP 0-9-1",
        );
        let remedy = "check scheme and port in amqp.url: amqp:// with 5672, amqps:// with 5671; 15672 is the management's";
        return Probed::new(what, Err(error.with_remedy(remedy)));
    }
    let product = property(greeting, "product").unwrap_or_else(|| "a broker".to_owned());
    let Some(version) = property(greeting, "version") else {
        return Probed::new(what, Ok(format!("{host}:{port}, {product}")));
    };
    let found = Ok(format!("{host}:{port}, {product} {version}"));
    let Some(numbers) = numbers(&version).filter(|_| product == "RabbitMQ") else {
        return Probed::new(what, found);
    };
    if numbers < VERSION_NEEDED {
        let error = BrokerError::new(
            format!("use {product} {version} on {host}:{port}"),
            "it is too old",
        );
        return Probed::new(
            what,
            Err(error.with_remedy("RabbitMQ 3.10 or newer is needed")),
        );
    }
    let advice = (numbers < VERSION_ADVISED).then(|| {
        "works; before 3.12.2 a change of cluster members can strand delay queues: plan an update".to_owned()
    });
    Probed {
        advice,
        ..Probed::new(what, found)
    }
}

/// A text among the server's properties: its name, `S`, a length, the text.
fn property(greeting: &[u8], name: &str) -> Option<String> {
    let mut key = vec![u8::try_from(name.len()).ok()?];
    key.extend_from_slice(name.as_bytes());
    key.push(b'S');
    let at = greeting
        .windows(key.len())
        .position(|window| window == key)?
        + key.len();
    let length = u32::from_be_bytes(greeting.get(at..at + 4)?.try_into().ok()?);
    let text = greeting.get(at + 4..at + 4 + usize::try_from(length).ok()?)?;
    let text = String::from_utf8_lossy(text);
    Some(text.chars().filter(|c| !c.is_control()).take(64).collect())
}

fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse().ok());
    Some((
        parts.next()??,
        parts.next()??,
        parts.next().flatten().unwrap_or(0),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(product: &str, version: &str) -> Vec<u8> {
        let mut bytes = vec![1, 0, 0, 0, 0, 1, 0, 0, 10, 0, 10, 0, 9];
        for (name, text) in [("product", product), ("version", version)] {
            bytes.push(u8::try_from(name.len()).unwrap());
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(b'S');
            bytes.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    #[test]
    fn the_greeting_tells_the_version_and_an_old_one_is_refused() {
        let old = greeted_by(&greeting("RabbitMQ", "3.9.29"), "h", 5672);
        assert!(
            old.result
                .unwrap_err()
                .to_string()
                .contains("3.10 or newer")
        );
        let aged = greeted_by(&greeting("RabbitMQ", "3.10.8"), "h", 5672);
        assert_eq!(aged.result.unwrap(), "h:5672, RabbitMQ 3.10.8");
        assert!(aged.advice.unwrap().contains("3.12.2"));
        for version in ["4.1.0-rc.1", "3.12.2+1", "4.3"] {
            let new = greeted_by(&greeting("RabbitMQ", version), "h", 5672);
            assert_eq!((new.result.is_ok(), new.advice), (true, None), "{version}");
        }
        assert!(
            greeted_by(&greeting("LavinMQ", "2.0.0"), "h", 5672)
                .result
                .is_ok()
        );
        for noise in [
            &b""[..],
            b"HTTP/1.1 400 Bad Request",
            b"AMQP\x00\x01\x00\x00",
        ] {
            assert!(greeted_by(noise, "h", 15672).result.is_err());
        }
    }

    #[test]
    fn a_length_that_lies_is_no_property() {
        let mut bytes = greeting("RabbitMQ", "4.0.0");
        let length = bytes.len() - 9;
        bytes[length] = 0xff;
        assert_eq!(property(&bytes, "version"), None);
    }
}
