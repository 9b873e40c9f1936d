//! Tests of telemetry: what Prometheus, a probe and a log store see.

mod lines;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{Swept, Telemetry, http};
use crate::campaign::{Conclusion, Counts, Gate, PauseReason};
use crate::driver::DriverError;
use crate::job::event::WaitingFor;
use crate::job::fault::FaultPolicy;
use crate::job::outcome::{Ending, Impact, RuleState};
use crate::job::state::{CampaignId, Cleanup, Order};
use crate::job::{CpeId, FirmwareUrl, Job, JobEvent, JobId, Outcome, Reason, RuleId, Stage};
use crate::message::campaign::{Happened, Summary};
use crate::message::{FieldFault, Named, Rejection};

fn job() -> Job {
    let now = Timestamp::UNIX_EPOCH;
    let mut job = Job::new(Order {
        job_id: JobId::parse("job-1").unwrap(),
        cpe_id: CpeId::parse("CPE1").unwrap(),
        firmware_url: FirmwareUrl::checked("https://user:hunter2@files.example.com/fw.bin")
            .unwrap(),
        rule_id: RuleId::parse("UPGRADE_CPE1").unwrap(),
        campaign_id: Some(CampaignId::parse("spring").unwrap()),
        requested_at: now,
        repeats_since: now,
        is_dated_on_arrival: false,
        not_before: None,
        deadline: now + SignedDuration::from_hours(1),
        cleanup: Cleanup::Deactivate,
        priority: 1,
        executions: 1,
        max_attempts: 1,
        expected_version: None,
        force: false,
    });
    job.progress.rule = RuleState::Deactivated;
    job
}

fn finished(outcome: Outcome, reason: Reason) -> JobEvent {
    let ending = Ending {
        outcome,
        reason,
        impact: Impact::Possible,
        message: "the deadline passed".to_owned(),
        result: None,
        fault: None,
        decided_at: Timestamp::UNIX_EPOCH,
    };
    JobEvent::Finished {
        ending: Box::new(ending),
        took: SignedDuration::from_secs(90),
    }
}

/// One of each kind.
fn events() -> Vec<JobEvent> {
    let (stage, until, error) = (
        Stage::AwaitResult,
        Timestamp::UNIX_EPOCH,
        "HTTP 503".to_owned(),
    );
    let fault = FaultPolicy::default().fault_in("FaultCode 9010").unwrap();
    vec![
        JobEvent::Accepted,
        JobEvent::StageDone {
            stage,
            attempt: 1,
            took: SignedDuration::from_secs(2),
        },
        JobEvent::StageWaits {
            stage,
            until,
            waiting_for: WaitingFor::Result,
        },
        JobEvent::StageRetried {
            stage,
            until,
            error: error.clone(),
        },
        JobEvent::StageFailed {
            stage,
            error: error.clone(),
        },
        JobEvent::DeviceFaulted {
            fault,
            tries_again: false,
        },
        JobEvent::Released { stage, error },
        JobEvent::InJeopardy {
            stage,
            next_look_at: until,
            waiting_for: Some(WaitingFor::Result),
        },
        finished(Outcome::Completed, Reason::Upgraded),
        finished(Outcome::Failed, Reason::TimedOut),
    ]
}

fn corrected() -> JobEvent {
    let JobEvent::Finished { ending, .. } = finished(Outcome::Completed, Reason::Upgraded) else {
        unreachable!("it finishes")
    };
    JobEvent::Corrected { ending }
}

fn rejection() -> Rejection {
    let fault = |field: &str| FieldFault {
        field: field.to_owned(),
        message: "is wrong".to_owned(),
    };
    let faults = ["cpe_id", "cpe_id", "colour"].map(fault).to_vec();
    Rejection {
        job_id: Some("job-2".to_owned()),
        cpe_id: Some("CPE2".to_owned()),
        campaign_id: Some("spring".to_owned()),
        faults,
    }
}

