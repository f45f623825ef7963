//! A log, its owners, hot and cold, driven by random acts; and the truth: every entry folded once, in order.

mod forged;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::buckets::Buckets;
use crate::cold::chain::ChainWriter;
use crate::cold::directory::Directory;
use crate::cold::object_store::ObjectStore;
use crate::cold::reader::ColdReader;
use crate::cold::segment::{NewRow, NewSegment};
use crate::history::History;
use crate::history::chains::{Chains, TopicLayout};
use crate::hot::{
    ActivityFact, DurableSaga, FailureFact, HotBatch, HotStore, Mark, MarkMove, MarkOutcome, Member, SagaWrite, Tokens, Written,
};
use crate::saga::entry::Entry;
use crate::saga::event::{ContextChange, ErrorInfo, Kind, StepEvent};
use crate::saga::failure::SagaFailure;
use crate::saga::fold::{Admitted, RecordMeta, Saga};
use crate::saga::fold_settings::{FoldSettings, SnapshotPolicy};
use crate::saga::json::Json;
use crate::saga::partitioner::partition;
use crate::saga::position::{ChainId, Offset, Position, SagaId};
use crate::saga::time::Micros;
use crate::wire::frame::{encode_member, encode_saga};

pub const TOPIC: &str = "t";
/// The last two have one hash.
const SAGAS: [&str; 6] = ["saga-0", "saga-1", "saga-2", "saga-3", "order-6fe3273a22a56de4", "order-c71d42a587a398ee"];
const KINDS: [Kind; 9] = [
    Kind::StepStarted,
    Kind::StepCompleted,
    Kind::StepFailed,
    Kind::SagaFailed,
    Kind::ContextUpdated,
    Kind::Checkpoint,
    Kind::CompensationFailed,
    Kind::SagaCompleted,
    Kind::SagaStarted,
];

/// An entry and the fold up to and with it.
#[derive(Clone)]
pub struct Told {
    pub entry: Entry,
    pub saga: Saga,
}

#[derive(Debug, Clone)]
pub enum Act {
    /// A producer writes an event; some time passes; some offsets are left out.
    Log {
        saga: u8,
        kind: u8,
        change: u8,
        seconds: u8,
        late: u8,
        hole: bool,
    },
    /// The owner reads to the end of its partition and writes hot; its mark may not follow before it crashes.
    Consume {
        partition: u8,
        crash: bool,
    },
    Flush {
        partition: u8,
    },
    Evict,
    /// Somebody who owned a partition lets keys expire that it saw become durable, however long ago.
    LateExpiry,
    Wipe {
        bucket: u8,
    },
    GoBack {
        bucket: u8,
        share: u8,
    },
    /// As `Consume`, and between entries and mark a bucket is put back.
    FailOver {
        partition: u8,
        bucket: u8,
        share: u8,
    },
    Restart {
        partition: u8,
    },
    DropIndexes {
        minutes_ago: u8,
    },
    RaisePartitions,
    Down(bool),
}

struct Owner {
    writer: ChainWriter,
    position: i64,
    sagas: BTreeMap<SagaId, Option<Saga>>,
    /// Not yet durable.
    buffer: Vec<(Told, Member)>,
    marks: Vec<Option<Mark>>,
}

pub struct World {
    pub hot: Arc<Buckets>,
    pub history: History,
    chains: Arc<Chains>,
    store: Arc<dyn ObjectStore>,
    settings: FoldSettings,
    tokens: Tokens,
    pub counts: Vec<i32>,
    log: Vec<Vec<(i64, StepEvent, Micros)>>,
    ends: Vec<i64>,
    owners: Vec<Owner>,
    pub truth: BTreeMap<SagaId, Vec<Told>>,
    pub now: Micros,
    /// Hot was put back and no owner has noticed.
    pub stale: bool,
    /// Every entry that was, as its owner saw it.
    made_durable: Vec<DurableSaga>,
    /// Members written.
    writes: u64,
    /// Hot lost a bucket's marks and no owner has noticed.
    wiped: bool,
    /// Of each partition: below this its entries were told, and are not forgotten.
    pub told_to: Vec<Offset>,
    _directory: tempfile::TempDir,
}

