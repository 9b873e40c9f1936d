//! `healthcheck`: asks the worker on this host whether it is alive. For containers, whose image has no other program to ask with.
//!
//! Liveness and not readiness: a broker or NBI that is away is no reason to restart a worker.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::output::{self, Format, Status, Usage};
use crate::config::Config;

/// A worker that is alive answers at once; below the three seconds that container engines commonly give.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Enough of the answer for its status line.
const STATUS_LINE_MAX: usize = 64;

/// Asks the worker on this host whether it is alive.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nbi-upgrade healthcheck                     exit status 0 while the worker answers
  nbi-upgrade healthcheck --path /readyz      0 while it takes work in")]
pub(super) struct Healthcheck {
    /// The page to ask for: /livez, or /readyz to know whether work is taken in.
    #[arg(long, value_name = "PATH", default_value = "/livez")]
    path: String,
}

impl Healthcheck {
    pub(super) async fn run(self, config: Config, format: Format) -> anyhow::Result<Status> {
        if !self.path.starts_with('/') || !self.path.chars().all(|c| c.is_ascii_graphic()) {
            return Err(Usage("--path must begin with / and have no spaces".to_owned()).into());
        }
        let address = on_this_host(config.http.listen);
        let status = tokio::time::timeout(TIMEOUT, status_of(address, &self.path))
            .await
            .with_context(|| format!("no answer from http://{address}{} in time", self.path))?
            .with_context(|| format!("failed to ask http://{address}{}", self.path))?;
        match format {
            Format::Text => {
                output::line(&format!("http://{address}{} answers {status}", self.path))
            }
            Format::Json => {
                output::line(&json!({"path": self.path, "status": status}).to_string());
            }
        }
        Ok(if status == 200 {
            Status::Done
        } else {
            Status::Failed
        })
    }
}

/// Where a server that listens there is reached from this host.
fn on_this_host(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The HTTP status; nothing more of the answer is read.
async fn status_of(address: SocketAddr, path: &str) -> anyhow::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(STATUS_LINE_MAX);
    let mut limited = stream.take(u64::try_from(STATUS_LINE_MAX)?);
    while !answer.contains(&b'\n') && limited.read_buf(&mut answer).await? > 0 {}
    let text = String::from_utf8_lossy(&answer);
    match text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)) {
        Some(status) => status.parse().context("the answer has no HTTP status"),
        None => bail!("the answer is not HTTP"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_every_address_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:9464", "127.0.0.1:9464"),
            ("[::]:9464", "[::1]:9464"),
            ("10.0.0.7:80", "10.0.0.7:80"),
        ] {
            assert_eq!(
                on_this_host(listen.parse().unwrap()),
                asked.parse().unwrap()
            );
        }
    }
}
