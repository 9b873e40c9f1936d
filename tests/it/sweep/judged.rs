//! The judges judged: each rule is shown a run made by hand that breaks it, and the nearest one that does not.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::simulator::{
    AttemptResult, DeviceState, DeviceView, FailedAttempt, Flash, Incomplete, PostOnExisting, Put,
    ReadingRules, ResultTime, Results, TakenRule,
};
use serde_json::{Value, json};

use super::check;
use super::copies::Copies;
use super::history::{Failure, NbiWrite, Published, Rule};
use super::run::Facts;
use super::scenarios::Scenario;
use crate::support::world::{request, start};

const JOB: &str = "job-1";
const FILE: &str = "https://files.example/job-1.bin";
const OTHER_FILE: &str = "https://files.example/job-2.bin";

fn at(secs: i64) -> Timestamp {
    start() + SignedDuration::from_secs(secs)
}

/// A run made by hand: what was asked for, and what came of it.
struct Case {
    scenario: Scenario,
    facts: Facts,
}

impl Case {
    /// One job of one device, with an hour's time, of which nothing has been told yet.
    fn new() -> Self {
        let mut body = request(JOB, "CPE1", "job-1.bin");
        body["requested_at"] = json!(start().to_string());
        let scenario = Scenario::new("by hand").send(0, &body, &[]);
        let facts = Facts {
            devices: vec![DeviceView {
                cpe_id: "CPE1".to_owned(),
                character: "plain",
                state: DeviceState::Idle,
                version: "1.0.0".to_owned(),
                flashes: Vec::new(),
            }],
            ..Facts::default()
        };
        Self { scenario, facts }.copied(1, 0, None)
    }

    /// The usual way: armed, run, disarmed, told.
    fn upgraded() -> Self {
        Self::new()
            .armed(10)
            .flash(20, 140, AttemptResult::Success)
            .disarmed(150)
            .told(151, "completed/upgraded", "applied")
    }

    fn copied(mut self, made: usize, given_back: usize, since: Option<i64>) -> Self {
        let copies = Copies {
            most: if since.is_some() { 2 } else { 1 },
            since: since.map(at),
            made,
            of_the_dead: 0,
            given_back,
            cut_off: 0,
        };
        self.facts.copies.insert(JOB.to_owned(), copies);
        // Whoever makes a copy dies of it.
        self.facts.crashes = usize::from(since.is_some());
        self
    }

    fn ordered(mut self, secs: u64, body: &Value) -> Self {
        self.scenario = self.scenario.order(secs, body);
        self
    }

    /// A final event, each from a delivery of its own.
    fn told(mut self, secs: i64, verdict: &str, impact: &str) -> Self {
        let (outcome, reason) = verdict.split_once('/').unwrap();
        let data = json!({
            "job_id": JOB, "outcome": outcome, "reason": reason, "impact": impact, "message": "",
            "requested_at": start().to_string(), "rule": {"state": "deactivated"},
        });
        self.facts.events.push(Published {
            at: at(secs),
            delivery: self.facts.events.len() as u64,
            id: outcome.to_owned(),
            is_final: true,
            body: json!({"type": format!("upgrade.{outcome}"), "data": data}),
        });
        self
    }

    /// Something else in what the last event says.
    fn saying(mut self, member: &str, value: Value) -> Self {
        self.facts.events.last_mut().unwrap().body["data"][member] = value;
        self
    }

    fn flash_of(mut self, file: &str, from: i64, until: i64, result: AttemptResult) -> Self {
        self.facts.devices[0].flashes.push(Flash {
            started_at: at(from),
            ended_at: Some(at(until)),
            rule_id: "UPGRADE_CPE1".to_owned(),
            file: file.to_owned(),
            result,
        });
        self
    }

    fn flash(self, from: i64, until: i64, result: AttemptResult) -> Self {
        self.flash_of(FILE, from, until, result)
    }

    fn written(mut self, secs: i64, operation: &'static str, file: Option<&str>) -> Self {
        self.facts.writes.push(NbiWrite {
            at: at(secs),
            operation,
            cpe_id: "CPE1".to_owned(),
            file: file.map(str::to_owned),
        });
        self
    }

    /// What stands in the storage from then on: files, and whether they are armed.
    fn rules(mut self, secs: i64, rules: &[(&str, bool)]) -> Self {
        let rules: Vec<Rule> = rules
            .iter()
            .map(|(file, is_armed)| Rule {
                id: "UPGRADE_CPE1".to_owned(),
                file: (*file).to_owned(),
                is_armed: *is_armed,
            })
            .collect();
        self.facts.at_the_end.clone_from(&rules);
        self.facts.rules.push((at(secs), rules));
        self
    }

