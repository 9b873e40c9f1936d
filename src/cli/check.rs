//! `check`: configuration, broker and NBI, one line for each thing looked at, with the remedy for what fails. Changes nothing.

use std::sync::Arc;

use jiff::SignedDuration;

use super::finding::{Finding, State};
use super::output::{self, Format, Status};
use super::{Common, load};
use crate::config::{Config, NbiAccess};
use crate::driver::amqp::{AmqpSettings, BrokerError, probe};
use crate::job::state::Cleanup;
use crate::job::{CpeId, NbiAnswer, NbiCall, NbiFailure, Purpose, RuleId};
use crate::nbi::openapi::{self, Described, OpenApiError};
use crate::nbi::{Nbi, TransportError, look};
use crate::telemetry::Telemetry;
use crate::{app, clock};

/// The id that is asked for: no device has it, and nothing is written under it.
const NOBODY: &str = "nbi-upgrade-check";

/// The largest description that is read, in bytes: those of big servers have some hundred thousand.
const DESCRIPTION_MAX: usize = 32 << 20;

/// Clocks that differ by more make repeats and results hard to tell apart; by much more, impossible.
const OFFSET_ADVISED: SignedDuration = SignedDuration::from_secs(5);
const OFFSET_MAX: SignedDuration = SignedDuration::from_secs(60);

/// Checks everything that can be checked, as a worker.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(after_help = "\
Examples:
  nbi-upgrade check --config nbi-upgrade.toml
  nbi-upgrade check --nbi-openapi
  nbi-upgrade check --output json | jq 'select(.state != \"ok\")'

It asks for the rights of a worker: run it with a worker's configuration and
user.

Exit status: 0 all is well or only advised against, 1 something failed, 2 the
configuration is wrong.")]
pub(super) struct Check {
    /// Reads the NBI's own description (/v1/doc/swagger.json) and says which calls and fields that the worker uses are in it.
    #[arg(long)]
    nbi_openapi: bool,
}

impl Check {
    /// The status says whether all is well.
    pub(super) async fn run(self, common: &Common, format: Format) -> anyhow::Result<Status> {
        let config = load(common)?;
        let mut all = Vec::new();
        let mut tell = |findings: Vec<Finding>| {
            for finding in &findings {
                finding.print(format);
            }
            all.extend(findings);
        };
        let missing = missing(&config);
        let is_complete = missing.is_empty();
        tell(missing);
        if is_complete {
            tell(vec![Finding::ok("configuration", "every key is valid")]);
        }
        if let Some((text, remedy)) = config.advice() {
            tell(vec![Finding::advice("configuration", text, remedy)]);
        }
        tell(broker(&config).await);
        tell(self.nbi(&config).await);
        let count = |state| all.iter().filter(|finding| finding.state == state).count();
        let failed = count(State::Failed);
        if format == Format::Text {
            let advised = match count(State::Advice) {
                0 => String::new(),
                advised => format!(", {advised} with advice"),
            };
            let checks = output::count(all.len(), "check");
            output::note(&format!(
                "{checks}: {} ok{advised}, {failed} failed",
                count(State::Ok)
            ));
        }
        Ok(match failed {
            _ if !is_complete => Status::Usage,
            0 => Status::Done,
            _ => Status::Failed,
        })
    }

