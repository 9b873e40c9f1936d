//! Tests of the core: no async, no mocks, no clock.
//!
//! `table` prints what follows from what and is the state diagram of the documentation; `stages` states the finer points one by one,
//! `pauses` those of a pause that meets something else that went wrong; `twins` says what copies of a job may say, `attempts` what those that are not at the same attempt; `wakes` is about connection requests that were not sent, `purposes` about what reads are for; `properties` tries sequences that nobody thought of.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "tests look at the variants that they are about"
)]

mod attempts;
mod pauses;
mod properties;
mod purposes;
mod stages;
mod table;
mod twins;
mod unseen;
mod verifies;
mod wakes;

use jiff::{SignedDuration, Timestamp};

use super::state::{Cleanup, Exit, Order, Stage};
use super::*;

/// Monday noon: when every test's job was requested.
pub(super) fn noon() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

/// That many seconds after noon.
pub(super) fn at(seconds: i64) -> Timestamp {
    noon() + SignedDuration::from_secs(seconds)
}

pub(super) fn inputs(seconds: i64) -> Inputs {
    Inputs {
        now: at(seconds),
        jitter: 0.5,
        standing: Standing::Clear,
        redelivered: false,
    }
}

pub(super) fn order() -> Order {
    Order {
        job_id: JobId::parse("job-1").unwrap(),
        cpe_id: CpeId::parse("CPE1").unwrap(),
        firmware_url: FirmwareUrl::checked("https://files.example/fw-2.bin").unwrap(),
        rule_id: RuleId::parse("UPGRADE_CPE1").unwrap(),
        campaign_id: None,
        requested_at: noon(),
        repeats_since: noon(),
        is_dated_on_arrival: false,
        not_before: None,
        deadline: at(3_600),
        cleanup: Cleanup::Deactivate,
        priority: 1,
        executions: 1,
        max_attempts: 1,
        expected_version: None,
        force: false,
    }
}

pub(super) fn job(stage: Stage) -> Job {
    let mut job = Job::new(order());
    job.progress.stage = stage;
    job.progress.announced = true;
    job.progress.rule = match stage {
        Stage::Preflight | Stage::CreateRule => RuleState::NotCreated,
        Stage::ConnectionRequest | Stage::AwaitResult | Stage::Verify | Stage::DeactivateRule => {
            RuleState::Armed
        }
    };
    if stage == Stage::ConnectionRequest || stage == Stage::AwaitResult {
        job.progress.connection_requested_at = Some(noon());
    }
    if stage == Stage::Verify || stage == Stage::DeactivateRule {
        job.progress.exit = Some(Exit::End(Ending {
            outcome: Outcome::Completed,
            reason: Reason::Upgraded,
            impact: Impact::Applied,
            message: "the device reported success".to_owned(),
            result: Some(success(600)),
            fault: None,
            decided_at: at(600),
        }));
    }
    job
}

pub(super) fn row(id: &str, seconds: i64, code: i64, message: &str) -> ResultRow {
    ResultRow {
        id: id.to_owned(),
        ts: at(seconds).as_second(),
        code: Some(code),
        message: message.to_owned(),
        rule_description: None,
    }
}

pub(super) fn success(seconds: i64) -> ResultRow {
    row("row-ok", seconds, 200, "OK")
}

pub(super) fn faulted(seconds: i64, code: u16) -> ResultRow {
    row(
        "row-fault",
        seconds,
        500,
        &format!("Upgrade has failed with FaultCode {code}."),
    )
}

pub(super) fn undecided(seconds: i64) -> ResultRow {
    row("row-undecided", seconds, 500, "in progress")
}

pub(super) fn results(rows: &[ResultRow]) -> Result<NbiAnswer, NbiFailure> {
    Ok(NbiAnswer::Results {
        rows: rows.to_vec(),
        nbi_time: None,
    })
}

pub(super) fn our_rule(enabled: bool) -> RuleRow {
    RuleRow {
        enabled,
        automatic: enabled,
        file: Some("https://files.example/fw-2.bin".to_owned()),
        description: None,
    }
}

pub(super) fn other_rule(enabled: bool) -> RuleRow {
    RuleRow {
        file: Some("https://files.example/other.bin".to_owned()),
        ..our_rule(enabled)
    }
}

pub(super) fn rules(rows: &[RuleRow]) -> Result<NbiAnswer, NbiFailure> {
    Ok(NbiAnswer::Rules {
        rows: rows.to_vec(),
        filter_ignored: false,
    })
}

pub(super) fn transient() -> NbiFailure {
    NbiFailure::Transient {
        message: "503".to_owned(),
        retry_after: None,
        no_effect: false,
    }
}

pub(super) fn no_effect() -> NbiFailure {
    NbiFailure::Transient {
        message: "connection refused".to_owned(),
        retry_after: None,
        no_effect: true,
    }
}

pub(super) fn refused() -> NbiFailure {
    NbiFailure::Refused {
        message: "401".to_owned(),
    }
}

pub(super) fn not_sent() -> NbiFailure {
    NbiFailure::NotSent {
        message: "its turn did not come".to_owned(),
        retry_after: SignedDuration::from_secs(10),
    }
}

pub(super) fn rejected() -> NbiFailure {
    NbiFailure::Rejected {
        message: "400".to_owned(),
    }
}

pub(super) fn unintelligible() -> NbiFailure {
    NbiFailure::Unintelligible {
        message: "not JSON".to_owned(),
    }
}

/// The verdict in one line, as people read it.
pub(super) fn describe(decision: &Decision, now: Timestamp) -> String {
    let after = |until: &Timestamp| format!("{}s", until.duration_since(now).as_secs());
    let stage = decision.job.progress.stage.name();
    match &decision.next {
        Next::Step(step) => format!("Step {}", describe_step(step)),
        Next::Advance => format!("Advance to {stage}"),
        Next::Wait { until } => format!("Wait {} in {stage}", after(until)),
        Next::Retry { until } => format!("Retry {stage} in {}", after(until)),
        Next::Release { until } => format!("Release {stage} for {}", after(until)),
        Next::Finish(ending) => format!(
            "Finish {}/{} impact {} rule {}",
            ending.outcome.name(),
            ending.reason.name(),
            ending.impact.name(),
            decision.job.progress.rule.name()
        ),
    }
}

pub(super) fn describe_step(step: &Step) -> String {
    let debug = format!("{step:?}");
    debug
        .split([' ', '{'])
        .next()
        .unwrap_or_default()
        .to_owned()
}
