//! `check`: configuration, broker and NBI, one line each, with the remedy for what fails. Changes nothing.

use std::sync::Arc;

use serde_json::json;

use super::output::{self, Format, Status};
use super::{Common, load};
use crate::app;
use crate::config::Config;
use crate::driver::amqp::{AmqpSettings, topology};
use crate::job::{CpeId, NbiAnswer, NbiCall, NbiFailure, RuleId};
use crate::nbi::Nbi;
use crate::telemetry::Telemetry;

/// The id that is asked for: no device has it, and nothing is written under it.
const NOBODY: &str = "nbi-upgrade-check";

/// What a check found.
struct Finding {
    what: &'static str,
    result: Result<String, String>,
}

/// Checks everything that can be checked; the status says whether all is well.
pub(super) async fn run(common: &Common, format: Format) -> anyhow::Result<Status> {
    let config = load(common)?;
    let mut findings = vec![Finding {
        what: "configuration",
        result: Ok("every key is valid".to_owned()),
    }];
    findings.push(Finding {
        what: "broker",
        result: broker(&config).await,
    });
    findings.extend(nbi(&config).await);
    for Finding { what, result } in &findings {
        let (is_well, text) = match result {
            Ok(text) => (true, text),
            Err(text) => (false, text),
        };
        match format {
            Format::Text => output::line(&format!(
                "{} {what}: {text}",
                if is_well { "ok  " } else { "FAIL" }
            )),
            Format::Json => {
                output::line(&json!({"check": what, "ok": is_well, "text": text}).to_string())
            }
        }
    }
    Ok(if findings.iter().all(|finding| finding.result.is_ok()) {
        Status::Done
    } else {
        Status::Failed
    })
}

async fn broker(config: &Config) -> Result<String, String> {
    let urls = config.require_amqp().map_err(|error| error.to_string())?;
    let settings = AmqpSettings {
        urls,
        ..app::amqp_settings(config)
    };
    match topology::check_once(&settings).await {
        Ok(()) => Ok(format!(
            "connected, every object under {:?} stands",
            settings.prefix
        )),
        Err(error) => Err(error.to_string()),
    }
}

async fn nbi(config: &Config) -> Vec<Finding> {
    let client = config
        .require_nbi()
        .map_err(|error| error.to_string())
        .and_then(|access| {
            app::nbi_client(config, &access, Arc::new(Telemetry::default()))
                .map_err(|error| format!("{error:#}"))
        });
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            return vec![Finding {
                what: "NBI",
                result: Err(error),
            }];
        }
    };
    let (Ok(rule_id), Ok(cpe_id)) = (RuleId::parse(NOBODY), CpeId::parse(NOBODY)) else {
        return Vec::new();
    };
    let results = match client
        .call(&NbiCall::ReadResults {
            rule_id: rule_id.clone(),
            cpe_id,
        })
        .await
    {
        Ok(_) => Ok("reachable, credentials accepted, results can be read".to_owned()),
        Err(failure) => Err(with_remedy(&failure)),
    };
    let rules = match client.call(&NbiCall::ReadRule { rule_id }).await {
        Ok(NbiAnswer::RulesUnreadable) => Ok("cannot be read with these credentials: rules are armed unseen, at most once a job; \
            grant reading FirmwareStorage to let jobs survive a crash in the moment of arming"
            .to_owned()),
        Ok(NbiAnswer::Rules { filter_ignored: true, .. }) => {
            Err("the NBI ignores the filter and returns other rules; set nbi.rule_query to the name that it honours".to_owned())
        }
        Ok(_) => Ok("can be read".to_owned()),
        Err(failure) => Err(with_remedy(&failure)),
    };
    vec![
        Finding {
            what: "NBI results",
            result: results,
        },
        Finding {
            what: "NBI rules",
            result: rules,
        },
    ]
}

fn with_remedy(failure: &NbiFailure) -> String {
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
    format!("{failure}; {remedy}")
}
