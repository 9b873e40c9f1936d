//! What a check found: how it is, and what to do where it should be otherwise.

use console::Style;
use serde_json::json;

use super::output::{self, Format};

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ok,
    Advice,
    Failed,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Advice => "advice",
            Self::Failed => "failed",
        }
    }

    fn mark(self) -> (&'static str, Style) {
        match self {
            Self::Ok => ("ok", Style::new().green()),
            Self::Advice => ("note", Style::new().yellow()),
            Self::Failed => ("FAIL", Style::new().red().bold()),
        }
    }
}

/// What a check found.
#[derive(Debug)]
pub(super) struct Finding {
    what: String,
    pub(super) state: State,
    text: String,
    remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(what: &str, text: impl Into<String>) -> Self {
        Self {
            what: what.to_owned(),
            state: State::Ok,
            text: text.into(),
            remedy: None,
        }
    }

    pub(super) fn advice(what: &str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            state: State::Advice,
            remedy: Some(remedy.into()),
            ..Self::ok(what, text)
        }
    }

    pub(super) fn failed(what: &str, text: impl Into<String>, remedy: Option<&str>) -> Self {
        Self {
            state: State::Failed,
            remedy: remedy.map(str::to_owned),
            ..Self::ok(what, text)
        }
    }

    pub(super) fn print(&self, format: Format) {
        if format == Format::Json {
            let line = json!({"check": self.what, "ok": self.state != State::Failed, "state": self.state.name(),
                "text": self.text, "remedy": self.remedy});
            return output::line(&line.to_string());
        }
        let (mark, style) = self.state.mark();
        let text = output::wrapped(&format!("{}: {}", self.what, self.text), INDENT);
        output::line(&format!("{}  {text}", style.apply_to(format!("{mark:<4}"))));
        if let Some(remedy) = &self.remedy {
            let text = output::wrapped(&format!("→ {remedy}"), INDENT + 2);
            output::line(&format!("{:INDENT$}{text}", ""));
        }
    }
}

/// Width of the mark and what is between.
const INDENT: usize = 6;
