//! What an answer means: the one table of HTTP status × body code → the core's words. Nothing downstream looks at a status.
//!
//! The NBI says how it went twice, as HTTP status and as `code` in the body (`{code, message, details}`, for methods
//! `{result: {code, message}}`); the vendor's page shows only bodies, so which HTTP status surrounds them is unknown. Both are
//! judged by the same table (`Class::of`), and where they disagree the worse one counts, in the order of `Class`. So HTTP 200
//! around a body that says 404 is "no row", and HTTP 500 around a body that says 200 is an NBI in trouble.
//!
//! An answer that should carry the NBI's envelope and does not is not believed: 404 without it is a wrong path or a proxy, not an
//! absent row. `Content-Type` is not looked at: a body that is the NBI's envelope is the NBI's, whatever a proxy calls it, and one
//! that is not is not believed as `application/json` either. Of a repeated key the last one counts.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};

use super::budget::asks_device;
use super::circuit::Sign;
use super::http::ERROR_MAX;
use super::json::Json;
use super::listing::listed;
use super::text::{cut, tidy};
use super::wire::{Envelope, ResultWire, RuleWire};
use super::{RawAnswer, TransportError};
use super::{headers, version};
use crate::job::{CpeId, NbiAnswer, NbiCall, NbiFailure, ResultRow, RuleId, RuleRow};

/// The most characters of the NBI's own message that a failure repeats.
const SAID_MAX: usize = 200;

/// What came of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// In the core's words.
    pub outcome: Result<NbiAnswer, NbiFailure>,
    /// What it says about the NBI's health.
    pub sign: Sign,
    /// Whether rows were dropped because they are of another rule or device: the NBI ignored the filter.
    pub filter_ignored: bool,
}

/// What a status or code means, from the best to the worst; of two, the worse one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Done.
    Success,
    /// No such row.
    Absent,
    /// The id is taken.
    Taken,
    /// Rules may not be read.
    Unreadable,
    /// Never, whatever the time.
    Rejected,
    /// Nothing that the NBI is known to say.
    Unintelligible,
    /// Later, perhaps.
    Transient,
    /// Not with these credentials.
    Refused,
}

impl Class {
    /// The table of the contract's section 5, for an HTTP status and a body code alike.
    fn of(call: &NbiCall, code: i64) -> Self {
        let reads_rules = matches!(call, NbiCall::ReadRule { .. } | NbiCall::ListRules { .. });
        let creates = matches!(call, NbiCall::CreateRule(_));
        match code {
            200..=299 => Self::Success,
            // An account may be allowed to write rules and not to read them.
            403 | 405 | 501 if reads_rules => Self::Unreadable,
            401 | 403 => Self::Refused,
            404 => Self::Absent,
            409 if creates => Self::Taken,
            408 | 425 | 429 | 500..=599 => Self::Transient,
            400..=499 => Self::Rejected,
            // Redirects are not followed; no other number has a known meaning.
            _ => Self::Unintelligible,
        }
    }
}

/// One answer on its way through the table.
struct Case<'a> {
    call: &'a NbiCall,
    raw: &'a RawAnswer,
    /// The body, if it is JSON.
    value: Option<&'a Json<'a>>,
    /// The NBI's envelope, if the body is one.
    envelope: Option<Envelope<'a>>,
}

/// Judges a complete answer.
///
/// `version_parameters` are the parameters that hold the software version, the preferred first; `now` is used for a `Retry-After`
/// that is a date, if the answer has no `Date`.
#[must_use]
pub fn judge(
    call: &NbiCall,
    raw: &RawAnswer,
    version_parameters: &[String],
    now: Timestamp,
) -> Judged {
    let value = Json::of(&raw.body);
    let value = value.as_ref();
    let envelope = value.and_then(Envelope::read);
    let case = Case {
        call,
        raw,
        value,
        envelope,
    };
    let mut filter_ignored = false;
    let outcome = match case.class() {
        Class::Success => case.success(version_parameters, &mut filter_ignored),
        Class::Absent => case.absent(),
        Class::Taken => Ok(NbiAnswer::RuleExists),
        Class::Unreadable => Ok(NbiAnswer::RulesUnreadable),
        Class::Rejected => Err(NbiFailure::Rejected {
            message: case.message("rejected"),
        }),
        Class::Unintelligible => Err(case.unintelligible(&case.oddity())),
        Class::Transient => Err(NbiFailure::Transient {
            message: case.message("failed for now"),
            retry_after: headers::retry_after(raw, now),
            no_effect: raw.status == 429,
        }),
        Class::Refused => Err(NbiFailure::Refused {
            message: case
                .message("refused (check `nbi.username`, `nbi.password` and the account's rights)"),
        }),
    };
    let sign = case.sign(&outcome);
    Judged {
        outcome,
        sign,
        filter_ignored,
    }
}

