//! What the broker's answers to a group of messages mean, when all are there.
//!
//! The client library gives a returned message to whichever confirm of the channel it completes next, not to the message's own. As each
//! message that comes back is confirmed as well, and after it came back, no more returns can wait than there are such messages without
//! their confirm: when all of a group are confirmed that had the channel for itself, each return was told to one of the group. So they are
//! judged together, and a return belongs to the message with its address and id.

use lapin::Confirmation;
use lapin::message::BasicReturnMessage;

use super::publish::PublishError;

/// What a message is known by when it comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) exchange: String,
    pub(super) key: String,
    pub(super) id: Option<String>,
}

/// What was heard of one message: its confirm, and a message that came back, which may be another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) is_ack: bool,
    pub(super) returned: Option<(Known, String)>,
}

/// Takes a confirm apart.
///
/// # Errors
///
/// [`PublishError::NotRequested`].
pub(super) fn heard(confirmation: Confirmation) -> Result<Heard, PublishError> {
    let (is_ack, returned) = match confirmation {
        Confirmation::Ack(returned) => (true, returned),
        Confirmation::Nack(returned) => (false, returned),
        Confirmation::NotRequested => return Err(PublishError::NotRequested),
    };
    let returned = returned.map(|message| (known(&message), why(&message)));
    Ok(Heard { is_ack, returned })
}

fn known(message: &BasicReturnMessage) -> Known {
    let id = message.properties.message_id();
    Known {
        exchange: message.exchange.to_string(),
        key: message.routing_key.to_string(),
        id: id.as_ref().map(ToString::to_string),
    }
}

fn why(message: &BasicReturnMessage) -> String {
    format!("{} {}", message.reply_code, message.reply_text)
}

/// Judges the messages of a group, of which `known` tells by their number what they are known by.
///
/// Two that are known by the same both count as returned. Where a message has no confirm, a return may have been told to that one: then
/// nothing else counts as stored either. What is no name was never sent, and hides nothing.
pub(super) fn judge(
    all: Vec<Result<Heard, PublishError>>,
    known: impl Fn(usize) -> Known,
) -> Vec<Result<(), PublishError>> {
    let returns: Vec<_> = all
        .iter()
        .filter_map(|heard| heard.as_ref().ok()?.returned.clone())
        .collect();
    let missing = all
        .iter()
        .filter_map(|heard| heard.as_ref().err())
        .find(|error| !matches!(error, PublishError::BadName(_)))
        .cloned();
    let judged = all.into_iter().enumerate().map(|(number, heard)| {
        let heard = heard?;
        if !returns.is_empty() {
            let known = known(number);
            if let Some((_, why)) = returns.iter().find(|(returned, _)| *returned == known) {
                return Err(PublishError::Returned(why.clone()));
            }
        }
        match (&missing, heard.is_ack) {
            (_, false) => Err(PublishError::Nacked),
            (Some(error), true) => Err(error.clone()),
            (None, true) => Ok(()),
        }
    });
    judged.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: [(&str, &str, Option<&str>); 4] = [
        ("results", "completed", Some("a")),
        ("", "steps", Some("b")),
        ("dead", "", None),
        ("", "campaigns", None),
    ];

    fn known(number: usize) -> Known {
        let (exchange, key, id) = GROUP[number];
        Known {
            exchange: exchange.to_owned(),
            key: key.to_owned(),
            id: id.map(str::to_owned),
        }
    }

    fn told(is_ack: bool, returned: Option<usize>) -> Result<Heard, PublishError> {
        let returned = returned.map(|number| (known(number), "312 NO_ROUTE".to_owned()));
        Ok(Heard { is_ack, returned })
    }

    fn returned() -> Result<(), PublishError> {
        Err(PublishError::Returned("312 NO_ROUTE".to_owned()))
    }

    #[test]
    fn all_that_is_confirmed_is_stored() {
        assert_eq!(judge(vec![told(true, None); 4], known), vec![Ok(()); 4]);
        assert_eq!(judge(Vec::new(), known), Vec::new());
    }

    #[test]
    fn a_return_that_another_of_the_group_was_told_counts_where_it_belongs() {
        let all = vec![told(true, Some(1)), told(true, None)];
        assert_eq!(judge(all, known), [Ok(()), returned()]);
        let all = vec![told(true, None), told(true, Some(0))];
        assert_eq!(judge(all, known), [returned(), Ok(())]);
        // Each the other's.
        let all = vec![told(true, Some(1)), told(true, Some(0))];
        assert_eq!(judge(all, known), [returned(), returned()]);
    }

    #[test]
    fn messages_without_ids_are_told_apart_by_where_they_go() {
        let all = vec![
            told(true, None),
            told(true, None),
            told(true, Some(3)),
            told(true, None),
        ];
        assert_eq!(judge(all, known), [Ok(()), Ok(()), Ok(()), returned()]);
    }

    #[test]
    fn where_two_are_known_by_the_same_both_count_as_returned() {
        let all = vec![told(true, Some(2)), told(true, None), told(true, None)];
        let same = |number: usize| known([2, 0, 2][number]);
        assert_eq!(judge(all, same), [returned(), Ok(()), returned()]);
    }

    #[test]
    fn a_refusal_stays_one_whatever_return_comes_with_it() {
        let all = vec![told(false, Some(1)), told(true, None)];
        assert_eq!(judge(all, known), [Err(PublishError::Nacked), returned()]);
        let all = vec![told(false, None), told(true, None)];
        assert_eq!(judge(all, known), [Err(PublishError::Nacked), Ok(())]);
    }

    #[test]
    fn nothing_counts_as_stored_where_a_confirm_is_missing() {
        let lost = || PublishError::Lost("reset".to_owned());
        let all = vec![Err(lost()), told(true, None), told(false, None)];
        assert_eq!(
            judge(all, known),
            [Err(lost()), Err(lost()), Err(PublishError::Nacked)]
        );
        // What was told all the same is known.
        let all = vec![told(true, Some(1)), told(true, None), Err(lost())];
        assert_eq!(judge(all, known), [Err(lost()), returned(), Err(lost())]);
        // What has no name was never sent.
        let unnamed = || PublishError::BadName("too long".to_owned());
        let all = vec![Err(unnamed()), told(true, None)];
        assert_eq!(judge(all, known), [Err(unnamed()), Ok(())]);
    }
}
