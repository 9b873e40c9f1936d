//! What the broker refused or failed to do, in words an operator can act on.
//!
//! Never holds a credential: of a URL only scheme, host, port and vhost are printed.

use std::time::Duration;

use lapin::ConnectionStatus;

/// The broker, or the way to it, failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to {action}: {cause}{}", remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default())]
pub struct BrokerError {
    /// What was tried, with the object's name.
    pub action: String,
    /// What happened, in the broker's words where it had any.
    pub cause: String,
    /// What to do about it, where that is known.
    pub remedy: Option<String>,
    /// AMQP's reply code, where the broker gave one.
    pub code: Option<u16>,
}

impl BrokerError {
    /// An error without reply code and remedy.
    pub(super) fn new(action: impl Into<String>, cause: impl Into<String>) -> Self {
        Self {
            action: action.into(),
            cause: cause.into(),
            remedy: None,
            code: None,
        }
    }

    /// An error from the client library.
    pub(super) fn of(action: impl Into<String>, error: &lapin::Error) -> Self {
        Self {
            action: action.into(),
            cause: text(error),
            remedy: None,
            code: code(error),
        }
    }

    /// A call that took too long.
    pub(super) fn timeout(action: impl Into<String>, after: Duration) -> Self {
        Self::new(
            action,
            format!("no answer within {} s", after.as_secs_f32()),
        )
    }

    /// With what to do about it.
    #[must_use]
    pub(super) fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Whether no retry heals it until somebody changes something: access refused, missing object, unequal argument, no such vhost.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        // A queue whose node is only just starting is 404 too, and comes back by itself.
        let is_down = self.cause.contains("down or inaccessible");
        matches!(self.code, Some(403 | 404 | 406 | 530)) && !is_down
    }

    /// Whether what was asked for is not there. What stands on a node that is away is not missing.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.code == Some(404) && self.is_permanent()
    }
}

/// The reply code inside an error of the client library.
pub(super) fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// The broker's own words, or the library's.
pub(super) fn text(error: &lapin::Error) -> String {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        _ => error.to_string(),
    }
}

/// Whether an error on a connection's event stream has ended one of its channels only: the library tells both there.
pub(super) fn is_of_a_channel(error: &lapin::Error, status: &ConnectionStatus) -> bool {
    error.is_amqp_soft_error() && status.connected()
}

/// Awaits a call to the broker for at most `limit`.
///
/// # Errors
///
/// [`BrokerError`] when it fails or takes longer.
pub(super) async fn bounded<T>(
    action: impl Fn() -> String,
    limit: Duration,
    call: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(BrokerError::of(action(), &error)),
        Err(_) => Err(BrokerError::timeout(action(), limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_on_a_node_that_is_away_is_not_missing() {
        let refused = |code, cause: &str| BrokerError {
            code,
            ..BrokerError::new("look", cause)
        };
        let missing = refused(Some(404), "NOT_FOUND - no queue 'q' in vhost '/'");
        assert!(missing.is_missing() && missing.is_permanent());
        let away = "NOT_FOUND - queue 'q' in vhost '/' process is stopped by supervisor, its home node is down or inaccessible";
        for other in [
            refused(Some(404), away),
            refused(Some(403), "ACCESS_REFUSED"),
            refused(None, "NOT_FOUND"),
        ] {
            assert!(!other.is_missing(), "{other}");
        }
    }
}
