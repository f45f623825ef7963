//! The state of a saga at a time or entry.

use super::answer::{PointInTime, StateAnswer};
use super::loaded::LONG;
use super::merge::{self, ReadDepth};
use super::reader::History;
use crate::cpu;
use crate::error::{Error, Result};
use crate::saga::json::Json;
use crate::saga::position::SagaId;
use crate::saga::state::Anomaly;
use crate::saga::time::Micros;

impl History {
    /// Refused: `saga_not_found`, `before_first_event`, `sequence_not_found`.
    pub async fn state(&self, saga: &SagaId, when: PointInTime) -> Result<StateAnswer> {
        let (upto, back) = match when {
            PointInTime::Newest => (Micros::MAX, ReadDepth::Snapshot),
            PointInTime::At(upto) => (upto, ReadDepth::Snapshot),
            PointInTime::Sequence(sequence) => (Micros::MAX, ReadDepth::To(sequence.max(1))),
        };
        let loaded = self.load(saga, upto, back).await?;
        let Some(last) = loaded.entries.last() else {
            let PointInTime::At(_) = when else { return Err(loaded.not_found_unless_incomplete(saga_not_found())) };
            let newest = self.load(saga, Micros::MAX, ReadDepth::Snapshot).await?;
            // Times never go back within a saga: what it has is later, whatever else it has.
            let exists = !newest.entries.is_empty();
            return Err(if exists {
                before_first_event()
            } else {
                newest.not_found_unless_incomplete(loaded.not_found_unless_incomplete(saga_not_found()))
            });
        };
        let wanted = match when {
            PointInTime::Sequence(sequence) if sequence == 0 || sequence > last.entry.sequence.0 => {
                let not_found = Error::refused("sequence_not_found", "the saga has no entry of this sequence");
                return Err(if sequence == 0 { not_found } else { loaded.not_found_unless_incomplete(not_found) });
            }
            PointInTime::Sequence(sequence) => sequence,
            PointInTime::Newest | PointInTime::At(_) => u64::MAX,
        };
        let fold = || merge::fold(&loaded.entries, |entry| entry.sequence.0 <= wanted);
        let folded = if loaded.entries.len() > LONG { cpu::long(fold).await? } else { fold()? };
        let mut state = folded.ok_or_else(|| Error::bug("read state of saga: no entry"))?.state;
        state.anomalies.extend(loaded.split.then_some(Anomaly::PartitionConflict));
        let folded = state.entry.sequence.0 - state.snapshot.map_or(0, |snapshot| snapshot.0);
        Ok(StateAnswer { state, folded, source: loaded.source, reach: loaded.reach, split: loaded.split })
    }

    /// The value that an RFC 6901 pointer names in the context. Refused: `pointer_not_found` and those of `state`.
    pub async fn context(&self, saga: &SagaId, when: PointInTime, pointer: &str) -> Result<Json> {
        let context = self.state(saga, when).await?.state.context;
        if pointer.is_empty() {
            return Ok(context);
        }
        let value = context.to_value();
        let found = value.pointer(pointer).map(Json::from_value);
        found.ok_or_else(|| Error::refused("pointer_not_found", "the context has nothing at this JSON pointer"))
    }
}

pub(super) fn saga_not_found() -> Error {
    Error::refused("saga_not_found", "no saga of this id is in the history")
}

fn before_first_event() -> Error {
    Error::refused("before_first_event", "the saga's first event is later than this time")
}
