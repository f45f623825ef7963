//! The owner's side of a chain: find its end, append the next segment, never overwrite (docs/data-formats.md).
//!
//! Two owners of one chain are harmless: whose object is created first wins, the other learns what is stored.

use std::sync::Arc;

use bytes::Bytes;

use crate::cold::object_store::{Metadata, ObjectStore, Put};
use crate::cold::segment::index::SegmentIndex;
use crate::cold::segment::write::{BuiltSegment, build};
use crate::cold::segment::{NewSegment, SegmentInfo};
use crate::cold::view::{self, ChainView};
use crate::cold::{keys, recorder};
use crate::error::{Error, Result};
use crate::saga::position::{ChainId, Offset, SagaId};

/// What became of an append. Either way the chain goes on at [`ChainWriter::next`], and [`ChainWriter::newest`] is the
/// segment stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// Ours is stored (also when only the answer to an earlier try was lost). Bytes of the object.
    Created { bytes: u64 },
    /// Another segment was there: it wins. Fold on through the offsets it covers and write nothing for them.
    Exists {
        stored: Box<SegmentInfo>,
        /// Has it the entries that ours has of the offsets that it covers? `None`: it covers more than ours.
        agrees: Option<bool>,
    },
}

/// Appends to one chain.
pub struct ChainWriter {
    store: Arc<dyn ObjectStore>,
    view: ChainView,
    newest: Option<SegmentInfo>,
}

impl ChainWriter {
    /// Finds the end of the chain, and writes what is missing in its catalog. `start_if_empty`: where a chain without
    /// segments begins (the partition's earliest offset); the first owner's choice is kept for good, so look at
    /// [`Self::next`]. `None`: 0, and not kept before the first append.
    pub async fn open(store: Arc<dyn ObjectStore>, chain: ChainId, start_if_empty: Option<Offset>) -> Result<Self> {
        let mut view = ChainView::new(chain);
        view.follow(&*store).await?;
        view.recall(&*store).await?;
        let newest = view.newest_index().map(|index| index.info.clone());
        let mut writer = Self { store, view, newest };
        if let Some(start) = start_if_empty {
            writer.begin(start).await?;
        }
        writer.record().await;
        Ok(writer)
    }

    /// What it knows of the chain, to its end.
    pub fn view(&self) -> &ChainView {
        &self.view
    }

    pub fn chain(&self) -> &ChainId {
        &self.view.chain
    }

    /// The first offset that is not durable: where the next segment must start.
    pub fn next(&self) -> Offset {
        self.view.next().unwrap_or_default()
    }

    /// The newest segment; `None` in an empty chain.
    pub fn newest(&self) -> Option<&SegmentInfo> {
        self.newest.as_ref()
    }

    /// May the chain hold entries of this saga? Never a false no; <= 0.1 % false yes.
    pub fn may_contain(&self, saga: &SagaId) -> bool {
        self.view.may_contain(saga.hash64())
    }

    /// Appends a segment at [`Self::next`]. After `Unavailable` nothing or everything was done: append again, the same
    /// rows or more.
    pub async fn append(&mut self, segment: &NewSegment) -> Result<Appended> {
        if segment.start != self.next() {
            return Err(Error::bug(format!("append to {}: {} is not its end {}", self.chain(), segment.start, self.next())));
        }
        self.begin(segment.start).await?;
        if segment.start != self.next() {
            return Err(Error::unavailable(format!("append to {}: another owner began it; open it again", self.chain())));
        }
        let ordinal = self.view.segments();
        let BuiltSegment { bytes, index } = self.build(ordinal, segment.clone()).await?;
        let appended = match self.put(bytes, index).await? {
            Appended::Exists { stored, agrees: None } if stored.end < segment.end => {
                let part = segment.through(stored.end);
                let ours = self.build(ordinal, part).await?.index.info.entries_hash;
                Appended::Exists { agrees: Some(ours == stored.entries_hash), stored }
            }
            other => other,
        };
        self.record().await;
        Ok(appended)
    }

