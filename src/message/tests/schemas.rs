//! The schema of a request and the decoder agree: what one takes, the other takes.

use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn validator() -> Validator {
    let schema = schema::request();
    jsonschema::meta::validate(&schema).unwrap();
    jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap()
}

/// Whether a worker takes it that an operator has narrowed in nothing: the schema says what any worker may take.
fn is_taken(request: &Value) -> Result<(), Rejection> {
    let mut codec = codec();
    codec.requests.verify = true;
    codec.requests.allow_url_credentials = true;
    let body = request.to_string();
    let incoming = Incoming {
        body: body.as_bytes(),
        ..Incoming::default()
    };
    codec.decode_request(&incoming, noon()).map(drop)
}

fn assert_agreement(validator: &Validator, request: &Value) {
    let (taken, valid) = (is_taken(request), validator.validate(request));
    assert_eq!(
        taken.is_ok(),
        valid.is_ok(),
        "{request}\ndecoder: {taken:?}\nschema: {:?}",
        valid.err().map(|error| error.to_string())
    );
}

fn minimal() -> Map<String, Value> {
    serde_json::from_str(MINIMAL).unwrap()
}

fn with(field: &str, value: Value) -> Value {
    let mut request = minimal();
    request.insert(field.to_owned(), value);
    Value::Object(request)
}

const TEXTS: [&str; 8] = [
    "job_id",
    "cpe_id",
    "firmware_url",
    "campaign_id",
    "requested_at",
    "expected_version",
    "cleanup",
    "nobody_knows_it",
];