    fn armed(self, secs: i64) -> Self {
        self.written(secs, "create_rule", Some(FILE))
            .rules(secs, &[(FILE, true)])
    }

    fn disarmed(self, secs: i64) -> Self {
        self.written(secs, "disarm_rule", None)
            .rules(secs, &[(FILE, false)])
    }

    /// With a second job of the device, which is done.
    fn beside_another(mut self) -> Self {
        let mut body = request("job-2", "CPE1", "job-2.bin");
        body["requested_at"] = json!(start().to_string());
        self.scenario = self.scenario.send(0, &body, &[]);
        let mut of_other = Self::new().told(3_000, "completed/upgraded", "applied");
        let mut event = of_other.facts.events.remove(0);
        event.delivery = 100;
        event.body["data"]["job_id"] = json!("job-2");
        self.facts.events.push(event);
        self.flash_of(OTHER_FILE, 2_000, 2_100, AttemptResult::Success)
    }

    fn with(mut self, change: impl FnOnce(&mut Scenario, &mut Facts)) -> Self {
        change(&mut self.scenario, &mut self.facts);
        self
    }

    fn wrong(&self) -> Vec<String> {
        check::check(&self.scenario, &self.facts).0
    }
}

/// Only this is wrong with the one, and nothing with the other.
#[track_caller]
fn tells_apart(what: &str, wrong: Case, right: Case) {
    let found = wrong.wrong();
    assert!(
        found.len() == 1 && found[0].contains(what),
        "{what:?} alone is to be found: {found:#?}"
    );
    assert_eq!(right.wrong(), Vec::<String>::new(), "{what:?}");
}

const SUCCESS: AttemptResult = AttemptResult::Success;

fn fault() -> AttemptResult {
    AttemptResult::fault(9010, "not found")
}

#[test]
fn a_verdict_before_what_it_tells_of_is_found() {
    let upgraded = |secs| {
        let case = Case::new().armed(10).flash(20, 140, SUCCESS).disarmed(130);
        case.told(secs, "completed/upgraded", "applied")
    };
    tells_apart("had not reported success", upgraded(139), upgraded(140));
    let done = |made| upgraded(150).copied(made, 0, None);
    let done = |made| done(made).saying("reason", json!("already_done"));
    tells_apart("no delivery came again", done(1), done(2));
    let faulted = |code: u16, secs| {
        let case = Case::new().flash(20, 140, fault());
        let case = case.told(secs, "failed/device_fault", "possible");
        case.saying("fault", json!({"code": code}))
    };
    let what = "the device had not reported this fault";
    tells_apart(what, faulted(9010, 139), faulted(9010, 140));
    tells_apart(what, faulted(9011, 150), faulted(9010, 150));
    let timed_out = |secs| Case::new().told(secs, "failed/timed_out", "possible");
    tells_apart("its deadline is", timed_out(3_598), timed_out(3_600));
    let cancelled = |ordered| {
        let cancel = json!({"command": "cancel", "job_id": JOB});
        let case = Case::new().told(60, "cancelled/cancelled", "none");
        case.ordered(ordered, &cancel)
    };
    tells_apart("nobody had cancelled it", cancelled(61), cancelled(60));
}

#[test]
fn a_job_that_times_out_beside_a_device_that_is_done_is_found() {
    let timed_out = |result, until| {
        let case = Case::new().armed(10).flash(20, until, result);
        let case = case.disarmed(3_600);
        case.told(3_601, "failed/timed_out", "possible")
    };
    let what = "the device had reported success";
    tells_apart(
        what,
        timed_out(SUCCESS, 1_000),
        timed_out(AttemptResult::Silent, 1_000),
    );
    tells_apart(what, timed_out(SUCCESS, 3_200), timed_out(SUCCESS, 3_300));
    let rewritten = |results| {
        let case = timed_out(SUCCESS, 1_000).beside_another();
        case.with(|scenario, _| scenario.setup.semantics.results = results)
    };
    tells_apart(
        what,
        rewritten(Results::RowPerAttempt),
        rewritten(Results::RowRewritten),
    );
    let before_its_time = |secs| {
        timed_out(SUCCESS, 1_000).with(|scenario, _| {
            scenario.jobs[0].not_before = Some(at(10));
            scenario.skews = vec![SignedDuration::from_secs(secs)];
        })
    };
    tells_apart(what, before_its_time(0), before_its_time(60));
}

