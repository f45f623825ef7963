//! What one process knows of a chain: catalog files from its beginning, then segment indexes to its end.
//!
//! Grows by following the chain by key until 404. The same for owner and readers; writes nothing.

use std::sync::Arc;

use crate::cold::catalog::{CatalogFile, FAN, TOP_LEVEL, span};
use crate::cold::keys;
use crate::cold::object_store::{ObjectPart, ObjectStore};
use crate::cold::segment::SegmentRef;
use crate::cold::segment::index::SegmentIndex;
use crate::error::{Error, Result};
use crate::saga::position::{ChainId, Offset};
use crate::saga::time::Micros;

/// First guess at the length of a tail; a longer one costs a second request.
const TAIL_GUESS: u64 = 128 << 10;
/// New segments in one go after which catalog files are tried first again.
const FAR_BEHIND: usize = 4;
/// The newest segments whose indexes the owner keeps in memory: they have sequences, which catalog files do not.
const NEWEST: usize = 8;

#[derive(Debug, Clone)]
pub struct ChainView {
    pub chain: ChainId,
    /// First offset of the chain, once it is known.
    pub begin: Option<Offset>,
    /// Side by side, oldest first.
    pub files: Vec<Arc<CatalogFile>>,
    /// The segments after them, oldest first.
    pub trailing: Vec<Arc<SegmentIndex>>,
    /// The last of those that the files stand for, next to the first of `trailing`; at most [`NEWEST`].
    recent: Vec<Arc<SegmentIndex>>,
    followed: bool,
}

impl ChainView {
    pub fn new(chain: ChainId) -> Self {
        Self { chain, begin: None, files: Vec::new(), trailing: Vec::new(), recent: Vec::new(), followed: false }
    }

    fn covered(&self) -> u64 {
        self.files.last().map_or(0, |file| (file.number + 1) * span(file.level))
    }

    pub fn segments(&self) -> u64 {
        self.covered() + self.trailing.len() as u64
    }

    /// The newest segment.
    pub fn newest(&self) -> Option<SegmentRef> {
        match self.trailing.last() {
            Some(index) => Some(index.segment_ref()),
            None => self.files.last().and_then(|file| file.segments.last()).cloned(),
        }
    }

    /// The first offset not in the chain; `None`: no chain.
    pub fn next(&self) -> Option<Offset> {
        self.newest().map(|newest| newest.end.next()).or(self.begin)
    }

    pub fn complete_through(&self) -> Micros {
        self.newest().map_or(Micros::MIN, |newest| newest.complete_through)
    }

    /// Never a false no.
    pub fn may_contain(&self, hash: u64) -> bool {
        self.trailing.iter().any(|index| !index.find(hash).is_empty()) || self.files.iter().any(|file| file.may_contain(hash))
    }

    /// The newest segments of which more is known than the catalog tells, oldest first.
    fn at_hand(&self) -> impl DoubleEndedIterator<Item = &Arc<SegmentIndex>> {
        self.recent.iter().chain(&self.trailing)
    }

    /// The newest segment's, once it was recalled.
    pub fn newest_index(&self) -> Option<&Arc<SegmentIndex>> {
        self.at_hand().next_back()
    }

    /// The first offset that these segments tell of.
    pub fn at_hand_from(&self) -> Option<Offset> {
        self.at_hand().next().map(|first| first.info.start)
    }

    /// The sequence of the newest entry under this hash (of each saga that has it), as far as the newest segments tell.
    pub fn newest_sequences(&self, hash: u64) -> Option<impl Iterator<Item = u64>> {
        let rows = self.at_hand().rev().map(|index| index.find(hash)).find(|rows| !rows.is_empty())?;
        Some(rows.iter().map(|rows| rows.last_sequence))
    }

    /// Of entries (saga hash, sequence; by hash) those that the newest segments may have already, since they have a later
    /// one under the hash: its place, and the segment.
    pub fn not_above(&self, entries: &[(u64, u64)]) -> Vec<(usize, SegmentRef)> {
        let mut found = Vec::new();
        for index in self.at_hand() {
            let mut stored = index.sagas.iter().peekable();
            for (at, (hash, sequence)) in entries.iter().enumerate() {
                while stored.next_if(|rows| rows.hash < *hash).is_some() {}
                let same = stored.clone().take_while(|rows| rows.hash == *hash);
                if same.into_iter().any(|rows| rows.last_sequence >= *sequence) {
                    found.push((at, index.segment_ref()));
                }
            }
        }
        found
    }

