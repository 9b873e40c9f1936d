//! Rules that no job owns: found, and disarmed only when nobody can own them, whatever happens between two looks. In virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use jiff::SignedDuration;
use nbi_upgrade::clock;
use nbi_upgrade::job::{NbiAnswer, NbiCall, NbiFailure};
use nbi_upgrade::message::past::{Told, ToldJob, What};
use nbi_upgrade::nbi::wire::Verb;
use nbi_upgrade::nbi::{Nbi, NbiClient, NbiSettings};
use nbi_upgrade::orphan::{
    Done, Naming, Past, Reach, Report, Settings, Sweep, SweepError, Verdict,
};
use nbi_upgrade::simulator::{
    Call, Filter, HttpStatus, InProcessSettings, InProcessTransport, Put, ReadingRules, RowOrder,
    Semantics, SharedSimulator, Simulator, SimulatorSettings,
};
use serde_json::{Value, json};

use crate::support::world::start;

type Hook = Box<dyn FnOnce(&Site) + Send>;

/// NBI and history of a site, and what happens there at which moment.
#[derive(Clone)]
struct Site {
    simulator: SharedSimulator,
    /// Written, and not read yet.
    history: Arc<Mutex<VecDeque<Told>>>,
    reach: Arc<Mutex<Reach>>,
    /// Devices that a campaign's log has under way.
    under_way: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
    /// What happens right before the rules are listed, before the history is read for the n-th time, and before the n-th rule is read.
    before_list: Arc<Mutex<Option<Hook>>>,
    before_history: Arc<Mutex<VecDeque<Option<Hook>>>>,
    before_rule: Arc<Mutex<Option<Hook>>>,
    refuses_lists: bool,
}

impl Site {
    fn new(semantics: Semantics) -> Self {
        let simulator = Simulator::new(SimulatorSettings {
            semantics,
            ..SimulatorSettings::default()
        });
        let reach = Reach {
            from: Some(start() - SignedDuration::from_hours(72)),
            is_trimmed: false,
        };
        Self {
            simulator: SharedSimulator::new(simulator, clock::from_tokio(start())),
            history: Arc::default(),
            reach: Arc::new(Mutex::new(reach)),
            under_way: Arc::default(),
            before_list: Arc::default(),
            before_history: Arc::default(),
            before_rule: Arc::default(),
            refuses_lists: false,
        }
    }

    /// Somebody arms a rule.
    fn arm(&self, rule_id: &str, cpe_id: &str, file: &str) {
        let body = json!({
            "id": rule_id, "enabled": true, "automatic": true, "file": file, "condition": {"cpeid": cpe_id}, "executions": 1,
            "priority": 1, "author": "api",
        });
        self.post_rule(&body);
    }

    fn post_rule(&self, rule: &Value) {
        drop(self.simulator.handle(Call {
            verb: Verb::Post,
            path: "/v1/dyn/FirmwareStorage/.*",
            query: &[],
            body: rule.to_string().as_bytes(),
        }));
    }

    /// Something is told of a job, so many hours ago.
    fn tell(&self, job_id: &str, cpe_id: &str, file: &str, hours: i64, what: What) {
        let told = Told::Job(ToldJob {
            job_id: job_id.to_owned(),
            cpe_id: cpe_id.to_owned(),
            firmware_url: file.to_owned(),
            campaign_id: None,
            at: start() - SignedDuration::from_hours(hours),
            what,
        });
        self.history.lock().unwrap().push_back(told);
    }

    /// A job was accepted so many hours ago, with two hours of time.
    fn accepted(&self, job_id: &str, cpe_id: &str, file: &str, hours: i64) {
        let deadline = start() - SignedDuration::from_hours(hours - 2);
        let what = What::Accepted {
            deadline: Some(deadline),
        };
        self.tell(job_id, cpe_id, file, hours, what);
    }

    /// It ended so many hours ago, and its rule so.
    fn over(&self, job_id: &str, cpe_id: &str, file: &str, hours: i64, rule_state: &str) {
        self.accepted(job_id, cpe_id, file, hours + 1);
        let what = What::Over {
            rule_id: Some(format!("UPGRADE_{cpe_id}")),
            rule_state: Some(rule_state.to_owned()),
        };
        self.tell(job_id, cpe_id, file, hours, what);
    }

