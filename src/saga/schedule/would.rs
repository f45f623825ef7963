//! What a schedule would have done.

use crate::saga::batch::Verdict;
use crate::saga::position::{EntrySequence, SagaId};
use crate::saga::time::Micros;

/// A request that a schedule would have made.
#[derive(Debug, Clone, PartialEq)]
pub struct WouldReplay {
    pub saga_id: SagaId,
    /// Of the entry that a policy fits.
    pub sequence: Option<EntrySequence>,
    /// When it would have been carried out at the earliest.
    pub due: Micros,
    pub verdict: Verdict,
}
