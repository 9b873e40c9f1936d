//! What the tests share.

pub(crate) mod rabbit; // private RabbitMQ nodes
pub(crate) mod world; // a whole world in virtual time
