//! Addresses of requests: the base of the NBI, a path, a query.
//!
//! A path is parsed once, when it is first asked for: there are four of them, and parsing costs more than all else that is done to an
//! address. The path goes out as it stands in the vendor's page: `/.*` is legal in a path and survives the parser.

use std::sync::{PoisonError, RwLock};

use percent_encoding::utf8_percent_encode;
use url::Url;

use super::http::STRICT;
use super::wire::Request;

/// The addresses below one base.
#[derive(Debug)]
pub(super) struct Addresses {
    /// Without a slash at its end.
    pub(super) base: String,
    parsed: RwLock<Vec<(&'static str, Url)>>,
}

impl Addresses {
    /// Addresses below this base, which was checked.
    pub(super) fn below(base: &Url) -> Self {
        Self {
            base: base.as_str().trim_end_matches('/').to_owned(),
            parsed: RwLock::default(),
        }
    }

    /// The request's address.
    ///
    /// # Errors
    ///
    /// A path that makes no URL with the base; a sound base has none.
    pub(super) fn of(&self, request: &Request) -> Result<Url, url::ParseError> {
        let mut address = self.of_path(request.path)?;
        let mut query = String::new();
        for (name, value) in &request.query {
            if !query.is_empty() {
                query.push('&');
            }
            query.reserve(name.len() + value.len() + 16);
            query.extend(utf8_percent_encode(name, STRICT));
            query.push('=');
            query.extend(utf8_percent_encode(value, STRICT));
        }
        if !query.is_empty() {
            address.set_query(Some(&query));
        }
        Ok(address)
    }

    fn of_path(&self, path: &'static str) -> Result<Url, url::ParseError> {
        let parsed = self.parsed.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, address)) = parsed.iter().find(|(known, _)| *known == path) {
            return Ok(address.clone());
        }
        drop(parsed);
        let address = Url::parse(&format!("{}{path}", self.base))?;
        let mut parsed = self.parsed.write().unwrap_or_else(PoisonError::into_inner);
        parsed.push((path, address.clone()));
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nbi::wire::{RESULTS, Verb};

    #[test]
    fn an_address_is_what_its_text_says_the_first_time_and_later() {
        let base = Url::parse("https://acs.example.net:8443/north/").unwrap();
        let addresses = Addresses::below(&base);
        let request = |value: &str| Request {
            verb: Verb::Get,
            path: RESULTS,
            query: vec![("id".to_owned(), value.to_owned())],
            body: None,
            operation: "read_results",
            timeout: None,
        };
        for (value, written) in [
            ("UPGRADE_x", "UPGRADE_x"),
            ("a&b=c#d/..%2e é", "a%26b%3Dc%23d%2F..%252e%20%C3%A9"),
            ("UPGRADE_x", "UPGRADE_x"),
        ] {
            let address = addresses.of(&request(value)).unwrap();
            let text = format!("https://acs.example.net:8443/north{RESULTS}?id={written}");
            assert_eq!(address.as_str(), text);
            assert_eq!(address, Url::parse(&text).unwrap());
        }
        let bare = addresses
            .of(&Request {
                query: Vec::new(),
                ..request("")
            })
            .unwrap();
        assert_eq!(bare.query(), None);
    }
}
