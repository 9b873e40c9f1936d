//! [`NbiClient`]: one call of the core, from the circuit's permission to the core's words.
//!
//! In this order: is the circuit closed; is it our turn, in time; send; judge; tell circuit and telemetry. Calls that may be repeated
//! ([`NbiCall::is_repeatable`]) are tried again at once a few times; every longer wait is the core's, which makes it durable.
//! Reads and writes by filter may need a second question under the other name of the filter (`names.rs`).
//! The worker calls it through [`Nbi`], and watches [`NbiClient::circuit`] to pause its intake.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use super::answer;
use super::budget::{CallClass, asks_device};
use super::circuit::{CircuitState, Sign};
use super::gate::Gate;
use super::limit::Limiter;
use super::names::{Found, Name, QueryNames};
use super::pace::{End, Seen};
use super::pauses;
use super::reply::{Reply, better};
pub use super::settings::NbiSettings;
use super::settings::VERSION_METHOD;
use super::wire::{Names, Request};
use super::{Nbi, RawAnswer, Transport, TransportError, version};
use crate::job::{CpeId, NbiAnswer, NbiCall, NbiFailure, Purpose, RuleId};
use crate::telemetry::Telemetry;

/// The path of the default method.
const VERSION_PATH: &str = "/v1/method/GetParameterValues";

/// The id that a probe asks for: no device has it.
const NOBODY: &str = "nbi-upgrade-probe";

/// Asks the NBI through a transport, under limits.
#[derive(Debug)]
pub struct NbiClient<T> {
    transport: T,
    settings: NbiSettings,
    version_path: &'static str,
    limiter: Limiter,
    gate: Gate,
    rules: Storage,
    results: Storage,
    telemetry: Arc<Telemetry>,
}

/// One storage, as far as its filter is concerned.
#[derive(Debug)]
struct Storage {
    names: QueryNames,
    /// Whether it was logged that the NBI ignores the filter.
    warned: AtomicBool,
}

impl<T: Transport> NbiClient<T> {
    /// A client with a closed circuit.
    ///
    /// A `version_method` other than the default leaks its path once, as [`Request::path`] lives as long as the process.
    #[must_use]
    pub fn new(transport: T, settings: NbiSettings, telemetry: Arc<Telemetry>) -> Self {
        let version_path = if settings.version_method == VERSION_METHOD {
            VERSION_PATH
        } else {
            Box::leak(version::path(&settings.version_method).into_boxed_str())
        };
        let limiter = Limiter::new(
            settings.max_concurrency,
            settings.requests_per_second,
            &settings.budgets,
            settings.is_adaptive,
        );
        telemetry.nbi_concurrency_limit(limiter.limit());
        Self {
            transport,
            version_path,
            limiter,
            gate: Gate::new(settings.circuit.clone(), telemetry.clone()),
            rules: Storage::new("nbi.rule_query", &settings.rule_query),
            results: Storage::new("nbi.result_query", &settings.result_query),
            settings,
            telemetry,
        }
    }

    /// The circuit's state, and every change of it.
    #[must_use]
    pub fn circuit(&self) -> watch::Receiver<CircuitState> {
        self.gate.watch()
    }

    /// Reads the results of a rule that nobody has, to see whether the NBI answers; learns nothing else from it.
    pub(super) async fn probe(&self) -> Result<(), NbiFailure> {
        let (Ok(rule_id), Ok(cpe_id)) = (RuleId::parse(NOBODY), CpeId::parse(NOBODY)) else {
            return Ok(());
        };
        let read = NbiCall::ReadResults {
            rule_id,
            cpe_id,
            purpose: Purpose::Look,
        };
        let names = &self.results.names;
        self.ask(&read, names.text(names.first())).await.map(drop)
    }

    /// Reads, under the second name if the first does not bring rows of ours and no others.
    async fn read(&self, call: &NbiCall, storage: &Storage) -> Result<NbiAnswer, NbiFailure> {
        let asked = storage.names.first();
        let mut first = self.read_under(asked, call, storage).await;
        // Most such answers, here and under the second name, are a proxy's trouble of this moment.
        if is_rejected(&first) && storage.names.is_open() {
            first = self.read_under(asked, call, storage).await;
        }
        let worth_a_second = match &first {
            Ok(reply) => reply.found().is_some_and(|found| found != Found::Ours),
            Err(_) => is_rejected(&first),
        };
        let second = storage.names.second_for_read(asked);
        let Some(second) = second.filter(|_| worth_a_second) else {
            return first.map(|reply| reply.answer);
        };
        let mut again = self.read_under(second, call, storage).await;
        let is_doubtful = match &again {
            Ok(reply) => reply.answer == NbiAnswer::RulesUnreadable,
            Err(NbiFailure::Unintelligible { .. }) => true,
            Err(_) => is_rejected(&again) && !is_rejected(&first),
        };
        if is_doubtful && storage.names.second_for_read(asked).is_some() {
            again = self.read_under(second, call, storage).await;
        }
        better(first, again).map(|reply| reply.answer)
    }

    /// Reads under one name and takes note of what that shows.
    async fn read_under(
        &self,
        name: Name,
        call: &NbiCall,
        storage: &Storage,
    ) -> Result<Reply, NbiFailure> {
        let outcome = self.ask(call, storage.names.text(name)).await;
        match &outcome {
            Ok(reply) => {
                match reply.found() {
                    Some(found) => storage.names.note(name, found),
                    None => storage.names.note_taken(name),
                }
                if reply.filter_ignored {
                    storage.warn_of_ignored_filter(name, &self.telemetry);
                }
            }
            Err(NbiFailure::Rejected { .. }) => storage.names.note(name, Found::Rejected),
            Err(NbiFailure::Unintelligible { .. }) => storage.names.note(name, Found::Garbled),
            Err(_) => {}
        }
        outcome
    }

