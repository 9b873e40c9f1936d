//! Configuration: what an operator can set, checked and resolved.
//!
//! Sources, the later one wins: `deploy/nbi-upgrade.default.toml` (compiled in), the TOML file, the environment
//! (`NBI_UPGRADE_` + path joined with `__`), flags. Every fault of every source is reported at once ([`ConfigError`]), before anything
//! is opened. No other part reads configuration or the environment; each is handed its own settings.

pub mod fault;
pub mod keys;
pub mod load;
mod reader;
mod resolve;
mod takes;

pub mod amqp;
pub mod campaign;
pub mod connection_request;
pub mod events;
pub mod faults;
pub mod firmware;
pub mod http;
pub mod instance;
pub mod job;
pub mod log;
pub mod nbi;
pub mod otel;
pub mod retry;
pub mod shutdown;
pub mod sweep;
pub mod tls;
pub mod verify;
pub mod worker;

#[cfg(test)]
mod tests;

pub use fault::{ConfigError, Fault};
pub use keys::{KeyDoc, keys};
pub use load::Sources;
pub use resolve::NbiAccess;

/// Everything that an operator can set, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The broker.
    pub amqp: amqp::Amqp,
    /// The NBI.
    pub nbi: nbi::Nbi,
    /// Defaults of jobs.
    pub job: job::Job,
    /// Durable retries of failed NBI calls.
    pub retry: retry::Retry,
    /// Waking devices.
    pub connection_request: connection_request::ConnectionRequest,
    /// Polling intervals of the result storage.
    pub await_result: retry::AwaitResult,
    /// What device faults mean.
    pub faults: faults::Faults,
    /// One request, many devices.
    pub campaign: campaign::Campaign,
    /// Looking for rules that no job owns.
    pub sweep: sweep::Sweep,
    /// Which firmware URLs are accepted.
    pub firmware: firmware::Firmware,
    /// Reading the version back.
    pub verify: verify::Verify,
    /// Events for others.
    pub events: events::Events,
    /// The worker's HTTP endpoint.
    pub http: http::Http,
    /// This worker's name.
    pub instance: instance::Instance,
    /// Log lines.
    pub log: log::Log,
    /// Spans for a collector.
    pub otel: otel::Otel,
    /// The end of the process.
    pub shutdown: shutdown::Shutdown,
    /// The process.
    pub worker: worker::Worker,
}

impl Config {
    /// Layers the sources, reads every section and reports every fault at once.
    ///
    /// What only some commands need (the broker's URL, the NBI's URL and credentials) may be missing here; see
    /// [`Config::require_amqp`], [`Config::require_nbi`] and [`Config::require_both`].
    ///
    /// # Errors
    ///
    /// [`ConfigError`] lists each fault with its key, value, origin and remedy.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut reader = load::layers(sources);
        let config = Self {
            amqp: amqp::Amqp::read(&mut reader),
            nbi: nbi::Nbi::read(&mut reader),
            job: job::Job::read(&mut reader),
            retry: retry::Retry::read(&mut reader),
            connection_request: connection_request::ConnectionRequest::read(&mut reader),
            await_result: retry::AwaitResult::read(&mut reader),
            faults: faults::Faults::read(&mut reader),
            campaign: campaign::Campaign::read(&mut reader),
            sweep: sweep::Sweep::read(&mut reader),
            firmware: firmware::Firmware::read(&mut reader),
            verify: verify::Verify::read(&mut reader),
            events: events::Events::read(&mut reader),
            http: http::Http::read(&mut reader),
            instance: instance::Instance::read(&mut reader, sources.host_name.as_deref()),
            log: log::Log::read(&mut reader),
            otel: otel::Otel::read(&mut reader),
            shutdown: shutdown::Shutdown::read(&mut reader),
            worker: worker::Worker::read(&mut reader),
        };
        reader.finish()?;
        Ok(config)
    }
}
