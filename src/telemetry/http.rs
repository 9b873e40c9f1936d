//! The worker's HTTP endpoint: `GET /metrics`, `/livez`, `/readyz`.
//!
//! Liveness says only that the process answers: a broker or NBI that is away is no reason to restart a worker. Readiness says
//! whether work is taken in, and what is missing.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Telemetry;

/// The content type of the text format (Prometheus, "Exposition formats": documented); Prometheus 3 refuses any other.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves until `stop` is cancelled and requests under way are answered.
///
/// To be stopped last, as readiness must be seen to turn off while the worker finishes what is in hand.
///
/// # Errors
///
/// None from single connections; those are dropped.
pub async fn serve(
    listener: TcpListener,
    telemetry: Arc<Telemetry>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router(telemetry))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

fn router(telemetry: Arc<Telemetry>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || plain(StatusCode::OK, "alive\n")))
        .route("/readyz", get(readyz))
        .fallback(async || {
            plain(
                StatusCode::NOT_FOUND,
                "not found; try /metrics, /livez or /readyz\n",
            )
        })
        .with_state(telemetry)
}

async fn metrics(State(telemetry): State<Arc<Telemetry>>) -> Response {
    match telemetry.metrics_text() {
        Ok(text) => ([(CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn readyz(State(telemetry): State<Arc<Telemetry>>) -> Response {
    let readiness = telemetry.readiness();
    let status = if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let missing: Vec<_> = readiness
        .missing
        .iter()
        .map(|missing| json!({ "what": missing.what, "why": missing.why }))
        .collect();
    let mut body = json!({ "ready": readiness.is_ready(), "missing": missing });
    if readiness.is_paused {
        body["emergency_stop"] = json!(true);
    }
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
    ];
    (status, headers, format!("{body}\n")).into_response()
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    (
        status,
        [
            (CONTENT_TYPE, "text/plain; charset=utf-8"),
            (CACHE_CONTROL, "no-store"),
        ],
        text,
    )
        .into_response()
}
