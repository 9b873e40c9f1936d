//! TR-069 fault codes of a download: meaning, and whether another try can help.
//!
//! Codes and names: Broadband Forum CWMP schema 1.2 (documented); the judgement is this project's proposal (inferred), as no source
//! gives one, and every code can be moved by `[faults]` in the configuration.

use std::collections::BTreeSet;

/// A fault that a device reported, as it stands in `result.message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The TR-069 code.
    pub code: u16,
    /// Its meaning, from the schema.
    pub name: &'static str,
    /// The whole message.
    pub message: String,
    /// Whether another try can help.
    pub transient: bool,
}

/// The operator's changes to the table, and the codes that say that the order itself is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultPolicy {
    /// Codes that are transient whatever the table says.
    pub transient: BTreeSet<u16>,
    /// Codes that are permanent whatever the table says; stronger than `transient`.
    pub permanent: BTreeSet<u16>,
    /// Codes that speak of the file or its server, not of the device: every device of a fleet would report them.
    pub configuration: BTreeSet<u16>,
}

impl Default for FaultPolicy {
    fn default() -> Self {
        Self {
            transient: BTreeSet::new(),
            permanent: BTreeSet::new(),
            configuration: BTreeSet::from([9012, 9013, 9016, 9019]),
        }
    }
}

impl FaultPolicy {
    /// The fault in a result's message, or nothing if there is no fault code in it.
    ///
    /// The form `FaultCode 9010` is the vendor's (documented); `:` or `=` between and other case are accepted too (inferred).
    #[must_use]
    pub fn fault_in(&self, message: &str) -> Option<Fault> {
        let code = code_in(message)?;
        let transient = if self.permanent.contains(&code) {
            false
        } else if self.transient.contains(&code) {
            true
        } else {
            is_transient(code, message)
        };
        Some(Fault {
            code,
            name: name(code),
            message: message.to_owned(),
            transient,
        })
    }
}

/// The first four-digit number from 9000 to 9899 that follows the word `FaultCode`.
#[must_use]
pub fn code_in(message: &str) -> Option<u16> {
    let lower = message.to_ascii_lowercase();
    let mut rest = lower.as_str();
    while let Some(at) = rest.find("faultcode") {
        rest = &rest[at + "faultcode".len()..];
        let digits = rest
            .trim_start_matches(|c: char| c.is_whitespace() || matches!(c, ':' | '=' | '"' | '\''));
        let number: String = digits.chars().take_while(char::is_ascii_digit).collect();
        if number.len() == 4
            && let Ok(code @ 9000..=9899) = number.parse()
        {
            return Some(code);
        }
    }
    None
}

/// The meaning of a code.
#[must_use]
pub fn name(code: u16) -> &'static str {
    match code {
        9000 => "method not supported",
        9001 => "request denied",
        9002 => "internal error",
        9003 => "invalid arguments",
        9004 => "resources exceeded",
        9005 => "invalid parameter name",
        9006 => "invalid parameter type",
        9007 => "invalid parameter value",
        9008 => "attempt to set a non-writable parameter",
        9009 => "notification request rejected",
        9010 => "file transfer failure",
        9011 => "upload failure",
        9012 => "file transfer server authentication failure",
        9013 => "unsupported protocol for file transfer",
        9014 => "unable to join multicast group",
        9015 => "unable to contact file server",
        9016 => "unable to access file",
        9017 => "unable to complete download",
        9018 => "file corrupted",
        9019 => "file authentication failure",
        9020 => "unable to complete download within the time windows",
        9800..=9899 => "vendor-defined fault",
        _ => "unknown fault",
    }
}

/// Whether another try can help.
///
/// 9010 says little by itself: common device stacks return it for every failing transfer, so its text decides.
fn is_transient(code: u16, message: &str) -> bool {
    match code {
        9010 => {
            let text = message.to_ascii_lowercase();
            ![
                "not found",
                "404",
                "forbidden",
                "403",
                "401",
                "unauthorized",
                "unauthorised",
            ]
            .iter()
            .any(|sign| text.contains(sign))
        }
        9001 | 9002 | 9004 | 9014 | 9015 | 9017 | 9018 | 9020 | 9800..=9899 => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendors_sample_is_a_permanent_9010() {
        let fault = FaultPolicy::default()
            .fault_in("Upgrade has failed with FaultCode 9010. FaultString: Download failure. File not found.")
            .unwrap();
        assert_eq!((fault.code, fault.transient), (9010, false));
        assert_eq!(fault.name, "file transfer failure");
    }

    #[test]
    fn a_message_without_a_code_is_no_fault() {
        for message in [
            "",
            "Upgrade is in progress",
            "FaultCode",
            "FaultCode 0",
            "FaultCode 90101",
            "code 9010",
            "FaultCode 42",
        ] {
            assert_eq!(FaultPolicy::default().fault_in(message), None, "{message}");
        }
    }

    #[test]
    fn codes_are_read_tolerantly() {
        for message in [
            "faultcode:9015",
            "FAULTCODE = 9015",
            "x FaultCode 12 FaultCode \"9015\"",
        ] {
            assert_eq!(
                FaultPolicy::default()
                    .fault_in(message)
                    .map(|fault| fault.code),
                Some(9015),
                "{message}"
            );
        }
    }

    #[test]
    fn configuration_moves_a_code_and_permanent_is_stronger() {
        let policy = FaultPolicy {
            transient: [9016, 9003].into(),
            permanent: [9003, 9015].into(),
            ..FaultPolicy::default()
        };
        let transient = |code: u16| {
            policy
                .fault_in(&format!("FaultCode {code}"))
                .unwrap()
                .transient
        };
        assert!(transient(9016) && transient(9017));
        assert!(!transient(9003) && !transient(9015));
    }
}
