//! Commands of operators: cancel, pause, resume; and what stands of them.
//!
//! Every worker reads every command, in the order in which the broker keeps them, and folds them into [`Orders`]. An order is known by the id of
//! what it is about, so that it also holds for a job that comes later. A cancellation stands for good; a resume ends a pause of the same
//! scope and nothing else: what pauses everything and what pauses one campaign are ended one by one.
//!
//! Memory is bounded: an order takes about 50 bytes, is kept for at least `amqp.control_retention` (as in the stream itself), and at most
//! [`ORDERS_MAX`] newest ones are kept for certain.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::Incoming;
use super::fields::Fields;
use super::request::FieldFault;
use crate::job::state::Order as JobOrder;
use crate::job::{CampaignId, JobId, Standing};

/// Largest command, in bytes.
pub const BODY_MAX: usize = 4 * 1024;

/// Orders kept for certain; more than a control stream of its default size can hold.
pub const ORDERS_MAX: usize = 1_000_000;

/// Message `type` of a command.
pub const COMMAND_TYPE: &str = "upgrade.control";

/// Message `type` of a worker's own mark in the stream; no command.
pub const MARK_TYPE: &str = "upgrade.control.mark";

/// The fields of a command.
pub const FIELDS: [&str; 4] = ["command", "job_id", "campaign_id", "all"];

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// End it: the rule is disarmed.
    Cancel,
    /// Start nothing: what is armed is disarmed.
    Pause,
    /// Go on.
    Resume,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 3] = [Self::Cancel, Self::Pause, Self::Resume];

    /// The contract's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

/// About what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// One job.
    Job(JobId),
    /// All jobs of a campaign, also those to come.
    Campaign(CampaignId),
    /// Everything: the emergency stop, and its end.
    All,
}

/// An operator's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What is to be done.
    pub verb: Verb,
    /// About what.
    pub scope: Scope,
}

impl Command {
    /// The command in a message.
    ///
    /// # Errors
    ///
    /// Every field at fault, with value and remedy.
    pub fn decode(body: &[u8]) -> Result<Self, Vec<FieldFault>> {
        let of_body = |message: String| {
            vec![FieldFault {
                field: "body".to_owned(),
                message,
            }]
        };
        if body.len() > BODY_MAX {
            return Err(of_body(format!(
                "has {} bytes; at most {BODY_MAX} are allowed",
                body.len()
            )));
        }
        let Ok(text) = std::str::from_utf8(body) else {
            return Err(of_body("is not UTF-8; encode the JSON as UTF-8".to_owned()));
        };
        let mut fields = Fields::parse(text).map_err(|error| {
            of_body(format!(
                "is not a JSON object: {error}; send one like {{\"command\":\"cancel\",\"job_id\":\"order-4711\"}}"
            ))
        })?;
        let command = read(&mut fields);
        fields.refuse_others(&FIELDS, "is no field of a command; check its spelling");
        match command {
            Some(command) if fields.faults.is_empty() => Ok(command),
            Some(_) | None => Err(fields.faults),
        }
    }

    /// The message's body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let verb = self.verb.name();
        let value = match &self.scope {
            Scope::Job(id) => serde_json::json!({"command": verb, "job_id": id.as_str()}),
            Scope::Campaign(id) => serde_json::json!({"command": verb, "campaign_id": id.as_str()}),
            Scope::All => serde_json::json!({"command": verb, "all": true}),
        };
        value.to_string().into_bytes()
    }

    /// The job it is about, if it is one.
    #[must_use]
    pub fn job_id(&self) -> Option<&str> {
        match &self.scope {
            Scope::Job(id) => Some(id.as_str()),
            Scope::Campaign(_) | Scope::All => None,
        }
    }

    /// The campaign it is about, if it is one.
    #[must_use]
    pub fn campaign_id(&self) -> Option<&str> {
        match &self.scope {
            Scope::Campaign(id) => Some(id.as_str()),
            Scope::Job(_) | Scope::All => None,
        }
    }
}

fn read(fields: &mut Fields) -> Option<Command> {
    let verb = fields.required("command", |text| {
        Verb::ALL
            .into_iter()
            .find(|verb| verb.name() == text)
            .ok_or_else(|| "is no command; write cancel, pause or resume".to_owned())
    });
    let job = fields.optional("job_id", |text| {
        JobId::parse(text).map_err(|error| error.to_string())
    });
    let campaign = fields.optional("campaign_id", |text| {
        CampaignId::parse(text).map_err(|error| error.to_string())
    });
    let all = fields.boolean("all").unwrap_or(false);
    if !fields.faults.is_empty() {
        return None;
    }
    let verb = verb?;
    let scope = match (verb, job, campaign, all) {
        (Verb::Cancel, Some(job), None, false) => Scope::Job(job),
        (_, None, Some(campaign), false) => Scope::Campaign(campaign),
        (Verb::Pause | Verb::Resume, None, None, true) => Scope::All,
        (Verb::Cancel, ..) => {
            fields.fault(
                "command",
                "cancel needs either `job_id` or `campaign_id`, and nothing else",
            );
            return None;
        }
        (Verb::Pause | Verb::Resume, ..) => {
            let message = format!(
                "{} needs either `campaign_id` or `\"all\": true`, and nothing else",
                verb.name()
            );
            fields.fault("command", message);
            return None;
        }
    };
    Some(Command { verb, scope })
}

/// Why a command is answered so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerReason {
    /// It stands and is carried out.
    Stands,
    /// The event history knows no such job; the command stands all the same, for a job that comes later.
    UnknownJob,
    /// The job was cancelled before.
    AlreadyCancelled,
    /// The job is over.
    AlreadyFinished,
    /// The command has faults.
    InvalidCommand,
}

