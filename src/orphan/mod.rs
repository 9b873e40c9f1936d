//! Orphans: rules of ours that are still armed and that no job owns any more.
//!
//! A rule is left behind when a job could not disarm it, when its continuation was dropped from the dead letters, or when a broker lost its
//! data. Any device that calls in would run it. [`Sweep`] lists the armed rules first and reads the history of events then: whoever
//! arms a rule has said before that it accepted the job. Nothing is disarmed on a guess: each [`Verdict`] but one leaves the rule alone.
//!
//! It reads the history, which others can trim, and sees what happens through one broker and prefix; what it cannot see it says.

mod amqp;
mod judge;
mod known;
mod list;
mod naming;
mod sweep;
mod watch;

pub use amqp::EventHistory;
pub use judge::Verdict;
pub use known::{Known, Reach};
pub use list::{Listing, list};
pub use naming::Naming;
pub use sweep::{Done, Found, Report, Settings, Sweep, SweepError};
pub use watch::{Periodic, watch};

use crate::message::past::Told;

/// The history, read on and on.
pub trait Past: Send {
    /// Reads from where it stands to the end of what is there now, and gives each event to `take`.
    ///
    /// # Errors
    ///
    /// Why it cannot be read.
    fn read_on(
        &mut self,
        take: impl FnMut(Told) + Send,
    ) -> impl Future<Output = Result<Reach, String>> + Send;

    /// The devices that a campaign has started and that have no outcome, by its own log; none where it has no log.
    ///
    /// # Errors
    ///
    /// Why the log cannot be read.
    fn under_way(
        &mut self,
        campaign_id: &str,
    ) -> impl Future<Output = Result<Vec<String>, String>> + Send;
}