/// Everything that can be told, once.
fn tell_everything(telemetry: &Telemetry) {
    let (job, took) = (job(), Duration::from_millis(20));
    telemetry.job(&job, &events());
    telemetry.job(&job, &[corrected()]);
    telemetry.request_rejected(&rejection(), Some(lines::TRACEPARENT));
    let named = Named {
        job_id: Some("job-1".to_owned()),
        cpe_id: Some("CPE1".to_owned()),
        campaign_id: Some("spring".to_owned()),
    };
    telemetry.step_dead_lettered(&named, "not JSON");
    telemetry.step_parked("version 9");
    telemetry.step_panicked(&job);
    telemetry.hand_over_failed(
        &job,
        &DriverError::NotAcknowledged {
            message: "channel closed".to_owned(),
        },
    );
    telemetry.duplicate_dropped(&job);
    telemetry.nbi_answered("read_rule", "503", took);
    telemetry.nbi_refused();
    telemetry.nbi_answered("read_rule", "no such word", took);
    telemetry.nbi_answered("no such operation", "timeout", took);
    telemetry.nbi_waited("reads", took);
    telemetry.nbi_waited("no such class", took);
    telemetry.nbi_concurrency_limit(7);
    telemetry.circuit_opened("401");
    telemetry.circuit_probing();
    telemetry.circuit_reopened("401");
    telemetry.circuit_closed();
    telemetry.worker_named("upgrade", "worker-1");
    telemetry.nbi_filter_ignored("nbi.rule_query", "campaignid");
    telemetry.nbi_files_changed("password");
    telemetry.nbi_files_unusable("it is gone");
    telemetry.nbi_files_read();
    telemetry.received("steps", true);
    telemetry.received("elsewhere", false);
    telemetry.lateness(took);
    telemetry.published("delay", took);
    telemetry.published("elsewhere", took);
    telemetry.in_hand(2);
    telemetry.in_hand(-1);
    telemetry.broker_connected("amqp://u:hunter2@broker:5672");
    telemetry.broker_lost("amqp://u:hunter2@broker:5672", "reset", took);
    telemetry.broker_connected("broker:5672");
    telemetry.queues_unknown("the broker is away");
    telemetry.queue_messages("delay", 12);
    telemetry.queue_messages("elsewhere", 12);
    telemetry.broker_blocked(Some("low on disk"));
    telemetry.broker_blocked(None);
    telemetry.broker_blocked(Some("low on disk"));
    telemetry.unrouted("results", "nothing is bound");
    telemetry.published("results", took);
    telemetry.reply_failed("answers", "no such queue");
    telemetry.emergency_stop(true);
    telemetry.emergency_stop(false);
    telemetry.command_answered(true, "{}", "everything is paused");
    telemetry.history_unreadable("no read permission");
    campaigns(telemetry, took);
    sweeps(telemetry);
    telemetry.started("worker-1", ([127, 0, 0, 1], 9464).into());
    Telemetry::signalled("SIGTERM");
    telemetry.stopping();
    Telemetry::spans_lost("no answer", 3, 1, 0);
    Telemetry::spans_sent_again(1, 0);
    telemetry.endpoint_failed(&io::Error::other("closed"));
    telemetry.stopped();
}

fn sweeps(telemetry: &Telemetry) {
    let notes = ["rules moved between pages".to_owned()];
    let mut swept = Swept {
        orphans: 3,
        unsure: 2,
        disarmed: 1,
        is_whole: false,
        notes: &notes,
    };
    telemetry.swept(&swept);
    (swept.orphans, swept.unsure, swept.disarmed, swept.is_whole) = (0, 0, 0, true);
    telemetry.swept(&swept);
    telemetry.orphan_handled("UPGRADE_CPE1", "CPE1", "failed", Some("503"));
    telemetry.sweep_failed("503");
    telemetry.sweeps_elsewhere();
}

#[test]
fn a_worker_that_sweeps_no_more_shows_no_orphans() {
    let telemetry = Telemetry::default();
    let orphans = |telemetry: &Telemetry, certainty: &str| {
        let series = format!("nbi_upgrade_orphan_rules{{certainty=\"{certainty}\"}}");
        value(&telemetry.metrics_text().unwrap(), &series)
    };
    let swept = Swept {
        orphans: 3,
        unsure: 2,
        disarmed: 1,
        is_whole: true,
        notes: &[],
    };
    telemetry.swept(&swept);
    telemetry.sweep_failed("503");
    assert_eq!(orphans(&telemetry, "sure"), 3.0, "what was seen stands");
    assert_eq!(orphans(&telemetry, "unsure"), 2.0);
    telemetry.sweeps_elsewhere();
    assert_eq!(orphans(&telemetry, "sure"), 0.0);
    let text = telemetry.metrics_text().unwrap();
    assert_eq!(value(&text, "nbi_upgrade_orphan_rules_disarmed_total"), 1.0);
    assert_eq!(
        value(&text, "nbi_upgrade_sweeps_total{result=\"whole\"}"),
        1.0
    );
    assert_eq!(
        value(&text, "nbi_upgrade_sweeps_total{result=\"failed\"}"),
        1.0
    );
}