/// Judges that no complete answer came.
#[must_use]
pub fn judge_missing(call: &NbiCall, error: &TransportError) -> Judged {
    let message = format!(
        "{}: {}",
        call.operation(),
        tidy(&error.to_string(), ERROR_MAX)
    );
    let failure = match error {
        TransportError::Connect(_) => NbiFailure::Transient {
            message,
            retry_after: None,
            no_effect: true,
        },
        TransportError::TimedOut(_) | TransportError::NoAnswer(_) => NbiFailure::Transient {
            message,
            retry_after: None,
            no_effect: false,
        },
        TransportError::TooLarge { .. } => NbiFailure::Unintelligible { message },
    };
    Judged {
        outcome: Err(failure),
        sign: match (call, error) {
            // It answers; a list is asked for in smaller pages then.
            (NbiCall::ListRules { .. }, TransportError::TooLarge { .. }) => Sign::Alive,
            (_, TransportError::TimedOut(_)) if asks_device(call) => Sign::Unclear,
            _ => Sign::Failing { retry_after: None },
        },
        filter_ignored: false,
    }
}

impl<'a> Case<'a> {
    /// The worst of what HTTP status and body say; status alone where the body says nothing.
    fn class(&self) -> Class {
        let codes = self.envelope.as_ref().map_or([None, None], |envelope| {
            [envelope.code, envelope.result.code]
        });
        let said = codes
            .into_iter()
            .flatten()
            .map(|code| Class::of(self.call, code));
        said.fold(Class::of(self.call, i64::from(self.raw.status)), Ord::max)
    }

    /// HTTP status, and code if there is one, say that it is done.
    fn success(
        &self,
        version_parameters: &[String],
        filter_ignored: &mut bool,
    ) -> Result<NbiAnswer, NbiFailure> {
        match self.call {
            NbiCall::ReadResults {
                rule_id, cpe_id, ..
            } => self.results(rule_id, cpe_id, filter_ignored),
            NbiCall::ReadRule { rule_id, .. } => self.rules(rule_id, filter_ignored),
            NbiCall::ListRules { .. } => Ok(NbiAnswer::RuleList(listed(self.rows()?))),
            NbiCall::ReadVersion { .. } => self.version(version_parameters),
            NbiCall::CreateRule(_)
            | NbiCall::UpdateRule(_)
            | NbiCall::DisarmRule { .. }
            | NbiCall::DeleteRule { .. }
            | NbiCall::SendConnectionRequest { .. } => {
                // A real HTTP 204 has no body, and the vendor's examples show the code 204 (in a body, documented).
                if self.envelope.is_some() || self.raw.body.trim_ascii().is_empty() {
                    Ok(NbiAnswer::Done)
                } else {
                    Err(self.unintelligible(&self.oddity()))
                }
            }
        }
    }

    /// 404 in HTTP or body: an absent row if it is the NBI that says so.
    fn absent(&self) -> Result<NbiAnswer, NbiFailure> {
        if self.envelope.is_none() {
            return Err(self.unintelligible(
                "wrong path in `nbi.url`, storage not installed, or a proxy between",
            ));
        }
        match self.call {
            NbiCall::ReadResults { .. } => Ok(NbiAnswer::Results {
                rows: Vec::new(),
                nbi_time: headers::nbi_time(self.raw),
            }),
            NbiCall::ReadRule { .. } => Ok(NbiAnswer::Rules {
                rows: Vec::new(),
                filter_ignored: false,
            }),
            NbiCall::ListRules { .. } => Ok(NbiAnswer::RuleList(Vec::new())),
            NbiCall::UpdateRule(_) | NbiCall::DisarmRule { .. } | NbiCall::DeleteRule { .. } => {
                Ok(NbiAnswer::NoSuchRule)
            }
            NbiCall::CreateRule(_)
            | NbiCall::SendConnectionRequest { .. }
            | NbiCall::ReadVersion { .. } => Err(NbiFailure::Rejected {
                message: self.message("rejected"),
            }),
        }
    }

