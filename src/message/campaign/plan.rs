//! Pace, window and abort criteria in a campaign's request.

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

use super::super::fields::{Fields, shown};
use crate::campaign::{Abort, FailureKind, Pace, Ramp, Window};

/// Most starts in a minute, devices in flight and devices of one key that can be asked for.
pub(in crate::message) const COUNT_MAX: u32 = 1_000_000;
/// Most the rate grows by in one step.
pub(in crate::message) const FACTOR_MAX: f64 = 10.0;
/// Most criteria.
pub(in crate::message) const CRITERIA_MAX: usize = 20;
/// Shortest `in_flight_timeout`: a shorter one is no bound on places at all.
const IN_FLIGHT_TIMEOUT_MIN: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);
/// Where the ramp says no bound: so many times the first rate.
const RAMP_MAX: u32 = 10;

pub(super) fn read_pace(fields: &mut Fields<'_>) -> Option<Pace> {
    let known = [
        "starts_per_minute",
        "max_in_flight",
        "in_flight_timeout",
        "ramp",
    ];
    fields.object("pace", &known, |pace| {
        let starts_per_minute = pace.integer("starts_per_minute", 1, COUNT_MAX);
        let max_in_flight = pace.integer("max_in_flight", 1, COUNT_MAX);
        let in_flight_timeout = pace.optional("in_flight_timeout", |text| {
            text.parse::<jiff::SignedDuration>()
                .ok()
                .filter(|timeout| *timeout >= IN_FLIGHT_TIMEOUT_MIN)
                .ok_or_else(|| "is no time of at least 1s; write it like 45m or 2h".to_owned())
        });
        if in_flight_timeout.is_some() && max_in_flight.is_none() {
            pace.fault(
                "in_flight_timeout",
                "frees places, and without max_in_flight there are none; give both",
            );
        }
        let known = ["factor", "after_successes", "max_starts_per_minute"];
        let ramp = pace.object("ramp", &known, |ramp| {
            let factor = ramp.number("factor", 1.0, FACTOR_MAX);
            let after_successes = ramp.integer("after_successes", 1, COUNT_MAX);
            for name in ["factor", "after_successes"] {
                if ramp.raw(name).is_none_or(|raw| raw == "null") {
                    ramp.fault(name, "is missing");
                }
            }
            Some(Ramp {
                factor: factor?,
                after_successes: after_successes?,
                max_starts_per_minute: ramp
                    .integer("max_starts_per_minute", 1, COUNT_MAX)
                    .unwrap_or_else(|| {
                        starts_per_minute
                            .unwrap_or(1)
                            .saturating_mul(RAMP_MAX)
                            .min(COUNT_MAX)
                    }),
            })
        });
        if ramp.is_some() && starts_per_minute.is_none() {
            pace.fault(
                "ramp",
                "makes starts_per_minute grow, and there is none; give the first rate",
            );
        }
        Pace {
            starts_per_minute,
            max_in_flight,
            in_flight_timeout,
            ramp: ramp.flatten(),
        }
    })
}

pub(super) fn read_window(fields: &mut Fields<'_>) -> Option<Window> {
    let known = ["start", "end", "time_zone", "days"];
    let read = fields.object("window", &known, |window| {
        let start = window.required("start", time);
        let end = window.required("end", time);
        if start.is_some() && start == end {
            window.fault(
                "end",
                "is the same as start; leave the window out if devices may start at any time",
            );
        }
        let time_zone = window.required("time_zone", time_zone);
        let mut days = Vec::new();
        if let Some(items) = window.items("days") {
            for item in items {
                let day = serde_json::from_str::<String>(item.get())
                    .ok()
                    .and_then(|name| weekday(&name));
                match day {
                    Some(day) if days.contains(&day) => {
                        window.fault("days", format!("has {} twice", shown(item.get())));
                    }
                    Some(day) => days.push(day),
                    None => window.fault(
                        "days",
                        format!(
                            "has {}, which is none of mon, tue, wed, thu, fri, sat, sun",
                            shown(item.get())
                        ),
                    ),
                }
            }
            if days.is_empty() {
                window.fault("days", "names no day; leave it out for every day");
            }
        }
        Some(Window {
            start: start?,
            end: end?,
            time_zone: time_zone?,
            days,
        })
    });
    read.flatten()
}

/// `HH:MM`, on the full minute.
pub(super) fn time(text: &str) -> Result<Time, String> {
    let parse = || {
        let (hour, minute) = text.split_once(':').filter(|_| text.len() == 5)?;
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(hour) || !is_number(minute) {
            return None;
        }
        Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
    };
    parse().ok_or_else(|| "is no time of day; write it like 01:00 or 23:30".to_owned())
}

/// A name of the time zone database.
pub(super) fn time_zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text)
        .map_err(|_| "is no time zone; name one like Europe/Berlin or UTC".to_owned())
}

/// Days by their names.
pub(in crate::message) const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

pub(super) fn weekday(name: &str) -> Option<Weekday> {
    DAYS.into_iter()
        .find_map(|(known, day)| (known == name).then_some(day))
}

pub(super) fn read_abort(fields: &mut Fields<'_>) -> Vec<Abort> {
    let Some(items) = fields.items("abort") else {
        return Vec::new();
    };
    if items.len() > CRITERIA_MAX {
        fields.fault(
            "abort",
            format!(
                "has {} criteria; at most {CRITERIA_MAX} are allowed",
                items.len()
            ),
        );
        return Vec::new();
    }
    let mut all = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let name = format!("abort[{index}]");
        let Ok(mut criterion) = Fields::parse(item.get()) else {
            fields.fault(
                &name,
                format!("must be a JSON object, is {}", shown(item.get())),
            );
            continue;
        };
        let failure = criterion.required("failure", |text| {
            FailureKind::from_name(text)
                .ok_or_else(|| "is none of any, device_fault, timed_out, configuration".to_owned())
        });
        let percent = criterion.number("percent", 0.0, 100.0);
        let min_finished = criterion.integer("min_finished", 1, COUNT_MAX);
        for required in ["percent", "min_finished"] {
            if criterion.raw(required).is_none_or(|raw| raw == "null") {
                criterion.fault(required, "is missing");
            }
        }
        criterion.refuse_unknown(&["failure", "percent", "min_finished"]);
        for fault in criterion.faults {
            fields.fault(&format!("{name}.{}", fault.field), fault.message);
        }
        if let (Some(failure), Some(percent), Some(min_finished)) = (failure, percent, min_finished)
        {
            all.push(Abort {
                failure,
                percent,
                min_finished,
            });
        }
    }
    all
}
