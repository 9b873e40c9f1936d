//! The built program with real parts: processes, HTTP, RabbitMQ. Mostly fleets of devices; and `acknowledgements`, the driver alone.

mod acknowledgements; // given in the last moment, by a driver in the tests' own process
mod bad_input; // requests and steps that cannot be read
mod broker_away; // lost connections, a broker killed, a broker that comes late
mod campaign_limits; // windows, keys, deadlines, pauses, the emergency stop
mod campaign_troubles; // what is taken away from them, or bounded; leaders that die at the end of one
pub(crate) mod campaigns; // many devices from one request, with coordinators that die
mod check; // what stands, what is missing, what is refused
mod dead_letters; // listed, shown, sent back, dropped
mod document; // docs/cli.md
mod history; // watch and status
mod logs; // no secret in them, and few lines about what lasts
mod memory; // jobs that wait are nowhere in the worker
mod messages; // properties of events, and the metrics of a run
mod nbi_away; // an NBI that is down, and one that refuses the password
mod one_device; // two jobs for one device, at the same moment at two workers
mod orders; // cancel, pause, resume, the emergency stop
mod orphans; // rules that no job owns
mod refusals; // what the broker refuses to one campaign
mod restarts; // workers killed and rolled
mod switches; // every answer to the vendor's open questions
mod whole; // many jobs from end to end
