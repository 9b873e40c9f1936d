//! The schema of an order: what operators say to the exchange `<prefix>.control`.

use schemars::JsonSchema;
use serde_json::{Value, json};

use super::pattern::{campaign_id, job_id};
use super::{document, of_input};
use crate::job::{CampaignId, JobId};
use crate::message::control::{BODY_MAX, Verb};

/// Names the schema and its version.
const ID: &str = "urn:nbi-upgrade:control:v1";

/// An order of an operator: the body of a message to the exchange `<prefix>.control` (content type `application/json`). At most 4 KiB. It is
/// about one job, one campaign, or everything: `cancel` takes `job_id` or `campaign_id`, `pause` and `resume` take `campaign_id` or
/// `all`. An optional field may be null, which counts as absent.
#[derive(JsonSchema)]
#[schemars(title = "Order", deny_unknown_fields, extend("examples" = examples(), "if" = is_cancel(), "then" = of_cancel(), "else" = of_pause(), "allOf" = [of_resume_alone(), over_needs_after()]))]
#[expect(dead_code, reason = "only its shape is used")]
struct Order {
    /// `cancel` ends jobs and disarms their rules; `pause` arms nothing and disarms what is armed; `resume` ends a pause of the same scope.
    #[schemars(extend("enum" = Verb::ALL.map(Verb::name)))]
    command: String,
    /// The job. It need not be known yet.
    #[schemars(length(min = 1, max = JobId::MAX), extend("pattern" = job_id()))]
    job_id: Option<String>,
    /// The campaign: all its jobs, also those to come.
    #[schemars(length(min = 1, max = CampaignId::MAX), extend("pattern" = campaign_id()))]
    campaign_id: Option<String>,
    /// True: everything.
    all: Option<bool>,
    /// Of a `resume`: so long after it rules that the pause disarmed are armed again, where there is no result by then; 1s to 1d, like
    /// `30m`.
    arm_again_after: Option<String>,
    /// Beside `arm_again_after`: they are armed again spread evenly over so long from then on, so that not all devices come at once; 1s to
    /// 1d. Absent: all at once.
    arm_again_over: Option<String>,
}

const _: () = assert!(BODY_MAX == 4 * 1024, "the description above says it");

/// The schema of an order.
#[must_use]
pub fn control() -> Value {
    document(ID, of_input::<Order>())
}

fn is_cancel() -> Value {
    json!({"properties": {"command": {"const": Verb::Cancel.name()}}})
}

fn of_cancel() -> Value {
    json!({"properties": {"all": {"enum": [false, null]}}, "oneOf": [text("job_id"), text("campaign_id")]})
}

fn of_pause() -> Value {
    let everything = json!({"required": ["all"], "properties": {"all": {"const": true}}});
    json!({"properties": {"job_id": {"type": "null"}}, "oneOf": [text("campaign_id"), everything]})
}

/// Only a resume says when to arm again.
fn of_resume_alone() -> Value {
    let says = text("arm_again_after");
    json!({"if": says, "then": {"properties": {"command": {"const": Verb::Resume.name()}}}})
}

/// What is spread must be there.
fn over_needs_after() -> Value {
    json!({"if": text("arm_again_over"), "then": text("arm_again_after")})
}

/// The field is there.
fn text(field: &str) -> Value {
    json!({"required": [field], "properties": {field: {"type": "string"}}})
}

fn examples() -> Value {
    json!([
        {"command": "cancel", "job_id": "order-4711"},
        {"command": "pause", "campaign_id": "spring-26"},
        {"command": "resume", "all": true},
        {"command": "resume", "campaign_id": "spring-26", "arm_again_after": "30m"},
        {"command": "resume", "campaign_id": "spring-26", "arm_again_after": "30m", "arm_again_over": "2h"},
    ])
}
