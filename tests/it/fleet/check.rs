//! The `check` command against a real broker: what stands, what is missing, what is refused; and that it changes nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::rabbit::Node;
use crate::support::site::{PREFIX, Plan, Site};

/// State, text and remedy by what was checked.
async fn checked(
    site: &Site,
    status: i32,
    more: &[&str],
) -> BTreeMap<String, (String, String, String)> {
    let arguments = [&["check", "--output", "json"], more].concat();
    let finished = site.run(&arguments).await.expect(status);
    assert!(!finished.out.contains("s3cret"), "{}", finished.out);
    let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    finished
        .json()
        .iter()
        .map(|line| {
            let said = (
                text(line, "state"),
                text(line, "text"),
                text(line, "remedy"),
            );
            (text(line, "check"), said)
        })
        .collect()
}

/// The user of a URL.
fn name(url: &str) -> &str {
    let after = url.split_once("://").expect(url).1;
    after.split_once(':').expect(url).0
}

async fn names(site: &Site) -> Vec<String> {
    let mut names: Vec<_> = site
        .statistics()
        .await
        .iter()
        .map(|queue| queue["name"].as_str().unwrap_or_default().to_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn check_has_a_line_for_each_thing_and_changes_nothing() {
    let site = Site::begin(0, Plan::default()).await;
    let all = checked(&site, 0, &[]).await;
    for what in [
        "configuration",
        "broker reachable",
        "broker credentials",
        "broker vhost",
        "broker permission: configure",
        "broker permission: write",
        "broker permission: read",
        "broker topology",
        "broker feature flags",
        "NBI reachable",
        "NBI credentials",
        "NBI results",
        "NBI rules",
        "NBI clock",
    ] {
        let (state, text, _) = all
            .get(what)
            .unwrap_or_else(|| panic!("no {what} in {all:#?}"));
        assert!(
            state == "ok" || what == "broker reachable",
            "{what}: {state} {text}"
        );
    }
    assert!(all["broker reachable"].1.contains("RabbitMQ "), "{all:#?}");
    assert!(
        all["broker topology"]
            .1
            .contains("equal to what is configured")
    );
    for (queue, depth) in site.depths().await {
        assert_eq!(depth, 0, "{queue}: the probes were let in");
    }

    // Two are missing; looking makes none.
    site.client().delete(&format!("{PREFIX}.delay.64s")).await;
    site.client().delete(&format!("{PREFIX}.control")).await;
    let all = checked(&site, 1, &[]).await;
    let (state, text, remedy) = &all["broker topology"];
    assert!(
        state == "failed" && text.contains("2 of ") && text.contains("delay.64s"),
        "{text}"
    );
    assert!(remedy.contains("topology declare"), "{remedy}");
    let before = names(&site).await;
    checked(&site, 1, &[]).await;
    assert_eq!(names(&site).await, before);

    // One stands otherwise than configured.
    let other = ["--set", "events.retention=3d"];
    site.run(&["topology", "declare"]).await.expect(0);
    let all = checked(&site, 1, &other).await;
    let (_, text, remedy) = &all["broker topology"];
    assert!(
        text.contains("events") && remedy.contains("x-max-age"),
        "{text} {remedy}"
    );
    site.delete_vhost().await;
}

#[tokio::test]
async fn check_says_who_is_not_let_in_and_what_they_may_not_do() {
    let site = Site::begin(0, Plan::default()).await;
    let node = Node::shared();
    let url = |url: String| format!("amqp.url={url}");
    let wrong = url(site.vhost.url().replace("guest:guest", "guest:s3cret"));
    let all = checked(&site, 1, &["--set", &wrong]).await;
    assert!(
        all["broker credentials"].2.contains("user and password"),
        "{all:#?}"
    );
    assert!(!all.contains_key("broker topology"));
    let nowhere = url(format!("{}-nowhere", site.vhost.url()));
    let all = checked(&site, 1, &["--set", &nowhere]).await;
    assert_eq!(all["broker credentials"].0, "ok");
    assert!(
        all["broker vhost"].2.contains("create the vhost"),
        "{all:#?}"
    );
    let management = url(format!("amqp://guest:guest@{}/", site.vhost.management()));
    let all = checked(&site, 1, &["--set", &management]).await;
    assert!(
        all["broker reachable"].1.contains("does not speak AMQP"),
        "{all:#?}"
    );

    let at_hand = site.vhost.url();
    let vhost = at_hand
        .rsplit('/')
        .next()
        .expect("a URL ends with its vhost");
    let all_of_ours = format!("^{PREFIX}\\\\..*");
    for (user, permissions, failing) in [
        (
            "reader",
            format!(r#"{{"configure":"","write":"","read":"{all_of_ours}"}}"#),
            "configure write",
        ),
        (
            "writer",
            format!(r#"{{"configure":"","write":"^({PREFIX}\\..*|amq\\.default)$","read":""}}"#),
            "configure read",
        ),
        (
            "no-default",
            format!(
                r#"{{"configure":"{all_of_ours}","write":"{all_of_ours}","read":"{all_of_ours}"}}"#
            ),
            "write",
        ),
    ] {
        let user = url(node.user(&site.vhost, user, &permissions));
        let all = checked(&site, 1, &["--set", &user]).await;
        for which in ["configure", "write", "read"] {
            let (state, text, remedy) = &all[&format!("broker permission: {which}")];
            let is_failing = failing.contains(which);
            assert_eq!(state == "failed", is_failing, "{user} {which}: {text}");
            // For the user and vhost at hand, to be typed as it stands; and whoever is no worker is told that it is about one.
            let grant = format!("-p '{}' '{}' ", vhost, name(&user));
            let is_told = remedy.starts_with("a worker needs it")
                && (which == "configure" || remedy.contains(&grant));
            assert!(!is_failing || is_told, "{user} {which}: {text}; {remedy}");
        }
    }
    // Who only looks needs it for the queues of campaigns, which nobody could declare beforehand.
    for (user, campaigns, status) in [
        ("worker", format!("^{PREFIX}\\\\.campaign\\\\..*"), 0),
        ("no-campaigns", "^$".to_owned(), 1),
    ] {
        let permissions = format!(
            r#"{{"configure":"{campaigns}","write":"^({PREFIX}\\..*|amq\\.default)$","read":"{all_of_ours}"}}"#
        );
        let user = url(node.user(&site.vhost, user, &permissions));
        let arguments = ["--set", &user, "--set", "amqp.topology=check"];
        let all = checked(&site, status, &arguments).await;
        let (state, text, remedy) = &all["broker permission: configure"];
        assert_eq!(state == "failed", status == 1, "{text}");
        let said = if status == 0 { text } else { remedy };
        assert!(said.contains("campaign"), "{text}; {remedy}");
    }
    let left = site
        .client()
        .depth_if_there("fleet.campaign.nbi-upgrade-check");
    assert_eq!(left.await, None, "it looks and makes nothing");
    site.delete_vhost().await;
}
