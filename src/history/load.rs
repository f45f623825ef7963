//! Brings a saga's entries together: hot alone where its marks vouch for it, else cold, else cold and then hot.
//!
//! Order matters: cold is followed after hot was read, so whatever vanished from hot meanwhile is found in cold.

use futures::future::try_join_all;

use super::answer::{Coverage, Source};
use super::folds::current;
use super::loaded::{FIRST_READ, LONG, LONG_BYTES, LoadedEntries, known, size};
use super::membership::{holds, is_of, of_home};
use super::merge::{self, CandidateMarks, ChainCoverage, HotRun, MergedEntries, ReadDepth, RunEnd};
use super::reader::History;
use crate::cpu;
use crate::error::{Error, Result};
use crate::hot::{HotQuery, HotRead};
use crate::saga::entry::Entry;
use crate::saga::position::{ChainId, Offset, Position, SagaId};
use crate::saga::stored_entry::StoredEntry;
use crate::saga::time::Micros;
use crate::wire::frame::decode_member;

/// Of more chains than this all marks are read: a bucket has one or two for each partition.
const MAX_MARKS_BY_NAME: usize = 8;

impl History {
    /// From one home.
    pub(super) async fn load_home(
        &self,
        saga: &SagaId,
        upto: Micros,
        back: ReadDepth,
        candidates: &[ChainId],
    ) -> Result<LoadedEntries> {
        if let Some(loaded) = self.try_load(saga, upto, back, back, candidates).await? {
            return Ok(loaded);
        }
        // Hot was read back to a snapshot, and turned out to be needed further back, to where cold ends.
        let loaded = self.try_load(saga, upto, back, ReadDepth::Start, candidates).await?;
        // Entries below a mark are neither here nor there: a store lost what it had said to keep.
        loaded.ok_or_else(|| {
            Error::unavailable(
                "read history of saga: hot begins after the last entry of cold, and neither has those between; try again",
            )
        })
    }

    /// `None`: what was read of hot does not touch what cold gave.
    async fn try_load(
        &self,
        saga: &SagaId,
        upto: Micros,
        back: ReadDepth,
        hot_back: ReadDepth,
        candidates: &[ChainId],
    ) -> Result<Option<LoadedEntries>> {
        let (read, run, split, hot_answers) = match self.read_hot(saga, upto, hot_back, candidates).await {
            Ok((read, run, split)) => {
                self.note_marks(saga, &CandidateMarks { candidates, marks: &read.marks });
                (read, run, split, true)
            }
            // Cold alone gives a right answer, only slower and less new.
            Err(error) if error.is_unavailable() => Default::default(),
            Err(error) => return Err(error.context("read hot history")),
        };
        let marks = CandidateMarks { candidates, marks: &read.marks };
        let loaded = match self.hot_alone(saga, &marks, run).await? {
            Ok(loaded) => Some(loaded),
            Err(run) => self.load_cold(saga, upto, back, &marks, run).await?,
        };
        Ok(loaded.map(|loaded| LoadedEntries { split, hot_answers, ..loaded }))
    }

    /// Hot said how far it goes.
    pub(super) fn note_marks(&self, saga: &SagaId, marks: &CandidateMarks<'_>) {
        let seen = marks.candidates.iter().filter_map(|chain| Some((chain, marks.of(chain)?)));
        self.high_water_marks.note(self.hot.bucket(saga), seen);
    }

    /// What was read of hot, if that is all there is; else the run as it was.
    pub(super) async fn hot_alone(
        &self,
        saga: &SagaId,
        marks: &CandidateMarks<'_>,
        run: HotRun,
    ) -> Result<std::result::Result<LoadedEntries, HotRun>> {
        let newest = run.entries.first().filter(|_| run.ending == RunEnd::Reached);
        let Some(newest) = newest.map(|stored| stored.entry.position.clone()) else { return Ok(Err(run)) };
        if !self.is_whole(saga, &newest, marks).await? {
            return Ok(Err(run));
        }
        let mut entries = run.entries;
        entries.reverse();
        let known = |chain: &ChainId| merge::reach(marks.of(chain), None, true, (self.now)());
        let reach = self.reach(saga, marks.candidates, Some(&newest), known);
        let incomplete = self.incomplete(saga, marks.candidates, known);
        Ok(Ok(LoadedEntries { entries, source: Source::Hot, reach, incomplete, goes_on: false, split: false, hot_answers: true }))
    }