    async fn nbi(self, config: &Config) -> Vec<Finding> {
        let Ok(access) = config.require_nbi() else {
            return Vec::new();
        };
        let transport = match app::nbi_transport(config, &access, DESCRIPTION_MAX) {
            Ok(transport) => transport,
            Err(error) => return vec![Finding::failed("NBI", format!("{error:#}"), None)],
        };
        let clock = clock::system();
        let seen = match look::look(&transport, NOBODY, || clock()).await {
            Ok(seen) => seen,
            Err(error) => return vec![unreachable(&error)],
        };
        let millis = seen.took.as_millis();
        let mut found = vec![Finding::ok(
            "NBI reachable",
            format!("{} answers in {millis} ms", access.url),
        )];
        let user = &access.username;
        match seen.status {
            401 | 403 => found.push(Finding::failed(
                "NBI credentials",
                format!("user {user:?} is refused (HTTP {})", seen.status),
                Some("check nbi.username, nbi.password and the account's rights"),
            )),
            _ => {
                found.push(Finding::ok(
                    "NBI credentials",
                    format!("user {user:?} is let in"),
                ));
                found.extend(storages(config, &access).await);
            }
        }
        found.push(clocks(seen.clock_offset));
        if self.nbi_openapi {
            match openapi::fetch(&transport).await {
                Ok(description) => {
                    found.push(Finding::ok(
                        "NBI description",
                        openapi::version(&description),
                    ));
                    let reads_version = config.verify.enabled.then_some(&*config.verify.method);
                    found.extend(
                        openapi::compare(&description, reads_version)
                            .iter()
                            .map(|call| described(call, config)),
                    );
                }
                Err(error) => found.push(undescribed(&error)),
            }
        }
        found
    }
}

/// The keys that are not set and that a worker needs. What needs one of them is not looked at.
fn missing(config: &Config) -> Vec<Finding> {
    let error = config.require_both().err();
    let faults = error.into_iter().flat_map(|error| error.faults);
    faults
        .map(|fault| {
            let text = format!("{}: {}", fault.key, fault.problem);
            Finding::failed("configuration", text, Some(&fault.remedy))
        })
        .collect()
}

async fn broker(config: &Config) -> Vec<Finding> {
    let Ok(urls) = config.require_amqp() else {
        return Vec::new();
    };
    let settings = AmqpSettings {
        urls,
        ..app::amqp_settings(config)
    };
    let all = probe::probe(&settings).await;
    all.into_iter()
        .map(|probed| match (probed.result, probed.advice) {
            (Ok(text), None) => Finding::ok(probed.what, text),
            (Ok(text), Some(advice)) => Finding::advice(probed.what, text, advice),
            (Err(error), _) => {
                let BrokerError {
                    action,
                    cause,
                    remedy,
                    ..
                } = error;
                let text = format!("failed to {action}: {cause}");
                Finding::failed(probed.what, text, remedy.as_deref())
            }
        })
        .collect()
}

fn unreachable(error: &TransportError) -> Finding {
    let remedy = match error {
        TransportError::Connect(_) => {
            "check nbi.url, the way there (DNS, firewall), its certificate (nbi.ca_file), and whether it is up"
        }
        TransportError::TimedOut(_) => {
            "check whether the NBI is up and how loaded it is; nbi.timeout is how long it is waited for"
        }
        TransportError::NoAnswer(_) | TransportError::TooLarge { .. } => {
            "check that nbi.url is the NBI itself and not a portal or proxy"
        }
    };
    let text = error.to_string();
    // What names a key says already what to do.
    let remedy = Some(remedy).filter(|_| !text.contains("nbi."));
    Finding::failed("NBI reachable", text, remedy)
}

async fn storages(config: &Config, access: &NbiAccess) -> Vec<Finding> {
    let client = match app::nbi_client(config, access, Arc::new(Telemetry::default())) {
        Ok(client) => client,
        Err(error) => return vec![Finding::failed("NBI", format!("{error:#}"), None)],
    };
    let (Ok(rule_id), Ok(cpe_id)) = (RuleId::parse(NOBODY), CpeId::parse(NOBODY)) else {
        return Vec::new();
    };
    let read = NbiCall::ReadResults {
        rule_id: rule_id.clone(),
        cpe_id,
        purpose: Purpose::Look,
    };
    let results = match client.call(&read).await {
        Ok(_) => Finding::ok("NBI results", "FirmwareResultStorage can be read"),
        Err(failure) => with_remedy("NBI results", &failure),
    };
    let read = NbiCall::ReadRule {
        rule_id,
        purpose: Purpose::Look,
    };
    let rules = match client.call(&read).await {
        Ok(NbiAnswer::RulesUnreadable) => Finding::advice(
            "NBI rules",
            "FirmwareStorage cannot be read with these credentials: rules are armed unseen, at most once a job",
            "grant reading FirmwareStorage to let jobs survive a crash in the moment of arming",
        ),
        Ok(NbiAnswer::Rules {
            filter_ignored: true,
            ..
        }) => Finding::failed(
            "NBI rules",
            "the NBI ignores the filter and returns other rules",
            Some("set nbi.rule_query to the name that it honours"),
        ),
        Ok(_) => Finding::ok("NBI rules", "FirmwareStorage can be read"),
        Err(failure) => with_remedy("NBI rules", &failure),
    };
    vec![results, rules]
}

