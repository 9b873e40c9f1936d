//! What several tests need.

/// Private RabbitMQ nodes.
pub(crate) mod rabbit;
