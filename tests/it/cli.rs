//! The built binary, from outside: help texts, exit statuses, what goes to standard output and what to standard error.
//!
//! Nothing of the test's own environment reaches it. Where it needs an NBI, the `simulator` command runs beside it on loopback.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_nbi-upgrade");

/// What no output may hold.
const SECRET: &str = "hunter2-do-not-print";

/// Settings that make jobs against the simulator quick.
const QUICK: [&str; 4] = [
    "nbi.allow_http=true",
    "await_result.initial=1s",
    "await_result.max=1s",
    "log.level=off",
];

/// Every command that has a help of its own.
const COMMANDS: [&[&str]; 25] = [
    &[],
    &["worker"],
    &["demo"],
    &["run"],
    &["submit"],
    &["watch"],
    &["status"],
    &["dead"],
    &["dead", "list"],
    &["dead", "show"],
    &["dead", "requeue"],
    &["dead", "drop"],
    &["cancel"],
    &["pause"],
    &["resume"],
    &["sweep"],
    &["simulator"],
    &["topology"],
    &["topology", "declare"],
    &["topology", "check"],
    &["check"],
    &["schema"],
    &["healthcheck"],
    &["completions"],
    &["manual"],
];

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.env_clear().args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Finished {
    Finished::of(&command(arguments).output().unwrap())
}

fn run_with_input(arguments: &[&str], input: &str) -> Finished {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    Finished::of(&child.wait_with_output().unwrap())
}

/// A command that has ended.
struct Finished {
    status: i32,
    out: String,
    err: String,
}

impl Finished {
    fn of(output: &Output) -> Self {
        Self {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout.clone()).unwrap(),
            err: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }

    /// Asserts the exit status; shows all that was printed otherwise.
    fn expect(self, status: i32) -> Self {
        assert_eq!(
            self.status, status,
            "standard output:\n{}\nstandard error:\n{}",
            self.out, self.err
        );
        self
    }

    /// Standard output as one JSON document a line.
    fn json(&self) -> Vec<Value> {
        self.out
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }
}

/// A simulated NBI in a process of its own, killed when dropped.
struct Simulator {
    child: Child,
    address: String,
}

impl Simulator {
    fn start(more: &[&str]) -> Self {
        let mut arguments = vec![
            "simulator",
            "--listen",
            "127.0.0.1:0",
            "--time-scale",
            "0.005",
            "--devices",
            "5",
            "--output",
            "json",
        ];
        arguments.extend(more);
        let mut child = command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let said: Value = serde_json::from_str(&line).expect(&line);
        Self {
            child,
            address: said["listening"].as_str().unwrap().to_owned(),
        }
    }