    /// Updates or deletes a rule, under the second name if the first finds no row.
    async fn write(
        &self,
        call: &NbiCall,
        second: fn(&QueryNames, Name) -> Option<Name>,
    ) -> Result<NbiAnswer, NbiFailure> {
        let names = &self.rules.names;
        let asked = names.first();
        let first = self.ask(call, names.text(asked)).await?.answer;
        let second = second(names, asked);
        let Some(second) = second.filter(|_| first == NbiAnswer::NoSuchRule) else {
            return Ok(first);
        };
        match self.ask(call, names.text(second)).await {
            // The NBI does not know the second name; what it said under the first stands.
            Err(NbiFailure::Rejected { .. }) => Ok(first),
            outcome => outcome.map(|reply| {
                names.note_taken(second);
                reply.answer
            }),
        }
    }

    /// Asks under one name, with quick retries if the call may be repeated.
    async fn ask(&self, call: &NbiCall, query: &str) -> Result<Reply, NbiFailure> {
        let names = Names {
            query,
            version_path: self.version_path,
            version_parameters: &self.settings.version_parameters,
        };
        let mut request = Request::of(call, &names);
        request.timeout = self.settings.budgets.of(CallClass::of(call)).timeout;
        let request = &request;
        if request.is_unfiltered() {
            let message = format!(
                "{}: not sent, as its filter is empty and could hit every row",
                call.operation()
            );
            return Err(NbiFailure::Rejected { message });
        }
        // Boxed: the future of an HTTP exchange has kilobytes, and every future around it would be as large, and be moved as a whole when
        // a delivery's task begins and ends.
        let begun = Instant::now();
        let first = Box::pin(self.once(call, request)).await;
        match first {
            Err(failure) if call.is_repeatable() => {
                Box::pin(self.again(call, request, failure, begun)).await
            }
            outcome => outcome,
        }
    }

    /// Quick retries of what has failed once. Apart from the first try, as nearly all calls need no other.
    async fn again(
        &self,
        call: &NbiCall,
        request: &Request,
        failure: NbiFailure,
        begun: Instant,
    ) -> Result<Reply, NbiFailure> {
        let mut tries = 0;
        let mut first = Some(failure);
        // Of a try that was sent: one after it that is not sent says less.
        let sent = Mutex::new(None);
        let pauses = pauses::since(begun, &self.settings);
        backoff::future::retry(pauses, || {
            tries += 1;
            let (tried, earlier, sent) = (tries, first.take(), &sent);
            async move {
                let outcome = match earlier {
                    Some(failure) => Err(failure),
                    None => self.once(call, request).await,
                };
                let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
                outcome.map_err(|failure| {
                    if matches!(failure, NbiFailure::NotSent { .. }) {
                        return backoff::Error::Permanent(sent.take().unwrap_or(failure));
                    }
                    *sent = Some(failure.clone());
                    self.quick_retry(failure, tried, begun)
                })
            }
        })
        .await
    }

    /// Whether a failure is worth a quick retry: transient, tries and time left, the circuit still closed.
    ///
    /// `backoff` does not bound a pause that the NBI asked for, so time and tries are bounded here.
    fn quick_retry(
        &self,
        failure: NbiFailure,
        tried: u32,
        begun: Instant,
    ) -> backoff::Error<NbiFailure> {
        let NbiFailure::Transient { retry_after, .. } = &failure else {
            return backoff::Error::Permanent(failure);
        };
        let retry_after = retry_after.map(SignedDuration::unsigned_abs);
        let left = self
            .settings
            .quick_retry_max_elapsed
            .saturating_sub(begun.elapsed());
        let is_over = tried > self.settings.quick_retries
            || retry_after.is_some_and(|asked| asked > left)
            || self.gate.turns_away();
        if is_over {
            backoff::Error::Permanent(failure)
        } else {
            backoff::Error::Transient {
                err: failure,
                retry_after,
            }
        }
    }

    /// Sends once.
    async fn once(&self, call: &NbiCall, request: &Request) -> Result<Reply, NbiFailure> {
        let asked = Instant::now();
        // Before the limiter, so that calls that will be turned away do not use up its moments.
        self.gate.check(request.operation, asked)?;
        let class = CallClass::of(call);
        let turn = self.limiter.turn(class).await;
        let begun = Instant::now();
        self.telemetry.nbi_waited(class.name(), begun - asked);
        let turn = turn.map_err(|overdue| overdue.failure(request.operation, class))?;

        let admission = self.gate.admit(request.operation, begun)?;
        let sent = self.transport.send(request).await;
        let ended = Instant::now();
        let took = ended - begun;
        let under_way = turn.under_way();
        drop(turn);
        let judged = match &sent {
            Ok(raw) => answer::judge(
                call,
                raw,
                &self.settings.version_parameters,
                Timestamp::now(),
            ),
            Err(error) => answer::judge_missing(call, error),
        };
        let status = status_word(&sent, judged.sign);
        self.telemetry
            .nbi_answered(request.operation, &status, took);
        self.telemetry.nbi_sent(&request.span(&status), took);
        admission.record(&judged, ended);
        let seen = end(call, judged.sign).map(|end| Seen {
            operation: request.operation,
            begun,
            took,
            under_way,
            end,
        });
        if let Some(limit) = seen.and_then(|seen| self.limiter.learn(&seen, ended)) {
            self.telemetry.nbi_concurrency_limit(limit);
        }
        let filter_ignored = judged.filter_ignored;
        judged.outcome.map(|answer| Reply {
            answer,
            filter_ignored,
        })
    }
}

