//! What of hot can be believed, and how it continues what cold gives. Pure.
//!
//! Why a mark is enough: every entry in [from, to) was written to hot before the mark moved, and a saga's key only
//! vanishes whole and only when all of its entries are durable. So a key that holds an entry holds every later entry
//! below `to` whose offset is not below `from`; and what a missing key held is in cold, if cold is followed after hot
//! was read. Entries at or past `to` are left out: their owner has not said yet that they are all there.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use crate::error::{Error, Result};
use crate::hot::{Mark, Member};
use crate::saga::context::changed_by_all;
use crate::saga::entry::Entry;
use crate::saga::event::{ContextChange, StepEvent};
use crate::saga::fold::{Saga, Seen, WINDOW};
use crate::saga::json::Json;
use crate::saga::position::{ChainId, Offset, Position};
use crate::saga::splice::splice;
use crate::saga::state::Anomaly;
use crate::saga::stored_entry::StoredEntry;
use crate::saga::time::Micros;

/// How far back the entries must go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadDepth {
    /// To where folding can begin.
    Snapshot,
    /// To where folding can begin, at or before this sequence.
    To(u64),
    /// To the first.
    Start,
    /// To where folding can begin, and [`WINDOW`] entries or all.
    Window,
}

/// The marks of a saga's bucket and the chains that the saga may live in.
pub struct CandidateMarks<'a> {
    /// Of each topic and partition the newest incarnation first.
    pub candidates: &'a [ChainId],
    pub marks: &'a [(ChainId, Mark)],
}

impl CandidateMarks<'_> {
    pub fn of(&self, chain: &ChainId) -> Option<Mark> {
        self.marks.iter().find(|(of, _)| of == chain).map(|(_, mark)| *mark)
    }

    /// The newest incarnation that the position may belong to.
    pub fn chain_of(&self, position: &Position) -> Option<&ChainId> {
        let fits = |chain: &&ChainId| chain.topic == position.topic && chain.partition == position.partition;
        // Marks of other topics are other readers' (the replay log goes through the same stores).
        let ours = |chain: &&ChainId| self.candidates.iter().any(|candidate| candidate.topic == chain.topic);
        let marked = self.marks.iter().map(|(chain, _)| chain).filter(ours);
        self.candidates.iter().chain(marked).filter(fits).max_by_key(|chain| chain.incarnation)
    }

    fn below_mark(&self, position: &Position) -> bool {
        self.chain_of(position).and_then(|chain| self.of(chain)).is_some_and(|mark| position.offset < mark.to)
    }

    /// Are all of the saga's later entries below `to` certain to be in hot, as far as this entry's own chain goes?
    pub fn vouches(&self, newest: &Position) -> bool {
        let mark = self.chain_of(newest).and_then(|chain| self.of(chain));
        mark.is_some_and(|mark| (mark.from..mark.to).contains(&newest.offset))
    }

    /// Candidates besides the newest entry's own chain in which the saga may have entries that hot lost, each with the
    /// offset below which cold must have none of it. No mark: wherever the chain ends.
    pub fn in_doubt(&self, newest: &Position) -> Vec<(ChainId, Option<Offset>)> {
        let own = self.chain_of(newest);
        let others = self.candidates.iter().filter(|chain| Some(*chain) != own);
        let from = others.map(|chain| (chain.clone(), self.of(chain).map(|mark| mark.from)));
        // The same partition in another incarnation: the entry may belong to that one.
        let same = |chain: &ChainId| chain.topic == newest.topic && chain.partition == newest.partition;
        from.filter(|(chain, from)| same(chain) || from.is_none_or(|from| from.0 > 0)).collect()
    }
}

/// The newest entries of a hot key that hang together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HotRun {
    /// Newest first, no sequence missing.
    pub entries: Vec<StoredEntry>,
    pub ending: RunEnd,
}

/// Why a run goes no further back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunEnd {
    /// It need not.
    Reached,
    /// The members ended.
    #[default]
    Ended,
    /// A sequence is missing.
    Hole,
    /// Two entries for one position or sequence, or a member that cannot be read: nothing of it is believed.
    Conflict,
}

