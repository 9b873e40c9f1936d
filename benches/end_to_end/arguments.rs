//! The command line of the bench.

use std::path::PathBuf;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    Throughput,
    Beside,
    Latency,
    Hops,
    Delays,
    Start,
    Waiting,
    Growth,
}

const NAMES: [(&str, Scenario); 8] = [
    ("throughput", Scenario::Throughput),
    ("beside", Scenario::Beside),
    ("latency", Scenario::Latency),
    ("hops", Scenario::Hops),
    ("delays", Scenario::Delays),
    ("start", Scenario::Start),
    ("waiting", Scenario::Waiting),
    ("growth", Scenario::Growth),
];

/// Those that take minutes are run by name only.
const USUAL: usize = 6;

/// What to measure, and how much of it.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) scenarios: Vec<Scenario>,
    /// Jobs of one round of one contender: long enough that the processors' ticks of 10 ms do not show.
    pub(crate) jobs: usize,
    /// Rounds; their median counts.
    pub(crate) rounds: usize,
    /// Contenders; all if empty.
    pub(crate) contenders: Vec<String>,
    /// Waiting jobs beside which `growth` stops.
    pub(crate) growth_max: usize,
    /// Where the JSON goes.
    pub(crate) json: PathBuf,
}

impl Arguments {
    /// Reads the words; whoever runs a bench sees a panic as well as a usage text.
    pub(crate) fn parse(words: &[&str]) -> Self {
        let mut arguments = Self {
            scenarios: Vec::new(),
            jobs: 10_000,
            rounds: 3,
            contenders: Vec::new(),
            growth_max: 500_000,
            json: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("end_to_end.json"),
        };
        let mut words = words.iter().filter(|word| **word != "--bench");
        while let Some(word) = words.next() {
            let mut value = || {
                *words
                    .next()
                    .unwrap_or_else(|| panic!("{word} needs a value"))
            };
            match *word {
                "--jobs" => arguments.jobs = super::number(value()),
                "--rounds" => arguments.rounds = super::number(value()).max(1),
                "--growth-max" => arguments.growth_max = super::number(value()),
                "--contenders" => {
                    arguments.contenders = value().split(',').map(str::to_owned).collect()
                }
                "--json" => arguments.json = PathBuf::from(value()),
                name => {
                    let known = NAMES.iter().find(|(known, _)| *known == name);
                    let names = NAMES.map(|(known, _)| known).join(", ");
                    arguments.scenarios.push(
                        known
                            .unwrap_or_else(|| panic!("{name:?} is none of {names}"))
                            .1,
                    );
                }
            }
        }
        if arguments.scenarios.is_empty() {
            arguments.scenarios = NAMES
                .iter()
                .take(USUAL)
                .map(|(_, scenario)| *scenario)
                .collect();
        }
        arguments
    }
}
