//! A broker that takes no messages: what a command waits for then is said.

use tokio::sync::watch;

use super::output;

/// Why the broker takes no messages, while it does not.
pub(super) struct Blocked(watch::Receiver<Option<String>>);

impl Blocked {
    pub(super) fn of(reason: watch::Receiver<Option<String>>) -> Self {
        Self(reason)
    }

    /// Does something, and says on standard error when the broker takes no messages meanwhile.
    pub(super) fn told_while<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> impl Future<Output = T> {
        // Boxed: it would be part of what awaits it twice.
        let mut work = Box::pin(work);
        async move {
            loop {
                tokio::select! {
                    biased;
                    done = &mut work => return done,
                    Ok(()) = self.0.changed() => self.tell(),
                }
            }
        }
    }

    fn tell(&mut self) {
        match &*self.0.borrow_and_update() {
            Some(reason) => {
                output::note(&format!("the broker takes no messages: {reason}; waiting"))
            }
            None => output::note("the broker takes messages again"),
        }
    }
}
