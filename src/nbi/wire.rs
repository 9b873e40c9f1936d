//! The vendor's requests and rows, field for field (source of each shape: the vendor's page "Firmware Upgrade via NBI",
//! documented, unless a comment says otherwise).
//! [`Request::of`] turns a call of the core into bytes; the row types take what comes back apart. What an answer *means* is
//! decided in `answer.rs`.
//! Reading is tolerant where nothing is lost by it: unknown fields, nulls, missing fields and numbers written as strings are
//! taken; whether a row is good enough to be believed is `answer.rs`'s decision.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;

use super::json::{Json, integer, seconds};
use super::listing::page;
use crate::job::{NbiCall, RuleSpec, fault};

/// The storage of upgrade rules. The last segment goes out literally as `.*` (documented in every example).
pub const RULES: &str = "/v1/dyn/FirmwareStorage/.*";
/// The storage of what devices reported.
pub const RESULTS: &str = "/v1/dyn/FirmwareResultStorage/.*";
/// Wakes a device.
pub const SEND_CNR: &str = "/v1/method/SendCNR";

/// The verb of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Read.
    Get,
    /// Create, or call a method.
    Post,
    /// Update.
    Put,
    /// Delete.
    Delete,
}

/// One request as it goes over the wire, without host and credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The verb.
    pub verb: Verb,
    /// The path below the NBI's base URL, e.g. `/v1/dyn/FirmwareStorage/.*`; the last segment literally `.*`.
    pub path: &'static str,
    /// The query parameters, names and values, not yet percent-encoded.
    pub query: Vec<(String, String)>,
    /// The JSON body.
    pub body: Option<Vec<u8>>,
    /// The operation, for logs and metrics.
    pub operation: &'static str,
    /// The longest it may take, where that differs from the transport's own limit.
    pub timeout: Option<Duration>,
}

/// What a call does not say by itself: names that depend on the installation.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// The query parameter that selects rows of the storage that the call is about.
    pub query: &'a str,
    /// The path that reads parameters of a device.
    pub version_path: &'static str,
    /// The parameters that hold the software version, one per data model.
    pub version_parameters: &'a [String],
}

impl Request {
    /// The request for a call.
    #[must_use]
    pub fn of(call: &NbiCall, names: &Names<'_>) -> Self {
        let filter = |value: &str| vec![(names.query.to_owned(), value.to_owned())];
        let (verb, path, query, body) = match call {
            NbiCall::ReadResults { rule_id, .. } => {
                (Verb::Get, RESULTS, filter(rule_id.as_str()), None)
            }
            NbiCall::ReadRule { rule_id, .. } => (Verb::Get, RULES, filter(rule_id.as_str()), None),
            NbiCall::ListRules { offset, limit } => (Verb::Get, RULES, page(*offset, *limit), None),
            NbiCall::CreateRule(spec) => (
                Verb::Post,
                RULES,
                Vec::new(),
                Some(json(&RuleBody::armed(spec))),
            ),
            NbiCall::UpdateRule(spec) => (
                Verb::Put,
                RULES,
                filter(spec.rule_id.as_str()),
                Some(json(&RuleBody::armed(spec))),
            ),
            NbiCall::DisarmRule { rule_id } => {
                let body = DisarmBody {
                    id: rule_id.as_str(),
                    enabled: false,
                    automatic: false,
                };
                (
                    Verb::Put,
                    RULES,
                    filter(rule_id.as_str()),
                    Some(json(&body)),
                )
            }
            NbiCall::DeleteRule { rule_id } => {
                (Verb::Delete, RULES, filter(rule_id.as_str()), None)
            }
            NbiCall::SendConnectionRequest { cpe_id } => {
                let body = CnrBody {
                    search_options: SearchOptions {
                        cpe_id: cpe_id.as_str(),
                    },
                };
                (Verb::Post, SEND_CNR, Vec::new(), Some(json(&body)))
            }
            NbiCall::ReadVersion { cpe_id } => {
                let search_options = SearchOptions {
                    cpe_id: cpe_id.as_str(),
                };
                let body = VersionBody {
                    search_options,
                    parameters: names.version_parameters,
                };
                (
                    Verb::Post,
                    names.version_path,
                    Vec::new(),
                    Some(json(&body)),
                )
            }
        };
        Self {
            verb,
            path,
            query,
            body,
            operation: call.operation(),
            timeout: None,
        }
    }

