//! Any ending with any texts and times, structure-aware: what is published is JSON, bounded by what went in, and says what happened.

use arbitrary::{Arbitrary, Unstructured};
use jiff::Timestamp;
use nbi_upgrade::job::fault::{self, Fault};
use nbi_upgrade::job::outcome::{Ending, Impact, Outcome, Reason, RuleState};
use nbi_upgrade::job::state::{Cleanup, Exit, Order, StageRecord};
use nbi_upgrade::job::{
    CampaignId, CpeId, FirmwareUrl, Job, JobEvent, JobId, ResultRow, RuleId, Stage,
};
use nbi_upgrade::message::{Carried, Work};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Accepted, check_event, check_round_trip, codec};

/// A job that is over.
#[derive(Debug, Arbitrary)]
struct Over<'a> {
    ids: [&'a str; 5],
    context: Option<&'a str>,
    times: [i64; 6],
    kinds: [u8; 5],
    message: &'a str,
    result: Option<Row<'a>>,
    fault: Option<(u16, &'a str, bool)>,
    stages: Vec<Record<'a>>,
    baseline: Vec<(&'a str, i64)>,
    carried: [Option<&'a str>; 4],
    numbers: [u32; 4],
}

/// A result row.
#[derive(Debug, Arbitrary)]
struct Row<'a> {
    id: &'a str,
    ts: i64,
    code: Option<i64>,
    message: &'a str,
    description: Option<&'a str>,
}

/// What happened in a stage.
#[derive(Debug, Arbitrary)]
struct Record<'a> {
    stage: u8,
    attempts: u32,
    started: i64,
    finished: Option<i64>,
    failed: bool,
    error: Option<&'a str>,
}

/// One input, and as what it was accepted; bytes that make none are passed over.
///
/// # Panics
///
/// When a promise is broken.
pub fn play(bytes: &[u8]) -> Accepted {
    let Ok(over) = Over::arbitrary_take_rest(Unstructured::new(bytes)) else {
        return Accepted::new();
    };
    let time = |seconds: i64| {
        Timestamp::from_second(seconds)
            .or_else(|_| Timestamp::from_second(seconds % 200_000_000_000))
            .unwrap_or(Timestamp::MAX)
    };
    let pick = |kind: u8, count: usize| usize::from(kind) % count;
    let [job_id, cpe_id, rule_id, campaign_id, file] = over.ids;
    // Ids that are none stand for the shortest and the longest one.
    let job_id =
        JobId::parse(job_id).unwrap_or_else(|_| JobId::parse("j".repeat(128)).expect("an id"));
    let cpe_id = CpeId::parse(cpe_id).unwrap_or_else(|_| CpeId::parse("c").expect("an id"));
    let rule_id =
        RuleId::parse(rule_id).unwrap_or_else(|_| RuleId::parse("r".repeat(320)).expect("an id"));
    let firmware_url = FirmwareUrl::checked(file)
        .unwrap_or_else(|_| FirmwareUrl::checked("http://f/w").expect("a URL"));
    let order = Order {
        job_id,
        cpe_id,
        firmware_url,
        rule_id,
        campaign_id: CampaignId::parse(campaign_id).ok(),
        requested_at: time(over.times[0]),
        repeats_since: time(over.times[0]),
        is_dated_on_arrival: false,
        not_before: (over.times[1] != 0).then(|| time(over.times[1])),
        deadline: time(over.times[2]),
        cleanup: [Cleanup::Deactivate, Cleanup::Delete, Cleanup::Keep][pick(over.kinds[0], 3)],
        priority: over.numbers[0],
        executions: over.numbers[1],
        max_attempts: over.numbers[2],
        expected_version: over.carried[0].map(str::to_owned),
        force: over.kinds[0] & 128 != 0,
    };
    let ending = Ending {
        outcome: Outcome::ALL[pick(over.kinds[1], Outcome::ALL.len())],
        reason: Reason::ALL[pick(over.kinds[2], Reason::ALL.len())],
        impact: Impact::ALL[pick(over.kinds[3], Impact::ALL.len())],
        message: over.message.to_owned(),
        result: over.result.as_ref().map(|row| ResultRow {
            id: row.id.to_owned(),
            ts: row.ts,
            code: row.code,
            message: row.message.to_owned(),
            rule_description: row.description.map(str::to_owned),
        }),
        fault: over.fault.map(|(code, message, transient)| Fault {
            code,
            name: fault::name(code),
            message: message.to_owned(),
            transient,
        }),
        decided_at: time(over.times[3]),
    };
    let mut job = Job::new(order);
    job.progress.rule = RuleState::ALL[pick(over.kinds[4], RuleState::ALL.len())];
    job.progress.attempt = over.numbers[3].max(1);
    job.progress.started_at = (over.times[4] != 0).then(|| time(over.times[4]));
    job.progress.exit = Some(Exit::End(ending.clone()));
    job.progress.baseline.extend(over.baseline.iter().copied());
    job.progress.stages = over
        .stages
        .iter()
        .take(Stage::ALL.len())
        .map(|record| StageRecord {
            stage: Stage::ALL[pick(record.stage, Stage::ALL.len())],
            attempts: record.attempts,
            started_at: time(record.started),
            finished_at: record.finished.map(time),
            failed: record.failed,
            last_error: record.error.map(str::to_owned),
        })
        .collect();
    let short = |text: Option<&str>| text.filter(|text| text.len() <= 512).map(str::to_owned);
    let context = over.context.and_then(|text| {
        let raw = RawValue::from_string(text.to_owned()).ok()?;
        // What the codec lets through can be read as a value, and is one.
        let value: Value = serde_json::from_str(raw.get()).ok()?;
        (!value.is_null()).then_some(raw)
    });
    let work = Work {
        job,
        carried: Carried {
            context,
            correlation_id: short(over.carried[0]),
            reply_to: short(over.carried[1]),
            traceparent: short(over.carried[2]),
            tracestate: short(over.carried[3]),
        },
        not_due_before: None,
    };
    let codec = codec(false);
    let now = time(over.times[5]);
    let happened = [
        JobEvent::Accepted,
        JobEvent::StageDone {
            stage: Stage::ALL[pick(over.kinds[0], Stage::ALL.len())],
            attempt: 1,
            took: jiff::SignedDuration::ZERO,
        },
        JobEvent::Finished {
            ending: Box::new(ending.clone()),
            took: jiff::SignedDuration::ZERO,
        },
    ];
    let texts = over.ids.iter().map(|id| id.len()).sum::<usize>()
        + over.message.len()
        + over
            .result
            .as_ref()
            .map_or(0, |row| row.id.len() + row.message.len())
        + over.fault.map_or(0, |(_, message, _)| message.len())
        + over
            .stages
            .iter()
            .map(|record| record.error.map_or(0, str::len) + 200)
            .sum::<usize>()
        + over.context.map_or(0, str::len)
        + over
            .carried
            .iter()
            .flatten()
            .map(|text| text.len())
            .sum::<usize>();
    let events = codec.published_events(&work, &happened, now);
    assert_eq!(events.len(), 3);
    for event in &events {
        // JSON writes a control character with six bytes.
        let value = check_event(event, 6 * texts + 4_096);
        assert_eq!(value["data"]["job_id"], work.job.order.job_id.as_str());
        if event.kind.is_final() {
            assert_eq!(value["data"]["message"], over.message);
            assert_eq!(value["data"]["outcome"], ending.outcome.name());
        } else {
            assert!(event.reply_to.is_none());
        }
    }
    let again = codec.published_events(&work, &happened, now);
    assert!(
        events
            .iter()
            .zip(&again)
            .all(|(a, b)| a.id == b.id && a.body == b.body)
    );
    check_round_trip(&codec, &work);
    vec![ending.outcome.name()]
}
