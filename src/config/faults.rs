//! `[faults]`: what device faults mean.

use std::collections::BTreeSet;

use super::reader::Reader;
use crate::job::fault::FaultPolicy;

/// What device faults mean.
#[derive(Debug, Clone)]
pub struct Faults {
    /// The operator's changes to the table in `job::fault`.
    pub policy: FaultPolicy,
}

impl Faults {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let policy = FaultPolicy {
            transient: codes(reader, "faults.transient"),
            permanent: codes(reader, "faults.permanent"),
            configuration: codes(reader, "faults.configuration"),
        };
        if reader.are_sound(&["faults.transient", "faults.permanent"])
            && let Some(code) = policy.transient.intersection(&policy.permanent).next()
        {
            reader.fault(
                "faults.transient",
                format!("and faults.permanent both have {code}"),
                "take it out of one of them",
            );
        }
        Self { policy }
    }
}

fn codes(reader: &mut Reader, key: &'static str) -> BTreeSet<u16> {
    let codes = reader.list(key, |item| match item.parse::<u16>() {
        Ok(code @ 9_000..=9_899) => Ok(code),
        _ => Err((
            "is not a TR-069 fault code".to_owned(),
            "give codes from 9000 to 9899".to_owned(),
        )),
    });
    codes.into_iter().collect()
}
