//! The lists of batches: which sagas one is about, frozen before the first is replayed. `batches/<list id>/manifest.json` and, beside
//! it, the rows in objects of a thousand: one JSON object a line. Nothing of it is ever changed.
//!
//! Whoever writes a list has a folder of its own for the rows; of several writers of one list the one whose manifest is there first
//! counts. The digest is of all that a run depends on: the members of the requests, and every row.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::keys;
use super::object_store::{ObjectStore, Put};
use crate::error::{Error, Result};
use crate::saga::batch::{BatchRow, MAX_SAGAS, Verdict};
use crate::saga::batch_progress::{BatchLimits, ListRef};
use crate::saga::effects::Effect;
use crate::saga::json::Json;
use crate::saga::time::Micros;
use crate::wire::batch::{limits_of_json, read_row, row_json};
use crate::wire::request::hash::sha256_hex;

/// Rows of one object.
pub const ROWS: usize = 1_000;
/// Bytes of one object; a row with a large override makes the object end early.
const MAX_BYTES: usize = 8 << 20;
/// Longest manifest that is read: 1,000,000 sagas have less than 200 KB.
const MAX_MANIFEST: u64 = 4 << 20;
/// Objects written at the same time.
const WRITES: usize = 4;
const VERSION: u32 = 1;

/// What there is to know of a list besides its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    pub list_id: String,
    pub digest: String,
    pub total: u64,
    /// The members of every request, as JSON text.
    pub template: String,
    pub needs_override: bool,
    /// Microseconds since 1970.
    pub created_at: i64,
    pub requested_by: String,
    /// Of a plan: how many sagas have which verdict or code.
    pub verdicts: Vec<(String, u64)>,
    /// Of a plan: declared effects of its replays, and of how many sagas each.
    #[serde(default)]
    pub effects: Vec<EffectCount>,
    /// Limits of the batch as JSON text, which its plan was asked with.
    pub limits: String,
    pub name: Option<String>,
    folder: String,
    objects: Vec<RowObject>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectCount {
    pub step: String,
    pub effect: String,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RowObject {
    rows: u64,
    sha256: String,
}

impl Manifest {
    pub fn list_ref(&self) -> ListRef {
        ListRef { list_id: self.list_id.clone(), digest: self.digest.clone(), total: self.total }
    }

    pub fn template(&self) -> Json {
        Json::from_valid(self.template.as_str())
    }

    /// Those of the plan, where the batch has none of its own.
    pub fn limits_for(&self, own: BatchLimits) -> Result<BatchLimits> {
        let corrupt = |e| Error::corrupt(format!("read list of a batch {}: limits: {e}", self.list_id));
        let planned = limits_of_json(self.limits.as_bytes()).map_err(corrupt)?;
        Ok(BatchLimits {
            rate_per_second: own.rate_per_second.or(planned.rate_per_second),
            max_in_flight: own.max_in_flight.or(planned.max_in_flight),
            max_failures: own.max_failures.or(planned.max_failures),
        })
    }

    fn digest_of(&self) -> String {
        let mut text = format!("{}\n{}\n", self.template, self.needs_override);
        for object in &self.objects {
            text.push_str(&object.sha256);
            text.push('\n');
        }
        sha256_hex(text.as_bytes())
    }

    /// The object with the row of this number, and the number of its first row.
    fn object_of(&self, row: u64) -> Option<(usize, u64)> {
        let mut first = 0;
        for (at, object) in self.objects.iter().enumerate() {
            if row < first + object.rows {
                return Some((at, first));
            }
            first += object.rows;
        }
        None
    }
}

/// What a list is made with.
#[derive(Debug, Clone)]
pub struct NewList {
    pub list_id: String,
    /// A name that no other writer of this list has.
    pub writer: String,
    pub template: Json,
    pub needs_override: bool,
    pub created_at: Micros,
    pub requested_by: String,
    pub limits: String,
    pub name: Option<String>,
}

#[derive(Clone)]
pub struct BatchLists {
    objects: Arc<dyn ObjectStore>,
}

/// Takes the rows of a list one after the other.
pub struct ListWriter {
    lists: BatchLists,
    new: NewList,
    lines: Vec<u8>,
    rows: u64,
    total: u64,
    full: Vec<Bytes>,
    written: Vec<RowObject>,
    counts: Vec<(String, u64)>,
    effects: Vec<EffectCount>,
}

impl BatchLists {
    pub fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects }
    }

    pub fn write(&self, new: NewList) -> ListWriter {
        let (lists, counts) = (self.clone(), Vec::new());
        let (full, written, effects) = (Vec::new(), Vec::new(), Vec::new());
        ListWriter { lists, new, lines: Vec::new(), rows: 0, total: 0, full, written, counts, effects }
    }

    /// `None`: there is no list of this id.
    pub async fn manifest(&self, list_id: &str) -> Result<Option<Manifest>> {
        let key = keys::batch_manifest(list_id)?;
        let Some(part) = self.objects.get_suffix(&key, MAX_MANIFEST).await? else { return Ok(None) };
        let corrupt = |why: String| Error::corrupt(format!("read list of a batch, object {key}: {why}"));
        let manifest: Manifest =
            serde_json::from_slice(&part.bytes).map_err(|e| corrupt(format!("not the JSON of a manifest: {e}")))?;
        if manifest.version != VERSION {
            return Err(corrupt(format!("version {}, this build reads version {VERSION}", manifest.version)));
        }
        if manifest.digest != manifest.digest_of() {
            return Err(corrupt(format!("its digest is {}, it says {}", manifest.digest_of(), manifest.digest)));
        }
        Ok(Some(manifest))
    }

    /// Rows from this one on: the rest of the object that has it. Empty: there are no more. `Corrupt`: they are gone, or are not those
    /// that were written.
    pub async fn rows(&self, manifest: &Manifest, from: u64) -> Result<VecDeque<BatchRow>> {
        let Some((at, first)) = manifest.object_of(from) else { return Ok(VecDeque::new()) };
        let key = keys::batch_rows(&manifest.list_id, &manifest.folder, at);
        let corrupt = |why: String| Error::corrupt(format!("read list of a batch, object {key}: {why}"));
        let part = self.objects.get_suffix(&key, 2 * MAX_BYTES as u64).await?;
        let part = part.ok_or_else(|| corrupt("it is not there".to_owned()))?;
        let (expected, found) = (&manifest.objects[at].sha256, sha256_hex(&part.bytes));
        if *expected != found {
            return Err(corrupt(format!("its SHA-256 is {found}, expected {expected}")));
        }
        let lines = part.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let skip = usize::try_from(from - first).unwrap_or(usize::MAX);
        lines.skip(skip).map(|line| read_row(line).map_err(|e| corrupt(e.to_string()))).collect()
    }
}

