//! How a segment keeps contexts: a saga's first row has the whole text, a later row the whole text, or a change as it
//! came, or neither where the context stays.
//!
//! A function of the rows alone, so that two owners write the same. A whole text is due where the changes since the last
//! one have as many bytes as it: rows then take no more than twice what was sent, and reading no more than that.

use super::NewRow;
use crate::error::{Error, Result};
use crate::saga::context::changed_by_all;
use crate::saga::event::ContextChange;
use crate::saga::json::Json;
use crate::saga::state::Anomaly;

/// What a row says of the context.
#[derive(Debug, PartialEq, Eq)]
pub enum StoredContext {
    /// It is as in the row before.
    Same,
    Whole(Json),
    /// See [`read_change`].
    Change(String),
}

/// The contexts of one saga's rows, in order.
#[derive(Default)]
pub struct Contexts<'r> {
    /// The text of the last row that has a whole one.
    whole: Option<Json>,
    /// Since then, and the bytes they have.
    changes: Vec<&'r ContextChange>,
    changed_bytes: usize,
}

impl<'r> Contexts<'r> {
    /// Of the next row; `is_first` of its saga.
    pub fn next(&mut self, row: &'r NewRow, is_first: bool) -> Result<StoredContext> {
        if is_first {
            let whole = row.context.clone();
            let whole = whole.ok_or_else(|| Error::bug("build segment: a saga's first row comes without its context"))?;
            return Ok(self.restart(whole));
        }
        let known = self.whole.as_ref().ok_or_else(|| Error::bug("build segment: no row before this one"))?;
        if let Some(whole) = &row.context {
            let same = self.changes.is_empty() && known == whole;
            return Ok(if same { StoredContext::Same } else { self.restart(whole.clone()) });
        }
        let change = &row.entry.event.context;
        if row.entry.anomalies.contains(&Anomaly::StateTooLarge) {
            return Ok(StoredContext::Same);
        }
        let written = match change {
            ContextChange::None => return Ok(StoredContext::Same),
            ContextChange::Full(whole) => return Ok(self.restart(whole.clone())),
            ContextChange::Patch(patch) => write_change(PATCH, patch),
            ContextChange::Set(keys) => write_change(SET, keys),
            ContextChange::Splice { .. } => return Err(Error::bug("build segment: a change in the form of the hot store")),
        };
        self.changes.push(change);
        self.changed_bytes += written.len();
        if self.changed_bytes >= known.len() {
            let whole = changed_by_all(known, &self.changes);
            return Ok(self.restart(whole));
        }
        Ok(StoredContext::Change(written))
    }

    fn restart(&mut self, whole: Json) -> StoredContext {
        self.changes.clear();
        self.changed_bytes = 0;
        self.whole = Some(whole.clone());
        StoredContext::Whole(whole)
    }
}

/// As in the event.
const PATCH: &str = r#"{"context_patch":"#;
const SET: &str = r#"{"context_set":"#;

fn write_change(begin: &str, change: &Json) -> String {
    [begin, change.as_str(), "}"].concat()
}

