//! Campaigns on the wire: what is taken, what is refused and how it is named, and that definition and log survive their way.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::*;
use crate::campaign::{Device, FailureKind, PauseReason, Record, State};
use crate::job::{CampaignId, CpeId, Outcome};
use crate::message::campaign::{self, CampaignEvent, Entry, Happened};
use crate::message::{CampaignRequest, Definition, Rejection};

const FULL: &str = r#"{"campaign_id":"spring-26","devices":["CPE1",{"cpe_id":"CPE2","concurrency_key":"olt-7"},{"cpe_id":"CPE3"}],
    "firmware_url":"https://files.example/fw.bin","requested_at":"2026-11-23T10:00:00Z","not_before":"2026-11-24T00:00:00Z",
    "deadline":"2026-12-24T00:00:00Z","cleanup":"delete","max_attempts":2,"context":{"order": [1, 2.50]},
    "pace":{"starts_per_minute":60,"max_in_flight":500,"in_flight_timeout":"45m","ramp":{"factor":1.5,"after_successes":100}},
    "abort":[{"failure":"any","percent":5,"min_finished":50},{"failure":"configuration","percent":0.5,"min_finished":1}],
    "window":{"start":"23:00","end":"05:30","time_zone":"Europe/Berlin","days":["mon","fri"]},"max_in_flight_per_key":3}"#;

const SMALL: &str =
    r#"{"campaign_id":"c","devices":["CPE1"],"firmware_url":"https://files.example/fw.bin"}"#;

fn take(body: &str) -> Option<Result<CampaignRequest, Rejection>> {
    let incoming = Incoming {
        body: body.as_bytes(),
        correlation_id: Some("order-7"),
        ..Incoming::default()
    };
    codec().decode_campaign(&incoming, noon())
}

fn taken(body: &str) -> CampaignRequest {
    take(body).unwrap().unwrap()
}

/// The fields at fault.
fn fields(body: &str) -> Vec<String> {
    let faults = take(body).unwrap().unwrap_err().faults;
    faults.into_iter().map(|fault| fault.field).collect()
}

/// The small request with one field more.
fn with(more: &str) -> String {
    SMALL.replacen('{', &format!("{{{more},"), 1)
}

#[test]
fn every_field_is_taken() {
    let CampaignRequest {
        definition,
        devices,
    } = taken(FULL);
    let named: Vec<_> = devices
        .iter()
        .map(|device| (device.cpe_id.as_str(), device.concurrency_key.as_deref()))
        .collect();
    assert_eq!(
        named,
        [("CPE1", None), ("CPE2", Some("olt-7")), ("CPE3", None)]
    );
    let plan = &definition.plan;
    assert_eq!(
        plan.pace.in_flight_timeout,
        Some(SignedDuration::from_mins(45))
    );
    let ramp = plan.pace.ramp.as_ref().unwrap();
    assert_eq!(
        (
            ramp.factor,
            ramp.after_successes,
            ramp.max_starts_per_minute
        ),
        (1.5, 100, 600)
    );
    assert_eq!(plan.abort[1].failure, FailureKind::Configuration);
    assert_eq!(
        (plan.abort[1].percent, plan.abort[1].min_finished),
        (0.5, 1)
    );
    assert_eq!(plan.window.as_ref().unwrap().days.len(), 2);
    assert_eq!(
        (plan.max_in_flight_per_key, plan.configuration_faults),
        (Some(3), 3)
    );
    assert_eq!(definition.firmware_url(), "https://files.example/fw.bin");
    assert_eq!(
        definition.carried.correlation_id.as_deref(),
        Some("order-7")
    );
}

