//! The schema of a request. Its fields are those that [`decode`](crate::message::request) takes; a test holds both together.

use schemars::JsonSchema;
use serde_json::{Value, json};

use super::pattern::{NO_CONTROL, campaign_id, cpe_id, firmware_url, job_id};
use super::{document, of_input};
use crate::job::state::Cleanup;
use crate::job::{CampaignId, CpeId, FirmwareUrl, JobId};
use crate::message::request::{
    ATTEMPTS_MAX, BODY_MAX, CONTEXT_DEPTH_MAX, CONTEXT_MAX, EXECUTIONS_MAX, PRIORITY_MAX,
    VERSION_MAX,
};
use crate::message::time::Rfc3339;

/// Names the schema and its version.
const ID: &str = "urn:nbi-upgrade:request:v1";

/// One upgrade of one device: the body of a message to the exchange `<prefix>.requests` (content type `application/json`), or the `data` of
/// a CloudEvent there (`application/cloudevents+json`). At most 64 KiB. An optional field may be null, which counts as absent.
#[derive(JsonSchema)]
#[schemars(title = "Upgrade request", deny_unknown_fields, extend("examples" = [example()]))]
#[expect(dead_code, reason = "only its shape is used")]
struct Request {
    /// The idempotency key: a job is carried out once however often it is sent. A new order needs a new one.
    #[schemars(length(min = 1, max = JobId::MAX), extend("pattern" = job_id()))]
    job_id: String,
    /// The device, as the management system names it. Printable ASCII without space and without characters that it could read as a
    /// pattern, a path or a query; at least one letter or digit.
    #[schemars(length(min = 1, max = CpeId::MAX), extend("pattern" = cpe_id(), "allOf" = [{"pattern": "[A-Za-z0-9]"}]))]
    cpe_id: String,
    /// Groups jobs. Events carry it, also in their routing key.
    #[schemars(length(min = 1, max = CampaignId::MAX), extend("pattern" = campaign_id()))]
    campaign_id: Option<String>,
    #[schemars(flatten)]
    common: Common,
}

/// What requests for one device and for many have in common.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its shape is used")]
pub(super) struct Common {
    /// Where the device loads the firmware from: an absolute http, https or ftp URL with a host, in ASCII, other characters
    /// percent-encoded. A user and password in it are refused unless `firmware.allow_credentials` is on; `firmware.allowed_url_prefixes`
    /// can narrow it.
    #[schemars(length(min = 1, max = FirmwareUrl::MAX), extend("pattern" = firmware_url()))]
    firmware_url: String,
    /// When it was asked for (RFC 3339). Set it, and keep it when you send the request again: by it the worker knows that a result is newer
    /// than the request. Absent: the message's `timestamp`, else the time at which a worker first saw it.
    requested_at: Option<Rfc3339>,
    /// Nothing is sent to the management system before it (RFC 3339).
    not_before: Option<Rfc3339>,
    /// The job ends then, whatever the device does (RFC 3339). After `not_before`. Of a campaign: nothing starts after it. Absent: `job.timeout` after the later of `requested_at` and
    /// `not_before`.
    deadline: Option<Rfc3339>,
    /// What becomes of the rule afterwards. Absent: `job.cleanup`.
    #[schemars(extend("enum" = [Cleanup::Deactivate.name(), Cleanup::Delete.name(), Cleanup::Keep.name(), null]))]
    cleanup: Option<String>,
    /// The rule's field of the same name. Absent: 1.
    #[schemars(range(min = 0, max = PRIORITY_MAX))]
    priority: Option<u32>,
    /// The rule's field of the same name. Absent: 1.
    #[schemars(range(min = 1, max = EXECUTIONS_MAX))]
    executions: Option<u32>,
    /// How often the device may try when it reports a transient fault. Absent: `job.max_attempts`.
    #[schemars(range(min = 1, max = ATTEMPTS_MAX))]
    max_attempts: Option<u32>,
    /// The version that the device must run afterwards; a device that runs it before is not touched. Refused unless `verify.enabled` is on.
    #[schemars(length(min = 1, max = VERSION_MAX), extend("pattern" = NO_CONTROL))]
    expected_version: Option<String>,
    /// Upgrade also a device that runs `expected_version`, and also if the request may be a repeat. Absent: false.
    force: Option<bool>,
    /// Anything. Returned untouched in every event of the job. At most 16 KiB, and 64 levels deep.
    context: Value,
}

const _: () = assert!(
    BODY_MAX == 64 * 1024 && CONTEXT_MAX == 16 * 1024 && CONTEXT_DEPTH_MAX == 64,
    "the descriptions above say these numbers"
);

/// The schema of a request.
#[must_use]
pub fn request() -> Value {
    document(ID, without_context_as_required(of_input::<Request>()))
}

/// A field of any kind is not optional to the generator.
pub(super) fn without_context_as_required(mut schema: Value) -> Value {
    if let Some(required) = schema["required"].as_array_mut() {
        required.retain(|name| name != "context");
    }
    schema
}

fn example() -> Value {
    json!({
        "job_id": "order-4711",
        "cpe_id": "001122-ABC",
        "firmware_url": "https://files.example.com/fw-2.bin",
        "requested_at": "2026-06-01T02:07:15Z",
        "max_attempts": 2,
        "context": {"ticket": 4711},
    })
}
