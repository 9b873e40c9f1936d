//! What reads are for: which of them go first, and which must not be old.

use super::*;

#[test]
fn the_last_look_before_a_rule_is_armed_and_the_one_before_it_is_put_away_say_so() {
    let purpose = |stage, step: Step| match step.call(&job(stage), &Policy::default()) {
        NbiCall::ReadResults { purpose, .. } | NbiCall::ReadRule { purpose, .. } => purpose,
        other => panic!("{other:?}"),
    };
    let rule = |again| Step::ReadRuleBeforeArming {
        rows: vec![],
        again,
    };
    let results = |again| Step::ReadResultsBeforeWriting {
        exists: true,
        seen_at: noon(),
        again,
    };
    let (arming, awaiting) = (Stage::CreateRule, Stage::AwaitResult);
    for (stage, step, expected) in [
        (arming, results(false), Purpose::Arm),
        (arming, results(true), Purpose::Arm),
        (arming, rule(true), Purpose::Arm),
        (arming, rule(false), Purpose::Look),
        (arming, Step::ReadResultsBeforeArming, Purpose::Look),
        (awaiting, Step::ReadResults, Purpose::Look),
        (awaiting, Step::ReadRuleToPause, Purpose::PutAway),
        (Stage::Verify, Step::ReadRuleToVerify, Purpose::PutAway),
        (
            Stage::DeactivateRule,
            Step::ReadRuleBeforeDisarming,
            Purpose::PutAway,
        ),
        (
            Stage::DeactivateRule,
            Step::ReadResultsOnceMore,
            Purpose::PutAway,
        ),
    ] {
        assert_eq!(purpose(stage, step.clone()), expected, "{step:?}");
    }
}