    fn armed(&self) -> Vec<String> {
        let mut armed = self.simulator.with(|simulator, _| simulator.armed_rules());
        armed.sort();
        armed
    }

    fn client(&self) -> Watched {
        let transport =
            InProcessTransport::new(self.simulator.clone(), InProcessSettings::default());
        Watched {
            client: NbiClient::new(transport, NbiSettings::default(), Arc::default()),
            site: self.clone(),
        }
    }
}

/// The client, with what happens between its calls.
struct Watched {
    client: NbiClient<InProcessTransport>,
    site: Site,
}

impl Nbi for Watched {
    async fn call(&self, call: &NbiCall) -> Result<NbiAnswer, NbiFailure> {
        let hook = match call {
            NbiCall::ListRules { .. } => self.site.before_list.lock().unwrap().take(),
            NbiCall::ReadRule { .. } => self.site.before_rule.lock().unwrap().take(),
            _ => None,
        };
        if let Some(hook) = hook {
            hook(&self.site);
        }
        if self.site.refuses_lists && matches!(call, NbiCall::ListRules { .. }) {
            let message = "list_rules: rejected: a filter is needed".to_owned();
            return Err(NbiFailure::Rejected { message });
        }
        self.client.call(call).await
    }
}

impl Past for Site {
    async fn read_on(&mut self, mut take: impl FnMut(Told) + Send) -> Result<Reach, String> {
        let hook = self.before_history.lock().unwrap().pop_front().flatten();
        if let Some(hook) = hook {
            hook(self);
        }
        self.history.lock().unwrap().drain(..).for_each(&mut take);
        Ok(*self.reach.lock().unwrap())
    }

    async fn under_way(&mut self, campaign_id: &str) -> Result<Vec<String>, String> {
        let all = self.under_way.lock().unwrap();
        Ok(all.get(campaign_id).cloned().unwrap_or_default())
    }
}

fn settings() -> Settings {
    Settings {
        naming: Naming::new("UPGRADE_{cpe_id}"),
        job_timeout: SignedDuration::from_hours(1),
        older_than: SignedDuration::from_hours(1),
        is_one_by_one: false,
    }
}

/// Looks, and disarms where that is asked for.
async fn sweep(site: &Site, disarm: Option<bool>) -> Report {
    let client = site.client();
    let mut sweep = Sweep::new(
        &client,
        site.clone(),
        settings(),
        clock::from_tokio(start()),
    );
    let mut report = sweep.look().await.expect("it can be seen");
    if let Some(unsure) = disarm {
        let disarmed = sweep.disarm(&mut report, unsure).await;
        disarmed.expect("the history can be read");
    }
    report
}

fn verdicts(report: &Report) -> Vec<(&str, &str)> {
    let all = report.found.iter();
    all.map(|found| (found.cpe_id.as_str(), found.verdict.name()))
        .collect()
}

/// A rule of every kind.
fn busy_site(semantics: Semantics) -> Site {
    let site = Site::new(semantics);
    for device in ["DEAD", "KEPT", "LIVE", "LOST", "OTHER", "STRANGE", "YOUNG"] {
        site.arm(&format!("UPGRADE_{device}"), device, "fw-2");
    }
    site.arm("spring night", "LOST", "fw-9");
    site.arm("UPGRADE_NAMED", "SOMEBODY", "fw-2");
    site.over("lost", "LOST", "fw-2", 5, "cleanup_failed");
    site.accepted("live", "LIVE", "fw-2", 1);
    site.over("before", "LIVE", "fw-2", 30, "deactivated");
    site.over("kept", "KEPT", "fw-2", 5, "kept");
    site.over("young", "YOUNG", "fw-2", 0, "cleanup_failed");
    site.over("other", "OTHER", "fw-1", 5, "deactivated");
    site.accepted("dead", "DEAD", "fw-2", 40);
    site
}

const BUSY: [(&str, &str); 7] = [
    ("DEAD", "unsure"),
    ("KEPT", "kept"),
    ("LIVE", "live"),
    ("LOST", "orphan"),
    ("OTHER", "unsure"),
    ("STRANGE", "unsure"),
    ("YOUNG", "young"),
];

