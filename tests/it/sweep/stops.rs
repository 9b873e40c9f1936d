//! Workers that are told to stop in the middle of something: what they give back must say what may have happened.

use std::time::Duration;

use jiff::SignedDuration;
use nbi_upgrade::simulator::{Operation, ReadingRules, Trouble, TroublePlan};
use serde_json::json;

use super::points::Plan;
use super::run::run;
use super::scenarios::Scenario;
use crate::support::world::{request, start};

/// The NBI carries the write out and does not answer; the worker's time is up, and the next one takes the job over.
#[test]
fn a_write_that_a_stop_cuts_off_is_not_sent_again() {
    for reading_rules in [ReadingRules::Forbidden403, ReadingRules::Allowed] {
        let mut body = request("job-1", "CPE1", "job-1.bin");
        body["requested_at"] = json!(start().to_string());
        let mut scenario = Scenario::new("stopped").send(0, &body, &["completed/upgraded"]);
        scenario.workers = 1;
        scenario.stops = vec![Duration::from_secs(3)];
        scenario.setup.semantics.reading_rules = reading_rules;
        scenario.setup.troubles = TroublePlan::new(1)
            .with(Trouble::HangAfterEffect, 1.0)
            .only(&[Operation::CreateRule])
            .quiet_from(start() + SignedDuration::from_secs(2));
        let run = run(&scenario, Plan::default());
        let report = run.report("this test");
        assert_eq!(run.violations, Vec::<String>::new(), "{report}");
        assert_eq!(run.armings, 1, "{report}");
    }
}
