//! A real broker broken on purpose, and a wire cut at exact moments: what the AMQP driver and the worker promise holds all the same.

mod bench; // the driver, a client and the telemetry of one vhost

mod alarms; // memory alarms
mod cluster; // three nodes: killed, cut off
mod lateness; // delay queues after a broker was killed
mod others; // queues of others: full, unbound, silent
mod permissions; // rights taken away and given back
mod queues; // queues deleted, full, held for too long
mod soak; // everything at once, for long
mod steps; // steps that panic, steps that never end
mod stops; // what is under way at a stop
mod streams; // a stream that does not come back
mod wire; // connections cut between two frames, half-open, slow
