//! Queries over the metrics, with the dashboards' variables in them.

use nbi_upgrade::telemetry::names;

/// Every series of a dashboard is one of the chosen workers'.
const CHOSEN: &str = r#"job=~"$job",instance=~"$instance""#;

/// TR-069 codes that speak of the file or its server, as `faults.configuration` has them by default.
pub(super) const CONFIGURATION_FAULTS: &str = "9012|9013|9016|9019";

/// The series of a metric.
pub(super) fn of(metric: &str) -> String {
    format!("{metric}{{{CHOSEN}}}")
}

/// The series with these labels, written as in a selector.
pub(super) fn with(metric: &str, labels: &str) -> String {
    format!("{metric}{{{CHOSEN},{labels}}}")
}

/// Per second, over the shortest time that Grafana finds sensible.
pub(super) fn rate(series: &str) -> String {
    format!("rate({series}[$__rate_interval])")
}

/// Per minute.
pub(super) fn per_minute(series: &str) -> String {
    format!("60 * {}", sum("", &rate(series)))
}

/// Within a time such as `15m`, or `$__range`.
pub(super) fn within(time: &str, series: &str) -> String {
    format!("increase({series}[{time}])")
}

/// The sum, by these labels or of all.
pub(super) fn sum(by: &str, query: &str) -> String {
    aggregated("sum", by, query)
}

/// The maximum, by these labels or of all.
pub(super) fn max(by: &str, query: &str) -> String {
    aggregated("max", by, query)
}

/// The average of all.
pub(super) fn average(query: &str) -> String {
    aggregated("avg", "", query)
}

/// The minimum of all.
pub(super) fn min(query: &str) -> String {
    aggregated("min", "", query)
}

/// Messages of the queues with these labels, by these labels or of all: every worker of a fleet asks, and the largest answer is the latest
/// that anybody knows; fleets add up.
pub(super) fn in_queues(by: &str, labels: &str) -> String {
    let fleet = of(names::INSTANCE_INFO);
    let known = with(names::QUEUE_MESSAGES, labels);
    let of_fleets = max(
        "prefix, queue",
        &format!("{known} * on (job, instance) group_left (prefix) {fleet}"),
    );
    sum(by, &of_fleets)
}

fn aggregated(how: &str, by: &str, query: &str) -> String {
    if by.is_empty() {
        format!("{how}({query})")
    } else {
        format!("{how} by ({by}) ({query})")
    }
}

/// A quantile of a histogram, by these labels or of all.
pub(super) fn quantile(quantile: f64, histogram: &str, by: &str) -> String {
    let labels = if by.is_empty() {
        "le".to_owned()
    } else {
        format!("le, {by}")
    };
    let buckets = sum(&labels, &rate(&of(&format!("{histogram}_bucket"))));
    format!("histogram_quantile({quantile}, {buckets})")
}
