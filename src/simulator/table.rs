//! One storage as a table of JSON rows, with an index on the column that holds the rule's id, and the vendor's row selection.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::semantics::{Filter, RowOrder};

/// A row.
pub(crate) type Row = Map<String, Value>;

/// The table; rows have keys of our own, as the vendor's ids may repeat.
#[derive(Debug)]
pub(crate) struct Table {
    rule_column: &'static str,
    rows: BTreeMap<u64, Row>,
    by_rule: HashMap<String, Vec<u64>>,
    next_key: u64,
}

impl Table {
    /// An empty table whose `rule_column` holds the rule's id.
    pub(crate) fn new(rule_column: &'static str) -> Self {
        Self {
            rule_column,
            rows: BTreeMap::new(),
            by_rule: HashMap::new(),
            next_key: 0,
        }
    }

    /// Adds a row at the end.
    pub(crate) fn insert(&mut self, row: Row) -> u64 {
        let key = self.next_key;
        self.next_key += 1;
        self.put(key, row);
        key
    }

    /// Writes the row of this key.
    pub(crate) fn put(&mut self, key: u64, row: Row) {
        self.remove(key);
        if let Some(rule_id) = text(&row, self.rule_column) {
            self.by_rule
                .entry(rule_id.to_owned())
                .or_default()
                .push(key);
        }
        self.rows.insert(key, row);
    }

    /// Drops a row.
    pub(crate) fn remove(&mut self, key: u64) -> Option<Row> {
        let row = self.rows.remove(&key)?;
        if let Some(rule_id) = text(&row, self.rule_column)
            && let Some(keys) = self.by_rule.get_mut(rule_id)
        {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_rule.remove(rule_id);
            }
        }
        Some(row)
    }

    /// The row of this key.
    pub(crate) fn get(&self, key: u64) -> Option<&Row> {
        self.rows.get(&key)
    }

    /// The keys of this rule's rows.
    pub(crate) fn of_rule(&self, rule_id: &str) -> &[u64] {
        self.by_rule.get(rule_id).map_or(&[], Vec::as_slice)
    }

    /// All rows, oldest first.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The keys that a query selects, oldest first. `limit` and `offset` are no conditions.
    pub(crate) fn select(&self, query: &[(String, String)], filter: Filter) -> Vec<u64> {
        let conditions: Vec<_> = match filter {
            Filter::Ignored => Vec::new(),
            Filter::Either | Filter::Id | Filter::CampaignId => conditions(query).collect(),
        };
        if conditions
            .iter()
            .any(|(name, _)| is_id_name(name) && !is_honoured(filter, name))
        {
            return Vec::new();
        }
        let by_rule = conditions
            .iter()
            .find(|(name, _)| is_honoured(filter, name));
        let mut keys = match by_rule {
            Some((_, rule_id)) => self.of_rule(rule_id).to_vec(),
            None => self.rows.keys().copied().collect(),
        };
        keys.retain(|key| {
            self.rows
                .get(key)
                .is_some_and(|row| self.fits(row, &conditions, filter))
        });
        keys.sort_unstable();
        keys
    }

    /// The keys that a PUT or DELETE acts on: those selected; where nothing selects, those that the body names; else **all**.
    pub(crate) fn select_for_write(
        &self,
        query: &[(String, String)],
        filter: Filter,
        body: Option<&Row>,
    ) -> Vec<u64> {
        if filter != Filter::Ignored && conditions(query).next().is_some() {
            return self.select(query, filter);
        }
        match body.and_then(|body| text(body, "id")) {
            Some(id) => self
                .rows
                .iter()
                .filter(|(_, row)| text(row, "id") == Some(id))
                .map(|(key, _)| *key)
                .collect(),
            None => self.rows.keys().copied().collect(),
        }
    }

    /// The rows of these keys as a GET returns them: ordered, then `offset` and `limit`.
    pub(crate) fn page(
        &self,
        mut keys: Vec<u64>,
        query: &[(String, String)],
        order: RowOrder,
        rng: &mut fastrand::Rng,
    ) -> Vec<Value> {
        match order {
            RowOrder::OldestFirst => {}
            RowOrder::NewestFirst => keys.reverse(),
            RowOrder::Shuffled => rng.shuffle(&mut keys),
        }
        let number = |wanted: &str| {
            query
                .iter()
                .find(|(name, _)| name == wanted)
                .and_then(|(_, value)| value.parse().ok())
        };
        keys.iter()
            .skip(number("offset").unwrap_or(0))
            .take(number("limit").unwrap_or(usize::MAX))
            .filter_map(|key| self.rows.get(key))
            .map(|row| Value::Object(row.clone()))
            .collect()
    }

    fn fits(&self, row: &Row, conditions: &[(&str, &str)], filter: Filter) -> bool {
        conditions.iter().all(|(name, value)| {
            let column = if is_honoured(filter, name) {
                self.rule_column
            } else {
                name
            };
            match row.get(column) {
                None => false,
                Some(Value::String(held)) => held == value,
                Some(held) => {
                    let shown = held.to_string();
                    shown == *value
                }
            }
        })
    }
}

/// The text in a column, if it is text.
pub(crate) fn text<'a>(row: &'a Row, column: &str) -> Option<&'a str> {
    row.get(column).and_then(Value::as_str)
}

fn conditions(query: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    query
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| !matches!(*name, "limit" | "offset"))
}

fn is_id_name(name: &str) -> bool {
    matches!(name, "id" | "campaignid")
}

fn is_honoured(filter: Filter, name: &str) -> bool {
    match filter {
        Filter::Either => is_id_name(name),
        Filter::Id => name == "id",
        Filter::CampaignId => name == "campaignid",
        Filter::Ignored => false,
    }
}
