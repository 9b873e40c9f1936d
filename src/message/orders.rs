//! What stands of the commands of operators.
//!
//! An order is known by the id of what it is about, so that it also holds for a job that comes later. A cancellation stands for good; a
//! resume ends a pause of the same scope and nothing else: what pauses everything and what pauses one campaign are ended one by one.
//!
//! Memory is bounded: an order takes about 100 bytes, is kept for at least `amqp.control_retention` (as in the stream itself), and at most
//! [`ORDERS_MAX`] newest ones are kept for certain.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::control::{Command, Scope, Verb};
use crate::job::state::Order as JobOrder;
use crate::job::{ArmAgain, CampaignId, JobId, Standing};

/// Orders kept for certain; more than a control stream of its default size can hold.
pub const ORDERS_MAX: usize = 1_000_000;

/// What stands about one job or campaign, or about everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Cancelled(Timestamp),
    Paused,
    Resumed(Timestamp, Option<ArmAgain>),
}

/// What stands, folded from commands in their order.
#[derive(Debug, Clone)]
struct Folded {
    everything: Option<Word>,
    /// By the hash of scope and id. What was ordered since the last turn of the page, and before: a page is turned when it is as old as
    /// orders are kept, or full, and the one before is thrown away.
    page: HashMap<u128, Word>,
    page_before: HashMap<u128, Word>,
    page_begun: Option<Timestamp>,
    /// The latest time that any message said.
    latest: Timestamp,
    kept_for: SignedDuration,
    page_max: usize,
}

impl Folded {
    fn new(kept_for: SignedDuration, page_max: usize) -> Self {
        Self {
            everything: None,
            page: HashMap::new(),
            page_before: HashMap::new(),
            page_begun: None,
            latest: Timestamp::MIN,
            kept_for,
            page_max,
        }
    }

    fn of(&self, key: u128) -> Option<Word> {
        self.page
            .get(&key)
            .or_else(|| self.page_before.get(&key))
            .copied()
    }

    /// Whoever wrote later in the stream did not write earlier, whatever its clock says: an order that looks older than it is would arm
    /// rules again too early.
    fn seen(&mut self, at: Timestamp) -> Timestamp {
        self.latest = self.latest.max(at);
        self.latest
    }

    fn apply(&mut self, command: &Command, at: Timestamp) {
        let at = self.seen(at);
        let begun = *self.page_begun.get_or_insert(at);
        if at.duration_since(begun) > self.kept_for || self.page.len() >= self.page_max {
            self.page_before = std::mem::take(&mut self.page);
            self.page_begun = Some(at);
        }
        let key = match &command.scope {
            Scope::All => {
                self.everything = next(self.everything, command, at);
                return;
            }
            Scope::Job(id) => job_key(id),
            Scope::Campaign(id) => campaign_key(id),
        };
        let word = next(self.of(key), command, at);
        if let Some(word) = word {
            self.page.insert(key, word);
        }
    }

    fn standing(&self, job_id: &JobId, campaign_id: Option<&CampaignId>) -> Standing {
        let is_of_some = !(self.page.is_empty() && self.page_before.is_empty());
        // A hash each, for every look at a job: only where some job or campaign has an order.
        let of = |key: &dyn Fn() -> u128| is_of_some.then(|| self.of(key())).flatten();
        let of_job = of(&|| job_key(job_id));
        let of_campaign = campaign_id.and_then(|id| of(&|| campaign_key(id)));
        let words = [of_job, of_campaign, self.everything];
        let words = words.into_iter().flatten();
        let mut standing = Standing::Clear;
        for word in words {
            standing = match (standing, word) {
                (Standing::Cancelled { at: one }, Word::Cancelled(other)) => {
                    Standing::Cancelled { at: one.min(other) }
                }
                (Standing::Cancelled { at }, _) | (_, Word::Cancelled(at)) => {
                    Standing::Cancelled { at }
                }
                (Standing::Paused, _) | (_, Word::Paused) => Standing::Paused,
                // The later one speaks of everything that was disarmed before.
                (Standing::Resumed { at, .. }, Word::Resumed(other, _)) if other < at => standing,
                (Standing::Clear | Standing::Resumed { .. }, Word::Resumed(at, arm_again)) => {
                    Standing::Resumed { at, arm_again }
                }
            };
        }
        standing
    }
}

