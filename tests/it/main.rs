//! The one integration binary: a table of contents. One binary, as each would link everything again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

mod stories; // worker, local driver and simulator in virtual time

mod driver_contract; // both drivers
mod nbi_contract; // both transports

mod amqp_driver; // the AMQP driver against a real RabbitMQ

mod chaos; // the same broken on purpose: alarms, cuts, clusters

mod fleet; // the built program: worker processes, a simulated NBI over HTTP and a real RabbitMQ