#[test]
fn a_request_that_comes_after_the_deadline_may_time_out_beside_a_device_that_is_done() {
    let asked_again = |secs: u64| {
        let case = Case::upgraded().told(3_601, "failed/timed_out", "none");
        case.copied(2, 0, Some(3_600)).with(|scenario, _| {
            let mut again = scenario.sends[0].clone();
            again.after = Duration::from_secs(secs);
            scenario.sends.push(again);
            scenario.jobs[0].may_differ = true;
        })
    };
    let what = "the device had reported success";
    tells_apart(what, asked_again(3_500), asked_again(3_600));
}

#[test]
fn a_forced_request_that_is_dated_after_the_result_may_time_out_where_no_rule_is_read() {
    let dated = |secs, reading_rules| {
        let case = Case::new().armed(10).flash(20, 140, SUCCESS);
        let case = case.disarmed(3_600);
        let case = case.told(3_601, "failed/timed_out", "possible");
        let case = case.saying("requested_at", json!(at(secs).to_string()));
        case.copied(1, 1, None).with(|scenario, _| {
            scenario.setup.semantics.reading_rules = reading_rules;
            scenario.sends[0].body["requested_at"] = Value::Null;
            scenario.sends[0].body["force"] = json!(true);
        })
    };
    let right = || dated(141, ReadingRules::Forbidden403);
    let what = "the device had reported success";
    tells_apart(what, dated(140, ReadingRules::Forbidden403), right());
    tells_apart(what, dated(141, ReadingRules::Allowed), right());
    let tagged = right().with(|scenario, _| scenario.setup.policy.tag_rules = true);
    tells_apart(what, tagged, right());
    let unforced = right().with(|scenario, _| scenario.sends[0].body["force"] = json!(false));
    tells_apart(what, unforced, right());
    let said = json!(start().to_string());
    let said = right().with(|scenario, _| scenario.sends[0].body["requested_at"] = said);
    tells_apart(what, said, right());
    tells_apart(what, right().copied(1, 0, None), right());
}

#[test]
fn a_verdict_without_its_cause_is_found() {
    let busy = |case: Case| case.told(3_600, "failed/device_busy", "none");
    tells_apart(
        "its device has no other job",
        busy(Case::new()),
        busy(Case::new().beside_another()),
    );
    let superseded = |by| {
        let case = Case::new().beside_another();
        let case = case.rules(50, &[(by, true)]).rules(90, &[(by, false)]);
        case.told(91, "failed/superseded", "possible")
    };
    tells_apart(
        "no other job had written its rule",
        superseded(FILE),
        superseded(OTHER_FILE),
    );
    let unseen = |is_tagged| {
        let stop = json!({"command": "pause", "all": true});
        let case = Case::new().told(91, "failed/superseded", "possible");
        case.ordered(90, &stop).with(|scenario, _| {
            scenario.setup.policy.tag_rules = is_tagged;
            scenario.setup.semantics.reading_rules = ReadingRules::NotImplemented501;
        })
    };
    tells_apart(
        "no other job had written its rule",
        unseen(true),
        unseen(false),
    );
    let unavailable = |failed_at| {
        let case = Case::new().told(2_000, "failed/nbi_unavailable", "none");
        case.with(|_, facts| {
            facts.failures.push(Failure {
                at: at(failed_at),
                is_unintelligible: false,
            });
        })
    };
    tells_apart("calls had not failed", unavailable(300), unavailable(100));
    let unintelligible = |count| {
        let case = Case::new().told(2_000, "failed/nbi_protocol_error", "none");
        case.with(|_, facts| {
            facts.failures = vec![
                Failure {
                    at: at(100),
                    is_unintelligible: true,
                };
                count
            ];
        })
    };
    tells_apart("too few answers", unintelligible(4), unintelligible(5));
    let rejected = |allowed: &'static [&'static str]| {
        let case = Case::new().told(1, "rejected/invalid_request", "none");
        case.with(|scenario, _| scenario.jobs[0].allowed = allowed.to_vec())
    };
    tells_apart(
        "it is valid",
        rejected(&[]),
        rejected(&["rejected/invalid_request"]),
    );
    let reason = |reason: &str| Case::upgraded().saying("reason", json!(reason));
    for reason_of_nobody in ["nbi_rejected", "nonsense"] {
        tells_apart(
            "there is no reason",
            reason(reason_of_nobody),
            reason("upgraded"),
        );
    }
    for (name, what) in [
        ("connection_request_failed", "is no reason"),
        ("already_current", "no version is read"),
        ("version_mismatch", "no version is read"),
    ] {
        tells_apart(what, reason(name), reason("upgraded"));
    }
}

