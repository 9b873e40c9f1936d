//! The dashboard of the NOC: is the fleet in danger, and by what?

use nbi_upgrade::job::fault;
use nbi_upgrade::telemetry::names;

use super::board::{Board, Panel};
use super::promql::{
    CONFIGURATION_FAULTS, average, in_queues, max, of, per_minute, quantile, rate, sum, with,
    within,
};

/// Failures that say something about devices, files or the NBI: an upgrade that another job took over is none.
const FAILED: &str = r#"outcome="failed",reason!="superseded""#;

/// What failures are a share of.
const OVER: &str = r#"outcome=~"completed|failed",reason!="superseded""#;

pub(super) fn board() -> Board {
    let mut board = Board::new(
        "nbi-upgrade-fleet",
        "nbi-upgrade / Fleet",
        "Is the fleet in danger? The first two lines answer it: everything green is well. Below: what is going on, and why.",
    );
    board.row("Is the fleet in danger?");
    danger(&mut board);
    alerts(&mut board);
    board.row("What is going on");
    flow(&mut board);
    board.row("Devices");
    devices(&mut board);
    board.row("Time");
    time(&mut board);
    board
}

fn danger(board: &mut Board) {
    let failed = sum("", &within("15m", &with(names::JOBS_FINISHED, FAILED)));
    let over = sum("", &within("15m", &with(names::JOBS_FINISHED, OVER)));
    let configuration = with(
        names::DEVICE_FAULTS,
        &format!("code=~\"{CONFIGURATION_FAULTS}\""),
    );
    let silent = with(
        names::JOBS_FINISHED,
        r#"outcome="failed",reason=~"timed_out|nbi_unavailable|nbi_protocol_error""#,
    );
    board.add(4, 4, Panel::stat(
        "Alerts",
        "none",
        "Alerts of nbi-upgrade that are firing now. Counts for the whole Prometheus, whatever is chosen above. Needs deploy/prometheus/rules.yml.",
    )
    .query(
        r#"count(ALERTS{alertstate="firing",alertname=~"NbiUpgrade.+"}) or vector(0)"#.to_owned(),
        "firing",
    )
    .value_is(0, "none", "green")
    .alarms(1.0));
    board.add(4, 4, Panel::stat(
        "Failed jobs, 15 min",
        "percentunit",
        "Share of failed among the jobs that ended within 15 minutes. Superseded and cancelled jobs do not count.",
    )
    .query(format!("{failed} / ({over} > 0)"), "failed")
    .warns(0.05, 0.2)
    .decimals(1)
    .up_to(1.0)
    .without_data("no jobs"));
    board.add(4, 4, Panel::stat(
        "Configuration faults, 15 min",
        "none",
        "Devices that could not get the file: no access, not found, unsupported protocol, wrong signature. Every device would fare the same: stop.",
    )
    .query(format!("ceil({})", sum("", &within("15m", &configuration))), "faults")
    .warns(1.0, 3.0)
    .decimals(0));
    board.add(
        4,
        4,
        Panel::stat(
            "Jobs without a result, 15 min",
            "percentunit",
            "Share of jobs that ended without a word from their device: it may have upgraded, and nobody knows. Read the versions of these devices.",
        )
        .query(
            format!("{} / ({over} > 0)", sum("", &within("15m", &silent))),
            "without a result",
        )
        .warns(0.02, 0.1)
        .decimals(1)
        .without_data("no jobs"),
    );
    board.add(4, 4, Panel::stat(
        "Rules left armed, 24 h",
        "none",
        "Jobs that could not disarm their rule: the NBI may start the upgrade again at any time. Disarm by hand.",
    )
    .query(format!("ceil({})", sum("", &within("24h", &with(names::RULES_ENDED, r#"state="cleanup_failed""#)))), "rules")
    .alarms(1.0)
    .decimals(0));
    board.add(4, 4, Panel::stat(
        "Dead letters",
        "none",
        "Messages in the dead-letter queue: requests and steps that nobody could carry out. Look: nbi-upgrade dead list.",
    )
    .query(in_queues("", r#"queue="dead""#), "messages")
    .alarms(1.0)
    .without_data("unknown"));
    board.add(
        4,
        4,
        Panel::stat(
            "NBI",
            "percentunit",
            "Share of workers that have stopped asking the NBI, as it does not answer or refuses the credentials. Some of them: their network or password. All: the NBI.",
        )
        .query(average(&of(names::NBI_CIRCUIT_OPEN)), "circuits open")
        .value_is(0, "answers", "green")
        .value_is(1, "AWAY", "red")
        .warns(0.001, 0.999)
        .decimals(0),
    );
    board.add(
        4,
        4,
        Panel::stat(
            "Broker",
            "percentunit",
            "Share of workers that are connected to RabbitMQ.",
        )
        .query(average(&of(names::BROKER_CONNECTED)), "connected")
        .value_is(1, "connected", "green")
        .value_is(0, "LOST", "red")
        .should_be_all()
        .without_data("no workers"),
    );
    board.add(
        4,
        4,
        Panel::stat(
            "Emergency stop",
            "none",
            "Whether everything was paused by order: nothing new is begun until somebody ends it.",
        )
        .query(max("", &of(names::EMERGENCY_STOP)), "stopped")
        .value_is(0, "off", "green")
        .value_is(1, "ON", "red"),
    );
    board.add(4, 4, Panel::stat(
        "Lateness, p99",
        "s",
        "How much later than asked for steps are taken up. Above a minute workers or broker cannot keep up.",
    )
    .query(quantile(0.99, names::STEP_LATENESS, ""), "late")
    .warns(15.0, 60.0)
    .decimals(1)
    .without_data("no steps"));
    board.add(4, 4, Panel::stat(
        "In flight",
        "none",
        "Jobs that were begun and are not over: those that wait in the broker and those in hand.",
    )
    .query(in_flight(), "jobs")
    .plain()
    .decimals(0)
    .without_data("unknown"));
    board.add(4, 4, Panel::stat(
        "Oldest job",
        "s",
        "Age, from its request (or its not_before), of the oldest job that was put to wait within the last ten minutes, at that moment.",
    )
    .query(max("", &of(names::OLDEST_JOB)), "age")
    .plain());
}

/// Which alerts fire, and since when.
fn alerts(board: &mut Board) {
    let firing = |severity: &str| {
        format!(r#"ALERTS{{alertstate="firing",alertname=~"NbiUpgrade.+",severity="{severity}"}}"#)
    };
    board.add(
        24,
        6,
        Panel::states(
            "Alerts over time",
            "Which alerts of nbi-upgrade fire, and since when. Each has a section in docs/runbook.md: meaning, impact, what to look at, what to do.",
        )
        .query(
            format!(
                "max by (alertname) ({} or 2 * {})",
                firing("warning"),
                firing("critical")
            ),
            "{{alertname}}",
        )
        .value_is(1, "warning", "orange")
        .value_is(2, "critical", "red")
        .without_data("no alert fires"),
    );
}

/// Waiting in the broker, and in hand. What a worker has prefetched and not begun is in neither.
fn in_flight() -> String {
    let waiting = in_queues("", r#"queue=~"steps|delay""#);
    format!("{waiting} + {}", sum("", &of(names::DELIVERIES_IN_HAND)))
}

fn flow(board: &mut Board) {
    let armed = with(names::STAGE_ATTEMPTS, r#"stage="create_rule",result="ok""#);
    let outcome = |outcome: &str| with(names::JOBS_FINISHED, &format!("outcome=\"{outcome}\""));
    board.add(
        12,
        8,
        Panel::lines(
            "Started and finished",
            "cpm",
            "Jobs a minute: taken in, told to the NBI (the rule is armed), and ended by outcome.",
        )
        .query(per_minute(&of(names::JOBS_ACCEPTED)), "accepted")
        .query(per_minute(&armed), "rule armed")
        .query(per_minute(&outcome("completed")), "completed")
        .query(per_minute(&outcome("failed")), "failed")
        .query(per_minute(&outcome("cancelled")), "cancelled")
        .query(per_minute(&outcome("rejected")), "rejected")
        .colour("accepted", "blue")
        .colour("rule armed", "purple")
        .colour("completed", "green")
        .colour("failed", "red")
        .colour("cancelled", "text")
        .colour("rejected", "orange"),
    );
    board.add(12, 8, Panel::stacked(
        "In flight, and waiting to begin",
        "short",
        "Jobs in the broker and in hand. Waiting to begin: requests that no worker has taken yet. Due: steps whose time has come; many of them mean that workers cannot keep up.",
    )
    .query(in_queues("", r#"queue="delay""#), "in flight, asleep")
    .query(in_queues("", r#"queue="steps""#), "in flight, due")
    .query(sum("", &of(names::DELIVERIES_IN_HAND)), "in hand")
    .query(in_queues("", r#"queue="requests""#), "waiting to begin")
    .colour("in flight, asleep", "blue")
    .colour("in flight, due", "orange")
    .colour("in hand", "green")
    .colour("waiting to begin", "purple"));
    let failed = sum("", &rate(&with(names::JOBS_FINISHED, FAILED)));
    let over = sum("", &rate(&with(names::JOBS_FINISHED, OVER)));
    board.add(
        8,
        8,
        Panel::lines(
            "Failed jobs",
            "percentunit",
            "Share of failed among the jobs that ended. No line: none ended.",
        )
        .query(format!("{failed} / ({over} > 0)"), "failed")
        .colour("failed", "red")
        .warns(0.05, 0.2)
        .up_to(1.0),
    );
    board.add(
        8,
        8,
        Panel::stacked(
            "Why jobs fail",
            "cpm",
            "Failed jobs a minute by reason; what each means and what to do stands in docs/integrators-guide.md.",
        )
        .query(
            format!(
                "60 * {} > 0",
                sum(
                    "reason",
                    &rate(&with(names::JOBS_FINISHED, r#"outcome="failed""#))
                )
            ),
            "{{reason}}",
        )
        .without_data("none fails"),
    );
    board.add(8, 8, Panel::stacked(
        "What jobs wait for",
        "cpm",
        "Times a minute that jobs are put to sleep, by what they wait for. result: the device works. other_job: the device is busy. next_attempt: it failed and tries again.",
    )
    .query(
        format!("60 * {} > 0", sum("waiting_for", &rate(&of(names::WAITS)))),
        "{{waiting_for}}",
    )
    .without_data("none waits"));
}

fn devices(board: &mut Board) {
    let mut by_code = Panel::bars(
        "Faults by TR-069 code",
        "none",
        "Faults that devices reported in the time shown. The red ones are of the file or its server: every device would report them.",
    )
    .query(
        format!("sort_desc({} > 0)", sum("code", &format!("ceil({})", within("$__range", &of(names::DEVICE_FAULTS))))),
        "{{code}}",
    )
    .plain()
    .decimals(0)
    .without_data("no faults");
    for code in 9000..=9020_u16 {
        by_code = by_code.named(code.to_string(), format!("{code} {}", fault::name(code)));
        if CONFIGURATION_FAULTS
            .split('|')
            .any(|of_file| of_file == code.to_string())
        {
            by_code = by_code.colour(&code.to_string(), "red");
        }
    }
    let by_code = by_code.named("vendor".to_owned(), "98xx vendor-defined fault".to_owned());
    board.add(10, 9, by_code);
    board.add(
        7,
        9,
        Panel::stacked("Faults over time", "cpm", "Faults a minute by TR-069 code.").query(
            format!(
                "60 * {}",
                sum("code", &format!("{} > 0", rate(&of(names::DEVICE_FAULTS))))
            ),
            "{{code}}",
        ),
    );
    board.add(7, 9, Panel::bars(
        "What failed jobs mean for devices",
        "none",
        "Failed jobs in the time shown. none: not touched. possible: may have been told to upgrade. applied: upgraded, but not as wanted. unknown: it reported something that fits neither.",
    )
    .query(
        sum("impact", &format!("ceil({})", within("$__range", &with(names::JOBS_IMPACT, r#"outcome="failed""#)))),
        "{{impact}}",
    )
    .plain()
    .colour("none", "green")
    .colour("possible", "orange")
    .colour("applied", "orange")
    .colour("unknown", "red")
    .decimals(0));
}

fn time(board: &mut Board) {
    let completed = sum(
        "le",
        &rate(&with(
            &format!("{}_bucket", names::JOB_DURATION),
            r#"outcome="completed""#,
        )),
    );
    board.add(
        8,
        8,
        Panel::lines(
            "From request to completion",
            "s",
            "How long completed jobs took from their request.",
        )
        .query(
            format!("histogram_quantile(0.5, {completed})"),
            "half of them",
        )
        .query(format!("histogram_quantile(0.95, {completed})"), "95 %"),
    );
    board.add(8, 8, Panel::lines(
        "Stages, p95",
        "s",
        "How long stages take from their first attempt until they are left for good. await_result is the device itself.",
    )
    .query(quantile(0.95, names::STAGE_DURATION, "stage"), "{{stage}}"));
    let later = |used: &str| {
        let polls = |name: &str, labels: &str| {
            let name = format!("{}_{name}", names::JOB_DEADLINE_USED);
            let series = if labels.is_empty() {
                of(&name)
            } else {
                with(&name, labels)
            };
            sum("", &rate(&series))
        };
        let before = polls("bucket", &format!("le=\"{used}\""));
        format!("1 - {before} / ({} > 0)", polls("count", ""))
    };
    board.add(8, 8, Panel::lines(
        "Jobs that run out of time",
        "percentunit",
        "Of the looks for a device's result, the share for jobs that have used up more than three quarters (nine tenths) of the time to their deadline. It rises before jobs time out.",
    )
    .query(later("0.75"), "past 3/4")
    .query(later("0.9"), "past 9/10")
    .colour("past 3/4", "orange")
    .colour("past 9/10", "red")
    .up_to(1.0));
    board.add(12, 8, Panel::stacked(
        "Jobs whose deadline is in jeopardy",
        "cpm",
        "Jobs a minute that said so, each once, by what they wait for: less time is left than a device takes (job.flash_time). result: the device is silent.",
    )
    .query(
        format!("60 * {}", sum("waiting_for", &rate(&of(names::JOBS_IN_JEOPARDY)))),
        "{{waiting_for}}",
    ));
    board.add(12, 8, Panel::lines(
        "Armed rules without an owner",
        "none",
        "As the worker that leads sees them every sweep.interval. sure: no job owns them. unsure: the history does not say. Look: nbi-upgrade sweep.",
    )
    .query(max("certainty", &of(names::ORPHAN_RULES)), "{{certainty}}")
    .query(sum("", &within("$__rate_interval", &of(names::ORPHAN_RULES_DISARMED))), "disarmed")
    .query(
        sum("", &within("$__rate_interval", &with(names::SWEEPS, r#"result="failed""#))),
        "sweeps that failed",
    )
    .colour("sure", "red")
    .colour("unsure", "orange")
    .colour("disarmed", "green"));
    board.add(8, 8, Panel::lines(
        "Lateness of delayed steps",
        "s",
        "Arrival of a delayed step minus the time asked for: the health of workers and broker together.",
    )
    .query(quantile(0.5, names::STEP_LATENESS, ""), "half of them")
    .query(quantile(0.99, names::STEP_LATENESS, ""), "99 %")
    .warns(15.0, 60.0));
    board.add(
        8,
        8,
        Panel::lines(
            "Oldest job over time",
            "s",
            "Age of the oldest job that was put to wait within the last ten minutes, at that moment.",
        )
        .query(max("", &of(names::OLDEST_JOB)), "age"),
    );
    board.add(8, 8, Panel::lines(
        "Results after the end",
        "none",
        "Jobs that had timed out and whose device reported later, by what it reported; needs job.late_watch. Many of them: give jobs more time.",
    )
    .query(
        sum("outcome", &within("$__rate_interval", &of(names::JOBS_CORRECTED))),
        "{{outcome}}",
    ));
}
