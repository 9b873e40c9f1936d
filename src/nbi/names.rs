//! Under which query parameter a storage finds our rows: `id` or `campaignid`.
//!
//! The vendor's page contradicts itself about them: it reads results by `id`, though their `id` is a UUID, and writes rules by
//! `campaignid`, though a rule's key is `id` (documented, both; which is right is unknown). So the configured name is tried first
//! and the other one where the first finds nothing, until a read has found a row of ours under one of them; from then on that
//! name is used for reads and writes of the storage.
//!
//! A name under which rows of *others* came back is no filter: nothing is learnt from it, and no write falls back to it, as it
//! could hit every row. A name under which the NBI rejects a read, or nobody can read the answer, may be one that the NBI does not know, or a
//! proxy's trouble of this moment: it is asked again before it counts as not known, and a rejected one again after some time. No I/O here;
//! `client.rs` does the asking.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The two names that the vendor's page uses.
const DOCUMENTED: [&str; 2] = ["id", "campaignid"];

/// One of the two names of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// The configured one.
    Configured,
    /// The other of the documented two.
    Other,
}

impl Name {
    fn other(self) -> Self {
        match self {
            Self::Configured => Self::Other,
            Self::Other => Self::Configured,
        }
    }
}

/// What a read under a name showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Rows of ours and no others.
    Ours,
    /// No row.
    Nothing,
    /// Rows of others, perhaps ours among them.
    Others,
    /// The NBI does not take this name.
    Rejected,
    /// An answer that nobody can read.
    Garbled,
}

/// So many answers that nobody can read, none that somebody can, and for so long: the NBI does not know the name. Until then a rule that
/// may stand under it is not taken for absent.
const GARBLED_MAX: u32 = 10;
/// A proxy's bad moment is over by then, and it would hardly spare the first name.
const GARBLED_FOR: Duration = Duration::from_secs(600);

/// Rejected so often, and nothing else in between: the NBI does not take the name, as far as anybody can tell.
const REJECTED_MAX: u32 = 2;
/// For so long since the last time, as a proxy may have rejected it: a rule that stands under the name must not be taken for absent for good.
const REJECTED_FOR: Duration = Duration::from_secs(600);

/// The names of one storage and what is known of them.
#[derive(Debug)]
pub(crate) struct QueryNames {
    /// The configuration key, for people.
    pub(crate) key: &'static str,
    configured: String,
    other: Option<&'static str>,
    known: Mutex<Known>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Known {
    learnt: Option<Name>,
    /// The last thing that a read under the other name showed.
    other: Option<Found>,
    /// Whether a read under the other name ever brought rows of others.
    other_is_no_filter: bool,
    /// How many answers under the other name nobody could read.
    other_garbled: u32,
    /// Since when.
    garbled_since: Option<Instant>,
    /// Whether an answer under the other name could ever be read.
    other_is_known: bool,
    /// How often in a row the other name was rejected.
    other_rejected: u32,
    /// When it was last.
    rejected_at: Option<Instant>,
}

impl Known {
    /// Whether the other name counts as one that the NBI does not take.
    fn is_other_rejected(&self) -> bool {
        self.other_rejected >= REJECTED_MAX
            && self
                .rejected_at
                .is_some_and(|last| last.elapsed() < REJECTED_FOR)
    }

    /// Whether so many answers under the other name could not be read, and none could, that the NBI does not know it.
    fn is_other_garbled(&self) -> bool {
        !self.other_is_known
            && self.other_garbled >= GARBLED_MAX
            && self
                .garbled_since
                .is_some_and(|since| since.elapsed() >= GARBLED_FOR)
    }
}

impl QueryNames {
    /// The names of a storage; a configured name that is neither of the documented two has no other.
    pub(crate) fn new(key: &'static str, configured: &str) -> Self {
        let other = DOCUMENTED
            .contains(&configured)
            .then(|| DOCUMENTED.into_iter().find(|name| *name != configured));
        Self {
            key,
            configured: configured.to_owned(),
            other: other.flatten(),
            known: Mutex::default(),
        }
    }

    /// The name to ask under first.
    pub(crate) fn first(&self) -> Name {
        self.known().learnt.unwrap_or(Name::Configured)
    }

    /// Whether it is open which of two names is the right one.
    pub(crate) fn is_open(&self) -> bool {
        self.other.is_some() && self.known().learnt.is_none()
    }