impl AnswerReason {
    /// Every reason.
    pub const ALL: &[Self] = &[
        Self::Stands,
        Self::UnknownJob,
        Self::AlreadyCancelled,
        Self::AlreadyFinished,
        Self::InvalidCommand,
    ];

    /// Whether the command stands.
    #[must_use]
    pub fn is_accepted(self) -> bool {
        match self {
            Self::Stands | Self::UnknownJob | Self::AlreadyCancelled => true,
            Self::AlreadyFinished | Self::InvalidCommand => false,
        }
    }

    /// The name in events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stands => "stands",
            Self::UnknownJob => "unknown_job",
            Self::AlreadyCancelled => "already_cancelled",
            Self::AlreadyFinished => "already_finished",
            Self::InvalidCommand => "invalid_command",
        }
    }
}

/// The answer to a command, before it is an event.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Names the command: the same for the same message, however often it comes.
    pub key: &'a str,
    /// The message.
    pub incoming: Incoming<'a>,
    /// The command, if it could be read.
    pub command: Option<&'a Command>,
    /// Whether it stands, and why.
    pub reason: AnswerReason,
    /// For people.
    pub message: String,
    /// What is wrong with a command that could not be read.
    pub faults: Vec<FieldFault>,
}

/// What stands about one job or campaign, or about everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Cancelled(Timestamp),
    Paused,
    Resumed(Timestamp),
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

    fn apply(&mut self, command: &Command, at: Timestamp) {
        let begun = *self.page_begun.get_or_insert(at);
        if at.duration_since(begun) > self.kept_for || self.page.len() >= self.page_max {
            self.page_before = std::mem::take(&mut self.page);
            self.page_begun = Some(at);
        }
        let key = match &command.scope {
            Scope::All => {
                self.everything = next(self.everything, command.verb, at);
                return;
            }
            Scope::Job(id) => job_key(id),
            Scope::Campaign(id) => campaign_key(id),
        };
        let word = next(self.of(key), command.verb, at);
        if let Some(word) = word {
            self.page.insert(key, word);
        }
    }

    fn standing(&self, job_id: &JobId, campaign_id: Option<&CampaignId>) -> Standing {
        let of_campaign = campaign_id.and_then(|id| self.of(campaign_key(id)));
        let words = [self.of(job_key(job_id)), of_campaign, self.everything];
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
                (Standing::Clear, Word::Resumed(at)) => Standing::Resumed { at },
                (Standing::Resumed { at: one }, Word::Resumed(other)) => {
                    Standing::Resumed { at: one.max(other) }
                }
            };
        }
        standing
    }
}

/// What stands after one more command.
fn next(word: Option<Word>, verb: Verb, at: Timestamp) -> Option<Word> {
    match (word, verb) {
        (Some(Word::Cancelled(since)), _) => Some(Word::Cancelled(since)),
        (_, Verb::Cancel) => Some(Word::Cancelled(at)),
        (_, Verb::Pause) => Some(Word::Paused),
        (Some(Word::Paused), Verb::Resume) => Some(Word::Resumed(at)),
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
    const STOP: &str = r#"{"command":"pause","all":true}"#;
    const GO: &str = r#"{"command":"resume","all":true}"#;

    #[test]
    fn commands_are_folded_in_their_order() {
        let cancelled = Standing::Cancelled { at: at(0) };
        let resumed = |minutes| Standing::Resumed { at: at(minutes) };
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
    fn a_command_is_written_as_it_is_read() {
        for text in [CANCEL, CANCEL_C, PAUSE_C, RESUME_C, STOP, GO] {
            let command = Command::decode(text.as_bytes()).unwrap();
            assert_eq!(Command::decode(&command.encode()).unwrap(), command);
        }
    }

    #[test]
    fn every_fault_of_a_command_is_named() {
        let long = format!(r#"{{"command":"cancel","job_id":"{}"}}"#, "x".repeat(5_000));
        for (body, field, text) in [
            ("", "body", "not a JSON object"),
            ("[]", "body", "not a JSON object"),
            (long.as_str(), "body", "at most 4096"),
            ("{}", "command", "is missing"),
            (
                r#"{"command":"stop"}"#,
                "command",
                "write cancel, pause or resume",
            ),
            (r#"{"command":7}"#, "command", "must be a string"),
            (r#"{"command":"cancel"}"#, "command", "needs either"),
            (
                r#"{"command":"cancel","all":true}"#,
                "command",
                "needs either",
            ),
            (
                r#"{"command":"cancel","job_id":"a","campaign_id":"b"}"#,
                "command",
                "needs either",
            ),
            (
                r#"{"command":"pause","job_id":"a"}"#,
                "command",
                "needs either",
            ),
            (
                r#"{"command":"pause","all":false}"#,
                "command",
                "needs either",
            ),
            (r#"{"command":"pause","all":"yes"}"#, "all", "true or false"),
            (
                r#"{"command":"cancel","job_id":"a b"}"#,
                "job_id",
                "contains",
            ),
            (
                r#"{"command":"cancel","job_id":"a","job":"b"}"#,
                "job",
                "no field of a command",
            ),
            (
                r#"{"command":"cancel","job_id":"a","job_id":"b"}"#,
                "job_id",
                "given twice",
            ),
        ] {
            let faults = Command::decode(body.as_bytes()).unwrap_err();
            assert!(
                faults
                    .iter()
                    .any(|fault| fault.field == field && fault.message.contains(text)),
                "{body}: {faults:?}"
            );
        }
        assert!(Command::decode(b"\xff").is_err());
    }
}