fn campaigns(telemetry: &Telemetry, took: Duration) {
    let summary = Summary {
        counts: Counts::default(),
        waiting: 3,
        in_flight: 2,
        unfinished: 2,
        is_cancelling: false,
        paused: None,
        is_in_jeopardy: false,
        gate: None,
    };
    telemetry.campaign_coordinated("spring", 7, took);
    for happened in [
        Happened::Accepted {
            devices: 3,
            request: "first".to_owned(),
        },
        Happened::Progress,
        Happened::Cancelling,
        Happened::Paused {
            reason: PauseReason::Abort,
            message: "5 of 50 failed".to_owned(),
        },
        Happened::Resumed { arm_again: None },
        Happened::Jeopardy {
            is_in_jeopardy: true,
            done_at: None,
        },
        Happened::Jeopardy {
            is_in_jeopardy: false,
            done_at: None,
        },
        Happened::Concluded(Conclusion::Completed),
    ] {
        telemetry.campaign_happened("spring", &happened, &summary);
    }
    telemetry.campaigns_led(&[("spring", summary)], true);
    telemetry.campaign_trouble("spring", "its log cannot be read");
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| {
        line.strip_prefix(series)
            .is_some_and(|rest| rest.starts_with(' '))
    });
    line.unwrap_or_else(|| panic!("{series} is missing in\n{text}"))
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn every_metric_of_the_contract_is_there_from_the_start_with_help() {
    let text = Telemetry::default().metrics_text().unwrap();
    for (name, kind) in [
        ("jobs_accepted_total", "counter"),
        ("jobs_rejected_total", "counter"),
        ("jobs_finished_total", "counter"),
        ("job_duration_seconds", "histogram"),
        ("stage_attempts_total", "counter"),
        ("stage_duration_seconds", "histogram"),
        ("nbi_request_duration_seconds", "histogram"),
        ("nbi_circuit_open", "gauge"),
        ("nbi_concurrency_limit", "gauge"),
        ("device_faults_total", "counter"),
        ("messages_received_total", "counter"),
        ("messages_redelivered_total", "counter"),
        ("messages_published_total", "counter"),
        ("publish_confirm_seconds", "histogram"),
        ("broker_connected", "gauge"),
        ("broker_reconnects_total", "counter"),
        ("deliveries_in_hand", "gauge"),
        ("step_lateness_seconds", "histogram"),
        ("build_info", "gauge"),
    ] {
        assert!(
            text.contains(&format!("# TYPE nbi_upgrade_{name} {kind}\n")),
            "{name}\n{text}"
        );
        assert!(
            text.contains(&format!("# HELP nbi_upgrade_{name} ")),
            "{name}"
        );
    }
    assert_eq!(
        value(
            &text,
            "nbi_upgrade_jobs_finished_total{outcome=\"failed\",reason=\"timed_out\"}"
        ),
        0.0
    );
    assert_eq!(
        value(
            &text,
            "nbi_upgrade_stage_attempts_total{result=\"wait\",stage=\"await_result\"}"
        ),
        0.0
    );
    assert_eq!(
        value(&text, "nbi_upgrade_device_faults_total{code=\"9020\"}"),
        0.0
    );
    assert_eq!(
        value(
            &text,
            "nbi_upgrade_job_duration_seconds_bucket{outcome=\"completed\",le=\"86400\"}"
        ),
        0.0
    );
    #[cfg(target_os = "linux")]
    assert!(text.contains("process_resident_memory_bytes"));
}

