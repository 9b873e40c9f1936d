//! Follows jobs to their outcomes: counts them, shows a progress bar, prints what ended otherwise than well.

use std::collections::{BTreeMap, HashSet};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::output::{self, Format, Status, plain};

/// Jobs that are followed.
pub(super) struct Follow {
    open: HashSet<String>,
    counts: BTreeMap<String, usize>,
    all_completed: bool,
    format: Format,
    say: fn(&str),
    bar: ProgressBar,
}

impl Follow {
    /// Follows these jobs.
    pub(super) fn new(job_ids: impl Iterator<Item = String>, format: Format) -> Self {
        let open: HashSet<String> = job_ids.collect();
        let bar = ProgressBar::new(u64::try_from(open.len()).unwrap_or(u64::MAX));
        if let Ok(style) =
            ProgressStyle::with_template("{elapsed_precise} [{wide_bar}] {pos}/{len} {msg}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        Self {
            open,
            counts: BTreeMap::new(),
            all_completed: true,
            format,
            say: output::line,
            bar,
        }
    }

    /// Follows these jobs where standard output belongs to the events: what is said goes to standard error.
    pub(super) fn beside_events(job_ids: impl Iterator<Item = String>) -> Self {
        Self {
            say: output::note,
            ..Self::new(job_ids, Format::Text)
        }
    }

    /// Jobs without an outcome.
    pub(super) fn unfinished(&self) -> usize {
        self.open.len()
    }

    /// A job that will have no outcome here, and why.
    pub(super) fn give_up(&mut self, job_id: &str, why: &str) {
        if self.open.remove(job_id) {
            self.all_completed = false;
            *self.counts.entry("given up".to_owned()).or_default() += 1;
            let line = plain(&format!("{job_id}  given up: {why}"));
            self.bar.suspend(|| output::note(&line));
            self.bar.inc(1);
        }
    }

    /// Whether every job has its outcome.
    pub(super) fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes an event; events of other jobs and repeats are passed over.
    pub(super) fn take(&mut self, body: &[u8]) {
        let Ok(event) = serde_json::from_slice::<Value>(body) else {
            return;
        };
        let data = &event["data"];
        let (Some(job_id), Some(outcome)) = (data["job_id"].as_str(), data["outcome"].as_str())
        else {
            return;
        };
        if !self.open.remove(job_id) {
            return;
        }
        let reason = data["reason"].as_str().unwrap_or("-");
        let ending = plain(&format!("{outcome}/{reason}"));
        *self.counts.entry(ending.clone()).or_default() += 1;
        self.all_completed &= outcome == "completed";
        match self.format {
            Format::Json => (self.say)(&event.to_string()),
            Format::Text if outcome != "completed" => {
                let text = |name: &str| data[name].as_str().unwrap_or("-").to_owned();
                let line = plain(&format!(
                    "{job_id}  {}  {ending}  impact {}  {}",
                    text("cpe_id"),
                    text("impact"),
                    text("message")
                ));
                self.bar.suspend(|| (self.say)(&line));
            }
            Format::Text => {}
        }
        self.bar.inc(1);
        self.bar.set_message(self.summary());
    }

    /// Ends the bar and prints the counts; the status says whether every job completed.
    pub(super) fn finish(self) -> Status {
        self.bar.finish_and_clear();
        let unfinished = self.open.len();
        if self.format == Format::Text {
            let rest = (unfinished > 0).then(|| format!("{unfinished} without an outcome"));
            let told = match (self.counts.is_empty(), rest) {
                (true, Some(rest)) => rest,
                (_, rest) => [Some(self.summary()), rest]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            (self.say)(&told);
        }
        if self.all_completed && unfinished == 0 {
            Status::Done
        } else {
            Status::Failed
        }
    }

    fn summary(&self) -> String {
        let counts: Vec<String> = self
            .counts
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        if counts.is_empty() {
            "no outcome".to_owned()
        } else {
            counts.join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_others_cannot_steer_the_terminal() {
        let body = serde_json::json!({"data": {"job_id": "j", "outcome": "failed\u{1b}[2J", "reason": "x\ny"}}).to_string();
        let mut follow = Follow::new(std::iter::once("j".to_owned()), Format::Text);
        follow.take(body.as_bytes());
        assert!(follow.is_done());
        assert_eq!(follow.summary(), "1 failed [2J/x y");
    }
}