impl<T: Transport> Nbi for NbiClient<T> {
    async fn call(&self, call: &NbiCall) -> Result<NbiAnswer, NbiFailure> {
        match call {
            NbiCall::ReadResults { .. } => self.read(call, &self.results).await,
            NbiCall::ReadRule { .. } => self.read(call, &self.rules).await,
            NbiCall::UpdateRule(_) | NbiCall::DisarmRule { .. } => {
                self.write(call, QueryNames::second_for_update).await
            }
            NbiCall::DeleteRule { .. } => self.write(call, QueryNames::second_for_delete).await,
            NbiCall::ListRules { .. }
            | NbiCall::CreateRule(_)
            | NbiCall::SendConnectionRequest { .. }
            | NbiCall::ReadVersion { .. } => self.ask(call, "").await.map(|reply| reply.answer),
        }
    }
}

impl Storage {
    fn new(key: &'static str, configured: &str) -> Self {
        Self {
            names: QueryNames::new(key, configured),
            warned: AtomicBool::new(false),
        }
    }

    /// Says once that the NBI returns rows that were not asked for.
    fn warn_of_ignored_filter(&self, name: Name, telemetry: &Telemetry) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            telemetry.nbi_filter_ignored(self.names.key, self.names.text(name));
        }
    }
}

/// Whether the NBI, or a proxy before it, will not do this.
fn is_rejected(outcome: &Result<Reply, NbiFailure>) -> bool {
    matches!(outcome, Err(NbiFailure::Rejected { .. }))
}

/// What a request showed of the NBI's load, if anything. What asks the device takes as long as the device does.
fn end(call: &NbiCall, sign: Sign) -> Option<End> {
    match sign {
        Sign::Failing { .. } => Some(End::Failed),
        Sign::Alive if !asks_device(call) => Some(End::Answered),
        Sign::Alive | Sign::Refused => Some(End::Untimed),
        Sign::Unclear => None,
    }
}