#[test]
fn what_happens_is_counted() {
    let telemetry = Telemetry::new("1.2.3", "abc");
    tell_everything(&telemetry);
    let text = telemetry.metrics_text().unwrap();
    for (series, expected) in [
        ("build_info{revision=\"abc\",version=\"1.2.3\"}", 1.0),
        ("jobs_accepted_total", 1.0),
        ("jobs_rejected_total{field=\"cpe_id\"}", 1.0),
        ("jobs_rejected_total{field=\"other\"}", 1.0),
        (
            "jobs_finished_total{outcome=\"failed\",reason=\"timed_out\"}",
            1.0,
        ),
        (
            "jobs_finished_total{outcome=\"rejected\",reason=\"invalid_request\"}",
            1.0,
        ),
        ("job_duration_seconds_sum{outcome=\"failed\"}", 90.0),
        (
            "stage_attempts_total{result=\"ok\",stage=\"await_result\"}",
            1.0,
        ),
        (
            "stage_attempts_total{result=\"retry\",stage=\"await_result\"}",
            1.0,
        ),
        (
            "stage_attempts_total{result=\"failed\",stage=\"await_result\"}",
            1.0,
        ),
        ("stage_duration_seconds_sum{stage=\"await_result\"}", 2.0),
        ("waits_total{waiting_for=\"result\"}", 1.0),
        ("released_total", 1.0),
        ("device_faults_total{code=\"9010\"}", 1.0),
        (
            "nbi_request_duration_seconds_count{operation=\"read_rule\",status=\"503\"}",
            1.0,
        ),
        (
            "nbi_request_duration_seconds_count{operation=\"read_rule\",status=\"other\"}",
            1.0,
        ),
        (
            "nbi_request_duration_seconds_count{operation=\"other\",status=\"timeout\"}",
            1.0,
        ),
        ("nbi_limiter_wait_seconds_count{class=\"reads\"}", 1.0),
        ("nbi_limiter_wait_seconds_count{class=\"other\"}", 1.0),
        ("nbi_refusals_total", 1.0),
        ("nbi_circuit_open", 0.0),
        ("nbi_circuit_state{state=\"closed\"}", 1.0),
        ("nbi_circuit_state{state=\"open\"}", 0.0),
        (
            "jobs_impact_total{impact=\"possible\",outcome=\"failed\"}",
            1.0,
        ),
        ("rules_ended_total{state=\"deactivated\"}", 2.0),
        // Its deadline was long ago.
        ("job_deadline_used_ratio_count", 1.0),
        ("job_deadline_used_ratio_bucket{le=\"1\"}", 0.0),
        ("queue_messages{queue=\"delay\"}", 12.0),
        ("queue_messages{queue=\"other\"}", 12.0),
        ("instance_info{name=\"worker-1\",prefix=\"upgrade\"}", 1.0),
        ("nbi_concurrency_limit", 7.0),
        ("messages_received_total{queue=\"steps\"}", 1.0),
        ("messages_redelivered_total{queue=\"steps\"}", 1.0),
        ("messages_published_total{exchange=\"delay\"}", 1.0),
        ("publish_confirm_seconds_count{exchange=\"delay\"}", 1.0),
        ("dead_lettered_total{reason=\"invalid_request\"}", 1.0),
        ("dead_lettered_total{reason=\"malformed_step\"}", 1.0),
        ("steps_parked_total", 1.0),
        ("duplicates_dropped_total", 1.0),
        ("hand_overs_failed_total", 1.0),
        ("replies_failed_total", 1.0),
        ("panics_total", 1.0),
        ("broker_connected", 1.0),
        ("broker_blocked", 1.0),
        ("broker_reconnects_total", 1.0),
        ("deliveries_in_hand", 1.0),
        ("step_lateness_seconds_count", 1.0),
    ] {
        assert_eq!(
            value(&text, &format!("nbi_upgrade_{series}")),
            expected,
            "{series}"
        );
    }
}

