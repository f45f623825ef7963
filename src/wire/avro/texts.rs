//! The schemas that this program writes, as they are registered.

pub const STEP_EVENT: &str = include_str!("../../../schemas/StepEvent.avsc");
pub const REPLAY_REQUEST: &str = include_str!("../../../schemas/ReplayRequest.avsc");
pub const RESTORED_SAGA: &str = include_str!("../../../schemas/RestoredSaga.avsc");
pub const REPLAY_LOG_ENTRY: &str = include_str!("../../../schemas/ReplayLogEntry.avsc");
