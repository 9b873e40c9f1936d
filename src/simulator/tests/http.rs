//! The HTTP side, by raw sockets and by a real client.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;

struct Served {
    address: SocketAddr,
    simulator: SharedSimulator,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

async fn served(plan: TroublePlan) -> Served {
    let mut simulator = Simulator::new(SimulatorSettings {
        troubles: plan,
        ..SimulatorSettings::default()
    });
    simulator.add_device(Device::new("DMS_DEVICE"), Timestamp::now());
    let simulator = SharedSimulator::in_real_time(simulator);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let settings = HttpSettings {
        credentials: Some(Credentials::new("base64", "encoded")),
        hang: Duration::from_secs(60),
        ..HttpSettings::default()
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(listener, simulator.clone(), settings, stop.clone()));
    Served {
        address,
        simulator,
        stop,
        task,
    }
}

impl Served {
    /// Sends text as it stands, reads to the end, returns head and body.
    async fn say(&self, text: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A connection that is reset has said all that it will.
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        answer.split_once("\r\n\r\n").map_or_else(
            || (answer.clone(), String::new()),
            |(head, body)| (head.to_owned(), body.to_owned()),
        )
    }

    async fn request(&self, line: &str, body: &str) -> (String, String) {
        let length = body.len();
        self.say(&format!(
            "{line} HTTP/1.1\r\nHost: nbi.example\r\nContent-Type: application/json\r\n\
             Authorization: Basic YmFzZTY0OmVuY29kZWQ=\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ))
        .await
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_four_calls_of_the_vendors_page_are_answered_as_it_shows() {
    let served = served(TroublePlan::none()).await;
    let create = r#"{
"id": "UPGRADE_DMS_DEVICE",
"enabled": true,
"automatic": true,
"file": "https://files.example/fw.bin",
"condition": {
"cpeid": "DMS_DEVICE"
},
"executions": 1,
"priority": 1,
"author": "api"
}"#;
    let (head, body) = served
        .request("POST /v1/dyn/FirmwareStorage/.*", create)
        .await;
    assert!(
        head.starts_with("HTTP/1.1 200 OK") && head.contains("\r\ndate: "),
        "{head}"
    );
    assert_eq!(
        body,
        r#"{"code":204,"details":"","message":"response from FirmwareStorage"}"#
    );
    let (_, body) = served
        .request(
            "POST /v1/method/SendCNR",
            r#"{"search_options": {"cpe_id": "DMS_DEVICE"}}"#,
        )
        .await;
    assert_eq!(body, r#"{"result":{"code":200,"message":"OK"}}"#);
    let (_, body) = served
        .request(
            "GET /v1/dyn/FirmwareResultStorage/.*?id=UPGRADE_DMS_DEVICE",
            "",
        )
        .await;
    assert_eq!(
        body,
        r#"{"code":404,"details":"","message":"response from FirmwareResultStorage"}"#
    );
    let disarm = r#"{"id": "UPGRADE_DMS_DEVICE", "enabled": false, "automatic": false}"#;
    let (_, body) = served
        .request(
            "PUT /v1/dyn/FirmwareStorage/.*?campaignid=UPGRADE%5FDMS_DEVICE",
            disarm,
        )
        .await;
    assert_eq!(
        body,
        r#"{"code":204,"details":"","message":"response from FirmwareStorage"}"#
    );
    assert!(
        served
            .simulator
            .with(|simulator, _| simulator.armed_rules())
            .is_empty()
    );
    served.end().await;
}

#[tokio::test]
async fn wrong_credentials_and_unknown_verbs_are_turned_away() {
    let served = served(TroublePlan::none()).await;
    let (head, body) = served
        .say("GET /v1/dyn/FirmwareStorage/.* HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    assert!(
        head.starts_with("HTTP/1.1 401") && head.contains("www-authenticate: Basic"),
        "{head}"
    );
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["code"], 401);
    assert!(
        served
            .request("PATCH /v1/dyn/FirmwareStorage/.*", "{}")
            .await
            .0
            .starts_with("HTTP/1.1 405")
    );
    assert!(
        served
            .request("GET /nowhere", "")
            .await
            .0
            .starts_with("HTTP/1.1 404")
    );
    assert_eq!(
        format!("{:?}", Credentials::new("a", "b")),
        "Credentials(..)"
    );
    served.end().await;
}

#[tokio::test]
async fn a_real_client_sees_troubles_of_the_connection() {
    for trouble in [
        Trouble::Refused,
        Trouble::AnswerLost,
        Trouble::Truncated,
        Trouble::HangAfterEffect,
    ] {
        let served = served(TroublePlan::new(1).with(trouble, 1.0)).await;
        let client = reqwest::Client::builder()
            .timeout(Duration::from_millis(300))
            .build()
            .unwrap();
        let sent = client
            .post(format!(
                "http://{}/v1/dyn/FirmwareStorage/.*",
                served.address
            ))
            .basic_auth("base64", Some("encoded"))
            .body(rule("A").to_string())
            .send()
            .await;
        let failed = match sent {
            Ok(answer) => answer.bytes().await.is_err(),
            Err(_) => true,
        };
        assert!(failed, "{trouble:?}");
        let (rules, calls) = served.simulator.with(|simulator, _| {
            (
                simulator.rules().len(),
                simulator.calls(Operation::CreateRule),
            )
        });
        let expected = (usize::from(trouble.leaves_the_effect()), 1);
        assert_eq!((rules, calls), expected, "{trouble:?}");
        served.end().await;
    }
}

#[tokio::test]
async fn operators_add_devices_and_see_what_happened() {
    let served = served(TroublePlan::none()).await;
    let devices = r#"[{"cpe_id": "B", "version": "0.9", "attempts": ["success", {"fault": {"code": 9010, "text": "x"}}]}]"#;
    assert_eq!(
        served.request("POST /sim/devices", devices).await.1,
        r#"{"added":1}"#
    );
    assert!(
        served
            .request("POST /sim/devices", r#"{"cpe": "B"}"#)
            .await
            .0
            .starts_with("HTTP/1.1 400")
    );
    let page = |body: String| serde_json::from_str::<Value>(&body).unwrap();
    let devices = page(served.request("GET /sim/devices", "").await.1);
    assert_eq!(
        devices[1],
        json!({"cpe_id": "B", "character": "plain", "state": "idle", "version": "0.9", "flashes": []})
    );
    let summary = page(served.request("GET /sim/summary", "").await.1);
    assert_eq!(
        (&summary["devices"], &summary["devices_flashed_twice"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(
        page(served.request("GET /sim/rules", "").await.1),
        json!([])
    );
    assert!(
        served
            .request("GET /sim/nope", "")
            .await
            .0
            .starts_with("HTTP/1.1 404")
    );
    served.end().await;
}