#[test]
fn the_circuit_counts_as_open_until_it_is_closed() {
    let telemetry = Telemetry::default();
    let seen = || {
        let text = telemetry.metrics_text().unwrap();
        let state = |name: &str| {
            value(
                &text,
                &format!("nbi_upgrade_nbi_circuit_state{{state=\"{name}\"}}"),
            )
        };
        let states = ["closed", "open", "probing"].map(state);
        (value(&text, "nbi_upgrade_nbi_circuit_open"), states)
    };
    assert_eq!(seen(), (0.0, [1.0, 0.0, 0.0]));
    telemetry.circuit_opened("HTTP 503");
    assert_eq!(seen(), (1.0, [0.0, 1.0, 0.0]));
    telemetry.circuit_probing();
    assert_eq!(seen(), (1.0, [0.0, 0.0, 1.0]));
    telemetry.circuit_reopened("401");
    assert_eq!(seen(), (1.0, [0.0, 1.0, 0.0]));
    telemetry.circuit_closed();
    assert_eq!(seen(), (0.0, [1.0, 0.0, 0.0]));
}

#[test]
fn depths_of_queues_are_unknown_while_the_broker_is_away() {
    let telemetry = Telemetry::default();
    let depth = || {
        let text = telemetry.metrics_text().unwrap();
        value(&text, "nbi_upgrade_queue_messages{queue=\"dead\"}")
    };
    assert!(depth().is_nan());
    telemetry.queue_messages("dead", 0);
    assert_eq!(depth(), 0.0);
    telemetry.broker_lost("broker:5672", "reset", Duration::from_secs(1));
    assert!(depth().is_nan());
}

#[test]
fn a_job_that_is_put_to_wait_shows_its_age() {
    let telemetry = Telemetry::default();
    let age = || {
        value(
            &telemetry.metrics_text().unwrap(),
            "nbi_upgrade_oldest_job_seconds",
        )
    };
    let waits = JobEvent::StageWaits {
        stage: Stage::AwaitResult,
        until: Timestamp::UNIX_EPOCH,
        waiting_for: WaitingFor::Result,
    };
    let mut job = job();
    let accepted = [JobEvent::Accepted];
    telemetry.job(&job, &accepted);
    assert_eq!(age(), 0.0);
    job.order_mut().requested_at = Timestamp::now() - SignedDuration::from_hours(2);
    telemetry.job(&job, std::slice::from_ref(&waits));
    let hours = |age: f64| (age / 3_600.0).floor();
    assert_eq!(hours(age()), 2.0);
    // What may begin later is no older than that.
    job.order_mut().requested_at = Timestamp::now() - SignedDuration::from_hours(9);
    job.order_mut().not_before = Some(Timestamp::now() + SignedDuration::from_hours(1));
    telemetry.job(&job, &[waits]);
    assert_eq!(hours(age()), 2.0);
}

/// Twenty campaigns have series of their own, the others are summed, and those that are over leave none.
#[test]
fn at_most_twenty_campaigns_have_gauges_and_what_is_over_leaves_none() {
    let telemetry = Telemetry::default();
    let names: Vec<String> = (0..1_000).map(|number| format!("c-{number:04}")).collect();
    let summary = Summary {
        counts: Counts {
            completed: 5,
            ..Counts::default()
        },
        waiting: 3,
        in_flight: 2,
        unfinished: 2,
        is_cancelling: false,
        paused: Some(PauseReason::ConfigurationFaults),
        is_in_jeopardy: true,
        gate: Some(Gate::Paused),
    };
    let told = |names: &[String]| {
        let campaigns: Vec<_> = names.iter().map(|name| (name.as_str(), summary)).collect();
        telemetry.campaigns_led(&campaigns, true);
        telemetry.metrics_text().unwrap()
    };
    let of = |text: &str, metric: &str| {
        let lines = text.lines().filter(|line| line.starts_with(metric));
        lines.count()
    };
    let text = told(&names);
    assert_eq!(of(&text, "nbi_upgrade_campaign_devices{"), 21 * 5);
    assert_eq!(of(&text, "nbi_upgrade_campaign_condition{"), 21 * 7);
    for (series, wanted) in [
        ("campaigns_active", 1_000.0),
        ("campaigns_paused", 1_000.0),
        (
            r#"campaign_devices{campaign="c-0019",state="waiting"}"#,
            3.0,
        ),
        (
            r#"campaign_devices{campaign="other",state="waiting"}"#,
            2_940.0,
        ),
        (
            r#"campaign_devices{campaign="other",state="completed"}"#,
            4_900.0,
        ),
        (
            r#"campaign_condition{campaign="c-0000",condition="paused_by_itself"}"#,
            1.0,
        ),
        (
            r#"campaign_condition{campaign="c-0000",condition="paused_by_order"}"#,
            0.0,
        ),
        (
            r#"campaign_condition{campaign="other",condition="in_jeopardy"}"#,
            980.0,
        ),
    ] {
        let series = format!("nbi_upgrade_{series}");
        assert_eq!(value(&text, &series), wanted, "{series}");
    }
    assert!(!text.contains("c-0020"));
    let text = told(&names[990..]);
    assert_eq!(of(&text, "nbi_upgrade_campaign_devices{"), 11 * 5);
    assert!(!text.contains("c-0000") && text.contains("c-0999"));
    let text = told(&[]);
    assert_eq!(of(&text, "nbi_upgrade_campaign_"), 5 + 7 + 1 + 1 + 3);
    let series = r#"nbi_upgrade_campaign_devices{campaign="other",state="waiting"}"#;
    assert_eq!(value(&text, series), 0.0);
}

