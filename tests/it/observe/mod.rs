//! What the NOC watches: dashboards and alerts, made from the metrics' own names and tried on a real Prometheus.

mod board; // a Grafana dashboard in the making
mod promql; // queries, with the dashboards' variables in them

mod campaigns; // the dashboards, one file each
mod fleet;
mod nbi;
mod worker;

mod live; // a real Prometheus over real workers in trouble

mod drift; // the files in deploy/ are what this makes, and name nothing that is not there
