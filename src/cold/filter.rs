//! A Bloom filter over 64-bit hashes: never a false no, about one false yes in 100,000.
//!
//! 24 bits a hash, 16 probes. Probe i of hash h is bit `high64(mix(h + i * s) * bits)` with `s = mix(h) | 1`, sums modulo
//! 2^64, where mix is the finaliser of SplitMix64. A view adds the answers of some dozens of filters.

use bytes::{BufMut, Bytes};

use crate::cold::footer::BlockFields;
use crate::error::{Error, Result};

const BITS_PER_HASH: u64 = 24;
const PROBES: u64 = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    words: Box<[u64]>,
}

impl Filter {
    /// `hashes` may repeat; give the number of different ones.
    pub fn new(hashes: impl Iterator<Item = u64>, different: usize) -> Self {
        let words = (different as u64 * BITS_PER_HASH).div_ceil(64).max(1);
        let mut filter = Self { words: vec![0; words as usize].into() };
        for hash in hashes {
            for bit in probes(hash, words * 64) {
                filter.words[(bit / 64) as usize] |= 1 << (bit % 64);
            }
        }
        filter
    }

    pub fn may_contain(&self, hash: u64) -> bool {
        probes(hash, self.words.len() as u64 * 64).all(|bit| self.words[(bit / 64) as usize] >> (bit % 64) & 1 == 1)
    }

    /// u32 count of 64-bit words, then the words; bit b is bit b % 64 of word b / 64.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.words.len() as u32);
        self.words.iter().for_each(|word| out.put_u64_le(*word));
    }

    pub fn read(fields: &mut BlockFields) -> Result<Self> {
        let count = fields.u32()? as usize;
        let words: Bytes = fields.bytes(count.saturating_mul(8))?;
        if count == 0 {
            return Err(Error::corrupt("read filter: it is empty"));
        }
        let words = BlockFields(words).many(count, 8, BlockFields::u64)?;
        Ok(Self { words: words.into() })
    }
}

fn probes(hash: u64, bits: u64) -> impl Iterator<Item = u64> {
    let step = mix(hash) | 1;
    (0..PROBES).map(move |i| {
        let point = hash.wrapping_add(i.wrapping_mul(step));
        ((u128::from(mix(point)) * u128::from(bits)) >> 64) as u64
    })
}

fn mix(hash: u64) -> u64 {
    let hash = hash.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    fn hash(n: u64) -> u64 {
        xxh3_64(&n.to_le_bytes())
    }

    #[test]
    fn what_was_put_in_is_always_found_and_other_things_hardly_ever() {
        let filter = Filter::new((0..10_000).map(hash), 10_000);
        assert!((0..10_000).all(|n| filter.may_contain(hash(n))));
        let wrong = (10_000..1_010_000).filter(|n| filter.may_contain(hash(*n))).count();
        assert!(wrong <= 30, "{wrong} of a million");
    }

    #[test]
    fn it_survives_being_written() {
        let filter = Filter::new((0..100).map(hash), 100);
        let mut out = Vec::new();
        filter.write(&mut out);
        assert_eq!(Filter::read(&mut BlockFields(out.into())).expect("read"), filter);
    }
}
