//! What the tests share.

pub(crate) mod amqp_proxy; // a TCP proxy that knows AMQP's frames
pub(crate) mod certificates; // authorities, certificates, mounted secrets
pub(crate) mod client; // a vhost, and a client of it
pub(crate) mod cluster; // three nodes as one broker
pub(crate) mod collector; // events as a consumer of the results sees them
pub(crate) mod http; // one HTTP exchange
pub(crate) mod processes; // the program's own processes: simulator and workers
pub(crate) mod prometheus;
pub(crate) mod proxy; // a TCP proxy that can be taken away
pub(crate) mod rabbit; // private RabbitMQ nodes
pub(crate) mod repeats; // events of one id, compared
pub(crate) mod site; // simulator, workers and broker together
pub(crate) mod tls_server; // TLS in front of a plain server
pub(crate) mod world; // a whole world in virtual time
