//! What batches write: their progress, beside their log records, and the rows of their lists (docs/data-formats.md, Lists of batches).

use super::fields::{Checked, FieldError, Fields};
use super::json::{OWN_MAX_DEPTH, Writer, read_object};
use crate::saga::batch::{BatchRow, Verdict};
use crate::saga::batch_progress::{BatchLimits, BatchProgress, ListRef, MaxFailures, PauseReason};
use crate::saga::position::SagaId;

/// Header of the log record of a batch: how far it is, as JSON.
pub const BATCH_PROGRESS: &str = "resaga-batch-progress";

pub fn progress_json(progress: &BatchProgress) -> String {
    let mut out = Writer::with_capacity(512);
    out.str("batch_id", &progress.batch_id);
    out.opt_str("name", progress.name.as_deref());
    match &progress.list {
        None => out.null("list"),
        Some(list) => out.object("list", |out| {
            out.str("list_id", &list.list_id);
            out.str("digest", &list.digest);
            out.int("total", Some(list.total));
        }),
    }
    out.int("expanded", Some(progress.expanded));
    write_limits(&mut out, progress.limits);
    out.opt_str("paused", progress.paused.map(PauseReason::as_str));
    out.int("failures_before", Some(progress.failures_before));
    out.bool("cancelled", progress.is_cancelled);
    out.end()
}

/// Reads what [`progress_json`] wrote.
pub fn read_progress(text: &[u8]) -> Checked<BatchProgress> {
    let object = read_object(text, OWN_MAX_DEPTH).map_err(|e| FieldError(format!("batch progress: {e}")))?;
    let fields = Fields::new(object);
    let count = |fields: &Fields<'_>, name| -> Checked<u64> { fields.required(name, fields.u64(name)?) };
    let list = fields.object("list")?.map(|list| {
        let text = |name| -> Checked<String> { list.required(name, list.string(name)?) };
        Ok(ListRef { list_id: text("list_id")?, digest: text("digest")?, total: count(&list, "total")? })
    });
    let paused = fields.string("paused")?;
    let paused = paused.map(|text| PauseReason::parse(&text).ok_or_else(|| fields.wrong("paused", "is not a reason")));
    Ok(BatchProgress {
        batch_id: fields.needed("batch_id")?,
        name: fields.string("name")?,
        list: list.transpose()?,
        expanded: count(&fields, "expanded")?,
        limits: read_limits(&fields)?,
        paused: paused.transpose()?,
        failures_before: count(&fields, "failures_before")?,
        is_cancelled: fields.bool("cancelled")?.unwrap_or(false),
    })
}

pub fn write_limits(out: &mut Writer, limits: BatchLimits) {
    out.int("rate_per_second", limits.rate_per_second);
    out.int("max_in_flight", limits.max_in_flight);
    match limits.max_failures {
        None => out.null("max_failures"),
        Some(MaxFailures::Count(most)) => out.int("max_failures", Some(most)),
        Some(MaxFailures::Percent(most)) => out.str("max_failures", &format!("{most}%")),
    }
}

/// Limits alone, as [`write_limits`] wrote them.
pub fn limits_of_json(text: &[u8]) -> Checked<BatchLimits> {
    let object = read_object(text, OWN_MAX_DEPTH).map_err(|e| FieldError(e.to_string()))?;
    read_limits(&Fields::new(object))
}

/// The limits among the members of a batch.
pub fn read_limits(fields: &Fields<'_>) -> Checked<BatchLimits> {
    let rate = fields.raw("rate_per_second").map(|raw| {
        let text = raw.string().map_or_else(|| raw.text().to_owned(), |text| text.into_owned());
        let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
        rate.ok_or_else(|| fields.wrong("rate_per_second", "is not a number above 0"))
    });
    let failures = fields.raw("max_failures").map(|raw| {
        let percent = |text: &str| text.strip_suffix('%')?.trim().parse().ok().filter(|most| (0.0..=100.0).contains(most));
        let most = match raw.string() {
            None => raw.u64().map(MaxFailures::Count),
            Some(text) => percent(&text).map(MaxFailures::Percent),
        };
        most.ok_or_else(|| fields.wrong("max_failures", "is neither a number of replays nor a share such as \"5%\""))
    });
    let in_flight = fields.u64("max_in_flight")?;
    if in_flight == Some(0) {
        return Err(fields.wrong("max_in_flight", "is 0: no replay could go"));
    }
    Ok(BatchLimits { rate_per_second: rate.transpose()?, max_in_flight: in_flight, max_failures: failures.transpose()? })
}