    /// The name to read under when the one that was asked under did not do. Which one is right may have been learnt while that answer was
    /// on its way: then what it said under the other name tells nothing.
    pub(crate) fn second_for_read(&self, asked: Name) -> Option<Name> {
        let known = self.known();
        self.second(&known, asked).filter(|second| {
            let is_rejected = *second == Name::Other && known.is_other_rejected();
            known.learnt == Some(*second) || !is_rejected
        })
    }

    /// The name to update under when the one that was asked under found no row. One that was rejected is tried all the same: a rule
    /// may stand under it, and an update that is rejected does no harm.
    pub(crate) fn second_for_update(&self, asked: Name) -> Option<Name> {
        let known = self.known();
        self.second(&known, asked).filter(|second| {
            let is_no_filter = *second == Name::Other && known.other_is_no_filter;
            known.learnt == Some(*second) || !is_no_filter
        })
    }

    /// The name beside the one that was asked under, unless that is the right one, or nobody can read what comes under it.
    fn second(&self, known: &Known, asked: Name) -> Option<Name> {
        let second = asked.other();
        let may_do =
            second == Name::Configured || known.learnt == Some(second) || !known.is_other_garbled();
        (self.other.is_some() && known.learnt != Some(asked) && may_do).then_some(second)
    }

    /// The name to delete under when the one that was asked under found no row: only one that was seen not to bring rows of others, as a deleted
    /// rule cannot be restored (documented).
    pub(crate) fn second_for_delete(&self, asked: Name) -> Option<Name> {
        let known = self.known();
        self.second_for_update(asked).filter(|second| {
            let found_nothing = *second == Name::Other && known.other == Some(Found::Nothing);
            known.learnt == Some(*second) || found_nothing
        })
    }

    /// Its text.
    pub(crate) fn text(&self, name: Name) -> &str {
        match (name, self.other) {
            (Name::Other, Some(other)) => other,
            (Name::Configured, _) | (Name::Other, None) => &self.configured,
        }
    }

    /// Takes note of what a read showed.
    pub(crate) fn note(&self, name: Name, found: Found) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if name == Name::Other {
            known.other = Some(found);
            known.other_is_no_filter |= found == Found::Others;
            if found == Found::Rejected {
                known.other_rejected = known.other_rejected.saturating_add(1);
                known.rejected_at = Some(Instant::now());
            } else {
                known.other_rejected = 0;
            }
            match found {
                Found::Garbled => {
                    known.garbled_since.get_or_insert_with(Instant::now);
                    known.other_garbled = known.other_garbled.saturating_add(1);
                }
                Found::Ours | Found::Nothing | Found::Others => known.other_is_known = true,
                Found::Rejected => {}
            }
        }
        match found {
            Found::Ours => known.learnt = Some(name),
            // Learnt while ours was the only row there.
            Found::Others if known.learnt == Some(name) => known.learnt = None,
            Found::Others | Found::Nothing | Found::Rejected | Found::Garbled => {}
        }
    }

    /// Takes note of an answer that shows no rows and rejects nothing: the NBI takes the name.
    pub(crate) fn note_taken(&self, name: Name) {
        if name == Name::Other {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.other_rejected = 0;
        }
    }

