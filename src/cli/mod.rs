//! The command tree, nothing else: each command is a file of its own.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::{Config, ConfigError, Sources};

mod blocked;
mod check;
mod columns;
mod control;
mod dead;
mod demo;
mod finding;
mod follow;
mod healthcheck;
mod jobs;
mod letter;
mod output;
mod reference;
mod requeue;
mod run;
mod schema;
mod seen;
mod simulator;
mod spreadsheet;
mod status;
mod submit;
mod sweep;
mod table;
mod topology;
mod watch;
mod worker;

use output::{Format, Status};

/// Upgrades the firmware of TR-069 devices through a management system's north-bound interface (NBI), driven by RabbitMQ.
#[derive(Debug, Parser)]
#[command(name = "nbi-upgrade", version = VERSION, after_help = AFTER_HELP, max_term_width = 110)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"));

const AFTER_HELP: &str = "\
Examples:
  nbi-upgrade demo                                   see a fleet upgrade; nothing to install
  nbi-upgrade worker --config nbi-upgrade.toml       the service
  nbi-upgrade submit jobs.jsonl --wait               publish requests, follow them to their end
  nbi-upgrade status JOB_ID                          what became of a job
  nbi-upgrade check                                  what is wrong, with the remedy

Every key of the configuration can be given in three places, and the later one
wins:
  --config FILE                                      nbi.url in a TOML file
  NBI_UPGRADE_NBI__URL=https://...                   the environment
  --set nbi.url=https://...                          a flag

Exit status: 0 done, 1 the work failed, 2 wrong usage or configuration.";

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of every command")]
struct Common {
    /// Configuration file (TOML).
    #[arg(
        short,
        long,
        global = true,
        env = "NBI_UPGRADE_CONFIG",
        value_name = "FILE"
    )]
    config: Option<PathBuf>,
    /// Sets one key of the configuration, e.g. --set nbi.timeout=10s; may be repeated.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = key_and_value)]
    overrides: Vec<(String, String)>,
    /// Form of what is printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the service: takes requests from RabbitMQ and carries them out. SIGTERM finishes what is in hand.
    #[command(after_help = "\
Examples:
  nbi-upgrade worker --config /etc/nbi-upgrade.toml
  NBI_UPGRADE_LOG__FORMAT=text nbi-upgrade worker --set amqp.prefetch=64

Start as many as you like. SIGTERM or Ctrl-C finishes what is in hand and
gives the rest back; a second one ends at once.")]
    Worker,
    /// Shows a fleet upgrading in this process: simulated NBI, simulated devices, local queue. Nothing to install.
    Demo(demo::Demo),
    /// Carries requests out here, without a broker; events go to standard output.
    Run(run::Run),
    /// Publishes requests to RabbitMQ, each confirmed.
    Submit(submit::Submit),
    /// Follows the events, live or through the history.
    Watch(watch::Watch),
    /// Tells what the history knows of a job or a campaign.
    Status(status::Status),
    /// Looks at dead letters, sends them back or removes them.
    #[command(subcommand)]
    Dead(dead::Dead),
    /// Ends a job, or all jobs of a campaign; a rule that is armed is disarmed.
    Cancel(control::Cancel),
    /// Pauses a campaign, or everything (the emergency stop).
    Pause(control::Pause),
    /// Ends a pause.
    Resume(control::Resume),
    /// Looks for rules that are armed and that no job owns; disarms them on demand.
    Sweep(sweep::Sweep),
    /// Runs the simulated NBI with its devices behind HTTP.
    Simulator(simulator::Simulator),
    /// Declares or checks the broker's exchanges, queues and bindings.
    #[command(subcommand)]
    Topology(topology::Topology),
    /// Checks configuration, broker and NBI, one line each, with the remedy for what fails. Changes nothing.
    Check(check::Check),
    /// Prints the schemas of requests and events, and an AsyncAPI document of the whole.
    #[command(subcommand)]
    Schema(schema::Schema),
    /// Asks the worker on this host whether it is alive; for containers.
    Healthcheck(healthcheck::Healthcheck),
    /// Prints the completions of a shell.
    Completions(reference::Completions),
    /// Writes the manual pages, one for each command.
    Manual(reference::Manual),
}

