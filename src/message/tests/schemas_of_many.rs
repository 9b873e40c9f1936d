//! The schemas of campaigns' requests and of orders, and their decoders, agree: what one takes, the other takes.

use jsonschema::Validator;
use serde_json::{Value, json};

use super::*;
use crate::message::control::{self, Command};

fn validator(schema: &Value) -> Validator {
    jsonschema::meta::validate(schema).unwrap();
    let options = jsonschema::options().should_validate_formats(true);
    options.build(schema).unwrap()
}

/// Whether a worker takes the campaign that an operator has narrowed in nothing.
fn campaign_is_taken(request: &Value) -> Result<(), Rejection> {
    let mut codec = codec();
    codec.requests.verify = true;
    codec.requests.allow_url_credentials = true;
    let body = request.to_string();
    let incoming = Incoming {
        body: body.as_bytes(),
        ..Incoming::default()
    };
    let campaign = codec.decode_campaign(&incoming, noon());
    campaign.expect("it has devices").map(drop)
}

fn order_is_taken(order: &Value) -> Result<(), Vec<FieldFault>> {
    Command::decode(order.to_string().as_bytes()).map(drop)
}

fn assert_agreement<E: std::fmt::Debug>(
    validator: &Validator,
    message: &Value,
    taken: Result<(), E>,
) {
    let valid = validator.validate(message);
    assert_eq!(
        taken.is_ok(),
        valid.is_ok(),
        "{message}\ndecoder: {taken:?}\nschema: {:?}",
        valid.err().map(|error| error.to_string())
    );
}

/// Values of every kind, right ones and wrong ones.
fn kinds() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(-1),
        json!(0.5),
        json!(1),
        json!(1.0),
        json!(1.5),
        json!(2),
        json!(10),
        json!(10.5),
        json!(100),
        json!(100.5),
        json!(1_000_000),
        json!(1_000_001),
        json!(""),
        json!("x"),
        json!("a b"),
        json!("any"),
        json!("mon"),
        json!("01:00"),
        json!("24:00"),
        json!("1:00"),
        json!("01:60"),
        json!("01:00:00"),
        json!("x".repeat(64)),
        json!("x".repeat(65)),
        json!("x".repeat(128)),
        json!("x".repeat(129)),
        json!("é".repeat(128)),
        json!("line\nfeed"),
        json!("\u{85}"),
        json!([]),
        json!(["x"]),
        json!(["mon", "fri"]),
        json!(["mon", "mon"]),
        json!([null]),
        json!({}),
        json!({"cpe_id": "x"}),
    ]
}

/// Every place in the value, as a JSON pointer.
fn places(value: &Value, place: &str, found: &mut Vec<String>) {
    found.push(place.to_owned());
    match value {
        Value::Object(entries) => entries.iter().for_each(|(name, inner)| {
            places(inner, &format!("{place}/{name}"), found);
        }),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, inner)| {
            places(inner, &format!("{place}/{index}"), found);
        }),
        _ => {}
    }
}

/// The value with each place taken away, and with one more member in each object.
fn without_and_with_more(whole: &Value, place: &str) -> Vec<Value> {
    let mut changed = Vec::new();
    if let Some((holder, name)) = place.rsplit_once('/') {
        let mut without = whole.clone();
        match without.pointer_mut(holder).unwrap() {
            Value::Object(entries) => drop(entries.remove(name)),
            Value::Array(items) => drop(items.remove(name.parse().unwrap())),
            _ => unreachable!("it holds something"),
        }
        changed.push(without);
    }
    let mut more = whole.clone();
    if let Value::Object(entries) = more.pointer_mut(place).unwrap() {
        entries.insert("nobody_knows_it".to_owned(), json!(null));
        changed.push(more);
    }
    changed
}

