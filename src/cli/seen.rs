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
