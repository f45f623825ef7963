//! Which partition a key goes to, as the producers of a topic compute it, and finding out which way they do.
//!
//! Formulas: Java's `org.apache.kafka.common.utils.Utils.murmur2` with `toPositive`; librdkafka's
//! `rdkafka_msg.c` for `consistent` (CRC-32, IEEE) and `fnv1a`. Each takes the hash modulo the partition count.

/// How a producer spreads keys over partitions. Keys are never empty: the `_random` variants differ only there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Partitioner {
    /// Java's default; librdkafka's `murmur2` and `murmur2_random`.
    Murmur2,
    /// librdkafka's default, `consistent_random`.
    Crc32,
    /// librdkafka's `fnv1a`; Sarama's default.
    Fnv1a,
}

impl Partitioner {
    pub const ALL: [Self; 3] = [Self::Murmur2, Self::Crc32, Self::Fnv1a];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Murmur2 => "murmur2",
            Self::Crc32 => "crc32",
            Self::Fnv1a => "fnv1a",
        }
    }

    /// The partition of `key` in a topic of `partitions`, at least one.
    pub fn partition(self, key: &[u8], partitions: i32) -> i32 {
        let hash = match self {
            Self::Murmur2 => murmur2(key) & 0x7fff_ffff,
            Self::Crc32 => crc32fast::hash(key),
            // As librdkafka and Sarama: the absolute value of the hash as a signed number.
            Self::Fnv1a => fnv1a(key).cast_signed().unsigned_abs(),
        };
        (hash % partitions.max(1).unsigned_abs()).cast_signed()
    }
}

/// resaga's own topics: murmur2, as Java does.
pub fn partition(key: &[u8], partitions: i32) -> i32 {
    Partitioner::Murmur2.partition(key, partitions)
}

/// Keys that are remembered, one a slot: newer ones take the places of older ones.
const SLOTS: usize = 1_024;
/// So many strange keys, or this part of all, speak against a partitioner. A producer that goes its own way, or a record
/// somebody put in by hand, does not.
const FEW_STRAYS: u32 = 2;
const STRAYS_ONE_IN: u32 = 10;

/// What the keys seen say of the partitioner. Bounded; each key counts once, however many events it has.
#[derive(Debug, Clone)]
pub struct PartitionerGuess {
    slots: Box<[Option<Seen>]>,
    seen: u32,
    /// Keys that each explains, by place in [`Partitioner::ALL`].
    explained: [u32; 3],
    /// Whether a key was ever found elsewhere than where the one that explains the others puts it.
    strays: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    hash: u32,
    explains: [bool; 3],
}

impl Default for PartitionerGuess {
    fn default() -> Self {
        Self { slots: vec![None; SLOTS].into(), seen: 0, explained: [0; 3], strays: false }
    }
}

impl PartitionerGuess {
    /// A key was found in `partition` of a topic that had `partitions` when it was written. `true`: it is a stray, found
    /// elsewhere than where the partitioner that explains the others puts it.
    pub fn see(&mut self, key: &[u8], partition: i32, partitions: i32) -> bool {
        if partitions < 2 {
            return false;
        }
        let hash = murmur2(key);
        let slot = hash as usize % SLOTS;
        let before = self.slots[slot];
        if before.is_none_or(|seen| seen.hash != hash) {
            let explains = Partitioner::ALL.map(|partitioner| partitioner.partition(key, partitions) == partition);
            self.count(before, u32::wrapping_sub);
            self.slots[slot] = Some(Seen { hash, explains });
            self.count(self.slots[slot], u32::wrapping_add);
        }
        let stray = self.only().is_some_and(|only| only.partition(key, partitions) != partition);
        self.strays |= stray;
        stray
    }

    fn count(&mut self, seen: Option<Seen>, by: fn(u32, u32) -> u32) {
        let Some(Seen { explains, .. }) = seen else { return };
        self.seen = by(self.seen, 1);
        for (count, explains) in self.explained.iter_mut().zip(explains) {
            *count = by(*count, u32::from(explains));
        }
    }

    /// The one to use: of those that explain all keys but a few the one with the fewest strays, murmur2 where they are
    /// equal; `None`: none fits.
    pub fn partitioner(&self) -> Option<Partitioner> {
        let fitting = self.fitting().min_by_key(|(_, strays)| *strays);
        fitting.map(|(partitioner, _)| partitioner)
    }

    /// The only one that explains all keys but a few; `None`: none does, or several do as yet.
    pub fn only(&self) -> Option<Partitioner> {
        let mut fitting = self.fitting();
        let first = fitting.next();
        if fitting.next().is_some() { None } else { first.map(|(partitioner, _)| partitioner) }
    }

    /// Whether keys were found elsewhere than where the only one puts them.
    pub fn has_strays(&self) -> bool {
        self.strays || self.only().is_some_and(|only| self.strays_of(only) > 0)
    }

    fn strays_of(&self, partitioner: Partitioner) -> u32 {
        let all = Partitioner::ALL.into_iter().zip(self.explained);
        all.filter(|(of, _)| *of == partitioner).map(|(_, explained)| self.seen - explained).sum()
    }

