//! Tests of the configuration as a whole.

use std::collections::BTreeSet;
use std::io::Write;

use jiff::SignedDuration;
use secrecy::ExposeSecret;
use tempfile::NamedTempFile;

use super::{Config, ConfigError, Sources, keys};
use crate::job::Policy;
use crate::job::policy::OnBusy;
use crate::job::state::Cleanup;

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// File, environment, flags.
fn load(
    toml: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Config, ConfigError> {
    let file = file(toml);
    Config::load(&Sources {
        file: Some(file.path().to_path_buf()),
        environment: environment
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        flags: flags
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        host_name: Some("host-1".to_owned()),
    })
}

fn faults(result: Result<Config, ConfigError>) -> Vec<String> {
    result
        .unwrap_err()
        .faults
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// The only fault of a configuration that sets one key on the command line.
fn fault_of(key: &str, value: &str) -> String {
    let faults = faults(load("", &[], &[(key, value)]));
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults.into_iter().next().unwrap()
}

#[test]
fn defaults_alone_are_the_built_in_policy() {
    let config = Config::load(&Sources {
        host_name: Some("worker 7.example.com".to_owned()),
        ..Sources::default()
    })
    .unwrap();
    assert_eq!(config.policy(), Policy::default());
    let requests = config.requests();
    assert_eq!(requests.timeout, SignedDuration::from_hours(1));
    assert_eq!(
        (requests.cleanup, requests.max_attempts),
        (Cleanup::Deactivate, 1)
    );
    assert_eq!(requests.rule_id, "UPGRADE_{cpe_id}");
    assert_eq!(config.events().source, "/nbi-upgrade/worker-7.example.com");
    assert!(!config.events().progress);
    assert_eq!(
        config.amqp.control_retention,
        SignedDuration::from_hours(24 * 30)
    );
    assert_eq!(config.verify.parameters.len(), 2);
    assert!(config.amqp.urls.is_empty() && config.nbi.url.is_none());
}

#[test]
fn the_default_file_has_every_key_that_is_read_and_no_other() {
    let mut reader = super::load::layers(&Sources::default());
    let r = &mut reader;
    super::amqp::Amqp::read(r);
    super::nbi::Nbi::read(r);
    super::job::Job::read(r);
    super::retry::Retry::read(r);
    super::connection_request::ConnectionRequest::read(r);
    super::retry::AwaitResult::read(r);
    super::faults::Faults::read(r);
    super::campaign::Campaign::read(r);
    super::sweep::Sweep::read(r);
    super::firmware::Firmware::read(r);
    super::verify::Verify::read(r);
    super::events::Events::read(r);
    super::http::Http::read(r);
    super::instance::Instance::read(r, None);
    super::log::Log::read(r);
    super::otel::Otel::read(r);
    super::shutdown::Shutdown::read(r);
    super::worker::Worker::read(r);
    let read: BTreeSet<String> = reader.taken().iter().map(|key| (*key).to_owned()).collect();
    let listed: BTreeSet<String> = keys().into_iter().map(|key| key.path).collect();
    assert_eq!(read, listed);
    assert_eq!(keys().len(), listed.len(), "a key is listed twice");
}

#[test]
fn every_key_is_documented_and_every_example_is_valid() {
    for key in keys() {
        assert!(
            key.doc.ends_with(['.', '-', ']']) && key.doc.len() > 20,
            "{}: {:?}",
            key.path,
            key.doc
        );
        assert_eq!(key.default.is_some(), key.example.is_none(), "{}", key.path);
        if let Some(example) = key
            .example
            .as_ref()
            .filter(|_| !key.path.ends_with("_file"))
        {
            let (section, name) = key.path.split_once('.').unwrap();
            let loaded = load(&format!("[{section}]\n{name} = {example}\n"), &[], &[]);
            if key.path == "otel.endpoint" && !cfg!(feature = "otel") {
                let error = loaded.unwrap_err().to_string();
                assert!(error.contains("built with `--features otel`"), "{error}");
                continue;
            }
            loaded.unwrap();
        }
    }
}

#[test]
fn flags_beat_the_environment_and_the_environment_beats_the_file() {
    let toml = "[nbi]\ntimeout = \"11s\"\nmax_concurrency = 11\nquick_retries = 1\n[job]\non_busy = \"fail\"\n";
    let environment = [
        ("NBI_UPGRADE_NBI__MAX_CONCURRENCY", "12"),
        ("NBI_UPGRADE_NBI__QUICK_RETRIES", "2"),
        ("OTHER__X", "y"),
    ];
    let config = load(toml, &environment, &[("nbi.quick_retries", "3")]).unwrap();
    assert_eq!(config.nbi.timeout, SignedDuration::from_secs(11));
    assert_eq!(
        (config.nbi.max_concurrency, config.nbi.quick_retries),
        (12, 3)
    );
    assert_eq!(config.policy().on_busy, OnBusy::Fail);
    assert_eq!(config.nbi.connect_timeout, SignedDuration::from_secs(5));
}

#[test]
fn taking_over_without_tags_is_advised_against() {
    for (on_busy, tag_rules, is_advised) in [
        ("supersede", false, true),
        ("supersede", true, false),
        ("wait", false, false),
    ] {
        let toml = format!("[job]\non_busy = {on_busy:?}\n[nbi]\ntag_rules = {tag_rules}\n");
        let config = load(&toml, &[], &[]).unwrap();
        assert_eq!(config.advice().is_some(), is_advised, "{toml}");
    }
}

#[test]
fn lists_come_from_the_environment_separated_by_commas() {
    let environment = [
        ("NBI_UPGRADE_FAULTS__TRANSIENT", "9016, 9003"),
        ("NBI_UPGRADE_FAULTS__CONFIGURATION", ""),
        ("NBI_UPGRADE_NBI__SUCCESS_CODES", "0,200-204"),
        (
            "NBI_UPGRADE_AMQP__URLS",
            "amqp://a:b@one/%2f,amqp://a:b@two/%2f",
        ),
    ];
    let config = load("", &environment, &[]).unwrap();
    assert_eq!(config.faults.policy.transient, [9003, 9016].into());
    assert!(config.faults.policy.configuration.is_empty());
    assert_eq!(config.nbi.success_codes, [(0, 0), (200, 204)]);
    assert_eq!(config.require_amqp().unwrap().len(), 2);
}

#[test]
fn all_faults_are_reported_at_once_with_value_origin_and_remedy() {
    let toml = "[nbi]\ntimeout = 30\ntimout = \"1s\"\n[retry]\ninitial = \"10m\"\n[job]\ncleanup = \"remove\"\n";
    let environment = [
        ("NBI_UPGRADE_AMQP__PREFETCH", "none"),
        ("NBI_UPGRADE_NBI_URL", "https://x"),
    ];
    let faults = faults(load(toml, &environment, &[("http.listen", ":80")]));
    for (start, parts) in [
        (
            "nbi.timeout = \"30\" (file /",
            &["has no unit", "\"30s\""][..],
        ),
        (
            "nbi.timout (file /",
            &["not a known key", "did you mean nbi.timeout?"],
        ),
        (
            "retry.initial = \"10m\" (file /",
            &["greater than retry.max = \"5m\""],
        ),
        (
            "job.cleanup = \"remove\" (file /",
            &["\"deactivate\" or \"delete\" or \"keep\""],
        ),
        (
            "amqp.prefetch = \"none\" (environment variable NBI_UPGRADE_AMQP__PREFETCH)",
            &["1 to 10000"],
        ),
        (
            "NBI_UPGRADE_NBI_URL (environment variable",
            &["did you mean NBI_UPGRADE_NBI__URL?"],
        ),
        ("http.listen = \":80\" (command line)", &["0.0.0.0:9464"]),
    ] {
        let fault = faults
            .iter()
            .find(|fault| fault.starts_with(start))
            .unwrap_or_else(|| panic!("{start}: {faults:#?}"));
        assert!(parts.iter().all(|part| fault.contains(part)), "{fault}");
    }
    assert_eq!(faults.len(), 7, "{faults:#?}");
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_a_fault_and_the_rest_is_still_checked() {
    let sources = Sources {
        file: Some("/nonexistent/nbi-upgrade.toml".into()),
        flags: vec![("worker.threads".to_owned(), "0".to_owned())],
        ..Sources::default()
    };
    let missing = faults(Config::load(&sources));
    assert_eq!(missing.len(), 2);
    assert!(
        missing[0].contains("/nonexistent/nbi-upgrade.toml")
            && missing[0].contains("cannot be read"),
        "{missing:?}"
    );
    let broken = faults(load("[nbi]\npassword = hunter2\n", &[], &[]));
    assert!(
        broken[0].contains("line 2") && !broken[0].contains("hunter2"),
        "{broken:?}"
    );
    let scalar = faults(load(
        "amqp = 3\n\"x[0]\" = 1\n[nbi.timeout]\nx = 1\n",
        &[],
        &[],
    ));
    assert!(
        scalar.iter().any(|fault| fault.starts_with("amqp (file")),
        "{scalar:?}"
    );
    assert!(
        scalar.iter().any(|fault| fault.starts_with("x[0] (file")),
        "{scalar:?}"
    );
}

#[test]
fn values_out_of_range_and_of_the_wrong_kind_name_the_remedy() {
    for (key, value, part) in [
        ("nbi.timeout", "soon", "is not a duration"),
        ("nbi.timeout", "1ms", "out of range"),
        ("nbi.timeout", "-5s", "out of range"),
        ("nbi.timeout", "1mo", "is not a duration"),
        ("nbi.max_concurrency", "0", "give 1 to 4096"),
        ("nbi.requests_per_second", "nan", "out of range"),
        ("nbi.writes_max_concurrency", "-1", "give 0 to 4096"),
        (
            "nbi.connection_requests_per_second",
            "x",
            "not such a number",
        ),
        ("nbi.reads_timeout", "99ms", "0s for nbi.timeout"),
        ("nbi.writes_timeout", "11m", "out of range"),
        ("nbi.adaptive", "yes", "\"true\" or \"false\""),
        ("nbi.rule_id", "UPGRADE", "does not contain {cpe_id}"),
        ("nbi.rule_id", "U_{cpe_id}_{serial}", "placeholder"),
        ("nbi.rule_id", "U {cpe_id}", "contains ' '"),
        ("nbi.success_codes", "299-200", "range of codes"),
        ("nbi.success_codes", "", "could ever succeed"),
        (
            "nbi.connect_timeout",
            "31s",
            "greater than nbi.timeout = \"30s\"",
        ),
        ("nbi.url", "http://acs.example.com", "nbi.allow_http"),
        ("nbi.url", "acs.example.com", "is not a URL"),
        ("nbi.url", "ftp://acs.example.com", "scheme \"ftp\""),
        ("nbi.url", "https://acs.example.com/?x=1", "query"),
        ("nbi.url", "https://acs.example.com/v1", "ends in /v1"),
        ("nbi.url", "https://acs.example.com/nbi/v1/", "ends in /v1"),
        ("nbi.username", "a:b", "':'"),
        ("amqp.url", "http://broker", "amqp://USER"),
        ("amqp.prefix", "", "has no value"),
        ("amqp.prefix", "a b", "contains ' '"),
        ("amqp.client_key_file", "/dev/null", "is not a file"),
        ("faults.permanent", "9016,404", "has the item \"404\""),
        (
            "firmware.allowed_url_prefixes",
            "https://files.example.com",
            "no / after the host",
        ),
        ("events.retention_bytes", "5", "out of range"),
        ("instance.name", "a/b", "contains '/'"),
        ("log.level", "inof", "not a level"),
        ("log.level", "nbi_upgrade=loud", "cannot be understood"),
        ("log.format", "xml", "\"json\" or \"text\""),
        ("job.busy_initial", "6m", "greater than job.busy_max"),
        ("await_result.initial", "300ms", "1s to 1d, or 0s"),
        ("verify.enabled", "yes", "\"true\" or \"false\""),
    ] {
        let faults = faults(load("", &[], &[(key, value)]));
        assert!(
            faults
                .iter()
                .any(|fault| fault.starts_with(key) && fault.contains(part)),
            "{key} {value}: {faults:#?}"
        );
    }
}

#[test]
fn classes_of_calls_have_budgets_of_their_own() {
    let toml = "[nbi]\nwrites_timeout = \"7s\"\nreads_per_second = 0.5\nconnection_requests_max_concurrency = 3\n\
                adaptive = false\n";
    let nbi = load(toml, &[], &[]).unwrap().nbi;
    assert_eq!(nbi.writes.timeout, SignedDuration::from_secs(7));
    assert_eq!(nbi.reads.timeout, SignedDuration::ZERO);
    assert!((nbi.reads.per_second - 0.5).abs() < f64::EPSILON && !nbi.adaptive);
    assert_eq!(
        (
            nbi.writes.max_concurrency,
            nbi.connection_requests.max_concurrency
        ),
        (0, 3)
    );
    let faults = faults(load("[nbi]\nreads_timeout = \"4s\"\n", &[], &[]));
    assert!(
        faults[0].starts_with("nbi.connect_timeout")
            && faults[0].contains("greater than nbi.reads_timeout"),
        "{faults:?}"
    );
}

#[test]
fn a_list_within_a_list_is_a_fault() {
    let faults = faults(load("[amqp]\nreply_to_allowed = [[\"a\"]]\n", &[], &[]));
    assert!(faults[0].contains("an item that is a list"), "{faults:?}");
}

#[test]
fn durations_are_human() {
    for (text, seconds) in [
        ("90s", 90),
        ("1h 30m", 5_400),
        ("2d", 172_800),
        ("1w", 604_800),
        ("PT1M", 60),
    ] {
        let config = load("", &[], &[("job.timeout", text)]).unwrap();
        assert_eq!(
            config.job.timeout,
            SignedDuration::from_secs(seconds),
            "{text}"
        );
    }
}

#[test]
fn secrets_come_from_files_without_their_line_end() {
    let password = file("s3cret with space \r\n");
    let url = file("amqp://u:p@broker/%2f\n");
    let path = |file: &NamedTempFile| file.path().to_str().unwrap().to_owned();
    let environment = [
        ("NBI_UPGRADE_NBI__PASSWORD_FILE", &*path(&password)),
        ("NBI_UPGRADE_AMQP__URL_FILE", &path(&url)),
    ];
    let config = load(
        "[nbi]\nurl = \"https://acs/\"\nusername = \"u\"\n",
        &environment,
        &[],
    )
    .unwrap();
    let (urls, nbi) = config.require_both().unwrap();
    assert_eq!(nbi.password.expose_secret(), "s3cret with space ");
    assert_eq!(urls[0].expose_secret(), "amqp://u:p@broker/%2f");

    let both = faults(load(
        "[nbi]\npassword = \"x\"\n",
        &[("NBI_UPGRADE_NBI__PASSWORD_FILE", &path(&password))],
        &[],
    ));
    assert_eq!(both.len(), 1);
    assert!(
        both[0].contains("nbi.password (file")
            && both[0].contains("and so is nbi.password_file (environment"),
        "{both:?}"
    );
    load(
        "[nbi]\npassword = \"x\"\n",
        &[("NBI_UPGRADE_NBI__PASSWORD_FILE", "")],
        &[],
    )
    .unwrap();
    assert!(fault_of("nbi.password_file", "/nonexistent").contains("cannot be read"));
    assert!(
        fault_of("nbi.password_file", file("\n").path().to_str().unwrap()).contains("empty file")
    );
}

#[test]
fn no_secret_is_ever_printed() {
    let toml = "[nbi]\nurl = \"https://acs/\"\nusername = \"u\"\npassword = \"hunter2\"\n[amqp]\nurl = \"amqp://u:hunter2@broker/\"\n";
    let config = load(toml, &[], &[]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(!format!("{:?}", config.require_both().unwrap()).contains("hunter2"));
    for (toml, faults_expected) in [
        ("[nbi]\npasword = \"hunter2\"\n", 1),
        ("[nbi]\npassword = [\"hunter2\"]\n", 1),
        ("[nbi]\npassword = { hunter = \"hunter2\" }\n", 1),
        ("[nbi]\nurl = \"https://u:hunter2@acs/\"\n", 1),
        ("[nbi]\nurl = \"https://u:hunter2@:acs/\"\n", 1),
        ("[nbi]\ntimeout = \"https://u:hunter2@acs/\"\n", 1),
        ("[amqp]\nurl = \"http://u:hunter2@broker/\"\n", 1),
        (
            "[amqp]\nurls = [\"u:hunter2\", \"http://u:hunter2@broker/\"]\n",
            2,
        ),
        (
            "[amqp]\nurl = \"amqp://u:hunter2@b/\"\nurls = [\"amqp://u:hunter2@b/\"]\n",
            1,
        ),
        (
            "[firmware]\nallowed_url_prefixes = [\"https://u:hunter2@b\"]\n",
            1,
        ),
    ] {
        let error = load(toml, &[], &[]).unwrap_err();
        assert_eq!(error.faults.len(), faults_expected, "{toml}: {error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn what_a_command_needs_is_asked_for_all_at_once() {
    let config = load("[nbi]\nusername = \"u\"\n", &[], &[]).unwrap();
    let error = config.require_both().unwrap_err();
    let keys: Vec<&str> = error
        .faults
        .iter()
        .map(|fault| fault.key.as_str())
        .collect();
    assert_eq!(keys, ["amqp.url", "nbi.url", "nbi.password"]);
    assert!(
        error.to_string().contains("NBI_UPGRADE_AMQP__URL"),
        "{error}"
    );
}

#[test]
fn variables_of_others_are_left_alone() {
    let theirs = [
        ("NBI_UPGRADE_SERVICE_HOST", "10.0.0.1"),
        ("NBI_UPGRADE_CONFIG", "/etc/x"),
        ("NBI_UPGRADE_TEST_AMQP_URL", "amqp://x"),
    ];
    load("", &theirs, &[]).unwrap();
}
