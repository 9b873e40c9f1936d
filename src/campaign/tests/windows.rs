//! Windows over a year's corners. Berlin's clocks go forward on 2026-03-29 (02:00 to 03:00) and back on 2026-10-25 (03:00 to 02:00).

use jiff::civil::Weekday;
use jiff::tz::TimeZone;

use super::*;

fn window(start: &str, end: &str, days: &[Weekday]) -> Window {
    Window {
        start: start.parse().unwrap(),
        end: end.parse().unwrap(),
        time_zone: TimeZone::get("Europe/Berlin").unwrap(),
        days: days.to_vec(),
    }
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// When the window opens and closes next, as seen from `now` while it is closed.
fn next(window: &Window, now: &str) -> (String, String) {
    let Opening::Closed {
        opens_at: Some(opens),
    } = window.at(time(now))
    else {
        panic!("it is not closed at {now}");
    };
    let Opening::Open { until } = window.at(opens) else {
        panic!("it does not open at {opens}");
    };
    (opens.to_string(), until.to_string())
}

#[track_caller]
fn check(window: &Window, now: &str, opens: &str, closes: &str) {
    assert_eq!(next(window, now), (opens.to_owned(), closes.to_owned()));
}

#[test]
fn a_window_is_open_from_its_start_until_before_its_end() {
    let window = window("01:00", "05:00", &[]);
    check(
        &window,
        "2026-06-10T12:00:00Z",
        "2026-06-10T23:00:00Z",
        "2026-06-11T03:00:00Z",
    );
    let last = time("2026-06-11T02:59:59.999Z");
    assert!(matches!(window.at(last), Opening::Open { .. }));
    let end = time("2026-06-11T03:00:00Z");
    assert!(matches!(window.at(end), Opening::Closed { .. }));
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
    let window = window("22:00", "04:00", &[Weekday::Friday]);
    check(
        &window,
        "2026-06-10T12:00:00Z",
        "2026-06-12T20:00:00Z",
        "2026-06-13T02:00:00Z",
    );
    // Saturday 01:00 in Berlin is Friday's window still, Friday 01:00 is nobody's.
    assert!(matches!(
        window.at(time("2026-06-12T23:00:00Z")),
        Opening::Open { .. }
    ));
    assert!(matches!(
        window.at(time("2026-06-11T23:00:00Z")),
        Opening::Closed { .. }
    ));
}

#[test]
fn the_night_on_which_clocks_go_forward() {
    let from = "2026-03-28T12:00:00Z";
    check(
        &window("01:00", "05:00", &[]),
        from,
        "2026-03-29T00:00:00Z",
        "2026-03-29T03:00:00Z",
    );
    // 02:30 does not exist: the start moves behind the gap, the end before it.
    check(
        &window("02:30", "05:00", &[]),
        from,
        "2026-03-29T01:30:00Z",
        "2026-03-29T03:00:00Z",
    );
    check(
        &window("01:00", "02:30", &[]),
        from,
        "2026-03-29T00:00:00Z",
        "2026-03-29T00:30:00Z",
    );
    // The whole window does not exist: the next one is that of the day after.
    check(
        &window("02:10", "02:50", &[]),
        from,
        "2026-03-30T00:10:00Z",
        "2026-03-30T00:50:00Z",
    );
}

#[test]
fn the_night_on_which_clocks_go_back() {
    let from = "2026-10-24T12:00:00Z";
    check(
        &window("01:00", "05:00", &[]),
        from,
        "2026-10-24T23:00:00Z",
        "2026-10-25T04:00:00Z",
    );
    // 02:30 comes twice: the second start and the first end, so that the wall clock is never outside.
    check(
        &window("02:30", "05:00", &[]),
        from,
        "2026-10-25T01:30:00Z",
        "2026-10-25T04:00:00Z",
    );
    check(
        &window("01:00", "02:30", &[]),
        from,
        "2026-10-24T23:00:00Z",
        "2026-10-25T00:30:00Z",
    );
    // The whole window comes twice: it opens once.
    check(
        &window("02:10", "02:50", &[]),
        from,
        "2026-10-25T00:10:00Z",
        "2026-10-25T00:50:00Z",
    );
    let second = time("2026-10-25T01:30:00Z");
    assert!(matches!(
        window("02:10", "02:50", &[]).at(second),
        Opening::Closed { .. }
    ));
}

#[test]
fn at_no_moment_of_an_open_window_the_wall_clock_stands_outside() {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let mut hours_open = 0;
    for (start, end) in [
        ("00:00", "02:30"),
        ("01:30", "02:15"),
        ("02:15", "02:45"),
        ("02:30", "04:00"),
        ("23:00", "02:20"),
        ("22:00", "21:00"),
    ] {
        let window = window(start, end, &[]);
        for day in [
            "2026-03-28T20:00:00Z",
            "2026-10-24T20:00:00Z",
            "2026-07-01T20:00:00Z",
        ] {
            for minute in 0..12 * 60 {
                let now = time(day) + SignedDuration::from_mins(minute);
                if let Opening::Open { until } = window.at(now) {
                    assert!(until > now);
                    let clock = zone.to_datetime(now).time();
                    let is_inside = if window.start < window.end {
                        (window.start..window.end).contains(&clock)
                    } else {
                        clock >= window.start || clock < window.end
                    };
                    assert!(is_inside, "{start}-{end} is open at {clock}");
                    hours_open += 1;
                }
            }
        }
    }
    assert!(hours_open > 3_000, "{hours_open}");
}

#[test]
fn days_are_those_of_the_place() {
    // Monday 00:30 in Berlin is Sunday 23:30 in UTC.
    let window = window("00:15", "01:00", &[Weekday::Monday]);
    check(
        &window,
        "2026-11-20T12:00:00Z",
        "2026-11-22T23:15:00Z",
        "2026-11-23T00:00:00Z",
    );
}