impl ListWriter {
    /// `Refused`: there are more than a batch may have.
    pub async fn add(&mut self, row: &BatchRow) -> Result<()> {
        if self.total == MAX_SAGAS {
            return Err(Error::refused("request_invalid", format!("the batch has more than {MAX_SAGAS} sagas: narrow it")));
        }
        self.lines.extend_from_slice(row_json(row).as_bytes());
        self.lines.push(b'\n');
        (self.rows, self.total) = (self.rows + 1, self.total + 1);
        if let Some(verdict) = &row.verdict {
            let name = match verdict {
                Verdict::Replay { .. } => "replay",
                Verdict::Refuse { code, .. } => code,
            };
            match self.counts.iter_mut().find(|(known, _)| known == name) {
                Some((_, count)) => *count += 1,
                None => self.counts.push((name.to_owned(), 1)),
            }
        }
        if self.rows as usize == ROWS || self.lines.len() >= MAX_BYTES {
            self.end_object();
        }
        if self.full.len() >= WRITES { self.flush().await } else { Ok(()) }
    }

    /// Of the replay of one saga.
    pub fn count_effects(&mut self, effects: &[Effect]) {
        for Effect { step, effect } in effects {
            match self.effects.iter_mut().find(|known| known.step == *step && known.effect == *effect) {
                Some(known) => known.count += 1,
                None => self.effects.push(EffectCount { step: step.clone(), effect: effect.clone(), count: 1 }),
            }
        }
    }

    fn end_object(&mut self) {
        if self.rows > 0 {
            let bytes = Bytes::from(std::mem::take(&mut self.lines));
            self.written.push(RowObject { rows: std::mem::take(&mut self.rows), sha256: sha256_hex(&bytes) });
            self.full.push(bytes);
        }
    }

    async fn flush(&mut self) -> Result<()> {
        let first = self.written.len() - self.full.len();
        let (lists, new) = (&self.lists, &self.new);
        let put = |(at, bytes): (usize, Bytes)| async move {
            let key = keys::batch_rows(&new.list_id, &new.writer, at);
            lists.objects.create(&key, bytes, &Vec::new()).await.map(drop)
        };
        let writes: Vec<_> = std::mem::take(&mut self.full).into_iter().enumerate().map(|(n, b)| put((first + n, b))).collect();
        stream::iter(writes).buffer_unordered(WRITES).try_collect().await
    }

