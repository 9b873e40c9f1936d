//! The name of every metric, whole: the one place that dashboards, rules and tests take them from.

/// Every name, with its constant.
macro_rules! names {
    ($($(#[$doc:meta])* $constant:ident = $name:literal,)+) => {
        $($(#[$doc])* pub const $constant: &str = concat!("nbi_upgrade_", $name);)+

        /// All of them.
        pub const ALL: &[&str] = &[$($constant,)+];
    };
}

names! {
    /// 1 on the worker that leads all campaigns.
    CAMPAIGN_LEADER = "campaign_leader",
    /// Campaigns that are not over.
    CAMPAIGNS_ACTIVE = "campaigns_active",
    /// Campaigns that are paused.
    CAMPAIGNS_PAUSED = "campaigns_paused",
    /// Devices of active campaigns, by `campaign` (the first 20 by name, then `other`) and `state`.
    CAMPAIGN_DEVICES = "campaign_devices",
    /// What holds active campaigns, by `campaign` (as above) and `condition`; `other`: how many of them.
    CAMPAIGN_CONDITION = "campaign_condition",
    /// Devices that campaigns have started.
    CAMPAIGN_DEVICES_RELEASED = "campaign_devices_released_total",
    /// Campaigns paused, by `reason`.
    CAMPAIGN_PAUSES = "campaign_pauses_total",
    /// Rules that are armed and that no job owns, by `certainty`.
    ORPHAN_RULES = "orphan_rules",
    /// Rules without an owner that sweeps have disarmed.
    ORPHAN_RULES_DISARMED = "orphan_rules_disarmed_total",
    /// Looks for rules that no job owns, by `result`.
    SWEEPS = "sweeps_total",
    /// Requests that were valid and are durable.
    JOBS_ACCEPTED = "jobs_accepted_total",
    /// Requests that were not valid, by `field`.
    JOBS_REJECTED = "jobs_rejected_total",
    /// Jobs that have their outcome, by `outcome` and `reason`.
    JOBS_FINISHED = "jobs_finished_total",
    /// What finished jobs mean for their devices, by `outcome` and `impact`.
    JOBS_IMPACT = "jobs_impact_total",
    /// From request to outcome, by `outcome`; seconds.
    JOB_DURATION = "job_duration_seconds",
    /// Share of a job's time that was used when it was put to wait for its device's result.
    JOB_DEADLINE_USED = "job_deadline_used_ratio",
    /// Age of the oldest job that was lately put to wait; seconds.
    OLDEST_JOB = "oldest_job_seconds",
    /// Attempts of stages, by `stage` and `result`.
    STAGE_ATTEMPTS = "stage_attempts_total",
    /// From the first attempt of a stage until it was left for good, by `stage`; seconds.
    STAGE_DURATION = "stage_duration_seconds",
    /// Times a job was put to sleep, by `waiting_for`.
    WAITS = "waits_total",
    /// Jobs given back unchanged.
    RELEASED = "released_total",
    /// Finished jobs by what became of their rule, `state`.
    RULES_ENDED = "rules_ended_total",
    /// TR-069 faults that devices reported, by `code`.
    DEVICE_FAULTS = "device_faults_total",
    /// Panics in steps that were caught.
    PANICS = "panics_total",
    /// Deliveries that could not be settled.
    HAND_OVERS_FAILED = "hand_overs_failed_total",
    /// Redelivered continuations whose replacement was confirmed.
    DUPLICATES_DROPPED = "duplicates_dropped_total",
    /// Jobs that had timed out and whose result came late, by `outcome`.
    JOBS_CORRECTED = "jobs_corrected_total",
    /// Jobs whose deadline could hardly be met any more, by `waiting_for`.
    JOBS_IN_JEOPARDY = "jobs_in_jeopardy_total",
    /// Calls of the NBI, by `operation` and `status`; seconds.
    NBI_REQUEST_DURATION = "nbi_request_duration_seconds",
    /// Calls that the NBI refused for the worker's credentials or rights.
    NBI_REFUSALS = "nbi_refusals_total",
    /// Time calls waited for their turn, by `class`; seconds.
    NBI_LIMITER_WAIT = "nbi_limiter_wait_seconds",
    /// Calls that may be under way at once.
    NBI_CONCURRENCY_LIMIT = "nbi_concurrency_limit",
    /// 1 while the circuit is open or probing.
    NBI_CIRCUIT_OPEN = "nbi_circuit_open",
    /// 1 for the circuit's `state`, 0 for the others.
    NBI_CIRCUIT_STATE = "nbi_circuit_state",
    /// Deliveries, by `queue`.
    MESSAGES_RECEIVED = "messages_received_total",
    /// Deliveries that came before, by `queue`.
    MESSAGES_REDELIVERED = "messages_redelivered_total",
    /// Confirmed publishes, by `exchange`.
    MESSAGES_PUBLISHED = "messages_published_total",
    /// From publish to confirm, by `exchange`; seconds.
    PUBLISH_CONFIRM = "publish_confirm_seconds",
    /// Messages that were put aside, by `reason`.
    DEAD_LETTERED = "dead_lettered_total",
    /// Continuations of a newer release that were parked.
    STEPS_PARKED = "steps_parked_total",
    /// 1 while an operator has paused everything.
    EMERGENCY_STOP = "emergency_stop",
    /// Commands of operators that this worker answered, by `answer`.
    COMMANDS_ANSWERED = "commands_answered_total",
    /// Final events that could not be sent to a `reply_to` queue.
    REPLIES_FAILED = "replies_failed_total",
    /// 1 while the broker is connected and consumers run.
    BROKER_CONNECTED = "broker_connected",
    /// 1 while the broker blocks publishers.
    BROKER_BLOCKED = "broker_blocked",
    /// Connections made after the first one.
    BROKER_RECONNECTS = "broker_reconnects_total",
    /// Messages ready in the broker, by `queue`.
    QUEUE_MESSAGES = "queue_messages",
    /// Deliveries that are worked on.
    DELIVERIES_IN_HAND = "deliveries_in_hand",
    /// Arrival of a delayed step minus the time asked for; seconds.
    STEP_LATENESS = "step_lateness_seconds",
    /// 1, with `version` and `revision`.
    BUILD_INFO = "build_info",
    /// 1, with the `prefix` of the broker objects and the `name` of the worker.
    INSTANCE_INFO = "instance_info",
}