/// Members newest first -> the run of entries below the marks; `counts` leaves out what a reader must not see.
pub fn hot_run(
    members: &[Member],
    back: ReadDepth,
    marks: &CandidateMarks<'_>,
    counts: impl Fn(&Entry) -> bool,
    decode: impl Fn(&[u8]) -> Result<StoredEntry>,
) -> HotRun {
    let mut run = HotRun { entries: Vec::with_capacity(members.len().min(WINDOW)), ..HotRun::default() };
    let conflict = HotRun { entries: Vec::new(), ending: RunEnd::Conflict };
    let mut can_fold = false;
    let mut positions: HashSet<Position, RandomState> = HashSet::default();
    for member in members {
        let Ok(stored) = decode(&member.bytes) else { return conflict };
        if run.entries.is_empty() && !(marks.below_mark(&stored.entry.position) && counts(&stored.entry)) {
            continue;
        }
        match run.entries.last_mut() {
            // Two owners wrote it, and one had the whole saga to bring along.
            Some(later) if is_same(&later.entry, &stored.entry) => {
                if later.saga.is_some() || stored.saga.is_none() {
                    continue;
                }
                *later = stored;
            }
            Some(later) => {
                let (sequence, next) = (stored.entry.sequence, later.entry.sequence);
                if sequence >= next || positions.contains(&stored.entry.position) {
                    return conflict;
                }
                if sequence.next() != next {
                    run.ending = RunEnd::Hole;
                    return run;
                }
                positions.insert(stored.entry.position.clone());
                run.entries.push(stored);
            }
            None => {
                positions.insert(stored.entry.position.clone());
                run.entries.push(stored);
            }
        }
        let Some(StoredEntry { entry, saga }) = run.entries.last() else { continue };
        let (sequence, has_saga) = (entry.sequence.0, saga.is_some());
        can_fold |= has_saga;
        let reached = sequence == 1
            || match back {
                ReadDepth::Snapshot => has_saga,
                ReadDepth::To(wanted) => has_saga && sequence <= wanted,
                ReadDepth::Start => false,
                ReadDepth::Window => can_fold && run.entries.len() >= WINDOW,
            };
        if reached {
            run.ending = RunEnd::Reached;
            return run;
        }
    }
    run
}

/// Is it one entry? What the event did to the context may be told in different ways.
fn is_same(one: &Entry, other: &Entry) -> bool {
    let bare = |entry: &Entry| {
        let event = StepEvent { context: ContextChange::None, ..entry.event.clone() };
        Entry { event, ..entry.clone() }
    };
    one.sequence == other.sequence && one.position == other.position && bare(one) == bare(other)
}

/// Hot entries put after those of cold, both oldest first.
#[derive(Debug, PartialEq, Eq)]
pub enum MergedEntries {
    /// Nothing of hot is newer.
    Cold(Vec<StoredEntry>),
    Both(Vec<StoredEntry>),
    /// Between the two entries are missing.
    Torn,
}

pub fn join(mut cold: Vec<StoredEntry>, hot: Vec<StoredEntry>) -> MergedEntries {
    let last = cold.last().map_or(0, |stored| stored.entry.sequence.0);
    let mut newer = hot.into_iter().skip_while(|stored| stored.entry.sequence.0 <= last).peekable();
    match newer.peek() {
        None => MergedEntries::Cold(cold),
        Some(first) if first.entry.sequence.0 == last + 1 => {
            cold.extend(newer);
            MergedEntries::Both(cold)
        }
        Some(_) => MergedEntries::Torn,
    }
}

