//! An answer that was understood, and which of two is to be believed.

use super::names::Found;
use crate::job::{NbiAnswer, NbiFailure};

/// An answer that was understood.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) answer: NbiAnswer,
    pub(super) filter_ignored: bool,
}

impl Reply {
    /// What a read showed of the name that it was asked under; `None` for answers without rows.
    pub(super) fn found(&self) -> Option<Found> {
        let is_empty = self.rows()? == 0;
        Some(match (self.filter_ignored, is_empty) {
            (true, _) => Found::Others,
            (false, true) => Found::Nothing,
            (false, false) => Found::Ours,
        })
    }

    /// How many rows of ours it brought; `None` for answers without rows.
    fn rows(&self) -> Option<usize> {
        match &self.answer {
            NbiAnswer::Results { rows, .. } => Some(rows.len()),
            NbiAnswer::Rules { rows, .. } => Some(rows.len()),
            NbiAnswer::RuleList(_)
            | NbiAnswer::RulesUnreadable
            | NbiAnswer::Done
            | NbiAnswer::NoSuchRule
            | NbiAnswer::RuleExists
            | NbiAnswer::Version(_) => None,
        }
    }

    /// Whether it brought rows of ours.
    fn has_rows(&self) -> bool {
        self.rows().is_some_and(|rows| rows > 0)
    }
}

/// Of two reads of the same under different names: the one that can be acted on.
///
/// Rows of ours under the second name count if they came alone or if the first brought none. A trouble that passes under the
/// second name is reported rather than taken for "no rows", as the first name may be the wrong one, and a rule that is taken for absent
/// is armed; so are an answer that nobody can read, until `names.rs` gives the name up, and rules that may not be read. A second name that the
/// NBI does not take says nothing.
pub(super) fn better(
    first: Result<Reply, NbiFailure>,
    second: Result<Reply, NbiFailure>,
) -> Result<Reply, NbiFailure> {
    let first = match first {
        Ok(reply) => reply,
        Err(failure) => {
            return second.map_err(|second| match second {
                NbiFailure::Rejected { .. } | NbiFailure::Unintelligible { .. } => failure,
                NbiFailure::Transient { .. }
                | NbiFailure::Refused { .. }
                | NbiFailure::NotSent { .. } => second,
            });
        }
    };
    match second {
        Ok(second) if second.has_rows() && (!first.has_rows() || !second.filter_ignored) => {
            Ok(second)
        }
        Ok(second) if second.answer == NbiAnswer::RulesUnreadable && !first.has_rows() => {
            Ok(second)
        }
        Ok(_) | Err(NbiFailure::Rejected { .. }) => Ok(first),
        Err(_) if first.has_rows() => Ok(first),
        Err(failure) => Err(failure),
    }
}
