//! Which rules have the name of a rule of ours: `nbi.rule_id`, read backwards.

use crate::job::CpeId;

const CPE_ID: &str = "{cpe_id}";
const JOB_ID: &str = "{job_id}";

/// The names that `nbi.rule_id` makes.
#[derive(Debug, Clone)]
pub struct Naming {
    template: String,
}

impl Naming {
    /// By a template as the configuration has it: with `{cpe_id}` and, if wanted, `{job_id}`.
    #[must_use]
    pub fn new(template: &str) -> Self {
        Self {
            template: template.to_owned(),
        }
    }

    /// The device of a rule that has a name of ours; `None` for the name of somebody else.
    ///
    /// `condition` is the device that the rule's condition names, if that is known: a rule whose name says another one is not ours.
    #[must_use]
    pub fn device(&self, rule_id: &str, condition: Option<&str>) -> Option<CpeId> {
        match condition {
            Some(cpe_id) => CpeId::parse(cpe_id)
                .ok()
                .filter(|cpe_id| self.names(rule_id, cpe_id)),
            // Where the job is part of the name, nobody can tell where the device's id ends.
            None if self.template.contains(JOB_ID) => None,
            None => {
                let (before, after) = self.template.split_once(CPE_ID)?;
                let cpe_id = rule_id.strip_prefix(before)?.strip_suffix(after)?;
                CpeId::parse(cpe_id).ok()
            }
        }
    }

    fn names(&self, rule_id: &str, cpe_id: &CpeId) -> bool {
        let pattern = self.template.replace(CPE_ID, cpe_id.as_str());
        match pattern.split_once(JOB_ID) {
            None => pattern == rule_id,
            Some((before, after)) => {
                rule_id.len() > before.len() + after.len()
                    && rule_id.starts_with(before)
                    && rule_id.ends_with(after)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_ours_only_for_the_device_that_it_names() {
        let device = |template: &str, rule_id: &str, condition: Option<&str>| {
            Naming::new(template)
                .device(rule_id, condition)
                .map(|cpe_id| cpe_id.to_string())
        };
        let usual = "UPGRADE_{cpe_id}";
        assert_eq!(device(usual, "UPGRADE_A", Some("A")).as_deref(), Some("A"));
        assert_eq!(device(usual, "UPGRADE_A", None).as_deref(), Some("A"));
        for (rule_id, condition) in [
            ("UPGRADE_A", Some("B")),
            ("UPGRADE_A", Some("A*")),
            ("UPGRADE_A2", Some("A")),
            ("upgrade_A", Some("A")),
            ("UPGRADE_", None),
            ("UPGRADE_DM*", None),
            ("spring night", None),
            ("", None),
        ] {
            assert_eq!(
                device(usual, rule_id, condition),
                None,
                "{rule_id} {condition:?}"
            );
        }
        let with_job = "{cpe_id}/{job_id}-fw".replace('/', ".");
        assert_eq!(
            device(&with_job, "A.order-1-fw", Some("A")).as_deref(),
            Some("A")
        );
        assert_eq!(device(&with_job, "A.-fw", Some("A")), None);
        assert_eq!(device(&with_job, "A.order-1-fw", None), None);
    }
}
