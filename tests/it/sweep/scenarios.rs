//! What is run: a world, the requests and what may come of them.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nbi_upgrade::job::policy::OnBusy;
use nbi_upgrade::simulator::{
    AttemptResult, Device, FailedAttempt, Filter, Incomplete, Operation, PostOnExisting,
    ReadingRules, ResultTime, Results, TakenRule, Trouble, TroublePlan,
};
use serde_json::{Value, json};

use super::broken::Broken;
use super::faults::{Cut, Faults};
use crate::support::world::{Setup, request, start};

/// A request, so long after the beginning.
#[derive(Debug, Clone)]
pub(crate) struct Send {
    pub(crate) after: Duration,
    pub(crate) job: String,
    pub(crate) body: Value,
}

impl Send {
    /// When it is sent.
    pub(crate) fn at(&self) -> Timestamp {
        start() + SignedDuration::try_from(self.after).unwrap()
    }
}

/// An operator's command, so long after the beginning.
#[derive(Debug, Clone)]
pub(crate) struct Ordered {
    pub(crate) after: Duration,
    pub(crate) body: String,
}

/// What may come of a job.
#[derive(Debug, Clone)]
pub(crate) struct JobExpectation {
    pub(crate) job_id: String,
    pub(crate) cpe_id: String,
    pub(crate) campaign_id: String,
    pub(crate) file: String,
    pub(crate) not_before: Option<Timestamp>,
    /// Of the first request, or the time at which that is sent, if later.
    pub(crate) deadline: Timestamp,
    pub(crate) max_attempts: usize,
    /// `outcome/reason`; empty: any that the facts bear out (`verdicts.rs`).
    pub(crate) allowed: Vec<&'static str>,
    /// Whether copies may judge differently: a known limit.
    pub(crate) may_differ: bool,
    /// Whether its rule is left armed, as the request asks for it.
    pub(crate) leaves_rule: bool,
}

/// A scenario.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) setup: Setup,
    pub(crate) workers: usize,
    /// How wrong the clocks of the workers are, in turn.
    pub(crate) skews: Vec<SignedDuration>,
    /// What an NBI call takes a worker at least, in turn.
    pub(crate) ways: Vec<Duration>,
    pub(crate) faults: Faults,
    pub(crate) sends: Vec<Send>,
    pub(crate) commands: Vec<Ordered>,
    /// When a worker is told to stop, with a second of grace; another one takes its place.
    pub(crate) stops: Vec<Duration>,
    pub(crate) jobs: Vec<JobExpectation>,
    /// Rows of two days ago: device, code, message.
    pub(crate) old_results: Vec<(String, i64, String)>,
    /// Dead letters: job and reason.
    pub(crate) dead: BTreeSet<&'static str>,
    /// When everything must be over.
    pub(crate) patience: Duration,
    /// How long devices go on living afterwards.
    pub(crate) aftermath: Duration,
    /// NBI calls without a crash, once that is known.
    pub(crate) calls: Option<usize>,
    pub(crate) broken: Option<Broken>,
}