    /// One read, and more of it while the entries hang together and do not go back far enough. `true`: there were entries of
    /// other homes among them.
    async fn read_hot(
        &self,
        saga: &SagaId,
        upto: Micros,
        back: ReadDepth,
        candidates: &[ChainId],
    ) -> Result<(HotRead, HotRun, bool)> {
        let mut limit = if back == ReadDepth::Start { FIRST_READ * 8 } else { FIRST_READ };
        let moved = self.chains.were_raised();
        loop {
            let query = HotQuery { marks_of: marks_of(candidates), ..HotQuery::new(saga.clone(), upto, limit) };
            let read = self.hot.read(&[query]).await?.pop().ok_or_else(|| Error::bug("read hot history: no answer"))?;
            let marks = CandidateMarks { candidates, marks: &read.marks };
            // A store may round times far away, and give a member too many.
            let counts = |entry: &Entry| entry.effective_time <= upto;
            let own = if moved { None } else { of_home(&read.members, candidates) };
            let members = &current(own.as_ref().unwrap_or(&read.members), self.fold)[..];
            let run = || merge::hot_run(members, back, &marks, counts, |bytes| decode_member(saga, bytes));
            let bytes: usize = members.iter().map(|member| member.bytes.len()).sum();
            let is_long = members.len() > LONG || bytes > LONG_BYTES;
            let mut run = if is_long { cpu::long(run).await } else { run() };
            // Of another topic, whose partition has the same number: cold tells them apart.
            let stray = !moved && run.entries.iter().any(|stored| !is_of(&stored.entry.position, candidates));
            if stray {
                run = HotRun { entries: Vec::new(), ending: RunEnd::Conflict };
            }
            if back == ReadDepth::Start {
                self.check_count(run.entries.len())?;
            }
            // Whoever wants all is told of what lies before the first, too.
            let goes_on = run.ending == RunEnd::Ended || (run.ending == RunEnd::Reached && back == ReadDepth::Start);
            if !goes_on || read.members.len() < limit || limit > self.max_entries {
                let split = stray || own.is_some();
                return Ok((read, run, split));
            }
            // As many as fit in memory, if the others are like these.
            let each = (bytes / members.len().max(1)).max(1);
            let most = (self.max_bytes / each).min(self.max_entries + 1);
            if most <= limit {
                match back {
                    ReadDepth::Start if run.ending != RunEnd::Reached => return Err(self.too_large()),
                    // Cold may have what lies further back.
                    _ => {
                        let split = stray || own.is_some();
                        return Ok((read, run, split));
                    }
                }
            }
            limit = (limit * 8).min(most);
        }
    }