    /// The result rows of this rule and device.
    fn results(
        &self,
        rule: &RuleId,
        cpe: &CpeId,
        filter_ignored: &mut bool,
    ) -> Result<NbiAnswer, NbiFailure> {
        let mut rows = Vec::new();
        for value in self.rows()? {
            let row = ResultWire::read(value);
            if row.cpeid.as_deref() != Some(cpe.as_str())
                || row.campaignid.as_deref() != Some(rule.as_str())
            {
                *filter_ignored = true;
                continue;
            }
            let is_final = row.may_be_final();
            let (Some(id), Some(ts)) = (row.id.filter(|id| is_usable(id)), row.ts) else {
                if is_final {
                    return Err(self.unintelligible("a final result row has no `id` or `ts`"));
                }
                continue;
            };
            let message = row.result.message.unwrap_or_default();
            let message = tidy(&message, ResultRow::MESSAGE_MAX);
            let rule_description = row
                .rule_description
                .map(|text| cut(&text, ResultRow::DESCRIPTION_MAX));
            rows.push(ResultRow {
                id: id.into_owned(),
                ts,
                code: row.result.code,
                message,
                rule_description,
            });
        }
        Ok(NbiAnswer::Results {
            rows,
            nbi_time: headers::nbi_time(self.raw),
        })
    }

    /// The rules of this id. A rule that does not say whether it is enabled is not believed: it might be armed.
    fn rules(&self, rule: &RuleId, filter_ignored: &mut bool) -> Result<NbiAnswer, NbiFailure> {
        let mut rows = Vec::new();
        for value in self.rows()? {
            let row = RuleWire::read(value);
            if row.id.as_deref() != Some(rule.as_str()) {
                *filter_ignored = true;
                continue;
            }
            let Some(enabled) = row.enabled else {
                return Err(self.unintelligible("the rule has no usable `enabled`"));
            };
            let automatic = row.automatic.unwrap_or(false);
            rows.push(RuleRow {
                enabled,
                automatic,
                file: row.file.map(Cow::into_owned),
                description: row.description.map(Cow::into_owned),
            });
        }
        Ok(NbiAnswer::Rules {
            rows,
            filter_ignored: *filter_ignored,
        })
    }

    /// The rows of a read that succeeded.
    fn rows(&self) -> Result<&'a [Json<'a>], NbiFailure> {
        let rows = self.envelope.as_ref().and_then(Envelope::rows);
        rows.ok_or_else(|| self.unintelligible(&self.oddity()))
    }

    /// The software version. The answer's shape is unknown, so the parameter is looked for anywhere in it.
    fn version(&self, parameters: &[String]) -> Result<NbiAnswer, NbiFailure> {
        let value = self
            .value
            .ok_or_else(|| self.unintelligible(&self.oddity()))?;
        match version::version(value, parameters) {
            Some(version) => Ok(NbiAnswer::Version(version)),
            None => {
                Err(self
                    .unintelligible("no software version in it (check `nbi.version_parameters`)"))
            }
        }
    }

    /// What the answer says about the NBI's health.
    ///
    /// A method's transient code inside HTTP 2xx is about the device (asleep, unreachable), not about the NBI, which answered (inferred);
    /// where time is up, the NBI may have waited for the device (unknown). A fleet of sleeping devices must not open the circuit.
    fn sign(&self, outcome: &Result<NbiAnswer, NbiFailure>) -> Sign {
        let shows_rows =
            || self.class() == Class::Success && self.rows().is_ok_and(|rows| !rows.is_empty());
        let is_devices = asks_device(self.call);
        let is_success = (200..300).contains(&self.raw.status);
        let is_late = matches!(self.raw.status, 408 | 504);
        match outcome {
            Ok(_) | Err(NbiFailure::Rejected { .. } | NbiFailure::NotSent { .. }) => Sign::Alive,
            // A row is not to be used, and will not be; an open circuit would wait for ever.
            Err(NbiFailure::Unintelligible { .. }) if shows_rows() => Sign::Alive,
            Err(NbiFailure::Transient { .. }) if is_devices && is_success => Sign::Alive,
            Err(NbiFailure::Transient { .. }) if is_devices && is_late => Sign::Unclear,
            Err(NbiFailure::Transient { retry_after, .. }) => Sign::Failing {
                retry_after: retry_after.map(SignedDuration::unsigned_abs),
            },
            Err(NbiFailure::Unintelligible { .. }) => Sign::Failing { retry_after: None },
            Err(NbiFailure::Refused { .. }) => Sign::Refused,
        }
    }

    /// What is odd about an answer that cannot be understood.
    fn oddity(&self) -> Cow<'static, str> {
        let oddity = if (300..400).contains(&self.raw.status) {
            return headers::redirect(self.raw).into();
        } else if self.value.is_none() {
            "not JSON"
        } else {
            "not of the known shape"
        };
        oddity.into()
    }

    fn unintelligible(&self, oddity: &str) -> NbiFailure {
        NbiFailure::Unintelligible {
            message: self.message(&format!("unintelligible answer, {oddity}")),
        }
    }

    /// Operation, verdict, status, code and what the NBI says, e.g. `create_rule: rejected, HTTP 200, code 400: bad file`.
    fn message(&self, verdict: &str) -> String {
        let mut message = format!(
            "{}: {verdict}, HTTP {}",
            self.call.operation(),
            self.raw.status
        );
        if let Some(envelope) = &self.envelope {
            for code in [envelope.code, envelope.result.code].into_iter().flatten() {
                message.push_str(&format!(", code {code}"));
            }
            if let Some(said) = envelope
                .said()
                .map(|said| tidy(said, SAID_MAX))
                .filter(|said| !said.is_empty())
            {
                message.push_str(": ");
                message.push_str(&said);
            }
        }
        message
    }
}

