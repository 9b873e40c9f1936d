//! [`HttpTransport`]: one request over HTTP/1.1, and whatever complete answer comes back.
//!
//! It promises: no redirects, no cookies, no judgement, no retries but one (an answer 401, when the password in its file is another by
//! now); a body of at most `nbi.max_response_bytes`; an end after
//! `nbi.timeout` (or the request's own limit), body included; credentials in one header that no log shows. Proxies named in the environment are ignored: the
//! worker's settings are all in its configuration, and a proxy that nobody meant would be handed the credentials.
//!
//! `client.rs` calls it, under the limits of `limit.rs`; what an answer means is decided in `answer.rs`.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
};
use reqwest::{Method, Response, StatusCode};

use super::access::{Access, Door};
use super::address::Addresses;
use super::setup::base_url;
pub use super::setup::{ClientCertificate, HttpSettings, NbiSetupError};
use super::wire::{Request, Verb};
use super::{RawAnswer, Transport, TransportError};
use crate::telemetry::Telemetry;
use crate::telemetry::trace::NbiSpan;
use crate::tls;

/// Everything but RFC 3986's unreserved characters: an id must not be able to end its own parameter.
pub(super) const STRICT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The most of an answer's announced size that is reserved before its first byte came.
const RESERVED_MAX: usize = 64 * 1024;

/// The most characters of a transport error; with a path and a certificate's names in it, it may be long.
pub(super) const ERROR_MAX: usize = 500;

/// How the HTTP library begins when it reads what is no HTTP; a TLS server answers so. Its error has no kind for it.
/// `what_is_wrong_with_tls_is_said_with_key_file_and_remedy` would notice other words.
const NO_HTTP: &str = "invalid HTTP version";

/// HTTP to the NBI.
#[derive(Clone)]
pub struct HttpTransport {
    door: Arc<Door>,
    settings: Arc<HttpSettings>,
    telemetry: Option<Arc<Telemetry>>,
    addresses: Arc<Addresses>,
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HttpTransport")
            .field("base", &self.addresses.base)
            .field("max_response_bytes", &self.settings.max_response_bytes)
            .finish_non_exhaustive()
    }
}

impl HttpTransport {
    /// Prepares connections; opens none. Reads the files that the settings name.
    ///
    /// # Errors
    ///
    /// [`NbiSetupError`] names the key at fault and the remedy.
    pub fn new(settings: &HttpSettings) -> Result<Self, NbiSetupError> {
        let url = base_url(settings)?;
        Ok(Self {
            door: Arc::new(Door::new(settings.clone())?),
            settings: Arc::new(settings.clone()),
            telemetry: None,
            addresses: Arc::new(Addresses::below(&url)),
        })
    }

    /// Tells when files with secrets or certificates changed, or cannot be used any more.
    #[must_use]
    pub fn telling(mut self, telemetry: Arc<Telemetry>) -> Self {
        self.telemetry = Some(telemetry);
        self
    }

    /// Reads a body up to the limit.
    ///
    /// Of an answer that is no success only the beginning matters, so there a body that is too large is left out: its status
    /// says enough.
    async fn body(&self, response: &mut Response) -> Result<Vec<u8>, TransportError> {
        let limit = self.settings.max_response_bytes;
        let too_large = if response.status().is_success() {
            Err(TransportError::TooLarge { limit })
        } else {
            Ok(Vec::new())
        };
        let announced = response
            .content_length()
            .map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
        if announced > limit {
            return too_large;
        }
        let mut body = Vec::with_capacity(announced.min(RESERVED_MAX));
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| transport_error(error, self.settings.peer()))?
        {
            if chunk.len() > limit - body.len() {
                return too_large;
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Sends once, with these credentials.
    async fn send_with(
        &self,
        access: &Access,
        request: &Request,
    ) -> Result<RawAnswer, TransportError> {
        let method = match request.verb {
            Verb::Get => Method::GET,
            Verb::Post => Method::POST,
            Verb::Put => Method::PUT,
            Verb::Delete => Method::DELETE,
        };
        let address = self.addresses.of(request);
        let address = address.map_err(|error| TransportError::Connect(error.to_string()))?;
        let mut outgoing = reqwest::Request::new(method, address);
        // It makes room for a limit even where there is none.
        if request.timeout.is_some() {
            *outgoing.timeout_mut() = request.timeout;
        }
        let headers = outgoing.headers_mut();
        headers.insert(AUTHORIZATION, access.authorization.clone());
        if let Some(body) = &request.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *outgoing.body_mut() = Some(body.clone().into());
        }
        let sent = access.client.execute(outgoing).await;
        let mut response = sent.map_err(|error| transport_error(error, self.settings.peer()))?;
        let status = response.status().as_u16();
        let retry_after = header(response.headers(), &RETRY_AFTER);
        let date = header(response.headers(), &DATE);
        let location = header(response.headers(), &LOCATION);
        let mut body = self.body(&mut response).await?;
        access.mask.cover(&mut body);
        Ok(RawAnswer {
            status,
            body,
            retry_after,
            date,
            location,
        })
    }
}

impl Transport for HttpTransport {
    async fn send(&self, request: &Request) -> Result<RawAnswer, TransportError> {
        let telemetry = self.telemetry.as_deref();
        let access = self.door.access(telemetry).await;
        let answer = self.send_with(&access, request).await?;
        if answer.status == StatusCode::UNAUTHORIZED.as_u16()
            && let Some(better) = self.door.better_than(&access, telemetry).await
        {
            // Nothing was done for a stranger, so nothing is done twice.
            return self.send_with(&better, request).await;
        }
        Ok(answer)
    }
}

impl Request {
    /// What a trace says of it.
    pub(super) fn span<'a>(&self, status: &'a str) -> NbiSpan<'a> {
        let method = match self.verb {
            Verb::Get => "GET",
            Verb::Post => "POST",
            Verb::Put => "PUT",
            Verb::Delete => "DELETE",
        };
        NbiSpan {
            operation: self.operation,
            method,
            path: self.path,
            status,
        }
    }
}

