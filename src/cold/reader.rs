//! The readers' side of chains: which segments hold a saga, its entries in them, and scans for searches.
//!
//! Follows chains by key until 404, never lists. Knows nothing of hot.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;

use crate::cold::cache::ByteCache;
use crate::cold::catalog::{CatalogEntry, CatalogFile};
use crate::cold::chain::newest_incarnation_from;
use crate::cold::keys;
use crate::cold::object_store::ObjectStore;
use crate::cold::owner::Owners;
use crate::cold::segment::columns;
use crate::cold::segment::index::{Group, SegmentIndex};
use crate::cold::segment::read::{self, ObjectBytes};
pub use crate::cold::segment::{RowSummary, SegmentRef};
use crate::cold::view::{self, ChainView};
use crate::cpu;
use crate::error::{Error, Result};
use crate::saga::position::{ChainId, EntrySequence, Offset, SagaId};
use crate::saga::stored_entry::StoredEntry;
use crate::saga::time::Micros;

/// How far a chain goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainEnd {
    /// The first offset that is not durable; `None`: no chain.
    pub next: Option<Offset>,
    /// Of the newest segment; `Micros::MIN` without one.
    pub complete_through: Micros,
    /// How many segments the chain has.
    pub segments: u64,
}

/// A segment that holds rows of a saga, or of another one with the same hash: [`ColdReader::load`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaSegment {
    pub segment: SegmentRef,
    /// Of the saga's first row in the segment, or earlier: at or after it one segment answers.
    pub first_effective_time: Micros,
}

/// Row groups nearer to each other than this are read with one request.
const MERGE_GAP: u64 = 256 << 10;
/// Most bytes that a scan asks for at once.
const SCAN_BYTES: u64 = 8 << 20;

/// More rows than this of one saga, or more bytes to find them in, are unpacked on a thread of its own.
const LONG_ROWS: u32 = 1_000;
const LONG_BYTES: usize = 4 << 20;

/// What is known of one chain.
struct ChainProgress {
    /// One follows at a time; the others wait for what it finds.
    following: tokio::sync::Mutex<()>,
    view: RwLock<Arc<ChainView>>,
}

impl ChainProgress {
    fn view(&self) -> Arc<ChainView> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the one that goes further.
    fn learn(&self, view: ChainView) {
        let mut known = self.view.write().unwrap_or_else(PoisonError::into_inner);
        if view.begin.is_some() && view.segments() >= known.segments() {
            *known = Arc::new(view);
        }
    }
}

pub struct ColdReader {
    store: Arc<dyn ObjectStore>,
    /// Whose segments are read.
    owners: Owners,
    /// One for each chain of the topics; filters and trailing indexes stay in memory.
    chains: Mutex<HashMap<ChainId, Arc<ChainProgress>>>,
    incarnations: Mutex<HashMap<(String, i32), u32>>,
    indexes: ByteCache<SegmentIndex>,
    entries: ByteCache<Vec<CatalogEntry>>,
}

impl ColdReader {
    /// `cache_bytes`: of segment indexes and catalog blocks kept in memory, besides the filters and newest indexes.
    pub fn new(store: Arc<dyn ObjectStore>, cache_bytes: u64) -> Self {
        Self {
            store,
            owners: Owners::default(),
            chains: Mutex::default(),
            incarnations: Mutex::default(),
            indexes: ByteCache::new(cache_bytes / 4 * 3),
            entries: ByteCache::new(cache_bytes / 4),
        }
    }

    /// Of an archive of these: what others wrote is refused.
    pub fn of(self, owners: Owners) -> Self {
        Self { owners, ..self }
    }

    /// The highest incarnation of a topic's partition that has a chain; 0 if none has. One probe once known.
    pub async fn newest_incarnation(&self, topic: &str, partition: i32) -> Result<u32> {
        let key = (topic.to_owned(), partition);
        let known = self.incarnations.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        let newest = newest_incarnation_from(&*self.store, topic, partition, known.unwrap_or(0)).await?;
        self.incarnations.lock().unwrap_or_else(PoisonError::into_inner).insert(key, newest);
        Ok(newest)
    }

