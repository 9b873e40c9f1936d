//! The dashboard of campaigns: which go on, which stand still and why, and when they will not be done in time.

use nbi_upgrade::telemetry::names;

use super::board::{Board, Panel};
use super::promql::{max, of, per_minute, sum, with, within};

pub(super) fn board() -> Board {
    let mut board = Board::new(
        "nbi-upgrade-campaigns",
        "nbi-upgrade / Campaigns",
        "Which campaigns go on, which stand still and why, and which will not be done in time. The first twenty by name; \"other\" is the rest together.",
    );
    board.row("Now");
    now(&mut board);
    board.row("Devices");
    devices(&mut board);
    board.row("What holds campaigns");
    holds(&mut board);
    board
}

/// Campaigns in this condition.
fn condition(name: &str) -> String {
    with(names::CAMPAIGN_CONDITION, &format!("condition=\"{name}\""))
}

/// Devices in these states.
fn state(states: &str) -> String {
    with(names::CAMPAIGN_DEVICES, &format!("state=~\"{states}\""))
}

fn now(board: &mut Board) {
    board.add(4, 4, Panel::stat(
        "Leader",
        "none",
        "Workers that lead the campaigns: one, or for a moment none when it has died. Without one, nothing is started.",
    )
    .query(sum("", &of(names::CAMPAIGN_LEADER)), "leaders")
    .value_is(0, "NONE", "red")
    .value_is(1, "one", "green")
    .warns(0.0, 2.0));
    board.add(
        4,
        4,
        Panel::stat("Active", "none", "Campaigns that are not over.")
            .query(sum("", &of(names::CAMPAIGNS_ACTIVE)), "campaigns")
            .plain(),
    );
    board.add(
        4,
        4,
        Panel::stat(
            "Paused",
            "none",
            "Campaigns that are paused, by order or by themselves.",
        )
        .query(sum("", &of(names::CAMPAIGNS_PAUSED)), "campaigns")
        .warns(1.0, 1_000.0),
    );
    board.add(4, 4, Panel::stat(
        "Paused by themselves",
        "none",
        "Campaigns that stopped as too many devices failed: find out why, then resume or cancel.",
    )
    .query(sum("", &condition("paused_by_itself")), "campaigns")
    .alarms(1.0));
    board.add(
        4,
        4,
        Panel::stat(
            "In jeopardy",
            "none",
            "Campaigns whose deadline cannot be met any more, as far as pace, places and windows tell.",
        )
        .query(sum("", &condition("in_jeopardy")), "campaigns")
        .warns(1.0, 1_000.0),
    );
    board.add(
        4,
        4,
        Panel::stat(
            "Devices that wait",
            "short",
            "Devices that were not started yet.",
        )
        .query(sum("", &state("waiting")), "devices")
        .plain(),
    );
}

fn devices(board: &mut Board) {
    let over = sum("campaign", &state("completed|failed|cancelled"));
    let all = sum("campaign", &of(names::CAMPAIGN_DEVICES));
    board.add(
        8,
        9,
        Panel::bars(
            "Done",
            "percentunit",
            "Share of a campaign's devices that have their outcome.",
        )
        .query(format!("{over} / ({all} > 0)"), "{{campaign}}")
        .up_to(1.0)
        .plain()
        .without_data("no campaign"),
    );
    board.add(
        8,
        9,
        Panel::stacked(
            "Devices by state",
            "short",
            "Devices of all active campaigns.",
        )
        .query(sum("state", &of(names::CAMPAIGN_DEVICES)), "{{state}}")
        .colour("waiting", "text")
        .colour("in_flight", "blue")
        .colour("completed", "green")
        .colour("failed", "red")
        .colour("cancelled", "orange"),
    );
    board.add(
        8,
        9,
        Panel::lines(
            "Starts",
            "cpm",
            "Devices that campaigns start a minute, all together.",
        )
        .query(per_minute(&of(names::CAMPAIGN_DEVICES_RELEASED)), "starts"),
    );
    let ended = sum("campaign", &state("completed|failed"));
    board.add(
        8,
        8,
        Panel::lines(
            "Failed devices",
            "percentunit",
            "Share of failed among a campaign's devices that ended.",
        )
        .query(
            format!("{} / ({ended} > 0)", sum("campaign", &state("failed"))),
            "{{campaign}}",
        )
        .warns(0.05, 0.2)
        .up_to(1.0),
    );
    board.add(
        8,
        8,
        Panel::stacked("Waiting", "short", "Devices not started yet, by campaign.")
            .query(sum("campaign", &state("waiting")), "{{campaign}}"),
    );
    board.add(
        8,
        8,
        Panel::stacked(
            "In flight",
            "short",
            "Devices that were started and take a place, by campaign.",
        )
        .query(sum("campaign", &state("in_flight")), "{{campaign}}"),
    );
}

/// Of campaigns that have devices: `other` is shown where there are more than twenty.
fn there(by_campaign: &str) -> String {
    let devices = sum("campaign", &of(names::CAMPAIGN_DEVICES));
    format!("{by_campaign} and on (campaign) {devices} > 0")
}

fn holds(board: &mut Board) {
    // The gravest of what holds a campaign.
    let ranked = [
        "places_taken",
        "closed",
        "held",
        "cancelling",
        "paused_by_order",
        "paused_by_itself",
    ];
    let ranked: Vec<_> = ranked
        .iter()
        .zip(1..)
        .map(|(name, rank)| format!("{rank} * clamp_max({}, 1)", condition(name)))
        .collect();
    board.add(16, 9, Panel::states(
        "What holds each campaign",
        "places taken: max_in_flight. closed: not_before or the window. held: the emergency stop, or the leader cannot ask the NBI. paused: by an order. STOPPED ITSELF: too many devices failed.",
    )
    .query(there(&max("campaign", &ranked.join(" or "))), "{{campaign}}")
    .value_is(0, "nothing", "green")
    .value_is(1, "places taken", "blue")
    .value_is(2, "closed", "text")
    .value_is(3, "held", "orange")
    .value_is(4, "being cancelled", "orange")
    .value_is(5, "paused", "orange")
    .value_is(6, "STOPPED ITSELF", "red"));
    board.add(
        8,
        9,
        Panel::states("Jeopardy", "Whether a campaign's deadline can be met.")
            .query(
                there(&max(
                    "campaign",
                    &format!("clamp_max({}, 1)", condition("in_jeopardy")),
                )),
                "{{campaign}}",
            )
            .value_is(0, "in time, or no deadline", "green")
            .value_is(1, "in jeopardy", "orange"),
    );
    board.add(
        12,
        7,
        Panel::lines("Pauses", "none", "Campaigns that were paused, by reason.")
            .query(
                sum(
                    "reason",
                    &within("$__rate_interval", &of(names::CAMPAIGN_PAUSES)),
                ),
                "{{reason}}",
            )
            .colour("abort", "red")
            .colour("configuration_faults", "red"),
    );
    board.add(
        12,
        7,
        Panel::states("Leader by worker", "Which worker leads.")
            .query(max("instance", &of(names::CAMPAIGN_LEADER)), "{{instance}}")
            .value_is(0, "stands by", "text")
            .value_is(1, "leads", "green"),
    );
}
