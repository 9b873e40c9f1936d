//! All integration tests: one binary, as each would link everything again.

mod support;

/// The AMQP driver against a real RabbitMQ.
mod amqp_driver;