/// A header as text; one that is not text is taken as missing.
fn header(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// What reqwest's error means for the request.
///
/// Only a failed connection, be it for lack of time, is certain to have had no effect. The address is left out: it holds the device's id.
fn transport_error(error: reqwest::Error, peer: tls::Peer<'_>) -> TransportError {
    // With TLS 1.3 a client learns that its certificate is missing or refused only after it has sent its request.
    let is_connect = error.is_connect() || tls::is_turned_away(&error);
    let timed_out = error.is_timeout();
    let error = error.without_url();
    // An explanation stands alone: the library's text is longer, and may name the present second, so that no two are the same.
    let text = tls::explain(&error, peer).unwrap_or_else(|| {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            source = inner.source();
        }
        if text.contains(NO_HTTP) {
            text.push_str(
                "; what answers there speaks no HTTP: a port for TLS needs https:// in nbi.url",
            );
        }
        text
    });
    let text = text.chars().take(ERROR_MAX).collect();
    if is_connect {
        TransportError::Connect(text)
    } else if timed_out {
        TransportError::TimedOut(text)
    } else {
        TransportError::NoAnswer(text)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::PathBuf;
    use std::time::Duration;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    fn settings(url: impl Into<String>) -> HttpSettings {
        HttpSettings {
            url: url.into(),
            username: "worker".to_owned(),
            password: "hunter2:secret".into(),
            password_file: None,
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            ca_file: None,
            client_certificate: None,
            allow_http: true,
            max_response_bytes: 64,
            max_concurrency: 4,
        }
    }

    fn request(verb: Verb, query: Option<(&str, &str)>, body: Option<&str>) -> Request {
        Request {
            verb,
            path: "/v1/dyn/FirmwareResultStorage/.*",
            query: query
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into_iter()
                .collect(),
            body: body.map(|body| body.as_bytes().to_vec()),
            operation: "read_results",
            timeout: None,
        }
    }

    fn read_results() -> Request {
        request(Verb::Get, Some(("id", "UPGRADE_x")), None)
    }

    /// Takes one connection and one request, answers with these bytes and closes; gives the request back.
    async fn server(answer: impl Into<Vec<u8>>) -> (SocketAddr, JoinHandle<String>) {
        let answer = answer.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !is_complete(&seen) {
                if socket.read_buf(&mut seen).await.unwrap() == 0 {
                    break;
                }
            }
            let _ = socket.write_all(&answer).await;
            let _ = socket.shutdown().await;
            String::from_utf8(seen).unwrap()
        });
        (address, task)
    }

    fn is_complete(seen: &[u8]) -> bool {
        let text = String::from_utf8_lossy(seen).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            return false;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        body.len() >= length.map_or(0, |length| length.parse().unwrap())
    }

    async fn exchange(
        answer: impl Into<Vec<u8>>,
        request: &Request,
    ) -> (Result<RawAnswer, TransportError>, String) {
        let (address, task) = server(answer).await;
        let transport = HttpTransport::new(&settings(format!("http://{address}"))).unwrap();
        let answer = transport.send(request).await;
        (answer, task.await.unwrap())
    }

    const OK: &str =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: Mon, 31 Mar 2025 09:15:10 GMT\r\n\r\n{}";

    #[tokio::test]
    async fn the_request_line_has_the_vendors_path_literally() {
        let (answer, seen) = exchange(OK, &read_results()).await;
        assert!(
            seen.starts_with("GET /v1/dyn/FirmwareResultStorage/.*?id=UPGRADE_x HTTP/1.1\r\n"),
            "{seen}"
        );
        // base64 of `worker:hunter2:secret`, no newline in it.
        assert!(
            seen.contains("\r\nauthorization: Basic d29ya2VyOmh1bnRlcjI6c2VjcmV0\r\n"),
            "{seen}"
        );
        assert!(
            !seen.contains("content-type")
                && !seen.contains("cookie")
                && !seen.contains("accept-encoding"),
            "{seen}"
        );
        let answer = answer.unwrap();
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (200, b"{}".as_slice())
        );
        assert_eq!(
            answer.date.as_deref(),
            Some("Mon, 31 Mar 2025 09:15:10 GMT")
        );
        assert_eq!(answer.retry_after, None);
    }

    #[tokio::test]
    async fn a_body_goes_out_as_json_with_its_length() {
        let (_, seen) = exchange(
            OK,
            &request(
                Verb::Put,
                Some(("campaignid", "UPGRADE_x")),
                Some(r#"{"id":1}"#),
            ),
        )
        .await;
        assert!(
            seen.starts_with(
                "PUT /v1/dyn/FirmwareResultStorage/.*?campaignid=UPGRADE_x HTTP/1.1\r\n"
            ),
            "{seen}"
        );
        assert!(
            seen.contains("\r\ncontent-type: application/json\r\n"),
            "{seen}"
        );
        assert!(
            seen.contains("\r\ncontent-length: 8\r\n") && seen.ends_with("\r\n\r\n{\"id\":1}"),
            "{seen}"
        );
    }

    #[tokio::test]
    async fn verbs_without_a_filter_or_body() {
        for (verb, line) in [(Verb::Post, "POST"), (Verb::Delete, "DELETE")] {
            let (_, seen) = exchange(OK, &request(verb, None, None)).await;
            assert!(
                seen.starts_with(&format!(
                    "{line} /v1/dyn/FirmwareResultStorage/.* HTTP/1.1\r\n"
                )),
                "{seen}"
            );
        }
    }

    #[tokio::test]
    async fn a_value_cannot_end_its_parameter() {
        let (_, seen) = exchange(
            OK,
            &request(Verb::Get, Some(("id", "U&x=#;+,@:é ~._-/?%")), None),
        )
        .await;
        let expected = "/.*?id=U%26x%3D%23%3B%2B%2C%40%3A%C3%A9%20~._-%2F%3F%25 HTTP/1.1\r\n";
        assert!(
            seen.lines()
                .next()
                .is_some_and(|line| format!("{line}\r\n").ends_with(expected)),
            "{seen}"
        );
    }

    #[tokio::test]
    async fn a_path_prefix_of_the_base_is_kept() {
        for prefix in ["/acs", "/acs/"] {
            let (address, task) = server(OK).await;
            let transport =
                HttpTransport::new(&settings(format!("http://{address}{prefix}"))).unwrap();
            transport.send(&read_results()).await.unwrap();
            let seen = task.await.unwrap();
            assert!(
                seen.starts_with(
                    "GET /acs/v1/dyn/FirmwareResultStorage/.*?id=UPGRADE_x HTTP/1.1\r\n"
                ),
                "{seen}"
            );
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_announced_or_not() {
        let large = "x".repeat(65);
        for answer in [
            format!("HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n{large}"),
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_owned(),
            format!("HTTP/1.1 200 OK\r\n\r\n{large}"),
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n41\r\n{large}\r\n0\r\n\r\n"
            ),
        ] {
            let (result, _) = exchange(answer, &read_results()).await;
            assert_eq!(result.unwrap_err(), TransportError::TooLarge { limit: 64 });
        }
        let full = "x".repeat(64);
        let (result, _) = exchange(
            format!("HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n{full}"),
            &read_results(),
        )
        .await;
        assert_eq!(result.unwrap().body.len(), 64);
        let (result, _) = exchange(
            format!("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 65\r\n\r\n{large}"),
            &read_results(),
        )
        .await;
        let answer = result.unwrap();
        assert_eq!(
            (
                answer.status,
                answer.body.len(),
                answer.retry_after.as_deref()
            ),
            (503, 0, Some("7"))
        );
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_or_missing_is_no_answer() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"code\"",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"co",
            "HTTP/1.1 200 OK\r\nConte",
            "",
            "SSH-2.0-OpenSSH_9.6\r\n",
        ] {
            let (result, _) = exchange(answer, &read_results()).await;
            let error = result.unwrap_err();
            assert!(
                matches!(error, TransportError::NoAnswer(_)),
                "{answer:?}: {error:?}"
            );
            assert!(!error.to_string().contains("UPGRADE_x"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_not_followed() {
        let (result, _) = exchange(
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            &read_results(),
        )
        .await;
        let answer = result.unwrap();
        assert_eq!(
            (answer.status, answer.location.as_deref()),
            (302, Some("http://127.0.0.1:1/"))
        );
    }

    #[tokio::test]
    async fn the_time_limit_covers_the_body() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = settings(format!("http://{}", listener.local_addr().unwrap()));
        let silent = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !is_complete(&seen) {
                socket.read_buf(&mut seen).await.unwrap();
            }
            socket
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{")
                .await
                .unwrap();
            // Holds the connection until the client gives up.
            let mut rest = Vec::new();
            let _ = socket.read_to_end(&mut rest).await;
        });
        // The request's own limit goes before the transport's.
        settings.timeout = Duration::from_secs(60);
        let mut request = read_results();
        request.timeout = Some(Duration::from_millis(200));
        let error = HttpTransport::new(&settings)
            .unwrap()
            .send(&request)
            .await
            .unwrap_err();
        assert!(matches!(&error, TransportError::TimedOut(_)), "{error:?}");
        silent.await.unwrap();
    }

    #[tokio::test]
    async fn a_refused_connection_and_an_unknown_host_are_connect_errors() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        for url in [
            format!("http://{address}"),
            "http://nowhere.invalid".to_owned(),
        ] {
            let error = HttpTransport::new(&settings(url))
                .unwrap()
                .send(&read_results())
                .await
                .unwrap_err();
            assert!(matches!(error, TransportError::Connect(_)), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_tls_handshake_that_fails_or_hangs_is_a_connect_error() {
        for answer in [Some(OK), None] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut settings = settings(format!("https://{}", listener.local_addr().unwrap()));
            settings.connect_timeout = Duration::from_millis(500);
            let plain = tokio::spawn(async move {
                let (mut socket, _) = listener.accept().await.unwrap();
                if let Some(answer) = answer {
                    socket.write_all(answer.as_bytes()).await.unwrap();
                }
                let mut rest = Vec::new();
                let _ = socket.read_to_end(&mut rest).await;
            });
            let error = HttpTransport::new(&settings)
                .unwrap()
                .send(&read_results())
                .await;
            assert!(
                matches!(error, Err(TransportError::Connect(_))),
                "{answer:?}: {error:?}"
            );
            plain.await.unwrap();
        }
    }

    #[test]
    fn wrong_settings_name_the_key_and_the_remedy() {
        let missing = PathBuf::from("/nonexistent/ca.pem");
        let mut cases = vec![
            (settings("acs.example.net"), "`nbi.url`"),
            (settings("ftp://acs.example.net"), "`nbi.url` is neither"),
            (
                settings("https://me:hunter2@acs.example.net"),
                "`nbi.url` holds credentials",
            ),
            (
                settings("https://acs.example.net/?a=b"),
                "`nbi.url` has a query",
            ),
            (
                HttpSettings {
                    allow_http: false,
                    ..settings("http://acs.example.net")
                },
                "`nbi.allow_http = true`",
            ),
            (
                HttpSettings {
                    username: "a:b".to_owned(),
                    ..settings("https://a.example")
                },
                "`nbi.username` contains a colon",
            ),
            (
                HttpSettings {
                    username: String::new(),
                    ..settings("https://a.example")
                },
                "`nbi.username` is empty",
            ),
            (
                HttpSettings {
                    password: "hunter2\n".into(),
                    ..settings("https://a.example")
                },
                "`nbi.password` contains",
            ),
            (
                HttpSettings {
                    ca_file: Some(missing.clone()),
                    ..settings("https://a.example")
                },
                "`nbi.ca_file`",
            ),
        ];
        let certificate = ClientCertificate {
            cert_file: missing.clone(),
            key_file: missing,
        };
        cases.push((
            HttpSettings {
                client_certificate: Some(certificate),
                ..settings("https://a.example")
            },
            "`nbi.client_cert_file`",
        ));
        for (settings, expected) in cases {
            let text = HttpTransport::new(&settings).unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        let text = HttpTransport::new(&HttpSettings {
            allow_http: false,
            ..settings("http://acs.example.net")
        })
        .unwrap_err()
        .to_string();
        assert!(text.contains("\"http://acs.example.net/\""), "{text}");
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let settings = HttpSettings {
            ca_file: Some(file.path().to_owned()),
            ..settings("https://a.example")
        };
        let error = HttpTransport::new(&settings).unwrap_err();
        assert!(
            matches!(
                error,
                NbiSetupError::Pem {
                    key: "nbi.ca_file",
                    ..
                }
            ),
            "{error:?}"
        );
    }

    #[test]
    fn nothing_shows_the_password() {
        let settings = settings("https://acs.example.net");
        let transport = HttpTransport::new(&settings).unwrap();
        let token = STANDARD.encode("worker:hunter2:secret");
        for text in [format!("{settings:?}"), format!("{transport:?}")] {
            assert!(
                !text.contains("hunter2") && !text.contains(&token),
                "{text}"
            );
        }
    }
}