    fn known(&self) -> Known {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_name_whose_answers_nobody_can_read_is_given_up_after_some_time_and_only_if_none_could_be_read()
     {
        let names = QueryNames::new("nbi.rule_query", "id");
        for _ in 0..GARBLED_MAX {
            names.note(Name::Other, Found::Garbled);
            assert_eq!(names.second_for_read(names.first()), Some(Name::Other));
        }
        tokio::time::advance(GARBLED_FOR).await;
        assert_eq!(names.second_for_read(names.first()), None);
        let names = QueryNames::new("nbi.rule_query", "id");
        names.note(Name::Other, Found::Nothing);
        for _ in 0..2 * GARBLED_MAX {
            tokio::time::advance(GARBLED_FOR).await;
            names.note(Name::Other, Found::Garbled);
            assert_eq!(names.second_for_read(names.first()), Some(Name::Other));
        }
    }

    #[test]
    fn the_other_of_the_documented_two_is_second() {
        for (configured, other) in [
            ("id", Some("campaignid")),
            ("campaignid", Some("id")),
            ("rule", None),
            ("", None),
        ] {
            let names = QueryNames::new("nbi.rule_query", configured);
            assert_eq!(names.text(names.first()), configured);
            assert_eq!(
                names
                    .second_for_read(names.first())
                    .map(|name| names.text(name)),
                other
            );
            assert_eq!(
                names
                    .second_for_update(names.first())
                    .map(|name| names.text(name)),
                other
            );
            assert_eq!(names.second_for_delete(names.first()), None);
        }
    }

    #[test]
    fn a_name_that_found_ours_is_kept() {
        let names = QueryNames::new("nbi.result_query", "id");
        names.note(Name::Configured, Found::Nothing);
        assert_eq!(names.first(), Name::Configured);
        names.note(Name::Other, Found::Ours);
        assert_eq!(
            (names.first(), names.second_for_read(names.first())),
            (Name::Other, None)
        );
        names.note(Name::Other, Found::Nothing);
        assert_eq!(
            (names.first(), names.second_for_read(names.first())),
            (Name::Other, None)
        );
    }

    #[test]
    fn a_name_that_brings_rows_of_others_is_not_learnt_and_no_write_falls_back_to_it() {
        let names = QueryNames::new("nbi.rule_query", "campaignid");
        names.note(Name::Other, Found::Others);
        assert_eq!(names.first(), Name::Configured);
        assert_eq!(names.second_for_read(names.first()), Some(Name::Other));
        assert_eq!(
            (
                names.second_for_update(names.first()),
                names.second_for_delete(names.first())
            ),
            (None, None)
        );
        names.note(Name::Other, Found::Nothing);
        assert_eq!(
            (
                names.second_for_update(names.first()),
                names.second_for_delete(names.first())
            ),
            (None, None)
        );

        let names = QueryNames::new("nbi.rule_query", "campaignid");
        names.note(Name::Other, Found::Nothing);
        assert_eq!(
            (
                names.second_for_update(names.first()),
                names.second_for_delete(names.first())
            ),
            (Some(Name::Other), Some(Name::Other))
        );
    }

    #[test]
    fn a_learnt_name_that_turns_out_to_be_no_filter_is_forgotten() {
        let names = QueryNames::new("nbi.rule_query", "campaignid");
        names.note(Name::Configured, Found::Ours);
        names.note(Name::Configured, Found::Others);
        assert_eq!(
            (names.first(), names.second_for_read(names.first())),
            (Name::Configured, Some(Name::Other))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_is_rejected_twice_in_a_row_is_not_read_under_for_some_time_and_written_under_all_the_same()
     {
        let names = QueryNames::new("nbi.rule_query", "campaignid");
        let other = Some(Name::Other);
        let seconds = || {
            let first = names.first();
            (
                names.second_for_read(first),
                names.second_for_update(first),
                names.second_for_delete(first),
            )
        };
        names.note(Name::Other, Found::Rejected);
        assert_eq!(seconds(), (other, other, None));
        names.note(Name::Other, Found::Garbled);
        names.note(Name::Other, Found::Rejected);
        assert_eq!(seconds(), (other, other, None), "not in a row");
        names.note(Name::Other, Found::Rejected);
        assert_eq!(seconds(), (None, other, None));
        tokio::time::advance(REJECTED_FOR).await;
        assert_eq!(seconds(), (other, other, None));
        names.note(Name::Other, Found::Rejected);
        assert_eq!(seconds(), (None, other, None), "still the same");
        names.note_taken(Name::Other);
        assert_eq!(seconds(), (other, other, None));
        for _ in 0..2 {
            names.note(Name::Other, Found::Rejected);
        }
        names.note(Name::Other, Found::Nothing);
        assert_eq!(seconds(), (other, other, other));
    }

    #[test]
    fn what_was_asked_under_one_name_while_the_other_was_learnt_is_asked_again_under_that() {
        let names = QueryNames::new("nbi.rule_query", "campaignid");
        let asked = names.first();
        names.note(Name::Other, Found::Ours);
        names.note(asked, Found::Nothing);
        let other = Some(Name::Other);
        assert_eq!(names.second_for_read(asked), other);
        assert_eq!(names.second_for_update(asked), other);
        assert_eq!(names.second_for_delete(asked), other);
        // The one that was learnt may be forgotten meanwhile.
        let asked = names.first();
        names.note(asked, Found::Others);
        let configured = Some(Name::Configured);
        assert_eq!(names.second_for_read(asked), configured);
        assert_eq!(names.second_for_update(asked), configured);
        assert_eq!(names.second_for_delete(asked), None);
    }
}
