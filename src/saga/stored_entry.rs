//! An entry as the stores give it back.

use super::entry::Entry;
use super::fold::Saga;

/// An entry as a store gives it back: with the fold's result after it where the store kept one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    pub entry: Entry,
    /// The fold up to and with this entry. In hot: of snapshots (its [`Saga::window`] is empty there: rebuild it from
    /// the last 64 entries). In cold: of a saga's first row in a segment (window complete).
    pub saga: Option<Box<Saga>>,
}