#[test]
fn two_outcomes_are_found_unless_copies_may_have_told_them() {
    let two = |since, is_one_delivery: bool| {
        let case = Case::new()
            .armed(10)
            .flash(20, 3_590, SUCCESS)
            .disarmed(3_600);
        let case = case.told(3_601, "failed/timed_out", "possible");
        let case = case.told(3_602, "completed/upgraded", "applied");
        case.copied(2, 0, since).with(|scenario, facts| {
            scenario.jobs[0].may_differ = true;
            if is_one_delivery {
                facts.events[1].delivery = facts.events[0].delivery;
            }
        })
    };
    let right = || two(Some(3_602), false);
    tells_apart("has two outcomes", two(None, false), right());
    tells_apart("has two outcomes", two(Some(3_603), false), right());
    tells_apart(
        "one delivery has two outcomes",
        two(Some(100), true),
        right(),
    );
    let cancelled = |reported_at| {
        let cancel = json!({"command": "cancel", "job_id": JOB});
        let case = Case::new().armed(10).flash(20, reported_at, SUCCESS);
        let case = case.ordered(100, &cancel).disarmed(105);
        let case = case.told(110, "cancelled/cancelled", "possible");
        let case = case.told(310, "completed/upgraded", "applied");
        case.copied(2, 0, Some(1))
            .with(|scenario, _| scenario.jobs[0].may_differ = true)
    };
    tells_apart("reported after the order", cancelled(300), cancelled(99));
    let contradicting = |skewed: bool| {
        let case = Case::new().armed(10).flash(20, 140, fault());
        let case = case.flash(200, 300, SUCCESS).disarmed(310);
        let case = case.told(320, "failed/device_fault", "possible");
        let case = case.saying("fault", json!({"code": 9010}));
        let case = case.told(330, "completed/upgraded", "applied");
        case.copied(2, 0, Some(1)).with(|scenario, _| {
            scenario.jobs[0].may_differ = true;
            scenario.jobs[0].max_attempts = 2;
            if skewed {
                scenario.skews = vec![SignedDuration::ZERO, SignedDuration::from_secs(60)];
            }
        })
    };
    tells_apart("contradict", contradicting(false), contradicting(true));
    let late = |secs| {
        let case = Case::new().armed(10).flash(20, secs, fault());
        let case = case.flash(secs + 5, secs + 50, SUCCESS).disarmed(secs + 60);
        let case = case.told(secs + 20, "failed/device_fault", "possible");
        let case = case.saying("fault", json!({"code": 9010}));
        let case = case.told(secs + 70, "completed/upgraded", "applied");
        case.copied(2, 0, Some(1)).with(|scenario, _| {
            scenario.jobs[0].may_differ = true;
            scenario.jobs[0].max_attempts = 2;
        })
    };
    tells_apart("contradict", late(1_000), late(3_300));
    let undated = |is_undated: bool| {
        contradicting(false).with(|scenario, _| {
            let again = scenario.sends[0].clone();
            scenario.sends.push(again);
            for send in &mut scenario.sends {
                if is_undated {
                    send.body["requested_at"] = Value::Null;
                }
            }
        })
    };
    tells_apart("contradict", undated(false), undated(true));
    let trying = |failed_attempt| {
        contradicting(false).with(|s, _| s.setup.semantics.failed_attempt = failed_attempt)
    };
    tells_apart(
        "contradict",
        trying(FailedAttempt::UsesUpExecution),
        trying(FailedAttempt::KeepsExecution),
    );
    let repeat = |member: &str, value: &str| {
        let case = Case::upgraded().told(152, "completed/upgraded", "applied");
        case.saying(member, json!(value))
    };
    let what = "came twice and differs";
    tells_apart(what, repeat("firmware_url", "x"), repeat("attempts", "2"));
    tells_apart(
        what,
        repeat("requested_at", "x"),
        repeat("reason", "already_done").copied(2, 0, None),
    );
    let other_id = |id: &str| {
        let case = Case::upgraded().told(152, "completed/upgraded", "applied");
        let id = id.to_owned();
        case.with(|_, facts| facts.events[1].id = id)
    };
    tells_apart("under two ids", other_id("b"), other_id("completed"));
}

