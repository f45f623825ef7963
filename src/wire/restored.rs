//! The restored saga as JSON (docs/interface/restored-sagas.md): members in the order of the contract, so building it twice gives the
//! same bytes.

use super::avro::{self, SchemaId, Schemas, Shape};
use super::fields::{Checked, Fields};
use super::json::{OWN_MAX_DEPTH, Raw, Writer, read_object};
use super::payload::{NotDecoded, RecordHeaders, open};
use crate::error::{Error, Result};
use crate::saga::lineage::Mode;
use crate::saga::position::{Offset, Position, SagaId};
use crate::saga::restored::{CheckpointRef, RestoredSaga};

/// As JSON, whatever the topic's format.
pub fn encode_json(restored: &RestoredSaga) -> String {
    let mut out = Writer::with_capacity(1024 + restored.context.as_ref().map_or(0, |c| c.as_str().len()));
    write(&mut out, restored);
    out.end()
}

pub fn decode_json(bytes: &[u8]) -> Result<RestoredSaga> {
    let object = read_object(bytes, OWN_MAX_DEPTH).map_err(|e| Error::corrupt(format!("read restored saga: {e}")))?;
    read(&Fields::new(object)).map_err(|e| Error::corrupt(format!("read restored saga: {e}")))
}

/// The value on the topic of restored sagas: Avro with that schema id, else JSON.
pub fn encode_restored(restored: &RestoredSaga, schema: Option<SchemaId>) -> Result<Vec<u8>> {
    let json = encode_json(restored);
    match schema {
        Some(id) => avro::from_json(Shape::restored_saga(), id, &json),
        None => Ok(json.into_bytes()),
    }
}

/// Reads a record of the topic of restored sagas.
#[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "what is written is read by tests, as consumers read it"))]
pub fn decode_restored(value: Option<&[u8]>, headers: &RecordHeaders, schemas: &Schemas) -> Result<RestoredSaga, NotDecoded> {
    let text = open(value, headers, schemas, Shape::restored_saga())?;
    if let Some(wrong) = text.wrong {
        return Err(NotDecoded::undecodable(wrong.to_string()));
    }
    decode_json(&text.bytes).map_err(|e| NotDecoded::undecodable(e.to_string()))
}

/// The members; `context` is left out where there is none (the `restored` member of SAGA_RESTORED).
pub(super) fn write(out: &mut Writer, restored: &RestoredSaga) {
    out.str("saga_id", restored.saga_id.as_str());
    out.str("saga_name", &restored.saga_name);
    out.opt_str("saga_version", restored.saga_version.as_deref());
    out.str("mode", restored.mode.as_str());
    out.opt_str("resume_step", restored.resume_step.as_deref());
    out.int("resume_step_index", restored.resume_step_index);
    out.strings("resume_steps", &restored.resume_steps);
    out.strings("completed_steps", &restored.completed_steps);
    out.strings("skipped_steps", &restored.skipped_steps);
    out.strings("compensated_steps", &restored.compensated_steps);
    out.strings("compensated_since", &restored.compensated_since);
    out.map("attempts", &restored.attempts, |o, step, attempts| o.int(step, Some(attempts)));
    out.map("results", &restored.results, |o, step, result| o.raw(step, result.as_str()));
    if let Some(context) = &restored.context {
        out.raw("context", context.as_str());
    }
    out.opt_str("force_failure", restored.force_failure.as_deref());
    out.str("original_saga_id", restored.original_saga_id.as_str());
    out.str("root_saga_id", restored.root_saga_id.as_str());
    out.int("depth", Some(restored.depth));
    out.str("replay_id", &restored.replay_id);
    out.str("request_id", &restored.request_id);
    out.opt_str("batch_id", restored.batch_id.as_deref());
    write_checkpoint(out, Some(&restored.checkpoint));
    out.str("requested_by", &restored.requested_by);
    out.str("reason", &restored.reason);
    out.text("restored_at", Some(restored.restored_at));
    out.opt_str("tenant", restored.tenant.as_deref());
    out.opt_str("region", restored.region.as_deref());
    out.map("labels", &restored.labels, |o, name, value| o.str(name, value));
}

pub(super) fn write_checkpoint(out: &mut Writer, checkpoint: Option<&CheckpointRef>) {
    let Some(checkpoint) = checkpoint else { return out.null("checkpoint") };
    out.object("checkpoint", |o| {
        o.int("sequence", Some(checkpoint.sequence));
        o.text("effective_time", Some(checkpoint.effective_time));
        write_position(o, &checkpoint.position);
    });
}

pub(crate) fn write_position(out: &mut Writer, position: &Position) {
    out.object("position", |o| {
        o.str("topic", &position.topic);
        o.int("partition", Some(position.partition));
        o.int("offset", Some(position.offset));
    });
}

