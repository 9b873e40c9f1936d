//! A message of the model broker.

/// A queue that workers consume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    Requests,
    Steps,
}

/// A message of a job.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) queue: Queue,
    pub(crate) job: String,
    pub(crate) body: Vec<u8>,
    /// The worker's own mark: it, or what it was made from, may have been worked on before.
    pub(crate) marked: bool,
    /// When it was published, in Unix seconds, if that was said.
    pub(crate) timestamp: Option<u64>,
    /// Times it came back to its queue.
    pub(crate) deliveries: u32,
}

impl Message {
    pub(crate) fn new(queue: Queue, job: &str, body: Vec<u8>, marked: bool) -> Self {
        Self {
            queue,
            job: job.to_owned(),
            body,
            marked,
            timestamp: None,
            deliveries: 0,
        }
    }

    /// The broker's flag, or the worker's mark.
    pub(crate) fn is_redelivered(&self) -> bool {
        self.deliveries > 0 || self.marked
    }
}