pub fn chain(partition: usize) -> ChainId {
    ChainId { topic: TOPIC.into(), incarnation: 0, partition: partition as i32 }
}

fn layout(counts: &[i32]) -> Vec<TopicLayout> {
    let partitioner: Option<fn(&[u8], i32) -> i32> = Some(partition);
    vec![TopicLayout { topic: TOPIC.into(), incarnations: Vec::new(), partition_counts: counts.to_vec(), partitioner }]
}

impl World {
    pub async fn new(buckets: u16, policy: SnapshotPolicy) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store: Arc<dyn ObjectStore> = Arc::new(Directory::open(directory.path()).expect("an empty directory"));
        let hot = Arc::new(Buckets::new(buckets));
        let chains = Arc::new(Chains::new(layout(&[1])));
        let cold = Arc::new(ColdReader::new(store.clone(), 1 << 20));
        let history = History::new(hot.clone(), cold, chains.clone(), 10_000);
        let settings =
            FoldSettings { max_clock_ahead_micros: 3_600_000_000, max_state_bytes: 60, policy, policy_by_saga: Vec::new() };
        let mut world = Self {
            hot,
            history,
            chains,
            store,
            settings,
            tokens: Tokens::default(),
            counts: vec![1],
            log: vec![Vec::new()],
            ends: vec![0],
            owners: Vec::new(),
            truth: BTreeMap::new(),
            now: Micros(1_768_000_000_000_000),
            stale: false,
            made_durable: Vec::new(),
            writes: 0,
            wiped: false,
            told_to: vec![Offset(0)],
            _directory: directory,
        };
        let owner = world.owner(0).await;
        world.owners.push(owner);
        world
    }

    /// Readers look for sagas there from now on.
    pub fn guess(&self, partitioner: fn(&[u8], i32) -> i32) {
        self.chains.place_by(Some(partitioner));
    }

    async fn owner(&self, partition: usize) -> Owner {
        let writer = ChainWriter::open(self.store.clone(), chain(partition), None).await.expect("open chain");
        self.history.learn_chain(writer.view());
        let mut marks = Vec::new();
        for bucket in 0..self.hot.buckets() {
            let found = self.hot.stored_marks(bucket).await;
            marks.push(found.into_iter().find(|(of, _)| *of == chain(partition)).map(|(_, mark)| mark));
        }
        Owner { position: writer.next().0, writer, sagas: BTreeMap::new(), buffer: Vec::new(), marks }
    }

    pub fn durable_end(&self, partition: usize) -> Offset {
        self.owners[partition].writer.next()
    }

    pub async fn act(&mut self, act: &Act) {
        let partition = |wanted: u8| usize::from(wanted) % self.log.len();
        let bucket = |wanted: u8| u16::from(wanted) % self.hot.buckets();
        match *act {
            Act::Log { saga, kind, change, seconds, late, hole } => self.log(saga, kind, change, seconds, late, hole),
            Act::Consume { partition: wanted, crash } => self.consume(partition(wanted), crash, None).await,
            Act::FailOver { partition: of, bucket: wanted, share } => {
                let back = (bucket(wanted), usize::from(share % 9));
                self.consume(partition(of), false, Some(back)).await;
                // Owners of other partitions have not noticed.
                self.stale = self.log.len() > 1;
            }
            Act::Flush { partition: wanted } => self.flush(partition(wanted)).await,
            Act::Evict => self.hot.evict(&self.durable_sagas()).await,
            Act::LateExpiry => self.hot.evict(&self.made_durable).await,
            Act::Wipe { bucket: wanted } => {
                self.hot.wipe(bucket(wanted)).await;
                self.wiped = true;
            }
            Act::GoBack { bucket: wanted, share } => {
                self.hot.go_back(bucket(wanted), usize::from(share % 9)).await;
                self.stale = true;
            }
            Act::Restart { partition: wanted } => {
                let partition = partition(wanted);
                self.owners[partition] = self.owner(partition).await;
            }
            Act::DropIndexes { minutes_ago } => {
                // Facts grow old long after their entries are durable.
                for partition in 0..self.log.len() {
                    self.flush(partition).await;
                }
                let minute = self.now.0 / 60_000_000 - i64::from(minutes_ago);
                self.hot.drop_indexes_before(minute, i64::MAX).await.expect("memory store");
            }
            Act::RaisePartitions if self.counts.len() == 1 => {
                // Moved sagas are folded in the new partition only when the old one is durable to its end.
                self.consume(0, false, None).await;
                self.flush(0).await;
                self.counts = vec![3, 1];
                self.chains.set(layout(&self.counts));
                for partition in 1..3 {
                    self.log.push(Vec::new());
                    self.ends.push(0);
                    self.told_to.push(Offset(0));
                    let owner = self.owner(partition).await;
                    self.owners.push(owner);
                }
            }
            Act::RaisePartitions => {}
            Act::Down(down) => *self.hot.down.lock().expect("not poisoned") = down,
        }
    }

    fn log(&mut self, saga: u8, kind: u8, change: u8, seconds: u8, late: u8, hole: bool) {
        self.now = self.now.saturating_add(i64::from(seconds) * 1_000_000);
        let saga = SagaId::from(SAGAS[usize::from(saga) % SAGAS.len()]);
        let partition = partition(saga.as_str().as_bytes(), self.counts[0]) as usize;
        let number: usize = self.log.iter().map(Vec::len).sum();
        let kind = KINDS[usize::from(kind) % KINDS.len()];
        let json = |text: String| Json::from_valid(text);
        let error = Box::new(ErrorInfo { code: Some(format!("E{}", change % 2)), ..ErrorInfo::default() });
        let event = StepEvent {
            event_id: format!("event-{number}"),
            saga_id: saga,
            saga_name: format!("name-{}", change % 2),
            kind,
            occurred_at: Some(self.now.saturating_add(-i64::from(late % 4) * 30_000_000)),
            step: Some(["reserve", "charge"][usize::from(change / 2 % 2)].to_owned()),
            step_index: None,
            attempt: None,
            sequence: None,
            context: match change % 5 {
                0 => ContextChange::Full(json(format!(
                    r#"{{"number":{number},"same":"{}"}}"#,
                    "x".repeat(usize::from(change / 5))
                ))),
                1 => ContextChange::Patch(json(format!(r#"{{"patched":{number}}}"#))),
                2 => ContextChange::Set(json(format!(r#"{{"set":{number}}}"#))),
                _ => ContextChange::None,
            },
            result: None,
            error: matches!(kind, Kind::StepFailed | Kind::SagaFailed | Kind::CompensationFailed).then_some(error),
            saga_version: None,
            tenant: None,
            region: None,
            labels: None,
            lineage: None,
            restored: None,
        };
        self.record(partition, event);
        self.ends[partition] += i64::from(hole);
    }

    /// A producer writes this event.
    pub fn record(&mut self, partition: usize, event: StepEvent) {
        self.log[partition].push((self.ends[partition], event, self.now));
        self.ends[partition] += 1;
    }

    /// All of their entries are durable.
    fn durable_sagas(&self) -> Vec<DurableSaga> {
        let durable = |told: &Told| told.entry.position.offset < self.durable_end(told.entry.position.partition as usize);
        let is_durable = |saga: &&SagaId| {
            let unread = self.owners.iter().flat_map(|owner| &owner.buffer).any(|(told, _)| told.entry.event.saga_id == **saga);
            !unread && self.truth[*saga].iter().all(durable)
        };
        let newest = |saga: &SagaId| self.truth[saga].last().map_or_else(Default::default, |told| told.entry.sequence);
        self.truth.keys().filter(is_durable).map(|saga| DurableSaga { saga: saga.clone(), sequence: newest(saga) }).collect()
    }

    async fn consume(&mut self, partition: usize, crash: bool, back: Option<(u16, usize)>) {
        let from = self.owners[partition].position;
        let records: Vec<_> = self.log[partition].iter().filter(|(offset, ..)| *offset >= from).cloned().collect();
        self.load_missed(partition, &records).await;
        let mut batch = HotBatch::default();
        for (offset, event, timestamp) in records {
            let meta = RecordMeta { position: Position::new(TOPIC, partition as i32, offset), timestamp };
            let owner = &mut self.owners[partition];
            let slot = owner.sagas.get_mut(&event.saga_id).expect("loaded before");
            let before = slot.as_ref().map(|saga| saga.state.context.clone());
            let admitted = Saga::admit(slot, event, &meta, false, &self.settings);
            let Admitted::Entry(entry) = admitted else { panic!("every event has an id of its own") };
            let saga = slot.clone().expect("an entry was applied");
            // Whoever writes an entry decides for itself whether the whole saga goes with it.
            let whole = entry.snapshot && self.writes.is_multiple_of(3);
            self.writes += 1;
            let bytes = encode_member(&entry, 0, before.as_ref(), whole.then_some(&saga));
            let member = Member { effective_time: entry.effective_time, bytes };
            let told = Told { entry: *entry, saga };
            add(&mut batch, &told, &member);
            owner.buffer.push((told.clone(), member));
            self.tell(told);
        }
        let written = self.hot.write(&batch, self.tokens.next()).await.expect("memory store");
        if let Some((bucket, share)) = back {
            self.hot.go_back(bucket, share).await;
        }
        if crash {
            self.owners[partition] = self.owner(partition).await;
            return;
        }
        self.owners[partition].position = self.ends[partition];
        for bucket in 0..self.hot.buckets() {
            self.move_mark(partition, bucket, &written).await;
        }
        // A reader of the running system, who may be told of all that by now.
        if !self.is_down() {
            let _ = self.history.progress().await;
            self.told_to[partition] = Offset(self.ends[partition]);
        }
    }

    /// Entries are a pure function of the log: told again, they are the same.
    fn tell(&mut self, told: Told) {
        let all = self.truth.entry(told.entry.event.saga_id.clone()).or_default();
        match all.get(told.entry.sequence.0 as usize - 1) {
            Some(known) => assert_eq!((&known.entry, &known.saga), (&told.entry, &told.saga)),
            None => all.push(told),
        }
    }

    async fn load_missed(&mut self, partition: usize, records: &[(i64, StepEvent, Micros)]) {
        let owner = &self.owners[partition];
        let mut missed: Vec<SagaId> = records.iter().map(|(_, event, _)| event.saga_id.clone()).collect();
        missed.retain(|saga| !owner.sagas.contains_key(saga));
        missed.sort();
        missed.dedup();
        let end = owner.writer.next();
        let found = self.history.newest_sagas(&missed, &chain(partition), end).await.expect("newest sagas");
        for (saga, found) in missed.into_iter().zip(found) {
            let durable = self
                .truth
                .get(&saga)
                .into_iter()
                .flatten()
                .rfind(|told| told.entry.position.partition as usize != partition || told.entry.position.offset < end);
            let found = found.expect("cold answers").map(|newest| newest.saga);
            assert_eq!(found.as_ref(), durable.map(|told| &told.saga), "{saga} below {end} of {partition}");
            self.owners[partition].sagas.insert(saga, found);
        }
    }

    async fn move_mark(&mut self, partition: usize, bucket: u16, written: &Written) {
        let mut written = written.clone();
        let owner = &mut self.owners[partition];
        let position = Offset(owner.position);
        let next = owner.writer.next();
        let mut known = owner.marks[usize::from(bucket)];
        // A first mark, or one that an owner left: as if it had just been found.
        let mut found = known.is_none_or(|mark| mark.to < next || mark.to > position);
        loop {
            let old = known.filter(|mark| mark.to >= next);
            if found {
                let from = old.map_or(next, |mark| mark.to);
                let mut batch = HotBatch::default();
                let lost = owner.buffer.iter().filter(|(told, _)| told.entry.position.offset >= from);
                lost.for_each(|(told, member)| add(&mut batch, told, member));
                written = self.hot.write(&batch, self.tokens.next()).await.expect("memory store");
            }
            let to = old.map_or(position, |mark| mark.to.max(position));
            let new = Mark { from: old.map_or(next, |mark| mark.from), to, complete_through: self.now, settled: next };
            let wanted = MarkMove { chain: chain(partition), bucket, expect: known, new };
            match self.hot.move_marks(&[wanted], &written).await.expect("memory store")[0] {
                MarkOutcome::Moved => {
                    owner.marks[usize::from(bucket)] = Some(new);
                    return;
                }
                MarkOutcome::Found(other) => (known, found) = (other, true),
                MarkOutcome::Unproved => found = true,
            }
        }
    }

    async fn flush(&mut self, partition: usize) {
        let complete_through = self.now;
        let read_to_end = self.owners[partition].position == self.ends[partition];
        let owner = &mut self.owners[partition];
        if owner.position == owner.writer.next().0 {
            return;
        }
        let mut given: HashSet<&SagaId> = HashSet::new();
        let rows = owner.buffer.iter().map(|(told, _)| {
            // As if every other context were large: then the event tells what became of it.
            let whole = given.insert(&told.entry.event.saga_id) || told.entry.position.offset.0 % 2 == 0;
            NewRow {
                entry: Arc::new(told.entry.clone()),
                status: told.saga.state.status,
                context: whole.then(|| told.saga.state.context.clone()),
                saga: Some(encode_saga(&told.saga).into()),
            }
        });
        let rows = Arc::new(rows.collect());
        let segment = NewSegment {
            rows,
            complete_through: if read_to_end { complete_through } else { Micros(0) },
            ..NewSegment::empty(owner.writer.next(), Offset(owner.position - 1))
        };
        owner.writer.append(&segment).await.expect("append segment");
        let durable = owner.buffer.iter().map(|(told, _)| &told.entry);
        let durable = durable.map(|entry| DurableSaga { saga: entry.event.saga_id.clone(), sequence: entry.sequence });
        self.made_durable.extend(durable);
        owner.buffer.clear();
    }

    /// All marks are as their owners left them.
    pub async fn heal(&mut self) {
        for partition in 0..self.log.len() {
            self.consume(partition, false, None).await;
        }
        self.stale = false;
        self.wiped = false;
    }

    /// Hot may have lost what no owner has written again yet.
    pub fn lacks_hot(&self) -> bool {
        self.is_down() || self.wiped || self.stale
    }

    pub fn is_down(&self) -> bool {
        *self.hot.down.lock().expect("not poisoned")
    }
}

fn row(told: &Told) -> NewRow {
    NewRow {
        entry: Arc::new(told.entry.clone()),
        status: told.saga.state.status,
        context: Some(told.saga.state.context.clone()),
        saga: Some(encode_saga(&told.saga).into()),
    }
}

fn add(batch: &mut HotBatch, told: &Told, member: &Member) {
    let saga = told.entry.event.saga_id.clone();
    batch.sagas.push(SagaWrite { saga: saga.clone(), members: vec![member.clone()], persist: true });
    let minute = told.entry.effective_time.0.div_euclid(60_000_000);
    let saga_name = told.saga.state.saga_name.clone();
    if let Some(failure) = SagaFailure::of(&told.entry) {
        batch.failures.push(FailureFact {
            saga: saga.clone(),
            saga_name: saga_name.clone(),
            compensation: failure.compensation(),
            step: failure.step.unwrap_or_default(),
            at: failure.at,
            sequence: failure.sequence,
            error_code: failure.error.as_ref().and_then(|error| error.code.clone()),
            error_type: failure.error.and_then(|error| error.kind),
        });
    }
    batch.activity.push(ActivityFact { saga, saga_name, minute });
}
