//! JSON as it is read and written here: members are kept as text, so key order and number text survive, and
//! nothing is turned into a tree.
//!
//! Reading is one pass over the bytes ([`read_object`]); writing appends members in the order of the contract
//! ([`Writer`]). Must not know what any member means.

mod names;
mod raw;
mod read;
mod scan;
mod write;

pub use raw::{MAX_DEPTH, OWN_MAX_DEPTH, Raw};
pub use read::{Object, read_object, read_value};
pub use write::{Writer, quote};