#[test]
fn a_job_without_an_end_or_with_a_late_one_is_found() {
    let silent = || Case::new().armed(10).disarmed(3_600);
    let told = |secs| silent().told(secs, "failed/timed_out", "possible");
    tells_apart("has no outcome", silent(), told(3_601));
    tells_apart("at the latest it must", told(4_502), told(4_500));
    let named_behind_one_of = |first_secs, secs| {
        let case = Case::new().told(secs, "failed/timed_out", "none");
        case.with(|scenario, _| {
            let first = request("job-2", "CPE2", "job-2.bin");
            let body = scenario.sends[0].body.clone();
            let sent = Scenario::new("by hand").send(first_secs, &first, &[]);
            *scenario = sent.send(0, &body, &[]);
            scenario.jobs.retain(|job| job.job_id == JOB);
        })
    };
    let right = || named_behind_one_of(4_000, 4_901);
    tells_apart(
        "at the latest it must",
        named_behind_one_of(4_000, 4_902),
        right(),
    );
    tells_apart(
        "at the latest it must",
        named_behind_one_of(3_999, 4_901),
        right(),
    );
    let left = |left| Case::upgraded().with(|_, facts| facts.left = left);
    tells_apart("messages are left", left(1), left(0));
    let dead = |dead: &str| {
        let dead = dead.to_owned();
        Case::upgraded().with(|scenario, facts| {
            scenario.dead = ["a b"].into();
            facts.dead = vec![dead];
        })
    };
    tells_apart("dead letters", dead("a c"), dead("a b"));
}

/// A device that was flashed twice for its job.
fn twice() -> Case {
    let case = Case::upgraded().armed(160).flash(170, 290, SUCCESS);
    let case = case.disarmed(300).copied(2, 0, Some(5));
    case.with(|scenario, _| {
        scenario.jobs[0].may_differ = true;
        scenario.jobs[0].max_attempts = 2;
    })
}

#[test]
fn a_second_flash_is_found_unless_a_cause_was_there() {
    let what = "was flashed 2 times";
    let blind = |reading_rules, since| {
        let case = twice().copied(2, 0, since);
        case.with(|scenario, facts| {
            scenario.setup.semantics.reading_rules = reading_rules;
            // What comes after an end is another rule's matter.
            facts.events[0].at = at(301);
        })
    };
    let forbidden = ReadingRules::Forbidden403;
    let right = || blind(forbidden, Some(170));
    tells_apart(what, blind(ReadingRules::Allowed, Some(5)), right());
    tells_apart(what, blind(forbidden, Some(171)), right());
    tells_apart(
        what,
        blind(ReadingRules::NeverFound404, None).copied(1, 0, None),
        blind(ReadingRules::NeverFound404, None).copied(1, 1, None),
    );
    let lost = |file: &'static str| {
        let case = twice().with(|s, _| s.setup.semantics.put = Put::Replace);
        case.with(|_, facts| facts.rules[1].1[0].file = file.to_owned())
    };
    tells_apart(what, lost(FILE), lost(""));
    // It need not have been asked for twice: another job's copies may have made the second rule.
    let doubled = |count| {
        twice().copied(1, 0, None).with(|scenario, facts| {
            scenario.setup.semantics.post_on_existing = PostOnExisting::Duplicate;
            let rule = facts.rules[1].1[0].clone();
            facts.rules[1].1 = vec![rule; count];
            // What comes after an end is another rule's matter.
            facts.events[0].at = at(301);
        })
    };
    tells_apart(what, doubled(1), doubled(2));
    let rewritten = |results| {
        let case = twice().beside_another();
        case.with(|scenario, facts| {
            scenario.setup.semantics.results = results;
            let flashes = &mut facts.devices[0].flashes;
            let other = flashes.last_mut().unwrap();
            (other.started_at, other.ended_at) = (at(155), Some(at(159)));
        })
    };
    tells_apart(
        what,
        rewritten(Results::RowPerAttempt),
        rewritten(Results::RowRewritten),
    );
    let skewed = |cleanup: &str, secs| {
        let cleanup = json!(cleanup);
        twice().with(|scenario, _| {
            scenario.skews = vec![SignedDuration::from_secs(secs)];
            scenario.sends[0].body["cleanup"] = cleanup;
        })
    };
    tells_apart(what, skewed("delete", 0), skewed("delete", 60));
    tells_apart(what, skewed("deactivate", 60), skewed("delete", 60));
    let turned_off = |tags, tries| {
        twice().with(|scenario, _| {
            scenario.setup.semantics.taken_rule = TakenRule::TurnsOff;
            scenario.setup.policy.tag_rules = tags;
            scenario.jobs[0].max_attempts = tries;
            // Each copy counts its own tries.
            scenario.faults.ack_lost = 0.1;
        })
    };
    tells_apart(what, turned_off(true, 1), turned_off(false, 1));
    tells_apart(what, turned_off(true, 1), turned_off(true, 2));
    let paused = |secs| {
        let stop = json!({"command": "pause", "all": true});
        let go = json!({"command": "resume", "all": true});
        let case = twice().ordered(secs, &stop).ordered(secs + 1, &go);
        case.with(|scenario, _| {
            let again = scenario.sends[0].clone();
            scenario.sends.push(again);
        })
    };
    tells_apart(what, paused(400), paused(140));
}