    async fn build(&self, ordinal: u64, segment: NewSegment) -> Result<BuiltSegment> {
        let chain = self.chain().clone();
        let built = tokio::task::spawn_blocking(move || build(&chain, ordinal, &segment)).await;
        built.map_err(|e| Error::bug(format!("build segment: {e}")))?
    }

    async fn put(&mut self, bytes: Bytes, index: SegmentIndex) -> Result<Appended> {
        let key = keys::segment(self.chain(), index.info.start);
        let created = Appended::Created { bytes: bytes.len() as u64 };
        if self.store.create(&key, bytes, &metadata(&index)).await? == Put::Created {
            self.push(index)?;
            return Ok(created);
        }
        let stored = view::read_segment(&*self.store, self.chain(), index.info.start).await?;
        let stored = stored.ok_or_else(|| {
            Error::unavailable(format!(
                "append to {}: the store said that object {key} exists, and then that it does not",
                self.chain()
            ))
        })?;
        let info = Box::new(stored.info.clone());
        let (same_end, same_entries) = (info.end == index.info.end, info.entries_hash == index.info.entries_hash);
        self.push(stored)?;
        match same_end {
            true if same_entries => Ok(created),
            _ => Ok(Appended::Exists { stored: info, agrees: same_end.then_some(false) }),
        }
    }

    fn push(&mut self, index: SegmentIndex) -> Result<()> {
        self.newest = Some(index.info.clone());
        self.view.push(Arc::new(index))
    }

    /// Makes sure that the chain has a beginning, ours or another owner's.
    async fn begin(&mut self, start: Offset) -> Result<()> {
        if self.view.begin.is_some() {
            return Ok(());
        }
        let text = view::begin_text(start)?;
        let put = self.store.create(&keys::chain_start(self.chain()), text.into(), &Vec::new()).await?;
        if put == Put::Created {
            self.view.begin = Some(start);
            return Ok(());
        }
        self.view.follow(&*self.store).await?;
        self.view.recall(&*self.store).await?;
        self.newest = self.view.newest_index().map(|index| index.info.clone());
        Ok(())
    }

    /// The catalog is a hint: what cannot be written now is written after the next segment, or by the next owner.
    async fn record(&mut self) {
        if let Err(e) = recorder::record(&*self.store, &mut self.view).await {
            tracing::warn!(chain = %self.view.chain, error = %e, "catalog is not up to date");
        }
    }
}

/// What HEAD tells of a segment.
fn metadata(index: &SegmentIndex) -> Metadata {
    let pair = |name: &str, value: String| (name.to_owned(), value);
    vec![
        pair("complete-through", index.info.complete_through.0.to_string()),
        pair("end", index.info.end.to_string()),
        pair("entries-hash", format!("{:032x}", index.info.entries_hash)),
        pair("ordinal", index.info.ordinal.to_string()),
        pair("tail", index.tail_len.to_string()),
    ]
}

/// Was anything made durable in this chain, or given up before it? That it was begun, at the first offset, says nothing.
pub async fn is_written(store: &dyn ObjectStore, chain: &ChainId) -> Result<bool> {
    match view::read_begin(store, chain).await? {
        None => Ok(false),
        Some(Offset(0)) => Ok(store.head(&keys::segment(chain, Offset(0))).await?.is_some()),
        Some(_) => Ok(true),
    }
}

/// The highest incarnation of a topic's partition that has a chain; 0 if none has.
pub async fn newest_incarnation(store: &dyn ObjectStore, topic: &str, partition: i32) -> Result<u32> {
    newest_incarnation_from(store, topic, partition, 0).await
}

/// The same, from one that is known.
pub async fn newest_incarnation_from(store: &dyn ObjectStore, topic: &str, partition: i32, known: u32) -> Result<u32> {
    let mut incarnation = known;
    loop {
        let next = ChainId { topic: topic.into(), incarnation: incarnation + 1, partition };
        if store.head(&keys::chain_start(&next)).await?.is_none() {
            return Ok(incarnation);
        }
        incarnation += 1;
    }
}