/// One line of a list, without its end.
pub fn row_json(row: &BatchRow) -> String {
    let mut out = Writer::with_capacity(128);
    out.str("saga_id", row.saga_id.as_str());
    if let Some(own) = &row.own_override {
        out.json("override", Some(own));
    }
    if let Some(replay_id) = &row.replay_id {
        out.str("replay_id", replay_id);
    }
    match &row.verdict {
        None => {}
        Some(Verdict::Replay { new_saga_id }) => {
            out.str("verdict", "replay");
            out.str("new_saga_id", new_saga_id.as_str());
        }
        Some(Verdict::Refuse { code, message }) => {
            out.str("verdict", "refuse");
            out.str("code", code);
            out.str("message", message);
        }
    }
    out.end()
}

/// Reads what [`row_json`] wrote.
pub fn read_row(line: &[u8]) -> Checked<BatchRow> {
    let object = read_object(line, OWN_MAX_DEPTH).map_err(|e| FieldError(format!("row of a list: {e}")))?;
    let fields = Fields::new(object);
    let verdict = match fields.str("verdict")?.as_deref() {
        None => None,
        Some("replay") => Some(Verdict::Replay { new_saga_id: SagaId::new(fields.needed("new_saga_id")?) }),
        Some("refuse") => {
            Some(Verdict::Refuse { code: fields.needed("code")?, message: fields.string("message")?.unwrap_or_default() })
        }
        Some(_) => return Err(fields.wrong("verdict", "is neither replay nor refuse")),
    };
    Ok(BatchRow {
        saga_id: SagaId::new(fields.needed("saga_id")?),
        own_override: fields.json("override"),
        verdict,
        replay_id: fields.string("replay_id")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::json::Json;

    #[test]
    fn progress_and_rows_are_read_as_they_were_written() {
        let limits =
            BatchLimits { rate_per_second: Some(2.5), max_in_flight: Some(7), max_failures: Some(MaxFailures::Percent(0.5)) };
        let mut progress = BatchProgress::new("b", Some("gateway \"outage\"".into()), limits);
        assert_eq!(read_progress(progress_json(&progress).as_bytes()), Ok(progress.clone()));
        progress.list = Some(ListRef { list_id: "l".into(), digest: "d".into(), total: 9 });
        (progress.expanded, progress.paused, progress.failures_before) = (4, Some(PauseReason::MaxFailures), 3);
        progress.limits = BatchLimits { max_failures: Some(MaxFailures::Count(0)), ..BatchLimits::default() };
        progress.is_cancelled = true;
        assert_eq!(read_progress(progress_json(&progress).as_bytes()), Ok(progress));

        let saga = SagaId::from("a/\"b\" 🚚");
        let own = Json::from_valid(r#"{"merge":{"token":"t"}}"#);
        let refused = Verdict::Refuse { code: "saga_running".into(), message: "m".into() };
        for row in [
            BatchRow::of(saga.clone()),
            BatchRow { own_override: Some(own), verdict: Some(refused), ..BatchRow::of(saga.clone()) },
            BatchRow { replay_id: Some("r".into()), ..BatchRow::of(saga.clone()) },
            BatchRow { verdict: Some(Verdict::Replay { new_saga_id: "new".into() }), ..BatchRow::of(saga) },
        ] {
            assert_eq!(read_row(row_json(&row).as_bytes()), Ok(row));
        }
    }

    #[test]
    fn limits_that_cannot_be_meant_are_refused() {
        let read = |text: &str| {
            let object = read_object(text.as_bytes(), OWN_MAX_DEPTH).expect("JSON");
            read_limits(&Fields::new(object)).map_err(|wrong| wrong.0)
        };
        assert_eq!(read(r#"{"max_failures":3}"#).expect("read").max_failures, Some(MaxFailures::Count(3)));
        assert_eq!(read(r#"{"max_failures":"5%"}"#).expect("read").max_failures, Some(MaxFailures::Percent(5.0)));
        for wrong in [
            r#"{"max_failures":"5"}"#,
            r#"{"max_failures":"101%"}"#,
            r#"{"max_failures":-1}"#,
            r#"{"rate_per_second":0}"#,
            r#"{"rate_per_second":"fast"}"#,
            r#"{"rate_per_second":true}"#,
            r#"{"max_in_flight":0}"#,
        ] {
            let name = wrong.split('"').nth(1).expect("a name");
            assert!(read(wrong).expect_err(wrong).contains(name), "{wrong}");
        }
    }
}
