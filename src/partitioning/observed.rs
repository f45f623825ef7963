//! Which partitioner the producers of step events use: as configured, or the one that explains the keys seen, but for a few
//! strays. What it says decides where SAGA_RESTORED goes, and where sagas are looked for.

use std::sync::{Mutex, PoisonError};

use crate::saga::partitioner::{Partitioner, PartitionerGuess};

/// Shared by the roles of a process.
pub struct Partitioning {
    fixed: Option<Partitioner>,
    guess: Mutex<PartitionerGuess>,
}

/// Keys found elsewhere than where the partitioner puts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strays {
    pub count: u64,
    /// Place of the first among the keys that were shown, and where it should be.
    pub first: usize,
    pub home: i32,
    pub partitioner: Partitioner,
}

impl Partitioning {
    /// `None`: find out.
    pub fn new(fixed: Option<Partitioner>) -> Self {
        Self { fixed, guess: Mutex::default() }
    }

    /// Keys found in a partition of a topic that has `partitions`. Gives those that are strays.
    pub fn see<'a>(&self, keys: impl Iterator<Item = &'a [u8]>, partition: i32, partitions: i32) -> Option<Strays> {
        let mut strays: Option<Strays> = None;
        let mut found = |partitioner: Partitioner, first: usize, key: &[u8]| {
            let home = partitioner.partition(key, partitions);
            strays.get_or_insert(Strays { count: 0, first, home, partitioner }).count += 1;
        };
        if let Some(fixed) = self.fixed {
            for (at, key) in keys.enumerate().filter(|(_, key)| fixed.partition(key, partitions) != partition) {
                found(fixed, at, key);
            }
            return strays;
        }
        let mut guess = self.guess.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, key) in keys.enumerate() {
            if guess.see(key, partition, partitions)
                && let Some(only) = guess.only()
            {
                found(only, at, key);
            }
        }
        strays
    }

    /// The one to write by; `None`: none explains the keys seen, so replays must stop.
    pub fn partitioner(&self) -> Option<Partitioner> {
        self.fixed.or_else(|| self.ask(PartitionerGuess::partitioner))
    }

    /// The only one that explains the keys seen, but for strays; `None`: several do as yet, or none.
    pub fn known(&self) -> Option<Partitioner> {
        self.fixed.or_else(|| self.ask(PartitionerGuess::only))
    }

    /// The one to look by; `None`: a saga may be anywhere. Murmur2 before any key told it apart from the others is good
    /// enough to write by, for somebody has to begin, but no reason to believe that a saga is nowhere else; nor is one
    /// that does not explain every key.
    pub fn settled(&self) -> Option<Partitioner> {
        self.fixed.or_else(|| self.ask(|guess| guess.only().filter(|_| !guess.has_strays())))
    }

    fn ask(&self, what: impl Fn(&PartitionerGuess) -> Option<Partitioner>) -> Option<Partitioner> {
        what(&self.guess.lock().unwrap_or_else(PoisonError::into_inner))
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
        // One that is found elsewhere is told; what it should be written by stays, where to look for sagas does not.
        let nowhere = (0..12).find(|n| Partitioner::ALL.iter().all(|of| of.partition(b"stray", 12) != *n)).unwrap();
        let strays = partitioning.see(std::iter::once(&b"stray"[..]), nowhere, 12);
        assert_eq!(strays.map(|strays| (strays.count, strays.partitioner)), Some((1, Partitioner::Crc32)));
        assert_eq!((partitioning.partitioner(), partitioning.known()), (Some(Partitioner::Crc32), Some(Partitioner::Crc32)));
        assert_eq!(partitioning.settled(), None);
        partitioning.see(keys.iter().map(String::as_bytes), 5, 12);
        let strange: Vec<String> = (0..20).map(|n| format!("other-{n}")).collect();
        partitioning.see(strange.iter().map(String::as_bytes), 5, 12);
        assert_eq!((partitioning.partitioner(), partitioning.settled()), (None, None));
    }

    #[test]
    fn what_is_configured_is_settled() {
        let partitioning = Partitioning::new(Some(Partitioner::Fnv1a));
        let strays = partitioning.see([&b"a"[..], b"b", b"c"].into_iter(), 5, 12);
        assert!(strays.is_some_and(|strays| strays.count > 0), "strays are told all the same");
        assert_eq!((partitioning.partitioner(), partitioning.settled()), (Some(Partitioner::Fnv1a), Some(Partitioner::Fnv1a)));
    }
}
