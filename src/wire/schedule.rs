//! How far a schedule is, beside its log record (docs/data-formats.md, Progress of schedules).

use super::fields::{Checked, FieldError, Fields};
use super::json::{OWN_MAX_DEPTH, Raw, Writer, read_object};
use crate::saga::position::{ChainId, Offset};
use crate::saga::schedule::progress::{ScheduleProgress, StopReason};

/// Header of the log record of a schedule: how far it is, as JSON.
pub const SCHEDULE_PROGRESS: &str = "resaga-schedule-progress";

pub fn progress_json(progress: &ScheduleProgress) -> String {
    let mut out = Writer::with_capacity(512 + progress.definition.len());
    out.json("schedule", Some(&progress.definition));
    out.bool("enabled", progress.enabled);
    out.opt_str("stopped_because", progress.stopped_because.map(StopReason::as_str));
    out.text("since", Some(progress.since));
    out.text("last_due", progress.last_due);
    out.int("runs", Some(progress.runs));
    let scanned: Vec<String> = progress.scanned.iter().map(scanned_json).collect();
    out.raw("scanned", &format!("[{}]", scanned.join(",")));
    out.end()
}

fn scanned_json((chain, next): &(ChainId, Offset)) -> String {
    let mut out = Writer::with_capacity(96);
    out.str("topic", &chain.topic);
    out.int("incarnation", Some(chain.incarnation));
    out.int("partition", Some(chain.partition));
    out.int("next", Some(next.0));
    out.end()
}

/// Reads what [`progress_json`] wrote.
pub fn read_progress(text: &[u8]) -> Checked<ScheduleProgress> {
    let object = read_object(text, OWN_MAX_DEPTH).map_err(|e| FieldError(format!("schedule progress: {e}")))?;
    let fields = Fields::new(object);
    let stopped = fields.string("stopped_because")?;
    let stopped = stopped.map(|text| StopReason::parse(&text).ok_or_else(|| fields.wrong("stopped_because", "is not a reason")));
    let scanned = fields.raw("scanned").and_then(Raw::array).unwrap_or_default();
    Ok(ScheduleProgress {
        definition: fields.required("schedule", fields.json_object("schedule")?)?,
        enabled: fields.bool("enabled")?.unwrap_or(false),
        stopped_because: stopped.transpose()?,
        since: fields.required("since", fields.time("since")?)?,
        last_due: fields.time("last_due")?,
        runs: fields.u64("runs")?.unwrap_or(0),
        scanned: scanned.into_iter().map(|raw| read_scanned(&fields, raw)).collect::<Checked<_>>()?,
    })
}

fn read_scanned(progress: &Fields<'_>, raw: Raw<'_>) -> Checked<(ChainId, Offset)> {
    let wrong = || progress.wrong("scanned", "holds no position in a history");
    let fields = Fields::new(raw.object().ok_or_else(wrong)?);
    let number = |name| -> Checked<i64> { fields.required(name, fields.i64(name)?) };
    let chain = ChainId {
        topic: fields.needed("topic")?.as_str().into(),
        incarnation: u32::try_from(number("incarnation")?).map_err(|_| wrong())?,
        partition: i32::try_from(number("partition")?).map_err(|_| wrong())?,
    };
    Ok((chain, Offset(number("next")?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::json::Json;
    use crate::saga::time::Micros;

    #[test]
    fn progress_is_read_as_it_was_written() {
        let mut progress = ScheduleProgress::new(Json::from_valid(r#"{"name":"n","policy":{}}"#), Micros(5));
        assert_eq!(read_progress(progress_json(&progress).as_bytes()), Ok(progress.clone()));
        let chain = ChainId { topic: "saga.events.v1".into(), incarnation: 2, partition: 7 };
        progress.scanned = vec![(chain, Offset(41))];
        (progress.last_due, progress.runs) = (Some(Micros(60_000_000)), 3);
        for reason in StopReason::ALL {
            let stopped = progress.stopped(reason);
            assert_eq!(read_progress(progress_json(&stopped).as_bytes()), Ok(stopped));
        }
    }
}
