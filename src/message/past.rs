//! What the history tells about jobs whose rule may still be armed: read leniently, as events of other releases are in there too.

use jiff::Timestamp;
use serde::Deserialize;

/// What an event of the history says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// About a job.
    Job(ToldJob),
    /// About a campaign.
    Campaign {
        /// Which.
        campaign_id: String,
        /// Whether every device of it has its outcome.
        is_over: bool,
    },
}

/// What an event says about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldJob {
    /// Which.
    pub job_id: String,
    /// Its device.
    pub cpe_id: String,
    /// Its file.
    pub firmware_url: String,
    /// Its campaign.
    pub campaign_id: Option<String>,
    /// When that happened.
    pub at: Timestamp,
    /// What happened.
    pub what: What,
}

/// What happened to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A worker has it.
    Accepted {
        /// It ends then at the latest; older releases did not say.
        deadline: Option<Timestamp>,
    },
    /// It is over.
    Over {
        /// The id of its rule.
        rule_id: Option<String>,
        /// What became of the rule, as in the event.
        rule_state: Option<String>,
    },
    /// It goes on.
    Other,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    time: Timestamp,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    job_id: Option<String>,
    #[serde(default)]
    cpe_id: Option<String>,
    #[serde(default)]
    firmware_url: Option<String>,
    #[serde(default)]
    campaign_id: Option<String>,
    #[serde(default)]
    deadline: Option<Timestamp>,
    #[serde(default)]
    outcome: Option<String>,
    #[serde(default)]
    rule: Option<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    state: Option<String>,
}

/// Reads an event; `None` for one that says nothing of a job that was accepted or of a campaign.
#[must_use]
pub fn read(body: &[u8]) -> Option<Told> {
    let Event { kind, time, data } = serde_json::from_slice(body).ok()?;
    if kind.starts_with("upgrade.campaign.") {
        return Some(Told::Campaign {
            campaign_id: data.campaign_id?,
            is_over: matches!(
                kind.as_str(),
                "upgrade.campaign.completed" | "upgrade.campaign.cancelled"
            ),
        });
    }
    // A request that was not valid has no rule, and may carry the id of a job that has one.
    if kind == "upgrade.rejected" || kind.starts_with("upgrade.control.") {
        return None;
    }
    let what = if kind == "upgrade.accepted" {
        What::Accepted {
            deadline: data.deadline,
        }
    } else if data.outcome.is_some() {
        let rule = data.rule.unwrap_or(Rule {
            id: None,
            state: None,
        });
        What::Over {
            rule_id: rule.id,
            rule_state: rule.state,
        }
    } else {
        What::Other
    };
    Some(Told::Job(ToldJob {
        job_id: data.job_id?,
        cpe_id: data.cpe_id?,
        firmware_url: data.firmware_url?,
        campaign_id: data.campaign_id,
        at: time,
        what,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_matter_are_told_apart() {
        let event = |kind: &str, more: &str| {
            let text = format!(
                r#"{{"type":"{kind}","time":"2026-11-23T12:00:00Z","data":{{"job_id":"j","cpe_id":"C","firmware_url":"f"{more}}}}}"#
            );
            read(text.as_bytes()).map(|told| match told {
                Told::Job(job) => format!("{:?}", job.what),
                Told::Campaign {
                    campaign_id,
                    is_over,
                } => format!("{campaign_id} {is_over}"),
            })
        };
        let accepted = event("upgrade.accepted", r#","deadline":"2026-11-23T13:00:00Z""#).unwrap();
        assert!(
            accepted.starts_with("Accepted { deadline: Some("),
            "{accepted}"
        );
        assert_eq!(
            event("upgrade.accepted", "").unwrap(),
            "Accepted { deadline: None }"
        );
        let over = event(
            "upgrade.failed",
            r#","outcome":"failed","rule":{"id":"R","state":"cleanup_failed"}"#,
        );
        assert!(over.unwrap().contains("Some(\"cleanup_failed\")"));
        assert_eq!(event("upgrade.progress", "").unwrap(), "Other");
        assert_eq!(event("upgrade.rejected", r#","outcome":"rejected""#), None);
        assert_eq!(event("upgrade.control.accepted", ""), None);
        let campaign = r#","campaign_id":"spring""#;
        assert_eq!(
            event("upgrade.campaign.progress", campaign).unwrap(),
            "spring false"
        );
        assert_eq!(
            event("upgrade.campaign.cancelled", campaign).unwrap(),
            "spring true"
        );
        assert_eq!(read(b"nonsense"), None);
    }
}
