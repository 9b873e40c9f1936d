//! `[instance]`: this worker's name.

use super::reader::Reader;

/// This worker's name.
#[derive(Debug, Clone)]
pub struct Instance {
    /// In the `source` of events and in the names of broker connections.
    pub name: String,
}

/// Longest name, in characters.
const NAME_MAX: usize = 128;

impl Instance {
    pub(super) fn read(reader: &mut Reader, host_name: Option<&str>) -> Self {
        let name = reader.optional_name("instance.name", NAME_MAX, "._-");
        Self {
            name: name.unwrap_or_else(|| cleaned(host_name.unwrap_or_default())),
        }
    }
}

/// A host name with what is not allowed replaced; nobody chose it for us, so it is no fault.
fn cleaned(host_name: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = host_name
        .chars()
        .take(NAME_MAX)
        .map(|c| if is_allowed(c) { c } else { '-' })
        .collect();
    if name.is_empty() {
        "unnamed".to_owned()
    } else {
        name
    }
}
