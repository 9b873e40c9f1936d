//! `simulator`: the simulated NBI with its devices behind HTTP, to try the worker against.

use std::net::SocketAddr;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::output::{self, Format, Status};
use crate::app;
use crate::simulator::{
    Credentials, Fleet, HttpSettings, SharedSimulator, Simulator as Model, SimulatorSettings,
    TroublePlan, serve,
};

/// Runs the simulated NBI.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nbi-upgrade simulator --devices 1000 --time-scale 0.01 --mixed
  nbi-upgrade simulator --trouble 0.05 --filter campaign-id --reading-rules forbidden403

What can be looked at, without a password:
  /sim/devices   every device       /sim/rules     the rules
  /sim/results   the results        /sim/summary   the whole in numbers")]
pub(super) struct Simulator {
    /// Where it listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// User of Basic authentication.
    #[arg(long, value_name = "NAME", default_value = "nbi")]
    username: String,
    /// Their password; it guards nothing but simulated devices.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "nbi",
        env = "NBI_UPGRADE_SIMULATOR_PASSWORD"
    )]
    password: String,
    /// Devices that are there at the start, CPE000001 and on. Unknown ones come into being when they are asked for.
    #[arg(long, value_name = "N", default_value_t = 100)]
    devices: usize,
    /// All times of devices are multiplied by this: 0.01 makes an hour last half a minute.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    time_scale: f64,
    /// Devices of every kind (slow, offline, failing, silent) instead of quick ones alone.
    #[arg(long)]
    mixed: bool,
    /// Share of calls that meet trouble, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    trouble: f64,
    /// Seed of devices and troubles.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    semantics: Switches,
}

/// The vendor's open questions; each takes the likeliest answer by default.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Semantics that the vendor leaves open")]
struct Switches {
    /// POST on a taken rule id: overwrite, conflict or duplicate.
    #[arg(long, value_name = "NAME", default_value = "overwrite")]
    post_on_existing: String,
    /// PUT and the fields that it does not name: merge or replace.
    #[arg(long, value_name = "NAME", default_value = "merge")]
    put: String,
    /// The query parameter that selects rows: either, id, campaign-id or ignored.
    #[arg(long, value_name = "NAME", default_value = "either")]
    filter: String,
    /// The HTTP status: always200 or same-as-code.
    #[arg(long, value_name = "NAME", default_value = "always200")]
    http_status: String,
    /// Reading rules: allowed, forbidden403, method-not-allowed405, not-implemented501 or never-found404.
    #[arg(long, value_name = "NAME", default_value = "allowed")]
    reading_rules: String,
    /// A rule that a device has taken: stays or turns-off.
    #[arg(long, value_name = "NAME", default_value = "stays")]
    taken_rule: String,
    /// A failed attempt: uses-up-execution or keeps-execution.
    #[arg(long, value_name = "NAME", default_value = "uses-up-execution")]
    failed_attempt: String,
    /// The description of itself at /v1/doc/swagger.json: swagger2, openapi3, incomplete or absent.
    #[arg(long, value_name = "NAME", default_value = "swagger2")]
    open_api: String,
    /// How far its clock is ahead, e.g. 10m; may be negative.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "0s",
        allow_hyphen_values = true
    )]
    clock_offset: jiff::SignedDuration,
    /// Results: row-per-attempt or row-rewritten.
    #[arg(long, value_name = "NAME", default_value = "row-per-attempt")]
    results: String,
}

impl Switches {
    fn semantics(&self) -> anyhow::Result<crate::simulator::Semantics> {
        use crate::simulator::{
            FailedAttempt, Filter, HttpStatus, OpenApi, PostOnExisting, Put, ReadingRules, Results,
            TakenRule,
        };
        Ok(crate::simulator::Semantics {
            post_on_existing: named(
                "--post-on-existing",
                &self.post_on_existing,
                PostOnExisting::ALL,
            )?,
            put: named("--put", &self.put, Put::ALL)?,
            filter: named("--filter", &self.filter, Filter::ALL)?,
            http_status: named("--http-status", &self.http_status, HttpStatus::ALL)?,
            reading_rules: named("--reading-rules", &self.reading_rules, ReadingRules::ALL)?,
            taken_rule: named("--taken-rule", &self.taken_rule, TakenRule::ALL)?,
            failed_attempt: named("--failed-attempt", &self.failed_attempt, FailedAttempt::ALL)?,
            results: named("--results", &self.results, Results::ALL)?,
            open_api: named("--open-api", &self.open_api, OpenApi::ALL)?,
            clock_offset: self.clock_offset,
            ..crate::simulator::Semantics::default()
        })
    }
}

/// The variant whose name is `text` in kebab case.
fn named<T: Copy + std::fmt::Debug>(flag: &str, text: &str, all: &[T]) -> anyhow::Result<T> {
    let wanted = text.replace('-', "").to_ascii_lowercase();
    let found = all
        .iter()
        .find(|value| format!("{value:?}").to_ascii_lowercase() == wanted);
    found.copied().ok_or_else(|| {
        let values: Vec<_> = all
            .iter()
            .map(|value| kebab(&format!("{value:?}")))
            .collect();
        output::Usage(format!(
            "{flag} {text:?} is not known; give {}",
            values.join(", ")
        ))
        .into()
    })
}

/// `SameAsCode` as it is typed: `same-as-code`.
fn kebab(name: &str) -> String {
    let mut typed = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !typed.is_empty() {
            typed.push('-');
        }
        typed.push(character.to_ascii_lowercase());
    }
    typed
}

impl Simulator {
    pub(super) async fn run(self, format: Format) -> anyhow::Result<Status> {
        let semantics = self.semantics.semantics()?;
        if !(0.0..=1.0).contains(&self.trouble) {
            let wrong = format!("--trouble is {}; give a share from 0 to 1", self.trouble);
            return Err(output::Usage(wrong).into());
        }
        if self.time_scale <= 0.0 || !self.time_scale.is_finite() {
            let wrong = format!("--time-scale is {}; give a factor above 0", self.time_scale);
            return Err(output::Usage(wrong).into());
        }
        let fleet = if self.mixed {
            Fleet::mixed(self.seed)
        } else {
            Fleet::new(self.seed)
        }
        .time_scale(self.time_scale);
        let troubles = if self.trouble > 0.0 {
            TroublePlan::storm(self.seed, self.trouble)
        } else {
            TroublePlan::none()
        };
        let mut model = Model::new(SimulatorSettings {
            semantics,
            troubles,
            seed: self.seed,
            auto_create: Some(fleet.clone()),
            ..SimulatorSettings::default()
        });
        fleet.add_to(&mut model, self.devices, Timestamp::now());
        let listener = TcpListener::bind(self.listen).await.with_context(|| {
            format!(
                "failed to listen on {}; choose another address with --listen",
                self.listen
            )
        })?;
        let address = listener.local_addr()?;
        match format {
            Format::Text => output::line(&format!(
                "simulated NBI with {} devices on http://{address}",
                self.devices
            )),
            Format::Json => output::line(
                &json!({"listening": address.to_string(), "devices": self.devices}).to_string(),
            ),
        }
        let stop = CancellationToken::new();
        let signals = tokio::spawn(app::until_signalled(stop.clone())?);
        let credentials = Some(Credentials::new(&self.username, &self.password));
        let settings = HttpSettings {
            credentials,
            ..HttpSettings::default()
        };
        serve(
            listener,
            SharedSimulator::in_real_time(model),
            settings,
            stop,
        )
        .await?;
        signals.abort();
        Ok(Status::Done)
    }
}
