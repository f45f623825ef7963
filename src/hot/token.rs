//! What proves that a write is still in the store when its marks move.
//!
//! A store that fails over loses the newest part of what it was told, and may do so between entries and mark. So each
//! piece of a write ends with a token, and a mark moves only where the tokens of all pieces stand: a copy that has a
//! token has everything that came before it. Knows no store.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names one try of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Token {
    /// Who writes: no two at once have the same.
    pub writer: u64,
    /// Which try of which write of that writer; never used again.
    pub number: u64,
}

/// What a write left to be found: in how many pieces it reached each bucket. Nothing: there is nothing to prove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    pub token: Token,
    pub pieces: BTreeMap<u16, u32>,
}

impl Written {
    pub fn pieces(&self, bucket: u16) -> u32 {
        self.pieces.get(&bucket).copied().unwrap_or(0)
    }
}

/// The tokens of one writer.
pub struct Tokens {
    writer: u64,
    next: AtomicU64,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { writer: uuid::Uuid::new_v4().as_u64_pair().0, next: AtomicU64::new(1) }
    }
}

impl Tokens {
    /// A new one for each try: an earlier try's token would prove what a later try wrote elsewhere.
    pub fn next(&self) -> Token {
        Token { writer: self.writer, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }
}
