//! What can be looked at in a [`Simulator`]: devices, storages, numbers. Nothing here changes it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::device::{DeviceState, Flash, LiveDevice};
use super::model::Simulator;
use super::reply::Operation;

/// A device as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceView {
    /// Its id.
    pub cpe_id: String,
    /// Its character.
    pub character: &'static str,
    /// Where it stands.
    pub state: DeviceState,
    /// The software version that it runs.
    pub version: String,
    /// What it has done, oldest first.
    pub flashes: Vec<Flash>,
}

/// The whole in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Devices.
    pub devices: usize,
    /// Executions of rules, failed ones too.
    pub attempts: usize,
    /// Executions that wrote firmware.
    pub flashes: usize,
    /// Devices that firmware was written to.
    pub devices_flashed: usize,
    /// Devices that firmware was written to more than once.
    pub devices_flashed_twice: usize,
    /// Rules that are enabled.
    pub armed_rules: usize,
    /// Rules.
    pub rules: usize,
    /// Result rows.
    pub results: usize,
    /// Devices by the name of their state.
    pub states: BTreeMap<&'static str, usize>,
    /// Calls by the name of their operation.
    pub calls: BTreeMap<&'static str, u64>,
    /// Troubles by name.
    pub troubles: BTreeMap<&'static str, u64>,
}

impl Simulator {
    /// What this device has done, oldest first.
    #[must_use]
    pub fn flashes(&self, cpe_id: &str) -> &[Flash] {
        self.world
            .find(cpe_id)
            .map_or(&[], |index| &self.world.devices[index].flashes)
    }

    /// The ids of enabled rules, with or without executions left.
    #[must_use]
    pub fn armed_rules(&self) -> Vec<String> {
        self.world.rules.armed().map(str::to_owned).collect()
    }

    /// All devices as they stand at `now`, in the order of their coming.
    #[must_use]
    pub fn devices(&self, now: Timestamp) -> Vec<DeviceView> {
        self.world
            .devices
            .iter()
            .map(|live| view(live, now))
            .collect()
    }

    /// One device as it stands at `now`.
    #[must_use]
    pub fn device(&self, cpe_id: &str, now: Timestamp) -> Option<DeviceView> {
        self.world
            .find(cpe_id)
            .map(|index| view(&self.world.devices[index], now))
    }

    /// All rules, as a GET would show them.
    #[must_use]
    pub fn rules(&self) -> Vec<Value> {
        self.world
            .rules
            .table
            .rows()
            .cloned()
            .map(Value::Object)
            .collect()
    }

    /// All results, as a GET would show them.
    #[must_use]
    pub fn results(&self) -> Vec<Value> {
        self.world
            .results
            .table
            .rows()
            .cloned()
            .map(Value::Object)
            .collect()
    }

    /// How many calls there were of this operation, those that met trouble too, also where the connection was refused.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.calls.get(&operation).copied().unwrap_or(0)
    }

    /// The whole in numbers; looks at every device and rule.
    #[must_use]
    pub fn summary(&self, now: Timestamp) -> Summary {
        let mut summary = Summary {
            devices: self.world.devices.len(),
            armed_rules: self.world.rules.armed().count(),
            rules: self.world.rules.table.len(),
            results: self.world.results.table.len(),
            calls: self
                .calls
                .iter()
                .map(|(operation, count)| (operation.name(), *count))
                .collect(),
            troubles: self
                .troubles_met
                .iter()
                .map(|(trouble, count)| (trouble.name(), *count))
                .collect(),
            ..Summary::default()
        };
        for live in &self.world.devices {
            let written = live.times_written();
            summary.attempts += live.flashes.len();
            summary.flashes += written;
            summary.devices_flashed += usize::from(written > 0);
            summary.devices_flashed_twice += usize::from(written > 1);
            *summary.states.entry(live.state(now).name()).or_default() += 1;
        }
        summary
    }
}

fn view(live: &LiveDevice, now: Timestamp) -> DeviceView {
    DeviceView {
        cpe_id: live.device.cpe_id.clone(),
        character: live.device.character,
        state: live.state(now),
        version: live.device.version.clone(),
        flashes: live.flashes.clone(),
    }
}
