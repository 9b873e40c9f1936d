//! The transition table: every step and every kind of answer to it; every stage and everything that cuts across the stages.
//!
//! The snapshot is the state diagram of the documentation: a change of behaviour is a readable diff.

use std::fmt::Write as _;

use super::*;
use crate::job::machine::Sign;

fn steps() -> Vec<(Stage, Step)> {
    vec![
        (Stage::Preflight, Step::ReadOldResults),
        (Stage::Preflight, Step::ReadVersionFirst { known: vec![] }),
        (
            Stage::Preflight,
            Step::ReadRuleOfOldResult {
                rows: vec![success(60)],
                sign: Sign::Result,
            },
        ),
        (
            Stage::Preflight,
            Step::ReadRuleOfOldResult {
                rows: vec![undecided(60)],
                sign: Sign::UnderWay {
                    until: at(600),
                    may_be_repeat: false,
                },
            },
        ),
        (Stage::CreateRule, Step::ReadResultsBeforeArming),
        (
            Stage::CreateRule,
            Step::ReadRuleBeforeArming {
                rows: vec![],
                again: false,
            },
        ),
        (
            Stage::CreateRule,
            Step::ReadRuleBeforeArming {
                rows: vec![success(60)],
                again: false,
            },
        ),
        (
            Stage::CreateRule,
            Step::ReadResultsBeforeWriting {
                exists: true,
                seen_at: at(120),
                again: false,
            },
        ),
        (
            Stage::CreateRule,
            Step::ReadResultsBeforeWriting {
                exists: false,
                seen_at: at(120),
                again: false,
            },
        ),
        (Stage::CreateRule, Step::ReadRuleThatExists),
        (Stage::CreateRule, Step::CreateRule { readable: true }),
        (Stage::CreateRule, Step::CreateRule { readable: false }),
        (Stage::CreateRule, Step::UpdateRule { readable: true }),
        (Stage::CreateRule, Step::UpdateRule { readable: false }),
        (Stage::CreateRule, Step::ReadRuleAfterArming),
        (Stage::ConnectionRequest, Step::SendConnectionRequest),
        (Stage::AwaitResult, Step::ReadResults),
        (Stage::AwaitResult, Step::ReadRuleOfOther),
        (Stage::AwaitResult, Step::ResendConnectionRequest),
        (Stage::AwaitResult, Step::ReadRuleToPause),
        (Stage::AwaitResult, Step::DisarmToPause),
        (Stage::DeactivateRule, Step::ReadLateResults),
        (
            Stage::DeactivateRule,
            Step::ReadRuleOfLateResult {
                rows: vec![success(60)],
            },
        ),
        (Stage::Verify, Step::ReadVersion),
        (Stage::Verify, Step::ReadRuleToVerify),
        (Stage::Verify, Step::DisarmToVerify),
        (Stage::DeactivateRule, Step::ReadRuleBeforeDisarming),
        (Stage::DeactivateRule, Step::DisarmRule),
        (Stage::DeactivateRule, Step::DeleteRule),
        (Stage::DeactivateRule, Step::ReadResultsOnceMore),
    ]
}

fn answers() -> Vec<(&'static str, Result<NbiAnswer, NbiFailure>)> {
    vec![
        ("no results", results(&[])),
        ("a result from before", results(&[success(-60)])),
        ("success", results(&[success(60)])),
        ("transient fault", results(&[faulted(60, 9017)])),
        ("permanent fault", results(&[faulted(60, 9013)])),
        ("undecided result", results(&[undecided(60)])),
        ("no rule", rules(&[])),
        ("our rule, armed", rules(&[our_rule(true)])),
        ("our rule, disarmed", rules(&[our_rule(false)])),
        ("another's rule, armed", rules(&[other_rule(true)])),
        ("another's rule, disarmed", rules(&[other_rule(false)])),
        ("rules unreadable", Ok(NbiAnswer::RulesUnreadable)),
        ("done", Ok(NbiAnswer::Done)),
        ("no such rule", Ok(NbiAnswer::NoSuchRule)),
        ("rule exists", Ok(NbiAnswer::RuleExists)),
        (
            "version as expected",
            Ok(NbiAnswer::Version("2.0".to_owned())),
        ),
        ("another version", Ok(NbiAnswer::Version("1.0".to_owned()))),
        ("transient", Err(transient())),
        ("transient, no effect", Err(no_effect())),
        ("refused", Err(refused())),
        ("rejected", Err(rejected())),
        ("unintelligible", Err(unintelligible())),
    ]
}

#[test]
fn every_answer_to_every_step() {
    let policy = Policy {
        verify: true,
        ..Policy::default()
    };
    let mut text = String::new();
    for (stage, step) in steps() {
        writeln!(text, "{} · {}", stage.name(), describe_title(&step)).unwrap();
        let mut verdicts: Vec<(String, Vec<&str>)> = Vec::new();
        for (name, answer) in answers() {
            let mut job = job(stage);
            job.order_mut().expected_version = Some("2.0".to_owned());
            let verdict = describe(
                &decide(job, step.clone(), answer, inputs(120), &policy),
                at(120),
            );
            match verdicts.iter_mut().find(|(known, _)| *known == verdict) {
                Some((_, names)) => names.push(name),
                None => verdicts.push((verdict, vec![name])),
            }
        }
        for (verdict, names) in verdicts {
            writeln!(text, "    {verdict:<58} <- {}", names.join(" | ")).unwrap();
        }
    }
    insta::assert_snapshot!("answers", text);
}

#[test]
fn what_cuts_across_the_stages() {
    let policy = Policy::default();
    let mut text = String::new();
    let situations: [(&str, Inputs); 8] = [
        ("clear", inputs(120)),
        (
            "redelivered",
            Inputs {
                redelivered: true,
                ..inputs(120)
            },
        ),
        (
            "paused",
            Inputs {
                standing: Standing::Paused,
                ..inputs(120)
            },
        ),
        (
            "cancelled",
            Inputs {
                standing: Standing::Cancelled { at: at(60) },
                ..inputs(120)
            },
        ),
        (
            "cancelled, redelivered",
            Inputs {
                standing: Standing::Cancelled { at: at(60) },
                redelivered: true,
                ..inputs(120)
            },
        ),
        (
            "resumed",
            Inputs {
                standing: Standing::Resumed {
                    at: at(60),
                    arm_again: None,
                },
                ..inputs(120)
            },
        ),
        ("past the deadline", inputs(3_600)),
        (
            "past it, redelivered",
            Inputs {
                redelivered: true,
                ..inputs(3_600)
            },
        ),
    ];
    for stage in Stage::ALL {
        writeln!(text, "{}", stage.name()).unwrap();
        for (name, inputs) in &situations {
            let decision = begin(job(stage), *inputs, &policy);
            writeln!(text, "    {name:<26} {}", describe(&decision, inputs.now)).unwrap();
        }
    }
    insta::assert_snapshot!("situations", text);
}

fn describe_title(step: &Step) -> String {
    match step {
        Step::ReadRuleBeforeArming { rows, .. } if !rows.is_empty() => {
            "ReadRuleBeforeArming, a new result is there".to_owned()
        }
        Step::ReadRuleOfOldResult {
            sign: Sign::UnderWay { .. },
            ..
        } => "ReadRuleOfOldResult, a row without a verdict is there".to_owned(),
        Step::CreateRule { readable: false } => "CreateRule, rules unreadable".to_owned(),
        Step::UpdateRule { readable: false } => "UpdateRule, rules unreadable".to_owned(),
        other => describe_step(other),
    }
}
