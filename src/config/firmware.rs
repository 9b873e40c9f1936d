//! `[firmware]`: which firmware URLs are accepted.

use url::Url;

use super::reader::Reader;

/// Which firmware URLs are accepted.
#[derive(Debug, Clone)]
pub struct Firmware {
    /// A URL must begin with one of them; empty: any will do.
    pub allowed_url_prefixes: Vec<String>,
    /// Whether a URL may carry a user and password.
    pub allow_credentials: bool,
}

impl Firmware {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            allowed_url_prefixes: reader.list("firmware.allowed_url_prefixes", prefix),
            allow_credentials: reader.boolean("firmware.allow_credentials"),
        }
    }
}

fn prefix(text: &str) -> Result<String, (String, String)> {
    let remedy = || "give e.g. \"https://firmware.example.com/\"".to_owned();
    let url = Url::parse(text)
        .map_err(|error| (format!("is not the beginning of a URL: {error}"), remedy()))?;
    if !matches!(url.scheme(), "http" | "https" | "ftp") {
        return Err((format!("has the scheme {:?}", url.scheme()), remedy()));
    }
    let after_scheme = text.split_once("://").map_or("", |(_, rest)| rest);
    if !after_scheme.contains('/') {
        // `https://files.example.com` is also the beginning of `https://files.example.com.attacker.net/`.
        return Err((
            "has no / after the host, so hosts that only begin alike would pass".to_owned(),
            remedy(),
        ));
    }
    Ok(text.to_owned())
}
