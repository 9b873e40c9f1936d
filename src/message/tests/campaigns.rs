//! Campaigns on the wire: what is taken, what is refused and how it is named, and that definition and log survive their way.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::campaign::{Conclusion, Device, FailureKind, PauseReason, Record, State};
use crate::job::{ArmAgain, CampaignId, CpeId, Outcome};
use crate::message::campaign::{self, CampaignEvent, Entry, Happened, Log, Waiting};
use crate::message::{CampaignRequest, Definition, Rejection, unix_seconds};

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

/// The request's first device, as it waits.
fn first_waiting(request: &CampaignRequest) -> Waiting {
    Waiting {
        device: request.devices[0].clone(),
        asked: request.definition.asked,
    }
}

/// What a worker makes of the device's request when it is started at noon.
fn started(definition: &Definition, waiting: &Waiting) -> Work {
    let request = definition.request(waiting, noon(), SignedDuration::from_hours(1));
    let incoming = Incoming {
        body: &request.body,
        timestamp: Some(unix_seconds(request.timestamp)),
        ..Incoming::default()
    };
    codec().decode_request(&incoming, noon()).unwrap()
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
            with(r#""pace":{"max_in_flight":1,"in_flight_timeout":"1ms"}"#),
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
    assert_eq!(again.asked, definition.asked);
    let same = CampaignRequest {
        definition: again.clone(),
        devices: Vec::new(),
    };
    assert_eq!(definition.objections(&same), []);
    let hour = SignedDuration::from_hours(1);
    let waiting = first_waiting(&taken(FULL));
    let job_id = again.request(&waiting, noon(), hour).job_id;
    let work = started(&again, &waiting);
    let order = work.job.order;
    assert_eq!(
        (&order.job_id, &order.campaign_id),
        (&job_id, &Some(CampaignId::parse("spring-26").unwrap()))
    );
    assert_eq!(order.requested_at, "2026-11-23T10:00:00Z".parse().unwrap());
    assert_eq!((order.deadline, order.max_attempts), (noon() + hour, 2));
    assert_eq!(
        work.carried.context.unwrap().get(),
        r#"{"order": [1, 2.50]}"#
    );
    // The device's time does not go beyond the campaign's.
    let late: Timestamp = "2026-12-23T23:30:00Z".parse().unwrap();
    let body = again.request(&waiting, late, hour).body;
    assert!(
        String::from_utf8(body)
            .unwrap()
            .contains(r#""deadline":"2026-12-24T00:00:00Z""#)
    );
    assert!(Definition::decode(b"{\"v\":2}").is_err());
}

#[test]
fn a_request_without_a_date_that_is_sent_again_asks_for_no_second_upgrade() {
    let day = SignedDuration::from_hours(24);
    let sent = |body: &str, at: Timestamp| {
        let incoming = Incoming {
            body: body.as_bytes(),
            timestamp: Some(at.as_second().cast_unsigned()),
            ..Incoming::default()
        };
        let request = codec().decode_campaign(&incoming, noon()).unwrap().unwrap();
        let kept = Definition::decode(&request.definition.encode()).unwrap();
        started(&kept, &first_waiting(&request)).job.order
    };
    let (first, again) = (noon() - day / 2, noon());
    let order = sent(SMALL, again);
    assert_eq!(order.requested_at, again);
    assert!(order.repeats_since <= first, "{}", order.repeats_since);
    assert_eq!(order.repeats_since, again - day);
    assert!(!order.is_dated_on_arrival);
    // One that says when it was made speaks for itself, and so does one that forces.
    let said = sent(&with(r#""requested_at":"2026-11-23T10:00:00Z""#), again);
    assert_eq!(said.requested_at, noon() - SignedDuration::from_hours(2));
    assert_eq!(said.repeats_since, said.requested_at);
    let forced = sent(&with(r#""force":true"#), again);
    assert_eq!(forced.repeats_since, again);
    // A definition that does not know how it was dated is taken for undated.
    let mut old: serde_json::Value =
        serde_json::from_slice(&taken(FULL).definition.encode()).unwrap();
    old.as_object_mut().unwrap().remove("dated_by_request");
    let old = Definition::decode(old.to_string().as_bytes()).unwrap();
    let waiting = old.decode_waiting(br#"{"cpe_id":"CPE1"}"#).unwrap();
    let order = started(&old, &waiting).job.order;
    assert_eq!(order.repeats_since, order.requested_at - day);
}

#[test]
fn devices_of_a_later_request_have_its_date_and_not_that_of_the_first() {
    let first = taken(&with(r#""requested_at":"2026-11-20T08:00:00Z""#));
    let definition = &first.definition;
    let order = |request: &CampaignRequest| {
        let body = definition.encode_waiting(&first_waiting(request));
        let waiting = definition.decode_waiting(&body).unwrap();
        started(definition, &waiting).job.order
    };
    let monday = order(&first);
    assert_eq!(
        monday.requested_at,
        "2026-11-20T08:00:00Z".parse::<Timestamp>().unwrap()
    );
    let later = taken(&with(r#""requested_at":"2026-11-22T09:30:00.5Z""#));
    let wednesday = order(&later);
    assert_eq!(
        wednesday.requested_at,
        "2026-11-22T09:30:00.5Z".parse::<Timestamp>().unwrap()
    );
    assert_eq!(wednesday.repeats_since, wednesday.requested_at);
    // One that does not say when it was made has a window, whatever the first one said.
    let undated = order(&taken(SMALL));
    assert_eq!(undated.requested_at, noon());
    assert!(undated.repeats_since < noon());
    // What waits as the first request has it stands there as before.
    let body = definition.encode_waiting(&first_waiting(&first));
    assert_eq!(body, br#"{"cpe_id":"CPE1"}"#);
    assert_eq!(definition.decode_waiting(b"[]"), None);
}

#[test]
fn a_later_request_may_differ_in_devices_and_its_date_alone() {
    let objections = |first: &str, later: &str| -> Vec<String> {
        let faults = taken(first).definition.objections(&taken(later));
        faults
            .into_iter()
            .map(|fault| format!("{} {}", fault.field, fault.message))
            .collect()
    };
    let fields = |first: &str, later: &str| -> Vec<String> {
        let faults = taken(first).definition.objections(&taken(later));
        faults.into_iter().map(|fault| fault.field).collect()
    };
    let none = Vec::<String>::new();
    assert_eq!(fields(SMALL, &SMALL.replace("CPE1", "CPE2")), none);
    assert_eq!(
        fields(SMALL, &with(r#""requested_at":"2026-11-22T00:00:00Z""#)),
        none
    );
    // What is said to be as it is anyway makes no difference.
    let said = with(r#""force":false,"priority":1.0,"executions":1,"abort":[],"pace":{}"#);
    assert_eq!(fields(SMALL, &said), none);
    assert_eq!(fields(&said, SMALL), none);
    assert_eq!(
        objections(SMALL, &SMALL.replace("fw.bin", "fw-3.bin")),
        [
            r#"firmware_url is "https://files.example/fw-3.bin", and campaign "c" was begun with "https://files.example/fw.bin"; send that to add devices, or choose another campaign_id"#
        ]
    );
    let more =
        with(r#""pace":{"starts_per_minute":9},"force":true,"deadline":"2026-12-24T00:00:00Z""#);
    assert_eq!(
        objections(SMALL, &more),
        [
            r#"deadline is "2026-12-24T00:00:00Z", and campaign "c" was begun without it; leave it out to add devices, or choose another campaign_id"#,
            r#"force is true, and campaign "c" was begun without it; leave it out to add devices, or choose another campaign_id"#,
            r#"pace.starts_per_minute is 9, and campaign "c" was begun without it; leave it out to add devices, or choose another campaign_id"#,
        ]
    );
    assert_eq!(
        objections(&more, SMALL)[2],
        r#"pace.starts_per_minute is not there, and campaign "c" was begun with 9; send that to add devices, or choose another campaign_id"#
    );
    let slow = |timeout: &str| {
        with(&format!(
            r#""pace":{{"max_in_flight":5,"in_flight_timeout":"{timeout}"}}"#
        ))
    };
    assert_eq!(fields(&slow("90m"), &slow("1h30m")), none);
    assert_eq!(
        objections(&slow("45m"), &slow("1h")),
        [
            r#"pace.in_flight_timeout is "1h", and campaign "c" was begun with "45m"; send that to add devices, or choose another campaign_id"#
        ]
    );
    // Devices without a key need no limit for keys, and their request cannot name one.
    let keyed = |more: &str| {
        with(more).replace(
            r#"["CPE1"]"#,
            r#"[{"cpe_id":"CPE1","concurrency_key":"olt-7"}]"#,
        )
    };
    let limit = r#""max_in_flight_per_key":3"#;
    assert_eq!(fields(&keyed(limit), SMALL), none);
    assert_eq!(fields(&keyed(limit), &keyed(limit)), none);
    assert_eq!(
        objections(&keyed(limit), &keyed(r#""force":false"#)),
        [
            r#"max_in_flight_per_key is not there, and campaign "c" was begun with 3; send that to add devices, or choose another campaign_id"#
        ]
    );
    let refused = take(&with(limit)).unwrap().unwrap_err();
    assert!(
        refused.faults[0].message.contains("leave it out"),
        "{refused}"
    );
}

#[test]
fn the_log_gives_back_what_was_written_and_takes_events() {
    let definition = taken(SMALL).definition;
    let codes = BTreeSet::from([9016]);
    let read = |body: &[u8]| Log::of_any(definition.campaign_id.clone()).read(body, &codes);
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
    // Each order to cancel has its answer, and a repeat of it the same id.
    let again = |order| event(&Happened::Cancelling, Some((order, None))).id;
    assert_eq!(cancelling.id, again("8"));
    assert_ne!(cancelling.id, again("9"));
    assert_eq!(
        read(&cancelling.body),
        Entry::Record(Record::Cancelling {
            at: noon(),
            order: Some("8".to_owned())
        })
    );
    let arm_again = |after, over| {
        Some(ArmAgain {
            after: SignedDuration::from_mins(after),
            over: SignedDuration::from_mins(over),
        })
    };
    for (arm_again, told) in [
        (None, "}"),
        (arm_again(30, 0), r#""arm_again_after":"1800s","#),
        (
            arm_again(30, 120),
            r#""arm_again_after":"1800s","arm_again_over":"7200s","#,
        ),
    ] {
        let resumed = event(&Happened::Resumed { arm_again }, Some(("9", None)));
        let text = String::from_utf8(resumed.body.clone()).unwrap();
        let is_told = |field: &str| (text.contains(field), told.contains(field));
        for (is, should) in ["arm_again_after", "arm_again_over"].map(is_told) {
            assert_eq!(is, should, "{text}");
        }
        assert!(text.contains(told), "{text}");
        assert_eq!(
            read(&resumed.body),
            Entry::Record(Record::Resumed {
                at: noon(),
                arm_again,
                order: Some("9".to_owned())
            })
        );
        let all = campaign::encode_everything_resumed(noon(), true, arm_again, "10");
        assert_eq!(
            read(&all),
            Entry::Record(Record::EverythingResumed {
                at: noon(),
                ends_pause: true,
                arm_again,
                order: "10".to_owned()
            })
        );
        // A worker of before takes what has a coordinator for a release or a marker.
        let all = String::from_utf8(all).unwrap();
        assert!(!all.contains("coordinator"), "{all}");
    }
    // As it was written before it said over how long.
    let all = br#"{"v":1,"at":"2026-11-23T12:00:00Z","everything_resumed":{"order":"10","ends_pause":true,"arm_again_after_s":1800}}"#;
    assert_eq!(
        read(all),
        Entry::Record(Record::EverythingResumed {
            at: noon(),
            ends_pause: true,
            arm_again: arm_again(30, 0),
            order: "10".to_owned()
        })
    );
    let over = event(&Happened::Concluded(Conclusion::Completed), None);
    assert_eq!(
        read(&over.body),
        Entry::Record(Record::Concluded {
            began_at: definition.began_at
        })
    );
    assert_eq!(read(b"\xff"), Entry::Other);
}

#[test]
fn a_campaign_that_is_over_once_more_says_so_under_an_id_of_its_own() {
    let definition = taken(SMALL).definition;
    let over = |state: &State, conclusion| {
        let event = CampaignEvent {
            definition: &definition,
            state,
            waiting: 0,
            happened: &Happened::Concluded(conclusion),
            order: None,
            now: noon(),
        };
        event.message(&codec().events)
    };
    let mut state = State::default();
    let first = over(&state, Conclusion::Completed);
    assert_eq!(first.id, over(&state, Conclusion::Completed).id);
    // As it was before it was counted: workers of two releases may tell of the same end.
    assert_eq!(first.id, "f097b255-185e-561c-8e92-da927c56ca80");
    // Another coordinator had accepted devices before this came into the log.
    let mut log = Log::of(&definition);
    let Entry::Record(record) = log.read(&first.body, &BTreeSet::new()) else {
        panic!("{first:?}")
    };
    state.apply(&record, &definition.plan, definition.began_at);
    for conclusion in [Conclusion::Completed, Conclusion::Cancelled] {
        let second = over(&state, conclusion);
        assert_eq!(second.id, over(&state, conclusion).id);
        assert_ne!(second.id, first.id);
    }
}

/// What ends between its publishing and its coming back is told by the next one.
#[test]
fn a_progress_event_in_the_log_says_what_it_told() {
    let definition = taken(SMALL).definition;
    let codes = BTreeSet::new();
    let read = |body: &[u8]| match Log::of_any(definition.campaign_id.clone()).read(body, &codes) {
        Entry::Record(record) => record,
        other => panic!("{other:?}"),
    };
    let finished = |cpe_id: &str, reason: &str| {
        let body = format!(
            r#"{{"type":"upgrade.failed","time":"2026-11-23T12:00:00Z","data":{{"job_id":"c:{cpe_id}","cpe_id":"{cpe_id}","reason":"{reason}"}}}}"#
        );
        read(body.as_bytes())
    };
    let mut state = State::default();
    let apply = |record: &Record, state: &mut State| {
        state.apply(record, &definition.plan, definition.began_at);
    };
    apply(&finished("CPE1", "timed_out"), &mut state);
    apply(&finished("CPE2", "device_fault"), &mut state);
    let told = state.counts();
    let event = CampaignEvent {
        definition: &definition,
        state: &state,
        waiting: 1,
        happened: &Happened::Progress,
        order: None,
        now: noon(),
    };
    let progress = event.message(&codec().events);
    apply(&finished("CPE3", "timed_out"), &mut state);
    apply(&read(&progress.body), &mut state);
    assert_eq!(state.progressed, Some((noon(), told)));
    assert_eq!((told.timed_out, told.device_fault, told.failed), (1, 1, 2));
    assert_ne!(state.counts(), told);
}

/// A campaign of the same name that was led by somebody who was cut off may be told to be over when this one is under way.
#[test]
fn the_end_of_an_earlier_run_that_is_told_late_forgets_nothing_of_this_one() {
    let definition = taken(SMALL).definition;
    let codes = BTreeSet::new();
    let event = |kind: &str, began_at: Timestamp| {
        format!(
            r#"{{"type":"upgrade.campaign.{kind}","time":"2026-11-23T12:00:00Z","data":{{"began_at":"{began_at}"}}}}"#
        )
    };
    let earlier = definition.began_at - SignedDuration::from_hours(1);
    let ends = Entry::Record(Record::Concluded { began_at: earlier });
    let mut log = Log::of(&definition);
    let mut read = |body: &str| log.read(body.as_bytes(), &codes);
    drop(read(&event("accepted", earlier)));
    assert_eq!(read(&event("completed", earlier)), ends);
    let since = definition.asked.at - SignedDuration::from_hours(2);
    let since = String::from_utf8(campaign::encode_asked_since(noon(), since)).unwrap();
    drop(read(&since));
    drop(read(&event("accepted", definition.began_at)));
    assert_eq!(read(&event("completed", earlier)), Entry::Other);
    let own = definition.began_at;
    assert_eq!(
        read(&event("completed", own)),
        Entry::Record(Record::Concluded { began_at: own })
    );
    assert!(!log.is_before(definition.asked.at - SignedDuration::from_hours(1)));
}

/// The sweep reads a log without a definition.
#[test]
fn a_log_that_is_read_without_its_definition_tells_runs_apart_as_well() {
    let codes = BTreeSet::new();
    let accepted = |at: &str| {
        format!(
            r#"{{"type":"upgrade.campaign.accepted","time":"{at}","data":{{"began_at":"{at}","requested_at":"{at}"}}}}"#
        )
    };
    let completed = |requested_at: &str| {
        format!(
            r#"{{"type":"upgrade.completed","time":"2026-11-23T12:00:00Z","data":{{"job_id":"c:CPE1","cpe_id":"CPE1",
                "reason":"upgraded","requested_at":"{requested_at}"}}}}"#
        )
    };
    let mut log = Log::of_any(CampaignId::parse("c").unwrap());
    let mut counts = |body: &str| {
        matches!(
            log.read(body.as_bytes(), &codes),
            Entry::Record(Record::Finished { .. })
        )
    };
    let (first, second) = ("2026-11-23T10:00:00Z", "2026-11-23T11:00:00Z");
    assert!(!counts(&accepted(first)) && counts(&completed(first)));
    assert!(!counts(&accepted(second)));
    assert!(!counts(&completed(first)) && counts(&completed(second)));
}

/// A job takes no date that is more than a minute ahead: then it is dated by its message, at its start.
#[test]
fn outcomes_count_where_the_clock_of_the_request_was_ahead() {
    let mut definition = taken(SMALL).definition;
    let started_at = definition.began_at + SignedDuration::from_secs(1);
    definition.asked.at = definition.began_at + SignedDuration::from_secs(59);
    let body = format!(
        r#"{{"type":"upgrade.completed","time":"2026-11-23T12:00:00Z","data":{{"job_id":"c:CPE1","cpe_id":"CPE1",
            "reason":"upgraded","requested_at":"{started_at}"}}}}"#
    );
    let entry = Log::of(&definition).read(body.as_bytes(), &BTreeSet::new());
    assert!(
        matches!(entry, Entry::Record(Record::Finished { .. })),
        "{entry:?}"
    );
}

#[test]
fn outcomes_in_the_log_are_those_of_the_campaigns_own_jobs() {
    let id = CampaignId::parse("c").unwrap();
    let codes = BTreeSet::from([9016]);
    let read = |kind: &str, job_id: &str, more: &str| {
        let body = format!(
            r#"{{"type":"{kind}","time":"2026-11-23T12:00:00Z","data":{{"job_id":"{job_id}","cpe_id":"CPE1"{more}}}}}"#
        );
        Log::of_any(id.clone()).read(body.as_bytes(), &codes)
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

#[test]
fn what_an_earlier_run_of_the_name_came_to_settles_no_device_of_this_one() {
    let definition = taken(&with(r#""requested_at":"2026-11-23T11:00:00.7Z""#)).definition;
    let codes = BTreeSet::new();
    let completed = |requested_at: &str| {
        format!(
            r#"{{"type":"upgrade.completed","time":"2026-11-23T12:00:00Z","data":{{"job_id":"c:CPE1","cpe_id":"CPE1",
                "reason":"upgraded"{requested_at}}}}}"#
        )
    };
    let of = |at: &str| completed(&format!(r#","requested_at":"{at}""#));
    let mut log = Log::of(&definition);
    let mut counts = |body: &str| {
        matches!(
            log.read(body.as_bytes(), &codes),
            Entry::Record(Record::Finished { .. })
        )
    };
    let (before, at, after) = (
        of("2026-11-23T10:59:59Z"),
        of("2026-11-23T11:00:00.7Z"),
        of("2026-11-25T08:00:00Z"),
    );
    assert!(!counts(&before));
    // Of this one, of one that a later request added, and of one without a date, as rejections are.
    assert!(counts(&at) && counts(&after) && counts(&completed("")));
    // An undated request has whole seconds.
    assert!(counts(&of("2026-11-23T11:00:00Z")));
    // A later request may have been made earlier. That it came is written first.
    let since = "2026-11-23T10:59:59.2Z".parse().unwrap();
    let mut log = Log::of(&definition);
    assert!(log.is_before(since) && !log.is_before(definition.asked.at));
    let written = campaign::encode_asked_since(noon(), since);
    // A release from before it must not read a marker there.
    assert!(!String::from_utf8_lossy(&written).contains("coordinator"));
    assert_eq!(log.read(&written, &codes), Entry::AskedSince { at: since });
    assert!(!log.is_before(since));
    let mut counts = |body: &str| {
        matches!(
            log.read(body.as_bytes(), &codes),
            Entry::Record(Record::Finished { .. })
        )
    };
    assert!(counts(&before) && !counts(&of("2026-11-23T10:59:58Z")));
    // What an earlier campaign wrote before it ended says nothing about this one.
    let over = r#"{"type":"upgrade.campaign.completed","time":"2026-11-23T12:00:00Z","data":{"began_at":"2026-11-01T00:00:00Z"}}"#;
    assert!(!counts(over));
    assert!(!counts(&before) && counts(&at));
}
