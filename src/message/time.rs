//! Times as RFC 3339 writes them: the form that every language reads the same way.
//!
//! A job's messages hold some thirty times. So the usual form, in UTC and with a year of four digits, is written and read here; every other
//! one is the library's matter.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// What [`timestamp`] takes, as a regular expression. Days and months are the parser's business.
const PATTERN: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";

/// 0000-01-01T00:00:00Z in Unix seconds.
const YEAR_ZERO: i64 = -62_167_219_200;

/// Where the time ends, without its fraction and offset.
const DATE_TIME: usize = 19;

/// Where the fraction begins.
const FRACTION: usize = DATE_TIME + 1;

/// The longest form in UTC, and where its numbers stand.
const LONGEST: [u8; 30] = *b"0000-00-00T00:00:00.000000000Z";

/// A time as it stands in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rfc3339(pub(super) Timestamp);

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match Text::of(self.0, None) {
            Some(text) => serializer.serialize_str(text.as_str()),
            None => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Rfc3339 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl Visitor<'_> for Read {
            type Value = Rfc3339;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a time as RFC 3339 writes it")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Rfc3339, E> {
                let time = in_utc(text).map_or_else(|| text.parse().map_err(E::custom), Ok);
                time.map(Rfc3339)
            }
        }

        deserializer.deserialize_str(Read)
    }
}

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

/// A time in UTC as text.
pub(crate) struct Text {
    bytes: [u8; LONGEST.len()],
    length: usize,
}

impl Text {
    /// With so many digits behind the second, at most 9, or as many as it takes; `None` for a year before 0.
    pub(crate) fn of(time: Timestamp, digits: Option<usize>) -> Option<Self> {
        let at = Offset::UTC.to_datetime(time);
        let mut bytes = LONGEST;
        let mut put = |place: std::ops::Range<usize>, mut number: u32| {
            for digit in bytes[place].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        put(0..4, u32::try_from(at.year()).ok()?);
        put(5..7, at.month().unsigned_abs().into());
        put(8..10, at.day().unsigned_abs().into());
        put(11..13, at.hour().unsigned_abs().into());
        put(14..16, at.minute().unsigned_abs().into());
        put(17..DATE_TIME, at.second().unsigned_abs().into());
        put(FRACTION..29, at.subsec_nanosecond().unsigned_abs());
        let end = match digits {
            Some(0) => DATE_TIME,
            Some(digits) => FRACTION + digits.min(9),
            // Neither a zero nor a point at the end.
            None => (DATE_TIME..29)
                .rfind(|at| matches!(bytes[*at], b'1'..=b'9'))
                .map_or(DATE_TIME, |last| last + 1),
        };
        bytes[end] = b'Z';
        let length = end + 1;
        Some(Self { bytes, length })
    }

    pub(crate) fn as_str(&self) -> &str {
        // Digits and signs.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

/// The usual form; `None` for every other one and for what is no time.
fn in_utc(text: &str) -> Option<Timestamp> {
    let text = text.as_bytes();
    let (b'Z', written) = text.split_last()? else {
        return None;
    };
    let (date_time, fraction) = written.split_at_checked(DATE_TIME)?;
    let is_form = |(found, form): (&u8, &u8)| *form == b'0' || found == form;
    if !date_time.iter().zip(&LONGEST).all(is_form) {
        return None;
    }
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0_u32, |number, digit| {
            digit
                .is_ascii_digit()
                .then(|| number * 10 + u32::from(digit - b'0'))
        })
    };
    let small = |place| i8::try_from(number(&date_time[place])?).ok();
    let nanosecond = match fraction {
        [] => 0,
        [b'.', digits @ ..] if (1..=9).contains(&digits.len()) => {
            number(digits)? * 10_u32.pow(9 - digits.len() as u32)
        }
        _ => return None,
    };
    // A second 60 and the last hours of the year 9999 are left to the library.
    let at = DateTime::new(
        i16::try_from(number(&date_time[0..4])?).ok()?,
        small(5..7)?,
        small(8..10)?,
        small(11..13)?,
        small(14..16)?,
        small(17..19)?,
        i32::try_from(nanosecond).ok()?,
    );
    Offset::UTC.to_timestamp(at.ok()?).ok()
}

/// A time with a date and an offset, to the nanosecond. No leap seconds: the clock that all of this is measured by has none.
pub(super) fn timestamp(text: &str) -> Result<Timestamp, String> {
    // The parser knows more forms than RFC 3339 (a space for the T, weeks, years of six digits), which others would not read.
    let time = in_utc(text).or_else(|| {
        let other = Some(text).filter(|text| is_rfc3339(text));
        other?.parse().ok()
    });
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// From the year -9999 to 9999, most of them near the present.
    fn times() -> impl Strategy<Value = Timestamp> {
        let seconds = prop_oneof![
            1_700_000_000..1_900_000_000_i64,
            Timestamp::MIN.as_second()..=Timestamp::MAX.as_second(),
        ];
        let nanoseconds = prop_oneof![
            Just(0),
            (0..1_000).prop_map(|milliseconds| milliseconds * 1_000_000),
            0..1_000_000_000,
        ];
        (seconds, nanoseconds).prop_map(|(second, nanosecond)| {
            Timestamp::new(second, nanosecond).unwrap_or(Timestamp::MAX)
        })
    }

    proptest! {
        #[test]
        fn a_time_is_written_and_read_as_the_library_does_it(time in times()) {
            let ours = serde_json::to_string(&Rfc3339(time)).unwrap();
            prop_assert_eq!(&ours, &serde_json::to_string(&time).unwrap());
            prop_assert_eq!(serde_json::from_str::<Rfc3339>(&ours).unwrap().0, time);
            if let Some(text) = Text::of(time, None) {
                prop_assert_eq!(in_utc(text.as_str()), Some(time));
            }
            for digits in 0..=9 {
                let Some(text) = Text::of(time, Some(digits)) else { continue };
                prop_assert_eq!(text.as_str(), format!("{time:.digits$}"));
            }
        }

        #[test]
        fn whatever_comes_is_read_as_the_library_reads_it(
            text in "[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,10})?(Z|z|\\+01:00|)[0:]?"
        ) {
            let read = serde_json::from_value::<Rfc3339>(text.as_str().into()).ok();
            prop_assert_eq!(read.map(|read| read.0), text.parse().ok(), "{}", text);
        }
    }

    #[test]
    fn the_usual_form_is_read_here() {
        for text in [
            "2026-06-01T02:07:15Z",
            "0000-01-01T00:00:00Z",
            "2024-02-29T23:59:59.000000001Z",
        ] {
            assert_eq!(in_utc(text), text.parse().ok(), "{text}");
        }
        for text in [
            "",
            "Z",
            "2026-06-01T02:07:15",
            "2026-06-01T02:07:15.Z",
            "2026-06-01T02:07:15.1234567890Z",
            "2026-02-29T00:00:00Z",
            "2026-06-01T24:00:00Z",
            "2026-06-01T02:07:60Z",
            "2026-06-01 02:07:15Z",
            "2026-06-01T02:07:15+00:00",
            "+026-06-01T02:07:15Z",
            "2026-06-01T02:07:1\u{e9}Z",
        ] {
            assert_eq!(in_utc(text), None, "{text}");
        }
    }
}
