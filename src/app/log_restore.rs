//! Brings back into the view of the replay log what its topic has dropped: history keeps replays as long as their sagas.
//!
//! Once, after the topic was read (the view is whole); until then, and for what the view has no room for, single replays are still found in
//! history by their ids.

use futures::future::BoxFuture;

use crate::error::{Error, Result};
use crate::history::History;
use crate::roles::log_saga;
use crate::roles::replay_log::ReplayLog;
use crate::roles::retry::until_available;
use crate::saga::position::SagaId;
use crate::saga::request::ReplayStatus;
use crate::saga::selector::{ReplayStanding, SagaFilter};

/// Replays asked for at a time.
const PAGE: usize = 500;

/// Those that changed last first, until the view is full. Gives how many.
pub(super) async fn restore(view: &ReplayLog, log_history: &History) -> Result<usize> {
    let ends = view.all_unknown_below();
    if ends.is_empty() {
        return Ok(0);
    }
    // What history gets of that only later is not among what is found now.
    let mut all = log_history.is_known_to(&ends).await?;
    let filter = SagaFilter { saga_name: Some(log_saga::SAGA_NAME.into()), ..SagaFilter::default() };
    // Not asked: the filter says nothing of replays.
    let standing = |_: SagaId| -> BoxFuture<'static, Result<ReplayStanding>> { Box::pin(async { Ok(ReplayStanding::None) }) };
    let (mut after, mut restored): (Option<String>, usize) = (None, 0);
    loop {
        let search = || log_history.search(&filter, after.as_deref(), PAGE, &standing);
        let page = until_available("search dropped replays in history", search).await?;
        for found in page.sagas {
            let Some(id) = log_saga::replay_id(&found.saga_id).filter(|id| view.get(id).is_none()) else { continue };
            let read = || log_saga::newest(log_history, id, &ends);
            match until_available("read dropped replay from history", read).await {
                // History may be behind the topic that was: one that seems to wait could be carried out twice.
                Ok(Some(record)) if record.status != ReplayStatus::Accepted => match view.restore(record) {
                    true => restored += 1,
                    false => return Ok(restored),
                },
                Ok(_) => all = false,
                Err(error @ Error::Corrupt(_)) => {
                    all = false;
                    tracing::warn!(%error, "a replay in history is not understood");
                }
                Err(error) => return Err(error),
            }
        }
        after = page.next;
        if after.is_none() {
            if all {
                // From here on what is not in the view is new, and nobody need ask history for it.
                view.all_restored();
            }
            return Ok(restored);
        }
    }
}

#[cfg(test)]
#[path = "log_restore_tests.rs"]
mod tests;
