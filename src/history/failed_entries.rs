//! The entries that made sagas failed, in the order in which they became durable: for policies, which must see each once.

use super::reader::History;
use crate::error::Result;
use crate::saga::event::Kind;
use crate::saga::position::{ChainId, EntrySequence, Offset, SagaId};
use crate::saga::state::Status;
use crate::saga::time::Micros;

/// The failed entries of a part of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedEntries {
    /// Each may have made its saga failed: the history before it tells.
    pub entries: Vec<(SagaId, EntrySequence)>,
    /// Where to go on.
    pub next: Offset,
}

impl History {
    /// Every chain of sagas that there is now.
    pub fn all_chains(&self) -> Vec<ChainId> {
        self.chains.all()
    }

    /// The failed entries of the durable part of a chain, from `from` on, or where that is not known from where `since` was
    /// recorded; some thousands, and at least those of one segment.
    pub async fn failed_entries(
        &self,
        chain: &ChainId,
        from: Option<Offset>,
        since: Micros,
        enough: usize,
    ) -> Result<FailedEntries> {
        self.cold.follow(chain).await?;
        let mut next = match from {
            Some(from) => from,
            None => self.cold.recorded_after(chain, since).await?,
        };
        let mut entries = Vec::new();
        for segment in self.cold.segments_from(chain, next) {
            let fails = |kind, status| kind == Kind::SagaFailed && status == Status::Failed;
            if segment.effective.is_some() {
                let found = self.cold.scan(&segment, Micros::MIN, Micros::MAX).await?;
                let failed = found.into_iter().filter(|row| fails(row.kind, row.status));
                entries.extend(failed.map(|row| (row.saga_id, row.sequence)));
            }
            next = segment.end.next();
            if entries.len() >= enough {
                break;
            }
        }
        Ok(FailedEntries { entries, next })
    }
}
