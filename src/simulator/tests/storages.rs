//! The storages under each of the vendor's open questions.

use super::*;
use crate::simulator::rules::matches_wildcard;

fn bench(change: impl FnOnce(&mut Semantics)) -> Bench {
    let mut semantics = Semantics::default();
    change(&mut semantics);
    Bench::new(semantics)
}

fn read(bench: &mut Bench, name: &str, cpe_id: &str) -> Vec<Value> {
    let answer = bench.call(
        Verb::Get,
        RULES,
        &[(name, &format!("UPGRADE_{cpe_id}"))],
        Value::Null,
    );
    answer["details"].as_array().cloned().unwrap_or_default()
}

fn disarm(bench: &mut Bench, name: &str, cpe_id: &str) -> i64 {
    let id = format!("UPGRADE_{cpe_id}");
    let body = json!({"id": id, "enabled": false, "automatic": false});
    bench.code(Verb::Put, RULES, &[(name, &id)], body)
}

#[test]
fn the_envelopes_are_those_of_the_vendors_page() {
    let mut bench = Bench::new(Semantics::default());
    assert_eq!(
        bench.call(Verb::Post, RULES, &[], rule("A")),
        json!({"code": 204, "message": "response from FirmwareStorage", "details": ""})
    );
    assert_eq!(
        bench.call(Verb::Get, RESULTS, &[("id", "UPGRADE_A")], Value::Null),
        json!({"code": 404, "message": "response from FirmwareResultStorage", "details": ""})
    );
}

#[test]
fn an_encoded_star_is_the_same_path_and_other_paths_are_a_page() {
    let mut bench = Bench::new(Semantics::default());
    assert_eq!(
        bench.code(Verb::Post, "/v1/dyn/FirmwareStorage/.%2A", &[], rule("A")),
        204
    );
    for path in [
        "/",
        "/v1/dyn/FirmwareStorage",
        "/v1/dyn/FirmwareStorage/",
        "/v1/dyn/OtherStorage/.*",
        "/v1/method/Nope",
    ] {
        let reply = bench.raw(Verb::Get, path, &[], &Value::Null);
        assert_eq!(
            (reply.status, reply.content_type),
            (404, "text/html"),
            "{path}"
        );
    }
}

#[test]
fn post_on_a_taken_id_overwrites_conflicts_or_duplicates() {
    for (switch, code, rows) in [
        (PostOnExisting::Overwrite, 204, 1),
        (PostOnExisting::Conflict, 409, 1),
        (PostOnExisting::Duplicate, 204, 2),
    ] {
        let mut bench = bench(|semantics| semantics.post_on_existing = switch);
        assert_eq!(bench.create("A"), 204);
        let mut other = rule("A");
        other["author"] = json!("other");
        assert_eq!(
            bench.code(Verb::Post, RULES, &[], other),
            code,
            "{switch:?}"
        );
        let rows_now = read(&mut bench, "id", "A");
        assert_eq!(rows_now.len(), rows, "{switch:?}");
        assert_eq!(
            rows_now[0]["author"] == "other",
            switch == PostOnExisting::Overwrite,
            "{switch:?}"
        );
    }
}

#[test]
fn put_merges_or_replaces() {
    for switch in Put::ALL {
        let mut bench = bench(|semantics| semantics.put = *switch);
        bench.create("A");
        assert_eq!(disarm(&mut bench, "campaignid", "A"), 204);
        let row = &read(&mut bench, "id", "A")[0];
        assert_eq!(row["enabled"], false);
        assert_eq!(row.get("file").is_some(), *switch == Put::Merge);
        assert!(bench.simulator.armed_rules().is_empty());
    }
}

#[test]
fn put_and_delete_of_a_missing_row_say_so() {
    let mut bench = Bench::new(Semantics::default());
    assert_eq!(disarm(&mut bench, "campaignid", "A"), 404);
    assert_eq!(
        bench.code(Verb::Delete, RULES, &[("id", "UPGRADE_A")], Value::Null),
        404
    );
}

#[test]
fn only_the_honoured_filter_name_finds_rows() {
    for (switch, by_id, by_campaign) in [
        (Filter::Either, 1, 1),
        (Filter::Id, 1, 0),
        (Filter::CampaignId, 0, 1),
        (Filter::Ignored, 2, 2),
    ] {
        let mut bench = bench(|semantics| semantics.filter = switch);
        bench.create("A");
        bench.create("B");
        assert_eq!(read(&mut bench, "id", "A").len(), by_id, "{switch:?}");
        assert_eq!(
            read(&mut bench, "campaignid", "A").len(),
            by_campaign,
            "{switch:?}"
        );
        let found = if by_id == 0 { 404 } else { 204 };
        assert_eq!(disarm(&mut bench, "id", "A"), found, "{switch:?}");
        let armed = bench.simulator.armed_rules();
        assert_eq!(
            armed.contains(&"UPGRADE_A".to_owned()),
            found == 404,
            "{switch:?}"
        );
        assert!(armed.contains(&"UPGRADE_B".to_owned()), "{switch:?}");
    }
}

