//! A Grafana dashboard in the making: panels flow from left to right, row by row.

use std::collections::BTreeMap;

use nbi_upgrade::telemetry::names;
use serde_json::{Value, json};

use super::promql::of;

/// Grafana's grid.
const COLUMNS: u64 = 24;
/// The format of Grafana 11; newer ones migrate it.
const SCHEMA: u64 = 39;

/// A dashboard.
pub(super) struct Board {
    uid: &'static str,
    title: &'static str,
    description: &'static str,
    panels: Vec<Value>,
    x: u64,
    y: u64,
    line_height: u64,
}

impl Board {
    pub(super) fn new(uid: &'static str, title: &'static str, description: &'static str) -> Self {
        Self {
            uid,
            title,
            description,
            panels: Vec::new(),
            x: 0,
            y: 0,
            line_height: 0,
        }
    }

    /// A heading.
    pub(super) fn row(&mut self, title: &str) {
        self.line_end();
        let place = json!({ "x": 0, "y": self.y, "w": COLUMNS, "h": 1 });
        self.panels.push(json!({
            "type": "row", "title": title, "collapsed": false, "panels": [], "gridPos": place,
            "id": self.panels.len() + 1,
        }));
        self.y += 1;
    }

    /// A panel, this wide and high.
    pub(super) fn add(&mut self, width: u64, height: u64, panel: Panel) {
        if self.x + width > COLUMNS {
            self.line_end();
        }
        let mut value = panel.value();
        value["gridPos"] = json!({ "x": self.x, "y": self.y, "w": width, "h": height });
        value["id"] = json!(self.panels.len() + 1);
        self.panels.push(value);
        self.x += width;
        self.line_height = self.line_height.max(height);
    }

    fn line_end(&mut self) {
        self.y += self.line_height;
        (self.x, self.line_height) = (0, 0);
    }

    /// The file.
    pub(super) fn value(self) -> Value {
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["nbi-upgrade"],
            "editable": false,
            "graphTooltip": 1,
            "schemaVersion": SCHEMA,
            "refresh": "30s",
            "time": { "from": "now-3h", "to": "now" },
            "timezone": "browser",
            "links": [{
                "type": "dashboards", "tags": ["nbi-upgrade"], "title": "nbi-upgrade", "asDropdown": false,
                "includeVars": true, "keepTime": true, "targetBlank": false, "icon": "external link", "tooltip": "", "url": "",
            }],
            "templating": { "list": variables() },
            "annotations": { "list": annotations() },
            "panels": self.panels,
        })
    }
}

fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// Which data source, job, fleet (`amqp.prefix`) and worker is shown.
fn variables() -> Vec<Value> {
    let chosen = |name: &str, label: &str, query: String| {
        json!({
            "type": "query", "name": name, "label": label, "datasource": datasource(),
            "query": { "query": query, "refId": name }, "definition": query,
            "includeAll": true, "multi": true, "refresh": 2, "sort": 1, "current": { "text": ["All"], "value": ["$__all"] },
        })
    };
    let info = names::INSTANCE_INFO;
    let mut job = chosen("job", "Job", format!("label_values({info}, job)"));
    job["allValue"] = json!(".+");
    vec![
        json!({
            "type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "current": {},
        }),
        job,
        chosen(
            "prefix",
            "Prefix",
            format!("label_values({info}{{job=~\"$job\"}}, prefix)"),
        ),
        // No allValue: all of them are the workers with the chosen prefix, not all that there are.
        chosen(
            "instance",
            "Instance",
            format!("label_values({info}{{job=~\"$job\",prefix=~\"$prefix\"}}, instance)"),
        ),
    ]
}

/// Marks over all time series: another build runs, the circuit opens or closes.
fn annotations() -> Vec<Value> {
    let mark = |name: &str, color: &str, expression: String, title: &str, text: &str| {
        json!({
            "name": name, "datasource": datasource(), "enable": true, "hide": false, "iconColor": color,
            "expr": expression, "step": "30s", "titleFormat": title, "textFormat": text, "useValueForTime": false,
            "target": { "refId": name },
        })
    };
    let builds = format!("count by (version, revision) ({})", of(names::BUILD_INFO));
    let before = format!(
        "count by (version, revision) ({} offset 1m)",
        of(names::BUILD_INFO)
    );
    // Open at any time within a minute, so that a short opening is seen too.
    let open = |offset: &str| {
        let circuit = of(names::NBI_CIRCUIT_OPEN);
        format!("max(max_over_time({circuit}[1m]{offset}))")
    };
    let (now, earlier) = (open(""), open(" offset 1m"));
    vec![
        mark(
            "Deploys",
            "blue",
            format!("{builds} unless {before}"),
            "Deploy",
            "{{version}} {{revision}}",
        ),
        mark(
            "Circuit opens",
            "red",
            format!("{now} == 1 and {earlier} == 0"),
            "Circuit to the NBI opened",
            "",
        ),
        mark(
            "Circuit closes",
            "green",
            format!("{now} == 0 and {earlier} == 1"),
            "Circuit to the NBI closed",
            "",
        ),
    ]
}