#[test]
fn a_silent_device_is_flashed_again_only_where_its_trace_was_gone() {
    let what = "was flashed 2 times";
    let silent = AttemptResult::Silent;
    let again = |result, gone_at, rules: &[(&str, bool)]| {
        let case = Case::new().armed(10).flash(20, 140, result);
        let case = case.rules(gone_at, rules).armed(160);
        let case = case.flash(170, 290, SUCCESS).disarmed(300);
        let case = case.told(301, "completed/upgraded", "applied");
        case.copied(2, 0, None)
            .with(|scenario, _| scenario.jobs[0].max_attempts = 2)
    };
    let right = || again(silent.clone(), 150, &[(OTHER_FILE, true)]);
    tells_apart(what, again(SUCCESS, 150, &[(OTHER_FILE, true)]), right());
    let deleted = again(silent.clone(), 150, &[]);
    tells_apart(what, again(silent.clone(), 150, &[(FILE, false)]), deleted);
    let lost_its_file = again(silent.clone(), 150, &[("", false)]);
    tells_apart(what, lost_its_file, right());
    let before = again(silent.clone(), 20, &[(OTHER_FILE, true)]);
    tells_apart(what, before, right());
    tells_apart(what, right().copied(1, 0, None), right());
    // A row without a verdict tells that it has begun, for half an hour.
    let with_a_row = |armed| {
        let case = Case::new().armed(10).flash(20, 140, AttemptResult::Silent);
        let case = case.rules(150, &[(OTHER_FILE, false)]).armed(armed);
        let case = case.flash(armed + 10, armed + 130, SUCCESS);
        let case = case.disarmed(armed + 140);
        let case = case.told(armed + 141, "completed/upgraded", "applied");
        case.copied(2, 0, None).with(|scenario, _| {
            scenario.jobs[0].max_attempts = 2;
            scenario.setup.semantics.incomplete = Incomplete::UndecidedRow;
        })
    };
    tells_apart(what, with_a_row(1_819), with_a_row(1_820));
    // Each of them must be explained.
    let thrice = |rules: &[(&str, bool)]| {
        let case = again(silent.clone(), 150, &[]);
        let case = case.with(|scenario, facts| {
            scenario.jobs[0].max_attempts = 3;
            facts.devices[0].flashes[1].result = AttemptResult::Silent;
            facts.events.clear();
        });
        let case = case.rules(310, rules).armed(320);
        let case = case.flash(330, 450, SUCCESS).disarmed(460);
        case.told(461, "completed/upgraded", "applied")
    };
    tells_apart(
        "was flashed 3 times",
        thrice(&[(FILE, false)]),
        thrice(&[(OTHER_FILE, false)]),
    );
}

#[test]
fn a_further_attempt_is_run_twice_only_where_a_copy_put_it_away_too_early() {
    let what = "was flashed 2 times";
    let run = |put_away, armed, since| {
        let case = Case::new().armed(10).flash(20, 140, fault()).disarmed(150);
        let case = case.armed(800).flash(810, 1_000, SUCCESS);
        let case = case.disarmed(put_away).armed(armed);
        let case = case.flash(1_100, 1_200, SUCCESS).disarmed(1_210);
        let case = case.told(1_211, "completed/upgraded", "applied");
        case.copied(2, 0, Some(since)).with(|scenario, _| {
            scenario.jobs[0].may_differ = true;
            scenario.jobs[0].max_attempts = 3;
        })
    };
    let right = || run(850, 1_000, 810);
    tells_apart(what, run(1_001, 1_002, 810), right());
    tells_apart(what, run(850, 1_001, 810), right());
    tells_apart(what, run(850, 1_000, 811), right());
    let tagged = right().with(|scenario, _| scenario.setup.policy.tag_rules = true);
    tells_apart(what, tagged, right());
    let first = right().with(|_, facts| {
        facts.devices[0].flashes.remove(0);
    });
    tells_apart(what, first, right());
    let tries = |max_attempts| {
        right().with(|scenario, _| {
            scenario.jobs[0].max_attempts = max_attempts;
            // Each copy counts its own tries.
            scenario.faults.ack_lost = 0.1;
        })
    };
    tells_apart(what, tries(1).copied(3, 0, Some(810)), tries(2));
}