    /// Whether the request could hit rows that nobody asked for: a selecting verb whose filter has no name or no value.
    ///
    /// What the NBI does with an empty filter is unknown; it might take every row (inferred).
    #[must_use]
    pub fn is_unfiltered(&self) -> bool {
        let selects = match self.verb {
            Verb::Get | Verb::Put | Verb::Delete => true,
            Verb::Post => false,
        };
        let is_whole = |(name, value): &(String, String)| !name.is_empty() && !value.is_empty();
        let filtered = !self.query.is_empty() && self.query.iter().all(is_whole);
        selects && !filtered
    }
}

/// Serialises a body of ours.
fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("structs of strings, numbers and booleans always serialise")
}

/// A rule as POST and the full PUT carry it, in the order of the vendor's example.
#[derive(Debug, Serialize)]
struct RuleBody<'a> {
    id: &'a str,
    enabled: bool,
    automatic: bool,
    file: &'a str,
    condition: Condition<'a>,
    executions: u32,
    priority: u32,
    author: &'static str,
    /// Not in the vendor's request; results carry a `rule_description` (inferred that this is where it comes from), so it is
    /// sent only where rules are tagged. Taken away by `nbi.tag_rules = false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
}

impl<'a> RuleBody<'a> {
    fn armed(spec: &'a RuleSpec) -> Self {
        Self {
            id: spec.rule_id.as_str(),
            enabled: true,
            automatic: true,
            file: spec.firmware_url.as_str(),
            condition: Condition {
                cpeid: spec.cpe_id.as_str(),
            },
            executions: spec.executions,
            priority: spec.priority,
            author: "api",
            description: spec.description.as_deref(),
        }
    }
}

/// Which devices a rule is for.
#[derive(Debug, Serialize)]
struct Condition<'a> {
    cpeid: &'a str,
}

/// The vendor's deactivation.
#[derive(Debug, Serialize)]
struct DisarmBody<'a> {
    id: &'a str,
    enabled: bool,
    automatic: bool,
}

/// The vendor's connection request.
#[derive(Debug, Serialize)]
struct CnrBody<'a> {
    search_options: SearchOptions<'a>,
}

/// Which device a method is for; `cpe_id` here, `cpeid` elsewhere (documented).
#[derive(Debug, Serialize)]
struct SearchOptions<'a> {
    cpe_id: &'a str,
}

/// Reading parameters: inferred by analogy with `SendCNR`; a wrong guess shows as a failed `verify`, which is off by default.
#[derive(Debug, Serialize)]
struct VersionBody<'a> {
    search_options: SearchOptions<'a>,
    parameters: &'a [String],
}

/// A row of the result storage as it stands in `details`. What is read borrows from the answer: most rows are looked at and let go.
///
/// `status` is not read: it is `true` in the vendor's example of a failure, so it says nothing about success.
#[derive(Debug, Default)]
pub(crate) struct ResultWire<'a> {
    /// The row's own id, a UUID in the example.
    pub(crate) id: Option<Cow<'a, str>>,
    /// Unix seconds (inferred); milliseconds and finer are cut to seconds.
    pub(crate) ts: Option<i64>,
    /// The device.
    pub(crate) cpeid: Option<Cow<'a, str>>,
    /// The rule's id (inferred from the example).
    pub(crate) campaignid: Option<Cow<'a, str>>,
    /// The rule's description.
    pub(crate) rule_description: Option<Cow<'a, str>>,
    /// What the device reported.
    pub(crate) result: StatusWire<'a>,
}

impl<'a> ResultWire<'a> {
    /// Whether it may be final. A row with a code of trouble, or none, and without a fault is not: the upgrade is under way, as far as it says
    /// anything, and what is missing may come.
    pub(crate) fn may_be_final(&self) -> bool {
        let message = self.result.message.as_deref().unwrap_or_default();
        let code = self.result.code;
        fault::code_in(message).is_some() || code.is_some_and(|code| !(500..=599).contains(&code))
    }