/// Parses the command line, runs the command, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let format = arguments.common.output;
    let threads = match &arguments.command {
        Command::Worker => load(&arguments.common).map_or(1, |config| config.worker.threads),
        Command::Demo(_)
        | Command::Run(_)
        | Command::Submit(_)
        | Command::Watch(_)
        | Command::Status(_)
        | Command::Dead(_)
        | Command::Cancel(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Sweep(_)
        | Command::Simulator(_)
        | Command::Topology(_)
        | Command::Check(_)
        | Command::Schema(_)
        | Command::Healthcheck(_)
        | Command::Completions(_)
        | Command::Manual(_) => 1,
    };
    let outcome = output::runtime(threads).and_then(|runtime| {
        let outcome = runtime.block_on(run(arguments));
        // A look-up of a name that hangs in the system's resolver must not hold the process.
        runtime.shutdown_timeout(std::time::Duration::from_millis(500));
        outcome
    });
    crate::telemetry::log::flush();
    match outcome {
        Ok(status) => status.into(),
        Err(error) => {
            output::error(&error, format);
            let is_usage = error.is::<ConfigError>() || error.is::<output::Usage>();
            if is_usage {
                Status::Usage.into()
            } else {
                Status::Failed.into()
            }
        }
    }
}

/// Whether these words, after the program's name, are a command line: what documents say must be one.
///
/// # Errors
///
/// What is wrong, as the program would say it.
pub fn understands(words: impl IntoIterator<Item = String>) -> Result<(), String> {
    let words = std::iter::once("nbi-upgrade".to_owned()).chain(words);
    Arguments::try_parse_from(words)
        .map(drop)
        .map_err(|error| error.to_string())
}

async fn run(arguments: Arguments) -> anyhow::Result<Status> {
    let Arguments { common, command } = arguments;
    match command {
        Command::Worker => worker::run(load(&common)?).await,
        Command::Demo(demo) => demo.run(common.output).await,
        Command::Run(run) => run.run(load(&common)?, common.output).await,
        Command::Submit(submit) => submit.run(load(&common)?, common.output).await,
        Command::Watch(watch) => watch.run(load(&common)?, common.output).await,
        Command::Status(status) => status.run(load(&common)?, common.output).await,
        Command::Dead(dead) => dead.run(load(&common)?, common.output).await,
        Command::Cancel(cancel) => cancel.run(load(&common)?, common.output).await,
        Command::Pause(pause) => pause.run(load(&common)?, common.output).await,
        Command::Resume(resume) => resume.run(load(&common)?, common.output).await,
        Command::Sweep(sweep) => sweep.run(load(&common)?, common.output).await,
        Command::Simulator(simulator) => simulator.run(common.output).await,
        Command::Topology(topology) => topology.run(load(&common)?, common.output).await,
        Command::Check(check) => check.run(&common, common.output).await,
        Command::Schema(schema) => Ok(schema.run(&load(&common)?)),
        Command::Healthcheck(check) => check.run(load(&common)?, common.output).await,
        Command::Completions(completions) => completions.run(&mut Arguments::command()),
        Command::Manual(manual) => manual.run(Arguments::command(), common.output),
    }
}

fn load(common: &Common) -> Result<Config, ConfigError> {
    Config::load(&Sources::of_this_process(
        common.config.clone(),
        common.overrides.clone(),
    ))
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.trim().to_owned(), value.to_owned()))
        .ok_or_else(|| "write it as KEY=VALUE, e.g. nbi.timeout=10s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Arguments::command().debug_assert();
    }
}
