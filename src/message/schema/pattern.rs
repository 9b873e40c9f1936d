//! Regular expressions made from the checks themselves, in the part of the language that ECMAScript, Python and Rust share.

use crate::job::{CampaignId, CpeId, JobId};
use crate::message::firmware::NOT_IN_URLS;

/// Text without control characters.
pub(super) const NO_CONTROL: &str = "^[^\\u0000-\\u001F\\u007F-\\u009F]*$";

/// A job's id.
pub(super) fn job_id() -> String {
    whole(&characters(|c| JobId::parse(c.to_string()).is_ok(), "+"))
}

/// A device's id, but that it must have a letter or digit.
pub(super) fn cpe_id() -> String {
    whole(&characters(|c| CpeId::parse(c.to_string()).is_ok(), "+"))
}

/// A campaign's id.
pub(super) fn campaign_id() -> String {
    whole(&characters(
        |c| CampaignId::parse(c.to_string()).is_ok(),
        "+",
    ))
}

/// Where firmware lies.
pub(super) fn firmware_url() -> String {
    let is_url = |c: char| !NOT_IN_URLS.contains(c);
    let first = characters(|c| is_url(c) && !"/?#".contains(c), "");
    let rest = characters(is_url, "*");
    whole(&format!(
        "([Hh][Tt][Tt][Pp][Ss]?|[Ff][Tt][Pp])://{first}{rest}"
    ))
}

fn whole(pattern: &str) -> String {
    format!("^{pattern}$")
}

/// A pattern for ASCII characters that the check lets pass one by one, repeated as said (`+`, `*` or once).
fn characters(is_allowed: impl Fn(char) -> bool, repeat: &str) -> String {
    let allowed: Vec<char> = ('!'..='~').filter(|c| is_allowed(*c)).collect();
    let mut class = String::new();
    let mut rest = allowed.as_slice();
    while let [first, ..] = rest {
        let mut length = 1;
        while rest.get(length).is_some_and(|next| {
            u32::from(*next) == u32::from(*first) + u32::try_from(length).unwrap_or(0)
        }) {
            length += 1;
        }
        match &rest[..length] {
            [first, .., last] if length > 2 => {
                class.push_str(&format!("{}-{}", escaped(*first), escaped(*last)))
            }
            few => few.iter().for_each(|c| class.push_str(&escaped(*c))),
        }
        rest = &rest[length..];
    }
    format!("[{class}]{repeat}")
}

/// A character inside of a class; others must not be escaped there, as ECMAScript has it.
fn escaped(character: char) -> String {
    if "\\]^-[".contains(character) {
        format!("\\{character}")
    } else {
        character.to_string()
    }
}
