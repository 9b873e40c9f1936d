//! What the broker refuses to one campaign: that costs nobody else anything.

use serde_json::{Value, json};

use super::campaigns::{campaign, event};
use crate::support::processes::until;
use crate::support::rabbit::Node;
use crate::support::site::{PATIENCE, PREFIX, Plan, Site, requests};

/// Everything a worker needs but the right to make the queues of one campaign, which nobody could make beforehand.
#[tokio::test]
async fn a_campaign_whose_queues_are_refused_stops_nobody_else() {
    const JOBS: usize = 20;
    let mut site = Site::begin(0, Plan::default()).await;
    let permissions = json!({
        "configure": format!("^{PREFIX}\\.campaign\\.summer.*$"),
        "write": format!("^({PREFIX}\\..*|amq\\.default)$"),
        "read": format!("^{PREFIX}\\..*"),
    });
    let vhost = site.vhost.clone();
    let url = tokio::task::spawn_blocking(move || {
        Node::shared().user(&vhost, "no-campaigns", &permissions.to_string())
    });
    let with_all_rights = site.vhost.url();
    site.unset("NBI_UPGRADE_AMQP__URL");
    site.set("NBI_UPGRADE_AMQP__URL", &url.await.expect("a user"));
    site.set("NBI_UPGRADE_AMQP__TOPOLOGY", "check");
    for _ in 0..2 {
        site.start_worker().await;
    }
    for worker in &site.workers {
        worker.ready().await;
    }
    site.unset("NBI_UPGRADE_AMQP__URL");
    site.set("NBI_UPGRADE_AMQP__URL", &with_all_rights);
    let mut summer = campaign(31..=33, json!({}));
    summer["campaign_id"] = json!("summer");
    site.submit(&[campaign(50..=60, json!({})), summer]).await;
    let trouble = until("a line that names the campaign", PATIENCE, async || {
        let lines = site.workers.iter().flat_map(|worker| worker.process.log());
        let mut lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        lines.find(|line| line["campaign_id"] == "spring" && line["level"] == "WARN")
    })
    .await;
    let said = trouble.to_string();
    assert!(
        said.contains("declare queue") && said.contains("configure"),
        "{said}"
    );
    let rejected = event(&mut site, "upgrade.rejected", 1).await;
    let said = rejected["data"]["errors"].to_string();
    assert!(
        said.contains("fleet.campaign.spring") && said.contains("configure"),
        "{said}"
    );
    let accepted = event(&mut site, "upgrade.campaign.accepted", 1).await;
    assert_eq!(accepted["subject"], "summer", "{accepted}");
    site.submit(&requests(JOBS)).await;
    site.results.finals(JOBS + 4, PATIENCE).await;
    assert_eq!(site.results.outcomes()["completed/upgraded"], JOBS + 3);
    for worker in &site.workers {
        assert_eq!(worker.metric("broker_reconnects_total").await, 0.0);
        assert_eq!(worker.metric("broker_connected").await, 1.0);
    }
    // With the right, the request that lies among the dead is as good as new.
    let path = format!("/api/permissions/{}/no-campaigns", site.vhost.name());
    let all = json!({"configure": "^fleet\\.campaign\\..*", "write": ".*", "read": ".*"});
    let granted = tokio::task::spawn_blocking(move || {
        Node::shared().api("PUT", &path, Some(&all.to_string()))
    });
    granted.await.expect("a right");
    site.run(&["dead", "requeue", "--all", "--wait", "0s"])
        .await
        .expect(0);
    let accepted = event(&mut site, "upgrade.campaign.accepted", 2).await;
    assert_eq!(accepted["subject"], "spring", "{accepted}");
    site.delete_vhost().await;
}
