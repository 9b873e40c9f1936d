//! Fleets: many devices of mixed character from one seed.
//!
//! A device's character and times follow from the fleet's seed and the device's id alone, so they do not depend on the order in
//! which devices come.

use jiff::{SignedDuration, Timestamp};

use super::device::{AttemptResult, Device};
use super::model::Simulator;

/// What a device of a fleet is like. Times are at scale 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Character {
    /// Done in a minute or two.
    Quick,
    /// Needs ten minutes or more.
    Slow,
    /// Quick, and offline for the first ten minutes to an hour.
    OfflineAtFirst,
    /// Every attempt ends in a permanent fault.
    FailsForGood,
    /// The first attempt ends in a transient fault.
    FailsAtFirst,
    /// Flashes and never reports.
    Silent,
    /// Connection requests do not reach it; it comes at its periodic inform.
    Sleepy,
    /// Goes dark while flashing.
    Lost,
}

impl Character {
    /// Every variant.
    pub const ALL: &'static [Self] = &[
        Self::Quick,
        Self::Slow,
        Self::OfflineAtFirst,
        Self::FailsForGood,
        Self::FailsAtFirst,
        Self::Silent,
        Self::Sleepy,
        Self::Lost,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Slow => "slow",
            Self::OfflineAtFirst => "offline_at_first",
            Self::FailsForGood => "fails_for_good",
            Self::FailsAtFirst => "fails_at_first",
            Self::Silent => "silent",
            Self::Sleepy => "sleepy",
            Self::Lost => "lost",
        }
    }

    /// The character of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|character| character.name() == name)
    }
}

/// A recipe for devices.
#[derive(Debug, Clone, PartialEq)]
pub struct Fleet {
    prefix: String,
    seed: u64,
    time_scale: f64,
    mix: Vec<(Character, u32)>,
    version: String,
}

impl Fleet {
    /// All quick, ids "CPE000001" and on, in real time.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            prefix: "CPE".to_owned(),
            seed,
            time_scale: 1.0,
            mix: vec![(Character::Quick, 1)],
            version: "1.0.0".to_owned(),
        }
    }

    /// A fleet as in the field: most quick, a few of every kind.
    #[must_use]
    pub fn mixed(seed: u64) -> Self {
        Self::new(seed).mix(&[
            (Character::Quick, 70),
            (Character::Slow, 10),
            (Character::OfflineAtFirst, 6),
            (Character::FailsForGood, 3),
            (Character::FailsAtFirst, 4),
            (Character::Silent, 2),
            (Character::Sleepy, 4),
            (Character::Lost, 1),
        ])
    }

    /// What ids begin with.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.to_owned();
        self
    }

    /// What all times are multiplied by: 0.01 makes a demonstration of an hour last half a minute.
    #[must_use]
    pub fn time_scale(mut self, scale: f64) -> Self {
        self.time_scale = scale;
        self
    }

    /// Characters by weight; weights of zero in sum mean quick.
    #[must_use]
    pub fn mix(mut self, mix: &[(Character, u32)]) -> Self {
        self.mix = mix.to_vec();
        self
    }

    /// The software version that devices have at first.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        self.version = version.to_owned();
        self
    }

    /// The id of the device of this number, from 1.
    #[must_use]
    pub fn cpe_id(&self, number: usize) -> String {
        format!("{}{number:06}", self.prefix)
    }

    /// Adds the first `count` devices to the simulator and returns their ids.
    pub fn add_to(&self, simulator: &mut Simulator, count: usize, now: Timestamp) -> Vec<String> {
        let ids: Vec<_> = (1..=count).map(|number| self.cpe_id(number)).collect();
        for cpe_id in &ids {
            simulator.add_device(self.device(cpe_id, now), now);
        }
        ids
    }

    /// The device of this id, of the fleet's making.
    #[must_use]
    pub fn device(&self, cpe_id: &str, now: Timestamp) -> Device {
        let mut rng = fastrand::Rng::with_seed(self.seed ^ hash(cpe_id));
        let character = self.draw_character(&mut rng);
        self.device_of(cpe_id, character, now, &mut rng)
    }

    fn draw_character(&self, rng: &mut fastrand::Rng) -> Character {
        let sum: u32 = self.mix.iter().map(|(_, weight)| weight).sum();
        let mut left = rng.u32(0..sum.max(1));
        for (character, weight) in &self.mix {
            if left < *weight {
                return *character;
            }
            left -= weight;
        }
        Character::Quick
    }

    fn device_of(
        &self,
        cpe_id: &str,
        character: Character,
        now: Timestamp,
        rng: &mut fastrand::Rng,
    ) -> Device {
        let mut between = |least: f64, most: f64| {
            SignedDuration::from_secs_f64((least + (most - least) * rng.f64()) * self.time_scale)
        };
        let interval = between(600.0, 1800.0);
        let mut device = Device {
            version: self.version.clone(),
            inform_interval: Some(interval),
            first_inform_after: between(0.0, 1.0) * 600,
            session_delay: between(1.0, 10.0),
            download: between(20.0, 60.0),
            reboot: between(20.0, 60.0),
            character: character.name(),
            ..Device::new(cpe_id)
        };
        match character {
            Character::Quick => {}
            Character::Slow => {
                device.session_delay = between(10.0, 30.0);
                device.download = between(300.0, 900.0);
                device.reboot = between(120.0, 300.0);
            }
            Character::OfflineAtFirst => {
                device.offline_until = now.checked_add(between(600.0, 3600.0)).ok()
            }
            Character::FailsForGood => {
                device.attempts = vec![AttemptResult::fault(9003, "Invalid arguments")];
            }
            Character::FailsAtFirst => {
                device.attempts = vec![
                    AttemptResult::fault(9017, "Unable to complete download"),
                    AttemptResult::Success,
                ];
            }
            Character::Silent => device.attempts = vec![AttemptResult::Silent],
            Character::Sleepy => device.accepts_connection_requests = false,
            Character::Lost => device.attempts = vec![AttemptResult::Lost],
        }
        device
    }
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
