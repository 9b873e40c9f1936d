//! How often a job was there: the broker counts, the checks excuse by it what only copies can bring about.

use jiff::Timestamp;

/// The copies of one job in a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Copies {
    /// The most at a time: messages, and deliveries with which a worker goes on although they come again.
    pub(crate) most: usize,
    /// Since when there has been more than one, or one after the first was done. None: there never was.
    pub(crate) since: Option<Timestamp>,
    /// Requests, and whatever has made one more.
    pub(crate) made: usize,
    /// Deliveries that came again before anything had taken their place: no copies, but what was done is done again. Of workers that died…
    pub(crate) of_the_dead: usize,
    /// …and of workers that gave them back.
    pub(crate) given_back: usize,
    /// Deliveries that came again while their worker, cut off, went on with them.
    pub(crate) cut_off: usize,
}

impl Copies {
    /// How many there may have been at a time.
    pub(crate) fn may_be(&self) -> usize {
        self.made + self.of_the_dead + self.given_back
    }

    /// There is more than one now.
    pub(crate) fn is_copied_at(&mut self, now: Timestamp) {
        self.since.get_or_insert(now);
    }
}
