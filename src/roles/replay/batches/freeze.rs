//! Freezes the list of a batch: what it is about is settled once, and kept in the archive.

use uuid::Uuid;

use super::selection::SagaSelection;
use crate::cold::batch_lists::{BatchLists, Manifest, NewList};
use crate::error::{Error, Result};
use crate::saga::batch::{BatchControl, BatchOrder, BatchRetry, BatchRow, BatchSource, MAX_SAGAS};
use crate::saga::batch_progress::{BatchLimits, BatchProgress};
use crate::saga::json::Json;
use crate::saga::position::SagaId;
use crate::saga::request::{Command, LogRecord, ReplayRequest};
use crate::saga::time::Micros;
use crate::wire::batch::write_limits;
use crate::wire::json::Writer;
use crate::wire::request::batch::with_override;

#[derive(Clone)]
pub struct Freezer {
    pub lists: BatchLists,
    pub selection: SagaSelection,
    /// Bytes that the members of one request may have.
    pub max_request_bytes: u64,
}

/// Bytes of a request besides its template and override.
const REQUEST_OVERHEAD: u64 = 4 << 10;

impl Freezer {
    /// The list of a batch, retry or undo that was taken up, frozen now or before. `Refused`: it can have none. `sagas`: with their
    /// newest replays; of a retry those that failed, of an undo those that were published.
    pub async fn list_of(&self, record: &LogRecord, request: &ReplayRequest, sagas: Vec<(SagaId, String)>) -> Result<Manifest> {
        match &request.command {
            Command::Batch(order) => self.of_batch(record, order).await,
            Command::BatchControl { control, batch_id } => match &**control {
                BatchControl::RetryFailed(retry) => {
                    self.of_retry(record, batch_id, retry, sagas.into_iter().map(|(saga, _)| saga).collect()).await
                }
                BatchControl::Undo => self.of_undo(record, sagas).await,
                _ => Err(Error::bug("freeze the list of a command that has none")),
            },
            _ => Err(Error::bug("freeze the list of a command that has none")),
        }
    }

    async fn of_batch(&self, record: &LogRecord, order: &BatchOrder) -> Result<Manifest> {
        if let BatchSource::Frozen { list_id, digest } = &order.source {
            return self.frozen(list_id, digest.as_deref()).await;
        }
        if let Some(manifest) = self.lists.manifest(&record.replay_id).await? {
            return Ok(manifest);
        }
        Ok(self.freeze(&record.replay_id, order, record.accepted_at, &record.requested_by).await?.0)
    }

    /// A list that was frozen before. `Refused`: there is none, or it is another one.
    pub async fn frozen(&self, list_id: &str, digest: Option<&str>) -> Result<Manifest> {
        let refused = |why: String| Error::refused("request_invalid", why);
        let found = match self.lists.manifest(list_id).await {
            Err(Error::Corrupt(why)) => return Err(refused(format!("plan_id: {why}"))),
            found => found?,
        };
        let manifest = found.ok_or_else(|| refused(format!("plan_id: there is no plan {list_id}")))?;
        if let Some(digest) = digest.filter(|digest| *digest != manifest.digest) {
            return Err(refused(format!("plan_id: the plan has digest {}, expected {digest}", manifest.digest)));
        }
        Ok(manifest)
    }

    /// Writes the rows that a batch asks for, without verdicts. `false`: another list of this id was there before, and counts.
    pub async fn freeze(&self, list_id: &str, order: &BatchOrder, at: Micros, requested_by: &str) -> Result<(Manifest, bool)> {
        let mut rows = self.selection.rows(&order.source, order.overrides.as_deref(), at).await?;
        let mut list = self.lists.write(self.new_list(list_id, order, at, requested_by)?);
        loop {
            let page = rows.next(crate::cold::batch_lists::ROWS).await?;
            if page.is_empty() {
                return list.finish().await;
            }
            for row in &page {
                list.add(row).await?;
            }
        }
    }

