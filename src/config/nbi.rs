//! `[nbi]`: the north-bound HTTP interface.

use std::path::PathBuf;

use jiff::SignedDuration;
use secrecy::SecretString;
use url::Url;

use super::reader::Reader;
use super::tls::Tls;

/// The NBI.
#[derive(Debug, Clone)]
pub struct Nbi {
    /// Its base, without `/v1`; `None` where it is not given.
    pub url: Option<Url>,
    /// The user of Basic authentication.
    pub username: Option<String>,
    /// Their password.
    pub password: Option<SecretString>,
    /// The file that the password came from: it is read again while the worker runs.
    pub password_file: Option<PathBuf>,
    /// Longest time of one call.
    pub timeout: SignedDuration,
    /// Longest time for making a connection.
    pub connect_timeout: SignedDuration,
    /// Certificates, for `https`.
    pub tls: Tls,
    /// Calls at the same time.
    pub max_concurrency: usize,
    /// Calls a second, over all stages; zero: no limit.
    pub requests_per_second: f64,
    /// What creating, updating, disarming and deleting rules may take of the whole.
    pub writes: Share,
    /// What connection requests may take of it.
    pub connection_requests: Share,
    /// What reading rules, results and versions may take of it.
    pub reads: Share,
    /// Whether fewer calls are made while the NBI is slow or fails.
    pub adaptive: bool,
    /// Largest answer, in bytes.
    pub max_response_bytes: usize,
    /// Template of a rule's id, with `{cpe_id}` and perhaps `{job_id}`.
    pub rule_id: String,
    /// Whether rules carry the job's id in `description`.
    pub tag_rules: bool,
    /// The query parameter that selects results.
    pub result_query: String,
    /// The query parameter that selects rules.
    pub rule_query: String,
    /// Quick repeats of one call in place.
    pub quick_retries: u32,
    /// Pause before the first of them.
    pub quick_retry_initial: SignedDuration,
    /// Longest time that they may take together.
    pub quick_retry_max_elapsed: SignedDuration,
    /// `result.code`s that mean success, as inclusive ranges.
    pub success_codes: Vec<(i64, i64)>,
    /// Consecutive transient failures that open the circuit.
    pub circuit_failures: u32,
    /// How long the circuit stays open at first.
    pub circuit_open_initial: SignedDuration,
    /// How long it stays open at most.
    pub circuit_open_max: SignedDuration,
}

/// What one class of calls may take of the whole; zero leaves it to the whole.
#[derive(Debug, Clone)]
pub struct Share {
    /// Calls at the same time.
    pub max_concurrency: usize,
    /// Calls a second.
    pub per_second: f64,
    /// Longest time of one call.
    pub timeout: SignedDuration,
}

const MILLISECOND: SignedDuration = SignedDuration::from_millis(1);
const SECOND: SignedDuration = SignedDuration::from_secs(1);

impl Nbi {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let nbi = Self {
            url: url(reader),
            username: username(reader),
            password: reader.secret("nbi.password", "nbi.password_file"),
            password_file: reader.secret_path("nbi.password_file"),
            timeout: reader.duration("nbi.timeout", MILLISECOND * 100..=SECOND * 600),
            connect_timeout: reader
                .duration("nbi.connect_timeout", MILLISECOND * 100..=SECOND * 600),
            tls: Tls::read(
                reader,
                "nbi.ca_file",
                "nbi.client_cert_file",
                "nbi.client_key_file",
            ),
            max_concurrency: reader.number("nbi.max_concurrency", 1..=4_096),
            requests_per_second: reader.number("nbi.requests_per_second", 0.0..=100_000.0),
            writes: Share::read(
                reader,
                "nbi.writes_max_concurrency",
                "nbi.writes_per_second",
                "nbi.writes_timeout",
            ),
            connection_requests: Share::read(
                reader,
                "nbi.connection_requests_max_concurrency",
                "nbi.connection_requests_per_second",
                "nbi.connection_requests_timeout",
            ),
            reads: Share::read(
                reader,
                "nbi.reads_max_concurrency",
                "nbi.reads_per_second",
                "nbi.reads_timeout",
            ),
            adaptive: reader.boolean("nbi.adaptive"),
            max_response_bytes: reader
                .number("nbi.max_response_bytes", 4_096..=256 * 1_024 * 1_024),
            rule_id: reader.required("nbi.rule_id", rule_id).unwrap_or_default(),
            tag_rules: reader.boolean("nbi.tag_rules"),
            result_query: reader.name("nbi.result_query", 64, "._-"),
            rule_query: reader.name("nbi.rule_query", 64, "._-"),
            quick_retries: reader.number("nbi.quick_retries", 0..=10),
            quick_retry_initial: reader
                .duration("nbi.quick_retry_initial", MILLISECOND..=SECOND * 60),
            quick_retry_max_elapsed: reader
                .duration("nbi.quick_retry_max_elapsed", MILLISECOND..=SECOND * 300),
            success_codes: reader.list("nbi.success_codes", code_range),
            circuit_failures: reader.number("nbi.circuit_failures", 1..=10_000),
            circuit_open_initial: reader.duration(
                "nbi.circuit_open_initial",
                MILLISECOND * 100..=SECOND * 3_600,
            ),
            circuit_open_max: reader
                .duration("nbi.circuit_open_max", MILLISECOND * 100..=SECOND * 3_600),
        };
        nbi.check(reader);
        nbi
    }

    /// Checks what one key says against what others say.
    fn check(&self, reader: &mut Reader) {
        if self.success_codes.is_empty() && reader.are_sound(&["nbi.success_codes"]) {
            reader.fault(
                "nbi.success_codes",
                "is empty, so no device could ever succeed",
                "give e.g. [\"200-299\"]",
            );
        }
        reader.check_order(
            ("nbi.connect_timeout", self.connect_timeout),
            ("nbi.timeout", self.timeout),
        );
        reader.check_order(
            ("nbi.quick_retry_initial", self.quick_retry_initial),
            ("nbi.quick_retry_max_elapsed", self.quick_retry_max_elapsed),
        );
        reader.check_order(
            ("nbi.circuit_open_initial", self.circuit_open_initial),
            ("nbi.circuit_open_max", self.circuit_open_max),
        );
        for (key, share) in [
            ("nbi.writes_timeout", &self.writes),
            ("nbi.connection_requests_timeout", &self.connection_requests),
            ("nbi.reads_timeout", &self.reads),
        ] {
            if !share.timeout.is_zero() {
                reader.check_order(
                    ("nbi.connect_timeout", self.connect_timeout),
                    (key, share.timeout),
                );
            }
        }
    }
}

