//! The one integration binary: a table of contents. One binary, as each would link everything again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "tests print their figures")]

mod support;

mod stories; // worker, local driver and simulator in virtual time
mod sweep; // a crash at every point, once and twice, and storms, in virtual time

mod orphans; // rules that no job owns, in virtual time

mod campaign_scale; // the core of campaigns with 100,000 devices, in virtual time

mod driver_contract; // both drivers, and the sweep's model of one
mod nbi_contract; // both transports
mod nbi_trouble; // the client against everything that can go wrong on a socket

mod amqp_driver; // the AMQP driver against a real RabbitMQ
mod amqp_stream; // streams of a real RabbitMQ
mod broker_roles; // deploy/rabbitmq: what each kind of user may do on a real RabbitMQ
mod chaos; // the same broken on purpose: alarms, cuts, clusters
mod fleet; // the built program: worker processes, a simulated NBI over HTTP and a real RabbitMQ
#[cfg(feature = "otel")]
mod otel; // spans as a collector gets them
mod tls; // certificates and secrets, against a RabbitMQ and an NBI that speak TLS

#[expect(unreachable_pub, reason = "a crate of its own for the fuzzer")]
#[path = "../fuzz/src/lib.rs"]
mod fuzz;
mod fuzz_corpus; // what the fuzzer found worth keeping, played again

mod contract; // schemas, and the events of real runs against them
mod observe; // dashboards and alerts, and a real Prometheus that watches workers

mod cli; // the built binary: help texts, exit statuses, what is printed
mod run_command; // a fleet without a broker, killed and taken up again
mod tidy; // the house rules that no compiler keeps
mod tidy_documents; // examples and links in documents