    pub fn new_list(&self, list_id: &str, order: &BatchOrder, at: Micros, requested_by: &str) -> Result<NewList> {
        let longest = order.overrides.iter().flatten().map(|(_, change)| change.len()).max().unwrap_or_default();
        let bytes = (order.template.len() + longest) as u64 + REQUEST_OVERHEAD;
        if bytes > self.max_request_bytes {
            let most = self.max_request_bytes;
            return Err(Error::refused(
                "too_large",
                format!("batch: a request of it would have up to {bytes} bytes, {most} are taken (limits.max_record)"),
            ));
        }
        let mut limits = Writer::with_capacity(128);
        write_limits(&mut limits, order.limits);
        Ok(NewList {
            list_id: list_id.to_owned(),
            writer: Uuid::new_v4().to_string(),
            template: order.template.clone(),
            needs_override: order.overrides.is_some(),
            created_at: at,
            requested_by: requested_by.to_owned(),
            limits: limits.end(),
            name: order.name.clone(),
        })
    }

    async fn of_undo(&self, record: &LogRecord, sagas: Vec<(SagaId, String)>) -> Result<Manifest> {
        if let Some(manifest) = self.lists.manifest(&record.replay_id).await? {
            return Ok(manifest);
        }
        let order = BatchOrder {
            name: None,
            source: BatchSource::Sagas(Vec::new()),
            template: Json::empty_object(),
            overrides: None,
            limits: BatchLimits::default(),
            schedule: None,
        };
        let mut list = self.lists.write(self.new_list(&record.replay_id, &order, record.accepted_at, &record.requested_by)?);
        for (saga, replay_id) in sagas {
            list.add(&BatchRow { replay_id: Some(replay_id), ..BatchRow::of(saga) }).await?;
        }
        Ok(list.finish().await?.0)
    }

    async fn of_retry(&self, record: &LogRecord, batch_id: &str, retry: &BatchRetry, failed: Vec<SagaId>) -> Result<Manifest> {
        if let Some(manifest) = self.lists.manifest(&record.replay_id).await? {
            return Ok(manifest);
        }
        let list_id = self.list_id_of(batch_id).await?;
        let before = self.frozen(&list_id, None).await?;
        let template = match &retry.override_ {
            Some(change) => {
                with_override(&before.template(), change).map_err(|e| Error::refused("request_invalid", e.to_string()))?
            }
            None => before.template(),
        };
        let overrides = match &retry.overrides {
            Some(overrides) => Some(overrides.clone()),
            None => self.own_overrides(&before, &failed).await?,
        };
        let order = BatchOrder {
            name: before.name.clone(),
            source: BatchSource::Sagas(failed),
            template,
            overrides: overrides.filter(|_| retry.overrides.is_some() || before.needs_override),
            limits: BatchLimits::default(),
            schedule: None,
        };
        Ok(self.freeze(&record.replay_id, &order, record.accepted_at, &record.requested_by).await?.0)
    }

    /// The list of a batch, by its record.
    async fn list_id_of(&self, batch_id: &str) -> Result<String> {
        let records = &self.selection.records;
        let record = records.find(batch_id, None, crate::roles::replay::log_overlay::LogOverlay::default()).await?;
        let progress: Option<BatchProgress> = record.and_then(|record| record.batch_progress.as_deref().cloned());
        let list = progress.and_then(|progress| progress.list);
        list.map(|list| list.list_id).ok_or_else(|| Error::refused("request_invalid", "batch_id: the batch has no list yet"))
    }

    /// Those that the batch gave to the sagas that failed.
    async fn own_overrides(&self, list: &Manifest, failed: &[SagaId]) -> Result<Option<Vec<(SagaId, Json)>>> {
        if !list.needs_override {
            return Ok(None);
        }
        let (mut own, mut from) = (Vec::new(), 0);
        while from < MAX_SAGAS {
            let rows = self.lists.rows(list, from).await?;
            if rows.is_empty() {
                break;
            }
            from += rows.len() as u64;
            let wanted = rows.into_iter().filter(|row| failed.binary_search(&row.saga_id).is_ok());
            own.extend(wanted.filter_map(|row| Some((row.saga_id, row.own_override?))));
        }
        Ok(Some(own))
    }
}
