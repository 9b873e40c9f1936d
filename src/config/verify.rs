//! `[verify]`: reading the version back.

use super::reader::Reader;

/// Reading the version back.
#[derive(Debug, Clone)]
pub struct Verify {
    /// Whether it is done; without it a request's `expected_version` is refused.
    pub enabled: bool,
    /// The NBI's method.
    pub method: String,
    /// The parameters that may hold the version; the first that answers counts.
    pub parameters: Vec<String>,
}

impl Verify {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let verify = Self {
            enabled: reader.boolean("verify.enabled"),
            method: reader.name("verify.method", 64, "._-"),
            parameters: reader.list("verify.parameters", |item| {
                let is_path = !item.is_empty()
                    && item
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
                let problem = (
                    "is not a parameter path".to_owned(),
                    "give e.g. \"Device.DeviceInfo.SoftwareVersion\"".to_owned(),
                );
                if is_path {
                    Ok(item.to_owned())
                } else {
                    Err(problem)
                }
            }),
        };
        if verify.enabled
            && verify.parameters.is_empty()
            && reader.are_sound(&["verify.parameters"])
        {
            reader.fault(
                "verify.parameters",
                "is empty while verify.enabled is true",
                "name the parameter of the version",
            );
        }
        verify
    }
}
