//! The two storages behind the vendor's generic methods: verbs, envelopes and codes.
//!
//! Documented: the verbs, the envelope, 204 for writes, 200 with rows, 404 without. Inferred: 404 for a PUT or DELETE that finds
//! no row, 400 for a body that is no object with an `id`, 405 for another verb. The rest is [`Semantics`].

use serde_json::{Value, json};

use super::reply::{Call, Reply};
use super::results::Results;
use super::rules::Rules;
use super::semantics::{HttpStatus, PostOnExisting, Put, ReadingRules, RuleRows, Semantics};
use super::table::{Row, Table, text};
use crate::nbi::wire::Verb;

/// The storage of rules.
pub(crate) const RULES: &str = "FirmwareStorage";
/// The storage of results.
pub(crate) const RESULTS: &str = "FirmwareResultStorage";

/// A call to the rule storage.
pub(crate) fn handle_rules(
    rules: &mut Rules,
    call: Call<'_>,
    semantics: &Semantics,
    rng: &mut fastrand::Rng,
) -> Reply {
    let code = match call.verb {
        Verb::Get => return read_rules(rules, call, semantics, rng),
        Verb::Post => post_rule(rules, call.body, semantics.post_on_existing),
        Verb::Put => put_rules(rules, call, semantics),
        Verb::Delete => {
            let keys = rules.table.select_for_write(
                call.query,
                semantics.filter,
                object(call.body).as_ref(),
            );
            keys.iter().for_each(|key| rules.remove(*key));
            code_of_write(keys.len())
        }
    };
    answer(RULES, code, json!(""), semantics)
}

/// A call to the result storage.
pub(crate) fn handle_results(
    results: &mut Results,
    call: Call<'_>,
    semantics: &Semantics,
    rng: &mut fastrand::Rng,
) -> Reply {
    let table = &mut results.table;
    let code = match (call.verb, object(call.body)) {
        (Verb::Get, _) => return read(table, RESULTS, call, semantics, rng),
        (Verb::Post, Some(row)) => {
            table.insert(row);
            204
        }
        (Verb::Put, Some(row)) => {
            let keys = table.select_for_write(call.query, semantics.filter, Some(&row));
            for key in &keys {
                let written = written_over(table.get(*key), &row, semantics.put);
                table.put(*key, written);
            }
            code_of_write(keys.len())
        }
        (Verb::Post | Verb::Put, None) => 400,
        (Verb::Delete, body) => {
            let keys = table.select_for_write(call.query, semantics.filter, body.as_ref());
            keys.iter().for_each(|key| drop(table.remove(*key)));
            code_of_write(keys.len())
        }
    };
    answer(RESULTS, code, json!(""), semantics)
}

fn read_rules(
    rules: &Rules,
    call: Call<'_>,
    semantics: &Semantics,
    rng: &mut fastrand::Rng,
) -> Reply {
    // A rule of access stands before the storage, so the status is HTTP's own whatever the storage does (inferred).
    let refusal = match semantics.reading_rules {
        ReadingRules::Allowed => return read(&rules.table, RULES, call, semantics, rng),
        ReadingRules::Forbidden403 => 403,
        ReadingRules::MethodNotAllowed405 => 405,
        ReadingRules::NotImplemented501 => 501,
        ReadingRules::NeverFound404 => 404,
    };
    Reply::envelope(refusal, refusal, RULES, json!(""))
}

fn read(
    table: &Table,
    storage: &str,
    call: Call<'_>,
    semantics: &Semantics,
    rng: &mut fastrand::Rng,
) -> Reply {
    let keys = table.select(call.query, semantics.filter);
    let mut rows = table.page(keys, call.query, semantics.row_order, rng);
    if storage == RULES {
        rows.truncate(semantics.rule_page_max.unwrap_or(usize::MAX));
        if semantics.rule_rows == RuleRows::WithoutEnabled {
            for row in rows.iter_mut().filter_map(Value::as_object_mut) {
                row.remove("enabled");
            }
        }
    }
    if rows.is_empty() {
        answer(storage, 404, json!(""), semantics)
    } else {
        answer(storage, 200, Value::Array(rows), semantics)
    }
}

fn post_rule(rules: &mut Rules, body: &[u8], on_existing: PostOnExisting) -> u16 {
    let Some(row) = object(body) else { return 400 };
    let Some(id) = text(&row, "id").filter(|id| !id.is_empty()) else {
        return 400;
    };
    let taken = rules.table.of_rule(id).first().copied();
    match (taken, on_existing) {
        (None, _) | (Some(_), PostOnExisting::Duplicate) => rules.insert(row),
        (Some(_), PostOnExisting::Conflict) => return 409,
        (Some(key), PostOnExisting::Overwrite) => rules.put(key, row),
    }
    204
}

fn put_rules(rules: &mut Rules, call: Call<'_>, semantics: &Semantics) -> u16 {
    let Some(body) = object(call.body) else {
        return 400;
    };
    let keys = rules
        .table
        .select_for_write(call.query, semantics.filter, Some(&body));
    for key in &keys {
        let written = written_over(rules.table.get(*key), &body, semantics.put);
        rules.put(*key, written);
    }
    code_of_write(keys.len())
}

/// The row that a PUT leaves; its id stays if the body names none.
fn written_over(held: Option<&Row>, body: &Row, put: Put) -> Row {
    let mut written = match put {
        Put::Merge => held.cloned().unwrap_or_default(),
        Put::Replace => held
            .into_iter()
            .flatten()
            .filter(|(name, _)| *name == "id")
            .map(own)
            .collect(),
    };
    written.extend(body.iter().map(own));
    written
}

fn own((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

fn code_of_write(rows: usize) -> u16 {
    if rows == 0 { 404 } else { 204 }
}

fn object(body: &[u8]) -> Option<Row> {
    serde_json::from_slice(body).ok()
}

fn answer(storage: &str, code: u16, details: Value, semantics: &Semantics) -> Reply {
    match semantics.http_status {
        HttpStatus::Always200 => Reply::envelope(200, code, storage, details),
        HttpStatus::SameAsCode if code == 204 => Reply::empty(204),
        HttpStatus::SameAsCode => Reply::envelope(code, code, storage, details),
    }
}
