//! Any answer of the NBI: four bytes choose status, call and headers, the rest is the body.
//!
//! Never a panic; rows that come out are of the asked device and rule; texts are bounded and fit for one line.

use jiff::SignedDuration;
use nbi_upgrade::job::{
    CpeId, FirmwareUrl, NbiAnswer, NbiCall, NbiFailure, Purpose, ResultRow, RuleId, RuleSpec,
};
use nbi_upgrade::nbi::RawAnswer;
use nbi_upgrade::nbi::answer::judge;
use serde_json::Value;

use super::{Accepted, is_one_line, now};

const STATUSES: [u16; 16] = [
    200, 200, 200, 200, 201, 204, 301, 400, 401, 403, 404, 405, 409, 429, 500, 503,
];

/// One input; as what it was accepted.
///
/// # Panics
///
/// When a promise is broken.
pub fn play(data: &[u8]) -> Accepted {
    let Some(([status, kind, headers, extra], body)) = data.split_first_chunk::<4>() else {
        return Accepted::new();
    };
    let status = match STATUSES.get(usize::from(*status)) {
        Some(status) => *status,
        None => u16::from(*status) * 4 + u16::from(*extra),
    };
    let rule_id = RuleId::parse("UPGRADE_x").expect("an id");
    let cpe_id = CpeId::parse("x").expect("an id");
    let spec = || RuleSpec {
        rule_id: rule_id.clone(),
        cpe_id: cpe_id.clone(),
        firmware_url: FirmwareUrl::checked("http://files/fw.bin").expect("a URL"),
        executions: 1,
        priority: 1,
        description: None,
    };
    let call = match kind % 9 {
        0 => NbiCall::ReadResults {
            rule_id: rule_id.clone(),
            cpe_id: cpe_id.clone(),
            purpose: Purpose::Look,
        },
        1 => NbiCall::ReadRule {
            rule_id: rule_id.clone(),
            purpose: Purpose::Look,
        },
        2 => NbiCall::CreateRule(spec()),
        3 => NbiCall::UpdateRule(spec()),
        4 => NbiCall::DisarmRule {
            rule_id: rule_id.clone(),
        },
        5 => NbiCall::DeleteRule {
            rule_id: rule_id.clone(),
        },
        6 => NbiCall::SendConnectionRequest {
            cpe_id: cpe_id.clone(),
        },
        7 => NbiCall::ReadVersion {
            cpe_id: cpe_id.clone(),
        },
        _ => NbiCall::ListRules {
            offset: usize::from(*extra),
            limit: 100,
        },
    };
    let raw = RawAnswer {
        status,
        body: body.to_vec(),
        retry_after: (headers & 1 != 0).then(|| extra.to_string()),
        date: (headers & 2 != 0).then(|| "Fri, 02 Jan 2026 00:00:10 GMT".to_owned()),
        location: (headers & 4 != 0).then(|| extra.to_string()),
    };
    let judged = judge(
        &call,
        &raw,
        &["A.Version".to_owned(), "B.Version".to_owned()],
        now(),
    );
    let accepted = accepted(&judged.outcome);
    match judged.outcome {
        Ok(NbiAnswer::Results { rows, .. }) => {
            assert!(matches!(call, NbiCall::ReadResults { .. }));
            assert!(rows.len() <= named(body, &[("cpeid", "x"), ("campaignid", "UPGRADE_x")]));
            for row in rows {
                assert!(!row.id.is_empty() && row.id.chars().count() <= ResultRow::ID_MAX);
                assert!(row.message.chars().count() <= ResultRow::MESSAGE_MAX);
                assert!(is_one_line(&row.message) && is_one_line(&row.id), "{row:?}");
                assert!(
                    row.rule_description
                        .is_none_or(|text| text.chars().count() <= ResultRow::DESCRIPTION_MAX)
                );
            }
        }
        Ok(NbiAnswer::Rules { rows, .. }) => {
            assert!(matches!(call, NbiCall::ReadRule { .. }));
            assert!(rows.len() <= named(body, &[("id", "UPGRADE_x")]));
        }
        // Nothing is left out of a list: a rule that is not shown may be armed.
        Ok(NbiAnswer::RuleList(_)) => assert!(matches!(call, NbiCall::ListRules { .. })),
        Ok(NbiAnswer::RulesUnreadable) => {
            assert!(matches!(
                call,
                NbiCall::ReadRule { .. } | NbiCall::ListRules { .. }
            ));
        }
        Ok(NbiAnswer::RuleExists) => assert!(matches!(call, NbiCall::CreateRule(_))),
        Ok(NbiAnswer::Version(version)) => {
            assert!(matches!(call, NbiCall::ReadVersion { .. }));
            assert!((1..=256).contains(&version.chars().count()));
            assert!(is_one_line(&version), "{version:?}");
        }
        Ok(NbiAnswer::Done) => assert!((200..300).contains(&status)),
        Ok(NbiAnswer::NoSuchRule) => {}
        Err(failure) => {
            if let NbiFailure::Transient {
                retry_after: Some(asked),
                ..
            } = &failure
            {
                assert!(!asked.is_negative() && *asked <= SignedDuration::from_hours(1));
            }
            let text = failure.to_string();
            assert!(is_one_line(&text), "{text:?}");
            assert!(
                text.chars().count() <= 600,
                "{} characters",
                text.chars().count()
            );
        }
    }
    accepted
}

/// As what an answer counts: rows where there are some, and what says something without any.
fn accepted(outcome: &Result<NbiAnswer, NbiFailure>) -> Accepted {
    match outcome {
        Ok(NbiAnswer::Results { rows, .. }) if !rows.is_empty() => vec!["results"],
        Ok(NbiAnswer::Rules { rows, .. }) if !rows.is_empty() => vec!["rules"],
        Ok(NbiAnswer::RuleList(rows)) if !rows.is_empty() => vec!["list"],
        Ok(NbiAnswer::RulesUnreadable) => vec!["unreadable"],
        Ok(NbiAnswer::RuleExists) => vec!["exists"],
        Ok(NbiAnswer::NoSuchRule) => vec!["no rule"],
        Ok(NbiAnswer::Version(_)) => vec!["version"],
        Ok(NbiAnswer::Done) => vec!["done"],
        Ok(_) | Err(_) => Accepted::new(),
    }
}

/// How many objects directly in `details` have these fields, by the lenient reading that text and numbers are the same.
fn named(body: &[u8], fields: &[(&str, &str)]) -> usize {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let details = &value["details"];
    let is_one = |row: &&Value| {
        fields
            .iter()
            .all(|(name, wanted)| row[name].as_str() == Some(wanted))
    };
    match details {
        Value::Array(rows) => rows.iter().filter(is_one).count(),
        row => usize::from(is_one(&row)),
    }
}
