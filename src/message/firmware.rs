//! `firmware_url`: where a device loads its firmware from, checked as the device may read it.

use percent_encoding::percent_decode_str;
use url::Url;

use super::RequestSettings;
use crate::job::FirmwareUrl;

/// Printable characters that no URL has (RFC 3986).
pub(super) const NOT_IN_URLS: &str = "\"<>\\^`{|}";

/// An absolute URL without credentials, below the allowed prefixes.
pub(super) fn firmware_url(text: &str, settings: &RequestSettings) -> Result<FirmwareUrl, String> {
    // The device gets the text and not what our parser makes of it, and parsers mend faulty URLs in different ways:
    // `http://files.example\@elsewhere/fw` names one host for browsers and the other one for many a download tool.
    if let Some(found) = text
        .chars()
        .find(|found| !found.is_ascii_graphic() || NOT_IN_URLS.contains(*found))
    {
        return Err(format!("contains {found:?}; percent-encode it"));
    }
    let url = Url::parse(text).map_err(|error| format!("is no absolute URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https" | "ftp") {
        return Err(format!(
            "has the scheme {:?}; devices load from http, https or ftp",
            url.scheme()
        ));
    }
    let after_scheme = text.get(url.scheme().len()..).unwrap_or_default();
    let names_host = after_scheme
        .strip_prefix("://")
        .is_some_and(|rest| !rest.starts_with('/'));
    if !names_host || !url.has_host() {
        return Err("has no host; write it as scheme://host/path".to_owned());
    }
    let has_credentials = !url.username().is_empty() || url.password().is_some();
    if has_credentials && !settings.allow_url_credentials {
        return Err("contains a user or password; leave them out or have `firmware.allow_credentials` switched on".to_owned());
    }
    let prefixes = &settings.allowed_url_prefixes;
    // Compared in the parser's form, so that `https://files.example/../x` or another case of the host does not slip through.
    if !prefixes.is_empty()
        && !prefixes
            .iter()
            .any(|prefix| url.as_str().starts_with(prefix.as_str()))
    {
        return Err(format!(
            "is under none of the allowed prefixes ({})",
            prefixes.join(", ")
        ));
    }
    if !prefixes.is_empty() && climbs(&url) {
        return Err(
            "climbs with an encoded \"..\", perhaps out of the allowed prefixes".to_owned(),
        );
    }
    FirmwareUrl::checked(text).map_err(|error| error.to_string())
}

/// Whether a server that decodes the path before it takes it apart would find `..` in it; plain ones the parser has resolved.
fn climbs(url: &Url) -> bool {
    let path = percent_decode_str(url.path()).decode_utf8_lossy();
    path.split(['/', '\\']).any(|segment| segment == "..")
}
