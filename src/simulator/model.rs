//! [`Simulator`]: the model's front, what can be called on it and what can be looked at.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::device::{Device, DeviceState, Flash, LiveDevice};
use super::fleet::Fleet;
use super::life::World;
use super::reply::{Call, Operation, Reply};
use super::results::Report;
use super::semantics::{HttpStatus, Semantics};
use super::storage;
use super::table::{Row, text};
use super::trouble::{Trouble, TroublePlan};
use crate::nbi::wire::Verb;

/// What a simulator is made of.
#[derive(Debug, Clone)]
pub struct SimulatorSettings {
    /// The vendor's open questions.
    pub semantics: Semantics,
    /// What goes wrong on the way.
    pub troubles: TroublePlan,
    /// The seed of row ids and of shuffled orders.
    pub seed: u64,
    /// Whether a method that names an unknown device brings it into being, as a member of this fleet.
    pub auto_create: Option<Fleet>,
    /// Size of the body of [`Trouble::Huge`].
    pub huge_bytes: usize,
}

impl Default for SimulatorSettings {
    /// Nothing goes wrong, unknown devices stay unknown; huge is 4 MiB, well above what a caller should accept.
    fn default() -> Self {
        Self {
            semantics: Semantics::default(),
            troubles: TroublePlan::none(),
            seed: 0,
            auto_create: None,
            huge_bytes: 4 << 20,
        }
    }
}