impl Scenario {
    /// A world of one device without requests.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            setup: Setup::default(),
            workers: 2,
            skews: vec![SignedDuration::ZERO],
            ways: vec![Duration::from_millis(2)],
            faults: Faults::default(),
            sends: Vec::new(),
            commands: Vec::new(),
            stops: Vec::new(),
            jobs: Vec::new(),
            old_results: Vec::new(),
            dead: BTreeSet::new(),
            patience: Duration::from_hours(12),
            aftermath: Duration::from_hours(3),
            calls: None,
            broken: None,
        }
    }

    /// The same after this change.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Sends a request and says what may come of it. One follows the other: none is sent before those that were named before it.
    pub(crate) fn send(mut self, after_secs: u64, body: &Value, allowed: &[&'static str]) -> Self {
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        let job = text("job_id");
        let before = self.sends.last().map_or(Duration::ZERO, |send| send.after);
        let send = Send {
            after: before.max(Duration::from_secs(after_secs)),
            job: job.clone(),
            body: body.clone(),
        };
        let sent_at = send.at();
        self.sends.push(send);
        if self.jobs.iter().all(|known| known.job_id != job) {
            let time = |field: &str| text(field).parse::<Timestamp>().ok();
            let begins_at = time("requested_at")
                .unwrap_or(sent_at)
                .max(time("not_before").unwrap_or_default());
            let deadline = time("deadline").unwrap_or(begins_at + self.setup.requests.timeout);
            self.jobs.push(JobExpectation {
                job_id: job,
                cpe_id: text("cpe_id"),
                campaign_id: text("campaign_id"),
                file: text("firmware_url"),
                not_before: time("not_before"),
                deadline: deadline.max(sent_at),
                max_attempts: usize::try_from(body["max_attempts"].as_u64().unwrap_or(1)).unwrap(),
                allowed: allowed.to_vec(),
                may_differ: false,
                leaves_rule: false,
            });
        }
        self
    }

    /// Gives a command.
    pub(crate) fn order(mut self, after_secs: u64, body: &Value) -> Self {
        self.commands.push(Ordered {
            after: Duration::from_secs(after_secs),
            body: body.to_string(),
        });
        self
    }

    /// How wrong the clock of a worker is at most.
    pub(crate) fn skew_max(&self) -> SignedDuration {
        let skews = self.skews.iter().map(|skew| skew.abs());
        skews.max().unwrap_or_default()
    }

    /// Whether what a crash leaves is delivered again at once.
    pub(crate) fn comes_at_once(&self) -> bool {
        self.faults.redelivers_after.is_zero()
    }

    /// Whether the broker does nothing wrong by itself.
    pub(crate) fn is_calm(&self) -> bool {
        let faults = &self.faults;
        let chances = [
            faults.duplicate,
            faults.confirm_lost,
            faults.confirm_late,
            faults.ack_lost,
            faults.ack_vanishes,
            // The one before a continuation may be in hand as long as the one after it.
            faults.overtakes,
            faults.duplicate_request,
        ];
        faults.restarts.is_empty()
            && faults.cuts.is_empty()
            && chances.iter().all(|chance| *chance == 0.0)
    }
}

const DONE: &[&str] = &["completed/upgraded", "completed/already_done"];
const TAKEN: &[&str] = &[
    "completed/upgraded",
    "completed/already_done",
    "failed/superseded",
];
const FAULT: &[&str] = &["failed/device_fault"];
const LATE: &[&str] = &["failed/timed_out"];
const MAYBE: &[&str] = &[
    "completed/upgraded",
    "completed/already_done",
    "failed/timed_out",
];

/// A request with its time, as a careful publisher sends it.
fn asked(job: &str) -> Value {
    let mut body = request(job, "CPE1", &format!("{job}.bin"));
    body["requested_at"] = json!("2026-11-23T12:00:00Z");
    body
}

