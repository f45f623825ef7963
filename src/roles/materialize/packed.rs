//! A saga at rest: its fold as a frame, in half of the memory, beside its context, which is shared with others.

use bytes::Bytes;

use crate::saga::fold::Saga;
use crate::saga::json::Json;
use crate::wire::frame;

/// What one costs in a map besides its frame, about.
const OVERHEAD: usize = 160;

#[derive(Debug, Clone)]
pub struct Packed {
    frame: Bytes,
    context: Json,
}

impl Packed {
    pub fn new(saga: &Saga) -> Self {
        let frame = frame::encode_saga(saga).into_boxed_slice().into();
        Self { frame, context: saga.state.context.clone() }
    }

    pub fn unpack(&self) -> Saga {
        let mut saga = frame::decode_saga(&self.frame).expect("a frame that was written here");
        saga.state.context = self.context.clone();
        saga
    }

    /// Bytes in memory, about; without the context.
    pub fn held(&self) -> u64 {
        (self.frame.len() + OVERHEAD) as u64
    }

    /// Without the context.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }
}