/// What the metrics call the end of a request: the HTTP status, unless the body belies it, or a word from a closed set.
fn status_word(sent: &Result<RawAnswer, TransportError>, sign: Sign) -> String {
    match sent {
        Ok(raw) if raw.status < 300 && sign != Sign::Alive => "unusable".to_owned(),
        Ok(raw) => raw.status.to_string(),
        Err(error) => error.word().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;
    use crate::job::{FirmwareUrl, RuleSpec};
    use crate::nbi::budget::{Budget, Budgets};

    /// Answers in order and remembers what it was asked, as `VERB path-part?query`.
    #[derive(Debug, Default)]
    struct Script {
        answers: Mutex<VecDeque<Result<RawAnswer, TransportError>>>,
        asked: Mutex<Vec<String>>,
        takes: Duration,
    }

    impl Transport for Arc<Script> {
        async fn send(&self, request: &Request) -> Result<RawAnswer, TransportError> {
            let storage = request
                .path
                .trim_start_matches("/v1/dyn/")
                .trim_start_matches("/v1/method/");
            let storage = storage.trim_end_matches("/.*");
            let query: String = request
                .query
                .iter()
                .map(|(name, value)| format!("?{name}={value}"))
                .collect();
            self.asked
                .lock()
                .unwrap()
                .push(format!("{:?} {storage}{query}", request.verb));
            tokio::time::sleep(self.takes).await;
            let next = self.answers.lock().unwrap().pop_front();
            next.unwrap_or_else(|| panic!("asked once too often: {:?}", self.asked.lock().unwrap()))
        }
    }

    type Scripted = (NbiClient<Arc<Script>>, Arc<Script>);

    fn client(answers: impl IntoIterator<Item = Result<RawAnswer, TransportError>>) -> Scripted {
        client_with(NbiSettings::default(), Duration::from_millis(10), answers)
    }

    fn client_with(
        settings: NbiSettings,
        takes: Duration,
        answers: impl IntoIterator<Item = Result<RawAnswer, TransportError>>,
    ) -> Scripted {
        let answers = Mutex::new(answers.into_iter().collect());
        let script = Arc::new(Script {
            answers,
            asked: Mutex::default(),
            takes,
        });
        (
            NbiClient::new(script.clone(), settings, Arc::default()),
            script,
        )
    }

    fn asked(script: &Script) -> Vec<String> {
        std::mem::take(&mut *script.asked.lock().unwrap())
    }

    #[test]
    fn a_status_of_success_with_a_failure_in_its_body_is_told_apart() {
        let word = |answer: Result<RawAnswer, TransportError>, sign| status_word(&answer, sign);
        let failing = Sign::Failing { retry_after: None };
        assert_eq!(word(http(200, r#"{"code":503}"#), failing), "unusable");
        assert_eq!(
            word(http(201, r#"{"code":401}"#), Sign::Refused),
            "unusable"
        );
        assert_eq!(word(http(200, "[]"), Sign::Alive), "200");
        assert_eq!(word(http(503, ""), failing), "503");
        assert_eq!(word(http(404, ""), Sign::Alive), "404");
    }

    fn http(status: u16, body: &str) -> Result<RawAnswer, TransportError> {
        Ok(RawAnswer {
            status,
            body: body.as_bytes().to_vec(),
            retry_after: None,
            date: None,
            location: None,
        })
    }

    fn after(status: u16, seconds: &str) -> Result<RawAnswer, TransportError> {
        Ok(RawAnswer {
            status,
            body: Vec::new(),
            retry_after: Some(seconds.to_owned()),
            date: None,
            location: None,
        })
    }

    fn code(code: u16) -> Result<RawAnswer, TransportError> {
        http(
            200,
            &format!(r#"{{"code":{code},"message":"","details":""}}"#),
        )
    }

    fn result_rows(rules: &[&str]) -> Result<RawAnswer, TransportError> {
        let rows: Vec<String> = rules
            .iter()
            .map(|rule| format!(r#"{{"id":"u","ts":1,"cpeid":"x","campaignid":"{rule}"}}"#))
            .collect();
        http(
            200,
            &format!(r#"{{"code":200,"details":[{}]}}"#, rows.join(",")),
        )
    }

    fn rule_rows(rules: &[&str]) -> Result<RawAnswer, TransportError> {
        let rows: Vec<String> = rules
            .iter()
            .map(|rule| format!(r#"{{"id":"{rule}","enabled":true}}"#))
            .collect();
        http(
            200,
            &format!(r#"{{"code":200,"details":[{}]}}"#, rows.join(",")),
        )
    }

    fn rule_id() -> RuleId {
        RuleId::parse("R").unwrap()
    }

    fn cpe_id() -> CpeId {
        CpeId::parse("x").unwrap()
    }

    fn spec() -> RuleSpec {
        let firmware_url = FirmwareUrl::checked("http://files/fw.bin").unwrap();
        RuleSpec {
            rule_id: rule_id(),
            cpe_id: cpe_id(),
            firmware_url,
            executions: 1,
            priority: 1,
            description: None,
        }
    }

    fn read_results() -> NbiCall {
        NbiCall::ReadResults {
            rule_id: rule_id(),
            cpe_id: cpe_id(),
            purpose: Purpose::Look,
        }
    }

    fn read_rule() -> NbiCall {
        NbiCall::ReadRule {
            rule_id: rule_id(),
            purpose: Purpose::Look,
        }
    }

    fn disarm() -> NbiCall {
        NbiCall::DisarmRule { rule_id: rule_id() }
    }

    fn delete() -> NbiCall {
        NbiCall::DeleteRule { rule_id: rule_id() }
    }

    fn cnr() -> NbiCall {
        NbiCall::SendConnectionRequest { cpe_id: cpe_id() }
    }

    fn rows(answer: &Result<NbiAnswer, NbiFailure>) -> (usize, bool) {
        match answer {
            Ok(NbiAnswer::Results { rows, .. }) => (rows.len(), false),
            Ok(NbiAnswer::Rules {
                rows,
                filter_ignored,
            }) => (rows.len(), *filter_ignored),
            other => panic!("{other:?}"),
        }
    }

    const FIRST: &str = "Get FirmwareResultStorage?id=R";
    const SECOND: &str = "Get FirmwareResultStorage?campaignid=R";

    #[tokio::test(start_paused = true)]
    async fn the_configured_name_is_kept_once_it_found_a_row() {
        let (client, script) = client([result_rows(&["R"]), code(404)]);
        assert_eq!(rows(&client.call(&read_results()).await), (1, false));
        assert_eq!(rows(&client.call(&read_results()).await), (0, false));
        assert_eq!(asked(&script), [FIRST, FIRST]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_other_name_is_asked_until_one_found_a_row_and_then_alone() {
        let (client, script) = client([
            code(404),
            code(404),
            code(404),
            result_rows(&["R"]),
            code(404),
        ]);
        for (expected, questions) in [
            (0, vec![FIRST, SECOND]),
            (1, vec![FIRST, SECOND]),
            (0, vec![SECOND]),
        ] {
            assert_eq!(rows(&client.call(&read_results()).await), (expected, false));
            assert_eq!(asked(&script), questions);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_was_under_way_while_another_learnt_the_name_asks_under_that() {
        let (client, script) = client([
            code(404),
            result_rows(&["R"]),
            code(404),
            result_rows(&["R"]),
        ]);
        let call = read_results();
        let later = async {
            tokio::time::sleep(Duration::from_millis(15)).await;
            client.call(&call).await
        };
        let (one, other) = tokio::join!(client.call(&call), later);
        assert_eq!((rows(&one), rows(&other)), ((1, false), (1, false)));
        assert_eq!(asked(&script), [FIRST, SECOND, FIRST, SECOND]);
    }

    #[tokio::test(start_paused = true)]
    async fn writes_use_the_name_that_reads_learnt() {
        let (client, script) = client([
            code(404),
            rule_rows(&["R"]),
            code(204),
            code(204),
            code(204),
            code(404),
        ]);
        client.call(&read_rule()).await.unwrap();
        for call in [disarm(), delete(), NbiCall::UpdateRule(spec())] {
            assert_eq!(client.call(&call).await, Ok(NbiAnswer::Done));
        }
        assert_eq!(client.call(&disarm()).await, Ok(NbiAnswer::NoSuchRule));
        assert_eq!(
            asked(&script),
            [
                "Get FirmwareStorage?campaignid=R",
                "Get FirmwareStorage?id=R",
                "Put FirmwareStorage?id=R",
                "Delete FirmwareStorage?id=R",
                "Put FirmwareStorage?id=R",
                "Put FirmwareStorage?id=R",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_finds_no_row_is_tried_once_under_the_other_name() {
        let (client, script) = client([
            code(404),
            code(204),
            code(404),
            code(404),
            code(404),
            code(400),
        ]);
        assert_eq!(client.call(&disarm()).await, Ok(NbiAnswer::Done));
        assert_eq!(
            client.call(&NbiCall::UpdateRule(spec())).await,
            Ok(NbiAnswer::NoSuchRule)
        );
        assert_eq!(client.call(&disarm()).await, Ok(NbiAnswer::NoSuchRule));
        let pair = [
            "Put FirmwareStorage?campaignid=R",
            "Put FirmwareStorage?id=R",
        ];
        assert_eq!(asked(&script), [pair, pair, pair].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn no_write_falls_back_to_a_name_that_is_no_filter_and_no_delete_to_one_that_was_not_tried()
     {
        let (client, script) = client([
            code(404),
            code(404),
            rule_rows(&["S", "T"]),
            code(404),
            code(404),
        ]);
        assert_eq!(client.call(&delete()).await, Ok(NbiAnswer::NoSuchRule));
        assert_eq!(rows(&client.call(&read_rule()).await), (0, false));
        assert_eq!(client.call(&disarm()).await, Ok(NbiAnswer::NoSuchRule));
        assert_eq!(client.call(&delete()).await, Ok(NbiAnswer::NoSuchRule));
        assert_eq!(
            asked(&script),
            [
                "Delete FirmwareStorage?campaignid=R",
                "Get FirmwareStorage?campaignid=R",
                "Get FirmwareStorage?id=R",
                "Put FirmwareStorage?campaignid=R",
                "Delete FirmwareStorage?campaignid=R",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn rows_of_others_teach_no_name() {
        // The first name is no filter, the second finds ours alone.
        let (client, script) =
            client([rule_rows(&["R", "S"]), rule_rows(&["R"]), rule_rows(&["R"])]);
        assert_eq!(rows(&client.call(&read_rule()).await), (1, false));
        assert_eq!(rows(&client.call(&read_rule()).await), (1, false));
        let (first, second) = (
            "Get FirmwareStorage?campaignid=R",
            "Get FirmwareStorage?id=R",
        );
        assert_eq!(asked(&script), [first, second, second]);

        // Neither is a filter: ours is found, and the core is told.
        let (client, script) = client_with(
            NbiSettings::default(),
            Duration::ZERO,
            [
                rule_rows(&["S"]),
                rule_rows(&["R", "S"]),
                rule_rows(&["S"]),
                rule_rows(&["S"]),
            ],
        );
        assert_eq!(rows(&client.call(&read_rule()).await), (1, true));
        assert_eq!(rows(&client.call(&read_rule()).await), (0, true));
        assert_eq!(asked(&script), [first, second, first, second]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_the_nbi_rejects_does_no_harm() {
        // As second name: what the first said stands, and it is not asked again for some time.
        let (client, script) = client([
            code(404),
            code(400),
            code(400),
            code(404),
            code(404),
            code(400),
            code(404),
        ]);
        assert_eq!(rows(&client.call(&read_results()).await), (0, false));
        assert_eq!(rows(&client.call(&read_results()).await), (0, false));
        assert_eq!(asked(&script), [FIRST, SECOND, SECOND, FIRST]);
        tokio::time::advance(Duration::from_secs(600)).await;
        assert_eq!(rows(&client.call(&read_results()).await), (0, false));
        assert_eq!(rows(&client.call(&read_results()).await), (0, false));
        assert_eq!(asked(&script), [FIRST, SECOND, FIRST]);

        // As first name: the second may do.
        let (client, script) = client_with(
            NbiSettings::default(),
            Duration::ZERO,
            [code(400), code(400), result_rows(&["R"]), code(404)],
        );
        assert_eq!(rows(&client.call(&read_results()).await), (1, false));
        assert_eq!(rows(&client.call(&read_results()).await), (0, false));
        assert_eq!(asked(&script), [FIRST, FIRST, SECOND, SECOND]);
    }

    /// A rule that is taken for absent stays armed, or is armed twice.
    #[tokio::test(start_paused = true)]
    async fn one_odd_answer_of_a_proxy_makes_no_rule_absent() {
        const FIRST: &str = "Get FirmwareStorage?campaignid=R";
        const SECOND: &str = "Get FirmwareStorage?id=R";
        let odd = || http(406, "<html>Not Acceptable</html>");
        let (client, script) = client([odd(), rule_rows(&["R"])]);
        assert_eq!(rows(&client.call(&read_rule()).await), (1, false));
        assert_eq!(asked(&script), [FIRST, FIRST]);

        for strange in [odd(), code(405)] {
            let (client, script) = client_with(
                NbiSettings::default(),
                Duration::ZERO,
                [code(404), strange, rule_rows(&["R"])],
            );
            assert_eq!(rows(&client.call(&read_rule()).await), (1, false));
            assert_eq!(asked(&script), [FIRST, SECOND, SECOND]);
        }

        // Rules that may not be read under the second name are not absent.
        let (client, _) = client_with(
            NbiSettings::default(),
            Duration::ZERO,
            [code(404), code(405), code(405)],
        );
        let read = client.call(&read_rule()).await;
        assert_eq!(read, Ok(NbiAnswer::RulesUnreadable));

        // Where it lasts, what disarms tries the name all the same.
        let (client, script) = client_with(
            NbiSettings::default(),
            Duration::ZERO,
            [
                code(404),
                odd(),
                odd(),
                code(404),
                code(204),
                code(404),
                rule_rows(&["R"]),
            ],
        );
        assert_eq!(rows(&client.call(&read_rule()).await), (0, false));
        assert_eq!(client.call(&disarm()).await, Ok(NbiAnswer::Done));
        // Which shows that the NBI takes it.
        assert_eq!(rows(&client.call(&read_rule()).await), (1, false));
        assert_eq!(asked(&script).len(), 7);
    }

    /// A rule that is taken for absent is armed again, and its device flashed twice.
    #[tokio::test(start_paused = true)]
    async fn what_nobody_can_read_under_the_second_name_is_not_taken_for_no_rows() {
        let garbage = || http(200, "<html><body>Please log in</body></html>");
        let answers = (0..5)
            .flat_map(|_| [code(404), garbage(), garbage()])
            .chain([code(404)]);
        let (client, script) = client(answers);
        for _ in 0..5 {
            let read = client.call(&read_rule()).await;
            assert!(
                matches!(read, Err(NbiFailure::Unintelligible { .. })),
                "{read:?}"
            );
        }
        // None could ever be read, for long: the NBI does not know the name.
        tokio::time::advance(Duration::from_secs(600)).await;
        assert_eq!(rows(&client.call(&read_rule()).await), (0, false));
        assert_eq!(asked(&script).len(), 16);
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_under_the_second_name_is_not_taken_for_no_rows() {
        let settings = NbiSettings {
            quick_retries: 0,
            ..NbiSettings::default()
        };
        let (client, _) = client_with(settings, Duration::ZERO, [code(404), http(503, "")]);
        assert!(matches!(
            client.call(&read_results()).await,
            Err(NbiFailure::Transient { .. })
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_of_the_operators_own_has_no_other_and_an_empty_one_is_never_sent() {
        let settings = NbiSettings {
            result_query: "rule".to_owned(),
            rule_query: String::new(),
            version_method: "Read/It".to_owned(),
            ..NbiSettings::default()
        };
        let (client, script) = client_with(
            settings,
            Duration::ZERO,
            [code(404), http(200, "{\"A\":1}")],
        );
        assert_eq!(rows(&client.call(&read_results()).await), (0, false));
        for call in [read_rule(), disarm(), delete(), NbiCall::UpdateRule(spec())] {
            assert!(
                matches!(client.call(&call).await, Err(NbiFailure::Rejected { .. })),
                "{call:?}"
            );
        }
        let _ = client
            .call(&NbiCall::ReadVersion { cpe_id: cpe_id() })
            .await;
        assert_eq!(
            asked(&script),
            ["Get FirmwareResultStorage?rule=R", "Post Read%2FIt"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_be_repeated_is_repeated_quickly_and_not_too_often() {
        let begun = Instant::now();
        let (client, script) = client([
            http(503, ""),
            Err(TransportError::NoAnswer("reset".to_owned())),
            code(204),
        ]);
        assert_eq!(client.call(&disarm()).await, Ok(NbiAnswer::Done));
        assert_eq!(asked(&script).len(), 3);
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );

        let (client, script) = client_with(
            NbiSettings::default(),
            Duration::ZERO,
            std::iter::repeat_n(code(500), 3),
        );
        assert!(matches!(
            client.call(&cnr()).await,
            Err(NbiFailure::Transient { .. })
        ));
        assert_eq!(asked(&script).len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_arms_a_rule_is_sent_once() {
        for call in [NbiCall::CreateRule(spec()), NbiCall::UpdateRule(spec())] {
            for answer in [
                http(503, ""),
                Err(TransportError::Connect("refused".to_owned())),
            ] {
                let (client, script) = client([answer]);
                assert!(matches!(
                    client.call(&call).await,
                    Err(NbiFailure::Transient { .. })
                ));
                assert_eq!(asked(&script).len(), 1);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_trouble_that_passes_is_not_repeated() {
        for answer in [code(400), http(200, "<html>"), code(401)] {
            let (client, script) = client([answer]);
            assert!(client.call(&disarm()).await.is_err());
            assert_eq!(asked(&script).len(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_failure_leaves_no_time_for_a_quick_retry() {
        let (client, script) = client_with(
            NbiSettings::default(),
            Duration::from_secs(30),
            [http(504, "")],
        );
        assert!(client.call(&disarm()).await.is_err());
        assert_eq!(asked(&script).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_the_nbi_asks_for_is_kept_if_it_is_short_and_handed_on_if_not() {
        let begun = Instant::now();
        let (client, _) = client([after(503, "1"), code(204)]);
        assert_eq!(client.call(&disarm()).await, Ok(NbiAnswer::Done));
        assert_eq!(begun.elapsed().as_millis() / 100, 10);

        let (client, script) =
            client_with(NbiSettings::default(), Duration::ZERO, [after(429, "30")]);
        let Err(NbiFailure::Transient {
            retry_after,
            no_effect,
            ..
        }) = client.call(&disarm()).await
        else {
            panic!()
        };
        assert_eq!(
            (retry_after, no_effect),
            (Some(SignedDuration::from_secs(30)), true)
        );
        assert_eq!(asked(&script).len(), 1);

        // A pause of nothing does not make tries endless.
        let (client, script) = client_with(
            NbiSettings::default(),
            Duration::ZERO,
            std::iter::repeat_n(after(503, "0"), 3),
        );
        assert!(client.call(&disarm()).await.is_err());
        assert_eq!(asked(&script).len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_circuit_opens_turns_calls_away_probes_and_closes() {
        let create = NbiCall::CreateRule(spec());
        let (client, script) = client(std::iter::repeat_n(http(503, ""), 5).chain([
            http(502, ""),
            code(204),
            code(204),
        ]));
        let circuit = client.circuit();
        for _ in 0..5 {
            assert_eq!(*circuit.borrow(), CircuitState::Closed);
            assert!(matches!(
                client.call(&create).await,
                Err(NbiFailure::Transient { .. })
            ));
        }
        let CircuitState::Open { until } = *circuit.borrow() else {
            panic!()
        };
        assert_eq!(until - Instant::now(), Duration::from_secs(5));
        let Err(NbiFailure::NotSent { retry_after, .. }) = client.call(&create).await else {
            panic!()
        };
        assert_eq!(retry_after, SignedDuration::from_secs(5));
        assert_eq!(asked(&script).len(), 5);

        // A failed probe is not repeated, though the call may be: the circuit is open again.
        tokio::time::sleep_until(until).await;
        assert!(matches!(
            client.call(&cnr()).await,
            Err(NbiFailure::Transient { .. })
        ));
        assert_eq!(asked(&script).len(), 1);
        let CircuitState::Open { until } = *circuit.borrow() else {
            panic!()
        };
        assert_eq!(until - Instant::now(), Duration::from_secs(10));

        tokio::time::sleep_until(until).await;
        let disarm = disarm();
        let (probe, other) = tokio::join!(client.call(&disarm), async {
            tokio::task::yield_now().await;
            assert_eq!(*circuit.borrow(), CircuitState::Probing);
            client.call(&disarm).await
        });
        assert_eq!(probe, Ok(NbiAnswer::Done));
        assert!(matches!(other, Err(NbiFailure::NotSent { .. })));
        assert_eq!(*circuit.borrow(), CircuitState::Closed);
        assert_eq!(client.call(&disarm).await, Ok(NbiAnswer::Done));
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_too_long_for_its_turn_is_not_sent() {
        let settings = NbiSettings {
            max_concurrency: 1,
            ..NbiSettings::default()
        };
        let takes = Duration::from_secs(25);
        let (client, script) = client_with(settings, takes, [code(204), code(204)]);
        let create = NbiCall::CreateRule(spec());
        let begun = Instant::now();
        let (delete, wake) = (delete(), cnr());
        let (slow, created, woken, disarmed) = tokio::join!(
            client.call(&delete),
            async { (client.call(&create).await, begun.elapsed().as_secs()) },
            async { (client.call(&wake).await, begun.elapsed().as_secs()) },
            async { client.call(&disarm()).await },
        );
        assert_eq!(slow, Ok(NbiAnswer::Done));
        assert_eq!(disarmed, Ok(NbiAnswer::Done));
        assert_eq!((created.1, woken.1), (10, 10));
        let rest = SignedDuration::from_secs(10);
        for outcome in [created.0, woken.0] {
            let Err(NbiFailure::NotSent {
                message,
                retry_after,
            }) = outcome
            else {
                panic!("{outcome:?}")
            };
            assert!(message.contains("10 s"), "{message}");
            assert_eq!(retry_after, rest);
        }
        let asked = asked(&script);
        assert!(
            !asked.iter().any(|what| what.starts_with("Post")),
            "{asked:?}"
        );
        assert_eq!(asked.len(), 2, "{asked:?}");
        // It says nothing of the NBI's health.
        assert_eq!(*client.circuit().borrow(), CircuitState::Closed);
        let metrics = client.telemetry.metrics_text().unwrap();
        assert!(
            metrics.contains("nbi_upgrade_nbi_limiter_wait_seconds_count{class=\"writes\"} 3"),
            "{metrics}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_try_that_was_sent_has_shown_counts_although_the_next_one_is_not_sent() {
        // The second moment is further away than any call waits.
        let budgets = NbiSettings::default();
        let settings = NbiSettings {
            requests_per_second: Some(0.001),
            ..budgets
        };
        let takes = Duration::from_millis(10);
        let (client, script) = client_with(settings, takes, [http(503, "")]);
        let outcome = client.call(&disarm()).await;
        assert!(
            matches!(
                outcome,
                Err(NbiFailure::Transient {
                    no_effect: false,
                    ..
                })
            ),
            "{outcome:?}"
        );
        assert_eq!(asked(&script).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn refused_credentials_open_the_circuit_at_once() {
        let (client, script) = client([http(401, "")]);
        assert!(matches!(
            client.call(&read_results()).await,
            Err(NbiFailure::Refused { .. })
        ));
        assert!(matches!(
            client.call(&read_results()).await,
            Err(NbiFailure::NotSent { .. })
        ));
        assert_eq!(asked(&script).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn sleeping_devices_do_not_open_the_circuit() {
        let offline = || {
            http(
                200,
                r#"{"result":{"code":504,"message":"device does not answer"}}"#,
            )
        };
        let (client, script) = client(std::iter::repeat_with(offline).take(30));
        for _ in 0..10 {
            assert!(matches!(
                client.call(&cnr()).await,
                Err(NbiFailure::Transient { .. })
            ));
        }
        assert_eq!(
            (asked(&script).len(), *client.circuit().borrow()),
            (30, CircuitState::Closed)
        );
    }

    /// An NBI may wait until the device answers (unknown).
    #[tokio::test(start_paused = true)]
    async fn devices_that_sleep_until_time_is_up_open_no_circuit_keep_none_open_and_take_no_places()
    {
        let late = || Err(TransportError::TimedOut("late".to_owned()));
        let (settings, takes) = (NbiSettings::default(), Duration::from_secs(30));
        let (client, _) = client_with(settings, takes, (0..80).map(|_| late()));
        let begins_with = client.limiter.limit();
        let wake = cnr();
        for _ in 0..10 {
            let woken = futures_util::future::join_all((0..8).map(|_| client.call(&wake))).await;
            assert!(woken.iter().all(Result::is_err));
        }
        assert_eq!(*client.circuit().borrow(), CircuitState::Closed);
        assert_eq!(client.limiter.limit(), begins_with);

        // As a probe it leaves its place to the next.
        let answers = [http(401, ""), late(), code(204)];
        let (client, script) = client_with(NbiSettings::default(), takes, answers);
        let _ = client.call(&disarm()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(client.call(&cnr()).await.is_err());
        assert_eq!(client.call(&disarm()).await, Ok(NbiAnswer::Done));
        assert_eq!(*client.circuit().borrow(), CircuitState::Closed);
        assert_eq!(asked(&script).len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_given_up_leaves_its_place() {
        let (client, _) = client([http(401, ""), code(204), code(204)]);
        let _ = client.call(&disarm()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(
            tokio::time::timeout(Duration::from_millis(1), client.call(&disarm()))
                .await
                .is_err()
        );
        assert_eq!(client.call(&disarm()).await, Ok(NbiAnswer::Done));
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_spaces_requests_of_all_calls() {
        let settings = NbiSettings {
            requests_per_second: Some(1.0),
            ..NbiSettings::default()
        };
        let (client, _) = client_with(settings, Duration::ZERO, std::iter::repeat_n(code(204), 4));
        let begun = Instant::now();
        let (disarm, cnr) = (disarm(), cnr());
        let _ = tokio::join!(
            client.call(&disarm),
            client.call(&cnr),
            client.call(&disarm),
            client.call(&cnr)
        );
        assert_eq!(begun.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_request_has_an_exact_word() {
        let telemetry: Arc<Telemetry> = Arc::default();
        for (error, word) in [
            (TransportError::TimedOut("late".to_owned()), "timeout"),
            (TransportError::NoAnswer("reset".to_owned()), "no_answer"),
            (TransportError::Connect("refused".to_owned()), "connect"),
            (TransportError::TooLarge { limit: 1 }, "too_large"),
        ] {
            let script = Arc::new(Script {
                answers: Mutex::new([Err(error)].into()),
                ..Script::default()
            });
            let client = NbiClient::new(script, NbiSettings::default(), telemetry.clone());
            assert!(client.call(&NbiCall::CreateRule(spec())).await.is_err());
            let series = format!(
                "nbi_upgrade_nbi_request_duration_seconds_count{{operation=\"create_rule\",status=\"{word}\"}} 1\n"
            );
            let text = telemetry.metrics_text().unwrap();
            assert!(text.contains(&series), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_class_has_its_own_time_limit() {
        #[derive(Debug, Default)]
        struct Limits(Mutex<Vec<Option<u64>>>);
        impl Transport for Arc<Limits> {
            async fn send(&self, request: &Request) -> Result<RawAnswer, TransportError> {
                let seconds = request.timeout.map(|timeout| timeout.as_secs());
                self.0.lock().unwrap().push(seconds);
                code(400)
            }
        }
        let seconds = |seconds| Budget {
            timeout: Some(Duration::from_secs(seconds)),
            ..Budget::default()
        };
        let settings = NbiSettings {
            budgets: Budgets {
                writes: seconds(1),
                connection_requests: seconds(2),
                reads: Budget::default(),
            },
            ..NbiSettings::default()
        };
        let limits = Arc::new(Limits::default());
        let client = NbiClient::new(limits.clone(), settings, Arc::default());
        for call in [NbiCall::CreateRule(spec()), disarm(), delete(), cnr()] {
            assert!(client.call(&call).await.is_err());
        }
        let _ = client
            .call(&NbiCall::ReadVersion { cpe_id: cpe_id() })
            .await;
        assert_eq!(
            *limits.0.lock().unwrap(),
            [Some(1), Some(1), Some(1), Some(2), None]
        );
    }

    #[test]
    fn a_call_is_small_however_large_an_exchange_is() {
        #[derive(Debug)]
        struct Large;
        impl Transport for Large {
            async fn send(&self, _: &Request) -> Result<RawAnswer, TransportError> {
                let kept = [0_u8; 16 * 1024];
                tokio::task::yield_now().await;
                Err(TransportError::Connect(kept.len().to_string()))
            }
        }
        let client = NbiClient::new(Large, NbiSettings::default(), Arc::default());
        let size = size_of_val(&client.call(&read_results()));
        assert!(size < 8 * 1024, "{size} bytes, moved with every delivery");
    }

    /// Takes 20 ms for up to eight requests at once, and longer the more there are.
    #[derive(Debug, Default)]
    struct Crowded {
        under_way: AtomicUsize,
        most: AtomicUsize,
    }

    impl Transport for Arc<Crowded> {
        async fn send(&self, _: &Request) -> Result<RawAnswer, TransportError> {
            let with_it = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(with_it, Ordering::SeqCst);
            let times = u32::try_from(with_it.max(8)).unwrap();
            tokio::time::sleep(Duration::from_millis(20) * times / 8).await;
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            code(204)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowded_nbi_gets_fewer_requests_at_once_unless_that_is_switched_off() {
        for (is_adaptive, least, most) in [(true, 8, 40), (false, 64, 64)] {
            let settings = NbiSettings {
                max_concurrency: 64,
                is_adaptive,
                ..NbiSettings::default()
            };
            let (server, telemetry) =
                (Arc::new(Crowded::default()), Arc::new(Telemetry::default()));
            let client = Arc::new(NbiClient::new(server.clone(), settings, telemetry.clone()));
            let mut callers = tokio::task::JoinSet::new();
            for _ in 0..64 {
                let client = client.clone();
                callers.spawn(async move {
                    loop {
                        assert_eq!(client.call(&disarm()).await, Ok(NbiAnswer::Done));
                    }
                });
            }
            tokio::time::sleep(Duration::from_secs(30)).await;
            server.most.store(0, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(10)).await;
            let seen = server.most.load(Ordering::SeqCst);
            assert!((least..=most).contains(&seen), "{seen}");
            let text = telemetry.metrics_text().unwrap();
            let gauge = text
                .lines()
                .find_map(|line| line.strip_prefix("nbi_upgrade_nbi_concurrency_limit "));
            let limit: usize = gauge.unwrap().parse().unwrap();
            assert!((least..=most).contains(&limit), "{limit}");
            callers.shutdown().await;
        }
    }
}
