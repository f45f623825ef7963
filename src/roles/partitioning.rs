//! Which partitioner the producers of step events use: as configured, or the one that explains every key seen.

use std::sync::{Mutex, PoisonError};

use crate::saga::partitioner::{Partitioner, PartitionerGuess};

/// Shared by the roles of a process.
pub struct Partitioning {
    fixed: Option<Partitioner>,
    guess: Mutex<PartitionerGuess>,
}

impl Partitioning {
    /// `None`: find out.
    pub fn new(fixed: Option<Partitioner>) -> Self {
        Self { fixed, guess: Mutex::default() }
    }

    /// Keys found in a partition of a topic that has `partitions`.
    pub fn see<'a>(&self, keys: impl Iterator<Item = &'a [u8]>, partition: i32, partitions: i32) {
        if self.fixed.is_some() {
            return;
        }
        let mut guess = self.guess.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            guess.see(key, partition, partitions);
        }
    }

    /// The one to write by; `None`: none explains the keys seen, so replays must stop.
    pub fn partitioner(&self) -> Option<Partitioner> {
        self.fixed.or_else(|| self.guess().partitioner())
    }

    /// The one to look by; `None`: a saga may be anywhere. Murmur2 before any key told it apart from the others is good
    /// enough to write by, for somebody has to begin, but no reason to believe that a saga is nowhere else.
    pub fn settled(&self) -> Option<Partitioner> {
        self.fixed.or_else(|| self.guess().settled().flatten())
    }

    fn guess(&self) -> PartitionerGuess {
        *self.guess.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_a_key_tells_a_saga_may_be_anywhere_and_murmur2_is_written_by() {
        let partitioning = Partitioning::new(None);
        assert_eq!((partitioning.partitioner(), partitioning.settled()), (Some(Partitioner::Murmur2), None));
        // In a topic of one partition no key tells anything.
        partitioning.see([&b"order-1"[..]].into_iter(), 0, 1);
        assert_eq!(partitioning.settled(), None);
        let keys: Vec<String> = (0..20).map(|n| format!("order-{n}")).collect();
        for key in &keys {
            let partition = Partitioner::Crc32.partition(key.as_bytes(), 12);
            partitioning.see(std::iter::once(key.as_bytes()), partition, 12);
        }
        assert_eq!((partitioning.partitioner(), partitioning.settled()), (Some(Partitioner::Crc32), Some(Partitioner::Crc32)));
        partitioning.see(keys.iter().map(String::as_bytes), 5, 12);
        assert_eq!((partitioning.partitioner(), partitioning.settled()), (None, None));
    }

    #[test]
    fn what_is_configured_is_settled() {
        let partitioning = Partitioning::new(Some(Partitioner::Fnv1a));
        partitioning.see([&b"a"[..], b"b", b"c"].into_iter(), 5, 12);
        assert_eq!((partitioning.partitioner(), partitioning.settled()), (Some(Partitioner::Fnv1a), Some(Partitioner::Fnv1a)));
    }
}