    /// The list as it counts from now on: this one, or that of a writer that was faster; and whether it has what was added here.
    pub async fn finish(mut self) -> Result<(Manifest, bool)> {
        self.end_object();
        self.flush().await?;
        let Self { lists, new, written, total, counts, effects, .. } = self;
        let mut manifest = Manifest {
            version: VERSION,
            list_id: new.list_id,
            digest: String::new(),
            total,
            template: new.template.as_str().to_owned(),
            needs_override: new.needs_override,
            created_at: new.created_at.0,
            requested_by: new.requested_by,
            verdicts: counts,
            effects,
            limits: new.limits,
            name: new.name,
            folder: new.writer,
            objects: written,
        };
        manifest.digest = manifest.digest_of();
        let text = serde_json::to_vec(&manifest).map_err(|e| Error::bug(format!("write manifest of a list: {e}")))?;
        let key = keys::batch_manifest(&manifest.list_id)?;
        match lists.objects.create(&key, text.into(), &Vec::new()).await? {
            Put::Created => Ok((manifest, true)),
            Put::Exists => {
                let there = lists.manifest(&manifest.list_id).await?;
                let gone = || Error::unavailable(format!("read list of a batch: object {key} was there and is gone"));
                let there = there.ok_or_else(gone)?;
                let is_same = there.digest == manifest.digest;
                Ok((there, is_same))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cold::directory::Directory;

    fn lists(directory: &tempfile::TempDir) -> BatchLists {
        BatchLists { objects: Arc::new(Directory::open(directory.path()).expect("store")) }
    }

    fn new(writer: &str) -> NewList {
        NewList {
            list_id: "0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10".into(),
            writer: writer.into(),
            template: Json::from_valid(r#"{"from":{"start":true}}"#),
            needs_override: false,
            created_at: Micros(5),
            requested_by: "ops".into(),
            limits: "{}".into(),
            name: None,
        }
    }

    fn row(n: u64) -> BatchRow {
        let verdict = match n % 3 {
            0 => None,
            1 => Some(Verdict::Replay { new_saga_id: format!("new-{n}").as_str().into() }),
            _ => Some(Verdict::Refuse { code: "saga_running".into(), message: "m".into() }),
        };
        BatchRow { verdict, ..BatchRow::of(format!("order-{n}").as_str().into()) }
    }

    async fn write(lists: &BatchLists, writer: &str, rows: std::ops::Range<u64>) -> Manifest {
        let mut list = lists.write(new(writer));
        for n in rows {
            list.add(&row(n)).await.expect("added");
            list.count_effects(&[Effect { step: "charge".into(), effect: "charges".into() }]);
        }
        list.finish().await.expect("finished").0
    }

    #[tokio::test]
    async fn a_list_is_read_from_any_row_on_and_of_two_writers_the_first_counts() {
        let directory = tempfile::tempdir().expect("directory");
        let lists = lists(&directory);
        let total = 2 * ROWS as u64 + 5;
        let manifest = write(&lists, "a", 0..total).await;
        assert_eq!(lists.manifest(&manifest.list_id).await, Ok(Some(manifest.clone())));
        assert_eq!(write(&lists, "b", 7..9).await, manifest, "another writer's list is not taken");
        for from in [0, 1, 999, 1_000, 1_500, 2_004, total] {
            let mut read = Vec::new();
            loop {
                let rows = lists.rows(&manifest, from + read.len() as u64).await.expect("rows");
                if rows.is_empty() {
                    break;
                }
                read.extend(rows);
            }
            assert_eq!(read, (from..total).map(row).collect::<Vec<_>>(), "{from}");
        }
        let third = total / 3;
        assert_eq!(manifest.verdicts, [("replay".to_owned(), third), ("saga_running".to_owned(), third)]);
        assert_eq!(manifest.effects, [EffectCount { step: "charge".into(), effect: "charges".into(), count: total }]);
        let text = serde_json::to_string(&Manifest { effects: Vec::new(), ..manifest.clone() }).expect("JSON");
        let before = text.replace(r#""effects":[],"#, "");
        assert!(before.len() < text.len());
        let read: Manifest = serde_json::from_str(&before).expect("one that was written before there were effects");
        assert_eq!(read.digest, manifest.digest);
    }

    #[tokio::test]
    async fn a_list_that_was_changed_or_lost_is_not_read() {
        let directory = tempfile::tempdir().expect("directory");
        let lists = lists(&directory);
        let manifest = write(&lists, "a", 0..3).await;
        let folder = directory.path().join("data").join("batches").join(&manifest.list_id);
        let rows = folder.join("a").join("000000.jsonl");
        let text = std::fs::read_to_string(&rows).expect("rows");
        std::fs::write(&rows, text.replace("order-1", "order-9")).expect("changed");
        let changed = lists.rows(&manifest, 0).await.expect_err("changed").to_string();
        assert!(changed.contains("SHA-256") && changed.contains("000000.jsonl"), "{changed}");
        lists.objects.delete(&keys::batch_rows(&manifest.list_id, "a", 0)).await.expect("deleted");
        assert!(lists.rows(&manifest, 0).await.expect_err("gone").to_string().contains("not there"));
        let text = std::fs::read_to_string(folder.join("manifest.json")).expect("manifest");
        std::fs::write(folder.join("manifest.json"), text.replace("start", "latest")).expect("changed");
        assert!(lists.manifest(&manifest.list_id).await.expect_err("changed").to_string().contains("digest"));
    }
}