impl Share {
    fn read(
        reader: &mut Reader,
        max_concurrency: &'static str,
        per_second: &'static str,
        timeout: &'static str,
    ) -> Self {
        let share = Self {
            max_concurrency: reader.number(max_concurrency, 0..=4_096),
            per_second: reader.number(per_second, 0.0..=100_000.0),
            timeout: reader.duration(timeout, SignedDuration::ZERO..=SECOND * 600),
        };
        if !share.timeout.is_zero() && share.timeout < MILLISECOND * 100 {
            let remedy = "give 100ms to 10m, or 0s for nbi.timeout";
            reader.fault(timeout, "is out of range", remedy);
        }
        share
    }
}

fn url(reader: &mut Reader) -> Option<Url> {
    let allow_http = reader.boolean("nbi.allow_http");
    reader.optional("nbi.url", |text| {
        let remedy =
            || "give the base without /v1, e.g. \"https://acs.example.com:8443\"".to_owned();
        let url = Url::parse(text).map_err(|error| (format!("is not a URL: {error}"), remedy()))?;
        match url.scheme() {
            "https" => {}
            "http" if allow_http => {}
            "http" => {
                let remedy =
                    "use https, or set nbi.allow_http = true to send the password in the clear";
                return Err(("is not encrypted".to_owned(), remedy.to_owned()));
            }
            other => return Err((format!("has the scheme {other:?}"), remedy())),
        }
        if !url.username().is_empty() || url.password().is_some() {
            let remedy = "set nbi.username and nbi.password_file instead: URLs end up in logs";
            return Err(("has credentials in it".to_owned(), remedy.to_owned()));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(("has a query or a fragment".to_owned(), remedy()));
        }
        if url.path().trim_end_matches('/').ends_with("/v1") {
            return Err(("ends in /v1, which is added to it".to_owned(), remedy()));
        }
        Ok(url)
    })
}

fn username(reader: &mut Reader) -> Option<String> {
    reader.optional("nbi.username", |text| {
        if text.contains(':') {
            // RFC 7617, section 2 (documented).
            return Err((
                "contains ':', which ends the user in Basic authentication".to_owned(),
                "use another user".to_owned(),
            ));
        }
        Ok(text.to_owned())
    })
}

fn rule_id(text: &str) -> Result<String, (String, String)> {
    let remedy = || {
        "use {cpe_id}, {job_id} if wanted, and up to 64 printable characters without space * ? % / \\ \" '".to_owned()
    };
    if !text.contains("{cpe_id}") {
        return Err(("does not contain {cpe_id}".to_owned(), remedy()));
    }
    let literal = text.replace("{cpe_id}", "").replace("{job_id}", "");
    let is_wrong = |c: &char| !c.is_ascii_graphic() || "{}*?%/\\\"'".contains(*c);
    match literal.chars().find(is_wrong) {
        Some('{' | '}') => Err(("has a placeholder that is not known".to_owned(), remedy())),
        Some(found) => Err((format!("contains {found:?}"), remedy())),
        // A rule's id has at most 320 characters, device and job 128 each.
        None if literal.len() > 64 || text.matches('{').count() > 2 => {
            Err(("makes ids that are too long".to_owned(), remedy()))
        }
        None => Ok(text.to_owned()),
    }
}

fn code_range(text: &str) -> Result<(i64, i64), (String, String)> {
    let number = |part: &str| part.trim().parse::<u32>().ok().map(i64::from);
    let range = match text.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)),
        None => number(text).map(|only| (only, only)),
    };
    range.filter(|(first, last)| first <= last).ok_or_else(|| {
        (
            "is not a code or a range of codes".to_owned(),
            "give e.g. [\"200-299\", \"0\"]".to_owned(),
        )
    })
}
