//! What a message names, whatever its state: for people who look at messages that nobody can read.
//!
//! Lenient where `request.rs` and `step.rs` are strict: a field that is missing or odd is simply not named. Nothing is decided by it.

use serde_json::Value;

/// The longest name that is repeated, in bytes; longer ones are none.
const NAME_MAX: usize = 128;

/// The names in a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// The job.
    pub job_id: Option<String>,
    /// The device.
    pub cpe_id: Option<String>,
    /// The campaign.
    pub campaign_id: Option<String>,
}

impl Named {
    /// The names in this body: a request, a request inside a CloudEvent, an event, or a continuation.
    #[must_use]
    pub fn in_body(body: &[u8]) -> Self {
        let Ok(message) = serde_json::from_slice::<Value>(body) else {
            return Self::default();
        };
        let name = |field: &str| {
            [&message, &message["data"], &message["order"]]
                .into_iter()
                .find_map(|place| place[field].as_str())
                .filter(|text| text.len() <= NAME_MAX)
                .map(str::to_owned)
        };
        Self {
            job_id: name("job_id"),
            cpe_id: name("cpe_id"),
            campaign_id: name("campaign_id"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_every_kind_of_message() {
        let named = |job: Option<&str>, device: Option<&str>| Named {
            job_id: job.map(str::to_owned),
            cpe_id: device.map(str::to_owned),
            campaign_id: None,
        };
        let long = format!(r#"{{"job_id":"{}"}}"#, "x".repeat(129));
        for (body, expected) in [
            (
                r#"{"job_id":"a","cpe_id":"C1"}"#,
                named(Some("a"), Some("C1")),
            ),
            (
                r#"{"specversion":"1.0","data":{"job_id":"a"}}"#,
                named(Some("a"), None),
            ),
            (
                include_str!("../../tests/fixtures/messages/v1/step-first.json"),
                named(Some("job-1"), Some("CPE1")),
            ),
            (r#"{"job_id":7}"#, named(None, None)),
            (r#"["job_id"]"#, named(None, None)),
            (&long, named(None, None)),
            ("", named(None, None)),
        ] {
            assert_eq!(Named::in_body(body.as_bytes()), expected, "{body}");
        }
    }
}
