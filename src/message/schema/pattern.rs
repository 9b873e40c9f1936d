//! Regular expressions made from the checks themselves, in the part of the language that ECMAScript, Python and Rust share.

/// A pattern for ASCII characters that the check lets pass one by one, repeated as said (`+`, `*` or once).
pub(super) fn characters(is_allowed: impl Fn(char) -> bool, repeat: &str) -> String {
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
