//! [`NbiSettings`]: how the NBI is asked, and the reason for each default.

use std::time::Duration;

use super::budget::Budgets;
use super::circuit::CircuitSettings;

/// The method that reads parameters (documented that it exists; its path is inferred from `SendCNR`).
pub(crate) const VERSION_METHOD: &str = "GetParameterValues";

/// How the NBI is asked. Where it is, and with which credentials, is the transport's business.
#[derive(Debug, Clone, PartialEq)]
pub struct NbiSettings {
    /// `nbi.result_query`: the query parameter that selects result rows, tried first.
    pub result_query: String,
    /// `nbi.rule_query`: the query parameter that selects rules, tried first.
    pub rule_query: String,
    /// `nbi.version_method`: the method that reads parameters of a device.
    pub version_method: String,
    /// `nbi.version_parameters`: the parameters that hold the software version, the preferred first.
    pub version_parameters: Vec<String>,
    /// `nbi.max_concurrency`: requests under way at once, at least 1.
    pub max_concurrency: usize,
    /// `nbi.requests_per_second`: unlimited if there is none.
    pub requests_per_second: Option<f64>,
    /// `nbi.writes_…`, `nbi.connection_requests_…`, `nbi.reads_…`: what each class of calls may take of the whole.
    pub budgets: Budgets,
    /// `nbi.adaptive`: whether fewer requests are under way while the NBI is slow or fails.
    pub is_adaptive: bool,
    /// `nbi.quick_retries`: tries after the first, in place.
    pub quick_retries: u32,
    /// `nbi.quick_retry_initial`: the first pause between them; grows by half each time, with jitter.
    pub quick_retry_initial: Duration,
    /// `nbi.quick_retry_max_elapsed`: no quick retry begins later than this after the first try.
    pub quick_retry_max_elapsed: Duration,
    /// `nbi.circuit`.
    pub circuit: CircuitSettings,
}

impl Default for NbiSettings {
    /// Names as on the vendor's page; both data models' version (documented in TR-098 and TR-181). Eight requests at once are
    /// an interactive user's browser or two; nothing is known of the NBI's own limits. Two quick retries within two seconds
    /// bridge a dropped connection or a restarted proxy, and hold a delivery no longer than that.
    fn default() -> Self {
        Self {
            result_query: "id".to_owned(),
            rule_query: "campaignid".to_owned(),
            version_method: VERSION_METHOD.to_owned(),
            version_parameters: vec![
                "Device.DeviceInfo.SoftwareVersion".to_owned(),
                "InternetGatewayDevice.DeviceInfo.SoftwareVersion".to_owned(),
            ],
            max_concurrency: 8,
            requests_per_second: None,
            budgets: Budgets::default(),
            is_adaptive: true,
            quick_retries: 2,
            quick_retry_initial: Duration::from_millis(200),
            quick_retry_max_elapsed: Duration::from_secs(2),
            circuit: CircuitSettings::default(),
        }
    }
}