/// What stands after one more command.
fn next(word: Option<Word>, command: &Command, at: Timestamp) -> Option<Word> {
    let arm_again = command.arm_again;
    match (word, command.verb) {
        (Some(Word::Cancelled(since)), _) => Some(Word::Cancelled(since)),
        (_, Verb::Cancel) => Some(Word::Cancelled(at)),
        (_, Verb::Pause) => Some(Word::Paused),
        (Some(Word::Paused), Verb::Resume) => Some(Word::Resumed(at, arm_again)),
        // What was resumed before, and is vouched for from now on; a plain resume takes nothing back.
        (Some(Word::Resumed(..)), Verb::Resume) if arm_again.is_some() => {
            Some(Word::Resumed(at, arm_again))
        }
        (other, Verb::Resume) => other,
    }
}

fn job_key(id: &JobId) -> u128 {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("job {id}").as_bytes()).as_u128()
}

fn campaign_key(id: &CampaignId) -> u128 {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("campaign {id}").as_bytes()).as_u128()
}

/// What operators have ordered, as far as this process has read; shared by its tasks.
#[derive(Debug)]
pub struct Orders(RwLock<Folded>);

impl Orders {
    /// Nothing stands. Orders are kept for at least this long.
    #[must_use]
    pub fn new(kept_for: SignedDuration) -> Self {
        Self(RwLock::new(Folded::new(kept_for, ORDERS_MAX)))
    }

    fn read(&self) -> RwLockReadGuard<'_, Folded> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Folds one more command in; they must come in the order in which the broker keeps them. A time in the future is taken for now.
    pub fn apply(&self, command: &Command, at: Timestamp, now: Timestamp) {
        let mut folded = self.0.write().unwrap_or_else(PoisonError::into_inner);
        folded.apply(command, at.min(now));
    }

    /// Takes note of the time of a message that is no command.
    pub fn seen(&self, at: Timestamp, now: Timestamp) {
        let mut folded = self.0.write().unwrap_or_else(PoisonError::into_inner);
        folded.seen(at.min(now));
    }

    /// Takes the place of what stood with what another reading gave: in one moment, so that nothing stands half.
    pub fn replace(&self, other: Self) {
        let other = other.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = other;
    }

    /// What stands about a job.
    #[must_use]
    pub fn standing(&self, order: &JobOrder) -> Standing {
        self.read()
            .standing(&order.job_id, order.campaign_id.as_ref())
    }