#[test]
fn results_are_filtered_by_the_rules_id_too() {
    for (switch, name, rows) in [
        (Filter::Either, "id", 1),
        (Filter::Id, "campaignid", 0),
        (Filter::CampaignId, "campaignid", 1),
        (Filter::CampaignId, "id", 0),
        (Filter::Ignored, "id", 2),
    ] {
        let mut bench = bench(|semantics| semantics.filter = switch);
        let now = bench.now;
        bench.simulator.add_result("A", "UPGRADE_A", 200, "OK", now);
        bench.simulator.add_result("B", "UPGRADE_B", 200, "OK", now);
        let answer = bench.call(Verb::Get, RESULTS, &[(name, "UPGRADE_A")], Value::Null);
        assert_eq!(
            answer["details"].as_array().map_or(0, Vec::len),
            rows,
            "{switch:?} {name}"
        );
    }
}

#[test]
fn a_filter_that_is_ignored_makes_a_bare_delete_hit_every_rule() {
    let mut bench = bench(|semantics| semantics.filter = Filter::Ignored);
    bench.create("A");
    bench.create("B");
    assert_eq!(
        bench.code(Verb::Delete, RULES, &[("id", "UPGRADE_A")], Value::Null),
        204
    );
    assert!(bench.simulator.rules().is_empty());
}

#[test]
fn other_columns_filter_by_equality_and_pages_are_cut() {
    let mut bench = Bench::new(Semantics::default());
    for cpe_id in ["A", "B", "C"] {
        bench.create(cpe_id);
    }
    let mut rows = |query: &[(&str, &str)]| {
        let details = bench.call(Verb::Get, RULES, query, Value::Null)["details"].clone();
        details
            .as_array()
            .into_iter()
            .flatten()
            .map(|row| row["id"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        rows(&[("limit", "2"), ("offset", "1")]),
        ["UPGRADE_B", "UPGRADE_C"]
    );
    assert_eq!(rows(&[("priority", "1"), ("limit", "1")]), ["UPGRADE_A"]);
    assert!(rows(&[("author", "nobody")]).is_empty());
}

#[test]
fn rows_come_in_the_order_asked_for() {
    for switch in RowOrder::ALL {
        let mut bench = bench(|semantics| semantics.row_order = *switch);
        let ids: Vec<_> = (0..20).map(|number| format!("D{number:02}")).collect();
        for cpe_id in &ids {
            bench.create(cpe_id);
        }
        let answer = bench.call(Verb::Get, RULES, &[], Value::Null);
        let mut seen: Vec<_> = answer["details"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["id"].as_str().unwrap()[8..].to_owned())
            .collect();
        assert_eq!(seen == ids, *switch == RowOrder::OldestFirst);
        seen.sort();
        assert_eq!(seen, ids);
    }
}

#[test]
fn the_http_status_is_200_or_the_code() {
    for (switch, created, missing) in [
        (HttpStatus::Always200, 200, 200),
        (HttpStatus::SameAsCode, 204, 404),
    ] {
        let mut bench = bench(|semantics| semantics.http_status = switch);
        let reply = bench.raw(Verb::Post, RULES, &[], &rule("A"));
        assert_eq!(
            (reply.status, reply.body.is_empty()),
            (created, created == 204)
        );
        let reply = bench.raw(Verb::Get, RESULTS, &[("id", "UPGRADE_A")], &Value::Null);
        assert_eq!((reply.status, reply.body.is_empty()), (missing, false));
    }
}

#[test]
fn rules_may_be_unreadable_while_results_are_not() {
    for (switch, status) in [
        (ReadingRules::Allowed, 200),
        (ReadingRules::Forbidden403, 403),
        (ReadingRules::MethodNotAllowed405, 405),
        (ReadingRules::NotImplemented501, 501),
        (ReadingRules::NeverFound404, 404),
    ] {
        let mut bench = bench(|semantics| semantics.reading_rules = switch);
        assert_eq!(bench.create("A"), 204);
        assert_eq!(
            bench
                .raw(Verb::Get, RULES, &[("id", "UPGRADE_A")], &Value::Null)
                .status,
            status
        );
        assert_eq!(
            bench
                .raw(Verb::Get, RESULTS, &[("id", "UPGRADE_A")], &Value::Null)
                .status,
            200
        );
    }
}

#[test]
fn rows_of_rules_may_lack_a_column_and_pages_may_be_short() {
    let mut bench = bench(|semantics| {
        semantics.rule_rows = RuleRows::WithoutEnabled;
        semantics.filter = Filter::Ignored;
        semantics.rule_page_max = Some(1);
    });
    assert_eq!((bench.create("A"), bench.create("B")), (204, 204));
    let rows = read(&mut bench, "id", "B");
    assert_eq!((rows.len(), &rows[0]["id"]), (1, &json!("UPGRADE_A")));
    assert_eq!(
        (&rows[0]["enabled"], &rows[0]["automatic"]),
        (&Value::Null, &json!(true))
    );
}

#[test]
fn a_body_that_is_no_rule_is_rejected() {
    let mut bench = Bench::new(Semantics::default());
    for body in [
        Value::Null,
        json!([]),
        json!({}),
        json!({"id": ""}),
        json!({"id": 5}),
    ] {
        assert_eq!(bench.code(Verb::Post, RULES, &[], body), 400);
    }
}

#[test]
fn stars_stand_for_any_text() {
    for (pattern, subject, matches) in [
        ("CPE*", "CPE000001", true),
        ("*", "", true),
        ("*1", "CPE000001", true),
        ("C*0*1", "CPE000001", true),
        ("C*2*1", "CPE000001", false),
        ("ab*ba", "aba", false),
        ("CPE", "CPE1", false),
        ("CPE1", "CPE1", true),
        ("*é*", "aéb", true),
    ] {
        assert_eq!(
            matches_wildcard(pattern, subject),
            matches,
            "{pattern} {subject}"
        );
    }
}
