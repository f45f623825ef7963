//! A saga at rest: its fold as a frame, in half of the memory, beside its context, which is shared with others.

use bytes::Bytes;

use crate::cold::segment::SMALL_CONTEXT;
use crate::saga::entry::Entry;
use crate::saga::fold::Saga;
use crate::saga::json::Json;
use crate::wire::frame;

/// What one costs in a map besides its frame, about.
const OVERHEAD: usize = 160;

#[derive(Debug, Clone)]
pub struct PackedSaga {
    frame: Bytes,
    context: Json,
}

impl PackedSaga {
    pub fn new(saga: &Saga) -> Self {
        let frame = frame::encode_saga(saga).into_boxed_slice().into();
        Self { frame, context: saga.state.context.clone() }
    }

    pub fn unpack(&self) -> Saga {
        let mut saga = frame::decode_saga(&self.frame).expect("a frame that was written here");
        saga.state.context = self.context.clone();
        saga
    }

    /// This saga after more entries.
    pub fn fold_on<'e>(&self, entries: impl Iterator<Item = &'e Entry>) -> Self {
        let mut saga = Some(self.unpack());
        Saga::apply_all(&mut saga, entries);
        saga.as_ref().map_or_else(|| self.clone(), Self::new)
    }

    /// Bytes in memory, about; a small context is its event's, or counted there.
    pub fn held(&self) -> u64 {
        let context = Some(self.context.len()).filter(|len| *len >= SMALL_CONTEXT).unwrap_or(0);
        (self.frame.len() + OVERHEAD + context) as u64
    }

    pub fn context(&self) -> &Json {
        &self.context
    }

    /// Without the context.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }
}
