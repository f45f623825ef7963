//! Has an object two members of one name?

use std::borrow::Cow;
use std::ops::Range;

use super::raw::unescape;

/// Where a name stands in its text, without its quotes.
#[derive(Clone, Copy)]
pub(super) struct Name {
    pub start: u32,
    pub end: u32,
    pub escaped: bool,
}

impl Name {
    pub fn inner(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
    pub fn quoted(self) -> Range<usize> {
        self.start as usize - 1..self.end as usize + 1
    }
}

/// So few are compared with each other.
const FEW: usize = 4;
/// Bits of the sieve below.
const SIEVE: usize = 1 << 10;

pub(super) fn any_twice(text: &str, names: &[Name]) -> bool {
    let bytes = |name: &Name| &text.as_bytes()[name.inner()];
    if names.iter().any(|name| name.escaped) {
        return in_full(names.iter().map(|name| unescape(&text[name.quoted()], &text[name.inner()])));
    }
    if names.len() <= FEW {
        let equals = |(at, name): (usize, &Name)| names[..at].iter().any(|other| bytes(other) == bytes(name));
        return names.iter().enumerate().any(equals);
    }
    // Nearly always each name falls on a bit of its own, and then no two are equal.
    let mut sieve = [0_u64; SIEVE / 64];
    let all_apart = names.iter().all(|name| {
        let bit = sieve_bit(bytes(name));
        let (word, mask) = (&mut sieve[bit / 64], 1 << (bit % 64));
        let fresh = *word & mask == 0;
        *word |= mask;
        fresh
    });
    !all_apart && in_full(names.iter().map(|name| Cow::Borrowed(&text[name.inner()])))
}

fn in_full<'a>(names: impl Iterator<Item = Cow<'a, str>>) -> bool {
    let mut names: Vec<Cow<'_, str>> = names.collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

/// Of length, first, middle and last byte: names differ in one of them, or are compared in full.
fn sieve_bit(name: &[u8]) -> usize {
    let at = |place: usize| name.get(place).copied().map_or(0, u32::from);
    let mixed = (name.len() as u32) ^ at(0) << 8 ^ at(name.len() / 2) << 16 ^ at(name.len().wrapping_sub(1)) << 24;
    // Fibonacci hashing: the high bits of the product (Knuth, "The Art of Computer Programming" 3, 6.4).
    (mixed.wrapping_mul(0x9E37_79B1) >> (32 - SIEVE.trailing_zeros())) as usize
}
