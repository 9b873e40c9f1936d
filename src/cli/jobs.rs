//! Requests for `run` and `submit`: from a file of JSON lines or CSV, from standard input, or from flags.
//!
//! All are checked before the first is sent; each fault is named by line and field.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::output::{Usage, plain};
use super::spreadsheet;
use crate::campaign::Device;
use crate::message::{Codec, Incoming, Rejection, campaign};

/// Faults shown at a time.
const FAULTS_SHOWN: usize = 20;

/// The form of a file of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Form {
    /// One JSON object a line.
    Jsonl,
    /// A header row of field names, a request a row.
    Csv,
}

/// Where requests come from.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// Requests, one JSON object a line, or CSV with a header row of the request's field names; `-` reads standard input.
    #[arg(value_name = "JOBS", conflicts_with = "cpe_id")]
    pub(super) file: Option<PathBuf>,
    /// The form of JOBS. Without it: csv if the name ends in .csv, else jsonl.
    #[arg(long, value_name = "FORM", value_enum, requires = "file")]
    pub(super) form: Option<Form>,
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
    /// Its job, or its campaign.
    pub(super) job_id: String,
    /// The jobs that come of it: one, or one for each device of a campaign.
    pub(super) jobs: Vec<String>,
    /// Its bytes.
    pub(super) body: Vec<u8>,
    /// Its line, from 1; 0 for one from flags.
    pub(super) line: usize,
}

/// A request as it was read: its line and its JSON, or what is wrong with the line.
pub(super) type Read = (usize, Result<String, String>);

impl Source {
    /// Whether there is one.
    pub(super) fn is_given(&self) -> bool {
        self.file.is_some() || self.cpe_id.is_some()
    }

    /// The file, where it is one on the disk.
    pub(super) fn path(&self) -> Option<&Path> {
        self.file.as_deref().filter(|path| *path != Path::new("-"))
    }

    /// Every request of a single job; a fault in any of them, named by line, keeps all from being sent.
    pub(super) fn read(&self, codec: &Codec) -> anyhow::Result<Vec<Request>> {
        self.read_by(|incoming, now| one_job(codec, incoming, now))
    }

    /// As [`Source::read`], with requests of campaigns among them.
    pub(super) fn read_with_campaigns(&self, codec: &Codec) -> anyhow::Result<Vec<Request>> {
        self.read_by(|incoming, now| match codec.decode_campaign(incoming, now) {
            None => one_job(codec, incoming, now),
            Some(decoded) => decoded.map(|request| {
                let campaign_id = &request.definition.campaign_id;
                let devices = request.devices.iter();
                let job_id =
                    |device: &Device| campaign::job_id(campaign_id, &device.cpe_id).to_string();
                (campaign_id.to_string(), devices.map(job_id).collect())
            }),
        })
    }

    fn read_by(
        &self,
        decode: impl Fn(&Incoming<'_>, Timestamp) -> Result<(String, Vec<String>), Rejection>,
    ) -> anyhow::Result<Vec<Request>> {
        let lines = match (&self.file, &self.cpe_id) {
            (Some(path), _) => self.lines_of(path)?,
            (None, Some(cpe_id)) => vec![(0, Ok(self.single(cpe_id)))],
            (None, None) => {
                return Err(Usage(
                    "name a file of requests (JOBS), - for standard input, or one request with --cpe-id and --firmware-url"
                        .to_owned(),
                )
                .into());
            }
        };
        let now = Timestamp::now();
        let mut requests = Vec::with_capacity(lines.len());
        let mut faults = Vec::new();
        for (line, read) in lines {
            let checked = read.and_then(|body| {
                let incoming = Incoming {
                    body: body.as_bytes(),
                    ..Incoming::default()
                };
                match decode(&incoming, now) {
                    Ok((job_id, jobs)) => Ok(Request {
                        job_id,
                        jobs,
                        body: body.into_bytes(),
                        line,
                    }),
                    Err(rejection) => Err(rejection.to_string()),
                }
            });
            match checked {
                Ok(request) => requests.push(request),
                Err(fault) if line == 0 => faults.push(fault),
                Err(fault) => faults.push(format!("line {line}: {fault}")),
            }
        }
        refuse("nothing was sent, as not every request is valid", &faults)?;
        if requests.is_empty() {
            return Err(Usage(
                "there are no requests in the input; write one JSON object a line, or CSV with a header row and --form csv"
                    .to_owned(),
            )
            .into());
        }
        Ok(requests)
    }

    fn lines_of(&self, path: &Path) -> anyhow::Result<Vec<Read>> {
        let text = text_of(path)?;
        let is_csv = || {
            path.extension()
                .is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
        };
        let form = match self.form {
            Some(form) => form,
            None if is_csv() => Form::Csv,
            None => Form::Jsonl,
        };
        Ok(match form {
            Form::Csv => spreadsheet::read(&text),
            Form::Jsonl => text
                .lines()
                .enumerate()
                .map(|(index, line)| (index + 1, line.trim()))
                .filter(|(_, line)| !line.is_empty())
                .map(|(number, line)| (number, Ok(line.to_owned())))
                .collect(),
        })
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

/// A request of a single job: its id, twice.
fn one_job(
    codec: &Codec,
    incoming: &Incoming<'_>,
    now: Timestamp,
) -> Result<(String, Vec<String>), Rejection> {
    let work = codec
        .decode_request(incoming, now)
        .map_err(|mut rejection| {
            // A campaign has other fields throughout: that it is one says all.
            if rejection
                .faults
                .iter()
                .any(|fault| fault.field == "devices")
            {
                rejection.faults.retain(|fault| fault.field == "devices");
            }
            rejection
        })?;
    let job_id = work.job.order.job_id.to_string();
    Ok((job_id.clone(), vec![job_id]))
}

/// Refuses the input, with the first of its faults.
pub(super) fn refuse(what: &str, faults: &[String]) -> Result<(), Usage> {
    if faults.is_empty() {
        return Ok(());
    }
    let shown: Vec<_> = faults
        .iter()
        .take(FAULTS_SHOWN)
        .map(|fault| plain(fault))
        .collect();
    let rest = match faults.len().saturating_sub(FAULTS_SHOWN) {
        0 => String::new(),
        more => format!("\n  … and {more} more"),
    };
    Err(Usage(format!("{what}:\n  {}{rest}", shown.join("\n  "))))
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .lock()
            .read_to_string(&mut text)
            .context("failed to read standard input")?;
        text
    } else {
        std::fs::read_to_string(path)
            .map_err(|error| Usage(format!("failed to read {}: {error}", path.display())))?
    };
    // Spreadsheets put a mark of the byte order first.
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}
