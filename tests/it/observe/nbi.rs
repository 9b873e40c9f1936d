//! The dashboard of the NBI: rate, errors and duration by operation, the circuit, the limits.

use nbi_upgrade::telemetry::names;

use super::board::{Board, Panel};
use super::promql::{max, of, quantile, rate, sum, with, within};

/// Not an answer to what was asked. A 404 is one: no such row.
const ERRORS: &str = r#"status!~"2..|404""#;

pub(super) fn board() -> Board {
    let mut board = Board::new(
        "nbi-upgrade-nbi",
        "nbi-upgrade / NBI",
        "Calls of the management system's HTTP interface: how many, how many fail, how long they take, and what holds them back.",
    );
    let calls = format!("{}_count", names::NBI_REQUEST_DURATION);
    let all = sum("", &rate(&of(&calls)));
    let errors = sum("", &rate(&with(&calls, ERRORS)));
    board.row("Now");
    board.add(4, 4, Panel::stat(
        "Workers that do not ask",
        "none",
        "Workers whose circuit is open. They do not ask the NBI, as it does not answer or refuses the credentials; they try again by themselves.",
    )
    .query(sum("", &of(names::NBI_CIRCUIT_OPEN)), "open")
    .value_is(0, "none", "green")
    .alarms(1.0));
    board.add(
        4,
        4,
        Panel::stat("Calls", "reqps", "Calls a second, each repeat by itself.")
            .query(all.clone(), "calls")
            .plain()
            .decimals(1),
    );
    board.add(
        4,
        4,
        Panel::stat(
            "Failing calls",
            "percentunit",
            "Share of calls without a usable answer.",
        )
        .query(format!("{errors} / ({all} > 0)"), "failing")
        .warns(0.02, 0.1)
        .decimals(1)
        .without_data("no calls"),
    );
    board.add(
        4,
        4,
        Panel::stat(
            "Slow calls, p95",
            "s",
            "95 % of calls are answered within this time.",
        )
        .query(quantile(0.95, names::NBI_REQUEST_DURATION, ""), "p95")
        .warns(2.5, 10.0)
        .decimals(2)
        .without_data("no calls"),
    );
    board.add(4, 4, Panel::stat(
        "Refused credentials, 15 min",
        "none",
        "Calls answered with 401 or 403. The workers stop asking, jobs wait: correct nbi.username and the password.",
    )
    .query(format!("ceil({})", sum("", &within("15m", &of(names::NBI_REFUSALS)))), "refused")
    .alarms(1.0)
    .decimals(0));
    board.add(4, 4, Panel::stat(
        "Calls at once, at most",
        "none",
        "What all workers together may have under way: nbi.max_concurrency, or less while the NBI is slow or fails.",
    )
    .query(sum("", &of(names::NBI_CONCURRENCY_LIMIT)), "limit")
    .plain());
    board.row("Rate, errors, duration");
    board.add(
        8,
        9,
        Panel::stacked(
            "Calls by operation",
            "reqps",
            "Calls a second, each repeat by itself.",
        )
        .query(sum("operation", &rate(&of(&calls))), "{{operation}}"),
    );
    board.add(8, 9, Panel::lines(
        "Failing calls by operation",
        "percentunit",
        "Share of calls without a usable answer: 4xx but 404, 5xx, no connection, no answer in time, or a failure told in the body of a 200 (unusable).",
    )
    .query(
        format!(
            "{} / ({} > 0)",
            sum("operation", &rate(&with(&calls, ERRORS))),
            sum("operation", &rate(&of(&calls)))
        ),
        "{{operation}}",
    )
    .warns(0.02, 0.1)
    .up_to(1.0));
    board.add(
        8,
        9,
        Panel::lines(
            "Duration by operation, p95",
            "s",
            "95 % of calls are answered within this time. Connection requests take as long as the device.",
        )
        .query(
            quantile(0.95, names::NBI_REQUEST_DURATION, "operation"),
            "{{operation}}",
        ),
    );
    board.add(
        12,
        8,
        Panel::stacked(
            "Answers that are none, by status",
            "reqps",
            "Calls a second by HTTP status, or by what happened instead of an answer. unusable: a status of success with a failure in its body, or with something that is no answer.",
        )
        .query(sum("status", &rate(&with(&calls, ERRORS))), "{{status}}")
        .without_data("none"),
    );
    board.add(
        12,
        8,
        Panel::lines(
            "Duration of all calls",
            "s",
            "How long the NBI takes to answer.",
        )
        .query(
            quantile(0.5, names::NBI_REQUEST_DURATION, ""),
            "half of them",
        )
        .query(quantile(0.95, names::NBI_REQUEST_DURATION, ""), "95 %")
        .query(quantile(0.99, names::NBI_REQUEST_DURATION, ""), "99 %"),
    );
    board.row("Circuit and limits");
    board.add(
        8,
        8,
        Panel::states(
            "Circuit by worker",
            "open: nothing is sent. probing: one call finds out whether the NBI answers again.",
        )
        .query(
            // Probing counts as open too.
            format!(
                "{} + {}",
                max("instance", &of(names::NBI_CIRCUIT_OPEN)),
                max(
                    "instance",
                    &with(names::NBI_CIRCUIT_STATE, r#"state="probing""#)
                )
            ),
            "{{instance}}",
        )
        .value_is(0, "closed", "green")
        .value_is(1, "open", "red")
        .value_is(2, "probing", "orange"),
    );
    board.add(8, 8, Panel::lines(
        "Waiting for a turn, p95",
        "s",
        "How long calls wait for nbi.max_concurrency, nbi.requests_per_second and the budgets of the classes. Much of it: raise them, if the NBI can bear it.",
    )
    .query(quantile(0.95, names::NBI_LIMITER_WAIT, "class"), "{{class}}"));
    board.add(
        8,
        8,
        Panel::lines(
            "Calls at once, by worker",
            "none",
            "By worker. It falls while the NBI is slow or fails and rises again step by step.",
        )
        .query(
            max("instance", &of(names::NBI_CONCURRENCY_LIMIT)),
            "{{instance}}",
        ),
    );
    board
}
