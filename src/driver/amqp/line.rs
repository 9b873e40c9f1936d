//! The way to a broker while a connection is being made: whoever gives up hangs up.
//!
//! The client library keeps a thread and a socket for as long as the other side is silent, also when nobody waits for the connection any
//! more. So a second handle of the socket is kept, by which both come to their end.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The way to one broker.
#[derive(Debug, Default)]
pub(super) struct Line {
    hung_up: CancellationToken,
    socket: Mutex<Option<TcpStream>>,
}

impl Line {
    /// Keeps a second handle of the socket, by which it can be ended.
    pub(super) fn hold(&self, socket: &impl AsFd) -> io::Result<()> {
        *self.socket() = Some(socket.as_fd().try_clone_to_owned()?.into());
        // Who has hung up meanwhile found no socket to end.
        if self.hung_up.is_cancelled() {
            self.hang_up();
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// Ends the connection for both sides.
    fn hang_up(&self) {
        self.hung_up.cancel();
        if let Some(socket) = self.socket().take() {
            // Where it fails, the other side has hung up.
            drop(socket.shutdown(Shutdown::Both));
        }
    }

    /// Dials, until somebody hangs up.
    pub(super) async fn unless_hung_up<T>(
        &self,
        dialled: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        tokio::select! {
            biased;
            () = self.hung_up.cancelled() => Err(io::ErrorKind::TimedOut.into()),
            dialled = dialled => dialled,
        }
    }

    /// The broker has answered: the socket is the connection's alone.
    pub(super) fn answered(&self) {
        *self.socket() = None;
    }

    fn socket(&self) -> MutexGuard<'_, Option<TcpStream>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends what has not been answered.
pub(super) struct HangsUp(pub(super) Arc<Line>);

impl Drop for HangsUp {
    fn drop(&mut self) {
        self.0.hang_up();
    }
}
