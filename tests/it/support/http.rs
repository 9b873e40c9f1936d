//! One HTTP/1.0 exchange, enough for the endpoints of the worker, the simulator and the broker's management.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);

/// Status and body.
pub(crate) type Answer = (u16, String);

/// Sends a request and reads the answer to its end.
pub(crate) async fn send(
    address: &str,
    method: &str,
    path: &str,
    body: &str,
) -> std::io::Result<Answer> {
    let request = format!(
        "{method} {path} HTTP/1.0\r\nhost: {address}\r\nauthorization: Basic {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        STANDARD.encode("guest:guest"),
        body.len()
    );
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await??;
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
    Ok((status.unwrap_or(0), body.unwrap_or_default().to_owned()))
}

/// A page that is there.
pub(crate) async fn get(address: &str, path: &str) -> String {
    match send(address, "GET", path, "").await {
        Ok((200, body)) => body,
        other => panic!("GET {address}{path}: {other:?}"),
    }
}

/// A JSON document that is there.
pub(crate) async fn get_json(address: &str, path: &str) -> Value {
    serde_json::from_str(&get(address, path).await).expect("it is JSON")
}
