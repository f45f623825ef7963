//! The sealed block at the end of our objects: compressed, checked, found from the end.
//!
//! `packed bytes`, then a trailer of 24 bytes: packed length u32, raw length u32, XXH3-64 of the packed bytes u64 (all
//! little-endian), 8 bytes of magic. Knows nothing of what is inside.

use bytes::{Buf, Bytes};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};

pub const TRAILER: usize = 24;
/// Largest raw block that is read: a damaged length must not ask for more memory.
const MAX_RAW: usize = 512 << 20;
const LEVEL: i32 = 1;

pub type Magic = [u8; 8];

/// Packed bytes and trailer.
pub fn seal(raw: &[u8], magic: Magic) -> Result<Vec<u8>> {
    let mut out = zstd::bulk::compress(raw, LEVEL).map_err(|e| Error::bug(format!("compress block: {e}")))?;
    let (packed, hash) = (out.len() as u32, xxh3_64(&out));
    out.extend_from_slice(&packed.to_le_bytes());
    out.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    out.extend_from_slice(&hash.to_le_bytes());
    out.extend_from_slice(&magic);
    Ok(out)
}

/// What the trailer at the end of `bytes` says of the block before it.
pub fn sealed_len(bytes: &[u8], magic: Magic) -> Result<usize> {
    let trailer = bytes.len().checked_sub(TRAILER).map(|at| &bytes[at..]);
    let mut trailer = trailer
        .ok_or_else(|| Error::corrupt(format!("read block: {} bytes, shorter than its trailer of {TRAILER}", bytes.len())))?;
    let packed = trailer.get_u32_le() as usize;
    trailer.advance(12);
    if trailer != magic {
        return Err(Error::corrupt("read block: its trailer has no magic: the object is cut off, or no object of this kind"));
    }
    Ok(packed + TRAILER)
}

/// The raw block whose trailer ends `bytes`.
pub fn unseal(bytes: &[u8], magic: Magic) -> Result<Bytes> {
    let len = sealed_len(bytes, magic)?;
    let from = bytes
        .len()
        .checked_sub(len)
        .ok_or_else(|| Error::corrupt(format!("read block: its trailer says {len} bytes, {} are there", bytes.len())))?;
    let (packed, mut trailer) = bytes[from..].split_at(len - TRAILER);
    trailer.advance(4);
    let (raw_len, hash) = (trailer.get_u32_le() as usize, trailer.get_u64_le());
    let found = xxh3_64(packed);
    if found != hash {
        return Err(Error::corrupt(format!("read block: its trailer says hash {hash:016x}, its bytes have {found:016x}")));
    }
    if raw_len > MAX_RAW {
        return Err(Error::corrupt(format!("read block: {raw_len} bytes unpacked, more than {MAX_RAW}")));
    }
    let raw = zstd::bulk::decompress(packed, raw_len).map_err(|e| Error::corrupt(format!("read block: {e}")))?;
    if raw.len() != raw_len {
        return Err(Error::corrupt(format!("read block: its trailer says {raw_len} bytes unpacked, it has {}", raw.len())));
    }
    Ok(raw.into())
}

/// Reads numbers from a block; running out of bytes is `Corrupt`.
pub struct BlockFields(pub Bytes);

impl BlockFields {
    pub fn u16(&mut self) -> Result<u16> {
        self.0.try_get_u16_le().map_err(|_| short())
    }
    pub fn u32(&mut self) -> Result<u32> {
        self.0.try_get_u32_le().map_err(|_| short())
    }
    pub fn u64(&mut self) -> Result<u64> {
        self.0.try_get_u64_le().map_err(|_| short())
    }
    pub fn i64(&mut self) -> Result<i64> {
        self.0.try_get_i64_le().map_err(|_| short())
    }
    pub fn bytes(&mut self, len: usize) -> Result<Bytes> {
        if len > self.0.len() { Err(short()) } else { Ok(self.0.split_to(len)) }
    }
    /// `count` values of `width` bytes each: refuses a count that cannot be there before memory is taken for it.
    pub fn many<T>(&mut self, count: usize, width: usize, read: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        if count.saturating_mul(width) > self.0.len() {
            return Err(short());
        }
        (0..count).map(|_| read(self)).collect()
    }
    pub fn end(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::corrupt("read block: bytes left over")) }
    }
}

fn short() -> Error {
    Error::corrupt("read block: ends too early")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_is_noticed() {
        let sealed = seal(&[7; 100], *b"MAGIC001").expect("sealed");
        assert_eq!(unseal(&sealed, *b"MAGIC001").expect("whole"), vec![7; 100]);
        for bit in 0..sealed.len() * 8 {
            let mut broken = sealed.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            let read = unseal(&broken, *b"MAGIC001");
            assert!(matches!(read, Err(Error::Corrupt(_))), "bit {bit}");
        }
        assert!(unseal(&sealed[1..], *b"MAGIC001").is_err());
    }
}