/// The guarantee of the endpoint: its size does not depend on the number of devices, jobs and campaigns.
#[test]
fn a_hundred_thousand_devices_make_as_many_series_as_a_thousand() {
    let telemetry = Telemetry::default();
    let mut job = job();
    let mut told = 0;
    let mut series_after = |devices: u32| {
        while told < devices {
            told += 1;
            job.order_mut().cpe_id = CpeId::parse(format!("CPE{told:06}")).unwrap();
            job.order_mut().job_id = JobId::parse(format!("job-{told}")).unwrap();
            job.order_mut().rule_id = RuleId::parse(format!("UPGRADE_CPE{told:06}")).unwrap();
            job.order_mut().campaign_id = Some(CampaignId::parse(format!("c-{told}")).unwrap());
            job.order_mut().firmware_url =
                FirmwareUrl::checked(format!("https://files.example.com/{told}.bin")).unwrap();
            let fault = FaultPolicy::default()
                .fault_in(&format!("FaultCode {}: file {told}", 9_000 + told % 25))
                .unwrap();
            let faulted = JobEvent::DeviceFaulted {
                fault,
                tries_again: false,
            };
            telemetry.job(&job, &events());
            telemetry.job(&job, &[faulted]);
            telemetry.nbi_answered("read_rule", "200", Duration::from_millis(5));
            telemetry.request_rejected(
                &Rejection {
                    cpe_id: Some(format!("CPE{told:06}")),
                    faults: vec![FieldFault {
                        field: format!("field {told}"),
                        message: String::new(),
                    }],
                    ..Rejection::default()
                },
                None,
            );
        }
        let text = telemetry.metrics_text().unwrap();
        let series: BTreeSet<String> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
            .collect();
        series
    };
    let after_a_thousand = series_after(1_000);
    let after_all = series_after(100_000);
    assert_eq!(after_all, after_a_thousand);
    println!("{} series", after_all.len());
    assert!(after_all.len() < 1_500, "{}", after_all.len());
}

#[test]
fn labels_stay_closed_whatever_is_told() {
    let telemetry = Telemetry::new("1", "r");
    for number in 0..2_000_u16 {
        let text = number.to_string();
        telemetry.nbi_answered("read_rule", &text, Duration::ZERO);
        telemetry.nbi_answered("read_rule", &format!("+{number}"), Duration::ZERO);
        let fault = FieldFault {
            field: text.clone(),
            message: text.clone(),
        };
        telemetry.request_rejected(
            &Rejection {
                faults: vec![fault],
                ..Rejection::default()
            },
            None,
        );
        let fault = FaultPolicy::default()
            .fault_in(&format!("FaultCode {}", 9_000 + number % 900))
            .unwrap();
        telemetry.job(
            &job(),
            &[JobEvent::DeviceFaulted {
                fault,
                tries_again: true,
            }],
        );
    }
    let text = telemetry.metrics_text().unwrap();
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((_, labels)) = line.split_once('{') else {
            continue;
        };
        for pair in labels.split_once('}').unwrap().0.split(',') {
            let (label, value) = pair.split_once('=').unwrap();
            values
                .entry(label)
                .or_default()
                .insert(value.trim_matches('"'));
        }
    }
    let known = [
        "answer",
        "campaign",
        "certainty",
        "class",
        "code",
        "condition",
        "exchange",
        "field",
        "impact",
        "le",
        "operation",
        "outcome",
        "queue",
        "reason",
        "result",
        "revision",
        "stage",
        "state",
        "status",
        "version",
        "waiting_for",
    ];
    assert_eq!(values.keys().copied().collect::<Vec<_>>(), known);
    assert_eq!(values["code"].len(), 21 + 2);
    assert_eq!(values["field"].len(), 20);
    assert_eq!(values["status"].len(), 500 + 1);
    assert!(!text.contains("job-1") && !text.contains("CPE1") && !text.contains("spring"));
}

