//! Requests: what is taken, and that everything wrong is named at once.

use jiff::SignedDuration;

use super::*;
use crate::job::JobEvent;
use crate::job::state::Cleanup;

fn faults(body: &str) -> Vec<(String, String)> {
    decode(body)
        .unwrap_err()
        .faults
        .into_iter()
        .map(|fault| (fault.field, fault.message))
        .collect()
}

fn fields(body: &str) -> Vec<String> {
    faults(body).into_iter().map(|(field, _)| field).collect()
}

#[test]
fn a_minimal_request_gets_the_defaults() {
    let order = decode(MINIMAL).unwrap().job.order;
    assert_eq!(order.rule_id.as_str(), "UPGRADE_CPE1");
    assert_eq!(order.requested_at, noon());
    assert_eq!(order.deadline, "2026-11-23T13:00:00Z".parse().unwrap());
    assert_eq!(
        (order.priority, order.executions, order.max_attempts),
        (1, 1, 1)
    );
    assert_eq!((order.cleanup, order.force), (Cleanup::Deactivate, false));
}

#[test]
fn every_field_is_taken() {
    let body = r#"{"job_id":"a.b_c:d-1","cpe_id":"001122-ABC.1","firmware_url":"ftp://files.example/x","campaign_id":"spring-26",
        "requested_at":"2026-11-23T11:00:00+01:00","not_before":"2026-11-23T22:00:00Z","deadline":"2026-11-24T04:00:00Z",
        "cleanup":"delete","priority":0,"executions":2,"max_attempts":3,"force":true,"context":{"order": [1, 2.50, "x"]}}"#;
    let work = decode(body).unwrap();
    let order = work.job.order;
    assert_eq!(order.requested_at, "2026-11-23T10:00:00Z".parse().unwrap());
    assert_eq!(
        (order.priority, order.executions, order.max_attempts),
        (0, 2, 3)
    );
    assert_eq!((order.cleanup, order.force), (Cleanup::Delete, true));
    assert_eq!(
        work.carried.context.unwrap().get(),
        r#"{"order": [1, 2.50, "x"]}"#,
        "the context is untouched"
    );
}

#[test]
fn the_deadline_counts_from_the_later_of_request_and_not_before() {
    let body = r#"{"job_id":"j","cpe_id":"c","firmware_url":"http://f/x","not_before":"2026-11-24T00:00:00Z"}"#;
    assert_eq!(
        decode(body).unwrap().job.order.deadline,
        "2026-11-24T01:00:00Z".parse().unwrap()
    );
}

#[test]
fn the_brokers_timestamp_serves_where_the_request_has_no_time() {
    let incoming = Incoming {
        body: MINIMAL.as_bytes(),
        timestamp: Some(1_795_000_000),
        ..Incoming::default()
    };
    let order = codec().decode_request(&incoming, noon()).unwrap().job.order;
    assert_eq!(order.requested_at.as_second(), 1_795_000_000);
}

#[test]
fn every_fault_is_named_at_once_with_value_and_remedy() {
    let body = r#"{"job_id":"a b","cpe_id":"DM*","firmware_url":"gopher://x","campaign_id":"","requested_at":"yesterday",
        "cleanup":"burn","priority":-1,"executions":0,"max_attempts":"3","force":"yes","expected_version":"2","dead_line":1}"#;
    let all = faults(body);
    let named: Vec<&str> = all.iter().map(|(field, _)| field.as_str()).collect();
    for field in [
        "job_id",
        "cpe_id",
        "firmware_url",
        "campaign_id",
        "requested_at",
        "cleanup",
        "priority",
        "executions",
        "max_attempts",
        "force",
        "expected_version",
        "dead_line",
    ] {
        assert!(named.contains(&field), "{field} is missing in {named:?}");
    }
    let text_of = |field: &str| {
        all.iter()
            .find(|(name, _)| name == field)
            .unwrap()
            .1
            .clone()
    };
    assert!(text_of("cpe_id").contains("\"DM*\"") && text_of("cpe_id").contains('*'));
    assert!(
        text_of("max_attempts").contains("whole number from 1 to 100")
            && text_of("max_attempts").contains("\"3\"")
    );
}

#[test]
fn what_is_no_object_is_rejected_as_a_whole() {
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"x\"",
        "42",
        "{}{}",
        "not JSON",
        "{\"a\":1,}",
    ] {
        assert_eq!(fields(body), ["body"], "{body}");
    }
    let not_utf8 = codec().decode_request(
        &Incoming {
            body: b"{\"job_id\":\"\xff\"}",
            ..Incoming::default()
        },
        noon(),
    );
    assert!(not_utf8.unwrap_err().to_string().contains("UTF-8"));
}