pub(super) fn read(fields: &Fields<'_>) -> Checked<RestoredSaga> {
    let saga_id = |name| -> Checked<SagaId> { Ok(SagaId::new(fields.required(name, fields.str(name)?)?.as_ref())) };
    let strings = |name| -> Checked<Vec<String>> { Ok(fields.strings(name)?.unwrap_or_default()) };
    let text = |name| -> Checked<String> { fields.required(name, fields.string(name)?) };
    Ok(RestoredSaga {
        saga_id: saga_id("saga_id")?,
        saga_name: text("saga_name")?,
        saga_version: fields.string("saga_version")?,
        mode: read_mode(fields, "mode")?.unwrap_or_default(),
        resume_step: fields.string("resume_step")?,
        resume_step_index: fields.i64("resume_step_index")?,
        resume_steps: strings("resume_steps")?,
        completed_steps: strings("completed_steps")?,
        skipped_steps: strings("skipped_steps")?,
        compensated_steps: strings("compensated_steps")?,
        compensated_since: strings("compensated_since")?,
        attempts: fields.map("attempts", "an object of integers", Raw::i64)?.unwrap_or_default(),
        results: fields.map("results", "an object", |raw| Some(raw.json()))?.unwrap_or_default(),
        context: fields.json_object("context")?,
        force_failure: fields.string("force_failure")?,
        original_saga_id: saga_id("original_saga_id")?,
        root_saga_id: saga_id("root_saga_id")?,
        depth: read_depth(fields)?,
        replay_id: text("replay_id")?,
        request_id: text("request_id")?,
        batch_id: fields.string("batch_id")?,
        checkpoint: fields.required("checkpoint", read_checkpoint(fields)?)?,
        requested_by: text("requested_by")?,
        reason: text("reason")?,
        restored_at: fields.required("restored_at", fields.time("restored_at")?)?,
        tenant: fields.string("tenant")?,
        region: fields.string("region")?,
        labels: fields.labels("labels")?.unwrap_or_default(),
    })
}

pub(super) fn read_mode(fields: &Fields<'_>, name: &str) -> Checked<Option<Mode>> {
    match fields.str(name)?.as_deref() {
        None => Ok(None),
        Some("resume") => Ok(Some(Mode::Resume)),
        Some("compensate") => Ok(Some(Mode::Compensate)),
        Some(_) => Err(fields.wrong(name, "is neither \"resume\" nor \"compensate\"")),
    }
}

pub(super) fn read_depth(fields: &Fields<'_>) -> Checked<u32> {
    let depth = fields.required("depth", fields.u64("depth")?)?;
    u32::try_from(depth).map_err(|_| fields.wrong("depth", "is too large"))
}

pub(super) fn read_checkpoint(fields: &Fields<'_>) -> Checked<Option<CheckpointRef>> {
    let Some(fields) = fields.object("checkpoint")? else { return Ok(None) };
    Ok(Some(CheckpointRef {
        sequence: fields.required("sequence", fields.u64("sequence")?)?,
        effective_time: fields.required("effective_time", fields.time("effective_time")?)?,
        position: fields.required("position", read_position(&fields)?)?,
    }))
}

pub(super) fn read_position(fields: &Fields<'_>) -> Checked<Option<Position>> {
    let Some(fields) = fields.object("position")? else { return Ok(None) };
    let partition = fields.required("partition", fields.i64("partition")?)?;
    Ok(Some(Position {
        topic: fields.required("topic", fields.str("topic")?)?.into(),
        partition: i32::try_from(partition).map_err(|_| fields.wrong("partition", "is too large"))?,
        offset: Offset(fields.required("offset", fields.i64("offset")?)?),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::avro::{SchemaRef, texts};
    use crate::wire::testing;

    #[test]
    fn members_stand_in_the_order_of_the_interface() {
        let restored = testing::one_restored();
        let wanted = concat!(
            r#"{"saga_id":"new","saga_name":"order-processing","saga_version":null,"mode":"resume","resume_step":"charge_payment","#,
            r#""resume_step_index":2,"resume_steps":["charge_payment"],"completed_steps":["reserve_inventory"],"skipped_steps":[],"#,
            r#""compensated_steps":[],"compensated_since":[],"attempts":{"reserve_inventory":1,"charge_payment":1},"#,
            r#""results":{"reserve_inventory":{"id":"r-9"}},"context":{"amount":99.50,"payment_token":"tok_new"},"force_failure":null,"#,
            r#""original_saga_id":"order-1","root_saga_id":"order-1","depth":1,"replay_id":"r","request_id":"0194","batch_id":null,"#,
            r#""checkpoint":{"sequence":4,"effective_time":"2026-01-10T10:00:00.000000Z","position":{"topic":"saga.events.v1","#,
            r#""partition":3,"offset":41}},"requested_by":"ops@example.org","reason":"INC-4412","#,
            r#""restored_at":"2026-01-10T10:00:00.000000Z","tenant":null,"region":null,"labels":{}}"#,
        );
        assert_eq!(encode_json(&restored), wanted);
    }

    proptest! {
        #[test]
        fn a_restored_saga_is_read_as_it_was_written(restored in testing::restored(), avro: bool) {
            let schemas = Schemas::new(true);
            schemas.insert(SchemaRef::Id(SchemaId(9)), texts::RESTORED_SAGA).unwrap();
            let value = encode_restored(&restored, avro.then_some(SchemaId(9))).unwrap();
            prop_assert_eq!(&value, &encode_restored(&restored, avro.then_some(SchemaId(9))).unwrap());
            prop_assert_eq!(decode_restored(Some(&value), &[], &schemas), Ok(restored));
        }
    }
}