    /// Every segment, oldest first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = SegmentRef> {
        let covered = self.files.iter().flat_map(|file| file.segments.iter().cloned());
        covered.chain(self.trailing.iter().map(|index| index.segment_ref()))
    }

    /// Brings the view up to date; one request when nothing is new.
    pub async fn follow(&mut self, store: &dyn ObjectStore) -> Result<()> {
        if self.begin.is_none() {
            self.begin = read_begin(store, &self.chain).await?;
        }
        let mut found = 0;
        while let Some(next) = self.next() {
            let look_in_catalog = (!self.followed || found >= FAR_BEHIND) && self.trailing.is_empty();
            if look_in_catalog && self.follow_catalog(store).await? {
                continue;
            }
            let Some(index) = read_segment(store, &self.chain, next).await? else {
                self.followed = true;
                break;
            };
            self.push(Arc::new(index))?;
            found += 1;
            if self.trailing.len().is_multiple_of(FAN) {
                self.replace_trailing(store).await?;
            }
        }
        Ok(())
    }

    /// Reads the newest segments' indexes as far as they are not at hand.
    pub async fn recall(&mut self, store: &dyn ObjectStore) -> Result<()> {
        let missing = NEWEST.saturating_sub(self.trailing.len());
        let segments: Vec<SegmentRef> = self.all().rev().skip(self.trailing.len()).take(missing).collect();
        let read = segments.iter().rev().map(|segment| read_known_segment(store, segment));
        self.recent = futures::future::try_join_all(read).await?.into_iter().map(Arc::new).collect();
        Ok(())
    }

    /// Puts a stored segment at the end.
    pub fn push(&mut self, index: Arc<SegmentIndex>) -> Result<()> {
        let fits = index.info.chain == self.chain
            && Some(index.info.start) == self.next()
            && index.info.ordinal == self.segments()
            && index.info.end >= index.info.start;
        if !fits {
            let found = &index.info;
            return Err(Error::corrupt(format!(
                "follow chain {}: found segment {} with offsets {}..={} of {}, expected segment {} from offset {}",
                self.chain,
                found.ordinal,
                found.start,
                found.end,
                found.chain,
                self.segments(),
                self.next().unwrap_or_default()
            )));
        }
        self.trailing.push(index);
        Ok(())
    }

    /// Adds the largest catalog file that begins here, if any.
    async fn follow_catalog(&mut self, store: &dyn ObjectStore) -> Result<bool> {
        let at = self.segments();
        for level in (1..=TOP_LEVEL).rev().filter(|level| at.is_multiple_of(span(*level))) {
            if let Some(file) = read_catalog(store, &self.chain, level, at / span(level)).await?
                && Some(file.segments[0].start) == self.next()
            {
                self.files.push(Arc::new(file));
                self.recent.clear();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Catalog files in place of segments, and larger ones in place of smaller, where the owner has written them.
    async fn replace_trailing(&mut self, store: &dyn ObjectStore) -> Result<()> {
        let mut replaced = false;
        while let Some(number) = self.trailing_number() {
            let Some(file) = read_catalog(store, &self.chain, 1, number).await? else { break };
            self.replace_segments(file);
            replaced = true;
        }
        for level in 2..=TOP_LEVEL {
            let Some(at) = self.runs(level).last().copied().filter(|_| replaced) else { break };
            let number = self.files[at].number / FAN as u64;
            let Some(file) = read_catalog(store, &self.chain, level, number).await? else { break };
            self.replace_files(at, file);
        }
        Ok(())
    }

    /// The number of the level-1 file that the oldest trailing segments belong in, if they are enough for it.
    pub fn trailing_number(&self) -> Option<u64> {
        (self.trailing.len() >= FAN).then(|| self.covered() / FAN as u64)
    }

    pub fn replace_segments(&mut self, file: CatalogFile) {
        self.recent = self.trailing.drain(..FAN).skip(FAN - NEWEST).collect();
        self.files.push(Arc::new(file));
    }

    /// Where files begin that one file of this level could stand for.
    pub fn runs(&self, level: u8) -> Vec<usize> {
        let starts = |at: &usize| {
            let run = self.files.get(*at..*at + FAN);
            run.is_some_and(|run| run.iter().all(|f| f.level + 1 == level) && run[0].number.is_multiple_of(FAN as u64))
        };
        (0..self.files.len()).filter(starts).collect()
    }

    pub fn replace_files(&mut self, at: usize, file: CatalogFile) {
        self.files.splice(at..at + FAN, [Arc::new(file)]);
    }
}

impl SegmentIndex {
    pub fn segment_ref(&self) -> SegmentRef {
        SegmentRef {
            chain: self.info.chain.clone(),
            ordinal: self.info.ordinal,
            start: self.info.start,
            end: self.info.end,
            tail_len: self.tail_len,
            effective: self.info.effective,
            complete_through: self.info.complete_through,
        }
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct ChainStartText {
    start: i64,
}

pub fn begin_text(start: Offset) -> Result<Vec<u8>> {
    serde_json::to_vec(&ChainStartText { start: start.0 }).map_err(|e| Error::bug(format!("write chain start: {e}")))
}

/// Where the chain begins; `None`: there is none.
pub async fn read_begin(store: &dyn ObjectStore, chain: &ChainId) -> Result<Option<Offset>> {
    let Some(part) = store.get_suffix(&keys::chain_start(chain), TAIL_GUESS).await? else { return Ok(None) };
    let begin: ChainStartText = serde_json::from_slice(&part.bytes)
        .map_err(|e| Error::corrupt(format!("read start of chain {chain}: expected JSON with `start`: {e}")))?;
    Ok(Some(Offset(begin.start)))
}

/// The index of the segment that starts here.
pub async fn read_segment(store: &dyn ObjectStore, chain: &ChainId, start: Offset) -> Result<Option<SegmentIndex>> {
    let read = read_end(store, &keys::segment(chain, start), TAIL_GUESS, SegmentIndex::read).await;
    read.map_err(|e| e.context(format!("read segment {start} of {chain}")))
}

/// The index of a segment known to be there.
pub async fn read_known_segment(store: &dyn ObjectStore, segment: &SegmentRef) -> Result<SegmentIndex> {
    let key = keys::segment(&segment.chain, segment.start);
    let read = read_end(store, &key, u64::from(segment.tail_len), SegmentIndex::read).await;
    let context = || format!("read segment {} of {}", segment.start, segment.chain);
    let index = read.map_err(|e| e.context(context()))?;
    let gone = || Error::corrupt(format!("object {key} is missing although the catalog names it: restore it from a backup"));
    let index = index.ok_or_else(|| gone().context(context()))?;
    if index.info.chain != segment.chain || index.info.start != segment.start || index.info.end != segment.end {
        let (found, expected) = (&index.info, segment);
        return Err(Error::corrupt(format!(
            "object {key}: its footer says offsets {}..={} of {}, expected {}..={} of {}: it was copied or overwritten, restore it",
            found.start, found.end, found.chain, expected.start, expected.end, expected.chain
        ))
        .context(context()));
    }
    Ok(index)
}

/// A damaged file is as good as none: it is only a hint.
pub async fn read_catalog(store: &dyn ObjectStore, chain: &ChainId, level: u8, number: u64) -> Result<Option<CatalogFile>> {
    let key = keys::catalog(chain, level, number);
    match read_end(store, &key, TAIL_GUESS, CatalogFile::read).await {
        Ok(Some(file)) if file.chain == *chain && file.level == level && file.number == number => Ok(Some(file)),
        Ok(None) => Ok(None),
        Ok(Some(_)) | Err(Error::Corrupt(_)) => {
            tracing::warn!(chain = %chain, level, number, "catalog file is damaged; going on without it");
            Ok(None)
        }
        Err(e) => Err(e.context(format!("read catalog of {chain}"))),
    }
}

/// Reads the end of an object, and more of it if the first guess was short.
async fn read_end<T>(
    store: &dyn ObjectStore,
    key: &str,
    guess: u64,
    read: impl Fn(&[u8]) -> Result<Result<T, u64>>,
) -> Result<Option<T>> {
    let mut len = guess;
    loop {
        let Some(ObjectPart { bytes, len: whole, .. }) = store.get_suffix(key, len).await? else { return Ok(None) };
        match read(&bytes)? {
            Ok(value) => return Ok(Some(value)),
            Err(needed) if needed > len && needed <= whole => len = needed,
            Err(needed) => {
                return Err(Error::corrupt(format!("object {key}: its footer needs {needed} bytes, the object has {whole}")));
            }
        }
    }
}
