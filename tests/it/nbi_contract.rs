//! One suite for the NBI client over both transports: in process, and over HTTP. The answers are the core's words either way.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::job::{
    CpeId, FirmwareUrl, NbiAnswer, NbiCall, NbiFailure, Purpose, RuleId, RuleSpec,
};
use nbi_upgrade::nbi::http::HttpSettings;
use nbi_upgrade::nbi::{HttpTransport, Nbi, NbiClient, NbiSettings, Transport};
use nbi_upgrade::simulator::{
    Credentials, Device, HttpSettings as ServerSettings, InProcessSettings, InProcessTransport,
    PostOnExisting, ReadingRules, Semantics, SharedSimulator, Simulator, SimulatorSettings, serve,
};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

fn model(semantics: Semantics) -> SharedSimulator {
    let mut simulator = Simulator::new(SimulatorSettings {
        semantics,
        ..SimulatorSettings::default()
    });
    let mut quick = Device::new("CPE1");
    quick.session_delay = SignedDuration::from_millis(10);
    quick.download = SignedDuration::from_millis(10);
    quick.reboot = SignedDuration::from_millis(10);
    simulator.add_device(quick, Timestamp::now());
    let mut offline = Device::new("OFF");
    offline.offline_until = Some(Timestamp::MAX);
    simulator.add_device(offline, Timestamp::now());
    SharedSimulator::in_real_time(simulator)
}

fn client<T: Transport>(transport: T) -> NbiClient<T> {
    let settings = NbiSettings {
        quick_retry_initial: Duration::from_millis(1),
        ..NbiSettings::default()
    };
    NbiClient::new(transport, settings, Arc::default())
}

fn in_process(semantics: Semantics) -> NbiClient<InProcessTransport> {
    client(InProcessTransport::new(
        model(semantics),
        InProcessSettings::default(),
    ))
}

/// Ends the server when the test does.
struct Served {
    client: NbiClient<HttpTransport>,
    stop: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn over_http(semantics: Semantics, password: &str) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let settings = ServerSettings {
        credentials: Some(Credentials::new("user", "right")),
        ..ServerSettings::default()
    };
    tokio::spawn(serve(listener, model(semantics), settings, stop.clone()));
    let transport = HttpTransport::new(&HttpSettings {
        url,
        username: "user".to_owned(),
        password: SecretString::from(password.to_owned()),
        password_file: None,
        timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(5),
        ca_file: None,
        client_certificate: None,
        allow_http: true,
        max_response_bytes: 1 << 20,
        max_concurrency: 8,
    })
    .unwrap();
    Served {
        client: client(transport),
        stop,
    }
}

fn cpe_id(text: &str) -> CpeId {
    CpeId::parse(text).unwrap()
}

fn rule_id() -> RuleId {
    RuleId::parse("UPGRADE_CPE1").unwrap()
}

fn spec() -> RuleSpec {
    RuleSpec {
        rule_id: rule_id(),
        cpe_id: cpe_id("CPE1"),
        firmware_url: FirmwareUrl::checked("https://files.example/ALPHA-2.bin").unwrap(),
        executions: 1,
        priority: 1,
        description: Some("nbi-upgrade job j".to_owned()),
    }
}

fn read_rule() -> NbiCall {
    NbiCall::ReadRule {
        rule_id: rule_id(),
        purpose: Purpose::Look,
    }
}

fn read_results() -> NbiCall {
    NbiCall::ReadResults {
        rule_id: rule_id(),
        cpe_id: cpe_id("CPE1"),
        purpose: Purpose::Look,
    }
}

async fn rules(nbi: &impl Nbi) -> Vec<(bool, Option<String>)> {
    match nbi.call(&read_rule()).await.unwrap() {
        NbiAnswer::Rules { rows, .. } => rows
            .into_iter()
            .map(|row| (row.enabled, row.description))
            .collect(),
        other => panic!("{other:?}"),
    }
}