#[test]
fn a_request_without_devices_is_no_campaigns() {
    assert!(take(MINIMAL).is_none());
    assert!(
        take(r#"{"job_id":"j","cpe_id":"c","firmware_url":"http://f/x","context":{"devices":[]}}"#)
            .is_none()
    );
    assert!(
        take("{\"devices\"").is_none(),
        "what cannot be read is named where single requests are"
    );
}

#[test]
fn every_fault_is_named_with_its_place() {
    for (body, expected) in [
        (
            SMALL.replace(r#""campaign_id":"c","#, ""),
            vec!["campaign_id"],
        ),
        (
            with(r#""job_id":"j","cpe_id":"c""#),
            vec!["job_id", "cpe_id"],
        ),
        (with(r#""pace":7"#), vec!["pace"]),
        (
            with(r#""pace":{"starts_per_minute":0,"speed":1}"#),
            vec!["pace.starts_per_minute", "pace.speed"],
        ),
        (
            with(r#""pace":{"in_flight_timeout":"1h"}"#),
            vec!["pace.in_flight_timeout"],
        ),
        (
            with(r#""pace":{"max_in_flight":1,"in_flight_timeout":"-1h"}"#),
            vec!["pace.in_flight_timeout"],
        ),
        (
            with(r#""pace":{"ramp":{"factor":2,"after_successes":1}}"#),
            vec!["pace.ramp"],
        ),
        (
            with(r#""pace":{"starts_per_minute":1,"ramp":{"factor":1}}"#),
            vec!["pace.ramp.factor", "pace.ramp.after_successes"],
        ),
        (with(r#""abort":{}"#), vec!["abort"]),
        (
            with(r#""abort":[{"failure":"some","percent":101}]"#),
            vec![
                "abort[0].failure",
                "abort[0].percent",
                "abort[0].min_finished",
            ],
        ),
        (
            with(r#""window":{"start":"1:00","end":"25:00","time_zone":"Mars/Olympus"}"#),
            vec!["window.start", "window.end", "window.time_zone"],
        ),
        (
            with(
                r#""window":{"start":"01:00","end":"01:00","time_zone":"UTC","days":["mon","mon","someday"]}"#,
            ),
            vec!["window.end", "window.days", "window.days"],
        ),
        (
            with(r#""max_in_flight_per_key":2"#),
            vec!["max_in_flight_per_key"],
        ),
        (with(r#""colour":"red""#), vec!["colour"]),
        (SMALL.replace(r#"["CPE1"]"#, "[]"), vec!["devices"]),
        (SMALL.replace(r#"["CPE1"]"#, "null"), vec!["devices"]),
        (
            SMALL.replace(
                r#"["CPE1"]"#,
                r#"["CPE1","*",7,{"cpe_id":"a b"},{"id":"x"},{"cpe_id":"d","concurrency_key":""}]"#,
            ),
            vec![
                "devices[1]",
                "devices[2]",
                "devices[3].cpe_id",
                "devices[4]",
                "devices[5].concurrency_key",
            ],
        ),
        (
            SMALL.replace(
                r#"["CPE1"]"#,
                r#"["d",{"cpe_id":"d","concurrency_key":"k"}]"#,
            ),
            vec!["devices[1].concurrency_key"],
        ),
    ] {
        assert_eq!(fields(&body), expected, "{body}");
    }
}

#[test]
fn ten_thousand_devices_with_the_longest_names_fit_and_one_more_does_not() {
    let device = |number: usize| {
        format!(r#"{{"cpe_id":"{number:0>128}","concurrency_key":"{number:0>128}"}}"#)
    };
    let request = |count: usize| {
        let all: Vec<_> = (1..=count).map(device).collect();
        SMALL.replace(r#"["CPE1"]"#, &format!("[{}]", all.join(",")))
    };
    let body = request(10_000);
    assert!(body.len() < campaign::BODY_MAX, "{}", body.len());
    assert_eq!(taken(&body).devices.len(), 10_000);
    assert_eq!(fields(&request(10_001)), ["devices"]);
    let large = format!("{SMALL}{}", " ".repeat(campaign::BODY_MAX));
    assert_eq!(fields(&large), ["body"]);
}

#[test]
fn a_device_that_is_named_twice_counts_once() {
    let body = SMALL.replace(r#"["CPE1"]"#, r#"["CPE1",{"cpe_id":"CPE1"},"CPE2"]"#);
    assert_eq!(taken(&body).devices.len(), 2);
}

#[test]
fn jobs_are_named_after_campaign_and_device_or_by_a_hash_that_stays() {
    let id = CampaignId::parse("spring").unwrap();
    let job_id = |cpe_id: &str| campaign::job_id(&id, &CpeId::parse(cpe_id).unwrap()).to_string();
    assert_eq!(job_id("001122-ABC"), "spring:001122-ABC");
    // Written into the documents: must never change.
    assert_eq!(
        job_id("ABC@home"),
        "spring:u-3c661faf-ff84-5953-a3b9-9ae1399654bd"
    );
    assert_ne!(job_id("ABC@home"), job_id("ABC#home"));
    assert_eq!(job_id(&"x".repeat(128)).len(), "spring:u-".len() + 36);
}

#[test]
fn a_definition_survives_its_way_and_makes_the_same_requests() {
    let definition = taken(FULL).definition;
    let again = Definition::decode(&definition.encode()).unwrap();
    assert_eq!(again.plan, definition.plan);
    assert_eq!(definition.differences(&again), Vec::<String>::new());
    let device = Device {
        cpe_id: CpeId::parse("CPE1").unwrap(),
        concurrency_key: None,
    };
    let hour = SignedDuration::from_hours(1);
    let (job_id, body) = again.request(&device, noon(), hour);
    let incoming = Incoming {
        body: &body,
        ..Incoming::default()
    };
    let work = codec().decode_request(&incoming, noon()).unwrap();
    let order = work.job.order;
    assert_eq!(
        (order.job_id, order.campaign_id),
        (job_id, Some(CampaignId::parse("spring-26").unwrap()))
    );
    assert_eq!(order.requested_at, "2026-11-23T10:00:00Z".parse().unwrap());
    assert_eq!((order.deadline, order.max_attempts), (noon() + hour, 2));
    assert_eq!(
        work.carried.context.unwrap().get(),
        r#"{"order": [1, 2.50]}"#
    );
    // The device's time does not go beyond the campaign's.
    let late: Timestamp = "2026-12-23T23:30:00Z".parse().unwrap();
    let (_, body) = again.request(&device, late, hour);
    assert!(
        String::from_utf8(body)
            .unwrap()
            .contains(r#""deadline":"2026-12-24T00:00:00Z""#)
    );
    assert!(Definition::decode(b"{\"v\":2}").is_err());
}

#[test]
fn a_later_request_may_differ_in_devices_and_times_alone() {
    let first = taken(SMALL).definition;
    let other =
        |from: &str, to: &str| first.differences(&taken(&SMALL.replacen(from, to, 1)).definition);
    assert_eq!(other("CPE1", "CPE2"), Vec::<String>::new());
    assert_eq!(
        other("{", r#"{"requested_at":"2026-11-22T00:00:00Z","#),
        Vec::<String>::new()
    );
    assert_eq!(other("fw.bin", "fw-3.bin"), ["firmware_url"]);
    assert_eq!(
        other("{", r#"{"pace":{"starts_per_minute":9},"force":true,"#),
        ["force", "pace.starts_per_minute"]
    );
}

#[test]
fn the_log_gives_back_what_was_written_and_takes_events() {
    let definition = taken(SMALL).definition;
    let codes = BTreeSet::from([9016]);
    let read = |body: &[u8]| campaign::decode_entry(body, &definition.campaign_id, &codes);
    assert_eq!(
        read(&campaign::encode_marker("a", noon())),
        Entry::Marker {
            coordinator: "a".to_owned()
        }
    );
    let devices = vec![Device {
        cpe_id: CpeId::parse("CPE1").unwrap(),
        concurrency_key: Some("k".to_owned()),
    }];
    let released = Record::Released {
        coordinator: "a".to_owned(),
        at: noon(),
        devices: devices.clone(),
    };
    assert_eq!(
        read(&campaign::encode_release("a", noon(), &devices)),
        Entry::Record(released)
    );
    let state = State::default();
    let event = |happened: &Happened, order| {
        let event = CampaignEvent {
            definition: &definition,
            state: &state,
            waiting: 1,
            happened,
            order,
            now: noon(),
        };
        event.message(&codec().events)
    };
    let paused = Happened::Paused {
        reason: PauseReason::Abort,
        message: "m".to_owned(),
    };
    let message = event(&paused, Some(("7", Some("c-1"))));
    assert_eq!(message.routing_key, "upgrade.campaign.paused.c");
    assert_eq!(message.correlation_id.as_deref(), Some("c-1"));
    assert_eq!(
        message.id,
        event(&paused, None).id,
        "a repeat has the same id"
    );
    let expected = Record::Paused {
        at: noon(),
        reason: PauseReason::Abort,
        message: "m".to_owned(),
        order: Some("7".to_owned()),
    };
    assert_eq!(read(&message.body), Entry::Record(expected));
    let cancelling = event(&Happened::Cancelling, Some(("8", None)));
    assert_eq!(
        read(&cancelling.body),
        Entry::Record(Record::Cancelling {
            at: noon(),
            order: Some("8".to_owned())
        })
    );
    let over = event(
        &Happened::Concluded(crate::campaign::Conclusion::Completed),
        None,
    );
    assert_eq!(
        read(&over.body),
        Entry::Record(Record::Concluded {
            began_at: definition.began_at
        })
    );
    assert_eq!(read(b"\xff"), Entry::Other);
}

#[test]
fn outcomes_in_the_log_are_those_of_the_campaigns_own_jobs() {
    let id = CampaignId::parse("c").unwrap();
    let codes = BTreeSet::from([9016]);
    let read = |kind: &str, job_id: &str, more: &str| {
        let body = format!(
            r#"{{"type":"{kind}","time":"2026-11-23T12:00:00Z","data":{{"job_id":"{job_id}","cpe_id":"CPE1"{more}}}}}"#
        );
        campaign::decode_entry(body.as_bytes(), &id, &codes)
    };
    let finished = |outcome, failure| {
        Entry::Record(Record::Finished {
            at: noon(),
            cpe_id: CpeId::parse("CPE1").unwrap(),
            outcome,
            failure,
        })
    };
    let failed = "upgrade.failed";
    assert_eq!(
        read("upgrade.completed", "c:CPE1", r#","reason":"upgraded""#),
        finished(Outcome::Completed, None)
    );
    assert_eq!(
        read(failed, "c:CPE1", r#","reason":"timed_out""#),
        finished(Outcome::Failed, Some(FailureKind::TimedOut))
    );
    for (code, kind) in [
        (9016, FailureKind::Configuration),
        (9018, FailureKind::DeviceFault),
    ] {
        let more = format!(r#","reason":"device_fault","fault":{{"code":{code}}}"#);
        assert_eq!(
            read(failed, "c:CPE1", &more),
            finished(Outcome::Failed, Some(kind))
        );
    }
    assert_eq!(
        read(
            "upgrade.rejected",
            "c:CPE1",
            r#","reason":"invalid_request""#
        ),
        finished(Outcome::Rejected, Some(FailureKind::Any))
    );
    assert_eq!(
        read(failed, "another", r#","reason":"timed_out""#),
        Entry::Other
    );
    assert_eq!(read("upgrade.accepted", "c:CPE1", ""), Entry::Other);
}