/// Makes light of one segment's entries among those of all, oldest first: each segment repeats the saga and its whole
/// context, which whoever has the entries before it does not need. Gives the context after them.
pub fn slim(entries: &mut [StoredEntry], before: Option<Json>, first_of_all: bool) -> Option<Json> {
    let saga = entries.first()?.saga.as_ref()?;
    let changes: Vec<&ContextChange> = entries[1..].iter().filter_map(|stored| change_of(&stored.entry)).collect();
    let after = changed_by_all(&saga.state.context, &changes);
    if first_of_all {
        return Some(after);
    }
    for (number, stored) in entries.iter_mut().enumerate() {
        stored.saga = None;
        if let (0, Some(before), ContextChange::Full(whole)) = (number, &before, &stored.entry.event.context) {
            let (prefix, suffix, middle) = splice(before.as_str(), whole.as_str());
            if middle.len() < whole.len() / 2 {
                stored.entry.event.context = ContextChange::Splice { prefix, suffix, middle: middle.into() };
            }
        }
    }
    Some(after)
}

fn change_of(entry: &Entry) -> Option<&ContextChange> {
    let kept = entry.anomalies.contains(&Anomaly::StateTooLarge);
    Some(&entry.event.context).filter(|_| !kept)
}

/// The fold of entries (oldest first) that `wanted` lets through, which is a prefix of them; `None`: not one.
/// The window is not that of the fold: see [`fold_with_window`].
pub fn fold(entries: &[StoredEntry], wanted: impl Fn(&Entry) -> bool) -> Result<Option<Saga>> {
    let count = entries.partition_point(|stored| wanted(&stored.entry));
    let begin = entries[..count].iter().rposition(|stored| stored.saga.is_some()).unwrap_or(0);
    fold_all(&entries[begin..count])
}

/// The fold of all entries with its window: they must begin at sequence 1, at a saga with its window (cold), or hold
/// [`WINDOW`] entries and a saga.
pub fn fold_with_window(entries: &[StoredEntry]) -> Result<Option<Saga>> {
    let Some(begin) = entries.iter().rposition(|stored| stored.saga.is_some()) else { return fold_all(entries) };
    let Some(first) = entries.first() else { return Ok(None) };
    let known = first.saga.as_ref().filter(|saga| !saga.window.is_empty()).map(|saga| &saga.window);
    let mut saga = fold_all(&entries[begin..])?;
    if let Some(saga) = &mut saga {
        // The first's own memory holds it already.
        let rest = &entries[usize::from(known.is_some())..];
        let seen = known.into_iter().flatten().copied().chain(rest.iter().map(|stored| Seen::of(&stored.entry.event)));
        let seen: Vec<Seen> = seen.collect();
        saga.window = seen[seen.len().saturating_sub(WINDOW)..].iter().copied().collect();
    }
    Ok(saga)
}

fn fold_all(entries: &[StoredEntry]) -> Result<Option<Saga>> {
    let Some(first) = entries.first() else { return Ok(None) };
    let mut slot = first.saga.as_deref().cloned();
    let rest = match slot {
        Some(_) => &entries[1..],
        None if first.entry.sequence.0 == 1 => entries,
        None => return Err(Error::bug("fold history of saga: its beginning is missing")),
    };
    Saga::apply_all(&mut slot, rest.iter().map(|stored| &stored.entry));
    Ok(slot)
}

/// How far one chain is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainCoverage {
    /// First offset not vouched for.
    pub to: Offset,
    pub complete_through: Micros,
}

impl ChainCoverage {
    fn without_time(self) -> Self {
        Self { complete_through: Micros::MIN, ..self }
    }
}

/// What hot (if it is believed) and cold (if it was asked) vouch for together. A time ahead of `now` was told by a wrong
/// clock, and tells nothing.
pub fn reach(hot: Option<Mark>, cold: Option<ChainCoverage>, hot_alone: bool, now: Micros) -> Option<ChainCoverage> {
    let believed = |known: ChainCoverage| if known.complete_through.is_ahead_of(now) { known.without_time() } else { known };
    let cold = cold.map(believed);
    let hot = hot.filter(|mark| hot_alone || cold.is_some_and(|cold| mark.from <= cold.to));
    let hot = hot.map(|mark| believed(ChainCoverage { to: mark.to, complete_through: mark.complete_through }));
    match (hot, cold) {
        (Some(hot), Some(cold)) => {
            let through = hot.complete_through.max(cold.complete_through);
            Some(ChainCoverage { to: hot.to.max(cold.to), complete_through: through })
        }
        (hot, cold) => hot.or(cold),
    }
}
