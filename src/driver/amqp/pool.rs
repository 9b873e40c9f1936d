//! The channels to publish through: one for each group of messages, as long as that is under way.
//!
//! A channel is opened when none is idle, and the one used last is taken first. It comes back when the broker has answered for everything
//! on it, and is closed otherwise. Closing overtakes messages that are not yet written, and the broker ends the connection over a message
//! on a closed channel: what is given up while it is written keeps its channel open to the end of the generation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Connection};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::connection::Ending;

/// Groups under way at a time.
pub(super) const CHANNELS_MAX: usize = 64;
/// Channels kept open for what was given up while it was written; one more ends the generation.
const ASIDE_MAX: usize = 8;
/// Channels that the connection needs besides: for replies, and such as are being closed.
const SPARE: usize = 4;

/// The channels of one connection, all in confirm mode.
#[derive(Debug)]
pub(super) struct Pool {
    connection: Arc<Connection>,
    idle: Mutex<Vec<Idle>>,
    places: Semaphore,
    aside: Mutex<Vec<Channel>>,
    /// A channel that was refused something is not used again at this age: a broker whose queue is no longer limited goes on refusing the
    /// channels that it refused before (seen on 3.10), and only a new one asks again.
    anew_after: Duration,
    ending: Arc<Ending>,
}

#[derive(Debug)]
struct Idle {
    channel: Channel,
    since: Instant,
    was_refused: bool,
}

impl Pool {
    /// No channel is open yet.
    pub(super) fn new(
        connection: Arc<Connection>,
        anew_after: Duration,
        ending: Arc<Ending>,
    ) -> Self {
        let max = usize::from(connection.configuration().channel_max());
        let places = max.saturating_sub(ASIDE_MAX + SPARE).clamp(1, CHANNELS_MAX);
        Self {
            connection,
            idle: Mutex::default(),
            places: Semaphore::new(places),
            aside: Mutex::default(),
            anew_after,
            ending,
        }
    }

    /// Waits for a free place; what else is waited for is the broker's answer to `open`.
    ///
    /// # Errors
    ///
    /// Those of `open`.
    pub(super) async fn take<E>(
        &self,
        open: impl AsyncFnOnce(&Connection) -> Result<Channel, E>,
    ) -> Result<Lease<'_>, E> {
        // The places are never closed.
        let place = self.places.acquire().await.ok();
        let mut idle = locked(&self.idle).pop();
        while let Some(old) = idle.take_if(|idle| idle.was_refused && self.is_old(idle.since)) {
            drop(old.channel);
            idle = locked(&self.idle).pop();
        }
        let idle = match idle {
            Some(idle) => idle,
            None => Idle {
                channel: open(&self.connection).await?,
                since: Instant::now(),
                was_refused: false,
            },
        };
        Ok(Lease {
            pool: self,
            idle,
            _place: place,
        })
    }

    /// Whether a channel that is open since then is not used again after trouble.
    pub(super) fn is_old(&self, since: Instant) -> bool {
        since.elapsed() >= self.anew_after
    }

    /// What is written to this channel from now on, until [`Writing::finish`].
    pub(super) fn writing<'a>(&'a self, channel: &'a Channel) -> Writing<'a> {
        Writing {
            pool: self,
            channel: Some(channel),
        }
    }

    fn put_aside(&self, channel: &Channel) {
        let mut aside = locked(&self.aside);
        if aside.iter().all(|kept| kept.id() != channel.id()) {
            aside.push(channel.clone());
        }
        if aside.len() > ASIDE_MAX {
            self.ending.end(format!(
                "more than {ASIDE_MAX} publishes were given up half written"
            ));
        }
    }
}

/// A channel for one group of messages. Dropped, it is closed, unless something is kept aside that is still being written.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    pool: &'a Pool,
    idle: Idle,
    _place: Option<SemaphorePermit<'a>>,
}

impl Lease<'_> {
    /// The channel.
    pub(super) fn channel(&self) -> &Channel {
        &self.idle.channel
    }

    /// Puts the channel back: the broker has answered for everything on it. `was_refused`: it refused something.
    pub(super) fn give_back(self, was_refused: bool) {
        let Self {
            pool,
            mut idle,
            _place,
        } = self;
        idle.was_refused |= was_refused;
        locked(&pool.idle).push(idle);
    }
}

/// Keeps a channel open to the end of the generation where this is dropped before all is written.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    pool: &'a Pool,
    channel: Option<&'a Channel>,
}

impl Writing<'_> {
    /// All is written: a close comes after it.
    pub(super) fn finish(mut self) {
        self.channel = None;
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if let Some(channel) = self.channel {
            self.pool.put_aside(channel);
        }
    }
}

/// Opens a channel in confirm mode.
///
/// # Errors
///
/// Those of the broker and the connection.
pub(super) async fn open(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(channel)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
