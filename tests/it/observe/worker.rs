//! The dashboard of workers and broker: throughput, confirms, redeliveries, reconnects, the processes.

use nbi_upgrade::telemetry::names;

use super::board::{Board, Panel};
use super::promql::{in_queues, max, min, of, quantile, rate, sum, with, within};

pub(super) fn board() -> Board {
    let mut board = Board::new(
        "nbi-upgrade-worker",
        "nbi-upgrade / Worker and broker",
        "Whether the workers run and the broker keeps up: throughput, confirms, redeliveries, reconnects, CPU and memory.",
    );
    board.row("Now");
    now(&mut board);
    board.row("Messages");
    messages(&mut board);
    board.row("What should not happen");
    troubles(&mut board);
    board.row("Processes");
    processes(&mut board);
    board
}

fn now(board: &mut Board) {
    let received = sum("", &rate(&of(names::MESSAGES_RECEIVED)));
    let redelivered = sum("", &rate(&of(names::MESSAGES_REDELIVERED)));
    board.add(
        4,
        4,
        Panel::stat("Workers", "none", "Workers that are connected.")
            .query(sum("", &of(names::BROKER_CONNECTED)), "workers")
            .steps_from_zero(),
    );
    board.add(
        4,
        4,
        Panel::stat("Broker", "none", "Whether every worker is connected.")
            .query(min(&of(names::BROKER_CONNECTED)), "connected")
            .value_is(1, "connected", "green")
            .value_is(0, "LOST", "red"),
    );
    board.add(4, 4, Panel::stat(
        "Publishing",
        "none",
        "A broker short of memory or disk blocks publishers: no job moves on until it recovers.",
    )
    .query(max("", &of(names::BROKER_BLOCKED)), "blocked")
    .value_is(0, "accepted", "green")
    .value_is(1, "BLOCKED", "red"));
    board.add(
        4,
        4,
        Panel::stat("Deliveries", "ops", "Deliveries a second.")
            .query(received.clone(), "deliveries")
            .plain()
            .decimals(1),
    );
    board.add(
        4,
        4,
        Panel::stat(
            "Redelivered",
            "percentunit",
            "Share of deliveries that came before: workers that ended or lost their connection.",
        )
        .query(format!("{redelivered} / ({received} > 0)"), "redelivered")
        .warns(0.05, 0.25)
        .decimals(1)
        .without_data("none"),
    );
    board.add(
        4,
        4,
        Panel::stat(
            "Confirms, p99",
            "s",
            "How long the broker takes to make a message safe.",
        )
        .query(quantile(0.99, names::PUBLISH_CONFIRM, ""), "p99")
        .warns(0.5, 5.0)
        .decimals(0)
        .without_data("none"),
    );
}