/// Whether a row's id can be remembered: ids travel in continuations, which must stay within what a worker reads.
fn is_usable(id: &str) -> bool {
    !id.is_empty() && id.chars().count() <= ResultRow::ID_MAX && !id.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{FirmwareUrl, Purpose, RuleSpec};

    const CREATED: &str = include_str!("../../tests/fixtures/nbi/rule_created.json");
    const UPDATED: &str = include_str!("../../tests/fixtures/nbi/rule_updated.json");
    const SENT: &str = include_str!("../../tests/fixtures/nbi/connection_request_sent.json");
    const NOT_FOUND: &str = include_str!("../../tests/fixtures/nbi/result_not_found.json");
    const FOUND: &str = include_str!("../../tests/fixtures/nbi/result_found.json");
    const HTML: &str = "<html><body>Oh dear</body></html>";

    fn rule_id() -> RuleId {
        RuleId::parse("UPGRADE_x").unwrap()
    }

    fn cpe_id() -> CpeId {
        CpeId::parse("x").unwrap()
    }

    fn spec() -> RuleSpec {
        RuleSpec {
            rule_id: rule_id(),
            cpe_id: cpe_id(),
            firmware_url: FirmwareUrl::checked("http://files/fw.bin").unwrap(),
            executions: 1,
            priority: 1,
            description: None,
        }
    }

    fn calls() -> [NbiCall; 9] {
        [
            NbiCall::ReadResults {
                rule_id: rule_id(),
                cpe_id: cpe_id(),
                purpose: Purpose::Look,
            },
            NbiCall::ReadRule {
                rule_id: rule_id(),
                purpose: Purpose::Look,
            },
            NbiCall::CreateRule(spec()),
            NbiCall::UpdateRule(spec()),
            NbiCall::DisarmRule { rule_id: rule_id() },
            NbiCall::DeleteRule { rule_id: rule_id() },
            NbiCall::SendConnectionRequest { cpe_id: cpe_id() },
            NbiCall::ReadVersion { cpe_id: cpe_id() },
            NbiCall::ListRules {
                offset: 0,
                limit: 10,
            },
        ]
    }

    fn raw(status: u16, body: &str) -> RawAnswer {
        RawAnswer {
            status,
            body: body.replace("<cpeid>", "x").into_bytes(),
            retry_after: None,
            date: None,
            location: None,
        }
    }

    fn ask(call: &NbiCall, raw: &RawAnswer) -> Judged {
        judge(
            call,
            raw,
            &["A.Version".to_owned(), "B.Version".to_owned()],
            "2026-01-02T00:00:00Z".parse().unwrap(),
        )
    }

    fn word(judged: &Judged) -> &'static str {
        match &judged.outcome {
            Ok(NbiAnswer::Results { rows, .. }) if rows.is_empty() => "no results",
            Ok(NbiAnswer::Results { .. }) => "results",
            Ok(NbiAnswer::Rules { rows, .. }) if rows.is_empty() => "no rules",
            Ok(NbiAnswer::Rules { .. }) => "rules",
            Ok(NbiAnswer::RuleList(rows)) if rows.is_empty() => "no list",
            Ok(NbiAnswer::RuleList(_)) => "list",
            Ok(NbiAnswer::RulesUnreadable) => "unreadable",
            Ok(NbiAnswer::Done) => "done",
            Ok(NbiAnswer::NoSuchRule) => "no such rule",
            Ok(NbiAnswer::RuleExists) => "exists",
            Ok(NbiAnswer::Version(_)) => "version",
            Err(NbiFailure::Transient { .. }) => "transient",
            Err(NbiFailure::Refused { .. }) => "refused",
            Err(NbiFailure::NotSent { .. }) => "not sent",
            Err(NbiFailure::Rejected { .. }) => "rejected",
            Err(NbiFailure::Unintelligible { .. }) => "unintelligible",
        }
    }

    /// Words for all calls, in the order of [`calls`].
    fn words(status: u16, body: &str) -> [&'static str; 9] {
        calls().map(|call| word(&ask(&call, &raw(status, body))))
    }

    const TRANSIENT: [&str; 9] = ["transient"; 9];
    const REFUSED: [&str; 9] = ["refused"; 9];
    const REJECTED: [&str; 9] = ["rejected"; 9];
    const ODD: [&str; 9] = ["unintelligible"; 9];
    const DONE: [&str; 9] = [
        "no results",
        "no rules",
        "done",
        "done",
        "done",
        "done",
        "done",
        "unintelligible",
        "no list",
    ];
    const ABSENT: [&str; 9] = [
        "no results",
        "no rules",
        "rejected",
        "no such rule",
        "no such rule",
        "no such rule",
        "rejected",
        "rejected",
        "no list",
    ];

    fn but(mut words: [&'static str; 9], index: usize, word: &'static str) -> [&'static str; 9] {
        words[index] = word;
        words
    }

    /// Rules can be read neither one by one nor as a list.
    fn unreadable(words: [&'static str; 9]) -> [&'static str; 9] {
        but(but(words, 1, "unreadable"), 8, "unreadable")
    }

    fn envelope(code: i64) -> String {
        format!(r#"{{"code":{code},"message":"response from FirmwareStorage","details":""}}"#)
    }

    #[test]
    fn the_table_of_the_contract_by_body_code() {
        for (code, expected) in [
            (200, DONE),
            (204, DONE),
            (400, REJECTED),
            (401, REFUSED),
            (403, unreadable(REFUSED)),
            (404, ABSENT),
            (405, unreadable(REJECTED)),
            (408, TRANSIENT),
            (409, but(REJECTED, 2, "exists")),
            (422, REJECTED),
            (425, TRANSIENT),
            (429, TRANSIENT),
            (500, TRANSIENT),
            (501, unreadable(TRANSIENT)),
            (503, TRANSIENT),
            (0, ODD),
            (302, ODD),
            (600, ODD),
            (-1, ODD),
        ] {
            assert_eq!(
                words(200, &envelope(code)),
                expected,
                "code {code} in an envelope"
            );
            let method = format!(r#"{{"result":{{"code":{code},"message":"OK"}}}}"#);
            assert_eq!(words(200, &method), expected, "code {code} of a method");
        }
    }

    #[test]
    fn the_table_of_the_contract_by_http_status() {
        for (status, expected) in [
            (400, REJECTED),
            (401, REFUSED),
            (403, unreadable(REFUSED)),
            (404, ODD),
            (405, unreadable(REJECTED)),
            (408, TRANSIENT),
            (409, but(REJECTED, 2, "exists")),
            (413, REJECTED),
            (425, TRANSIENT),
            (429, TRANSIENT),
            (500, TRANSIENT),
            (501, unreadable(TRANSIENT)),
            (502, TRANSIENT),
            (504, TRANSIENT),
            (200, ODD),
            (301, ODD),
            (302, ODD),
            (307, ODD),
            (999, ODD),
        ] {
            assert_eq!(words(status, HTML), expected, "HTTP {status} with HTML");
        }
        assert_eq!(
            words(404, &envelope(404)),
            ABSENT,
            "HTTP 404 with an envelope"
        );
        assert_eq!(
            words(404, r#"{"error":"no"}"#),
            ODD,
            "HTTP 404 with other JSON"
        );
        assert_eq!(words(404, ""), ODD, "HTTP 404 without a body");
    }

    #[test]
    fn an_empty_success_is_enough_for_writes_and_methods_only() {
        let expected = [
            "unintelligible",
            "unintelligible",
            "done",
            "done",
            "done",
            "done",
            "done",
            "unintelligible",
            "unintelligible",
        ];
        assert_eq!(words(204, ""), expected);
        assert_eq!(words(200, " \r\n"), expected);
    }

    #[test]
    fn the_worse_of_status_and_code_counts() {
        for (status, code, index, expected) in [
            (500, 200, 0, "transient"),
            (200, 500, 0, "transient"),
            (500, 404, 1, "transient"),
            (404, 200, 1, "no rules"),
            (500, 401, 2, "refused"),
            (401, 204, 2, "refused"),
            (409, 400, 2, "rejected"),
            (400, 409, 2, "rejected"),
            (503, 403, 1, "transient"),
            (400, 503, 3, "transient"),
            (302, 200, 4, "unintelligible"),
            (404, 204, 4, "no such rule"),
        ] {
            assert_eq!(
                words(status, &envelope(code))[index],
                expected,
                "HTTP {status}, code {code}"
            );
        }
        let both = r#"{"code":200,"result":{"code":401}}"#;
        assert_eq!(words(200, both)[6], "refused");
    }

    #[test]
    fn the_vendors_examples_are_understood() {
        let [
            read_results,
            read_rule,
            create,
            update,
            disarm,
            delete,
            cnr,
            _,
            _,
        ] = calls();
        for (call, body, expected) in [
            (&create, CREATED, "done"),
            (&update, UPDATED, "done"),
            (&disarm, UPDATED, "done"),
            (&delete, UPDATED, "done"),
            (&cnr, SENT, "done"),
            (&read_results, NOT_FOUND, "no results"),
            (&read_rule, NOT_FOUND, "no rules"),
        ] {
            assert_eq!(word(&ask(call, &raw(200, body))), expected, "{body}");
        }
        let mut answer = raw(200, FOUND);
        answer.date = Some("Mon, 31 Mar 2025 09:15:10 GMT".to_owned());
        let expected = ResultRow {
            id: "cd3627cd-1908-4ff8-8fe3-f7078723a684".to_owned(),
            ts: 1_743_412_508,
            code: Some(500),
            message: "Upgrade has failed with FaultCode 9010. FaultString: Download failure. File not found.".to_owned(),
            rule_description: Some("string".to_owned()),
        };
        assert_eq!(
            ask(&read_results, &answer),
            Judged {
                outcome: Ok(NbiAnswer::Results {
                    rows: vec![expected],
                    nbi_time: Some("2025-03-31T09:15:10Z".parse().unwrap()),
                }),
                sign: Sign::Alive,
                filter_ignored: false,
            }
        );
    }

    #[test]
    fn rows_of_others_are_dropped() {
        let [read_results, read_rule, ..] = calls();
        let results = r#"{"code":200,"details":[
            {"id":"1","ts":1,"cpeid":"x","campaignid":"UPGRADE_x"},
            {"id":"2","ts":1,"cpeid":"y","campaignid":"UPGRADE_x"},
            {"id":"3","ts":1,"cpeid":"x","campaignid":"UPGRADE_y"},
            {"id":"4","ts":1,"cpeid":"x"}, {"id":"5","ts":1,"campaignid":"UPGRADE_x"}, null, 7, "row", []]}"#;
        let judged = ask(&read_results, &raw(200, results));
        assert!(judged.filter_ignored);
        let Ok(NbiAnswer::Results { rows, .. }) = judged.outcome else {
            panic!("{judged:?}")
        };
        assert_eq!(
            rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(),
            ["1"]
        );

        let rules = r#"{"code":200,"details":[
            {"id":"UPGRADE_x","enabled":true,"file":"f"}, {"id":"UPGRADE_y","enabled":true}, {"enabled":true}]}"#;
        let judged = ask(&read_rule, &raw(200, rules));
        let row = RuleRow {
            enabled: true,
            automatic: false,
            file: Some("f".to_owned()),
            description: None,
        };
        assert_eq!(
            judged.outcome,
            Ok(NbiAnswer::Rules {
                rows: vec![row],
                filter_ignored: true
            })
        );
        assert!(judged.filter_ignored);
    }

    #[test]
    fn a_broken_row_of_ours_is_not_taken_for_nothing() {
        let [read_results, read_rule, ..] = calls();
        for row in [
            r#""ts":1"#,
            r#""id":"","ts":1"#,
            r#""id":null,"ts":1"#,
            r#""id":"1""#,
            r#""id":"1","ts":"soon""#,
        ] {
            for (result, expected) in [
                (r#"{"code":200}"#, "unintelligible"),
                (r#"{"code":0,"message":"OK"}"#, "unintelligible"),
                (
                    r#"{"code":500,"message":"FaultCode 9010"}"#,
                    "unintelligible",
                ),
                // Nothing final is in it, and the others beside it count.
                (
                    r#"{"code":500,"message":"Upgrade is in progress"}"#,
                    "results",
                ),
                ("null", "results"),
            ] {
                let of_x = r#""cpeid":"x","campaignid":"UPGRADE_x""#;
                let body = format!(
                    r#"{{"code":200,"details":[{{{of_x},"result":{result},{row}}},{{{of_x},"id":"ok","ts":1}}]}}"#
                );
                assert_eq!(
                    word(&ask(&read_results, &raw(200, &body))),
                    expected,
                    "{body}"
                );
                let others = body.replace("UPGRADE_x", "UPGRADE_y");
                assert_eq!(
                    word(&ask(&read_results, &raw(200, &others))),
                    "no results",
                    "{body}"
                );
            }
        }
        let body = r#"{"code":200,"details":[{"id":"UPGRADE_x","enabled":null}]}"#;
        assert_eq!(word(&ask(&read_rule, &raw(200, body))), "unintelligible");
    }

    #[test]
    fn details_that_are_no_rows_are_not_understood_on_a_read() {
        for body in [
            r#"{"code":200,"details":"many"}"#,
            r#"{"code":200,"details":1}"#,
            r#"{"details":[]}"#,
            "[]",
            "{",
        ] {
            assert_eq!(words(200, body)[..2], ["unintelligible"; 2], "{body}");
        }
        assert_eq!(
            words(
                200,
                r#"{"code":200,"details":{"id":"UPGRADE_x","enabled":true}}"#
            )[1],
            "rules"
        );
        let deep = format!(
            r#"{{"code":200,"details":{}{}}}"#,
            "[".repeat(10_000),
            "]".repeat(10_000)
        );
        assert_eq!(words(200, &deep), ODD);
    }

    #[test]
    fn a_long_result_message_is_cut() {
        let body = FOUND.replace("File not found.", &"ü".repeat(2_000));
        let Ok(NbiAnswer::Results { rows, .. }) = ask(&calls()[0], &raw(200, &body)).outcome else {
            panic!()
        };
        assert_eq!(rows[0].message.chars().count(), ResultRow::MESSAGE_MAX);
    }

    #[test]
    fn a_version_needs_no_code_around_it_and_a_success_needs_a_version() {
        let call = &calls()[7];
        let version = Ok(NbiAnswer::Version("1.2".to_owned()));
        for body in [
            r#"{"result":{"code":200,"A.Version":"1.2"}}"#,
            r#"{"B.Version":"1.2"}"#,
        ] {
            assert_eq!(ask(call, &raw(200, body)).outcome, version, "{body}");
        }
        let judged = ask(call, &raw(200, r#"{"result":{"code":200,"message":"OK"}}"#));
        assert_eq!(word(&judged), "unintelligible");
    }

    #[test]
    fn only_what_was_turned_away_at_the_door_certainly_had_no_effect() {
        let create = &calls()[2];
        for (judged, expected) in [
            (
                judge_missing(create, &TransportError::Connect("refused".to_owned())),
                true,
            ),
            (
                judge_missing(create, &TransportError::NoAnswer("reset".to_owned())),
                false,
            ),
            (
                judge_missing(create, &TransportError::TimedOut("late".to_owned())),
                false,
            ),
            (ask(create, &raw(429, "")), true),
            (ask(create, &raw(200, &envelope(429))), false),
            (ask(create, &raw(503, "")), false),
        ] {
            let Err(NbiFailure::Transient { no_effect, .. }) = judged.outcome else {
                panic!("{judged:?}")
            };
            assert_eq!(no_effect, expected);
        }
        assert_eq!(
            word(&judge_missing(
                create,
                &TransportError::TooLarge { limit: 9 }
            )),
            "unintelligible"
        );
    }

    #[test]
    fn the_sign_tells_a_sick_nbi_from_a_sleeping_device() {
        let [read_results, read_rule, create, .., cnr, _] = calls();
        let unusable = r#"{"code":200,"details":[{"id":"UPGRADE_x"}]}"#;
        let failing = Sign::Failing { retry_after: None };
        for (call, answer, expected) in [
            (&create, raw(200, CREATED), Sign::Alive),
            (&create, raw(400, HTML), Sign::Alive),
            (&read_rule, raw(200, unusable), Sign::Alive),
            (&read_rule, raw(503, unusable), failing),
            (&create, raw(409, ""), Sign::Alive),
            (&create, raw(200, HTML), failing),
            (&create, raw(503, HTML), failing),
            (&create, raw(401, ""), Sign::Refused),
            (&read_results, raw(200, &envelope(503)), failing),
            (
                &cnr,
                raw(
                    200,
                    r#"{"result":{"code":504,"message":"no answer from the device"}}"#,
                ),
                Sign::Alive,
            ),
            (&cnr, raw(504, HTML), Sign::Unclear),
            (&cnr, raw(408, &envelope(408)), Sign::Unclear),
            (&cnr, raw(503, HTML), failing),
            (&read_rule, raw(504, HTML), failing),
            (&cnr, raw(200, r#"{"result":{"code":401}}"#), Sign::Refused),
        ] {
            assert_eq!(ask(call, &answer).sign, expected, "{call:?} {answer:?}");
        }
        let late = TransportError::TimedOut("late".to_owned());
        let reset = TransportError::NoAnswer("reset".to_owned());
        for (call, error, expected) in [
            (&cnr, &late, Sign::Unclear),
            (&cnr, &reset, failing),
            (&create, &late, failing),
        ] {
            assert_eq!(
                judge_missing(call, error).sign,
                expected,
                "{call:?} {error:?}"
            );
        }
    }

    #[test]
    fn a_message_names_operation_status_code_and_what_was_said_without_control_characters() {
        let body = format!(
            r#"{{"code":400,"message":"bad\n\u001b[31mfile {}"}}"#,
            "x".repeat(500)
        );
        let Err(failure) = ask(&calls()[2], &raw(200, &body)).outcome else {
            panic!()
        };
        let message = failure.to_string();
        assert!(
            message.starts_with("create_rule: rejected, HTTP 200, code 400: bad  [31mfile xxx"),
            "{message}"
        );
        assert!(
            message.chars().count() < 300 && !message.chars().any(char::is_control),
            "{message}"
        );

        let Err(failure) = ask(&calls()[0], &raw(302, HTML)).outcome else {
            panic!()
        };
        assert!(failure.to_string().contains("`nbi.url`"), "{failure}");
    }

    #[test]
    fn texts_of_rows_are_bounded_as_they_travel_on() {
        let body = |id: &str, message: &str, description: &str| {
            let row = serde_json::json!({"id": id, "ts": 1, "cpeid": "x", "campaignid": "UPGRADE_x",
                "rule_description": description, "result": {"code": 500, "message": message}});
            serde_json::json!({"code": 200, "details": [row]}).to_string()
        };
        let read = &calls()[0];
        for id in ["", "a\nb", &"i".repeat(ResultRow::ID_MAX + 1)] {
            let judged = ask(read, &raw(200, &body(id, "FaultCode 9010", "d")));
            assert_eq!(word(&judged), "unintelligible", "{id}");
        }
        let long = "x".repeat(100_000);
        let id = "i".repeat(ResultRow::ID_MAX);
        match ask(
            read,
            &raw(200, &body(&id, &format!("a\r\n\u{1b}[2J{long}"), &long)),
        )
        .outcome
        {
            Ok(NbiAnswer::Results { rows, .. }) => {
                assert!(
                    rows[0].message.starts_with("a   [2Jx"),
                    "{}",
                    rows[0].message
                );
                assert_eq!(rows[0].message.chars().count(), ResultRow::MESSAGE_MAX);
                let description = rows[0].rule_description.clone().unwrap_or_default();
                assert_eq!(description.chars().count(), ResultRow::DESCRIPTION_MAX);
            }
            other => panic!("{other:?}"),
        }
    }
}
