//! All rules of the NBI, page by page, whatever it makes of `limit` and `offset`.
//!
//! Both are documented, their defaults and bounds are not. So an empty page is the one end that is believed; an NBI that begins anew
//! whatever the offset is noticed, a page that is too large is asked for in smaller ones, and what may be missing is said.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use crate::job::{ListedRule, NbiAnswer, NbiCall, NbiFailure};
use crate::nbi::Nbi;

/// A quarter of `nbi.max_response_bytes` by default, with rules of the usual size.
const PAGE: usize = 1_000;
/// No NBI needs smaller ones.
const PAGE_MIN: usize = 10;
/// Rows read at most: more than any system manages devices.
const ROWS_MAX: usize = 5_000_000;

/// What came of asking for all rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// The rules that are armed.
    Rules {
        /// The armed ones, in no particular order.
        armed: Vec<ListedRule>,
        /// All rows, armed or not.
        seen: usize,
        /// Whether all there are were seen, as far as anybody can tell.
        is_whole: bool,
        /// What people should know about it.
        notes: Vec<String>,
    },
    /// This NBI, or this account, gives no list; why.
    Refused(String),
}

/// Reads all rules.
///
/// # Errors
///
/// [`NbiFailure`] when a page could not be read; what was read before is of no use then.
pub async fn list<N: Nbi>(nbi: &N) -> Result<Listing, NbiFailure> {
    let hasher = RandomState::new();
    let mut known: HashSet<u64> = HashSet::new();
    let (mut armed, mut notes) = (Vec::new(), Vec::new());
    let (mut offset, mut limit, mut is_whole) = (0, PAGE, true);
    loop {
        let page = match nbi.call(&NbiCall::ListRules { offset, limit }).await {
            Ok(NbiAnswer::RuleList(page)) => page,
            Ok(_) => {
                return Ok(Listing::Refused(
                    "rules cannot be read with these credentials".to_owned(),
                ));
            }
            Err(NbiFailure::Rejected { message }) if offset == 0 => {
                return Ok(Listing::Refused(message));
            }
            // Too large for `nbi.max_response_bytes`, or for the NBI itself.
            Err(NbiFailure::Unintelligible { .. }) if limit > PAGE_MIN => {
                limit = (limit / 4).max(PAGE_MIN);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        if page.is_empty() {
            break;
        }
        let hashes: Vec<u64> = page
            .iter()
            .map(|rule| hasher.hash_one((&rule.id, &rule.row.file, rule.row.enabled)))
            .collect();
        let repeated = hashes.iter().filter(|hash| known.contains(hash)).count();
        if repeated == page.len() {
            // Whoever returns more than asked for has no pages, and this was everything.
            if page.len() == limit {
                is_whole = false;
                notes.push(format!(
                    "the NBI ignores `offset` and returned {limit} rules, as many as were asked for: there may be more"
                ));
            } else if page.len() < limit {
                notes.push(format!(
                    "the NBI ignores `offset`; it returned {} rules, and if it bounds a page by itself there are more",
                    page.len()
                ));
            }
            break;
        }
        if repeated > 0 && is_whole {
            is_whole = false;
            notes.push(
                "rules moved between pages while they were read, so that some may have been missed: look again"
                    .to_owned(),
            );
        }
        known.extend(hashes);
        offset += page.len();
        armed.extend(page.into_iter().filter(|rule| rule.row.is_armed()));
        if offset >= ROWS_MAX {
            is_whole = false;
            notes.push(format!("only the first {ROWS_MAX} rules were read"));
            break;
        }
    }
    Ok(Listing::Rules {
        armed,
        seen: offset,
        is_whole,
        notes,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::job::RuleRow;

    /// Answers pages by a function of offset and limit.
    struct Pages<F> {
        answer: F,
        asked: Mutex<Vec<(usize, usize)>>,
    }

    impl<F> Nbi for Pages<F>
    where
        F: Fn(usize, usize) -> Result<NbiAnswer, NbiFailure> + Send + Sync + 'static,
    {
        async fn call(&self, call: &NbiCall) -> Result<NbiAnswer, NbiFailure> {
            let NbiCall::ListRules { offset, limit } = call else {
                panic!("{call:?}")
            };
            self.asked.lock().unwrap().push((*offset, *limit));
            assert!(self.asked.lock().unwrap().len() < 100, "it does not end");
            (self.answer)(*offset, *limit)
        }
    }

    /// Every third one is armed.
    fn rules(from: usize, to: usize) -> Result<NbiAnswer, NbiFailure> {
        let rule = |number: usize| ListedRule {
            id: format!("UPGRADE_{number}"),
            cpe_id: None,
            row: RuleRow {
                enabled: number.is_multiple_of(3),
                automatic: true,
                file: None,
                description: None,
            },
        };
        Ok(NbiAnswer::RuleList((from..to).map(rule).collect()))
    }

    async fn listed(
        answer: impl Fn(usize, usize) -> Result<NbiAnswer, NbiFailure> + Send + Sync + 'static,
    ) -> (usize, usize, bool, usize) {
        let pages = Pages {
            answer,
            asked: Mutex::default(),
        };
        match list(&pages).await.expect("it can be read") {
            Listing::Rules {
                armed,
                seen,
                is_whole,
                notes,
            } => (seen, armed.len(), is_whole, notes.len()),
            Listing::Refused(why) => panic!("{why}"),
        }
    }

    #[tokio::test]
    async fn every_page_is_read_whatever_the_nbi_makes_of_limit_and_offset() {
        const ALL: usize = 2_500;
        let page = |offset: usize, limit: usize| rules(offset.min(ALL), (offset + limit).min(ALL));
        let all = (ALL, 834, true, 0);
        assert_eq!(listed(page).await, all);
        // It bounds a page by itself.
        assert_eq!(listed(move |offset, _| page(offset, 100)).await.3, 0);
        assert_eq!(listed(move |offset, _| page(offset, 100)).await.0, ALL);
        // It knows no limit.
        assert_eq!(listed(move |offset, _| page(offset, ALL)).await, all);
        // It knows neither.
        assert_eq!(listed(|_, _| rules(0, ALL)).await, all);
        // An answer may not be that large.
        let small = move |offset, limit| {
            if limit > 100 {
                let message = "the answer is larger than 1048576 bytes".to_owned();
                return Err(NbiFailure::Unintelligible { message });
            }
            page(offset, limit)
        };
        assert_eq!(listed(small).await, all);
        assert_eq!(listed(|_, _| rules(0, 0)).await, (0, 0, true, 0));
    }

    #[tokio::test]
    async fn what_may_be_missing_is_said() {
        // It knows no offset.
        assert_eq!(
            listed(|_, limit| rules(0, limit)).await,
            (1_000, 334, false, 1)
        );
        assert_eq!(listed(|_, _| rules(0, 100)).await, (100, 34, true, 1));
        // Rows move while they are read.
        let moving = |offset: usize, limit: usize| {
            rules(
                offset.saturating_sub(5).min(2_000),
                (offset + limit - 5).min(2_000),
            )
        };
        let (seen, _, is_whole, notes) = listed(moving).await;
        assert_eq!((is_whole, notes), (false, 1), "{seen}");
    }

    #[tokio::test]
    async fn an_nbi_that_gives_no_list_is_told_from_one_in_trouble() {
        let ask = async |answer: fn(usize, usize) -> Result<NbiAnswer, NbiFailure>| {
            let pages = Pages {
                answer,
                asked: Mutex::default(),
            };
            list(&pages).await
        };
        let unreadable = ask(|_, _| Ok(NbiAnswer::RulesUnreadable)).await;
        assert!(
            matches!(unreadable, Ok(Listing::Refused(_))),
            "{unreadable:?}"
        );
        let filtered = ask(|_, _| {
            let message = "400: a filter is needed".to_owned();
            Err(NbiFailure::Rejected { message })
        })
        .await;
        assert!(matches!(filtered, Ok(Listing::Refused(_))), "{filtered:?}");
        for failure in [
            |_, _| {
                let message = "not JSON".to_owned();
                Err(NbiFailure::Unintelligible { message })
            },
            |_, _| {
                let message = "401".to_owned();
                Err(NbiFailure::Refused { message })
            },
        ] {
            assert!(ask(failure).await.is_err());
        }
    }
}