#[test]
fn the_schema_has_the_fields_of_the_decoder() {
    let schema = schema::request();
    let mut described: Vec<&str> = schema["properties"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    // Every fault of it is told by name; it is none of a request for one device.
    described.push("devices");
    described.sort_unstable();
    let mut read = request::FIELDS.to_vec();
    read.sort_unstable();
    assert_eq!(described, read);
    for example in schema["examples"].as_array().unwrap() {
        assert_agreement(&validator(), example);
        is_taken(example).unwrap();
    }
}

#[test]
fn every_character_in_every_text_is_judged_alike() {
    let validator = validator();
    let characters = (0..0x300_u32)
        .chain([0x2028, 0x3002, 0xd7ff, 0xe000, 0xfeff, 0x1_f600, 0x10_ffff])
        .filter_map(char::from_u32);
    for c in characters {
        for field in TEXTS {
            let usual = minimal();
            let usual = usual.get(field).and_then(Value::as_str).unwrap_or("x1");
            for text in [
                format!("{c}"),
                format!("{c}{usual}"),
                format!("{usual}{c}"),
                format!("{}{c}{}", &usual[..1], &usual[1..]),
            ] {
                // Where a host ends and a port begins, only a parser of URLs can say.
                let is_host = field == "firmware_url" && text.contains(":/") && !text.ends_with(c);
                if !is_host {
                    assert_agreement(&validator, &with(field, json!(text)));
                }
            }
        }
    }
}

#[test]
fn every_length_and_kind_is_judged_alike() {
    let validator = validator();
    for field in TEXTS {
        for length in [0, 1, 63, 64, 65, 127, 128, 129, 255, 256, 257] {
            assert_agreement(&validator, &with(field, json!("x".repeat(length))));
            assert_agreement(&validator, &with(field, json!("é".repeat(length))));
        }
    }
    for length in [2_020, 2_040, 2_041, 2_042, 2_043, 2_060] {
        let url = format!("http://{}", "f/".repeat(length / 2) + &"x"[..length % 2]);
        assert_agreement(&validator, &with("firmware_url", json!(url)));
    }
    let kinds = [
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(-1),
        json!(1),
        json!(1.0),
        json!(1.5),
        json!(-0.0),
        json!(100),
        json!(101),
        json!(1_000),
        json!(1_001),
        json!(1_000_000),
        json!(1_000_001),
        json!(1e6),
        json!(1e300),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("1"),
        json!([]),
        json!({}),
        json!(["x"]),
        json!({"a": null}),
    ];
    for field in request::FIELDS
        .iter()
        .chain(&["nobody_knows_it"])
        .filter(|field| **field != "devices")
    {
        for kind in &kinds {
            assert_agreement(&validator, &with(field, kind.clone()));
        }
        let mut request = minimal();
        request.remove(*field);
        assert_agreement(&validator, &Value::Object(request));
    }
    for whole in &kinds {
        assert_eq!(
            is_taken(whole).is_ok(),
            validator.is_valid(whole),
            "{whole}"
        );
    }
}

#[test]
fn forms_of_times_and_urls_are_judged_alike() {
    let validator = validator();
    for time in [
        "2026-11-23T18:00:00Z",
        "2026-11-23t18:00:00z",
        "2026-11-23T18:00:00.123456789+05:30",
        "2026-11-23T18:00:00-00:00",
        "2026-11-23T18:00:00.Z",
        "2026-11-23T18:00:00.1234567890Z",
        "2026-11-23T18:00:00,5Z",
        "2026-11-23 18:00:00Z",
        "20261123T180000Z",
        "2026-11-23T18:00Z",
        "2026-11-23T18Z",
        "2026-11-23",
        "2026-11-23T18:00:00",
        "2026-11-23T18:00:00+0100",
        "2026-11-23T18:00:00+01",
        "2026-11-23T18:00:00+24:00",
        "2026-11-23T18:00:00+23:59",
        "2026-11-23T18:00:00+01:60",
        "2026-11-23T24:00:00Z",
        "2026-11-23T18:60:00Z",
        "2026-11-23T23:59:60Z",
        "2026-11-31T18:00:00Z",
        "2026-02-29T18:00:00Z",
        "2028-02-29T18:00:00Z",
        "2026-13-01T18:00:00Z",
        "2026-00-01T18:00:00Z",
        "2026-01-00T18:00:00Z",
        "+002026-11-23T18:00:00Z",
        "-002026-11-23T18:00:00Z",
        "2026-11-23T18:00:00Z[UTC]",
        "2026-11-23T18:00:00+01:00[Europe/Berlin]",
        "1795000000",
        "yesterday",
        "2026-W48-1T18:00:00Z",
        " 2026-11-23T18:00:00Z",
        "2026-11-23T18:00:00Z ",
        "2026-11-23T18:00:00Z\n",
        "9999-12-30T22:00:00Z",
        "0001-01-01T00:00:00Z",
        "２026-11-23T18:00:00Z",
        "2026-11-23T18:00:0é",
        "2026-11-23T18:00:00−01:00",
    ] {
        assert_agreement(&validator, &with("requested_at", json!(time)));
        assert_agreement(&validator, &with("deadline", json!(time)));
    }
    for url in [
        "https://files.example/fw",
        "HTTPS://FILES.EXAMPLE/fw",
        "hTTp://f/x",
        "ftp://f/x",
        "FTP://f/x",
        "gopher://f/x",
        "file:///etc/passwd",
        "https:files.example/fw",
        "https:/files.example/fw",
        "https:///files.example/fw",
        "https://",
        "https://?x",
        "https://#x",
        "//f/x",
        "/fw.bin",
        "fw.bin",
        "https://user:secret@f/x",
        "https://f/a%20b",
        "https://f/a b",
        "https://f/%zz",
        "https://f:8443/x",
        "https://[2001:db8::1]/x",
        "https://192.0.2.1/x",
        "https://f/x?a=b&c=d#e",
        "https://f/~u/[1]!$'()*+,;=",
        "https://f\\x",
        " https://f/x",
        "https://f/x\n",
        "\thttps://f/x",
        "data:text/plain,x",
        "https://f",
        "https://f/{a}",
        "https://f/\"x\"",
        "httpss://f/x",
        "http+x://f/x",
    ] {
        assert_agreement(&validator, &with("firmware_url", json!(url)));
    }
}

/// Values of a field, half of them right.
fn value_of(field: &'static str) -> BoxedStrategy<Value> {
    let right = match field {
        "job_id" => "[A-Za-z0-9._:-]{1,128}".prop_map(Value::from).boxed(),
        "cpe_id" => "[A-Z0-9.:_@,;=&#-]{1,130}".prop_map(Value::from).boxed(),
        "firmware_url" => "(https?|ftp|FTP|Http)://[a-z]{1,20}(:[1-9][0-9]{1,3})?(/[!-~]{0,30})?".prop_map(Value::from).boxed(),
        "campaign_id" => "[A-Za-z0-9_-]{1,66}".prop_map(Value::from).boxed(),
        "requested_at" | "deadline" => {
            "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{1,10})?(Z|[+-][0-2][0-9]:[0-6][0-9])"
                .prop_map(Value::from)
                .boxed()
        }
        "cleanup" => prop::sample::select(vec!["deactivate", "delete", "keep", "burn"]).prop_map(Value::from).boxed(),
        "priority" | "executions" | "max_attempts" => (-2..1_000_100_i64).prop_map(Value::from).boxed(),
        "expected_version" => "\\PC{1,257}".prop_map(Value::from).boxed(),
        "force" => any::<bool>().prop_map(Value::from).boxed(),
        _ => any_json(),
    };
    prop_oneof![4 => right, 1 => Just(Value::Null), 1 => any_json()].boxed()
}

fn any_json() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z]{1,5}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
    .boxed()
}

fn any_request() -> impl Strategy<Value = Value> {
    // Without `not_before`, as no schema can say that the deadline comes after it.
    let fields = [
        "job_id",
        "cpe_id",
        "firmware_url",
        "campaign_id",
        "requested_at",
        "deadline",
        "cleanup",
        "priority",
        "executions",
        "max_attempts",
        "expected_version",
        "force",
        "context",
        "nobody_knows_it",
    ];
    let one = prop::sample::select(fields.to_vec())
        .prop_flat_map(|field| value_of(field).prop_map(move |value| (field, value)));
    prop::collection::vec(one, 0..4).prop_map(|changes| {
        let mut request = minimal();
        for (field, value) in changes {
            request.insert(field.to_owned(), value);
        }
        Value::Object(request)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_request_is_judged_alike_by_decoder_and_schema(request in any_request()) {
        thread_local! {
            static VALIDATOR: Validator = validator();
        }
        VALIDATOR.with(|validator| assert_agreement(validator, &request));
    }
}
