//! Requests for `run` and `submit`: from a JSONL file, from standard input, or from flags. All are checked before the first is sent.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::output::Usage;
use crate::message::{Codec, Incoming};

/// Where requests come from.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// Requests, one JSON object a line; `-` reads standard input.
    #[arg(
        value_name = "JOBS.jsonl",
        required_unless_present = "cpe_id",
        conflicts_with = "cpe_id"
    )]
    pub(super) file: Option<PathBuf>,
    /// The device of a single request.
    #[arg(long, value_name = "ID", requires = "firmware_url")]
    pub(super) cpe_id: Option<String>,
    /// Where the device loads the firmware from.
    #[arg(long, value_name = "URL", requires = "cpe_id")]
    pub(super) firmware_url: Option<String>,
    /// The idempotency key of the single request; drawn if there is none.
    #[arg(long, value_name = "ID", requires = "cpe_id")]
    pub(super) job_id: Option<String>,
    /// The group of the single request.
    #[arg(long, value_name = "ID", requires = "cpe_id")]
    pub(super) campaign_id: Option<String>,
    /// When the single request ends at the latest (RFC 3339).
    #[arg(long, value_name = "TIME", requires = "cpe_id")]
    pub(super) deadline: Option<String>,
}

/// One request, checked.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// Its job.
    pub(super) job_id: String,
    /// Its bytes.
    pub(super) body: Vec<u8>,
}

impl Source {
    /// Every request; a fault in any of them, named by line, keeps all from being sent.
    pub(super) fn read(&self, codec: &Codec) -> anyhow::Result<Vec<Request>> {
        let lines = match (&self.file, &self.cpe_id) {
            (Some(path), _) => lines_of(path)?,
            (None, Some(cpe_id)) => vec![(0, self.single(cpe_id))],
            (None, None) => Vec::new(),
        };
        let now = Timestamp::now();
        let mut requests = Vec::with_capacity(lines.len());
        let mut faults = Vec::new();
        for (number, body) in lines {
            match codec.decode_request(
                &Incoming {
                    body: body.as_bytes(),
                    ..Incoming::default()
                },
                now,
            ) {
                Ok(work) => requests.push(Request {
                    job_id: work.job.order.job_id.to_string(),
                    body: body.into_bytes(),
                }),
                Err(rejection) if number == 0 => faults.push(rejection.to_string()),
                Err(rejection) => faults.push(format!("line {number}: {rejection}")),
            }
        }
        let shown = 20;
        let more = faults.len().saturating_sub(shown);
        if !faults.is_empty() {
            faults.truncate(shown);
            let rest = if more > 0 {
                format!("\n  … and {more} more")
            } else {
                String::new()
            };
            return Err(Usage(format!(
                "nothing was sent, as not every request is valid:\n  {}{rest}",
                faults.join("\n  ")
            ))
            .into());
        }
        if requests.is_empty() {
            return Err(Usage(
                "there are no requests in the input; write one JSON object a line".to_owned(),
            )
            .into());
        }
        Ok(requests)
    }

    fn single(&self, cpe_id: &str) -> String {
        let mut fields = Map::new();
        let job_id = self
            .job_id
            .clone()
            .unwrap_or_else(|| Uuid::new_v4().to_string());
        fields.insert("job_id".to_owned(), json!(job_id));
        fields.insert("cpe_id".to_owned(), json!(cpe_id));
        fields.insert("firmware_url".to_owned(), json!(self.firmware_url));
        fields.insert(
            "requested_at".to_owned(),
            json!(Timestamp::now().to_string()),
        );
        for (name, value) in [
            ("campaign_id", &self.campaign_id),
            ("deadline", &self.deadline),
        ] {
            if let Some(value) = value {
                fields.insert(name.to_owned(), json!(value));
            }
        }
        Value::Object(fields).to_string()
    }
}

fn lines_of(path: &Path) -> anyhow::Result<Vec<(usize, String)>> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .lock()
            .read_to_string(&mut text)
            .context("failed to read standard input")?;
        text
    } else {
        std::fs::read_to_string(path)
            .with_context(|| format!("failed to read {}", path.display()))?
    };
    let lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()));
    Ok(lines
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| (number, line.to_owned()))
        .collect())
}