    /// The flags that lead a command to it.
    fn flags(&self) -> Vec<String> {
        let mut keys = vec![
            format!("nbi.url=http://{}", self.address),
            "nbi.username=nbi".to_owned(),
            "nbi.password=nbi".to_owned(),
        ];
        keys.extend(QUICK.map(str::to_owned));
        keys.into_iter()
            .flat_map(|key| ["--set".to_owned(), key])
            .collect()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn with<'a>(arguments: &[&'a str], flags: &'a [String]) -> Vec<&'a str> {
    arguments
        .iter()
        .copied()
        .chain(flags.iter().map(String::as_str))
        .collect()
}

fn requests(count: usize) -> String {
    (1..=count)
        .map(|number| {
            format!(
                r#"{{"job_id":"job-{number}","cpe_id":"CPE{number:06}","firmware_url":"https://files.example/fw-2.bin"}}"#
            ) + "\n"
        })
        .collect()
}

fn written(directory: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// An address that nobody listens on.
fn deaf_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn every_command_has_its_help() {
    for words in COMMANDS {
        let help = run(&[words, &["--help"]].concat()).expect(0);
        assert_eq!(help.err, "");
        // `topology` and `dead` have commands of their own, with examples each.
        let has_commands = help.out.contains("\nCommands:");
        assert!(
            has_commands || help.out.contains("Examples:"),
            "{words:?} has no examples"
        );
        let name = ["help", &words.join("_")].join("_");
        insta::assert_snapshot!(name.trim_end_matches('_'), help.out);
    }
}

#[test]
fn no_command_is_without_a_help_that_is_tested() {
    let help = run(&["--help"]).out;
    let listed: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(
        listed,
        [
            "worker",
            "demo",
            "run",
            "submit",
            "watch",
            "status",
            "dead",
            "cancel",
            "pause",
            "resume",
            "sweep",
            "simulator",
            "topology",
            "check",
            "schema",
            "healthcheck",
            "completions",
            "manual",
            "help"
        ]
    );
}

#[test]
fn wrong_usage_is_status_2_and_says_what_is_right() {
    for (arguments, said) in [
        (&["upgrade"][..], "unrecognized subcommand"),
        (&[][..], "Usage:"),
        (&["submit"][..], "JOBS"),
        (&["run"][..], "JOBS"),
        (&["cancel"][..], "JOB_ID"),
        (&["cancel", "a b"][..], "contains ' '"),
        (
            &["cancel", "a", "--campaign", "b"][..],
            "cannot be used with",
        ),
        (&["pause"][..], "--all"),
        (
            &["resume", "--all", "--campaign", "b"][..],
            "cannot be used with",
        ),
        (&["submit", "--cpe-id", "A"][..], "--firmware-url"),
        (&["submit", "-", "--wait-timeout", "5m"][..], "--wait"),
        (&["check", "--set", "nbi.timeout"][..], "KEY=VALUE"),
        (&["check", "--output", "xml"][..], "text, json"),
        (&["demo", "--devices", "0"][..], "1..=10000"),
        (&["simulator", "--trouble", "2"][..], "--trouble is 2"),
        (&["simulator", "--time-scale", "0"][..], "--time-scale is 0"),
        (
            &["simulator", "--put", "x"][..],
            "--put \"x\" is not known; give merge, replace",
        ),
        (
            &["run", "--journal", "/nowhere/nope.journal"][..],
            "journal /nowhere/nope.journal does not exist",
        ),
        (
            &["run", "/nowhere/jobs.jsonl"][..],
            "failed to read /nowhere/jobs.jsonl",
        ),
        (
            &["watch", "--outcome", "blah"][..],
            "completed, failed, cancelled, rejected",
        ),
        (&["status", "a b"][..], "contains ' '"),
        (&["status", "--campaign", "a b"][..], "contains ' '"),
        (&["run", "-"][..], "there are no requests"),
        (
            &["watch", "--from", "yesterday"][..],
            "first, last, next or a time",
        ),
        (&["status"][..], "JOB_ID"),
        (&["status", "a", "--campaign", "b"][..], "--campaign"),
        (&["dead"][..], "Usage:"),
        (
            &["dead", "requeue", "--set", "amqp.url=amqp://x"][..],
            "say which letters",
        ),
        (
            &["dead", "drop", "--all", "--set", "amqp.url=amqp://x"][..],
            "--yes",
        ),
        (&["dead", "show", "7", "--all"][..], "--all"),
        (
            &["dead", "list", "--reason", "unreadable_step"][..],
            "malformed_step",
        ),
        (&["healthcheck", "--path", "x"][..], "--path must begin"),
    ] {
        let finished = run(arguments).expect(2);
        assert_eq!(finished.out, "", "{arguments:?}");
        assert!(
            finished.err.contains(said),
            "{arguments:?} said:\n{}",
            finished.err
        );
    }
}

#[test]
fn every_fault_of_the_configuration_is_named_at_once_before_anything_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(
        &directory,
        "wrong.toml",
        &format!(
            "[nbi]\nulr = \"https://acs.example\"\ntimeout = \"30\"\npasword = \"{SECRET}\"\n\
             [amqp]\nurl = \"http://user:{SECRET}@rabbit\"\n[job]\non_busy = \"explode\"\n"
        ),
    );
    let mut command = command(&["worker", "--config", file.to_str().unwrap()]);
    command.env("NBI_UPGRADE_RETRY__MULTIPLIER", "11");
    let finished = Finished::of(&command.output().unwrap()).expect(2);
    assert_eq!(finished.out, "");
    let said = finished.err.replace(file.to_str().unwrap(), "wrong.toml");
    insta::assert_snapshot!(said);
    assert!(!said.contains(SECRET));
}

#[test]
fn what_a_command_needs_is_asked_for_with_its_key() {
    for (arguments, keys) in [
        (
            &["worker"][..],
            &["amqp.url", "nbi.url", "nbi.username", "nbi.password"][..],
        ),
        (&["topology", "check"][..], &["amqp.url"][..]),
        (
            &[
                "submit",
                "--cpe-id",
                "A",
                "--firmware-url",
                "https://files.example/a",
            ][..],
            &["amqp.url"][..],
        ),
        (
            &[
                "run",
                "--cpe-id",
                "A",
                "--firmware-url",
                "https://files.example/a",
            ][..],
            &["nbi.url"][..],
        ),
    ] {
        let finished = run(arguments).expect(2);
        for key in keys {
            assert!(
                finished.err.contains(key),
                "{arguments:?}: {}",
                finished.err
            );
        }
    }
}

#[test]
fn with_output_json_an_error_is_json_too() {
    let finished = run(&["check", "--output", "json", "--set", "nbi.ulr=x"]).expect(2);
    let said = finished.json();
    assert_eq!(said.len(), 1);
    assert!(
        said[0]["error"]
            .as_str()
            .unwrap()
            .contains("did you mean nbi.url?")
    );
}

#[test]
fn one_invalid_request_keeps_all_from_being_sent_and_is_named_by_line_and_field() {
    let input = format!(
        "{}{{\"job_id\":\"b\",\"cpe_id\":\"C*\"}}\n\nnot json\n",
        requests(1)
    );
    for name in ["submit", "run"] {
        let finished = run_with_input(&[name, "-"], &input).expect(2);
        assert_eq!(finished.out, "");
        for said in [
            "nothing was sent",
            "line 2: ",
            "cpe_id: \"C*\"",
            "firmware_url: is missing",
            "line 4: ",
        ] {
            assert!(finished.err.contains(said), "{said}: {}", finished.err);
        }
        assert!(!finished.err.contains("line 1:"));
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let finished = run(&["run", "/nowhere/jobs.jsonl"]).expect(2);
    assert!(finished.err.contains("/nowhere/jobs.jsonl"));
    let finished = run(&["check", "--config", "/nowhere/nbi-upgrade.toml"]).expect(2);
    assert!(finished.err.contains("/nowhere/nbi-upgrade.toml"));
}

#[test]
fn run_upgrades_devices_through_http_and_prints_their_events() {
    let simulator = Simulator::start(&[]);
    let flags = simulator.flags();
    let finished = run_with_input(&with(&["run", "-"], &flags), &requests(5)).expect(0);
    let events = finished.json();
    assert_eq!(events.len(), 5);
    for event in &events {
        assert_eq!(event["type"], "upgrade.completed");
        assert_eq!(event["data"]["reason"], "upgraded");
        assert_eq!(event["data"]["rule"]["state"], "deactivated");
    }
    assert!(
        finished.err.contains("5 completed/upgraded"),
        "{}",
        finished.err
    );
    // With --output json every event is printed, not only the final one.
    let finished = run_with_input(
        &with(&["run", "-", "--output", "json"], &flags),
        r#"{"job_id":"again","cpe_id":"CPE000001","firmware_url":"https://files.example/fw-3.bin"}"#,
    )
    .expect(0);
    let events = finished.json();
    let kinds: Vec<_> = events.iter().map(|event| &event["type"]).collect();
    assert_eq!(kinds, ["upgrade.accepted", "upgrade.completed"]);
}

#[test]
fn run_ends_with_status_1_when_a_job_does_not_complete() {
    let simulator = Simulator::start(&[]);
    let flags = simulator.flags();
    let late = r#"{"job_id":"late","cpe_id":"CPE000001","firmware_url":"https://files.example/a.bin","requested_at":"2020-01-01T00:00:00Z","deadline":"2020-01-01T01:00:00Z"}"#;
    let finished = run_with_input(&with(&["run", "-"], &flags), late).expect(1);
    let events = finished.json();
    assert_eq!(events[0]["data"]["reason"], "timed_out");
    assert_eq!(events[0]["data"]["impact"], "none");
}

#[test]
fn check_tells_what_is_well_and_what_is_not_with_the_remedy() {
    let simulator = Simulator::start(&[]);
    let mut flags = simulator.flags();
    flags.extend([
        "--set".to_owned(),
        format!("amqp.url=amqp://nbi:{SECRET}@{}", deaf_address()),
    ]);
    let finished = run(&with(&["check"], &flags)).expect(1);
    let marks: Vec<_> = finished
        .out
        .lines()
        .filter(|line| !line.starts_with(' '))
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        marks,
        [
            "ok    configuration",
            "FAIL  broker reachable",
            "ok    NBI reachable",
            "ok    NBI credentials",
            "ok    NBI results",
            "ok    NBI rules",
            "ok    NBI clock"
        ]
    );
    assert!(finished.out.contains("→ check host and port in amqp.url"));
    assert!(
        finished.err.contains("7 checks: 6 ok, 1 failed"),
        "{}",
        finished.err
    );
    assert!(!finished.out.contains(SECRET) && !finished.err.contains(SECRET));
    let finished = run(&with(&["check", "--output", "json"], &flags)).expect(1);
    let checks = finished.json();
    assert_eq!(checks.len(), 7);
    assert_eq!(checks[1]["check"], "broker reachable");
    assert_eq!(checks[1]["ok"], false);
    assert!(checks[1]["remedy"].as_str().unwrap().contains("amqp.url"));
}

/// What `check` says of the NBI, by name: state and text.
fn checked(
    simulator: &[&str],
    more: &[&str],
) -> std::collections::BTreeMap<String, (String, String)> {
    let simulator = Simulator::start(simulator);
    let flags = simulator.flags();
    let arguments = [&["check", "--output", "json"], more].concat();
    let finished = run(&with(&arguments, &flags));
    let text = |check: &Value, name: &str| check[name].as_str().unwrap().to_owned();
    finished
        .json()
        .iter()
        .map(|check| {
            (
                text(check, "check"),
                (text(check, "state"), text(check, "text")),
            )
        })
        .collect()
}

#[test]
fn check_compares_clocks() {
    for (offset, state, said) in [
        ("0s", "ok", "equal"),
        ("20s", "advice", "ahead of ours"),
        ("-10m", "failed", "behind ours"),
    ] {
        let all = checked(&["--clock-offset", offset], &[]);
        let (found, text) = &all["NBI clock"];
        assert!(
            found == state && text.contains(said),
            "{offset}: {found} {text}"
        );
    }
}

#[test]
fn check_reads_the_nbis_own_description_where_there_is_one() {
    let openapi = ["--nbi-openapi", "--set", "verify.enabled=true"];
    for (kind, version) in [("swagger2", "Swagger 2.0"), ("openapi3", "OpenAPI 3.0.3")] {
        let all = checked(&["--open-api", kind], &openapi);
        assert_eq!(all["NBI description"].1, version);
        let calls: Vec<_> = all
            .iter()
            .filter(|(what, _)| what.starts_with("NBI call"))
            .collect();
        assert_eq!(calls.len(), 7);
        for (what, (state, text)) in calls {
            assert!(
                state == "ok" && text.contains("everything that the worker uses"),
                "{what}: {text}"
            );
        }
    }
    let all = checked(&["--open-api", "incomplete"], &openapi);
    for (call, state, said) in [
        ("connection request", "failed", "is not described"),
        ("delete a rule", "advice", "is not described"),
        ("create a rule", "advice", "without automatic"),
        (
            "read results",
            "advice",
            "a query parameter id or campaignid",
        ),
    ] {
        let (found, text) = &all[&format!("NBI call: {call}")];
        assert!(
            found == state && text.contains(said),
            "{call}: {found} {text}"
        );
    }
    let all = checked(&["--open-api", "absent"], &openapi);
    assert_eq!(all["NBI description"].0, "advice");
    assert!(!checked(&[], &[]).contains_key("NBI description"));
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    for (shell, said) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef nbi-upgrade"),
        ("fish", "complete -c nbi-upgrade"),
    ] {
        let script = run(&["completions", shell]).expect(0).out;
        assert!(
            script.contains(said) && script.contains("requeue"),
            "{shell}"
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("man1");
    run(&["manual", place.to_str().unwrap()]).expect(0);
    for (page, said) in [
        ("nbi-upgrade.1", "nbi\\-upgrade\\-submit(1)"),
        ("nbi-upgrade-run.1", "\\-\\-journal"),
        ("nbi-upgrade-dead-requeue.1", "\\-\\-wait"),
        ("nbi-upgrade-topology-check.1", "\\-\\-config"),
        (
            "nbi-upgrade-submit.1",
            ".SH EXAMPLES AND NOTES\n.nf\nExamples:\n",
        ),
        ("nbi-upgrade.1", ".fi\n.SH VERSION"),
    ] {
        let text = std::fs::read_to_string(place.join(page)).expect(page);
        assert!(text.contains(said), "{page}: {text}");
    }
}

/// By bash itself, as it asks when somebody types.
#[test]
fn bash_completes_commands_and_flags() {
    let script = run(&["completions", "bash"]).expect(0).out;
    for (typed, last, expected) in [
        ("nbi-upgrade schema", "c", "campaign control"),
        ("nbi-upgrade dead requeue", "--rea", "--reason"),
        ("nbi-upgrade", "topo", "topology"),
    ] {
        let asked = format!(
            "{script}\nCOMP_WORDS=({typed} {last}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             _nbi__upgrade nbi-upgrade {last} {typed}; echo \"${{COMPREPLY[*]}}\""
        );
        let output = Command::new("bash").args(["-c", &asked]).output().unwrap();
        let offered = String::from_utf8_lossy(&output.stdout);
        let offered: Vec<_> = offered.split_whitespace().collect();
        assert_eq!(offered.join(" "), expected, "{typed} {last}: {output:?}");
    }
}

#[test]
fn check_has_a_line_and_a_remedy_for_each_key_that_is_missing() {
    let finished = run(&["check"]).expect(2);
    let lines: Vec<_> = finished.out.lines().map(str::trim).collect();
    assert_eq!(lines.len(), 8, "{}", finished.out);
    for (pair, key) in lines
        .chunks(2)
        .zip(["amqp.url", "nbi.url", "nbi.username", "nbi.password"])
    {
        assert!(
            pair[0].starts_with(&format!("FAIL  configuration: {key}: is not set")),
            "{pair:?}"
        );
        assert!(pair[1].starts_with(&format!("→ set {key}")), "{pair:?}");
    }
    // What can be looked at is looked at all the same.
    let url = format!("amqp.url=amqp://nbi@{}", deaf_address());
    let finished = run(&["check", "--set", &url]).expect(2);
    assert!(
        finished.out.contains("FAIL  broker reachable") && finished.err.contains("0 ok, 4 failed"),
        "{} {}",
        finished.out,
        finished.err
    );
}

#[test]
fn check_says_that_credentials_are_refused_and_shows_none() {
    let simulator = Simulator::start(&["--password", "right"]);
    let mut flags = simulator.flags();
    for more in [
        format!("nbi.password={SECRET}"),
        format!("amqp.url=amqp://{}", deaf_address()),
    ] {
        flags.extend(["--set".to_owned(), more]);
    }
    let finished = run(&with(&["check"], &flags)).expect(1);
    assert!(
        finished.out.contains("check nbi.username"),
        "{}",
        finished.out
    );
    assert!(!finished.out.contains(SECRET) && !finished.err.contains(SECRET));
}

#[test]
fn check_says_that_rules_may_not_be_read_or_that_the_filter_is_ignored() {
    let simulator = Simulator::start(&["--reading-rules", "forbidden403"]);
    let flags = simulator.flags();
    let finished = run(&with(&["check"], &flags));
    assert!(
        finished.out.contains("rules are armed unseen"),
        "{}",
        finished.out
    );
}

#[test]
fn healthcheck_says_whether_a_worker_answers() {
    let simulator = Simulator::start(&[]);
    let listen = format!("http.listen={}", simulator.address);
    let asked = ["healthcheck", "--set", &listen, "--path", "/sim/summary"];
    assert!(run(&asked).expect(0).out.contains("answers 200"));
    let missing = ["healthcheck", "--set", &listen, "--path", "/nowhere"];
    run(&missing).expect(1);
    let deaf = format!("http.listen={}", deaf_address());
    let finished = run(&["healthcheck", "--set", &deaf]).expect(1);
    assert!(finished.err.contains("failed to ask"), "{}", finished.err);
}

#[test]
fn a_worker_without_its_broker_is_alive_and_not_ready_and_ends_when_told_to() {
    let address = deaf_address();
    let mut child = command(&[
        "worker",
        "--set",
        &format!("http.listen={address}"),
        "--set",
        &format!("amqp.url=amqp://nbi:{SECRET}@{}", deaf_address()),
        "--set",
        "nbi.url=https://acs.example",
        "--set",
        "nbi.username=nbi",
        "--set",
        &format!("nbi.password={SECRET}"),
    ])
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let listen = format!("http.listen={address}");
    let asks = |path: &str| run(&["healthcheck", "--set", &listen, "--path", path]);
    let is_alive = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        asks("/livez").status == 0
    });
    let ready = asks("/readyz");
    let told = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    if !is_alive || !told.success() {
        drop(child.kill());
    }
    let finished = Finished::of(&child.wait_with_output().unwrap());
    assert!(is_alive, "{}", finished.err);
    ready.expect(1);
    let finished = finished.expect(0);
    assert!(finished.err.contains("worker stopped"));
    assert!(!finished.err.contains(SECRET), "{}", finished.err);
}

