//! Commands of operators: cancel, pause, resume; and the answers to them.
//!
//! Every worker reads every command, in the order in which the broker keeps them, and folds them into [`Orders`].

use jiff::SignedDuration;

use super::Incoming;
use super::fields::Fields;
pub use super::orders::Orders;
use super::request::FieldFault;
use crate::job::{ArmAgain, CampaignId, JobId};

/// Largest command, in bytes.
pub const BODY_MAX: usize = 4 * 1024;

/// Message `type` of a command.
pub const COMMAND_TYPE: &str = "upgrade.control";

/// Message `type` of a worker's own mark in the stream; no command.
pub const MARK_TYPE: &str = "upgrade.control.mark";

/// The fields of a command.
pub const FIELDS: [&str; 6] = [
    "command",
    "job_id",
    "campaign_id",
    "all",
    "arm_again_after",
    "arm_again_over",
];

/// Longest `arm_again_after` and `arm_again_over`.
const ARM_AGAIN_MAX: SignedDuration = SignedDuration::from_hours(24);

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
    /// Of a resume: when rules that the pause disarmed are armed again, as the operator says that a device without a result has not
    /// begun by then. `None`: as `job.flash_time_max` says.
    pub arm_again: Option<ArmAgain>,
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
        let mut value = match &self.scope {
            Scope::Job(id) => serde_json::json!({"command": verb, "job_id": id.as_str()}),
            Scope::Campaign(id) => serde_json::json!({"command": verb, "campaign_id": id.as_str()}),
            Scope::All => serde_json::json!({"command": verb, "all": true}),
        };
        if let Some(ArmAgain { after, over }) = self.arm_again {
            value["arm_again_after"] = format!("{}s", after.as_secs()).into();
            if !over.is_zero() {
                value["arm_again_over"] = format!("{}s", over.as_secs()).into();
            }
        }
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

fn read(fields: &mut Fields<'_>) -> Option<Command> {
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
    let after = fields.optional("arm_again_after", arm_again_time);
    let over = fields.optional("arm_again_over", arm_again_time);
    if over.is_some()
        && fields
            .raw("arm_again_after")
            .is_none_or(|raw| raw == "null")
    {
        fields.fault(
            "arm_again_over",
            "spreads what arm_again_after arms, and that is not there; give both",
        );
    }
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
    let arm_again = after.map(|after| ArmAgain {
        after,
        over: over.unwrap_or_default(),
    });
    if arm_again.is_some() && verb != Verb::Resume {
        fields.fault(
            "arm_again_after",
            "belongs to a resume; leave it out of other commands",
        );
        return None;
    }
    Some(Command {
        verb,
        scope,
        arm_again,
    })
}

/// Reads `arm_again_after` or `arm_again_over`: whole seconds, from 1 s to 1 d.
///
/// # Errors
///
/// What is wrong with it, to be put behind the value.
pub fn arm_again_time(text: &str) -> Result<SignedDuration, String> {
    text.parse::<SignedDuration>()
        .ok()
        .map(|after| SignedDuration::from_secs(after.as_secs()))
        .filter(|after| after.is_positive() && *after <= ARM_AGAIN_MAX)
        .ok_or_else(|| "is not from 1s to 1d; write it like 30m".to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    const CANCEL: &str = r#"{"command":"cancel","job_id":"j"}"#;
    const CANCEL_C: &str = r#"{"command":"cancel","campaign_id":"c"}"#;
    const PAUSE_C: &str = r#"{"command":"pause","campaign_id":"c"}"#;
    const RESUME_C: &str = r#"{"command":"resume","campaign_id":"c"}"#;
    const VOUCHED_C: &str = r#"{"command":"resume","campaign_id":"c","arm_again_after":"30m"}"#;
    const SPREAD: &str =
        r#"{"command":"resume","all":true,"arm_again_after":"30m","arm_again_over":"2h"}"#;
    const STOP: &str = r#"{"command":"pause","all":true}"#;
    const GO: &str = r#"{"command":"resume","all":true}"#;

    #[test]
    fn a_command_is_written_as_it_is_read() {
        for text in [
            CANCEL, CANCEL_C, PAUSE_C, RESUME_C, VOUCHED_C, SPREAD, STOP, GO,
        ] {
            let command = Command::decode(text.as_bytes()).unwrap();
            assert_eq!(Command::decode(&command.encode()).unwrap(), command);
        }
    }

    #[test]
    fn a_resume_says_when_to_arm_again_and_over_how_long() {
        let said = |text: &str| {
            let arm_again = Command::decode(text.as_bytes()).unwrap().arm_again?;
            Some((arm_again.after.as_secs(), arm_again.over.as_secs()))
        };
        assert_eq!(said(GO), None);
        assert_eq!(said(VOUCHED_C), Some((1_800, 0)));
        assert_eq!(said(SPREAD), Some((1_800, 7_200)));
        assert_eq!(
            said(
                r#"{"command":"resume","all":true,"arm_again_after":"30m","arm_again_over":null}"#
            ),
            Some((1_800, 0))
        );
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
                r#"{"command":"pause","all":true,"arm_again_after":"30m"}"#,
                "arm_again_after",
                "belongs to a resume",
            ),
            (
                r#"{"command":"resume","all":true,"arm_again_after":"0s"}"#,
                "arm_again_after",
                "1s to 1d",
            ),
            (
                r#"{"command":"resume","all":true,"arm_again_after":"25h"}"#,
                "arm_again_after",
                "1s to 1d",
            ),
            (
                r#"{"command":"resume","all":true,"arm_again_after":30}"#,
                "arm_again_after",
                "must be a string",
            ),
            (
                r#"{"command":"resume","all":true,"arm_again_over":"30m"}"#,
                "arm_again_over",
                "give both",
            ),
            (
                r#"{"command":"resume","all":true,"arm_again_after":"30m","arm_again_over":"2d"}"#,
                "arm_again_over",
                "1s to 1d",
            ),
            (
                r#"{"command":"pause","all":true,"arm_again_after":"30m","arm_again_over":"30m"}"#,
                "arm_again_after",
                "belongs to a resume",
            ),
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
