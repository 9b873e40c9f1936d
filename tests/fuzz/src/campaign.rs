//! Any bytes as a campaign's request, as its kept definition, as a device in its queue and as an entry of its log.
//!
//! Accepted: within the contract's limits, the definition is the same when written and read again, and the request of each device is
//! accepted as a single one, under the job's id that the campaign counts with. Rejected: bounded, with texts fit for one line.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use nbi_upgrade::message::campaign::{
    BODY_MAX, CampaignRequest, DEVICES_MAX, Definition, Entry, KEY_MAX, Log, Waiting,
    encode_asked_since, encode_marker, encode_release, job_id,
};
use nbi_upgrade::message::{Incoming, unix_seconds};

use super::{Accepted, EVENT_MAX, check_event, check_request, codec, is_one_line, now};

const SPRING: &[u8] =
    br#"{"campaign_id":"spring","devices":["CPE1"],"firmware_url":"https://files.example/fw.bin"}"#;

fn check_definition(definition: &Definition) {
    let kept = definition.encode();
    let read = Definition::decode(&kept).expect("what was written can be read");
    assert_eq!(read.encode(), kept);
    assert_eq!(read.plan, definition.plan);
    let again = CampaignRequest {
        definition: read,
        devices: Vec::new(),
    };
    assert!(definition.objections(&again).is_empty());
}

fn check_accepted(request: &CampaignRequest, is_strict: bool) {
    let CampaignRequest {
        definition,
        devices,
    } = request;
    assert!((1..=DEVICES_MAX).contains(&devices.len()));
    check_definition(definition);
    let ids: BTreeSet<_> = devices.iter().map(|device| &device.cpe_id).collect();
    assert_eq!(ids.len(), devices.len());
    for device in devices.iter().take(20) {
        let key = device.concurrency_key.as_deref().unwrap_or("key");
        assert!(!key.is_empty() && key.chars().count() <= KEY_MAX && is_one_line(key));
        let waiting = Waiting {
            device: device.clone(),
            asked: definition.asked,
        };
        let queued = definition.encode_waiting(&waiting);
        assert_eq!(definition.decode_waiting(&queued).as_ref(), Some(&waiting));
        let starts_at = definition.plan.not_before.unwrap_or_else(now).max(now());
        if definition
            .plan
            .deadline
            .is_some_and(|deadline| deadline <= starts_at)
        {
            continue;
        }
        let request = definition.request(&waiting, starts_at, SignedDuration::from_hours(1));
        let id = request.job_id;
        assert_eq!(id, job_id(&definition.campaign_id, &device.cpe_id));
        let incoming = Incoming {
            body: &request.body,
            timestamp: Some(unix_seconds(request.timestamp)),
            ..Incoming::default()
        };
        assert!(
            codec(is_strict)
                .decode_campaign(&incoming, starts_at)
                .is_none()
        );
        let work = codec(is_strict)
            .decode_request(&incoming, starts_at)
            .unwrap_or_else(|rejection| panic!("{rejection:?}"));
        check_request(&work);
        let order = &work.job.order;
        assert_eq!(order.job_id, id);
        assert_eq!(order.cpe_id, device.cpe_id);
        assert_eq!(order.campaign_id.as_ref(), Some(&definition.campaign_id));
        assert_eq!(order.firmware_url.as_str(), definition.firmware_url());
    }
}

/// A campaign whose queue and log an input may stand in.
fn spring() -> Definition {
    let incoming = Incoming {
        body: SPRING,
        ..Incoming::default()
    };
    let decoded = codec(true).decode_campaign(&incoming, now());
    let request = decoded.expect("it has devices").expect("it is valid");
    request.definition
}

/// One input; as what it was accepted.
///
/// # Panics
///
/// When a promise is broken.
pub fn play(body: &[u8]) -> Accepted {
    let mut accepted = Accepted::new();
    for is_strict in [true, false] {
        let codec = codec(is_strict);
        let incoming = Incoming {
            body,
            ..Incoming::default()
        };
        match codec.decode_campaign(&incoming, now()) {
            None => {}
            Some(Ok(request)) => {
                assert!(body.len() <= BODY_MAX);
                check_accepted(&request, is_strict);
                accepted.push(if is_strict { "strict" } else { "permissive" });
            }
            Some(Err(rejection)) => {
                assert!(!rejection.faults.is_empty());
                for fault in &rejection.faults {
                    assert!(is_one_line(&fault.field), "{:?}", fault.field);
                    assert!(is_one_line(&fault.message), "{:?}", fault.message);
                }
                check_event(
                    &codec.rejected_event(&incoming, &rejection, now()),
                    EVENT_MAX,
                );
            }
        }
    }
    if let Ok(definition) = Definition::decode(body) {
        check_definition(&definition);
        accepted.push("definition");
    }
    let spring = spring();
    if let Some(waiting) = spring.decode_waiting(body) {
        let queued = spring.encode_waiting(&waiting);
        assert_eq!(spring.decode_waiting(&queued), Some(waiting));
        accepted.push("device");
    }
    let codes = BTreeSet::from([9016]);
    let read = |body: &[u8]| Log::of_any(spring.campaign_id.clone()).read(body, &codes);
    match read(body) {
        Entry::Marker { coordinator } => {
            let again = read(&encode_marker(&coordinator, now()));
            assert_eq!(again, Entry::Marker { coordinator });
            accepted.push("marker");
        }
        Entry::Record(nbi_upgrade::campaign::Record::Released {
            coordinator,
            at,
            devices,
        }) if !devices.is_empty() => {
            let again = encode_release(&coordinator, at, &devices);
            let read = read(&again);
            let released = nbi_upgrade::campaign::Record::Released {
                coordinator,
                at,
                devices,
            };
            assert_eq!(read, Entry::Record(released));
            accepted.push("release");
        }
        Entry::AskedSince { at } => {
            let again = read(&encode_asked_since(now(), at));
            assert_eq!(again, Entry::AskedSince { at });
            accepted.push("asked_since");
        }
        Entry::Record(_) => accepted.push("record"),
        Entry::Other => {}
    }
    accepted
}