#[test]
fn a_missing_a_repeated_and_a_null_field() {
    assert_eq!(fields(r#"{"job_id":"j","cpe_id":"c"}"#), ["firmware_url"]);
    assert_eq!(
        fields(&MINIMAL.replace("{\"job_id\"", "{\"job_id\":\"other\",\"job_id\"")),
        ["job_id"]
    );
    assert_eq!(fields(&MINIMAL.replace("\"CPE1\"", "null")), ["cpe_id"]);
    assert!(decode(&MINIMAL.replace('}', ",\"deadline\":null,\"priority\":null}")).is_ok());
}

#[test]
fn ids_that_could_reach_beyond_their_place_are_refused() {
    for cpe_id in [
        "*",
        "A?",
        "A%2e",
        "A/B",
        "A\\\\B",
        "A\\\"B",
        "A'B",
        "A B",
        "A\\u0000",
        "A\\n",
        "Ä",
        "A[1]",
        "",
        &"x".repeat(129),
    ] {
        let body = MINIMAL.replace("CPE1", cpe_id);
        assert_eq!(fields(&body), ["cpe_id"], "{cpe_id}");
    }
    for job_id in ["", "a/b", "a\\u0000", "a b", "ä", &"x".repeat(129)] {
        assert_eq!(
            fields(&MINIMAL.replace("job-1", job_id)),
            ["job_id"],
            "{job_id}"
        );
    }
}

#[test]
fn firmware_urls_are_absolute_without_credentials_and_below_the_allowed_prefixes() {
    for url in [
        "fw.bin",
        "/fw.bin",
        "file:///etc/passwd",
        "https://",
        "https://u:p@f/x",
        "https://f/ x",
        "https://f/\\n",
        &format!("https://f/{}", "x".repeat(2_048)),
    ] {
        assert_eq!(
            fields(&MINIMAL.replace("https://files.example/fw-2.bin", url)),
            ["firmware_url"],
            "{url}"
        );
    }
    let mut strict = codec();
    strict.requests.allowed_url_prefixes = vec!["https://files.example/".to_owned()];
    let with = |url: &str| {
        let body = MINIMAL.replace("https://files.example/fw-2.bin", url);
        strict
            .decode_request(
                &Incoming {
                    body: body.as_bytes(),
                    ..Incoming::default()
                },
                noon(),
            )
            .is_ok()
    };
    assert!(with("https://files.example/fw-2.bin"));
    assert!(!with("https://files.example.evil/fw-2.bin") && !with("http://files.example/fw-2.bin"));
}

#[test]
fn sizes_and_depth_are_bounded() {
    let large = MINIMAL.replace('}', &format!(",\"context\":\"{}\"}}", "x".repeat(70_000)));
    assert_eq!(fields(&large), ["body"]);
    let context = MINIMAL.replace('}', &format!(",\"context\":\"{}\"}}", "x".repeat(20_000)));
    assert_eq!(fields(&context), ["context"]);
    let deep = MINIMAL.replace(
        '}',
        &format!(",\"context\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000)),
    );
    assert_eq!(fields(&deep), ["context"]);
    let bottomless = "[".repeat(60_000);
    assert_eq!(fields(&bottomless), ["body"]);
}

#[test]
fn a_cloud_event_carries_a_request_in_its_data() {
    let wrap = |data: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"1","source":"/oss","type":"upgrade.request","data":{data}}}"#
        )
    };
    let with = |body: &str| {
        let content_type = Some("application/cloudevents+json; charset=utf-8");
        codec().decode_request(
            &Incoming {
                body: body.as_bytes(),
                content_type,
                ..Incoming::default()
            },
            noon(),
        )
    };
    assert_eq!(
        with(&wrap(MINIMAL)).unwrap().job.order.job_id.as_str(),
        "job-1"
    );
    for broken in [
        MINIMAL.to_owned(),
        wrap("[]"),
        wrap(MINIMAL).replace("1.0", "0.3"),
    ] {
        assert_eq!(with(&broken).unwrap_err().faults[0].field, "body");
    }
    let xml = Incoming {
        body: MINIMAL.as_bytes(),
        content_type: Some("text/xml"),
        ..Incoming::default()
    };
    assert!(
        codec()
            .decode_request(&xml, noon())
            .unwrap_err()
            .to_string()
            .contains("text/xml")
    );
}