    fn known(&self, chain: &ChainId) -> Arc<ChainProgress> {
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Arc::new(ChainProgress {
                following: tokio::sync::Mutex::default(),
                view: RwLock::new(Arc::new(ChainView::new(chain.clone()))),
            })
        };
        chains.entry(chain.clone()).or_insert_with(new).clone()
    }

    /// Brings what is known of the chain up to date; one probe when nothing is new.
    pub async fn follow(&self, chain: &ChainId) -> Result<ChainEnd> {
        let known = self.known(chain);
        let _alone = known.following.lock().await;
        let mut view = ChainView::clone(&known.view());
        let before = view.segments();
        let followed = view.follow(&*self.store).await;
        let new = view.trailing.iter().filter(|index| index.info.ordinal >= before);
        new.map(|index| &index.info).try_for_each(|info| self.owners.check_segment(info))?;
        // What was found before a failure is kept.
        let end = end_of(&view);
        known.learn(view);
        followed.map(|()| end)
    }

    /// What the owner of a chain knows of it, so that it need not be asked.
    pub fn learn(&self, view: &ChainView) {
        self.known(&view.chain).learn(view.clone());
    }

    /// May this be the saga's newest entry in the chain? `false`: the newest segments have another one. They are at hand;
    /// of what lies further back nothing is said.
    pub fn may_be_newest(&self, chain: &ChainId, saga: &SagaId, offset: Offset, sequence: EntrySequence) -> bool {
        let view = self.known(chain).view();
        match view.newest_sequences(saga.hash64()) {
            Some(mut newest) => newest.any(|newest| newest == sequence.0),
            None => view.at_hand_from().is_none_or(|first| offset < first),
        }
    }

    /// What `follow` found last, without asking; `None`: nothing yet.
    pub fn known_end(&self, chain: &ChainId) -> Option<ChainEnd> {
        let chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        chains.get(chain).map(|known| end_of(&known.view()))
    }

    /// Every segment up to the known end that may hold rows of the saga, oldest first.
    pub async fn segments_of(&self, chain: &ChainId, saga: &SagaId) -> Result<Vec<SagaSegment>> {
        let (view, hash) = (self.known(chain).view(), saga.hash64());
        let mut found = Vec::new();
        for file in view.files.iter().filter(|file| file.may_contain(hash)) {
            found.extend(self.in_file(file, hash).await?);
        }
        found.extend(view.trailing.iter().filter_map(|index| in_segment(index, hash)));
        Ok(found)
    }

    /// The saga's entries in the newest segment up to the known end whose first row of the saga is at or before `upto`: they
    /// answer "state at `upto`" alone. Empty: there is none. Reads no more of the catalog than it must.
    pub async fn entries_at(&self, chain: &ChainId, saga: &SagaId, upto: Micros) -> Result<Vec<StoredEntry>> {
        let mut below = u64::MAX;
        while let Some(found) = self.segment_at(chain, saga, upto, below).await? {
            let entries = self.load(&found, saga).await?;
            if entries.first().is_some_and(|first| first.entry.effective_time <= upto) {
                return Ok(entries);
            }
            // A hash finds, it does not decide: those rows are another saga's, or its time stood for this one's.
            below = found.segment.ordinal;
        }
        Ok(Vec::new())
    }

    /// May the chain hold entries of the saga, up to the known end? Never a false no; a yes may be meant for another saga.
    pub async fn may_hold(&self, chain: &ChainId, saga: &SagaId) -> Result<bool> {
        Ok(self.segment_at(chain, saga, Micros::MAX, u64::MAX).await?.is_some())
    }

    /// The newest segment below that ordinal whose first row with the saga's hash is at or before `upto`.
    async fn segment_at(&self, chain: &ChainId, saga: &SagaId, upto: Micros, below: u64) -> Result<Option<SagaSegment>> {
        let (view, hash) = (self.known(chain).view(), saga.hash64());
        let fits = |segment: &SagaSegment| segment.first_effective_time <= upto && segment.segment.ordinal < below;
        if let Some(found) = view.trailing.iter().rev().filter_map(|index| in_segment(index, hash)).find(fits) {
            return Ok(Some(found));
        }
        for file in view.files.iter().rev().filter(|file| file.may_contain(hash)) {
            // A file that begins later need not be asked.
            let early = |segment: &SegmentRef| segment.effective.is_some_and(|(min, _)| min <= upto) && segment.ordinal < below;
            if !file.segments.iter().any(early) {
                continue;
            }
            if let Some(found) = self.in_file(file, hash).await?.into_iter().rev().find(fits) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The saga's entries in the segment, oldest first; the first has the whole fold after it (`saga`). Every change of
    /// the context comes as the full text after the entry. Empty: the hash was another saga's.
    pub async fn load(&self, segment: &SagaSegment, saga: &SagaId) -> Result<Vec<StoredEntry>> {
        let index = self.index(&segment.segment).await?;
        for rows in index.find(saga.hash64()) {
            let part = self.part(&segment.segment, index.lookup_bytes(rows)).await?;
            let read = || read::entries(&index, rows, &part);
            let is_long = rows.rows > LONG_ROWS || part.bytes.len() > LONG_BYTES;
            let entries = if is_long { cpu::long(read).await } else { read() };
            let entries = entries.map_err(|e| e.context(load_of(&segment.segment)))?;
            if entries.first().is_some_and(|first| first.entry.event.saga_id == *saga) {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    }

    /// What the segment says about itself (fold settings, leader epoch, topic id, gap).
    #[cfg(any(test, feature = "testing"))]
    pub async fn info(&self, segment: &SegmentRef) -> Result<crate::cold::segment::SegmentInfo> {
        Ok(self.index(segment).await?.info.clone())
    }

    /// The segment up to the known end that covers this offset.
    pub fn segment_over(&self, chain: &ChainId, offset: Offset) -> Option<SegmentRef> {
        self.known(chain).view().all().rev().take_while(|segment| segment.end >= offset).find(|segment| segment.start <= offset)
    }

    /// Segments up to the known end that begin at this offset or after it, oldest first.
    pub fn segments_from(&self, chain: &ChainId, from: Offset) -> Vec<SegmentRef> {
        let view = self.known(chain).view();
        let mut segments: Vec<SegmentRef> = view.all().rev().take_while(|segment| segment.start >= from).collect();
        segments.reverse();
        segments
    }

    /// Where what was recorded after this time begins, or before that: segments are asked for the log's clock, newest first, until
    /// one ends before it.
    pub async fn recorded_after(&self, chain: &ChainId, since: Micros) -> Result<Offset> {
        let view = self.known(chain).view();
        for segment in view.all().rev() {
            let clock = self.index(&segment).await?.info.clock;
            if clock.believed.is_some_and(|believed| believed <= since) {
                return Ok(segment.end.next());
            }
        }
        Ok(view.begin.unwrap_or_default())
    }

    /// Segments up to the known end with rows of effective time since <= t < until, newest first.
    pub async fn overlapping(&self, chain: &ChainId, since: Micros, until: Micros) -> Result<Vec<SegmentRef>> {
        let overlaps = |segment: &SegmentRef| segment.effective.is_some_and(|(min, max)| min < until && max >= since);
        Ok(self.known(chain).view().all().rev().filter(overlaps).collect())
    }

    /// The segment's rows of effective time since <= t < until, by saga id and sequence; reads key columns only.
    pub async fn scan(&self, segment: &SegmentRef, since: Micros, until: Micros) -> Result<Vec<RowSummary>> {
        let mut found = Vec::new();
        self.scan_each(segment, since, until, |row| found.push(row)).await?;
        Ok(found)
    }

    /// As [`ColdReader::scan`], of a few row groups at a time.
    pub async fn scan_each(
        &self,
        segment: &SegmentRef,
        since: Micros,
        until: Micros,
        mut take: impl FnMut(RowSummary) + Send,
    ) -> Result<()> {
        let index = self.index(segment).await?;
        let overlaps = |g: &&Group| g.effective.0 < until.0 && g.effective.1 >= since.0;
        let groups: Vec<&Group> = index.groups.iter().filter(overlaps).collect();
        let mut at = 0;
        while at < groups.len() {
            let mut range = groups[at].bytes_of(columns::KEYS);
            let near = |group: &Group, range: &Range<u64>| {
                let keys = group.bytes_of(columns::KEYS);
                (keys.start - range.end <= MERGE_GAP && keys.end - range.start <= SCAN_BYTES).then_some(keys.end)
            };
            let mut to = at + 1;
            while let Some(end) = groups.get(to).and_then(|group| near(group, &range)) {
                (range.end, to) = (end, to + 1);
            }
            let part = self.part(segment, range).await?;
            for group in &groups[at..to] {
                let rows = read::summaries(group, &part, since, until).map_err(|e| e.context(load_of(segment)))?;
                rows.into_iter().for_each(&mut take);
            }
            at = to;
        }
        Ok(())
    }

    /// Segments of one catalog file with this hash, oldest first. The catalog is a hint: where it is damaged the indexes
    /// of the segments themselves are asked.
    async fn in_file(&self, file: &CatalogFile, hash: u64) -> Result<Vec<SagaSegment>> {
        match self.by_catalog(file, hash).await {
            Err(Error::Corrupt(reason)) => {
                tracing::warn!(file = file.key(), reason, "catalog file is damaged, reading the segments' own indexes");
                let mut found = Vec::new();
                for segment in file.segments.iter().filter(|segment| segment.effective.is_some()) {
                    found.extend(in_segment(&*self.index(segment).await?, hash));
                }
                Ok(found)
            }
            other => other,
        }
    }

    async fn by_catalog(&self, file: &CatalogFile, hash: u64) -> Result<Vec<SagaSegment>> {
        let blocks = file.blocks_of(hash);
        let key = format!("{}#{}-{}", file.key(), blocks.start, blocks.end);
        let entries = match self.entries.get(&key) {
            Some(entries) => entries,
            None => {
                let range = file.bytes_of(blocks.clone());
                let bytes = if range.is_empty() { Bytes::new() } else { self.bytes(&file.key(), range).await?.bytes };
                let entries = Arc::new(file.entries_of(blocks, bytes)?);
                self.entries.put(key, entries.clone(), 128 + entries.len() * size_of::<CatalogEntry>());
                entries
            }
        };
        let from = entries.partition_point(|e| e.hash < hash);
        let mut found: Vec<SagaSegment> = Vec::new();
        for entry in entries[from..].iter().take_while(|e| e.hash == hash) {
            let segment = file.segments.get(usize::from(entry.segment));
            let segment = segment.ok_or_else(|| Error::corrupt("read catalog: an entry names no segment"))?;
            // Two sagas with one hash in one segment: the earlier time, which is the first, stands for both.
            if found.last().is_none_or(|last| last.segment.ordinal != segment.ordinal) {
                let first_effective_time = Micros(entry.first_effective);
                found.push(SagaSegment { segment: segment.clone(), first_effective_time });
            }
        }
        Ok(found)
    }

    async fn index(&self, segment: &SegmentRef) -> Result<Arc<SegmentIndex>> {
        let known = self.known(&segment.chain).view();
        if let Some(first) = known.trailing.first()
            && let Some(at) = segment.ordinal.checked_sub(first.info.ordinal)
            && let Some(index) = known.trailing.get(at as usize)
        {
            return Ok(index.clone());
        }
        let key = keys::segment(&segment.chain, segment.start);
        if let Some(index) = self.indexes.get(&key) {
            return Ok(index);
        }
        let index = Arc::new(view::read_known_segment(&*self.store, segment).await?);
        self.owners.check_segment(&index.info)?;
        self.indexes.put(key, index.clone(), index.weight());
        Ok(index)
    }

    async fn part(&self, segment: &SegmentRef, range: Range<u64>) -> Result<ObjectBytes> {
        self.bytes(&keys::segment(&segment.chain, segment.start), range).await.map_err(|e| e.context(load_of(segment)))
    }

    async fn bytes(&self, key: &str, range: Range<u64>) -> Result<ObjectBytes> {
        let part = self.store.get_range(key, range.start, range.end).await?;
        let part = part.ok_or_else(|| {
            Error::corrupt(format!("object {key} is missing although it was read before: restore it from a backup"))
        })?;
        Ok(ObjectBytes { start: part.start, bytes: part.bytes })
    }
}

fn end_of(view: &ChainView) -> ChainEnd {
    ChainEnd { next: view.next(), complete_through: view.complete_through(), segments: view.segments() }
}

fn in_segment(index: &SegmentIndex, hash: u64) -> Option<SagaSegment> {
    let first = index.find(hash).iter().map(|rows| rows.first_effective).min()?;
    Some(SagaSegment { segment: index.segment_ref(), first_effective_time: Micros(first) })
}

fn load_of(segment: &SegmentRef) -> String {
    format!("read segment {} of {}", segment.start, segment.chain)
}