/// How a panel shows its data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stat,
    Lines,
    Stacked,
    Bars,
    States,
}

/// A panel.
pub(super) struct Panel {
    kind: Kind,
    title: String,
    description: String,
    unit: &'static str,
    targets: Vec<(String, String)>,
    /// From which value on which colour.
    steps: Vec<(Option<f64>, &'static str)>,
    /// What values are called, and their colour.
    mappings: Vec<(u64, &'static str, &'static str)>,
    colours: Vec<(String, &'static str)>,
    names: Vec<(String, String)>,
    decimals: Option<u64>,
    max: Option<f64>,
    is_instant: bool,
    no_value: Option<&'static str>,
}

impl Panel {
    fn new(kind: Kind, title: &str, unit: &'static str, description: &str) -> Self {
        Self {
            kind,
            title: title.to_owned(),
            description: description.to_owned(),
            unit,
            targets: Vec::new(),
            steps: vec![(None, "green")],
            mappings: Vec::new(),
            colours: Vec::new(),
            names: Vec::new(),
            decimals: None,
            max: None,
            is_instant: kind == Kind::Bars,
            no_value: None,
        }
    }

    /// One number on a coloured ground.
    pub(super) fn stat(title: &str, unit: &'static str, description: &str) -> Self {
        Self::new(Kind::Stat, title, unit, description)
    }

    /// Lines over time.
    pub(super) fn lines(title: &str, unit: &'static str, description: &str) -> Self {
        Self::new(Kind::Lines, title, unit, description)
    }

    /// Areas over time, one on top of the other.
    pub(super) fn stacked(title: &str, unit: &'static str, description: &str) -> Self {
        Self::new(Kind::Stacked, title, unit, description)
    }

    /// One bar for each series.
    pub(super) fn bars(title: &str, unit: &'static str, description: &str) -> Self {
        Self::new(Kind::Bars, title, unit, description)
    }

    /// States over time, one line for each series.
    pub(super) fn states(title: &str, description: &str) -> Self {
        Self::new(Kind::States, title, "none", description)
    }

    /// One more query, and how its series are called.
    pub(super) fn query(mut self, query: String, legend: &str) -> Self {
        self.targets.push((query, legend.to_owned()));
        self
    }

    /// Yellow and red from these values on.
    pub(super) fn warns(mut self, yellow: f64, red: f64) -> Self {
        self.steps = vec![
            (None, "green"),
            (Some(yellow), "orange"),
            (Some(red), "red"),
        ];
        self
    }

    /// Red from this value on.
    pub(super) fn alarms(mut self, red: f64) -> Self {
        self.steps = vec![(None, "green"), (Some(red), "red")];
        self
    }

    /// Red at zero.
    pub(super) fn steps_from_zero(mut self) -> Self {
        self.steps = vec![(None, "red"), (Some(1.0), "green")];
        self
    }

    /// A share that should be the whole: red at nothing, orange below all.
    pub(super) fn should_be_all(mut self) -> Self {
        self.steps = vec![
            (None, "red"),
            (Some(0.001), "orange"),
            (Some(0.999), "green"),
        ];
        self
    }

    /// A number that is neither good nor bad.
    pub(super) fn plain(mut self) -> Self {
        self.steps = vec![(None, "blue")];
        self
    }

    /// What a value is called, and its colour.
    pub(super) fn value_is(mut self, value: u64, text: &'static str, colour: &'static str) -> Self {
        self.mappings.push((value, text, colour));
        self
    }

    /// The colour of a series.
    pub(super) fn colour(mut self, series: &str, colour: &'static str) -> Self {
        self.colours.push((series.to_owned(), colour));
        self
    }

    /// Another name for a series.
    pub(super) fn named(mut self, series: String, name: String) -> Self {
        self.names.push((series, name));
        self
    }

    /// Digits after the point.
    pub(super) fn decimals(mut self, decimals: u64) -> Self {
        self.decimals = Some(decimals);
        self
    }

    /// The axis ends here.
    pub(super) fn up_to(mut self, max: f64) -> Self {
        self.max = Some(max);
        self
    }

    /// What stands there without data.
    pub(super) fn without_data(mut self, text: &'static str) -> Self {
        self.no_value = Some(text);
        self
    }

    fn value(&self) -> Value {
        let targets: Vec<_> = self
            .targets
            .iter()
            .zip('A'..='Z')
            .map(|((query, legend), letter)| {
                let mut target = json!({
                    "refId": letter.to_string(), "datasource": datasource(), "expr": query, "legendFormat": legend,
                    "editorMode": "code", "range": !self.is_instant, "instant": self.is_instant,
                });
                if self.kind == Kind::Stat {
                    target["intervalFactor"] = json!(1);
                }
                target
            })
            .collect();
        let kind = match self.kind {
            Kind::Stat => "stat",
            Kind::Lines | Kind::Stacked => "timeseries",
            Kind::Bars => "bargauge",
            Kind::States => "state-timeline",
        };
        json!({
            "type": kind, "title": self.title, "description": self.description, "datasource": datasource(),
            "targets": targets, "options": self.options(),
            "fieldConfig": { "defaults": self.defaults(), "overrides": self.overrides() },
        })
    }

    fn options(&self) -> Value {
        let last = json!({ "calcs": ["lastNotNull"], "fields": "", "values": false });
        match self.kind {
            Kind::Stat => json!({
                "colorMode": "background", "graphMode": "area", "justifyMode": "auto", "orientation": "auto",
                "textMode": "value", "wideLayout": true, "reduceOptions": last,
            }),
            Kind::Lines | Kind::Stacked => json!({
                "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [] },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
            Kind::Bars => json!({
                "displayMode": "basic", "orientation": "horizontal", "reduceOptions": last, "showUnfilled": true,
                "minVizHeight": 16, "minVizWidth": 8, "namePlacement": "left", "sizing": "auto", "valueMode": "color",
            }),
            Kind::States => json!({
                "alignValue": "left", "mergeValues": true, "rowHeight": 0.9, "showValue": "auto",
                "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true },
                "tooltip": { "mode": "single", "sort": "none" },
            }),
        }
    }

    fn defaults(&self) -> Value {
        let steps: Vec<_> = self
            .steps
            .iter()
            .map(|(value, colour)| json!({ "color": colour, "value": value }))
            .collect();
        let has_limits = steps.len() > 1;
        let by_series = matches!(self.kind, Kind::Lines | Kind::Stacked);
        let mut defaults = json!({
            "unit": self.unit,
            "thresholds": { "mode": "absolute", "steps": steps },
            "color": { "mode": if by_series { "palette-classic" } else { "thresholds" } },
            "mappings": [],
        });
        if !self.mappings.is_empty() {
            let options: serde_json::Map<_, _> = self
                .mappings
                .iter()
                .zip(0..)
                .map(|((value, text, colour), index)| {
                    let result = json!({ "text": text, "color": colour, "index": index });
                    (value.to_string(), result)
                })
                .collect();
            defaults["mappings"] = json!([{ "type": "value", "options": options }]);
        }
        if by_series {
            let is_stacked = self.kind == Kind::Stacked;
            let stacking = if is_stacked { "normal" } else { "none" };
            defaults["custom"] = json!({
                "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "showPoints": "never",
                "fillOpacity": if is_stacked { 60 } else { 10 }, "spanNulls": false,
                "stacking": { "mode": stacking, "group": "A" },
                "thresholdsStyle": { "mode": if has_limits { "line" } else { "off" } },
            });
            defaults["min"] = json!(0);
        }
        if self.kind == Kind::Bars {
            defaults["min"] = json!(0);
        }
        if self.kind == Kind::States {
            defaults["custom"] = json!({ "fillOpacity": 80, "lineWidth": 0 });
        }
        if let Some(decimals) = self.decimals {
            defaults["decimals"] = json!(decimals);
        }
        if let Some(max) = self.max {
            defaults["max"] = json!(max);
        }
        if let Some(text) = self.no_value {
            defaults["noValue"] = json!(text);
        }
        defaults
    }

    /// One override for each series, with all that it changes: a later one might not find a series that was renamed.
    fn overrides(&self) -> Vec<Value> {
        let mut changes = BTreeMap::<&str, Vec<Value>>::new();
        for (series, name) in &self.names {
            let change = json!({ "id": "displayName", "value": name });
            changes.entry(series).or_default().push(change);
        }
        for (series, colour) in &self.colours {
            let fixed = json!({ "mode": "fixed", "fixedColor": colour });
            let change = json!({ "id": "color", "value": fixed });
            changes.entry(series).or_default().push(change);
        }
        changes
            .into_iter()
            .map(|(series, properties)| {
                json!({ "matcher": { "id": "byName", "options": series }, "properties": properties })
            })
            .collect()
    }
}