#[test]
fn topology_and_submit_without_a_broker_fail_with_its_address_and_without_its_password() {
    let address = deaf_address();
    let url = format!("amqp.url=amqp://nbi:{SECRET}@{address}");
    for arguments in [
        &["topology", "declare"][..],
        &["topology", "check"][..],
        &[
            "submit",
            "--cpe-id",
            "A",
            "--firmware-url",
            "https://files.example/a",
        ][..],
    ] {
        let finished = run(&[arguments, &["--set", &url]].concat()).expect(1);
        assert!(finished.err.contains(&address), "{}", finished.err);
        assert!(!finished.err.contains(SECRET), "{}", finished.err);
        // It is the broker that is not there, whatever was to be done with it.
        assert!(
            finished
                .err
                .contains("is RabbitMQ running there, and is amqp.url right?")
                && !finished.err.contains("does not stand")
                && !finished.err.contains("(topology)"),
            "{}",
            finished.err
        );
    }
}

#[test]
fn what_is_wrong_with_a_request_is_said_once() {
    let campaign =
        r#"{"campaign_id":"c","devices":["A"],"firmware_url":"https://files.example/a"}"#;
    let refused = run_with_input(&["run", "-"], campaign).expect(2);
    assert!(
        refused
            .err
            .contains("devices: campaigns are carried out through the broker")
            && refused.err.lines().count() == 2
            && !refused.err.contains("cpe_id"),
        "{}",
        refused.err
    );
    let refused = run_with_input(&["run", "-"], "no json").expect(2);
    assert!(
        refused
            .err
            .contains("`nbi-upgrade schema request` has its fields"),
        "{}",
        refused.err
    );
}