/// A change as it is stored: an object with the event's `context_patch` or `context_set`.
pub fn read_change(text: &str) -> Result<ContextChange> {
    let inside = |begin: &str| text.strip_prefix(begin).and_then(|rest| rest.strip_suffix('}')).map(Json::from_valid);
    let patch = inside(PATCH).map(ContextChange::Patch);
    let change = patch.or_else(|| inside(SET).map(ContextChange::Set));
    change.ok_or_else(|| Error::corrupt("read segment: column context_change holds neither context_patch nor context_set"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::cold::segment::SMALL_CONTEXT;
    use crate::saga::context::changed_context;
    use crate::saga::entry::Entry;
    use crate::saga::event::{Kind, StepEvent};
    use crate::saga::fold::{Admitted, RecordMeta, Saga};
    use crate::saga::position::Position;
    use crate::saga::testing::{event, settings};
    use crate::saga::time::Micros;

    /// A saga's rows as the role gives them, and the context after each.
    fn rows(changes: Vec<ContextChange>) -> Vec<(NewRow, Json)> {
        let mut slot: Option<Saga> = None;
        let mut rows = Vec::new();
        for (number, context) in changes.into_iter().enumerate() {
            let event = StepEvent { event_id: number.to_string(), context, ..event(Kind::ContextUpdated) };
            let meta = RecordMeta { position: Position::new("t", 0, number as i64), timestamp: Micros(0) };
            let Admitted::Entry(entry) = Saga::admit(&mut slot, event, &meta, false, &settings()) else { panic!("an entry") };
            let state = &slot.as_ref().expect("a saga").state;
            let context = Some(state.context.clone()).filter(|context| number == 0 || context.len() < SMALL_CONTEXT);
            let entry: Arc<Entry> = Arc::from(entry);
            rows.push((NewRow { entry, status: state.status, context, saga: None }, state.context.clone()));
        }
        rows
    }

    fn stored(rows: &[(NewRow, Json)]) -> Vec<StoredContext> {
        let mut contexts = Contexts::default();
        rows.iter().enumerate().map(|(number, (row, _))| contexts.next(row, number == 0).expect("a row")).collect()
    }

    /// What a reader makes of it.
    fn read(stored: &[StoredContext]) -> Vec<Json> {
        let mut context = Json::empty_object();
        let next = |stored: &StoredContext| {
            match stored {
                StoredContext::Same => {}
                StoredContext::Whole(whole) => context = whole.clone(),
                StoredContext::Change(text) => {
                    context = changed_context(&context, &read_change(text).expect("a change")).expect("changes it");
                }
            }
            context.clone()
        };
        stored.iter().map(next).collect()
    }

    fn bytes(stored: &[StoredContext]) -> usize {
        let size = |stored: &StoredContext| match stored {
            StoredContext::Same => 0,
            StoredContext::Whole(text) => text.len(),
            StoredContext::Change(text) => text.len(),
        };
        stored.iter().map(size).sum()
    }

    fn json(text: String) -> Json {
        Json::from_valid(text)
    }

    #[test]
    fn small_patches_of_a_large_context_take_their_own_size() {
        let large = json(format!(r#"{{"blob":"{}"}}"#, "x".repeat(64 << 10)));
        let patch = |n: usize| ContextChange::Patch(json(format!(r#"{{"n":{n},"m":"{}"}}"#, "y".repeat(100))));
        let rows = rows([ContextChange::Full(large.clone())].into_iter().chain((0..200).map(patch)).collect());
        let stored = stored(&rows);
        assert!(bytes(&stored) < 2 * (large.len() + 200 * 140), "{} bytes", bytes(&stored));
        let rows_of = |rows: &[(NewRow, Json)]| rows.iter().map(|(_, after)| after.clone()).collect::<Vec<_>>();
        assert_eq!(read(&stored), rows_of(&rows));
    }

    proptest! {
        #[test]
        fn the_context_after_each_row_can_be_told(changes in prop::collection::vec(change(), 1..40)) {
            let rows = rows(changes);
            let told: Vec<Json> = rows.iter().map(|(_, after)| after.clone()).collect();
            prop_assert_eq!(read(&stored(&rows)), told);
        }
    }

    fn change() -> impl Strategy<Value = ContextChange> {
        let member =
            (0..4_u8, prop_oneof![Just(1_usize), Just(100), Just(3_000)], any::<bool>()).prop_map(|(key, size, drop)| {
                if drop { format!(r#""k{key}":null"#) } else { format!(r#""k{key}":"{}""#, "x".repeat(size)) }
            });
        let object = prop::collection::vec(member, 0..4).prop_map(|members| json(format!("{{{}}}", members.join(","))));
        (0..6_u8, object).prop_map(|(kind, object)| match kind {
            0 => ContextChange::None,
            1 => ContextChange::Full(object),
            2 | 3 => ContextChange::Set(object),
            _ => ContextChange::Patch(object),
        })
    }
}