/// The management system and its devices.
///
/// Time is what callers say it is; a time before the latest one seen changes nothing but the `Date` of the answer.
#[derive(Debug)]
pub struct Simulator {
    world: World,
    troubles: TroublePlan,
    auto_create: Option<Fleet>,
    huge_bytes: usize,
    calls: BTreeMap<Operation, u64>,
    troubles_met: BTreeMap<Trouble, u64>,
}

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
    /// A system without devices, rules and results.
    #[must_use]
    pub fn new(settings: SimulatorSettings) -> Self {
        Self {
            world: World::new(settings.semantics, settings.seed),
            troubles: settings.troubles,
            auto_create: settings.auto_create,
            huge_bytes: settings.huge_bytes,
            calls: BTreeMap::new(),
            troubles_met: BTreeMap::new(),
        }
    }

    /// Adds a device; one whose id is taken is passed over.
    pub fn add_device(&mut self, device: Device, now: Timestamp) {
        self.world.add(device, now);
    }

    /// Takes a device offline until then; `now` brings it back. Unknown devices are passed over.
    pub fn set_offline_until(&mut self, cpe_id: &str, until: Timestamp) {
        if let Some(index) = self.world.find(cpe_id) {
            self.world.set_offline_until(index, until);
        }
    }

    /// Adds a result row as an earlier upgrade would have left it.
    pub fn add_result(
        &mut self,
        cpe_id: &str,
        rule_id: &str,
        code: i64,
        message: &str,
        time: Timestamp,
    ) {
        let report = Report {
            attempt: u64::MAX,
            cpe_id: cpe_id.to_owned(),
            rule_id: rule_id.to_owned(),
            description: String::new(),
            code,
            message: message.to_owned(),
            ts: time.as_second(),
            is_final: true,
        };
        self.world
            .results
            .record(&report, self.world.semantics.results, &mut self.world.rng);
    }

    /// Another plan of troubles from now on.
    pub fn set_troubles(&mut self, plan: TroublePlan) {
        self.troubles = plan;
    }

    /// Lets everything happen that is due by `now`.
    pub fn advance(&mut self, now: Timestamp) {
        self.world.advance(now);
    }

    /// When something happens next.
    #[must_use]
    pub fn next_event_at(&self) -> Option<Timestamp> {
        self.world.next_event_at()
    }

    /// Answers a call.
    pub fn handle(&mut self, call: Call<'_>, now: Timestamp) -> Reply {
        self.advance(now);
        let operation = operation_of(call);
        *self.calls.entry(operation).or_default() += 1;
        let trouble = self.troubles.draw(operation, now);
        if let Some(trouble) = trouble {
            *self.troubles_met.entry(trouble).or_default() += 1;
        }
        let reply = match trouble {
            Some(trouble) if !trouble.leaves_the_effect() => self.turn_away(trouble),
            Some(trouble) => {
                let reply = self.route(call, now);
                self.spoil(reply, trouble)
            }
            None => self.route(call, now),
        };
        Reply {
            trouble,
            ..reply.dated(self.world.nbi_time(now))
        }
    }

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

    fn route(&mut self, call: Call<'_>, now: Timestamp) -> Reply {
        let World {
            rules,
            results,
            semantics,
            rng,
            ..
        } = &mut self.world;
        match (target(call.path), call.verb) {
            (Target::Rules, _) => storage::handle_rules(rules, call, semantics, rng),
            (Target::Results, _) => storage::handle_results(results, call, semantics, rng),
            (Target::SendCnr, Verb::Post) => self.send_cnr(call.body, now),
            (Target::GetParameterValues, Verb::Post) => self.get_parameter_values(call.body, now),
            (Target::SendCnr | Target::GetParameterValues, _) => {
                Reply::html(405, "Method Not Allowed")
            }
            (Target::Nowhere, _) => Reply::no_such_page(),
        }
    }

    /// `SendCNR`: the request and the answer of success are documented, the codes of failure inferred.
    fn send_cnr(&mut self, body: &[u8], now: Timestamp) -> Reply {
        let index = match self.device_asked_for(body, now) {
            Ok((index, _)) => index,
            Err(reply) => return reply,
        };
        if !self.world.devices[index].is_reachable(now) {
            return self.method(
                503,
                "Connection request failed: device is not reachable",
                None,
            );
        }
        self.world.request_session(index, now);
        self.method(200, "OK", None)
    }

    /// `GetParameterValues`: that it exists and takes paths is documented; path, body and answer are inferred.
    ///
    /// Body: `{"search_options": {"cpe_id": …}, "parameters": [path, …]}`, where a path that ends in a dot is partial.
    /// Answer: `{"result": {"code": 200, "message": "OK", "values": {path: value, …}}}`.
    fn get_parameter_values(&mut self, body: &[u8], now: Timestamp) -> Reply {
        const KNOWN: [&str; 2] = [
            "Device.DeviceInfo.SoftwareVersion",
            "InternetGatewayDevice.DeviceInfo.SoftwareVersion",
        ];
        let (index, body) = match self.device_asked_for(body, now) {
            Ok(found) => found,
            Err(reply) => return reply,
        };
        let live = &self.world.devices[index];
        if !live.is_reachable(now) {
            return self.method(
                503,
                "Connection request failed: device is not reachable",
                None,
            );
        }
        let asked = body
            .get("parameters")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        let values: Row = asked
            .flat_map(|path| {
                KNOWN.iter().filter(move |name| {
                    **name == path || (path.ends_with('.') && name.starts_with(path))
                })
            })
            .map(|name| ((*name).to_owned(), json!(live.device.version)))
            .collect();
        if values.is_empty() {
            return self.method(
                400,
                "FaultCode 9005. FaultString: Invalid parameter name",
                None,
            );
        }
        self.method(200, "OK", Some(values))
    }

    /// The device that a method's body names, made on the spot if that is wished, and the body.
    fn device_asked_for(&mut self, body: &[u8], now: Timestamp) -> Result<(usize, Row), Reply> {
        let body: Row = serde_json::from_slice(body).unwrap_or_default();
        let asked = body
            .get("search_options")
            .and_then(Value::as_object)
            .and_then(|options| text(options, "cpe_id"));
        let Some(cpe_id) = asked else {
            return Err(self.method(400, "search_options.cpe_id is missing", None));
        };
        if self.world.find(cpe_id).is_none()
            && let Some(fleet) = &self.auto_create
        {
            self.world.add(fleet.device(cpe_id, now), now);
        }
        match self.world.find(cpe_id) {
            Some(index) => Ok((index, body)),
            None => Err(self.method(404, "Device not found", None)),
        }
    }

    /// The envelope of the vendor's methods (documented for `SendCNR`).
    fn method(&self, code: u16, message: &str, values: Option<Row>) -> Reply {
        let status = match self.world.semantics.http_status {
            HttpStatus::Always200 => 200,
            HttpStatus::SameAsCode => code,
        };
        let mut result = json!({"code": code, "message": message});
        if let Some(values) = values {
            result["values"] = Value::Object(values);
        }
        Reply::json(status, &json!({"result": result}))
    }

    /// The answer to a call that is not carried out.
    fn turn_away(&self, trouble: Trouble) -> Reply {
        let reply = match trouble {
            Trouble::TooManyRequests => Reply::html(429, "Too Many Requests"),
            Trouble::HtmlPage => Reply::html(200, "Please log in"),
            Trouble::Unauthorized => Reply::unauthorized(),
            _ => Reply::html(503, "Service Unavailable"),
        };
        Reply {
            retry_after: self.troubles.retry_after(trouble),
            ..reply
        }
    }

    /// The answer to a call that is carried out and not told of properly.
    fn spoil(&self, reply: Reply, trouble: Trouble) -> Reply {
        match trouble {
            Trouble::Garbage => Reply::new(
                200,
                "application/json",
                vec![0xff, 0x00, 0xfe, b'{', b'"', 0xc3, 0x28],
            ),
            Trouble::Huge => Reply::new(200, "application/json", vec![b' '; self.huge_bytes]),
            _ => reply,
        }
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

enum Target {
    Rules,
    Results,
    SendCnr,
    GetParameterValues,
    Nowhere,
}

/// What a path names; the last segment of a storage's path is `.*` literally, or with its star encoded.
fn target(path: &str) -> Target {
    match path {
        "/v1/method/SendCNR" => return Target::SendCnr,
        "/v1/method/GetParameterValues" => return Target::GetParameterValues,
        _ => {}
    }
    let storage = path
        .strip_prefix("/v1/dyn/")
        .and_then(|rest| rest.split_once('/'))
        .filter(|(_, rest)| matches!(*rest, ".*" | ".%2A" | ".%2a"));
    match storage {
        Some((storage::RULES, _)) => Target::Rules,
        Some((storage::RESULTS, _)) => Target::Results,
        _ => Target::Nowhere,
    }
}

fn operation_of(call: Call<'_>) -> Operation {
    let disarms = || {
        let body: Row = serde_json::from_slice(call.body).unwrap_or_default();
        body.get("enabled") == Some(&json!(false))
    };
    match (target(call.path), call.verb) {
        (Target::Rules, Verb::Get) => Operation::ReadRule,
        (Target::Rules, Verb::Post) => Operation::CreateRule,
        (Target::Rules, Verb::Put) if disarms() => Operation::DisarmRule,
        (Target::Rules, Verb::Put) => Operation::UpdateRule,
        (Target::Rules, Verb::Delete) => Operation::DeleteRule,
        (Target::Results, Verb::Get) => Operation::ReadResults,
        (Target::SendCnr, Verb::Post) => Operation::ConnectionRequest,
        (Target::GetParameterValues, Verb::Post) => Operation::ReadVersion,
        _ => Operation::Other,
    }
}
