//! Whose turn it is among devices whose messages are at hand.

use std::collections::{HashMap, HashSet};

use super::plan::Plan;
use super::record::Device;
use super::state::{Place, State};
use crate::job::CpeId;

/// What becomes of a device whose message is at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may be started.
    Start,
    /// It was started before, or its message is a copy: the message can go.
    Drop,
    /// Its turn has not come, or too many of its key are under way.
    Wait,
}

impl State {
    /// Chooses among devices whose messages are at hand, in order; an answer for each. At most `starts` of the answers are
    /// [`Admission::Start`], and at most `places` of these are of devices that take a place: one whose release nobody confirmed has its
    /// place already.
    #[must_use]
    pub fn admit(
        &self,
        plan: &Plan,
        at_hand: &[Device],
        mut starts: usize,
        mut places: usize,
    ) -> Vec<Admission> {
        let mut seen: HashSet<&CpeId> = HashSet::new();
        let mut keys: HashMap<&str, u32> = HashMap::new();
        let mut admit = |device: &'_ Device, key: Option<(u32, &mut u32)>| {
            if starts == 0 {
                return Admission::Wait;
            }
            if !self.devices.contains_key(&device.cpe_id) {
                if places == 0 {
                    return Admission::Wait;
                }
                if let Some((free, batch)) = key {
                    if *batch >= free {
                        return Admission::Wait;
                    }
                    *batch += 1;
                }
                places -= 1;
            }
            starts -= 1;
            Admission::Start
        };
        let answers = at_hand.iter().map(|device| {
            if self.is_settled(&device.cpe_id) || !seen.insert(&device.cpe_id) {
                return Admission::Drop;
            }
            let key = device.concurrency_key.as_deref();
            let key = plan.max_in_flight_per_key.zip(key).map(|(most, key)| {
                let under_way = self.per_key.get(key).copied().unwrap_or(0);
                (most.saturating_sub(under_way), keys.entry(key).or_default())
            });
            admit(device, key)
        });
        answers.collect()
    }

    /// Whether a device is under way or has its outcome, for certain: what is left of its messages are copies.
    fn is_settled(&self, cpe_id: &CpeId) -> bool {
        match self.devices.get(cpe_id) {
            None => false,
            Some(Place::Finished) => true,
            Some(Place::InFlight { .. } | Place::Silent { .. }) => {
                !self.unsettled.contains_key(cpe_id)
            }
        }
    }
}
