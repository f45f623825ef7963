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

/// Which partitioners explain every key seen so far in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionerGuess {
    /// By place in [`Partitioner::ALL`].
    explains_all: [bool; 3],
}

impl Default for PartitionerGuess {
    fn default() -> Self {
        Self { explains_all: [true; 3] }
    }
}

impl PartitionerGuess {
    /// A key was found in `partition` of a topic that had `partitions` when it was written.
    pub fn see(&mut self, key: &[u8], partition: i32, partitions: i32) {
        if partitions < 2 || self.settled() == Some(None) {
            return;
        }
        for (explains, partitioner) in self.explains_all.iter_mut().zip(Partitioner::ALL) {
            *explains = *explains && partitioner.partition(key, partitions) == partition;
        }
    }

    /// What another process, or another partition's reader, found out.
    pub fn join(&mut self, other: Self) {
        for (mine, theirs) in self.explains_all.iter_mut().zip(other.explains_all) {
            *mine &= theirs;
        }
    }

    /// The one to use: murmur2 as long as it explains every key, else the next that does; `None`: none fits.
    pub fn partitioner(self) -> Option<Partitioner> {
        self.fitting().next()
    }

    /// `Some` once more keys cannot bring another choice but "none fits": the only one left, or none.
    pub fn settled(self) -> Option<Option<Partitioner>> {
        let mut fitting = self.fitting();
        let first = fitting.next();
        if fitting.next().is_some() { None } else { Some(first) }
    }

    fn fitting(self) -> impl Iterator<Item = Partitioner> {
        Partitioner::ALL.into_iter().zip(self.explains_all).filter_map(|(partitioner, fits)| fits.then_some(partitioner))
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

    #[test]
    fn the_one_that_explains_every_key_is_found() {
        for used in Partitioner::ALL {
            let mut guess = PartitionerGuess::default();
            for n in 0..50 {
                let key = format!("order-{n}");
                guess.see(key.as_bytes(), used.partition(key.as_bytes(), 12), 12);
            }
            assert_eq!(guess.settled(), Some(Some(used)));
            assert_eq!(guess.partitioner(), Some(used));
        }
    }

    #[test]
    fn it_is_murmur2_until_a_key_speaks_against_it_and_none_when_none_fits() {
        let mut guess = PartitionerGuess::default();
        guess.see(b"any", 0, 1);
        assert_eq!((guess.partitioner(), guess.settled()), (Some(Partitioner::Murmur2), None));
        let mut joined = PartitionerGuess::default();
        for n in 0..20 {
            guess.see(format!("order-{n}").as_bytes(), 5, 12);
        }
        assert_eq!(guess.partitioner(), None);
        joined.join(guess);
        assert_eq!(joined.partitioner(), None);
    }
}