#[test]
fn a_result_is_taken_for_an_older_one_only_where_clocks_are_wrong() {
    let what = "was flashed 2 times";
    // The NBI is behind, and so is a worker, which does not see it.
    let behind = |skew, result_time| {
        twice().with(|scenario, _| {
            scenario.setup.semantics.clock_offset = SignedDuration::from_secs(-100);
            scenario.setup.semantics.result_time = result_time;
            scenario.skews = vec![SignedDuration::from_secs(skew)];
        })
    };
    let right = || behind(-96, ResultTime::Begin);
    tells_apart(what, behind(0, ResultTime::Begin), right());
    // Seen as behind by five seconds, or more: the time of the row is set right.
    tells_apart(what, behind(60, ResultTime::Begin), right());
    // By its end it is not older than the request.
    tells_apart(what, behind(-96, ResultTime::End), right());
    let tagged = right().with(|scenario, _| scenario.setup.policy.tag_rules = true);
    tells_apart(what, tagged, right());
    // A worker that is ahead has dated the request after its result.
    let dated = |secs, sent_after| {
        let case = twice().with(|scenario, facts| {
            let date = json!(at(secs).to_string());
            facts.events[0].body["data"]["requested_at"] = date;
            scenario.skews = [200, 0].map(SignedDuration::from_secs).to_vec();
            let send = &mut scenario.sends[0];
            send.after = Duration::from_secs(sent_after);
            send.body["requested_at"] = Value::Null;
            send.body["force"] = json!(true);
        });
        case.with(|_, facts| facts.events[0].at = at(170))
    };
    tells_apart(what, dated(140, 0), dated(141, 0));
    // By true clocks it is an order of its own.
    tells_apart(what, dated(141, 141), dated(141, 140));
    let unforced = dated(141, 0).with(|s, _| s.sends[0].body["force"] = json!(false));
    tells_apart(what, unforced, dated(141, 0));
    // Nobody had said so when the device ran again.
    let later = dated(141, 0).with(|_, facts| facts.events[0].at = at(171));
    tells_apart(what, later, dated(141, 0));
}

#[test]
fn tries_beyond_what_was_asked_for_are_found() {
    let tried = |max_attempts| {
        let case = Case::new().armed(10).flash(20, 140, fault());
        let case = case.flash(200, 300, fault()).disarmed(310);
        let case = case.told(311, "failed/device_fault", "possible");
        let case = case.saying("fault", json!({"code": 9010}));
        case.with(|scenario, _| scenario.jobs[0].max_attempts = max_attempts)
    };
    tells_apart("tried 2 times", tried(1), tried(2));
}

#[test]
fn what_is_done_at_the_wrong_time_is_found() {
    let not_before = |secs| {
        let case = Case::upgraded();
        case.with(|scenario, _| scenario.jobs[0].not_before = Some(at(secs)))
    };
    tells_apart(
        "flash at",
        not_before(22).with(|_, f| f.writes.clear()),
        not_before(10),
    );
    tells_apart("before not_before", not_before(12), not_before(11));
    let after_the_end = |since| {
        let case = Case::upgraded().armed(200).disarmed(201);
        let case = case.copied(2, 0, since);
        case.with(|scenario, _| scenario.jobs[0].may_differ = true)
    };
    let what = "after the final event";
    tells_apart(what, after_the_end(None), after_the_end(Some(200)));
    tells_apart(what, after_the_end(Some(201)), after_the_end(Some(200)));
    let paused = |secs| {
        let stop = json!({"command": "pause", "all": true});
        let go = json!({"command": "resume", "all": true});
        Case::upgraded().ordered(1, &stop).ordered(secs, &go)
    };
    tells_apart("which an order forbids", paused(11), paused(10));
    let woken = |secs| Case::upgraded().written(secs, "connection_request", None);
    tells_apart("which no job of it may do", woken(152), woken(15));
    let cut_off = woken(152).with(|_, facts| facts.copies.get_mut(JOB).unwrap().cut_off = 1);
    tells_apart("which no job of it may do", woken(152), cut_off);
    let woken_in_a_pause = |secs| {
        let stop = json!({"command": "pause", "all": true});
        let go = json!({"command": "resume", "all": true});
        let case = Case::upgraded().ordered(40, &stop).ordered(140, &go);
        case.written(secs, "connection_request", None)
    };
    tells_apart(
        "which no job of it may do",
        woken_in_a_pause(75),
        woken_in_a_pause(74),
    );
    let file = |file| {
        let case = Case::upgraded().written(15, "create_rule", Some(file));
        case.written(16, "disarm_rule", None)
    };
    tells_apart("which no job has", file(OTHER_FILE), file(FILE));
}

