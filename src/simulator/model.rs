//! [`Simulator`]: the model's front, where calls come in and time passes. What can be looked at is in `view.rs`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;

use super::device::Device;
use super::fleet::Fleet;
use super::life::World;
use super::openapi;
use super::reply::{Call, Operation, Reply};
use super::results::Report;
use super::semantics::Semantics;
use super::storage;
use super::table::Row;
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
    pub(super) world: World,
    troubles: TroublePlan,
    auto_create: Option<Fleet>,
    huge_bytes: usize,
    pub(super) calls: BTreeMap<Operation, u64>,
    pub(super) troubles_met: BTreeMap<Trouble, u64>,
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
            (Target::SendCnr, Verb::Post) => {
                self.world
                    .send_cnr(call.body, self.auto_create.as_ref(), now)
            }
            (Target::GetParameterValues, Verb::Post) => {
                self.world
                    .get_parameter_values(call.body, self.auto_create.as_ref(), now)
            }
            (Target::Description, Verb::Get) => openapi::answer(semantics.open_api),
            (Target::SendCnr | Target::GetParameterValues | Target::Description, _) => {
                Reply::html(405, "Method Not Allowed")
            }
            (Target::Nowhere, _) => Reply::no_such_page(),
        }
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

enum Target {
    Rules,
    Results,
    SendCnr,
    GetParameterValues,
    Description,
    Nowhere,
}

/// What a path names; the last segment of a storage's path is `.*` literally, or with its star encoded.
fn target(path: &str) -> Target {
    match path {
        "/v1/method/SendCNR" => return Target::SendCnr,
        "/v1/method/GetParameterValues" => return Target::GetParameterValues,
        "/v1/doc/swagger.json" => return Target::Description,
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
