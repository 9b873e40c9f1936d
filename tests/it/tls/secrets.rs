//! Secrets that are replaced while the worker runs, as Kubernetes replaces mounted ones: no restart, no failed job.

use std::process::Stdio;

use super::broker::Secured;
use crate::support::certificates::{Authority, Mounted};
use crate::support::processes::{Process, until};
use crate::support::rabbit::Node;
use crate::support::site::{PATIENCE, Plan, Site, requests};
use crate::support::tls_server::TlsServer;

#[tokio::test]
async fn a_changed_password_file_is_used_before_the_circuit_probes_again() {
    let count = 20;
    let mut secret = Mounted::new(&[("password", "outdated\n")]);
    let mut site = Site::begin(0, Plan::default()).await;
    site.unset("NBI_UPGRADE_NBI__PASSWORD");
    site.set("NBI_UPGRADE_NBI__PASSWORD_FILE", &secret.text("password"));
    site.start_worker().await;
    site.submit(&requests(count)).await;
    let why = site.workers[0].not_ready("circuit").await;
    assert!(why.contains("401"), "{why}");
    // A file that is not there for a moment changes nothing and ends nothing.
    secret.replace(&[]);
    until("a line about the missing file", PATIENCE, async || {
        says(&site, "nbi credentials unusable")
    })
    .await;
    secret.replace(&[("password", "nbi\n")]);
    site.results.finals(count, PATIENCE).await;
    let log = site.workers[0].process.log().join("\n");
    assert!(log.contains("nbi credentials changed"), "{log}");
    assert!(log.contains("nbi.password_file"), "{log}");
    assert!(!log.contains("outdated"), "{log}");
    // Refused with the circuit closed: the new password is in place by then, and nothing stops.
    site.end(count).await;
}

#[tokio::test]
async fn changed_certificates_are_used_at_the_next_connection() {
    let count = 10;
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (client, next) = (old.client("worker"), new.client("worker"));
    let files = |authority: &Authority, cert: &str, key: &str| {
        [
            ("ca.pem", authority.pem.clone()),
            ("tls.crt", cert.to_owned()),
            ("tls.key", key.to_owned()),
        ]
    };
    let present = files(&old, &client.cert, &client.key);
    let present = present
        .each_ref()
        .map(|(name, text)| (*name, text.as_str()));
    let mut mounted = Mounted::new(&present);
    let mut site = Site::begin(0, Plan::default()).await;
    let server = TlsServer::start(
        site.simulator.address(),
        &old.server(&["127.0.0.1"]),
        Some(&old),
    )
    .await;
    let url = format!("https://127.0.0.1:{}", server.port());
    site.set("NBI_UPGRADE_NBI__URL", &url);
    site.set("NBI_UPGRADE_NBI__CA_FILE", &mounted.text("ca.pem"));
    site.set(
        "NBI_UPGRADE_NBI__CLIENT_CERT_FILE",
        &mounted.text("tls.crt"),
    );
    site.set("NBI_UPGRADE_NBI__CLIENT_KEY_FILE", &mounted.text("tls.key"));
    site.start_worker().await;
    let all = requests(2 * count);
    site.submit(&all[..count]).await;
    site.results.finals(count, PATIENCE).await;
    let before = server.handshakes();
    assert!(before > 0);

    // The other side changes first, and takes only the new from now on; a certificate without its key is left aside.
    server.change(&new.server(&["127.0.0.1"]), Some(&new));
    let torn = files(&new, &next.cert, &client.key);
    mounted.replace(&torn.each_ref().map(|(name, text)| (*name, text.as_str())));
    site.submit(&all[count..]).await;
    until("a line about the torn files", PATIENCE, async || {
        says(&site, "nbi credentials unusable")
    })
    .await;
    let whole = files(&new, &next.cert, &next.key);
    mounted.replace(&whole.each_ref().map(|(name, text)| (*name, text.as_str())));
    // The jobs may be over by connections that stood; one that begins now looks at the files again, and comes in anew.
    let last = 2 * count + 1;
    site.submit(&requests(last)[2 * count..]).await;
    site.results.finals(last, PATIENCE).await;
    assert!(server.handshakes() > before);
    let log = site.workers[0].process.log().join("\n");
    assert!(log.contains("\"what\":\"certificates\""), "{log}");
    assert!(log.contains("do not belong together"), "{log}");
    assert!(!log.contains("PRIVATE KEY"), "{log}");
    site.end(last).await;
}