#[test]
fn what_is_armed_for_too_long_is_found() {
    let deadline_and_the_rest = 3_600 + 900 + 1;
    let disarmed_at = |secs| {
        let case = Case::new().armed(10).disarmed(secs);
        case.told(3_601, "failed/timed_out", "possible")
            .copied(2, 0, Some(5))
            .with(|scenario, _| scenario.jobs[0].may_differ = true)
    };
    let late = deadline_and_the_rest + 1;
    tells_apart(
        "is armed still at",
        disarmed_at(late),
        disarmed_at(late - 1),
    );
    let armed_again = |secs, since| {
        let case = Case::upgraded().armed(secs).disarmed(secs + 1);
        case.copied(2, 0, since)
            .with(|scenario, _| scenario.jobs[0].may_differ = true)
    };
    let copied = Some(100);
    tells_apart(
        "armed or run at",
        armed_again(late, copied),
        armed_again(late - 10, copied),
    );
    let left = |leaves_rule, file: &'static str| {
        Case::upgraded().with(|scenario, facts| {
            scenario.jobs[0].leaves_rule = leaves_rule;
            facts.at_the_end = vec![Rule {
                id: "UPGRADE_CPE1".to_owned(),
                file: file.to_owned(),
                is_armed: true,
            }];
        })
    };
    tells_apart("rules are left armed", left(false, FILE), left(true, FILE));
    tells_apart(
        "rules are left armed",
        left(true, OTHER_FILE),
        left(true, FILE),
    );
    let disarmed_late = |secs| {
        let case = Case::new().armed(10).flash(20, 140, SUCCESS);
        case.disarmed(secs)
            .told(151, "completed/upgraded", "applied")
    };
    let what = "is armed at the final event";
    tells_apart(what, disarmed_late(152), disarmed_late(151));
}

#[test]
fn an_impact_that_is_not_true_is_found() {
    let none = |made, since| {
        let case = Case::new().armed(10).flash(20, 140, AttemptResult::Silent);
        let case = case.disarmed(3_600).told(3_601, "failed/timed_out", "none");
        case.copied(made, 0, since)
            .with(|scenario, _| scenario.jobs[0].may_differ = true)
    };
    tells_apart("with impact none", none(1, None), none(2, Some(30)));
    let failed_first = |asked_again| {
        let case = Case::new().told(100, "failed/nbi_protocol_error", "none");
        let case = case.armed(210).flash(220, 340, SUCCESS).disarmed(350);
        let case = case.told(351, "completed/upgraded", "applied");
        case.copied(2, 0, Some(200)).with(|scenario, facts| {
            scenario.jobs[0].may_differ = true;
            let mut again = scenario.sends[0].clone();
            again.after = Duration::from_secs(asked_again);
            scenario.sends.push(again);
            let failure = Failure {
                at: at(50),
                is_unintelligible: true,
            };
            facts.failures = vec![failure; 5];
        })
    };
    tells_apart("with impact none", failed_first(211), failed_first(210));
    // It was asked for again before it failed.
    tells_apart("with impact none", failed_first(100), failed_first(101));
    let applied = |impact| Case::new().told(3_601, "failed/superseded", impact);
    let beside = |impact| {
        let mut case = applied(impact).beside_another();
        case = case
            .rules(50, &[(OTHER_FILE, true)])
            .rules(90, &[(OTHER_FILE, false)]);
        case
    };
    tells_apart("was never flashed", beside("applied"), beside("possible"));
}

#[test]
fn more_calls_and_copies_than_there_may_be_are_found() {
    let calls = |calls, most: Option<usize>| {
        Case::upgraded().with(|scenario, facts| {
            scenario.calls = most;
            facts.calls = calls;
        })
    };
    let what = "NBI calls, at most";
    tells_apart(what, calls(1, Some(0)), calls(0, Some(0)));
    tells_apart(what, calls(17, Some(16)), calls(16, Some(16)));
    let again = |calls: usize, made, of_the_dead, given_back| {
        let case = Case::upgraded().copied(made, given_back, None);
        case.with(|scenario, facts| {
            scenario.calls = Some(20);
            facts.calls = calls;
            facts.copies.get_mut(JOB).unwrap().of_the_dead = of_the_dead;
        })
    };
    tells_apart(what, again(45, 1, 0, 1), again(44, 1, 0, 1));
    tells_apart(what, again(89, 1, 1, 0), again(88, 1, 1, 0));
    tells_apart(what, again(89, 2, 0, 0), again(88, 2, 0, 0));
    let copies = |most, crashes| {
        let case = Case::upgraded().copied(1, 5, None);
        case.with(|_, facts| {
            facts.copies.get_mut(JOB).unwrap().most = most;
            facts.crashes = crashes;
        })
    };
    tells_apart("copies of job-1", copies(2, 0), copies(2, 1));
}
