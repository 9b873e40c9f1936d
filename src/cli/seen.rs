//! An event as the history has it, for `watch` and `status`: read leniently, as events of other releases are in there too.

use jiff::Timestamp;
use serde_json::Value;

use console::Style;

/// An event.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// The whole.
    pub(super) event: Value,
}

impl Seen {
    /// `None` where it is no event.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let event: Value = serde_json::from_slice(body).ok()?;
        (event["type"].is_string() && event["data"].is_object()).then_some(Self { event })
    }

    /// Its id: a repeat has the same.
    pub(super) fn id(&self) -> &str {
        self.event["id"].as_str().unwrap_or_default()
    }

    /// `accepted`, `failed`, `campaign.paused`.
    pub(super) fn kind(&self) -> &str {
        let kind = self.event["type"].as_str().unwrap_or_default();
        kind.strip_prefix("upgrade.").unwrap_or(kind)
    }

    /// When it happened.
    pub(super) fn time(&self) -> Option<Timestamp> {
        self.event["time"].as_str()?.parse().ok()
    }

    /// A text of its data.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.event["data"][name].as_str()
    }

    /// Whether it is the last word about a job.
    pub(super) fn is_final(&self) -> bool {
        self.text("outcome").is_some()
    }

    /// `completed/upgraded`, or the kind where it is no outcome.
    pub(super) fn word(&self) -> String {
        match (
            self.text("outcome"),
            self.text("reason"),
            self.text("stage"),
        ) {
            (Some(outcome), Some(reason), _) => format!("{outcome}/{reason}"),
            (_, _, Some(stage)) => format!("{} {stage}", self.kind()),
            _ => self.kind().to_owned(),
        }
    }

    /// What it says besides, for one line: its message, each fault of what was refused, the counts of a campaign.
    pub(super) fn told(&self) -> String {
        let data = &self.event["data"];
        let errors = data["errors"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let errors = errors.iter().filter_map(|error| {
            let (field, message) = (error["field"].as_str()?, error["message"].as_str()?);
            Some(format!("{field}: {message}"))
        });
        let errors = errors.collect::<Vec<_>>().join("; ");
        let counts = ["waiting", "in_flight", "completed", "failed", "cancelled"].map(|name| {
            let count = data["counts"][name].as_u64().filter(|count| *count > 0)?;
            Some(format!("{count} {}", name.replace('_', " ")))
        });
        let counts = counts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let message = self.text("message").unwrap_or_default().to_owned();
        let parts = [message, errors, counts]
            .into_iter()
            .filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("; ")
    }

    /// How its word looks.
    pub(super) fn style(&self) -> Style {
        match self.text("outcome") {
            Some("completed") => Style::new().green(),
            Some("cancelled") => Style::new().yellow(),
            Some(_) => Style::new().red(),
            None => Style::new().dim(),
        }
    }
}

/// A time for a line: month, day and time of day in UTC.
pub(super) fn short_time(time: Option<Timestamp>) -> String {
    time.map_or_else(
        || "-".to_owned(),
        |time| time.strftime("%m-%d %H:%M:%S").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(data: &Value) -> String {
        let event = json!({"type": "upgrade.any", "data": data});
        Seen::parse(event.to_string().as_bytes()).unwrap().told()
    }

    #[test]
    fn an_event_tells_why_and_how_many() {
        let errors = json!([{"field": "cpe_id", "message": "is missing"}, {"field": "force", "message": "must be true or false"}]);
        assert_eq!(
            told(&json!({"errors": errors})),
            "cpe_id: is missing; force: must be true or false"
        );
        assert_eq!(
            told(
                &json!({"message": "the order is not valid", "errors": [{"field": "all", "message": "x"}]})
            ),
            "the order is not valid; all: x"
        );
        let counts =
            json!({"waiting": 3, "in_flight": 2, "completed": 0, "failed": 1, "released": 3});
        assert_eq!(
            told(&json!({"counts": counts})),
            "3 waiting, 2 in flight, 1 failed"
        );
        assert_eq!(told(&json!({})), "");
    }
}