    /// Each with how many of the keys it does not explain.
    fn fitting(&self) -> impl Iterator<Item = (Partitioner, u32)> {
        let most = (self.seen / STRAYS_ONE_IN).max(FEW_STRAYS);
        let strays = Partitioner::ALL.into_iter().map(|partitioner| (partitioner, self.strays_of(partitioner)));
        strays.filter(move |(_, strays)| *strays <= most)
    }
}

/// `MurmurHash2` of 32 bits by Austin Appleby, with Kafka's seed.
fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // The length is hashed as Java's int.
    let mut hash = SEED ^ key.len() as u32;
    let (blocks, tail) = key.as_chunks::<4>();
    for block in blocks {
        let mut k = u32::from_le_bytes(*block).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        let last = tail.iter().rev().fold(0, |k, byte| k << 8 | u32::from(*byte));
        hash = (hash ^ last).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

/// FNV-1a of 32 bits by Fowler, Noll and Vo.
fn fnv1a(key: &[u8]) -> u32 {
    key.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_javas() {
        // From Kafka's UtilsTest and librdkafka's unit test.
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("kafka", 0xd067_cf64_u32.cast_signed()),
            ("giberish123456789", 0x8f55_2b0c_u32.cast_signed()),
            ("", 0x106e_08d9),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn fnv1a_is_librdkafkas() {
        for (key, hash) in
            [("kafka", 0x0d33_c4e1_u32), ("giberish123456789", 0x77a5_8295), ("1234", 0x023b_dd03), ("", 0x7ee3_623b)]
        {
            assert_eq!(fnv1a(key.as_bytes()).cast_signed().unsigned_abs(), hash, "{key}");
        }
    }

    #[test]
    fn crc32_is_the_ieee_one() {
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
        assert_eq!(Partitioner::Crc32.partition(b"123456789", 12), (0xcbf4_3926_u32 % 12).cast_signed());
    }

    #[test]
    fn every_key_has_a_partition_there_is() {
        for partitioner in Partitioner::ALL {
            for n in 0..500 {
                assert!((0..7).contains(&partitioner.partition(format!("order-{n}").as_bytes(), 7)));
            }
        }
    }

    fn keys(of: std::ops::Range<i32>) -> impl Iterator<Item = String> {
        of.map(|n| format!("order-{n}"))
    }

    fn guess(keys: impl Iterator<Item = String>, place: impl Fn(&[u8]) -> i32) -> PartitionerGuess {
        let mut guess = PartitionerGuess::default();
        for key in keys {
            guess.see(key.as_bytes(), place(key.as_bytes()), 12);
        }
        guess
    }

    #[test]
    fn the_one_that_explains_every_key_is_found() {
        for used in Partitioner::ALL {
            let guess = guess(keys(0..50), |key| used.partition(key, 12));
            assert_eq!((guess.only(), guess.partitioner(), guess.has_strays()), (Some(used), Some(used), false));
        }
    }

    #[test]
    fn it_is_murmur2_until_keys_speak_against_it_and_none_when_none_fits() {
        let nothing = guess(keys(0..0), |_| 0);
        assert_eq!((nothing.partitioner(), nothing.only()), (Some(Partitioner::Murmur2), None));
        let mut one = nothing.clone();
        one.see(b"any", 0, 1);
        assert_eq!((one.partitioner(), one.only()), (Some(Partitioner::Murmur2), None), "one partition tells nothing");
        assert_eq!(guess(keys(0..20), |_| 5).partitioner(), None);
        // Two producers, each with a partitioner of its own.
        let mixed = guess(keys(0..400), |key| Partitioner::ALL[usize::from(key[key.len() - 1] % 2)].partition(key, 12));
        assert_eq!(mixed.partitioner(), None);
    }

    #[test]
    fn a_stray_key_is_told_and_changes_nothing_however_often_it_comes() {
        for (before, used) in [(0, Partitioner::Murmur2), (50, Partitioner::Crc32), (5_000, Partitioner::Fnv1a)] {
            let mut guess = guess(keys(0..before), |key| used.partition(key, 12));
            let nowhere = (0..12).find(|n| Partitioner::ALL.iter().all(|of| of.partition(b"stray", 12) != *n)).unwrap();
            for _ in 0..1_000 {
                assert_eq!(guess.see(b"stray", nowhere, 12), before > 0);
            }
            for key in keys(before..before + 30) {
                assert!(!guess.see(key.as_bytes(), used.partition(key.as_bytes(), 12), 12));
            }
            assert_eq!((guess.partitioner(), guess.only(), guess.has_strays()), (Some(used), Some(used), true));
        }
    }

    #[test]
    fn what_keys_said_long_ago_is_forgotten() {
        let mut guess = guess(keys(0..20), |_| 5);
        for key in keys(20..8_000) {
            guess.see(key.as_bytes(), Partitioner::Crc32.partition(key.as_bytes(), 12), 12);
        }
        assert_eq!(guess.only(), Some(Partitioner::Crc32));
    }
}
