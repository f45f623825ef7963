//! Which entries end a restored saga: the outcome of its replay, for the replay log. Pure.

use crate::saga::entry::Entry;
use crate::saga::event::Kind;
use crate::saga::position::SagaId;
use crate::saga::request::Outcome;
use crate::saga::state::State;

/// Bytes; replay ids are UUIDs.
const MAX_REPLAY_ID_BYTES: usize = 256;

/// The outcome of a replay, if this entry ended a restored saga or the one that runs it; or if it is the late
/// SAGA_RESTORED of one that has ended, which tells only now whose outcome that end was.
pub fn outcome(entry: &Entry, after: &State) -> Option<Outcome> {
    let kind = entry.event.kind;
    let tells = kind.is_end() || kind == Kind::SagaRestored;
    let lineage = after.lineage.as_ref().filter(|_| tells && after.status.is_end())?;
    // The ids that a SAGA_STARTED names may be any text. Longer ones are of no replay, and might make a record that no
    // topic takes.
    if lineage.replay_id.len() > MAX_REPLAY_ID_BYTES || lineage.parent.as_str().chars().count() > SagaId::MAX_CHARS {
        return None;
    }
    Some(Outcome {
        replay_id: lineage.replay_id.clone(),
        original_saga_id: lineage.parent.clone(),
        ended_saga_id: entry.event.saga_id.clone(),
        status: after.status,
        sequence: entry.sequence.0,
        ended_at: after.ended_at.unwrap_or(entry.effective_time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::fold::{Admitted, RecordMeta, Saga};
    use crate::saga::position::Position;
    use crate::saga::state::Status;
    use crate::saga::testing::settings;
    use crate::saga::time::Micros;
    use crate::wire::event::decode_event;

    /// The outcome that each event of one saga gives, in the order in which they are recorded.
    fn outcomes(events: &[&str]) -> Vec<Option<(String, Status)>> {
        let mut slot: Option<Saga> = None;
        let mut outcomes = Vec::new();
        for (offset, text) in events.iter().enumerate() {
            let schemas = crate::wire::avro::Schemas::new(false);
            let event = decode_event(Some(b"new"), Some(text.as_bytes()), &Vec::new(), 1 << 20, &schemas).expect("an event");
            let meta =
                RecordMeta { position: Position::new("events", 0, offset as i64), timestamp: Micros(2_000_000_000_000_000) };
            let Admitted::Entry(entry) = Saga::admit(&mut slot, event, &meta, false, &settings()) else {
                panic!("no entry: {text}")
            };
            let after = &slot.as_ref().expect("a saga").state;
            outcomes.push(outcome(&entry, after).map(|outcome| (outcome.replay_id, outcome.status)));
        }
        outcomes
    }

    const RESTORED: &str = r#"{"event_id": "r", "saga_id": "new", "saga_name": "order", "kind": "SAGA_RESTORED",
        "occurred_at": "2026-06-01T08:00:00Z", "context": {}, "restored": {"schema_version": 1, "replay_id": "r", "request_id": "q",
        "saga_id": "new", "original_saga_id": "old", "root_saga_id": "old", "depth": 1, "saga_name": "order", "mode": "resume",
        "resume_step": "charge", "checkpoint": {"sequence": 1, "effective_time": "2026-06-01T07:00:00Z",
        "position": {"topic": "events", "partition": 0, "offset": 0}}, "completed_steps": [], "results": {}, "attempts": {},
        "restored_at": "2026-06-01T08:00:00Z", "requested_by": "ops", "reason": "test"}}"#;
    const STARTED: &str = r#"{"event_id": "1", "saga_id": "new", "saga_name": "order", "kind": "STEP_STARTED", "step": "charge",
        "occurred_at": "2026-06-01T08:00:01Z"}"#;
    const COMPLETED: &str = r#"{"event_id": "2", "saga_id": "new", "saga_name": "order", "kind": "SAGA_COMPLETED",
        "occurred_at": "2026-06-01T08:00:02Z"}"#;

    #[test]
    fn the_end_of_a_restored_saga_is_its_replays_outcome() {
        let outcome = Some(("r".to_owned(), Status::Completed));
        assert_eq!(outcomes(&[RESTORED, STARTED, COMPLETED]), [None, None, outcome]);
        assert_eq!(outcomes(&[STARTED, COMPLETED]), [None, None], "no replay's saga");
    }

    #[test]
    fn an_end_that_names_a_replay_by_a_text_too_long_for_one_tells_nothing() {
        let started = |replay_id: &str, parent: &str| {
            format!(
                r#"{{"event_id": "s", "saga_id": "new", "saga_name": "order", "kind": "SAGA_STARTED",
                    "lineage": {{"replay_id": "{replay_id}", "original_saga_id": "{parent}", "restored_saga_id": "n",
                    "root_saga_id": "old", "depth": 1}}}}"#
            )
        };
        let outcome = Some(("r".to_owned(), Status::Completed));
        assert_eq!(outcomes(&[&started("r", "old"), COMPLETED]), [None, outcome]);
        assert_eq!(outcomes(&[&started(&"r".repeat(300), "old"), COMPLETED]), [None, None]);
        assert_eq!(outcomes(&[&started("r", &"ö".repeat(257)), COMPLETED]), [None, None]);
    }

    #[test]
    fn a_restored_event_that_comes_after_the_end_tells_the_outcome() {
        let outcome = Some(("r".to_owned(), Status::Completed));
        assert_eq!(outcomes(&[STARTED, COMPLETED, RESTORED]), [None, None, outcome]);
    }
}