#[tokio::test(start_paused = true)]
async fn readiness_lists_what_is_missing() {
    let telemetry = Telemetry::default();
    let missing = || {
        telemetry
            .readiness()
            .missing
            .iter()
            .map(|missing| (missing.what, missing.why.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(missing(), [("broker", "not connected yet".to_owned())]);
    telemetry.broker_blocked(Some("low on memory"));
    let blocks = "it blocks publishers: low on memory".to_owned();
    assert_eq!(missing(), [("broker", blocks)]);
    telemetry.broker_blocked(None);
    assert_eq!(missing(), [("broker", "not connected yet".to_owned())]);
    telemetry.broker_connected("broker:5672");
    assert!(telemetry.readiness().is_ready());
    for exchange in ["results", "requests", "dead"] {
        telemetry.unrouted(exchange, "nothing is bound");
        assert_eq!(missing(), [("broker", "nothing is bound".to_owned())]);
        telemetry.published("steps", Duration::ZERO);
        assert_eq!(missing().len(), 1, "what goes elsewhere says nothing");
        telemetry.published(exchange, Duration::ZERO);
        assert!(telemetry.readiness().is_ready(), "{exchange}");
    }
    // Another worker has taken over what no queue took.
    telemetry.unrouted("dead", "nothing is bound");
    tokio::time::advance(Duration::from_secs(20)).await;
    telemetry.unrouted("dead", "nothing is bound");
    tokio::time::advance(Duration::from_secs(20)).await;
    assert!(!telemetry.readiness().is_ready());
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(telemetry.readiness().is_ready());
    telemetry.circuit_opened("HTTP 401");
    assert_eq!(
        missing(),
        [("circuit", "open towards the NBI: HTTP 401".to_owned())]
    );
    telemetry.broker_lost("broker:5672", "connection reset", Duration::from_secs(1));
    assert_eq!(
        missing()[0],
        (
            "broker",
            "the connection is lost: connection reset".to_owned()
        )
    );
    assert_eq!(missing().len(), 2);
    telemetry.circuit_closed();
    telemetry.broker_connected("broker:5672");
    assert_eq!(telemetry.readiness().to_string(), "ready");
    telemetry.stopping();
    assert_eq!(
        telemetry.readiness().to_string(),
        "not ready; running: shutdown is under way"
    );
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_endpoint_serves_metrics_liveness_and_readiness() {
    let telemetry = Arc::new(Telemetry::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = http::serve(listener, Arc::clone(&telemetry), stop.clone());
    let client = async {
        let metrics = get(address, "/metrics").await;
        assert!(metrics.starts_with("HTTP/1.1 200 "), "{metrics}");
        assert!(
            metrics.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            "{metrics}"
        );
        assert!(
            metrics.contains("\nnbi_upgrade_broker_connected 0\n"),
            "{metrics}"
        );
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 "));
        let not_ready = get(address, "/readyz").await;
        assert!(not_ready.starts_with("HTTP/1.1 503 "), "{not_ready}");
        assert!(
            not_ready.contains(
                r#"{"missing":[{"what":"broker","why":"not connected yet"}],"ready":false}"#
            ),
            "{not_ready}"
        );
        telemetry.broker_connected("broker:5672");
        let ready = get(address, "/readyz").await;
        assert!(
            ready.starts_with("HTTP/1.1 200 ") && ready.contains(r#""ready":true"#),
            "{ready}"
        );
        assert!(get(address, "/").await.starts_with("HTTP/1.1 404 "));
        stop.cancel();
    };
    let (served, ()) = tokio::join!(server, client);
    served.unwrap();
}