#[test]
fn a_deadline_before_not_before_and_devices_are_named() {
    let window = MINIMAL.replace(
        '}',
        r#","not_before":"2026-11-24T00:00:00Z","deadline":"2026-11-23T23:00:00Z"}"#,
    );
    assert_eq!(fields(&window), ["deadline"]);
    let campaign = MINIMAL.replace('}', r#","devices":["a"]}"#);
    assert_eq!(fields(&campaign), ["devices"]);
}

#[test]
fn a_rejection_says_as_much_as_it_could_read() {
    let rejection =
        decode(r#"{"job_id":"j-9","cpe_id":"DM*","firmware_url":"x","campaign_id":"c"}"#)
            .unwrap_err();
    assert_eq!(rejection.job_id.as_deref(), Some("j-9"));
    assert_eq!(rejection.cpe_id.as_deref(), Some("DM*"));
    assert_eq!(rejection.campaign_id.as_deref(), Some("c"));
}

#[test]
fn a_request_with_countless_fields_makes_no_countless_faults() {
    let countless: Vec<String> = (0..10_000).map(|_| r#""":1"#.to_owned()).collect();
    let all = faults(&format!("{{{}}}", countless.join(",")));
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].0, "body");
    assert!(all[0].1.contains("more than 100 fields"), "{}", all[0].1);

    let many: Vec<String> = (0..90).map(|index| format!(r#""x{index}":1"#)).collect();
    let all = faults(&format!("{{{}}}", many.join(",")));
    assert_eq!(all.len(), 51);
    assert_eq!(all[50].0, "body");
}

#[test]
fn faults_are_one_line_whatever_the_request_holds() {
    let body = "{\"a\\nlevel=ERROR\\u001b[2J\":1,\"cpe_id\":[\n1\n],\"priority\":{\n}}";
    for (field, message) in faults(body) {
        assert!(!field.chars().any(char::is_control), "{field:?}");
        assert!(!message.chars().any(char::is_control), "{message:?}");
    }
}

#[test]
fn a_context_deeper_than_readers_of_events_follow_is_refused() {
    let nested = |depth: usize| {
        let body = MINIMAL.trim_end_matches('}');
        format!(
            "{body},\"context\":{}1{}}}",
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    let work = decode(&nested(64)).unwrap();
    let events = codec().published_events(&work, &[JobEvent::Accepted], noon());
    assert!(serde_json::from_slice::<serde_json::Value>(&events[0].body).is_ok());
    for depth in [65, 126, 127, 128, 8_000] {
        assert_eq!(fields(&nested(depth)), ["context"], "{depth}");
    }
}

#[test]
fn a_version_with_a_control_character_is_refused() {
    let mut codec = codec();
    codec.requests.verify = true;
    let body = MINIMAL.replace('}', r#","expected_version":"2.0\nlevel=ERROR"}"#);
    let incoming = Incoming {
        body: body.as_bytes(),
        ..Incoming::default()
    };
    let rejection = codec.decode_request(&incoming, noon()).unwrap_err();
    assert_eq!(rejection.faults[0].field, "expected_version");
}

#[test]
fn times_at_the_edges_are_taken_or_refused() {
    for (field, time) in [
        ("requested_at", "9999-12-30T22:00:00Z"),
        ("requested_at", "0000-01-01T00:00:00Z"),
        ("not_before", "9999-12-30T22:00:00Z"),
        ("deadline", "0000-01-01T00:00:00Z"),
    ] {
        let body = MINIMAL.replace('}', &format!(r#","{field}":"{time}"}}"#));
        let work = decode(&body).unwrap();
        let incoming = codec().encode_step(&work);
        let incoming = Incoming {
            body: &incoming,
            ..Incoming::default()
        };
        let mut expected = work.job;
        expected.order_mut().is_dated_on_arrival = false;
        assert_eq!(codec().decode_step(&incoming).unwrap().job, expected);
    }
    for time in [
        "-000001-12-31T23:59:59Z",
        "-009999-01-02T02:00:00Z",
        "9999-12-31T23:00:00Z",
    ] {
        let body = MINIMAL.replace('}', &format!(r#","deadline":"{time}"}}"#));
        assert_eq!(fields(&body), ["deadline"], "{time}");
    }
    for (timestamp, expected) in [
        (0, Some(0)),
        (u64::MAX, None),
        (1_795_000_000_000, None),
        (253_402_207_200, None),
        (253_402_207_201, None),
    ] {
        let incoming = Incoming {
            body: MINIMAL.as_bytes(),
            timestamp: Some(timestamp),
            ..Incoming::default()
        };
        let order = codec().decode_request(&incoming, noon()).unwrap().job.order;
        let expected = expected.unwrap_or_else(|| noon().as_second());
        assert_eq!(order.requested_at.as_second(), expected, "{timestamp}");
    }
}

#[test]
fn who_says_when_a_request_was_made_decides_how_far_back_a_repeat_is_looked_for() {
    let day = SignedDuration::from_hours(24);
    let minute = SignedDuration::from_mins(1);
    let earlier = noon() - minute;
    let soon = noon() + minute;
    let late = soon + SignedDuration::from_secs(1);
    // What the request says, what its message says, `force`; then the date, the window and whether another delivery is dated anew.
    for (said, message, force, expected) in [
        (
            Some(earlier),
            None,
            false,
            (earlier, SignedDuration::ZERO, false),
        ),
        (Some(soon), None, true, (soon, SignedDuration::ZERO, false)),
        (None, Some(earlier), false, (earlier, day, false)),
        (
            None,
            Some(earlier),
            true,
            (earlier, SignedDuration::ZERO, false),
        ),
        (None, None, false, (noon(), day, true)),
        (None, None, true, (noon(), day, true)),
        // No request was made in time to come.
        (Some(late), Some(earlier), false, (earlier, day, false)),
        (Some(late), Some(late), true, (noon(), day, true)),
    ] {
        let mut body: serde_json::Value = serde_json::from_str(MINIMAL).unwrap();
        body["force"] = force.into();
        if let Some(said) = said {
            body["requested_at"] = said.to_string().into();
        }
        let body = body.to_string();
        let incoming = Incoming {
            body: body.as_bytes(),
            timestamp: message.map(|time| u64::try_from(time.as_second()).unwrap()),
            ..Incoming::default()
        };
        let order = codec().decode_request(&incoming, noon()).unwrap().job.order;
        let window = order.requested_at.duration_since(order.repeats_since);
        let seen = (order.requested_at, window, order.is_dated_on_arrival);
        assert_eq!(seen, expected, "{body} {message:?}");
    }
}

#[test]
fn a_url_that_parsers_read_differently_is_refused() {
    let mut codec = codec();
    codec.requests.allowed_url_prefixes = vec!["https://files.example/fw/".to_owned()];
    let is_taken = |url: &str| {
        let body =
            serde_json::json!({"job_id": "j", "cpe_id": "c", "firmware_url": url}).to_string();
        let incoming = Incoming {
            body: body.as_bytes(),
            ..Incoming::default()
        };
        codec.decode_request(&incoming, noon()).is_ok()
    };
    for url in [
        "https://files.example/fw/2.bin",
        "HTTPS://FILES.example:443/fw/2.bin?token=a%2Fb",
        "https://files.example/fw/a/../2..bin",
    ] {
        assert!(is_taken(url), "{url}");
    }
    for url in [
        r"https://files.example/fw/\@elsewhere.example/2.bin",
        r"https:\\files.example\fw\2.bin",
        "https:files.example/fw/2.bin",
        "https:/files.example/fw/2.bin",
        "https:///files.example/fw/2.bin",
        "https://files\u{3002}example/fw/2.bin",
        "https://files.example/fw/ü.bin",
        "https://files.example/fw/../other/2.bin",
        "https://files.example/fw/%2e%2e/other/2.bin",
        "https://files.example/fw/..%2fother/2.bin",
        "https://files.example/fw/%2e%2e%5cother/2.bin",
        "https://files.example.elsewhere/fw/2.bin",
        "https://files.example@elsewhere.example/fw/2.bin",
    ] {
        assert!(!is_taken(url), "{url}");
    }
}

#[test]
fn faults_show_no_credentials() {
    for url in [
        r#""https://user:hunter2@files.example/fw""#,
        r#"["https://user:hunter2@files.example/fw"]"#,
        r#""gopher://user:hunter2@files.example/fw""#,
        r#""https://user:hun/hunter2@files.example/fw""#,
        r#""//user:hunter2@files.example/fw""#,
        r#""https:user:hunter2@files.example/fw""#,
    ] {
        let body = format!(r#"{{"job_id":"j","cpe_id":"c","firmware_url":{url}}}"#);
        let all = faults(&body);
        assert_eq!(all.len(), 1, "{url}");
        assert!(!all[0].1.contains("hunter2"), "{}", all[0].1);
        assert!(all[0].1.contains("@files.example/fw"), "{}", all[0].1);
    }
}

#[test]
fn a_device_has_a_letter_or_a_digit() {
    for (id, expected) in [
        ("............", false),
        (".", false),
        ("-:-", false),
        ("a.", true),
        ("001122.3", true),
    ] {
        let body = MINIMAL.replace("CPE1", id);
        assert_eq!(decode(&body).is_ok(), expected, "{id}");
    }
}

#[test]
fn a_dead_letters_error_is_one_line() {
    let letter = DeadLetter::malformed_step("a\nb\u{1b}c");
    assert_eq!(letter.error, "a b c");
}

#[test]
fn a_context_of_null_is_none_in_every_event() {
    let work = decode(&MINIMAL.replace('}', r#","context": null }"#)).unwrap();
    assert!(work.carried.context.is_none());
    let work = decode(&MINIMAL.replace('}', r#","context":[null]}"#)).unwrap();
    assert_eq!(work.carried.context.unwrap().get(), "[null]");
}
