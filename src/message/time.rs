//! Times as RFC 3339 writes them: the form that every language reads the same way.

use std::borrow::Cow;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// What [`timestamp`] takes, as a regular expression. Days and months are the parser's business.
const PATTERN: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";

/// 0000-01-01T00:00:00Z in Unix seconds.
const YEAR_ZERO: i64 = -62_167_219_200;

/// Where the time ends, without its fraction and offset.
const DATE_TIME: usize = 19;

/// Stands for such a time in schemas.
pub(super) struct Rfc3339;

impl JsonSchema for Rfc3339 {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time", "pattern": PATTERN})
    }
}

/// A time with a date and an offset, to the nanosecond. No leap seconds: the clock that all of this is measured by has none.
pub(super) fn timestamp(text: &str) -> Result<Timestamp, String> {
    // The parser knows more forms than RFC 3339 (a space for the T, weeks, years of six digits), which others would not read.
    let time: Option<Timestamp> = if is_rfc3339(text) {
        text.parse().ok()
    } else {
        None
    };
    // An offset can lead before the year 0, which events could not repeat.
    time.filter(|time| time.as_second() >= YEAR_ZERO)
        .ok_or_else(|| "is no RFC 3339 time; write it like 2026-11-23T18:00:00Z".to_owned())
}

fn is_rfc3339(text: &str) -> bool {
    let Some((date_time, rest)) = text.split_at_checked(DATE_TIME) else {
        return false;
    };
    let zone = match rest.strip_prefix('.') {
        Some(rest) => {
            let zone = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            if !(1..=9).contains(&(rest.len() - zone.len())) {
                return false;
            }
            zone
        }
        None => rest,
    };
    let is_zone = zone.eq_ignore_ascii_case("z")
        || (fits(zone, "+dd:dd") || fits(zone, "-dd:dd")) && is_clock(&zone[1..]);
    fits(&date_time.to_ascii_uppercase(), "dddd-dd-ddTdd:dd:dd")
        && is_clock(&date_time[11..])
        && is_zone
}

/// Whether each character is that of the form, where `d` stands for any digit.
fn fits(text: &str, form: &str) -> bool {
    text.len() == form.len()
        && text.bytes().zip(form.bytes()).all(|(found, wanted)| {
            if wanted == b'd' {
                found.is_ascii_digit()
            } else {
                found == wanted
            }
        })
}

/// Whether an hour below 24, and then minutes or seconds below 60.
fn is_clock(text: &str) -> bool {
    text.split(':')
        .zip(["24", "60", "60"])
        .all(|(part, limit)| part < limit)
}
