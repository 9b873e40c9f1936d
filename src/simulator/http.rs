//! The same model behind HTTP, for real clients: any verb on any path, Basic authentication, troubles acted out on the connection.
//!
//! A refused connection cannot be acted out once one is accepted: it is closed without an answer instead, so that the caller
//! knows less than it would. Below `/sim/` are pages for operators and tests, without authentication: see `admin.rs`.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::admin;
use super::reply::{Call, Reply};
use super::shared::SharedSimulator;
use super::trouble::Trouble;
use crate::nbi::wire::Verb;

/// The largest request body read, far above any that a caller has reason to send.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// The account that callers must show.
#[derive(Clone)]
pub struct Credentials {
    header: String,
}

impl Credentials {
    /// This user with this password.
    #[must_use]
    pub fn new(username: &str, password: &str) -> Self {
        Self {
            header: format!(
                "Basic {}",
                STANDARD.encode(format!("{username}:{password}"))
            ),
        }
    }

    fn are_shown_in(&self, headers: &HeaderMap) -> bool {
        headers
            .get(header::AUTHORIZATION)
            .is_some_and(|value| value.as_bytes() == self.header.as_bytes())
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// How the HTTP side behaves.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The account asked for; `None` lets anyone in.
    pub credentials: Option<Credentials>,
    /// How long a hanging answer hangs before the connection is closed.
    pub hang: Duration,
    /// How long each answer takes.
    pub latency: Duration,
}

impl Default for HttpSettings {
    /// Anyone, no latency; a hang lasts five minutes, longer than any client should wait.
    fn default() -> Self {
        Self {
            credentials: None,
            hang: Duration::from_secs(300),
            latency: Duration::ZERO,
        }
    }
}

#[derive(Clone)]
struct Side {
    simulator: SharedSimulator,
    settings: HttpSettings,
    shutdown: CancellationToken,
}

/// Serves the simulator until `shutdown`; answers under way are finished, hanging ones cut.
///
/// # Errors
///
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    simulator: SharedSimulator,
    settings: HttpSettings,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let side = Side {
        simulator,
        settings,
        shutdown: shutdown.clone(),
    };
    let app = Router::new().fallback(answer).with_state(side);
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

async fn answer(State(side): State<Side>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, REQUEST_BYTES_MAX).await else {
        return render(Reply::html(413, "Content Too Large"));
    };
    let path = head.uri.path();
    if let Some(page) = path.strip_prefix("/sim/") {
        return render(admin::answer(&side.simulator, &head.method, page, &body));
    }
    if side
        .settings
        .credentials
        .as_ref()
        .is_some_and(|wanted| !wanted.are_shown_in(&head.headers))
    {
        return render(Reply::unauthorized());
    }
    let Some(verb) = verb_of(&head.method) else {
        return render(Reply::html(405, "Method Not Allowed"));
    };
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    if !side.settings.latency.is_zero() {
        tokio::time::sleep(side.settings.latency).await;
    }
    let reply = side.simulator.handle(Call {
        verb,
        path,
        query: &query,
        body: &body,
    });
    act_out(reply, &side).await
}

async fn act_out(reply: Reply, side: &Side) -> Response<Body> {
    match reply.trouble {
        Some(Trouble::Refused | Trouble::AnswerLost) => cut(&[], 1),
        Some(Trouble::Truncated) => {
            cut(&reply.body[..reply.body.len() / 2], reply.body.len().max(1))
        }
        Some(Trouble::HangBeforeEffect | Trouble::HangAfterEffect) => {
            tokio::select! {
                () = tokio::time::sleep(side.settings.hang) => {}
                () = side.shutdown.cancelled() => {}
            }
            cut(&[], 1)
        }
        _ => render(reply),
    }
}

/// An answer that promises `length` bytes, sends `part` and then breaks the connection.
fn cut(part: &[u8], length: usize) -> Response<Body> {
    let part = Bytes::copy_from_slice(part);
    let broken = Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    let mut response = Response::new(Body::from_stream(stream::iter([Ok(part), broken])));
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn render(reply: Reply) -> Response<Body> {
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(reply.content_type),
    );
    if reply.status == 401 {
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"NBI\""),
        );
    }
    for (name, value) in [
        (header::DATE, reply.date),
        (header::RETRY_AFTER, reply.retry_after),
    ] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(name, value);
        }
    }
    response
}

fn verb_of(method: &Method) -> Option<Verb> {
    match *method {
        Method::GET => Some(Verb::Get),
        Method::POST => Some(Verb::Post),
        Method::PUT => Some(Verb::Put),
        Method::DELETE => Some(Verb::Delete),
        _ => None,
    }
}
