//! Campaigns on the broker: one leader for all of them, one coordinator for each.
//!
//! Every worker stands by at `<p>.campaigns`, whose single active consumer is the leader. Each active campaign is one message there, its
//! definition, which the leader holds until the campaign is over: so the broker itself says which campaigns there are and who leads
//! them, for as long as they last, and a leader that dies is followed by the next in line at once. Requests with `devices` come to the
//! leader through `<p>.campaigns.requests`, one after the other.
//!
//! A campaign has a queue of its devices that wait, and a log: a stream that nothing trims, bound to the final events of its jobs and to
//! its own events. What a coordinator knows is what it read in the log. It writes into the log what it is about to do, reads that back,
//! and only then does it; a coordinator that reads there that another one took over stops. So a successor knows every release that may
//! have happened, and does again only those of the last batch, which nobody confirmed.
//!
//! The log is not `<p>.events`: that is trimmed by age and size, which a campaign of many nights outlives, and it holds the events of
//! everybody, which a successor would have to read before it may start the next device.

mod ending;
mod leader;
mod meanwhile;
mod requests;

mod coordinator;
mod reports;
mod starts;

mod objects;
mod order;
mod outlet;

pub(super) use leader::run;
pub(super) use objects::{NEVER_DROPPED, held_arguments, leads, log, requests};