#[test]
fn a_campaigns_request_is_judged_alike_whatever_stands_in_any_place() {
    let schema = schema::campaign();
    let validator = validator(&schema);
    let example = &schema["examples"][0];
    campaign_is_taken(example).unwrap();
    let mut full = example.clone();
    full["not_before"] = json!("2026-06-01T03:00:00Z");
    full["cleanup"] = json!("keep");
    full["priority"] = json!(2);
    full["executions"] = json!(2);
    full["max_attempts"] = json!(2);
    full["expected_version"] = json!("2.0");
    full["force"] = json!(true);
    full["pace"]["ramp"]["max_starts_per_minute"] = json!(600);
    let small =
        json!({"campaign_id": "c", "devices": ["CPE1"], "firmware_url": "https://files.example/f"});
    let mut judged = 0;
    for whole in [&full, &small] {
        let mut all = Vec::new();
        places(whole, "", &mut all);
        for place in all.iter().filter(|place| !place.is_empty()) {
            let mut changes = without_and_with_more(whole, place);
            // What a duration and a time zone are, no schema can say; nor that a window does not end as it begins.
            let only_a_parser_knows = ["/pace/in_flight_timeout", "/window/time_zone"];
            for value in kinds() {
                let is_text = value.is_string();
                let is_ends = place.starts_with("/window/") && value == "01:00";
                if (is_text && only_a_parser_knows.contains(&place.as_str())) || is_ends {
                    continue;
                }
                let mut changed = whole.clone();
                *changed.pointer_mut(place).unwrap() = value;
                changes.push(changed);
            }
            for changed in changes
                .iter()
                .filter(|changed| !changed["devices"].is_null())
            {
                judged += 1;
                assert_agreement(&validator, changed, campaign_is_taken(changed));
            }
        }
    }
    assert!(judged > 1_000, "{judged}");
    for name in ["job_id", "cpe_id"] {
        let mut changed = small.clone();
        changed[name] = json!("CPE1");
        assert!(!validator.is_valid(&changed), "{changed}");
        assert_agreement(&validator, &changed, campaign_is_taken(&changed));
    }
    let many = |count: usize| json!((0..count).map(|id| format!("CPE{id}")).collect::<Vec<_>>());
    for count in [0, 1, 10_000, 10_001] {
        let mut changed = small.clone();
        changed["devices"] = many(count);
        assert_agreement(&validator, &changed, campaign_is_taken(&changed));
    }
    let criterion = &full["abort"][0];
    for count in [0, 20, 21] {
        let mut changed = small.clone();
        changed["abort"] = json!(vec![criterion; count]);
        assert_agreement(&validator, &changed, campaign_is_taken(&changed));
    }
}

#[test]
fn an_order_is_judged_alike_whatever_its_fields_are() {
    let schema = schema::control();
    let validator = validator(&schema);
    for example in schema["examples"].as_array().unwrap() {
        assert!(validator.is_valid(example), "{example}");
        assert_agreement(&validator, example, order_is_taken(example));
    }
    let mut described: Vec<&str> = schema["properties"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    described.sort_unstable();
    let mut read = control::FIELDS.to_vec();
    read.sort_unstable();
    assert_eq!(described, read);
    let some = [
        None,
        Some(json!(null)),
        Some(json!("x")),
        Some(json!("a b")),
        Some(json!("x".repeat(65))),
        Some(json!("x".repeat(129))),
        Some(json!(true)),
        Some(json!(false)),
        Some(json!(1)),
    ];
    let verbs = ["cancel", "pause", "resume", "stop"].map(|verb| Some(json!(verb)));
    for command in verbs.iter().chain([&None, &Some(json!(null))]) {
        for job_id in &some {
            for campaign_id in &some {
                for all in &some {
                    let mut order = json!({});
                    for (name, value) in [
                        ("command", command),
                        ("job_id", job_id),
                        ("campaign_id", campaign_id),
                        ("all", all),
                    ] {
                        if let Some(value) = value {
                            order[name] = value.clone();
                        }
                    }
                    assert_agreement(&validator, &order, order_is_taken(&order));
                }
            }
        }
    }
    // Only a resume says when to arm again.
    for command in ["cancel", "pause", "resume"] {
        for after in [json!("30m"), json!(null), json!(30), json!(true)] {
            let mut order =
                json!({"command": command, "campaign_id": "x", "arm_again_after": after});
            assert_agreement(&validator, &order, order_is_taken(&order));
            for over in [json!("2h"), json!(null), json!(7)] {
                order["arm_again_over"] = over;
                assert_agreement(&validator, &order, order_is_taken(&order));
            }
        }
    }
    let alone = json!({"command": "resume", "campaign_id": "x", "arm_again_over": "2h"});
    assert_agreement(&validator, &alone, order_is_taken(&alone));
    let more = json!({"command": "cancel", "job_id": "x", "nobody_knows_it": null});
    assert_agreement(&validator, &more, order_is_taken(&more));
    for whole in kinds() {
        assert_agreement(&validator, &whole, order_is_taken(&whole));
    }
}
