//! The partitioner that the settings name, if they do, or that keys found tell of.

use super::newest_keys::Keys;
use crate::config::PartitionerSetting;
use crate::saga::partitioner::{Partitioner, PartitionerGuess};

pub fn configured(setting: PartitionerSetting) -> Option<Partitioner> {
    match setting {
        PartitionerSetting::Auto => None,
        PartitionerSetting::Murmur2 => Some(Partitioner::Murmur2),
        PartitionerSetting::Crc32 => Some(Partitioner::Crc32),
        PartitionerSetting::Fnv1a => Some(Partitioner::Fnv1a),
    }
}

/// How keys of step events are spread, as far as it is known.
pub fn place(partitioner: Option<Partitioner>) -> Option<fn(&[u8], i32) -> i32> {
    match partitioner? {
        Partitioner::Murmur2 => Some(|key, of| Partitioner::Murmur2.partition(key, of)),
        Partitioner::Crc32 => Some(|key, of| Partitioner::Crc32.partition(key, of)),
        Partitioner::Fnv1a => Some(|key, of| Partitioner::Fnv1a.partition(key, of)),
    }
}

/// The partitioner that these keys, or the settings, tell of.
pub fn used(setting: PartitionerSetting, found: &[Keys]) -> Option<Partitioner> {
    let mut guess = PartitionerGuess::default();
    for keys in found {
        for key in &keys.keys {
            guess.see(key.as_str().as_bytes(), keys.partition.partition, keys.of);
        }
    }
    configured(setting).or_else(|| guess.partitioner())
}
