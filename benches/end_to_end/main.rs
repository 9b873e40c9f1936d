//! End to end, measured: `just bench`, or `cargo bench --bench end_to_end -- [SCENARIO…] [--jobs N] [--rounds N] [--json FILE]`.
//!
//! A private RabbitMQ, a small NBI that answers at once, and the contenders, each a process of its own: the worker as it is built
//! here, and floors, which are the least programs that do the same (`floors.rs`). Contenders take turns within one run, so that a
//! noisy machine is noisy for all; ratios between them are what counts. Prints a table and writes the same as JSON.
//!
//! | scenario | measures |
//! | --- | --- |
//! | `throughput` | jobs per second, CPU of worker, broker and NBI, peak memory, calls: against the floors |
//! | `beside` | processor time per job: worker and floor at the same time, or those that `--contenders` names, by twos |
//! | `latency` | publish to outcome at light load |
//! | `hops` | continuations through the AMQP driver per second |
//! | `delays` | lateness of delayed steps, idle and in a burst |
//! | `start` | start to ready, size of the binary |
//! | `waiting` | memory while 100,000 and 200,000 jobs wait (minutes) |
//! | `growth` | jobs per second beside 1,000 to 500,000 waiting jobs, bursts of growing size (long) |
//!
//! Without names: the first six. The same program plays NBI, floors and driver: it starts itself with a role as first word.

#![expect(clippy::print_stdout, reason = "tables are its purpose")]

#[path = "../../tests/it/support"]
mod support {
    #![expect(dead_code, unused_imports, reason = "the tests use the rest")]
    pub(crate) mod client;
    pub(crate) mod rabbit;
}

mod arguments;
mod contenders;
mod contract;
mod driver;
mod floors;
mod growth;
mod load;
mod nbi;
mod process;
mod report;
mod site;

use arguments::{Arguments, Scenario};
use report::Report;
use site::Site;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["nbi"] => runtime.block_on(nbi::serve()),
        ["floor", kind, url, nbi] => runtime.block_on(floors::run(kind, url, nbi)),
        ["driver", kind, url, count, concurrency] => {
            runtime.block_on(driver::run(kind, url, number(count), number(concurrency)));
        }
        // `cargo test --all-targets` runs this without `--bench`: nothing is measured there.
        _ if !words.contains(&"--bench") => {
            println!("end_to_end: run it with `cargo bench --bench end_to_end`")
        }
        _ => runtime.block_on(measure(&Arguments::parse(&words))),
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

async fn measure(arguments: &Arguments) {
    let site = Site::begin();
    let mut report = Report::new(site.broker_version());
    for scenario in &arguments.scenarios {
        match scenario {
            Scenario::Throughput => contenders::throughput(&site, arguments, &mut report).await,
            Scenario::Beside => contenders::beside(&site, arguments, &mut report).await,
            Scenario::Latency => contenders::latency(&site, arguments, &mut report).await,
            Scenario::Hops => driver::hops(&site, arguments, &mut report).await,
            Scenario::Delays => driver::delays(&site, arguments, &mut report).await,
            Scenario::Start => growth::start(&site, &mut report).await,
            Scenario::Waiting => growth::waiting(&site, &mut report).await,
            Scenario::Growth => growth::growth(&site, arguments, &mut report).await,
        }
        // Shown as it grows: a run that is stopped has shown something.
        report.print_new();
    }
    report.write(&arguments.json);
}
