//! What an answer's headers say: `Date`, `Retry-After` and `Location` (RFC 9110). A header that cannot be read is taken as missing.

use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};
use url::Url;

use super::RawAnswer;

/// The longest `Retry-After` that is honoured: a job waits for an hour at most on one answer's word.
pub(crate) const RETRY_AFTER_MAX: SignedDuration = SignedDuration::from_hours(1);

/// The most characters of a `Location` that a failure repeats.
const LOCATION_MAX: usize = 200;

/// `Retry-After` in seconds or as a date, not negative, at most [`RETRY_AFTER_MAX`].
///
/// A date is measured by the NBI's own clock, by `now` only if the answer shows none.
pub(crate) fn retry_after(raw: &RawAnswer, now: Timestamp) -> Option<SignedDuration> {
    let text = raw.retry_after.as_deref()?.trim();
    let asked = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are more than the limit.
        SignedDuration::from_secs(text.parse().unwrap_or(i64::MAX))
    } else {
        http_date(text)?.duration_since(nbi_time(raw).unwrap_or(now))
    };
    Some(asked.clamp(SignedDuration::ZERO, RETRY_AFTER_MAX))
}

/// The NBI's clock.
pub(crate) fn nbi_time(raw: &RawAnswer) -> Option<Timestamp> {
    http_date(raw.date.as_deref()?)
}

/// What is wrong with a redirect, and where it points to if it says so.
pub(crate) fn redirect(raw: &RawAnswer) -> String {
    let location = raw.location.as_deref().map(shown_location);
    let to: String = match location.filter(|location| !location.is_empty()) {
        Some(location) => format!(" to {location}")
            .chars()
            .take(LOCATION_MAX)
            .collect(),
        None => String::new(),
    };
    format!("a redirect{to}, which is not followed: set `nbi.url` to the address it points to")
}

/// `Location` for a log line: without credentials, and without the query, which holds the id of a device or worse. Empty if nothing
/// is left that may be shown.
fn shown_location(text: &str) -> String {
    if let Ok(mut url) = Url::parse(text) {
        url.set_query(None);
        url.set_fragment(None);
        let is_bare = url.set_username("").is_ok() && url.set_password(None).is_ok();
        return match url.scheme() {
            "http" | "https" if is_bare => url.into(),
            _ => String::new(),
        };
    }
    let path = text.split(['?', '#']).next().unwrap_or_default();
    // Without a scheme an authority is hard to tell from a path.
    if path.contains('@') {
        String::new()
    } else {
        path.to_owned()
    }
}

/// A date as HTTP writes it: RFC 2822 with `GMT`, the only form that RFC 9110 lets a server send.
fn http_date(text: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_shown_without_what_may_be_secret() {
        for (text, shown) in [
            ("https://acs.example/nbi", "https://acs.example/nbi"),
            (
                "https://worker:hunter2@acs.example:8443/nbi?token=hunter2#hunter2",
                "https://acs.example:8443/nbi",
            ),
            ("/login?next=/v1/dyn&password=hunter2", "/login"),
            ("//worker:hunter2@acs.example/", ""),
            ("javascript:hunter2", ""),
            ("mailto:worker:hunter2@acs.example", ""),
            ("", ""),
        ] {
            assert_eq!(shown_location(text), shown, "{text}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_has_a_limit() {
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        for (text, date, expected) in [
            ("7", None, Some(7)),
            (" 0 ", None, Some(0)),
            ("99999999999999999999999", None, Some(3600)),
            ("86400", None, Some(3600)),
            ("Fri, 02 Jan 2026 00:00:30 GMT", None, Some(30)),
            (
                "Fri, 02 Jan 2026 00:00:30 GMT",
                Some("Fri, 02 Jan 2026 00:00:10 GMT"),
                Some(20),
            ),
            ("Thu, 01 Jan 2026 00:00:00 GMT", None, Some(0)),
            ("soon", None, None),
            ("-5", None, None),
            ("", None, None),
        ] {
            let date = date.map(str::to_owned);
            let raw = RawAnswer {
                status: 503,
                body: Vec::new(),
                retry_after: Some(text.to_owned()),
                date,
                location: None,
            };
            assert_eq!(
                retry_after(&raw, now),
                expected.map(SignedDuration::from_secs),
                "{text}"
            );
        }
    }
}
