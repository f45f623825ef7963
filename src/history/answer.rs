//! What a reader of history is given. Shapes only: `wire` and `api` turn them into JSON.

use std::sync::Arc;

use crate::saga::entry::Entry;
use crate::saga::event::Kind;
use crate::saga::log_record::LogRecord;
use crate::saga::position::{ChainId, EntrySequence, Offset, Position, SagaId};
use crate::saga::selector::FoundSaga;
use crate::saga::state::{State, Status};
use crate::saga::time::Micros;

/// Which state of a saga is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointInTime {
    /// After all its entries.
    Newest,
    /// After all entries with effective time <= this.
    At(Micros),
    /// After the entry of this sequence.
    Sequence(u64),
}

/// Where the entries of an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Hot,
    Cold,
    /// Hot entries folded on from what cold gave.
    Both,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Cold => "cold",
            Self::Both => "both",
        }
    }
}

/// How far an answer reaches: every entry of the saga below `to` of these chains is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// The chains that the saga may live in, each with the first offset that the answer does not vouch for.
    pub to: Vec<(ChainId, Offset)>,
    /// Everything appended to the saga's partition before this time (recorded time) is in the answer.
    pub complete_through: Micros,
}

impl Coverage {
    /// The first offset of the chain that the answer does not vouch for; 0: of nothing.
    pub fn of(&self, topic: &str, partition: i32) -> Offset {
        let chain = self.to.iter().filter(|(chain, _)| *chain.topic == *topic && chain.partition == partition);
        chain.max_by_key(|(chain, _)| chain.incarnation).map_or(Offset(0), |(_, to)| *to)
    }
}

/// A state and what the answer says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateAnswer {
    pub state: State,
    /// Entries after the newest snapshot (without one: all).
    pub folded: u64,
    pub source: Source,
    pub reach: Coverage,
    /// The saga has events in other partitions, too, which are not its history.
    pub split: bool,
}

/// A saga's whole history, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullHistory {
    pub entries: Vec<Entry>,
    pub source: Source,
    pub reach: Coverage,
    /// As in [`StateAnswer`].
    pub split: bool,
}

/// One line of a history page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    pub entry: Entry,
    /// After the entry.
    pub status: Status,
    /// JSON pointers of the deepest context members that the entry changed.
    pub changed: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryPage {
    pub rows: Vec<HistoryRow>,
    pub next: Option<String>,
}

/// An entry that is a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub sequence: EntrySequence,
    pub step: Option<String>,
    /// Of CHECKPOINT entries.
    pub name: Option<String>,
    pub kind: Kind,
    pub effective_time: Micros,
    pub position: Position,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoints {
    pub checkpoints: Vec<Checkpoint>,
    pub next: Option<String>,
}

/// What a search found, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchResult {
    /// May be fewer than asked for while there is a `next`.
    pub sagas: Vec<FoundSaga>,
    pub next: Option<String>,
    pub complete_through: Micros,
}

/// A node of a lineage tree.
#[derive(Debug, Clone, PartialEq)]
pub struct LineageNode {
    pub saga_id: SagaId,
    /// `None`: not in history (yet).
    pub status: Option<Status>,
    /// Of the replay that made it; `None`: the root.
    pub replay: Option<Arc<LogRecord>>,
    pub depth: u32,
    pub children: Vec<LineageNode>,
}

/// A saga that a replay restored, and what the replay log has of that replay.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    pub saga_id: SagaId,
    pub replay: Arc<LogRecord>,
}