#[test]
fn the_simulators_password_in_the_environment_is_no_wrong_key() {
    let mut worker = command(&["topology", "check"]);
    worker.env("NBI_UPGRADE_SIMULATOR_PASSWORD", "nbi");
    worker.env(
        "NBI_UPGRADE_AMQP__URL",
        format!("amqp://{}", deaf_address()),
    );
    Finished::of(&worker.output().unwrap()).expect(1);
}

#[test]
fn texts_of_help_fit_a_terminal_of_eighty_columns() {
    for words in COMMANDS {
        let help = run(&[words, &["--help"]].concat()).expect(0);
        let prose = help.out.lines().skip_while(|line| *line != "Examples:");
        for line in prose.filter(|line| !line.starts_with("  ")) {
            assert!(line.chars().count() <= 80, "{words:?}: {line}");
        }
    }
}

#[test]
fn the_demo_upgrades_its_fleet_and_leaves_nothing_armed() {
    let finished = run(&["demo", "--devices", "3", "--seed", DEMO_SEED]).expect(0);
    assert!(finished.out.contains("What became of them:"));
    assert!(
        finished
            .out
            .contains("Flashed twice: 0. Rules left armed: 0.")
    );
    let finished = run(&[
        "demo",
        "--devices",
        "1",
        "--seed",
        DEMO_SEED,
        "--output",
        "json",
    ])
    .expect(0);
    let said = finished.json();
    let last = said.last().unwrap();
    assert_eq!(last["summary"]["devices"], 1);
    assert_eq!(last["summary"]["armed_rules"], 0);
}

/// A seed whose first three devices are quick.
const DEMO_SEED: &str = "20";