fn with_remedy(what: &str, failure: &NbiFailure) -> Finding {
    // What names a key says already what to do.
    if failure.to_string().contains("nbi.") {
        return Finding::failed(what, failure.to_string(), None);
    }
    let remedy = match failure {
        NbiFailure::Refused { .. } => "check nbi.username, nbi.password and the account's rights",
        NbiFailure::Transient { .. } | NbiFailure::NotSent { .. } => {
            "check nbi.url, the network and whether the NBI is up"
        }
        NbiFailure::Rejected { .. } => "check nbi.result_query and nbi.rule_query",
        NbiFailure::Unintelligible { .. } => {
            "check that nbi.url is the NBI itself and not a portal or proxy"
        }
    };
    Finding::failed(what, failure.to_string(), Some(remedy))
}

fn clocks(offset: Option<SignedDuration>) -> Finding {
    let what = "NBI clock";
    let remedy = "let both machines take their time from NTP; results are told from earlier ones by the NBI's clock";
    let Some(offset) = offset else {
        return Finding::advice(
            what,
            "the answer has no Date, so clocks cannot be compared",
            "make sure that both machines take their time from NTP",
        );
    };
    if offset.is_zero() {
        return Finding::ok(what, "equal to ours, as far as a Date to the second shows");
    }
    let side = if offset.is_negative() {
        "behind"
    } else {
        "ahead of"
    };
    let text = format!("{:.1} s {side} ours", offset.abs().as_secs_f64());
    if offset.abs() > OFFSET_MAX {
        Finding::failed(what, text, Some(remedy))
    } else if offset.abs() > OFFSET_ADVISED {
        Finding::advice(what, text, remedy)
    } else {
        Finding::ok(what, text)
    }
}

fn undescribed(error: &OpenApiError) -> Finding {
    let text = format!("{}: {error}", openapi::PATH);
    match error {
        OpenApiError::Status(404) => Finding::advice(
            "NBI description",
            format!("there is none at {}", openapi::PATH),
            "nothing is wrong; what the worker uses could not be compared",
        ),
        OpenApiError::Status(_) | OpenApiError::Malformed(_) | OpenApiError::Transport(_) => {
            Finding::failed(
                "NBI description",
                text,
                Some("open it in a browser with the same account; the worker works without it"),
            )
        }
    }
}

fn described(call: &Described, config: &Config) -> Finding {
    let what = format!("NBI call: {}", call.purpose);
    let Described {
        call: line,
        missing,
        ..
    } = call;
    if !call.is_there {
        let is_needed = match call.purpose {
            "delete a rule" => config.job.cleanup == Cleanup::Delete,
            // Without it rules are armed unseen.
            "read a rule" => false,
            _ => true,
        };
        let text = format!("{line} is not described");
        let remedy = "ask the vendor whether it is there all the same; the worker uses it";
        return if is_needed {
            Finding::failed(&what, text, Some(remedy))
        } else {
            Finding::advice(&what, text, "the worker can do without it")
        };
    }
    if !missing.is_empty() {
        return Finding::advice(
            &what,
            format!("{line} is there, without {}", missing.join(", ")),
            "ask the vendor what takes their place; try one device before a fleet",
        );
    }
    let rest = if call.is_bare {
        "its fields are not described"
    } else {
        "with everything that the worker uses"
    };
    Finding::ok(&what, format!("{line}, {rest}"))
}
