//! The result rows, as the vendor's example shows them.
//!
//! The row of a failure is documented; that of a success (`result.code` 200, message "OK") and that of an upgrade under way
//! are inferred. `status` is true in all of them, as in the example of a failure.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::semantics::Results as Rewriting;
use super::table::{Row, Table, text};

/// What a device's attempt has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// Which attempt this is, of all.
    pub(crate) attempt: u64,
    /// The device.
    pub(crate) cpe_id: String,
    /// The rule's id.
    pub(crate) rule_id: String,
    /// The rule's description.
    pub(crate) description: String,
    /// `result.code`.
    pub(crate) code: i64,
    /// `result.message`.
    pub(crate) message: String,
    /// Unix seconds by the NBI's clock.
    pub(crate) ts: i64,
    /// Whether the attempt is over.
    pub(crate) is_final: bool,
}

/// The results.
#[derive(Debug)]
pub(crate) struct Results {
    /// The rows.
    pub(crate) table: Table,
    under_way: HashMap<u64, u64>,
}

impl Results {
    /// None.
    pub(crate) fn new() -> Self {
        Self {
            table: Table::new("campaignid"),
            under_way: HashMap::new(),
        }
    }

    /// Writes a report down.
    pub(crate) fn record(
        &mut self,
        report: &Report,
        rewriting: Rewriting,
        rng: &mut fastrand::Rng,
    ) {
        let held = self
            .under_way
            .remove(&report.attempt)
            .or_else(|| self.row_to_rewrite(report, rewriting));
        let key = match held {
            Some(key) => {
                let id = self
                    .table
                    .get(key)
                    .and_then(|row| text(row, "id"))
                    .map(str::to_owned);
                self.table
                    .put(key, row(report, id.unwrap_or_else(|| row_id(rng))));
                key
            }
            None => self.table.insert(row(report, row_id(rng))),
        };
        if !report.is_final {
            self.under_way.insert(report.attempt, key);
        }
    }

    fn row_to_rewrite(&self, report: &Report, rewriting: Rewriting) -> Option<u64> {
        match rewriting {
            Rewriting::RowPerAttempt => None,
            Rewriting::RowRewritten => {
                self.table
                    .of_rule(&report.rule_id)
                    .iter()
                    .copied()
                    .find(|key| {
                        self.table.get(*key).and_then(|row| text(row, "cpeid"))
                            == Some(report.cpe_id.as_str())
                    })
            }
        }
    }
}

fn row_id(rng: &mut fastrand::Rng) -> String {
    uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes())
        .into_uuid()
        .to_string()
}

fn row(report: &Report, id: String) -> Row {
    let row = json!({
        "id": id,
        "status": true,
        "ts": report.ts,
        "cpeid": report.cpe_id,
        "rule_description": report.description,
        "campaignid": report.rule_id,
        "result": {"code": report.code, "message": report.message},
    });
    match row {
        Value::Object(row) => row,
        _ => Row::new(),
    }
}
