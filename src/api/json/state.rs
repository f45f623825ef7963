//! A state as the answer to "state at T" (docs/interface/events.md, State): every member, in the order of the contract, texts as
//! they came. And two states with what differs.

use super::parts::known_through;
use crate::history::answer::StateAnswer;
use crate::saga::patch;
use crate::saga::position::EntrySequence;
use crate::saga::state::State;
use crate::saga::time::Micros;
use crate::saga::timeline::StepsChange;
use crate::wire::json::Writer;
use crate::wire::state::{write_anomalies, write_entry, write_state};

/// A state. `asked`: the time asked for, if one was.
pub fn state(found: &StateAnswer, asked: Option<Micros>) -> String {
    let looked_up = AsOf {
        as_of: asked,
        folded: found.folded,
        source: found.source.as_str(),
        complete_through: known_through(found.reach.complete_through),
    };
    state_json(&found.state, &looked_up)
}

/// Two states, each with the time asked for if one was, and what differs.
pub fn difference(from: (&StateAnswer, Option<Micros>), to: (&StateAnswer, Option<Micros>)) -> String {
    let (old, new) = (&from.0.state, &to.0.state);
    let mut out = Writer::with_capacity(4_096);
    out.raw("from", &state(from.0, from.1));
    out.raw("to", &state(to.0, to.1));
    out.raw("patch", &patch::diff(&old.context, &new.context).to_string());
    let steps = StepsChange::between(old, new);
    out.object("steps", |o| {
        for (name, change) in [("completed", &steps.completed), ("skipped", &steps.skipped), ("compensated", &steps.compensated)]
        {
            o.object(name, |o| {
                o.strings("added", &change.added);
                o.strings("removed", &change.removed);
            });
        }
    });
    out.object("status", |o| {
        o.str("from", old.status.as_str());
        o.str("to", new.status.as_str());
    });
    out.end()
}

/// How a state was looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct AsOf {
    /// The asked time; `None`: the state's own `updated_at`.
    as_of: Option<Micros>,
    /// Entries after the newest snapshot.
    folded: u64,
    /// `hot`, `cold` or `both`.
    source: &'static str,
    complete_through: Micros,
}

fn state_json(state: &State, found: &AsOf) -> String {
    let mut out = Writer::with_capacity(1_024 + state.context.as_str().len());
    write_state(&mut out, state, true);
    out.text("as_of", Some(found.as_of.unwrap_or(state.entry.effective_time)));
    out.object("entry", |o| write_entry(o, &state.entry));
    match state.snapshot {
        None => out.null("snapshot"),
        Some(EntrySequence(sequence)) => out.object("snapshot", |o| o.int("sequence", Some(sequence))),
    }
    out.int("folded", Some(found.folded));
    out.str("source", found.source);
    out.text("complete_through", Some(found.complete_through));
    write_anomalies(&mut out, state);
    out.end()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::saga::event::{ErrorInfo, Kind};
    use crate::saga::json::Json;
    use crate::saga::position::{Position, SagaId};
    use crate::saga::state::{Anomaly, EntryRef, Status};
    use crate::wire::json::{MAX_DEPTH, read_object};
    use crate::wire::testing;

    fn at(text: &str) -> Micros {
        text.parse().unwrap()
    }

    #[test]
    fn the_example_of_the_interface_is_written_member_by_member() {
        let state = State {
            saga_id: SagaId::from("order-1"),
            saga_name: "order-processing".into(),
            saga_version: None,
            status: Status::Running,
            running_steps: vec![("charge_payment".into(), Some(2))],
            completed_steps: vec!["reserve_inventory".into()],
            skipped_steps: vec![],
            compensated_steps: vec![],
            failed_steps: vec![],
            end_error: None,
            compensation_failed_step: None,
            compensation_error: None,
            attempts: vec![("reserve_inventory".into(), 1), ("charge_payment".into(), 1)],
            results: vec![("reserve_inventory".into(), Json::from_valid(r#"{"id":"r-9"}"#))],
            context: Json::from_valid(r#"{"amount":99.50}"#),
            started_at: at("2026-01-10T10:00:00Z"),
            ended_at: None,
            tenant: None,
            region: None,
            labels: vec![],
            lineage: None,
            anomalies: vec![Anomaly::Gap],
            snapshot: Some(EntrySequence(4)),
            entry: EntryRef {
                sequence: EntrySequence(4),
                event_id: "e-4".into(),
                kind: Kind::StepStarted,
                effective_time: at("2026-01-10T10:00:03Z"),
                recorded_time: at("2026-01-10T10:00:03.25Z"),
                position: Position::new("saga.events.v1", 3, 41),
            },
        };
        let found = AsOf { as_of: None, folded: 0, source: "hot", complete_through: at("2026-01-10T10:00:09Z") };
        let wanted = concat!(
            r#"{"saga_id":"order-1","saga_name":"order-processing","saga_version":null,"status":"running","#,
            r#""current_step":"charge_payment","step_index":2,"running_steps":{"charge_payment":2},"#,
            r#""completed_steps":["reserve_inventory"],"skipped_steps":[],"compensated_steps":[],"failed_step":null,"error":null,"#,
            r#""failed_steps":{},"compensation_failed_step":null,"compensation_error":null,"#,
            r#""attempts":{"reserve_inventory":1,"charge_payment":1},"results":{"reserve_inventory":{"id":"r-9"}},"#,
            r#""context":{"amount":99.50},"started_at":"2026-01-10T10:00:00.000000Z","updated_at":"2026-01-10T10:00:03.000000Z","#,
            r#""ended_at":null,"tenant":null,"region":null,"labels":{},"lineage":null,"as_of":"2026-01-10T10:00:03.000000Z","#,
            r#""entry":{"sequence":4,"event_id":"e-4","kind":"STEP_STARTED","effective_time":"2026-01-10T10:00:03.000000Z","#,
            r#""recorded_time":"2026-01-10T10:00:03.250000Z","position":{"topic":"saga.events.v1","partition":3,"offset":41}},"#,
            r#""snapshot":{"sequence":4},"folded":0,"source":"hot","complete_through":"2026-01-10T10:00:09.000000Z","anomalies":["gap"]}"#,
        );
        assert_eq!(state_json(&state, &found), wanted);
    }

    proptest! {
        #[test]
        fn an_answer_is_json_and_shows_the_error_that_counts(saga in testing::saga()) {
            let found = AsOf { as_of: Some(Micros(0)), folded: 3, source: "both", complete_through: Micros(1) };
            let text = state_json(&saga.state, &found);
            let object = read_object(text.as_bytes(), MAX_DEPTH).unwrap();
            prop_assert_eq!(object.get("context").unwrap().text(), saga.state.context.as_str());
            let last = saga.state.failed_steps.last().and_then(|(_, error)| error.clone());
            let error: Option<Box<ErrorInfo>> = saga.state.end_error.or(last);
            prop_assert_eq!(object.get("error").is_some(), error.is_some());
            if let Some(error) = error {
                let shown = object.get("error").unwrap().object().unwrap();
                prop_assert_eq!(shown.members().len(), 4);
                prop_assert_eq!(shown.get("type").map(|t| t.string().unwrap().into_owned()), error.kind);
            }
        }
    }
}
