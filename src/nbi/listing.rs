//! The rows of a list of rules, whoever's they are: nothing is dropped, and what cannot be read says so.

use super::json::Json;
use super::wire::{RuleWire, text};
use crate::job::{ListedRule, RuleRow};

/// The parameters that ask for a page; both are documented.
pub(super) fn page(offset: usize, limit: usize) -> Vec<(String, String)> {
    let page = [("limit", limit), ("offset", offset)];
    let page = page.map(|(name, number)| (name.to_owned(), number.to_string()));
    page.to_vec()
}

/// All rows. One that does not say whether it is enabled is taken for armed: whoever looks for armed rules must not miss it.
pub(super) fn listed(rows: &[Json<'_>]) -> Vec<ListedRule> {
    let listed = rows.iter().map(|value| {
        let row = RuleWire::read(value);
        ListedRule {
            id: row.id.unwrap_or_default().into_owned(),
            // Shown, and not of one device alone: that of a device whose id is empty, which there is not.
            cpe_id: match value.field("condition") {
                Json::Null => None,
                condition @ Json::Object(fields) if fields.len() == 1 => {
                    let cpe_id = text(condition.field("cpeid"));
                    Some(cpe_id.unwrap_or_default().into_owned())
                }
                _ => Some(String::new()),
            },
            row: RuleRow {
                enabled: row.enabled.unwrap_or(true),
                automatic: row.automatic.unwrap_or(false),
                file: row.file.map(Into::into),
                description: row.description.map(Into::into),
            },
        }
    });
    listed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_on_more_than_one_device_names_none_and_a_silent_row_counts_as_armed() {
        let body = r#"[
            {"id": "UPGRADE_A", "enabled": false, "condition": {"cpeid": "A"}, "file": "f"},
            {"id": "B", "enabled": "true", "condition": {"cpeid": "B", "model": "x"}},
            {"condition": {"model": "x"}},
            "nothing"
        ]"#;
        let rows: Vec<Json<'_>> = serde_json::from_str(body).unwrap();
        let found: Vec<_> = listed(&rows)
            .into_iter()
            .map(|rule| (rule.id, rule.cpe_id, rule.row.enabled))
            .collect();
        assert_eq!(
            found,
            [
                ("UPGRADE_A".to_owned(), Some("A".to_owned()), false),
                ("B".to_owned(), Some(String::new()), true),
                (String::new(), Some(String::new()), true),
                (String::new(), None, true),
            ]
        );
    }
}
