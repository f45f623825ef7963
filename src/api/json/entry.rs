//! An entry as a line of `GET /v1/sagas/{id}/history`.

use crate::saga::entry::Entry;
use crate::saga::state::Status;
use crate::wire::event::write_error;
use crate::wire::json::Writer;
use crate::wire::restored::write_position;

/// `status`: after the entry. `changed`: JSON pointers of the context members that it changed.
pub fn entry(entry: &Entry, status: Status, changed: &[String]) -> String {
    let event = &entry.event;
    let mut out = Writer::with_capacity(512);
    out.int("sequence", Some(entry.sequence));
    out.str("event_id", &event.event_id);
    out.str("kind", event.kind.as_str());
    out.text("effective_time", Some(entry.effective_time));
    out.text("recorded_time", Some(entry.recorded_time));
    write_position(&mut out, &entry.position);
    out.opt_str("step", event.step.as_deref());
    out.int("step_index", event.step_index);
    out.int("attempt", event.attempt);
    out.text("occurred_at", event.occurred_at);
    out.str("status", status.as_str());
    write_error(&mut out, "error", event.error.as_deref());
    out.bool("snapshot", entry.snapshot);
    out.strings("anomalies", entry.anomalies.iter().map(|anomaly| anomaly.as_str()));
    out.strings("changed", changed);
    out.end()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::json::{MAX_DEPTH, read_object};
    use crate::wire::testing;

    proptest! {
        #[test]
        fn every_member_is_there_even_when_it_is_null(entry in testing::entry()) {
            let text = super::entry(&entry, Status::Running, &["/a".to_owned()]);
            let object = read_object(text.as_bytes(), MAX_DEPTH).unwrap();
            let names: Vec<_> = object.members().into_iter().map(|(name, _)| name).collect();
            let wanted = [
                "sequence", "event_id", "kind", "effective_time", "recorded_time", "position", "step", "step_index", "attempt",
                "occurred_at", "status", "error", "snapshot", "anomalies", "changed",
            ];
            prop_assert_eq!(names, wanted);
            prop_assert_eq!(object.get("sequence").unwrap().u64(), Some(entry.sequence.0));
        }
    }
}
