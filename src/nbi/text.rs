//! Texts of the NBI before anybody prints them: cut, without control characters, and without our credentials.
//!
//! Some servers echo the request's headers in their error texts, and failures repeat up to 200 characters of the NBI's own message.

/// Shorter tokens are left alone: they could be part of an ordinary text, and nobody has such short credentials for good.
const TOKEN_MIN: usize = 12;

/// Replaces the token of `authorization` (`Basic <token>`) in `body` by as many asterisks.
pub(super) fn mask(body: &mut [u8], authorization: &[u8]) {
    let token = authorization
        .strip_prefix(b"Basic ")
        .unwrap_or(authorization);
    if token.len() < TOKEN_MIN {
        return;
    }
    let mut from = 0;
    while let Some(at) = body[from..]
        .windows(token.len())
        .position(|window| window == token)
    {
        let begin = from + at;
        from = begin + token.len();
        body[begin..from].fill(b'*');
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
        mask(&mut body, token);
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
            mask(&mut body, token.as_bytes());
            assert_eq!(body, text.as_bytes());
        }
    }
}