async fn a_rule_lives_and_dies(nbi: &impl Nbi) {
    assert_eq!(rules(nbi).await, []);
    assert_eq!(
        nbi.call(&NbiCall::DisarmRule { rule_id: rule_id() }).await,
        Ok(NbiAnswer::NoSuchRule)
    );
    assert_eq!(
        nbi.call(&NbiCall::CreateRule(spec())).await,
        Ok(NbiAnswer::Done)
    );
    let tag = Some("nbi-upgrade job j".to_owned());
    assert_eq!(rules(nbi).await, [(true, tag.clone())]);
    assert_eq!(
        nbi.call(&NbiCall::DisarmRule { rule_id: rule_id() }).await,
        Ok(NbiAnswer::Done)
    );
    assert_eq!(rules(nbi).await, [(false, tag)]);
    let untagged = RuleSpec {
        description: None,
        ..spec()
    };
    assert_eq!(
        nbi.call(&NbiCall::UpdateRule(untagged)).await,
        Ok(NbiAnswer::Done)
    );
    assert!(rules(nbi).await[0].0);
    assert_eq!(
        nbi.call(&NbiCall::DeleteRule { rule_id: rule_id() }).await,
        Ok(NbiAnswer::Done)
    );
    assert_eq!(rules(nbi).await, []);
}

async fn a_device_reports_its_result(nbi: &impl Nbi) {
    let NbiAnswer::Results { rows, nbi_time } = nbi.call(&read_results()).await.unwrap() else {
        panic!("no results")
    };
    assert_eq!(rows, []);
    let nbi_time = nbi_time.expect("the simulator shows its clock");
    assert!(nbi_time.duration_since(Timestamp::now()).abs() < SignedDuration::from_secs(5));
    nbi.call(&NbiCall::CreateRule(spec())).await.unwrap();
    let wake = NbiCall::SendConnectionRequest {
        cpe_id: cpe_id("CPE1"),
    };
    assert_eq!(nbi.call(&wake).await, Ok(NbiAnswer::Done));
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let row = loop {
        let NbiAnswer::Results { mut rows, .. } = nbi.call(&read_results()).await.unwrap() else {
            panic!("no results")
        };
        if let Some(row) = rows.pop() {
            break row;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "the device never reports"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(row.code, Some(200));
    let version = nbi
        .call(&NbiCall::ReadVersion {
            cpe_id: cpe_id("CPE1"),
        })
        .await;
    assert!(
        matches!(
            version,
            Ok(NbiAnswer::Version(_)) | Err(NbiFailure::Transient { .. })
        ),
        "{version:?}"
    );
}

async fn devices_that_are_away_or_unknown_are_told_apart(nbi: &impl Nbi) {
    let wake = |id: &str| NbiCall::SendConnectionRequest { cpe_id: cpe_id(id) };
    assert!(matches!(
        nbi.call(&wake("OFF")).await,
        Err(NbiFailure::Transient { .. })
    ));
    assert!(matches!(
        nbi.call(&wake("NOBODY")).await,
        Err(NbiFailure::Rejected { .. })
    ));
}

#[tokio::test]
async fn in_process_the_contract_is_kept() {
    a_rule_lives_and_dies(&in_process(Semantics::default())).await;
    a_device_reports_its_result(&in_process(Semantics::default())).await;
    devices_that_are_away_or_unknown_are_told_apart(&in_process(Semantics::default())).await;
}

#[tokio::test]
async fn over_http_the_contract_is_kept() {
    a_rule_lives_and_dies(&over_http(Semantics::default(), "right").await.client).await;
    a_device_reports_its_result(&over_http(Semantics::default(), "right").await.client).await;
    devices_that_are_away_or_unknown_are_told_apart(
        &over_http(Semantics::default(), "right").await.client,
    )
    .await;
}

#[tokio::test]
async fn both_transports_say_the_same_of_conflicts_and_rights() {
    let conflict = Semantics {
        post_on_existing: PostOnExisting::Conflict,
        ..Semantics::default()
    };
    for reading_rules in ReadingRules::ALL {
        let semantics = Semantics {
            reading_rules: *reading_rules,
            ..conflict.clone()
        };
        let local = in_process(semantics.clone());
        let remote = over_http(semantics, "right").await;
        for call in [
            NbiCall::CreateRule(spec()),
            NbiCall::CreateRule(spec()),
            read_rule(),
        ] {
            let (here, there) = (local.call(&call).await, remote.client.call(&call).await);
            assert_eq!(here, there, "{call:?} under {reading_rules:?}");
        }
    }
}

#[tokio::test]
async fn wrong_credentials_are_refused() {
    let served = over_http(Semantics::default(), "wrong").await;
    assert!(matches!(
        served.client.call(&read_rule()).await,
        Err(NbiFailure::Refused { .. })
    ));
}