#[tokio::test]
async fn a_changed_url_file_is_used_at_the_next_connect() {
    let count = 5;
    let secured = tokio::task::spawn_blocking(Secured::shared).await.unwrap();
    let node: &Node = &secured.node;
    let vhost = node.vhost();
    let client = secured.authority.client("rotated");
    let all = r#"{"configure":".*","write":".*","read":".*"}"#;
    let url = |password: &str| {
        format!(
            "amqps://rotated:{password}@127.0.0.1:{}/{}\n",
            secured.port,
            vhost.name()
        )
    };
    node.user(&vhost, "rotated", all);
    let mut mounted = Mounted::new(&[
        ("url", &url("s3cret")),
        ("ca.pem", &secured.authority.pem),
        ("tls.crt", &client.cert),
        ("tls.key", &client.key),
    ]);
    let mut site = Site::begin_on(vhost.clone(), 0, Plan::default()).await;
    site.unset("NBI_UPGRADE_AMQP__URL");
    site.set("NBI_UPGRADE_AMQP__URL_FILE", &mounted.text("url"));
    site.set("NBI_UPGRADE_AMQP__CA_FILE", &mounted.text("ca.pem"));
    site.set(
        "NBI_UPGRADE_AMQP__CLIENT_CERT_FILE",
        &mounted.text("tls.crt"),
    );
    site.set(
        "NBI_UPGRADE_AMQP__CLIENT_KEY_FILE",
        &mounted.text("tls.key"),
    );
    site.start_worker().await;
    site.workers[0].ready().await;

    let changed = r#"{"password":"n3wer","tags":""}"#;
    node.api("PUT", "/api/users/rotated", Some(changed));
    // The management API learns of connections a second later.
    // The connections that it names first may be over: closed again and again, until the worker has none.
    until("the worker to have no broker", PATIENCE, async || {
        node.close_connections(&vhost);
        let ready = site.workers[0].get("/readyz").await?;
        (ready.0 == 503 && ready.1.contains(r#""what":"broker""#)).then_some(())
    })
    .await;
    until(
        "the broker to refuse the old password",
        PATIENCE,
        async || says(&site, "amqp.url_file"),
    )
    .await;
    mounted.replace(&[
        ("url", &url("n3wer")),
        ("ca.pem", &secured.authority.pem),
        ("tls.crt", &client.cert),
        ("tls.key", &client.key),
    ]);
    site.workers[0].ready().await;
    // The commands read the file too.
    let mut checked = Process::start(
        tempfile::tempdir().unwrap().path(),
        &["topology", "check"],
        site.environment(),
        Stdio::null(),
    );
    assert!(
        checked.ended(PATIENCE).await.success(),
        "{:?}",
        checked.log()
    );
    site.reconnect().await;
    site.submit(&requests(count)).await;
    let log = site.workers[0].process.log().join("\n");
    assert!(!log.contains("s3cret") && !log.contains("n3wer"), "{log}");
    site.workers[0].ready().await;
}

#[tokio::test]
async fn changed_certificates_for_the_broker_are_used_at_the_next_connection() {
    let secured = tokio::task::spawn_blocking(Secured::shared).await.unwrap();
    let node: &Node = &secured.node;
    let vhost = node.vhost();
    let all = r#"{"configure":".*","write":".*","read":".*"}"#;
    // The broker takes the certificate's name for the user: so it tells which certificate came.
    for user in ["first", "second"] {
        node.user(&vhost, user, all);
    }
    let files = |authority: &Authority, user: &str| {
        let pair = secured.authority.client(user);
        [
            ("ca.pem", authority.pem.clone()),
            ("tls.crt", pair.cert),
            ("tls.key", pair.key),
        ]
    };
    let users = || {
        let path = format!("/api/vhosts/{}/connections", vhost.name());
        let all = node.api("GET", &path, None);
        let users = all.as_array().into_iter().flatten();
        let users = users.filter(|one| one["ssl"] == true);
        let users = users.filter_map(|one| one["user"].as_str().map(str::to_owned));
        users.collect::<std::collections::BTreeSet<_>>()
    };
    let is_user = async |user: &str| {
        until("the broker to see who is there", PATIENCE, async || {
            users().iter().eq([user]).then_some(())
        })
        .await;
    };
    let first = files(&secured.authority, "first");
    let mut mounted = Mounted::new(&first.each_ref().map(|(name, text)| (*name, text.as_str())));
    let mut site = Site::begin_on(vhost.clone(), 0, Plan::default()).await;
    let url = format!(
        "amqps://127.0.0.1:{}/{}?auth_mechanism=external",
        secured.port,
        vhost.name()
    );
    site.set("NBI_UPGRADE_AMQP__URL", &url);
    for (key, file) in [
        ("NBI_UPGRADE_AMQP__CA_FILE", "ca.pem"),
        ("NBI_UPGRADE_AMQP__CLIENT_CERT_FILE", "tls.crt"),
        ("NBI_UPGRADE_AMQP__CLIENT_KEY_FILE", "tls.key"),
    ] {
        site.set(key, &mounted.text(file));
    }
    let mut mount = |files: [(&str, String); 3]| {
        mounted.replace(&files.each_ref().map(|(name, text)| (*name, text.as_str())));
    };
    site.start_worker().await;
    site.workers[0].ready().await;
    is_user("first").await;

    // An authority that did not sign the broker's certificate: the next connection is not made.
    mount(files(&Authority::new("other"), "second"));
    site.workers[0].ready().await;
    node.close_connections(&vhost);
    until("the wrong authority to be named", PATIENCE, async || {
        says(&site, "signed by no authority in amqp.ca_file")
    })
    .await;
    mount(files(&secured.authority, "second"));
    site.workers[0].ready().await;
    is_user("second").await;
    let log = site.workers[0].process.log().join("\n");
    assert!(!log.contains("PRIVATE KEY"), "{log}");
}

/// Whether the first worker's log has a line with this text.
fn says(site: &Site, text: &str) -> Option<()> {
    let log = site.workers[0].process.log();
    log.iter().any(|line| line.contains(text)).then_some(())
}