    /// Reads a row; anything that is not an object is taken as empty.
    pub(crate) fn read(row: &'a Json<'a>) -> Self {
        Self {
            id: text(row.field("id")),
            ts: integer(row.field("ts")).map(seconds),
            cpeid: text(row.field("cpeid")),
            campaignid: text(row.field("campaignid")),
            rule_description: text(row.field("rule_description")),
            result: StatusWire::read(row.field("result")),
        }
    }
}

/// A row of the rule storage as it stands in `details`.
#[derive(Debug, Default)]
pub(crate) struct RuleWire<'a> {
    /// The rule's id.
    pub(crate) id: Option<Cow<'a, str>>,
    /// Whether it is enabled.
    pub(crate) enabled: Option<bool>,
    /// Whether it fires by itself.
    pub(crate) automatic: Option<bool>,
    /// Its file; blank is none, as a storage may keep what a PUT left out as an empty text.
    pub(crate) file: Option<Cow<'a, str>>,
    /// Its description.
    pub(crate) description: Option<Cow<'a, str>>,
}

impl<'a> RuleWire<'a> {
    /// Reads a row; anything that is not an object is taken as empty.
    pub(crate) fn read(row: &'a Json<'a>) -> Self {
        Self {
            id: text(row.field("id")),
            enabled: boolean(row.field("enabled")),
            automatic: boolean(row.field("automatic")),
            file: text(row.field("file")).filter(|file| !file.trim().is_empty()),
            description: text(row.field("description")),
        }
    }
}

/// `{code, message}`: the head of a storage's answer, the `result` of a method's answer and of a result row.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct StatusWire<'a> {
    /// The code.
    pub(crate) code: Option<i64>,
    /// The message.
    pub(crate) message: Option<Cow<'a, str>>,
}

impl<'a> StatusWire<'a> {
    /// Reads it; anything that is not an object is taken as empty.
    fn read(status: &'a Json<'a>) -> Self {
        Self {
            code: integer(status.field("code")),
            message: text(status.field("message")),
        }
    }
}

/// An answer's body, taken apart as far as every answer has it.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    /// Of storages.
    pub(crate) code: Option<i64>,
    /// Of storages.
    pub(crate) message: Option<Cow<'a, str>>,
    /// Of methods.
    pub(crate) result: StatusWire<'a>,
    /// Rows, one row, `""`, or nothing.
    pub(crate) details: &'a Json<'a>,
}

impl<'a> Envelope<'a> {
    /// Reads a body: `None` unless it is a JSON object that carries at least one code.
    pub(crate) fn read(body: &'a Json<'a>) -> Option<Self> {
        let StatusWire { code, message } = StatusWire::read(body);
        let envelope = Self {
            code,
            message,
            result: StatusWire::read(body.field("result")),
            details: body.field("details"),
        };
        (envelope.code.is_some() || envelope.result.code.is_some()).then_some(envelope)
    }

    /// What the NBI says about the answer, if it says anything.
    pub(crate) fn said(&self) -> Option<&str> {
        self.result.message.as_deref().or(self.message.as_deref())
    }

    /// The rows in `details`: an array on a hit, `""` on none (documented); null, missing and a single object are taken too
    /// (inferred). `None` when it is something else.
    pub(crate) fn rows(&self) -> Option<&'a [Json<'a>]> {
        match self.details {
            Json::Array(rows) => Some(rows),
            Json::Object(_) => Some(std::slice::from_ref(self.details)),
            Json::Null => Some(&[]),
            Json::String(text) if text.trim().is_empty() => Some(&[]),
            Json::String(_) | Json::Bool(_) | Json::Number(_) => None,
        }
    }
}