#[tokio::test(start_paused = true)]
async fn what_nobody_owns_is_disarmed_and_nothing_else_whatever_the_vendor_means() {
    for put in Put::ALL {
        for filter in [Filter::Either, Filter::Id, Filter::CampaignId] {
            for http_status in HttpStatus::ALL {
                let semantics = Semantics {
                    put: *put,
                    filter,
                    http_status: *http_status,
                    row_order: RowOrder::Shuffled,
                    ..Semantics::default()
                };
                let site = busy_site(semantics.clone());
                let before = site.armed();
                let report = sweep(&site, None).await;
                assert_eq!(verdicts(&report), BUSY, "{semantics:?}");
                assert_eq!((report.seen, report.others), (9, 2));
                assert!(report.is_whole && report.notes.is_empty(), "{report:?}");
                assert_eq!(site.armed(), before, "a look changes nothing");

                let site = busy_site(semantics.clone());
                let report = sweep(&site, Some(false)).await;
                let left: Vec<_> = before
                    .iter()
                    .filter(|rule| *rule != "UPGRADE_LOST")
                    .cloned()
                    .collect();
                assert_eq!(site.armed(), left, "{semantics:?}");
                assert_eq!((report.disarmed(), report.left("orphan")), (1, 0));
                assert_eq!(report.left("unsure"), 3);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_young_rule_that_its_job_left_armed_says_so_and_when_it_can_be_disarmed() {
    let site = Site::new(Semantics::default());
    for device in ["LEFT", "PUT_AWAY"] {
        site.arm(&format!("UPGRADE_{device}"), device, "fw-2");
    }
    // Its deadline is in an hour: an hour later it is over for certain.
    site.over("left", "LEFT", "fw-2", 0, "cleanup_failed");
    site.over("put-away", "PUT_AWAY", "fw-2", 0, "deactivated");
    let report = sweep(&site, Some(false)).await;
    let verdicts: Vec<_> = report.found.iter().map(|found| &found.verdict).collect();
    let young = |job_id: &str, left: Option<&str>, hours: i64| Verdict::Young {
        job_id: job_id.to_owned(),
        left: left.map(str::to_owned),
        since: start(),
        until: start() + SignedDuration::from_hours(hours),
    };
    let wanted = [
        &young("left", Some("cleanup_failed"), 2),
        &young("put-away", None, 1),
    ];
    assert_eq!(verdicts, wanted);
    assert_eq!(site.armed().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_knows_is_disarmed_only_on_demand() {
    let site = busy_site(Semantics::default());
    let report = sweep(&site, Some(true)).await;
    assert_eq!(report.disarmed(), 4);
    assert_eq!(
        site.armed(),
        [
            "UPGRADE_KEPT",
            "UPGRADE_LIVE",
            "UPGRADE_NAMED",
            "UPGRADE_YOUNG",
            "spring night"
        ]
    );
    let dead = report
        .found
        .iter()
        .find(|found| found.cpe_id.as_str() == "DEAD");
    let why = format!("{:?}", dead.map(|found| &found.verdict));
    assert!(why.contains("dead list --job-id dead"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_takes_the_device_up_while_the_rules_are_listed_keeps_its_rule() {
    let site = busy_site(Semantics::default());
    // It is accepted, and arms what stands there already, before the list is made: the history must be read after that.
    *site.before_list.lock().unwrap() = Some(Box::new(|site| {
        site.accepted("new", "LOST", "fw-2", 0);
        site.arm("UPGRADE_LOST", "LOST", "fw-2");
    }));
    let report = sweep(&site, None).await;
    assert!(verdicts(&report).contains(&("LOST", "live")), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_takes_the_device_up_between_look_and_disarm_keeps_its_rule() {
    let site = busy_site(Semantics::default());
    let arrives: Hook = Box::new(|site| site.accepted("new", "LOST", "fw-2", 0));
    site.before_history
        .lock()
        .unwrap()
        .extend([None, Some(arrives)]);
    let before = site.armed();
    let report = sweep(&site, Some(false)).await;
    let lost = report
        .found
        .iter()
        .find(|found| found.cpe_id.as_str() == "LOST");
    let done = lost.and_then(|found| found.done.clone());
    assert_eq!(done, Some(Done::LeftAlone("it is live by now".to_owned())));
    assert_eq!(site.armed(), before);
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_is_written_between_look_and_disarm_is_left_alone() {
    let site = busy_site(Semantics::default());
    // By somebody of whom the history knows nothing.
    *site.before_rule.lock().unwrap() =
        Some(Box::new(|site| site.arm("UPGRADE_LOST", "LOST", "fw-7")));
    let before = site.armed();
    let report = sweep(&site, Some(false)).await;
    assert_eq!(site.armed(), before);
    assert_eq!((report.disarmed(), report.left("orphan")), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_accepted_in_the_moment_of_disarming_is_told() {
    let site = busy_site(Semantics::default());
    *site.before_rule.lock().unwrap() =
        Some(Box::new(|site| site.accepted("new", "LOST", "fw-2", 0)));
    let report = sweep(&site, Some(false)).await;
    let lost = report
        .found
        .iter()
        .find(|found| found.cpe_id.as_str() == "LOST");
    let done = lost.and_then(|found| found.done.clone());
    let owner = "new".to_owned();
    assert_eq!(done, Some(Done::DisarmedUnder { owner }));
}

#[tokio::test(start_paused = true)]
async fn a_device_of_a_campaign_is_live_by_the_campaigns_log_alone() {
    let site = Site::new(Semantics::default());
    site.arm("UPGRADE_LOST", "LOST", "fw-2");
    site.over("lost", "LOST", "fw-2", 5, "cleanup_failed");
    let goes_on = |is_over| Told::Campaign {
        campaign_id: "spring".to_owned(),
        is_over,
    };
    site.history.lock().unwrap().push_back(goes_on(false));
    let device = vec!["LOST".to_owned()];
    site.under_way
        .lock()
        .unwrap()
        .insert("spring".to_owned(), device);
    assert_eq!(verdicts(&sweep(&site, None).await), [("LOST", "live")]);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_died_hides_no_job_that_lives() {
    for live in ["a-live-one", "z-live-one"] {
        let site = busy_site(Semantics::default());
        site.accepted(live, "DEAD", "fw-3", 1);
        let report = sweep(&site, Some(true)).await;
        assert!(verdicts(&report).contains(&("DEAD", "live")), "{live}");
        assert!(site.armed().contains(&"UPGRADE_DEAD".to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_history_that_is_trimmed_or_empty_excuses_no_disarming() {
    for (from, is_trimmed, expected) in [
        (30, false, "orphan"),
        (30, true, "orphan"),
        (1, true, "unsure"),
        // As a stream that was deleted and declared anew looks.
        (1, false, "unsure"),
    ] {
        let site = busy_site(Semantics::default());
        *site.reach.lock().unwrap() = Reach {
            from: Some(start() - SignedDuration::from_hours(from)),
            is_trimmed,
        };
        let report = sweep(&site, Some(false)).await;
        let verdict = ("LOST", expected);
        assert!(verdicts(&report).contains(&verdict), "{from} {is_trimmed}");
        assert_eq!(report.disarmed(), usize::from(expected == "orphan"));
        assert_eq!(
            report.notes.len(),
            usize::from(is_trimmed),
            "{:?}",
            report.notes
        );
    }
    let site = Site::new(Semantics::default());
    site.arm("UPGRADE_LOST", "LOST", "fw-2");
    *site.reach.lock().unwrap() = Reach::default();
    let report = sweep(&site, Some(false)).await;
    assert_eq!(verdicts(&report), [("LOST", "unsure")]);
    assert_eq!(site.armed(), ["UPGRADE_LOST"]);
}

#[tokio::test(start_paused = true)]
async fn an_nbi_that_gives_no_list_is_asked_for_what_the_history_names() {
    let mut site = busy_site(Semantics::default());
    site.refuses_lists = true;
    let report = sweep(&site, Some(false)).await;
    // LIVE has ended once as well; DEAD and STRANGE have named no rule.
    let seen = verdicts(&report);
    assert!(seen.contains(&("LOST", "orphan")), "{seen:?}");
    assert!(
        !seen
            .iter()
            .any(|(device, _)| ["DEAD", "STRANGE"].contains(device))
    );
    assert_eq!(report.disarmed(), 1);
    assert!(!report.is_whole && report.notes[0].contains("a filter is needed"));

    for reading_rules in ReadingRules::ALL {
        let site = busy_site(Semantics {
            reading_rules: *reading_rules,
            ..Semantics::default()
        });
        let client = site.client();
        let mut sweep = Sweep::new(
            &client,
            site.clone(),
            settings(),
            clock::from_tokio(start()),
        );
        let looked = sweep.look().await.map(|report| report.found.len());
        match reading_rules {
            ReadingRules::Allowed => assert_eq!(looked, Ok(7)),
            // What is never shown cannot be swept.
            ReadingRules::NeverFound404 => assert_eq!(looked, Ok(0)),
            _ => assert_eq!(looked, Err(SweepError::Unreadable), "{reading_rules:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_where_the_nbi_ignores_its_filter() {
    let site = busy_site(Semantics {
        filter: Filter::Ignored,
        ..Semantics::default()
    });
    let before = site.armed();
    let report = sweep(&site, Some(true)).await;
    assert_eq!(site.armed(), before);
    let failed = report.found.iter().filter(
        |found| matches!(&found.done, Some(Done::Failed(why)) if why.contains("nbi.rule_query")),
    );
    assert_eq!(failed.count(), 4);
}

/// Whoever armed it since, by hand or from another installation, has not asked for it to be disarmed.
#[tokio::test(start_paused = true)]
async fn a_rule_that_its_job_put_away_belongs_to_whoever_armed_it_since() {
    for (state, verdict) in [
        ("deactivated", "unsure"),
        ("deleted", "unsure"),
        ("superseded", "unsure"),
        ("not_created", "unsure"),
        ("cleanup_failed", "orphan"),
        ("armed", "orphan"),
        ("kept", "kept"),
    ] {
        let site = Site::new(Semantics::default());
        site.arm("UPGRADE_LOST", "LOST", "fw-2");
        site.over("lost", "LOST", "fw-2", 5, state);
        let report = sweep(&site, Some(false)).await;
        assert_eq!(verdicts(&report), [("LOST", verdict)], "{state}");
        assert_eq!(
            report.disarmed(),
            usize::from(verdict == "orphan"),
            "{state}"
        );
    }
    // One kept it on purpose; a later one with the same file came to nothing.
    let site = Site::new(Semantics::default());
    site.arm("UPGRADE_LOST", "LOST", "fw-2");
    site.over("first", "LOST", "fw-2", 9, "kept");
    site.over("second", "LOST", "fw-2", 5, "not_created");
    assert_eq!(verdicts(&sweep(&site, None).await), [("LOST", "kept")]);
    // It ended early, and a copy of it may be under way until its deadline.
    let site = Site::new(Semantics::default());
    site.arm("UPGRADE_LOST", "LOST", "fw-2");
    let deadline = Some(start() + SignedDuration::from_hours(20));
    site.tell("lost", "LOST", "fw-2", 6, What::Accepted { deadline });
    let over = What::Over {
        rule_id: Some("UPGRADE_LOST".to_owned()),
        rule_state: Some("cleanup_failed".to_owned()),
    };
    site.tell("lost", "LOST", "fw-2", 5, over);
    assert_eq!(verdicts(&sweep(&site, None).await), [("LOST", "young")]);
}

#[tokio::test(start_paused = true)]
async fn a_rule_for_more_than_its_device_is_somebody_elses() {
    for condition in [
        json!({"cpeid": "LOST", "model": "x"}),
        json!({"cpeid": ["LOST", "ANOTHER"]}),
        json!({"model": "x"}),
        json!("LOST"),
    ] {
        let site = Site::new(Semantics::default());
        site.over("lost", "LOST", "fw-2", 5, "cleanup_failed");
        site.post_rule(&json!({
            "id": "UPGRADE_LOST", "enabled": true, "automatic": true, "file": "fw-2", "condition": condition,
        }));
        let report = sweep(&site, Some(true)).await;
        assert_eq!(
            (report.found.len(), report.disarmed()),
            (0, 0),
            "{condition}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_names_its_job_is_judged_by_that_job() {
    let site = Site::new(Semantics::default());
    let tagged = |job_id: &str| {
        site.post_rule(&json!({
            "id": "UPGRADE_LOST", "enabled": true, "automatic": true, "file": "fw-2", "condition": {"cpeid": "LOST"},
            "description": format!("nbi-upgrade job {job_id}"),
        }));
    };
    site.over("lost", "LOST", "fw-2", 5, "cleanup_failed");
    let history: Vec<_> = site.history.lock().unwrap().iter().cloned().collect();
    for (job_id, verdict) in [("lost", "orphan"), ("of-another-site", "unsure")] {
        tagged(job_id);
        *site.history.lock().unwrap() = history.iter().cloned().collect();
        let report = sweep(&site, None).await;
        assert_eq!(verdicts(&report), [("LOST", verdict)], "{job_id}");
    }
}