    /// Whether everything is paused.
    #[must_use]
    pub fn is_all_paused(&self) -> bool {
        self.read().everything == Some(Word::Paused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
    }

    fn folded(commands: &[&str]) -> Folded {
        let mut folded = Folded::new(SignedDuration::from_hours(1), 1_000);
        for (minute, text) in (0_i64..).zip(commands) {
            folded.apply(&Command::decode(text.as_bytes()).unwrap(), at(minute));
        }
        folded
    }

    fn of(folded: &Folded, job: &str, campaign: Option<&str>) -> Standing {
        let campaign = campaign.map(|id| CampaignId::parse(id).unwrap());
        folded.standing(&JobId::parse(job).unwrap(), campaign.as_ref())
    }

    const CANCEL: &str = r#"{"command":"cancel","job_id":"j"}"#;
    const CANCEL_C: &str = r#"{"command":"cancel","campaign_id":"c"}"#;
    const PAUSE_C: &str = r#"{"command":"pause","campaign_id":"c"}"#;
    const RESUME_C: &str = r#"{"command":"resume","campaign_id":"c"}"#;
    const VOUCHED_C: &str = r#"{"command":"resume","campaign_id":"c","arm_again_after":"30m"}"#;
    const STOP: &str = r#"{"command":"pause","all":true}"#;
    const GO: &str = r#"{"command":"resume","all":true}"#;

    #[test]
    fn commands_are_folded_in_their_order() {
        let cancelled = Standing::Cancelled { at: at(0) };
        let resumed = |minutes| Standing::Resumed {
            at: at(minutes),
            arm_again: None,
        };
        let vouched = |minutes, seconds| Standing::Resumed {
            at: at(minutes),
            arm_again: Some(ArmAgain {
                after: SignedDuration::from_secs(seconds),
                over: SignedDuration::ZERO,
            }),
        };
        for (commands, job_of_campaign, job_alone) in [
            (&[][..], Standing::Clear, Standing::Clear),
            (&[CANCEL], cancelled, cancelled),
            (&[CANCEL_C], cancelled, Standing::Clear),
            (
                &[CANCEL_C, PAUSE_C, RESUME_C, GO],
                cancelled,
                Standing::Clear,
            ),
            (&[PAUSE_C], Standing::Paused, Standing::Clear),
            (&[PAUSE_C, RESUME_C], resumed(1), Standing::Clear),
            (&[RESUME_C, PAUSE_C], Standing::Paused, Standing::Clear),
            (
                &[PAUSE_C, RESUME_C, PAUSE_C],
                Standing::Paused,
                Standing::Clear,
            ),
            (&[STOP], Standing::Paused, Standing::Paused),
            (&[STOP, GO], resumed(1), resumed(1)),
            // One resume ends one pause.
            (&[PAUSE_C, STOP, GO], Standing::Paused, resumed(2)),
            (
                &[PAUSE_C, STOP, RESUME_C],
                Standing::Paused,
                Standing::Paused,
            ),
            (&[PAUSE_C, RESUME_C, STOP, GO], resumed(3), resumed(3)),
            // The latest resume says when rules are armed again, also one that comes after the resume.
            (&[PAUSE_C, VOUCHED_C], vouched(1, 1_800), Standing::Clear),
            (
                &[PAUSE_C, RESUME_C, VOUCHED_C],
                vouched(2, 1_800),
                Standing::Clear,
            ),
            (
                &[PAUSE_C, VOUCHED_C, RESUME_C],
                vouched(1, 1_800),
                Standing::Clear,
            ),
            (&[PAUSE_C, VOUCHED_C, STOP, GO], resumed(3), resumed(3)),
            (
                &[STOP, GO, PAUSE_C, VOUCHED_C],
                vouched(3, 1_800),
                resumed(1),
            ),
            (
                &[PAUSE_C, VOUCHED_C, PAUSE_C, RESUME_C],
                resumed(3),
                Standing::Clear,
            ),
            (&[VOUCHED_C], Standing::Clear, Standing::Clear),
            // What was never paused was not resumed.
            (&[RESUME_C, GO], Standing::Clear, Standing::Clear),
        ] {
            let folded = folded(commands);
            let alone = if commands.contains(&CANCEL) {
                "j"
            } else {
                "other"
            };
            assert_eq!(of(&folded, "j", Some("c")), job_of_campaign, "{commands:?}");
            assert_eq!(of(&folded, alone, None), job_alone, "{commands:?}");
        }
    }

    #[test]
    fn an_order_is_kept_as_long_as_it_must_be_and_not_for_ever() {
        let hour = SignedDuration::from_hours(1);
        let mut folded = Folded::new(hour, 1_000);
        folded.apply(&Command::decode(CANCEL.as_bytes()).unwrap(), at(0));
        let other = |number: i64| {
            let body = format!(r#"{{"command":"cancel","job_id":"n{number}"}}"#);
            Command::decode(body.as_bytes()).unwrap()
        };
        folded.apply(&other(1), at(61));
        assert_eq!(of(&folded, "j", None), Standing::Cancelled { at: at(0) });
        folded.apply(&other(2), at(123));
        assert_eq!(of(&folded, "j", None), Standing::Clear);
        for number in 0..10_000 {
            folded.apply(&other(number), at(124));
        }
        assert!(folded.page.len() + folded.page_before.len() <= 2_000);
        assert_eq!(
            of(&folded, "n9999", None),
            Standing::Cancelled { at: at(124) }
        );
    }

    #[test]
    fn a_slow_clock_does_not_make_an_order_older_than_what_stands_before_it() {
        let command = |text: &str| Command::decode(text.as_bytes()).unwrap();
        let orders = Orders::new(SignedDuration::from_hours(1));
        orders.apply(&command(PAUSE_C), at(10), at(100));
        orders.seen(at(30), at(100));
        orders.apply(&command(VOUCHED_C), at(12), at(100));
        let resumed = Standing::Resumed {
            at: at(30),
            arm_again: Some(ArmAgain {
                after: SignedDuration::from_mins(30),
                over: SignedDuration::ZERO,
            }),
        };
        assert_eq!(of(&orders.read(), "j", Some("c")), resumed);
        // Nor does a fast one push it into the future.
        orders.seen(at(500), at(100));
        orders.apply(&command(VOUCHED_C), at(90), at(101));
        let Standing::Resumed { at: seen, .. } = of(&orders.read(), "j", Some("c")) else {
            panic!("it was resumed");
        };
        assert_eq!(seen, at(100));
    }
}