/// Text; a number is taken as its digits, anything else as missing.
pub(super) fn text<'a>(value: &'a Json<'a>) -> Option<Cow<'a, str>> {
    match value {
        Json::String(text) => Some(Cow::Borrowed(text)),
        Json::Number(number) => Some(number.to_string().into()),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

/// A boolean; `"true"`, `"false"`, 1 and 0 are taken, anything else is missing.
fn boolean(value: &Json<'_>) -> Option<bool> {
    match value {
        Json::Bool(truth) => Some(*truth),
        Json::Number(number) => match number.as_i64() {
            Some(1) => Some(true),
            Some(0) => Some(false),
            Some(_) | None => None,
        },
        Json::String(text) => match text.trim() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::job::{CpeId, FirmwareUrl, Purpose, RuleId};

    fn rule_id() -> RuleId {
        RuleId::parse("UPGRADE_x").unwrap()
    }

    fn cpe_id() -> CpeId {
        CpeId::parse("x").unwrap()
    }

    fn spec(description: Option<&str>) -> RuleSpec {
        RuleSpec {
            rule_id: rule_id(),
            cpe_id: cpe_id(),
            firmware_url: FirmwareUrl::checked("http://files/fw.bin").unwrap(),
            executions: 1,
            priority: 1,
            description: description.map(str::to_owned),
        }
    }

    fn request(call: &NbiCall) -> Request {
        let parameters = ["A.Version".to_owned(), "B.Version".to_owned()];
        Request::of(
            call,
            &Names {
                query: "campaignid",
                version_path: "/v1/method/GetParameterValues",
                version_parameters: &parameters,
            },
        )
    }

    fn line(request: &Request) -> String {
        let query: String = request
            .query
            .iter()
            .map(|(name, value)| format!("?{name}={value}"))
            .collect();
        let body = String::from_utf8(request.body.clone().unwrap_or_default()).unwrap();
        format!("{:?} {}{query} {body}", request.verb, request.path)
            .trim_end()
            .to_owned()
    }

    #[test]
    fn every_request_has_the_vendors_shape() {
        const ARMED: &str = r#"{"id":"UPGRADE_x","enabled":true,"automatic":true,"file":"http://files/fw.bin","condition":{"cpeid":"x"},"executions":1,"priority":1,"author":"api"}"#;
        let rule_id = rule_id();
        let cpe_id = cpe_id();
        for (call, expected) in [
            (
                NbiCall::ReadResults { rule_id: rule_id.clone(), cpe_id: cpe_id.clone(), purpose: Purpose::Look },
                "Get /v1/dyn/FirmwareResultStorage/.*?campaignid=UPGRADE_x".to_owned(),
            ),
            (
                NbiCall::ReadRule { rule_id: rule_id.clone(), purpose: Purpose::Look },
                "Get /v1/dyn/FirmwareStorage/.*?campaignid=UPGRADE_x".to_owned(),
            ),
            (NbiCall::CreateRule(spec(None)), format!("Post /v1/dyn/FirmwareStorage/.* {ARMED}")),
            (
                NbiCall::UpdateRule(spec(None)),
                format!("Put /v1/dyn/FirmwareStorage/.*?campaignid=UPGRADE_x {ARMED}"),
            ),
            (
                NbiCall::DisarmRule { rule_id: rule_id.clone() },
                "Put /v1/dyn/FirmwareStorage/.*?campaignid=UPGRADE_x {\"id\":\"UPGRADE_x\",\"enabled\":false,\"automatic\":false}"
                    .to_owned(),
            ),
            (
                NbiCall::DeleteRule { rule_id },
                "Delete /v1/dyn/FirmwareStorage/.*?campaignid=UPGRADE_x".to_owned(),
            ),
            (
                NbiCall::SendConnectionRequest { cpe_id: cpe_id.clone() },
                r#"Post /v1/method/SendCNR {"search_options":{"cpe_id":"x"}}"#.to_owned(),
            ),
            (
                NbiCall::ReadVersion { cpe_id },
                r#"Post /v1/method/GetParameterValues {"search_options":{"cpe_id":"x"},"parameters":["A.Version","B.Version"]}"#
                    .to_owned(),
            ),
        ] {
            let request = request(&call);
            assert_eq!(line(&request), expected);
            assert_eq!(request.operation, call.operation());
            assert!(!request.is_unfiltered());
        }
    }

    #[test]
    fn a_description_is_sent_only_where_there_is_one() {
        let request = request(&NbiCall::CreateRule(spec(Some("job 7"))));
        let body = String::from_utf8(request.body.unwrap()).unwrap();
        assert!(
            body.ends_with(r#""author":"api","description":"job 7"}"#),
            "{body}"
        );
    }

    #[test]
    fn the_create_request_of_the_vendors_page_is_ours() {
        let theirs: Value = serde_json::from_str(include_str!(
            "../../tests/fixtures/nbi/create_rule.request.json"
        ))
        .unwrap();
        let mut spec = spec(None);
        spec.firmware_url = FirmwareUrl::checked("<target file URL>").unwrap();
        let ours = String::from_utf8(request(&NbiCall::CreateRule(spec)).body.unwrap()).unwrap();
        let ours: Value = serde_json::from_str(
            &ours
                .replace("UPGRADE_x", "UPGRADE_<cpeid>")
                .replace("\"x\"", "\"<cpeid>\""),
        )
        .unwrap();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn a_write_without_a_filter_is_noticed() {
        let mut request = request(&NbiCall::DeleteRule { rule_id: rule_id() });
        for (query, unfiltered) in [
            (vec![], true),
            (vec![(String::new(), "UPGRADE_x".to_owned())], true),
            (vec![("id".to_owned(), String::new())], true),
            (vec![("id".to_owned(), "UPGRADE_x".to_owned())], false),
        ] {
            request.query = query;
            assert_eq!(request.is_unfiltered(), unfiltered, "{:?}", request.query);
        }
    }

    #[test]
    fn rows_are_read_tolerantly() {
        fn json(text: &str) -> Json<'_> {
            serde_json::from_str(text).unwrap()
        }
        let row = json(
            r#"{"id":7,"ts":"1743412508","cpeid":null,"result":{"code":"500","message":null},"more":[1]}"#,
        );
        let row = ResultWire::read(&row);
        assert_eq!(row.id.as_deref(), Some("7"));
        assert_eq!(row.ts, Some(1_743_412_508));
        for fine in [
            "1743412508000",
            "1743412508999.5",
            "1743412508123456",
            "1743412508123456789",
        ] {
            let text = format!(r#"{{"ts":{fine}}}"#);
            let row = json(&text);
            assert_eq!(ResultWire::read(&row).ts, Some(1_743_412_508), "{fine}");
        }
        assert_eq!(row.cpeid, None);
        assert_eq!(row.campaignid, None);
        assert_eq!(
            row.result,
            StatusWire {
                code: Some(500),
                message: None
            }
        );

        let row = json(r#"{"ts":1743412508.7,"result":"none"}"#);
        let row = ResultWire::read(&row);
        assert_eq!(row.ts, Some(1_743_412_508));
        assert_eq!(row.result, StatusWire::default());

        let rule = json(r#"{"id":"a","enabled":"true","automatic":0}"#);
        let rule = RuleWire::read(&rule);
        assert_eq!((rule.enabled, rule.automatic), (Some(true), Some(false)));
        let list = json(r#"["a",true]"#);
        assert!(RuleWire::read(&list).id.is_none());
    }

    #[test]
    fn details_may_be_an_array_one_object_or_nothing() {
        for (body, rows) in [
            (r#"{"code":200,"details":[{},{}]}"#, Some(2)),
            (r#"{"code":200,"details":{}}"#, Some(1)),
            (r#"{"code":404,"details":""}"#, Some(0)),
            (r#"{"code":404,"details":null}"#, Some(0)),
            (r#"{"code":404}"#, Some(0)),
            (r#"{"code":200,"details":"rows"}"#, None),
            (r#"{"code":200,"details":7}"#, None),
        ] {
            let json = serde_json::from_str(body).unwrap();
            let envelope = Envelope::read(&json).unwrap();
            assert_eq!(envelope.rows().map(<[Json<'_>]>::len), rows, "{body}");
        }
    }

    #[test]
    fn only_an_object_with_a_code_is_an_envelope() {
        for (body, is_one) in [
            (r#"{"code":204}"#, true),
            (r#"{"code":"204"}"#, true),
            (r#"{"result":{"code":200}}"#, true),
            (r#"{"code":null}"#, false),
            (r#"{"error":"not found"}"#, false),
            (r#"{"result":"OK"}"#, false),
            ("[]", false),
            ("\"\"", false),
        ] {
            assert_eq!(
                Envelope::read(&serde_json::from_str(body).unwrap()).is_some(),
                is_one,
                "{body}"
            );
        }
    }
}