fn one(name: &str, allowed: &[&'static str]) -> Scenario {
    Scenario::new(name).send(0, &asked("job-1"), allowed)
}

fn troubled(name: &str, plan: TroublePlan) -> Scenario {
    one(name, DONE).with(|scenario| scenario.setup.troubles = plan)
}

fn spell(trouble: Trouble, from_secs: i64, until_secs: i64) -> TroublePlan {
    let at = |secs| start() + SignedDuration::from_secs(secs);
    TroublePlan::new(1).spell(trouble, at(from_secs), at(until_secs))
}

fn device(change: impl FnOnce(&mut Device)) -> Vec<Device> {
    let mut device = Device::new("CPE1");
    change(&mut device);
    vec![device]
}

fn plain() -> Vec<Scenario> {
    let transient = || {
        Device::new("CPE1").with_attempts(&[
            AttemptResult::fault(9017, "broken off"),
            AttemptResult::Success,
        ])
    };
    let mut twice = asked("job-1");
    twice["max_attempts"] = json!(2);
    let mut brief = asked("job-1");
    brief["deadline"] = json!("2026-11-23T12:20:00Z");
    let mut delete = asked("job-1");
    delete["cleanup"] = json!("delete");
    let mut keep = asked("job-1");
    keep["cleanup"] = json!("keep");
    let undated = request("job-1", "CPE1", "job-1.bin");
    let mut forced = undated.clone();
    forced["force"] = json!(true);
    let mut tonight = asked("job-1");
    // No whole number of seconds away: the delay queues bring it a little early.
    tonight["not_before"] = json!("2026-11-23T13:30:00.4Z");
    let fault = AttemptResult::fault(9010, "Download failure. File not found.");
    vec![
        one("success", DONE),
        one("history", DONE).with(|s| {
            s.old_results = vec![("CPE1".to_owned(), 200, "OK".to_owned())];
        }),
        one("permanent_fault", FAULT).with(|s| {
            s.setup.devices = vec![Device::new("CPE1").with_attempts(std::slice::from_ref(&fault))];
        }),
        Scenario::new("transient_fault")
            .send(0, &twice, DONE)
            .with(|s| s.setup.devices = vec![transient()]),
        Scenario::new("transient_fault_keeps_execution")
            .send(0, &twice, DONE)
            .with(|s| {
                s.setup.devices = vec![transient()];
                s.setup.semantics.failed_attempt = FailedAttempt::KeepsExecution;
                s.setup.semantics.results = Results::RowRewritten;
            }),
        Scenario::new("timeout").send(0, &brief, LATE).with(|s| {
            s.setup.devices = vec![Device::new("CPE1").with_attempts(&[AttemptResult::Silent])];
        }),
        one("offline", DONE).with(|s| {
            s.setup.devices = device(|device| {
                device.offline_until = Some(start() + SignedDuration::from_mins(12));
            });
        }),
        Scenario::new("never_online")
            .send(0, &brief, LATE)
            .with(|s| {
                s.setup.devices = device(|device| device.offline_until = Some(Timestamp::MAX));
            }),
        Scenario::new("not_before").send(0, &tonight, DONE),
        Scenario::new("undated").send(0, &undated, DONE),
        Scenario::new("undated_forced").send(0, &forced, DONE),
        Scenario::new("undated_permanent_fault")
            .send(0, &undated, FAULT)
            .with(|s| {
                s.setup.devices =
                    vec![Device::new("CPE1").with_attempts(std::slice::from_ref(&fault))];
            }),
        one("time_of_the_begin", DONE).with(|s| {
            s.setup.semantics.incomplete = Incomplete::UndecidedRow;
            s.setup.semantics.result_time = ResultTime::Begin;
        }),
        Scenario::new("time_of_the_begin_keeps_execution")
            .send(0, &twice, DONE)
            .with(|s| {
                s.setup.devices = vec![transient()];
                s.setup.semantics.failed_attempt = FailedAttempt::KeepsExecution;
                s.setup.semantics.incomplete = Incomplete::UndecidedRow;
                s.setup.semantics.result_time = ResultTime::Begin;
            }),
        Scenario::new("cleanup_delete").send(0, &delete, DONE),
        Scenario::new("cleanup_keep")
            .send(0, &keep, DONE)
            .with(|s| s.jobs[0].leaves_rule = true),
    ]
}

/// Copies may judge a take-over differently; a known limit.
fn either_way(scenario: &mut Scenario) {
    for job in &mut scenario.jobs {
        job.allowed = TAKEN.to_vec();
        job.may_differ = true;
    }
}

fn several() -> Vec<Scenario> {
    let twins = |name: &str, after| one(name, DONE).send(after, &asked("job-1"), DONE);
    let mut long = asked("job-1");
    long["deadline"] = json!("2026-11-24T12:00:00Z");
    let two_jobs = |name: &str, on_busy, first: &[&'static str]| {
        Scenario::new(name)
            .send(0, &asked("job-1"), first)
            .send(10, &asked("job-2"), DONE)
            .with(|s| {
                s.setup.policy.on_busy = on_busy;
                s.setup.devices = device(|device| {
                    device.session_delay = SignedDuration::from_secs(25);
                });
            })
    };
    vec![
        twins("duplicate_at_once", 0),
        twins("duplicate_while_flashing", 60),
        Scenario::new("duplicate_later")
            .send(0, &long, DONE)
            .send(7_200, &long, DONE),
        // Without tags, a copy that looks when the other job has the rule cannot tell whose the result is.
        two_jobs("two_jobs_wait", OnBusy::Wait, TAKEN).with(either_way),
        two_jobs("two_jobs_tagged_delete", OnBusy::Wait, DONE).with(|s| {
            s.sends
                .iter_mut()
                .for_each(|send| send.body["cleanup"] = json!("delete"));
            s.setup.policy.tag_rules = true;
        }),
        two_jobs("two_jobs_tagged", OnBusy::Wait, DONE).with(|s| {
            s.setup.policy.tag_rules = true;
        }),
        // A crash may bring the first request after the second one: then it is the one that takes over.
        two_jobs("two_jobs_supersede", OnBusy::Supersede, TAKEN).with(either_way),
    ]
}

/// What operators order, before, while and after a device is at it.
fn ordered() -> Vec<Scenario> {
    let cancel = json!({"command": "cancel", "job_id": "job-1"});
    let pause = json!({"command": "pause", "campaign_id": "c"});
    let resume = json!({"command": "resume", "campaign_id": "c"});
    let stop = json!({"command": "pause", "all": true});
    let go = json!({"command": "resume", "all": true});
    let vouched = json!({"command": "resume", "campaign_id": "c", "arm_again_after": "10m"});
    let mut of_campaign = asked("job-1");
    of_campaign["campaign_id"] = json!("c");
    of_campaign["deadline"] = json!("2026-11-23T20:00:00Z");
    let campaign = |name: &str, after| {
        Scenario::new(name)
            .send(after, &of_campaign, DONE)
            .with(|s| s.setup.policy.flash_time_max = SignedDuration::from_mins(10))
    };
    let mut brief = of_campaign.clone();
    brief["deadline"] = json!("2026-11-23T12:20:00Z");
    let mut brief_delete = brief.clone();
    brief_delete["cleanup"] = json!("delete");
    let mut short = of_campaign.clone();
    short["deadline"] = json!("2026-11-23T13:00:00Z");
    let offline_for = |secs| {
        device(|device| device.offline_until = Some(start() + SignedDuration::from_secs(secs)))
    };
    let late_comer =
        || device(|device| device.offline_until = Some(start() + SignedDuration::from_mins(12)));
    let slow = || device(|device| device.session_delay = SignedDuration::from_secs(50));
    vec![
        Scenario::new("cancel_before")
            .send(5, &asked("job-1"), &["cancelled/cancelled"])
            .order(0, &cancel),
        one("cancel_armed", &["cancelled/cancelled"])
            .order(40, &cancel)
            .with(|s| s.setup.devices = late_comer()),
        one("cancel_keep", &["cancelled/cancelled"])
            .order(40, &cancel)
            .with(|s| {
                s.sends[0].body["cleanup"] = json!("keep");
                s.setup.devices = late_comer();
            }),
        // The device is at it: whether it had reported by then is the device's matter.
        one("cancel_flashing", &["cancelled/cancelled"]).order(30, &cancel),
        one("cancel_too_late", DONE).order(3_000, &cancel),
        campaign("pause_before", 5)
            .order(0, &pause)
            .order(600, &resume),
        campaign("pause_armed", 0)
            .order(40, &pause)
            .order(400, &resume)
            .with(|s| s.setup.devices = late_comer()),
        // It calls in while nothing may begin, and is there when it goes on.
        campaign("pause_call_in", 0)
            .order(40, &pause)
            .order(1_500, &resume)
            .with(|s| {
                s.setup.devices = device(|device| {
                    device.offline_until = Some(start() + SignedDuration::from_mins(15));
                });
            }),
        campaign("pause_flashing", 0)
            .order(30, &stop)
            .order(90, &go)
            .with(|s| s.setup.devices = slow()),
        campaign("pause_brief", 0)
            .order(1, &stop)
            .order(20, &go)
            .with(|s| s.setup.devices = slow()),
        // Until the resume, and for a while, no write has an answer. What comes back after the resume cannot tell that it has disarmed.
        Scenario::new("pause_writes_unanswered")
            .send(0, &short, MAYBE)
            .order(2, &pause)
            .order(400, &resume)
            .with(|s| {
                s.setup.policy.flash_time_max = SignedDuration::from_mins(10);
                s.setup.troubles = TroublePlan::new(1)
                    .with(Trouble::AnswerLost, 1.0)
                    .only(&[Operation::CreateRule, Operation::DisarmRule])
                    .quiet_from(start() + SignedDuration::from_secs(450));
                s.setup.devices = late_comer();
            }),
        campaign("pause_unanswered", 0)
            .order(40, &pause)
            .order(400, &resume)
            .with(|s| {
                s.setup.troubles = spell(Trouble::AnswerLost, 38, 150);
                s.setup.devices = late_comer();
            }),
        // Nobody says when a device has certainly not begun.
        Scenario::new("pause_plain")
            .send(0, &short, MAYBE)
            .order(40, &pause)
            .order(400, &resume)
            .with(|s| s.setup.devices = late_comer()),
        Scenario::new("pause_plain_flashing")
            .send(0, &of_campaign, DONE)
            .order(30, &pause)
            .order(90, &resume),
        // It goes on until the deadline. What a crash brings late has not begun.
        Scenario::new("pause_to_the_end")
            .send(0, &brief, MAYBE)
            .order(40, &pause),
        Scenario::new("pause_to_the_end_delete")
            .send(0, &brief_delete, MAYBE)
            .order(40, &pause),
        // Armed again after the first one, it is paused again before the device calls in.
        Scenario::new("pause_again")
            .send(0, &of_campaign, DONE)
            .order(40, &pause)
            .order(400, &vouched)
            .order(1_040, &pause)
            .order(2_500, &vouched)
            .with(|s| s.setup.devices = offline_for(1_800)),
        // Armed again after the first one, the device is at it when it is paused again.
        campaign("pause_again_flashing", 0)
            .order(40, &pause)
            .order(100, &resume)
            .order(660, &pause)
            .order(700, &resume)
            .with(|s| s.setup.devices = offline_for(600)),
        // The resume itself says when.
        Scenario::new("pause_vouched")
            .send(0, &of_campaign, DONE)
            .order(40, &pause)
            .order(400, &vouched)
            .with(|s| s.setup.devices = late_comer()),
        Scenario::new("pause_vouched_flashing")
            .send(0, &of_campaign, DONE)
            .order(30, &pause)
            .order(90, &vouched)
            .with(|s| s.setup.devices = slow()),
    ]
}

fn nbi() -> Vec<Scenario> {
    let lost = |operation| {
        TroublePlan::new(1)
            .with(Trouble::AnswerLost, 1.0)
            .only(&[operation])
            .quiet_from(start() + SignedDuration::from_secs(1))
    };
    let minutes = SignedDuration::from_mins;
    let ahead = |name: &str, offset| {
        one(name, DONE).with(|s| s.setup.semantics.clock_offset = minutes(offset))
    };
    let skewed = |name: &str, skews: [i64; 2]| {
        one(name, DONE).with(|s| s.skews = skews.map(minutes).to_vec())
    };
    vec![
        troubled("rule_answer_lost", lost(Operation::CreateRule)),
        troubled("cnr_answer_lost", lost(Operation::ConnectionRequest)),
        troubled("nbi_down", spell(Trouble::Refused, 20, 400)),
        troubled("nbi_down_at_first", spell(Trouble::Unavailable, 0, 200)),
        troubled("credentials_refused", spell(Trouble::Unauthorized, 30, 200)),
        ahead("nbi_clock_ahead", 10),
        ahead("nbi_clock_behind", -10),
        skewed("worker_clocks_ahead", [0, 10]),
        skewed("worker_clocks_behind", [0, -10]),
        one("results_rewritten", DONE).with(|s| {
            s.setup.semantics.results = Results::RowRewritten;
            s.old_results = vec![("CPE1".to_owned(), 200, "OK".to_owned())];
        }),
        one("post_duplicates", DONE).with(|s| {
            s.setup.semantics.post_on_existing = PostOnExisting::Duplicate;
        }),
        // Without tags it tells nothing that a rule is off.
        one("taken_rule_turns_off", DONE).with(|s| {
            s.setup.semantics.taken_rule = TakenRule::TurnsOff;
            s.setup.policy.tag_rules = true;
        }),
        one("rules_unreadable_delete", MAYBE).with(|s| {
            s.jobs[0].may_differ = true;
            s.sends[0].body["cleanup"] = json!("delete");
            s.setup.semantics.reading_rules = ReadingRules::Forbidden403;
            s.setup.semantics.filter = Filter::Id;
        }),
        // Copies cannot see each other's rule, and nothing says so.
        one("rules_never_found", DONE).with(|s| {
            s.jobs[0].may_differ = true;
            s.setup.semantics.reading_rules = ReadingRules::NeverFound404;
        }),
        // A crash around the one write may leave the rule unarmed: the safe side.
        one("rules_unreadable", MAYBE).with(|s| {
            s.jobs[0].may_differ = true;
            s.setup.semantics.reading_rules = ReadingRules::Forbidden403;
        }),
    ]
}

/// What a broker does to messages of one job, or of a few.
fn broker() -> Vec<Scenario> {
    let at = |secs| start() + SignedDuration::from_secs(secs);
    let cut = |secs, lasts, worker| Cut {
        at: at(secs),
        lasts: Duration::from_secs(lasts),
        worker,
    };
    let mut invalid = asked("job-1");
    invalid["cpe_id"] = json!("DM*");
    // The circuit opens over the first job, while the others are on their way to the worker.
    let travelling = |name: &str| {
        let mut scenario = Scenario::new(name);
        for number in 1..=3 {
            let job = format!("job-{number}");
            let mut body = request(&job, &format!("CPE{number}"), &format!("{job}.bin"));
            body["force"] = json!(true);
            scenario = scenario.send(if number == 1 { 0 } else { 3 }, &body, DONE);
        }
        scenario.setup.devices = (1..=3)
            .map(|number| Device::new(&format!("CPE{number}")))
            .collect();
        scenario.setup.troubles = spell(Trouble::Refused, 0, 20);
        scenario.faults.travel = Duration::from_secs(20);
        scenario.workers = 1;
        scenario
    };
    let lossless = |name: &str, change: fn(&mut Faults)| {
        one(name, DONE).with(|scenario| change(&mut scenario.faults))
    };
    vec![
        Scenario::new("invalid")
            .send(0, &invalid, &["rejected/invalid_request"])
            .with(|s| {
                s.dead = ["job-1 invalid_request"].into();
                s.calls = Some(0);
            }),
        // What is published again while the NBI is away comes after what a crash brings again.
        travelling("nbi_down_backlog").with(|s| s.faults.backlog = Duration::from_secs(900)),
        lossless("event_overtaken", |faults| faults.overtakes = 1.0),
        lossless("ack_vanishes", |faults| faults.ack_vanishes = 0.2),
        lossless("ack_unreported", |faults| faults.ack_unreported = 1.0),
        lossless("request_twice", |faults| faults.duplicate_request = 1.0),
        one("connections_cut", DONE).with(|s| {
            s.faults.cuts = vec![
                cut(2, 20, Some(0)),
                cut(40, 60, Some(1)),
                cut(45, 30, Some(0)),
            ];
        }),
        one("broker_away", DONE).with(|s| s.faults.cuts = vec![cut(25, 90, None)]),
        // A slow worker loses its connection between two reads and goes on. Until it reads again, the other one is done.
        Scenario::new("slow_worker_cut_off")
            .send(1, &asked("job-1"), DONE)
            .with(|s| {
                s.ways = vec![Duration::from_secs(75), Duration::from_millis(2)];
                s.faults.cuts = vec![cut(0, 153, Some(1)), cut(155, 600, Some(0))];
            }),
        // Storms have it for longer than a hand-over is tried.
        one("queue_full", DONE).with(|s| s.faults.full = Some((at(20), at(100)))),
    ]
}

/// How long the broker takes to bring again what a crash left, in seconds.
const LAGS: [u64; 4] = [0, 100, 200, 600];

/// Every scenario, each with what a crash leaves coming again at once, while the device flashes, and after it is done.
pub(crate) fn all() -> Vec<Scenario> {
    let base: Vec<Scenario> = plain()
        .into_iter()
        .chain(several())
        .chain(ordered())
        .chain(nbi())
        .chain(broker())
        .collect();
    let names: BTreeSet<&str> = base.iter().map(|scenario| scenario.name.as_str()).collect();
    assert_eq!(names.len(), base.len(), "two scenarios of one name");
    let seed = std::env::var("NBI_UPGRADE_SWEEP_SEED").map_or(0, |text| text.parse().unwrap());
    let mut all = Vec::new();
    for scenario in base {
        for secs in LAGS {
            let mut scenario = scenario.clone();
            scenario.faults.redelivers_after = Duration::from_secs(secs);
            scenario.faults.seed = seed;
            if secs > 0 {
                scenario.name = format!("{}+{secs}s", scenario.name);
            }
            all.push(scenario);
        }
    }
    all
}

/// The scenario of that name.
pub(crate) fn named(name: &str) -> Scenario {
    all()
        .into_iter()
        .find(|scenario| scenario.name == name)
        .unwrap_or_else(|| panic!("there is no scenario {name:?}"))
}
