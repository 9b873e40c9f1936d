//! A dead letter on the terminal, in a row, and as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use console::Style;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::columns::Cell;
use super::output::{self, plain};
use crate::driver::amqp::Letter;
use crate::message::Named;

/// The letter in the listing.
pub(super) fn row(letter: &Letter, named: &Named, now: Timestamp) -> Vec<Cell> {
    let or_none = |text: Option<&str>| Cell::from(text.unwrap_or("-"));
    vec![
        Cell::styled(&letter.id, Style::new().bold()),
        letter
            .time
            .map_or_else(|| "-".into(), |then| output::age(then, now).into()),
        Cell::styled(&letter.reason, Style::new().red()),
        or_none(named.job_id.as_deref()),
        or_none(letter.error.as_deref()),
    ]
}

/// Prints all that is known of the letter.
pub(super) fn print(letter: &Letter) {
    let named = Named::in_body(&letter.body);
    let time = letter.time.map(output::to_the_second);
    let headers: Vec<_> = letter
        .headers
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let headers = headers.join("  ");
    let lines = [
        ("letter", Some(letter.id.as_str())),
        ("reason", Some(letter.reason.as_str())),
        ("error", letter.error.as_deref()),
        ("came from", letter.queue.as_deref()),
        ("died at", time.as_deref()),
        ("given up by", letter.instance.as_deref()),
        ("job", named.job_id.as_deref()),
        ("device", named.cpe_id.as_deref()),
        ("campaign", named.campaign_id.as_deref()),
        ("message id", letter.message_id.as_deref()),
        ("content type", letter.content_type.as_deref()),
        (
            "headers",
            Some(headers.as_str()).filter(|text| !text.is_empty()),
        ),
    ];
    let dim = Style::new().dim();
    for (name, value) in lines {
        if let Some(value) = value {
            let name = dim.apply_to(format!("{name:<14}"));
            output::line(&format!("{name}{}", output::wrapped(value, 14)));
        }
    }
    let size = output::count(letter.body.len(), "byte");
    match std::str::from_utf8(&letter.body) {
        Ok(text) => {
            output::line(&format!("{}{size}", dim.apply_to("body          ")));
            for line in text.lines() {
                output::line(&format!("  {}", plain(line)));
            }
        }
        Err(_) => output::line(&format!(
            "{}{size}, not text; --output json has them in base64",
            dim.apply_to("body          ")
        )),
    }
}

/// The letter as one JSON object; what is not known is left out.
pub(super) fn as_json(letter: &Letter, is_whole: bool) -> Value {
    let named = Named::in_body(&letter.body);
    let mut object = Map::new();
    let texts = [
        ("id", Some(letter.id.clone())),
        ("reason", Some(letter.reason.clone())),
        ("error", letter.error.clone()),
        ("queue", letter.queue.clone()),
        ("time", letter.time.map(|time| time.to_string())),
        ("instance", letter.instance.clone()),
        ("job_id", named.job_id),
        ("cpe_id", named.cpe_id),
        ("campaign_id", named.campaign_id),
        ("message_id", letter.message_id.clone()),
        ("content_type", letter.content_type.clone()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            object.insert(name.to_owned(), json!(text));
        }
    }
    object.insert("bytes".to_owned(), json!(letter.body.len()));
    if is_whole {
        let headers: Map<_, _> = letter
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        object.insert("headers".to_owned(), Value::Object(headers));
        match std::str::from_utf8(&letter.body) {
            Ok(text) => object.insert("body".to_owned(), json!(text)),
            Err(_) => object.insert(
                "body_base64".to_owned(),
                json!(STANDARD.encode(&letter.body)),
            ),
        };
    }
    Value::Object(object)
}
