//! Members that several commands have, and the hash of a text.

use sha2::{Digest, Sha256};

use crate::saga::position::SagaId;
use crate::wire::fields::{Checked, Fields};

/// Required, 1 to 256 characters.
pub fn read_saga_id(fields: &Fields<'_>, name: &str) -> Checked<SagaId> {
    let id = fields.needed(name)?;
    if id.chars().count() > SagaId::MAX_CHARS {
        return Err(fields.wrong(name, "is longer than 256 characters"));
    }
    Ok(SagaId::new(id))
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = Sha256::digest(bytes).into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}
