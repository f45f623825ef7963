//! The messages of a frame back to domain values; the way there is [`super::encode`].

use super::columns::EntryColumns;
use super::proto;
use crate::error::{Error, Result};
use crate::saga::entry::Entry;
use crate::saga::event::{ContextChange, ErrorInfo, Kind, StepEvent};
use crate::saga::fold::{Saga, Seen};
use crate::saga::json::Json;
use crate::saga::lineage::{Lineage, Mode};
use crate::saga::position::{EntrySequence, Position, SagaId};
use crate::saga::state::{Anomaly, EntryRef, State, Status};
use crate::saga::time::Micros;
use crate::wire::restored;

fn at_place<T: Copy>(all: &[T], place: u32, what: &str) -> Result<T> {
    all.get(place as usize).copied().ok_or_else(|| Error::corrupt(format!("decode frame: unknown {what}")))
}
fn json(text: String) -> Json {
    Json::from_valid(text)
}
fn position(topic: String, partition: u32, offset: u64) -> Result<Position> {
    let partition = i32::try_from(partition).map_err(|_| Error::corrupt("decode frame: partition out of range"))?;
    let offset = i64::try_from(offset).map_err(|_| Error::corrupt("decode frame: offset out of range"))?;
    Ok(Position::new(topic, partition, offset))
}

fn error_of_message(error: proto::Error) -> Box<ErrorInfo> {
    Box::new(ErrorInfo { code: error.code, kind: error.kind, message: error.message, details: error.details.map(json) })
}

fn lineage_of_message(lineage: proto::Lineage) -> Box<Lineage> {
    Box::new(Lineage {
        parent: SagaId::new(lineage.parent),
        root: SagaId::new(lineage.root),
        depth: lineage.depth,
        replay_id: lineage.replay_id,
        resume_step: lineage.resume_step,
        mode: if lineage.compensate { Mode::Compensate } else { Mode::Resume },
        force_failure: lineage.force_failure,
        executes: lineage.executes.map(SagaId::new),
    })
}

/// The entry, and whether its whole context stands elsewhere.
pub fn entry_of_message(entry: proto::Entry, columns: EntryColumns) -> Result<(Entry, bool)> {
    let effective = columns.recorded_time.0.wrapping_sub(entry.recorded_after);
    let mut elsewhere = false;
    let context = match entry.context {
        None => ContextChange::None,
        Some(proto::Context::Full(full)) => ContextChange::Full(json(full)),
        Some(proto::Context::Patch(patch)) => ContextChange::Patch(json(patch)),
        Some(proto::Context::Set(set)) => ContextChange::Set(json(set)),
        Some(proto::Context::Splice(splice)) => {
            ContextChange::Splice { prefix: splice.prefix, suffix: splice.suffix, middle: splice.middle.into() }
        }
        Some(proto::Context::Elsewhere(there)) => {
            elsewhere = there;
            ContextChange::None
        }
    };
    let event = StepEvent {
        event_id: columns.event_id,
        saga_id: columns.saga_id,
        saga_name: entry.saga_name,
        kind: at_place(&Kind::ALL, entry.kind, "kind")?,
        occurred_at: columns.occurred_at,
        step: entry.step,
        step_index: entry.step_index,
        attempt: entry.attempt,
        sequence: entry.event_sequence,
        context,
        result: entry.result.map(json),
        error: entry.error.map(error_of_message),
        saga_version: entry.saga_version,
        tenant: entry.tenant,
        region: entry.region,
        labels: entry.labels.map(|labels| labels.pairs.into_iter().map(|p| (p.name, p.text)).collect()),
        lineage: entry.lineage.map(lineage_of_message),
        restored: entry.restored.map(|r| restored::decode_json(r.as_bytes()).map(Box::new)).transpose()?,
    };
    let entry = Entry {
        sequence: EntrySequence(entry.sequence),
        position: columns.position,
        effective_time: Micros(effective),
        occurred_time: Micros(effective.wrapping_add(entry.occurred_after)),
        recorded_time: columns.recorded_time,
        snapshot: entry.snapshot,
        anomalies: entry.anomalies.into_iter().map(|a| at_place(&Anomaly::ALL, a, "anomaly")).collect::<Result<_>>()?,
        event,
    };
    Ok((entry, elsewhere))
}

/// What a state that is the fold up to this entry says of it.
pub fn reference(entry: &Entry) -> EntryRef {
    EntryRef {
        sequence: entry.sequence,
        event_id: entry.event.event_id.clone(),
        kind: entry.event.kind,
        effective_time: entry.effective_time,
        recorded_time: entry.recorded_time,
        position: entry.position.clone(),
    }
}

/// The saga; where it has no reference to its entry that is the one `beside` it, and so is its id.
pub fn saga_of_message(saga: proto::Saga, beside: Option<&Entry>) -> Result<Saga> {
    let entry = match (saga.entry, beside) {
        (Some(e), _) => EntryRef {
            sequence: EntrySequence(e.sequence),
            event_id: e.event_id,
            kind: at_place(&Kind::ALL, e.kind, "kind")?,
            effective_time: Micros(e.effective_time),
            recorded_time: Micros(e.recorded_time),
            position: position(e.topic, e.partition, e.offset)?,
        },
        (None, Some(beside)) => reference(beside),
        (None, None) => return Err(Error::corrupt("decode frame: a saga without its entry")),
    };
    let state = State {
        saga_id: beside.map_or_else(|| SagaId::new(saga.saga_id), |beside| beside.event.saga_id.clone()),
        saga_name: saga.saga_name,
        saga_version: saga.saga_version,
        status: at_place(&Status::ALL, saga.status, "status")?,
        running_steps: saga.running_steps.into_iter().map(|p| (p.name, p.value)).collect(),
        completed_steps: saga.completed_steps,
        skipped_steps: saga.skipped_steps,
        compensated_steps: saga.compensated_steps,
        failed_steps: saga.failed_steps.into_iter().map(|f| (f.step, f.error.map(error_of_message))).collect(),
        end_error: saga.end_error.map(error_of_message),
        compensation_failed_step: saga.compensation_failed_step,
        compensation_error: saga.compensation_error.map(error_of_message),
        attempts: saga.attempts.into_iter().map(|p| (p.name, p.value.unwrap_or_default())).collect(),
        results: saga.results.into_iter().map(|p| (p.name, json(p.text))).collect(),
        context: json(saga.context),
        started_at: Micros(saga.started_at),
        ended_at: saga.ended_at.map(Micros),
        tenant: saga.tenant,
        region: saga.region,
        labels: saga.labels.into_iter().map(|p| (p.name, p.text)).collect(),
        lineage: saga.lineage.map(lineage_of_message),
        anomalies: saga.anomalies.into_iter().map(|a| at_place(&Anomaly::ALL, a, "anomaly")).collect::<Result<_>>()?,
        snapshot: saga.snapshot.map(EntrySequence),
        entry,
    };
    Ok(Saga {
        state,
        window: saga.window.into_iter().map(|s| Seen { event_id_hash: s.event_id_hash, sequence: s.sequence }).collect(),
        highest_sequence: saga.highest_sequence,
    })
}