fn messages(board: &mut Board) {
    board.add(
        8,
        8,
        Panel::stacked(
            "Received",
            "ops",
            "Deliveries a second. requests: new jobs. steps: jobs in flight whose time has come.",
        )
        .query(
            sum("queue", &rate(&of(names::MESSAGES_RECEIVED))),
            "{{queue}}",
        ),
    );
    board.add(
        8,
        8,
        Panel::stacked(
            "Published and confirmed",
            "ops",
            "Confirmed publishes a second. delay: jobs that wait. results: events.",
        )
        .query(
            sum("exchange", &rate(&of(names::MESSAGES_PUBLISHED))),
            "{{exchange}}",
        ),
    );
    board.add(
        8,
        8,
        Panel::lines(
            "Confirms",
            "s",
            "From publish to the broker's confirm. It rises with slow disks and overload.",
        )
        .query(quantile(0.5, names::PUBLISH_CONFIRM, ""), "half of them")
        .query(quantile(0.99, names::PUBLISH_CONFIRM, ""), "99 %"),
    );
    board.add(
        8,
        8,
        Panel::lines(
            "Queues",
            "short",
            "Messages ready, as last asked. delay: all delay queues together.",
        )
        .query(in_queues("queue", r#"queue!="""#), "{{queue}}")
        .colour("dead", "red"),
    );
    board.add(
        8,
        8,
        Panel::lines(
            "In hand",
            "short",
            "Deliveries that are worked on, by worker.",
        )
        .query(
            max("instance", &of(names::DELIVERIES_IN_HAND)),
            "{{instance}}",
        ),
    );
    board.add(
        8,
        8,
        Panel::lines(
            "Lateness by worker, p99",
            "s",
            "Arrival of a delayed step minus the time asked for.",
        )
        .query(
            quantile(0.99, names::STEP_LATENESS, "instance"),
            "{{instance}}",
        )
        .warns(15.0, 60.0),
    );
}

fn troubles(board: &mut Board) {
    let lately = |series: &str| sum("instance", &within("$__rate_interval", series));
    board.add(
        8,
        8,
        Panel::lines(
            "Reconnects",
            "none",
            "Connections made after the first one, by worker.",
        )
        .query(lately(&of(names::BROKER_RECONNECTS)), "{{instance}}"),
    );
    board.add(8, 8, Panel::lines("Redelivered, by queue", "none", "Deliveries that came before, by queue. duplicates: those whose replacement was known to be safe.")
        .query(sum("queue", &within("$__rate_interval", &of(names::MESSAGES_REDELIVERED))), "{{queue}}")
        .query(sum("", &within("$__rate_interval", &of(names::DUPLICATES_DROPPED))), "duplicates dropped"));
    let reason = |name: &str| with(names::DEAD_LETTERED, &format!("reason=\"{name}\""));
    board.add(8, 8, Panel::lines(
        "Faults of messages and workers",
        "none",
        "panics and hand-overs that failed: report them. dead-lettered: look at nbi-upgrade dead list. parked: steps of a newer release, with old and new workers side by side.",
    )
    .query(sum("", &within("$__rate_interval", &of(names::PANICS))), "panics")
    .query(sum("", &within("$__rate_interval", &of(names::HAND_OVERS_FAILED))), "hand-overs failed")
    .query(sum("", &within("$__rate_interval", &reason("invalid_request"))), "invalid requests")
    .query(sum("", &within("$__rate_interval", &reason("malformed_step"))), "malformed steps")
    .query(sum("", &within("$__rate_interval", &of(names::STEPS_PARKED))), "steps parked")
    .query(sum("", &within("$__rate_interval", &of(names::REPLIES_FAILED))), "replies failed")
    .query(sum("", &within("$__rate_interval", &of(names::RELEASED))), "jobs given back"));
    board.add(
        12,
        7,
        Panel::lines(
            "Orders answered",
            "none",
            "Orders of operators (cancel, pause, resume), by the answer: accepted, or refused as they were not valid or came too late.",
        )
        .query(
            sum(
                "answer",
                &within("$__rate_interval", &of(names::COMMANDS_ANSWERED)),
            ),
            "{{answer}}",
        )
        .colour("refused", "red"),
    );
    board.add(
        12,
        7,
        Panel::stacked(
            "Invalid requests by field",
            "none",
            "Fields at fault in requests that were rejected: what the sender has to correct.",
        )
        .query(
            sum(
                "field",
                &format!(
                    "{} > 0",
                    within("$__rate_interval", &of(names::JOBS_REJECTED))
                ),
            ),
            "{{field}}",
        )
        .without_data("none"),
    );
}

fn processes(board: &mut Board) {
    board.add(
        6,
        8,
        Panel::lines("CPU", "percentunit", "Share of one core, by worker.").query(
            sum("instance", &rate(&of("process_cpu_seconds_total"))),
            "{{instance}}",
        ),
    );
    board.add(
        6,
        8,
        Panel::lines("Memory", "bytes", "Resident memory, by worker.").query(
            max("instance", &of("process_resident_memory_bytes")),
            "{{instance}}",
        ),
    );
    board.add(
        6,
        8,
        Panel::lines(
            "Open files",
            "percentunit",
            "File descriptors as a share of what the process may have, by worker.",
        )
        .query(
            format!(
                "{} / {}",
                max("instance", &of("process_open_fds")),
                max("instance", &of("process_max_fds"))
            ),
            "{{instance}}",
        )
        .up_to(1.0),
    );
    board.add(
        6,
        8,
        Panel::states("Releases", "Which build runs where.")
            .query(
                max("instance, version, revision", &of(names::BUILD_INFO)),
                "{{instance}}: {{version}} {{revision}}",
            )
            .value_is(1, "runs", "green"),
    );
}