    /// Is a run that ends in the entry at `newest` all that hot and cold have?
    pub(super) async fn is_whole(&self, saga: &SagaId, newest: &Position, marks: &CandidateMarks<'_>) -> Result<bool> {
        if !marks.vouches(newest) {
            return Ok(false);
        }
        // Cold may be known to be ahead of a hot store that was put back to an older copy of itself.
        for chain in marks.candidates {
            let end = self.cold.known_end(chain).and_then(|end| end.next);
            if end > marks.of(chain).map(|mark| mark.to) && self.cold_may_have(chain, saga).await? {
                return Ok(false);
            }
        }
        for (chain, from) in marks.in_doubt(newest) {
            let end = self.cold.known_end(&chain).and_then(|end| end.next);
            if from.is_none() || end < from {
                self.cold.follow(&chain).await?;
            }
            if self.cold_may_have(&chain, saga).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn cold_may_have(&self, chain: &ChainId, saga: &SagaId) -> Result<bool> {
        self.cold.may_hold(chain, saga).await
    }

    async fn load_cold(
        &self,
        saga: &SagaId,
        upto: Micros,
        back: ReadDepth,
        marks: &CandidateMarks<'_>,
        run: HotRun,
    ) -> Result<Option<LoadedEntries>> {
        let follow = marks.candidates.iter().map(|chain| self.cold.follow(chain));
        let ends: Vec<_> = try_join_all(follow).await?.into_iter().map(known).collect();
        let ends: Vec<_> = marks.candidates.iter().zip(ends).collect();
        let end_of = |chain: &ChainId| ends.iter().find(|(of, _)| *of == chain).map(|(_, end)| *end);

        let mut cold = match back {
            ReadDepth::Snapshot | ReadDepth::Window => self.cold_at(saga, upto, marks.candidates).await?,
            ReadDepth::To(sequence) => self.cold_around(saga, sequence, marks.candidates).await?,
            ReadDepth::Start => self.cold_whole(saga, marks.candidates).await?,
        };
        cold.retain(|stored| stored.entry.effective_time <= upto);

        // Hot may go on from cold only if no offset lies between the two.
        let touches = |chain: &ChainId| match (marks.of(chain), end_of(chain)) {
            (Some(mark), Some(end)) => mark.from <= end.to,
            (mark, _) => mark.is_none(),
        };
        let conflict = run.ending == RunEnd::Conflict;
        let use_hot = !conflict && marks.candidates.iter().all(touches);
        // Where cold holds what was asked for, later entries of hot add nothing, and may lie far from it.
        let held = matches!(back, ReadDepth::To(wanted) if cold.last().is_some_and(|last| wanted <= last.entry.sequence.0));
        let mut hot = if use_hot && !held { run.entries } else { Vec::new() };
        hot.reverse();
        let known = |chain: &ChainId| merge::reach(marks.of(chain).filter(|_| use_hot), end_of(chain), false, (self.now)());

        let (entries, source) = match merge::join(cold, hot) {
            MergedEntries::Cold(entries) => (entries, Source::Cold),
            MergedEntries::Both(entries) => (entries, Source::Both),
            MergedEntries::Torn => return Ok(None),
        };
        let newest = entries.last().map(|stored| stored.entry.position.clone());
        let reach = self.reach(saga, marks.candidates, newest.as_ref(), known);
        let incomplete = self.incomplete(saga, marks.candidates, known) || conflict;
        Ok(Some(LoadedEntries { entries, source, reach, incomplete, goes_on: held, split: false, hot_answers: true }))
    }

    /// The newest entries of all chains with a segment whose first row is at or before `upto`.
    pub(super) async fn cold_at(&self, saga: &SagaId, upto: Micros, candidates: &[ChainId]) -> Result<Vec<StoredEntry>> {
        let mut newest: Vec<StoredEntry> = Vec::new();
        let find = candidates.iter().map(|chain| self.cold.entries_at(chain, saga, upto));
        for entries in try_join_all(find).await? {
            let begins = |entries: &[StoredEntry]| entries.first().map(|stored| stored.entry.sequence);
            if begins(&entries) > begins(&newest) {
                newest = entries;
            }
        }
        Ok(newest)
    }

    /// The newest segment that begins at or before this sequence of the saga.
    async fn cold_around(&self, saga: &SagaId, sequence: u64, candidates: &[ChainId]) -> Result<Vec<StoredEntry>> {
        // A saga moves from the chains named last to the first; within one the order is known.
        for chain in candidates {
            let mut segments = self.cold.segments_of(chain, saga).await?;
            let (mut low, mut high) = (0, segments.len());
            let mut best = Vec::new();
            // The newest first: that is where most questions end.
            let mut look = segments.len().saturating_sub(1);
            while low < high {
                let entries = self.cold.load(&segments[look], saga).await?;
                match entries.first() {
                    None => {
                        // The rows of another saga with the same hash.
                        segments.remove(look);
                        high -= 1;
                    }
                    Some(first) if first.entry.sequence.0 <= sequence => {
                        best = entries;
                        low = look + 1;
                    }
                    Some(_) => high = look,
                }
                look = low + (high - low) / 2;
            }
            if !best.is_empty() {
                return Ok(best);
            }
        }
        Ok(Vec::new())
    }

    pub(super) async fn cold_whole(&self, saga: &SagaId, candidates: &[ChainId]) -> Result<Vec<StoredEntry>> {
        let mut whole: Vec<StoredEntry> = Vec::new();
        let (mut bytes, mut context) = (0, None);
        for chain in candidates.iter().rev() {
            for segment in self.cold.segments_of(chain, saga).await? {
                let mut entries = self.cold.load(&segment, saga).await?;
                if entries.is_empty() {
                    continue;
                }
                context = merge::slim(&mut entries, context, whole.is_empty());
                bytes += entries.iter().map(|stored| size(&stored.entry)).sum::<usize>();
                whole.extend(entries);
                self.check_count(whole.len())?;
                if bytes > self.max_bytes {
                    return Err(self.too_large());
                }
            }
        }
        Ok(whole)
    }

    pub(super) fn check_count(&self, entries: usize) -> Result<()> {
        if entries > self.max_entries {
            return Err(self.too_large());
        }
        Ok(())
    }

    fn too_large(&self) -> Error {
        let (entries, mebibytes) = (self.max_entries, self.max_bytes >> 20);
        let message = format!("the saga has more than {entries} entries or {mebibytes} MiB of them, too much to read at once");
        Error::refused("too_large", message)
    }

    /// Hot does not answer, was wiped or put back, and what it had told of is not in cold yet.
    fn incomplete(&self, saga: &SagaId, candidates: &[ChainId], known: impl Fn(&ChainId) -> Option<ChainCoverage>) -> bool {
        let bucket = self.hot.bucket(saga);
        let behind = |chain: &ChainId| self.high_water_marks.to(bucket, chain) > known(chain).map_or(Offset(0), |known| known.to);
        candidates.iter().any(behind)
    }

    fn reach(
        &self,
        saga: &SagaId,
        candidates: &[ChainId],
        newest: Option<&Position>,
        known: impl Fn(&ChainId) -> Option<ChainCoverage>,
    ) -> Coverage {
        let through = |chain: &ChainId| known(chain).map_or(Micros::MIN, |known| known.complete_through);
        let complete_through = match newest {
            // The saga's partition: where its newest entry is, and where its next would go.
            Some(newest) => {
                let own = (CandidateMarks { candidates, marks: &[] }).chain_of(newest).cloned();
                // A guess that the saga itself proves wrong tells nothing.
                let guessed = self.chains.of(saga).iter().any(|chain| holds(chain, newest));
                let home = self.chains.home(saga, &newest.topic).filter(|_| guessed);
                own.iter().chain(&home).map(through).min()
            }
            None => candidates.iter().map(through).min(),
        };
        let to = candidates.iter().filter_map(|chain| Some((chain.clone(), known(chain)?.to)));
        Coverage { to: to.collect(), complete_through: complete_through.unwrap_or(Micros::MIN) }
    }
}

/// The candidates of one saga, and for each partition the incarnation that would follow, of which this process may not know yet:
/// where it has a mark, entries there are not taken for the earlier one's. Empty: of so many that all marks cost no more.
fn marks_of(candidates: &[ChainId]) -> Vec<ChainId> {
    if candidates.len() > MAX_MARKS_BY_NAME {
        return Vec::new();
    }
    let next = candidates.iter().map(|chain| ChainId { incarnation: chain.incarnation + 1, ..chain.clone() });
    let mut chains: Vec<ChainId> = candidates.iter().cloned().chain(next).collect();
    chains.sort_unstable();
    chains.dedup();
    chains
}
