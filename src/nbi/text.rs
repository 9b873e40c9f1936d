//! Texts of the NBI before anybody prints them: cut, without control characters, and without our credentials.
//!
//! Some servers echo the request's headers in their error texts, and failures repeat up to 200 characters of the NBI's own message.

use memchr::memmem::Finder;

/// Shorter tokens are left alone: they could be part of an ordinary text, and nobody has such short credentials for good.
const TOKEN_MIN: usize = 12;

/// Finds the token of an Authorization header in answers; made once, used for each.
#[derive(Debug, Clone)]
pub(super) struct Mask(Option<Finder<'static>>);

impl Mask {
    /// For the token of `authorization` (`Basic <token>`).
    pub(super) fn of(authorization: &[u8]) -> Self {
        let token = authorization
            .strip_prefix(b"Basic ")
            .unwrap_or(authorization);
        Self((token.len() >= TOKEN_MIN).then(|| Finder::new(token).into_owned()))
    }

    /// Replaces the token in `body` by as many asterisks.
    pub(super) fn cover(&self, body: &mut [u8]) {
        let Some(finder) = &self.0 else { return };
        let mut from = 0;
        while let Some(at) = finder.find(&body[from..]) {
            let begin = from + at;
            from = begin + finder.needle().len();
            body[begin..from].fill(b'*');
        }
    }
}

/// The first characters.
pub(super) fn cut(text: &str, max: usize) -> String {
    text.chars().take(max).collect()
}

/// Text for a log line: control characters become spaces, at most `max` characters.
pub(super) fn tidy(text: &str, max: usize) -> String {
    let clean: String = text
        .chars()
        .take(max)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    clean.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_masked_wherever_it_stands() {
        let token = b"Basic d29ya2VyOnNlY3JldA==";
        let mut body =
            b"Authorization: Basic d29ya2VyOnNlY3JldA==, d29ya2VyOnNlY3JldA== again".to_vec();
        Mask::of(token).cover(&mut body);
        let text = String::from_utf8(body).unwrap();
        assert_eq!(
            text,
            "Authorization: Basic ********************, ******************** again"
        );
    }

    #[test]
    fn short_tokens_and_other_texts_are_left_alone() {
        for (token, text) in [
            ("YTpi", "YTpi is no secret"),
            ("d29ya2VyOnNlY3JldA==", "d29ya2VyOnNlY3JldA"),
            ("d29ya2VyOnNlY3JldA==", ""),
        ] {
            let mut body = text.as_bytes().to_vec();
            Mask::of(token.as_bytes()).cover(&mut body);
            assert_eq!(body, text.as_bytes());
        }
    }
}
