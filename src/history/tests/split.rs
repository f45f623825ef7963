//! A saga with events in two partitions: one history everywhere, whatever of it is hot or cold, and it is told.

use std::sync::Arc;
use std::time::Duration;

use crate::cold::chain::ChainWriter;
use crate::cold::directory::Directory;
use crate::cold::object_store::ObjectStore;
use crate::cold::reader::ColdReader;
use crate::cold::segment::{NewRow, NewSegment};
use crate::history::answer::PointInTime;
use crate::history::chains::{Chains, TopicLayout};
use crate::history::{History, MAX_ENTRIES};
use crate::hot::memory::MemoryHot;
use crate::hot::{HotBatch, HotStore, Mark, MarkMove, Member, SagaWrite, Tokens, Written};
use crate::saga::entry::Entry;
use crate::saga::event::{Kind, StepEvent};
use crate::saga::fold::{Admitted, RecordMeta, Saga};
use crate::saga::partitioner::partition;
use crate::saga::position::{ChainId, Offset, Position, SagaId};
use crate::saga::state::{Anomaly, State};
use crate::saga::testing::{event, settings};
use crate::saga::time::Micros;
use crate::wire::frame::{encode_member, encode_saga};

const TOPIC: &str = "t";
const PARTITIONS: i32 = 4;
const SECOND: i64 = 1_000_000;

/// What one partition has of the saga.
struct Half {
    chain: ChainId,
    told: Vec<(Entry, Saga, Member)>,
}

impl Half {
    /// An event at each of these seconds.
    fn fold(partition: i32, seconds: impl Iterator<Item = i64>) -> Self {
        let (mut slot, mut told): (Option<Saga>, Vec<_>) = (None, Vec::new());
        for (offset, second) in (0..).zip(seconds) {
            let kind = if offset == 0 && partition == home() { Kind::SagaStarted } else { Kind::ContextUpdated };
            let event_id = format!("{partition}-{offset}");
            let event = StepEvent { event_id, saga_id: saga(), occurred_at: Some(Micros(second * SECOND)), ..event(kind) };
            let meta = RecordMeta { position: Position::new(TOPIC, partition, offset), timestamp: Micros(second * SECOND) };
            let before = slot.as_ref().map(|saga| saga.state.context.clone());
            let Admitted::Entry(entry) = Saga::admit(&mut slot, event, &meta, false, &settings()) else { panic!("no entry") };
            let saga = slot.clone().expect("a saga");
            let bytes = encode_member(&entry, 0, before.as_ref(), (offset % 16 == 15).then_some(&saga));
            let member = Member { effective_time: entry.effective_time, bytes };
            told.push((*entry, saga, member));
        }
        Self { chain: ChainId { topic: TOPIC.into(), incarnation: 0, partition }, told }
    }

    fn end(&self) -> Offset {
        Offset(self.told.len() as i64)
    }

    async fn heat(&self, hot: &dyn HotStore) {
        let members = self.told.iter().map(|(.., member)| member.clone()).collect();
        let sagas = vec![SagaWrite { saga: saga(), members, persist: false }];
        hot.write(&HotBatch { sagas, ..HotBatch::default() }, Tokens::default().next()).await.expect("written");
    }

    async fn mark(&self, hot: &dyn HotStore, from: Offset) {
        let new = Mark { from, to: self.end(), complete_through: Micros(i64::MAX), settled: Offset(0) };
        let wanted = MarkMove { chain: self.chain.clone(), bucket: 0, expect: None, new };
        hot.move_marks(&[wanted], &Written::default()).await.expect("marked");
    }

    async fn freeze(&self, store: &Arc<dyn ObjectStore>) {
        let mut writer = ChainWriter::open(store.clone(), self.chain.clone(), Some(Offset(0))).await.expect("open");
        let row = |(entry, saga, _): &(Entry, Saga, Member)| NewRow {
            entry: Arc::new(entry.clone()),
            status: saga.state.status,
            context: Some(saga.state.context.clone()),
            saga: Some(encode_saga(saga).into()),
        };
        let segment = NewSegment {
            rows: Arc::new(self.told.iter().map(row).collect()),
            complete_through: Micros(i64::MAX),
            ..NewSegment::empty(Offset(0), Offset(self.end().0 - 1))
        };
        writer.append(&segment).await.expect("append");
    }

    /// After all entries up to then.
    fn at(&self, upto: Micros) -> Option<State> {
        let (_, saga, _) = self.told.iter().rfind(|(entry, ..)| entry.effective_time <= upto)?;
        Some(saga.state.clone())
    }
}

fn saga() -> SagaId {
    "order-1".into()
}

fn home() -> i32 {
    partition(b"order-1", PARTITIONS)
}

type Place = Option<fn(&[u8], i32) -> i32>;

/// Which halves a store has: of the home, of the other partition.
type Has = (bool, bool);

async fn history(
    halves: &[Half; 2],
    hot_has: Has,
    cold_has: Has,
    (known, likely): (Place, Place),
) -> (History, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("directory");
    let hot: Arc<dyn HotStore> = Arc::new(MemoryHot::new(Duration::from_secs(60), Box::new(|| Duration::ZERO)));
    let store: Arc<dyn ObjectStore> = Arc::new(Directory::open(directory.path()).expect("store"));
    for (half, (is_hot, is_cold)) in halves.iter().zip([(hot_has.0, cold_has.0), (hot_has.1, cold_has.1)]) {
        if is_cold {
            half.freeze(&store).await;
        }
        if is_hot {
            half.heat(&*hot).await;
        }
        // A mark outlives the keys that expired.
        if hot_has != (false, false) {
            half.mark(&*hot, Offset(0)).await;
        }
    }
    let layout =
        TopicLayout { topic: TOPIC.into(), incarnations: Vec::new(), partition_counts: vec![PARTITIONS], partitioner: known };
    let chains = Chains::new(vec![layout]);
    chains.prefer(likely);
    (History::new(hot, Arc::new(ColdReader::new(store, 1 << 20)), Arc::new(chains), MAX_ENTRIES), directory)
}

/// Without what only a reader says.
fn bare(mut state: State) -> State {
    state.anomalies.retain(|anomaly| *anomaly != Anomaly::PartitionConflict);
    state
}

async fn check(name: &str, history: &History, own: &Half, upto: impl Iterator<Item = i64>) {
    for second in upto {
        let at = Micros(second * SECOND);
        match history.state(&saga(), PointInTime::At(at)).await {
            Ok(found) => assert_eq!(Some(bare(found.state)), own.at(at), "{name} at {second}"),
            Err(error) => assert_eq!((error.code(), own.at(at)), ("before_first_event", None), "{name} at {second}: {error}"),
        }
    }
    let newest = history.state(&saga(), PointInTime::Newest).await.expect(name);
    assert!(newest.split && newest.state.anomalies.contains(&Anomaly::PartitionConflict), "{name}");
    assert_eq!(Some(bare(newest.state)), own.at(Micros::MAX), "{name}");
    let whole = history.entries(&saga()).await.expect(name);
    assert!(whole.split && whole.entries.iter().eq(own.told.iter().map(|(entry, ..)| entry)), "{name}");
    let many = history.entries_of(&[saga()]).await.pop().expect("one").expect(name);
    assert_eq!(many.entries, whole.entries, "{name}");
    let page = history.page(&saga(), None, None, None, 1_000).await.expect(name);
    assert_eq!(page.rows.len(), own.told.len(), "{name}");
    assert!(history.is_split(&saga()).await.expect(name), "{name}");
}

#[tokio::test]
async fn a_saga_in_two_partitions_has_one_history_hot_and_cold_and_it_is_told() {
    let murmur2: Place = Some(partition);
    let other = (home() + 1) % PARTITIONS;
    // In turn; one after the other, few and many; the other one first.
    let times: [(Vec<i64>, Vec<i64>); 4] = [
        ((1..9).map(|n| 10 * n).collect(), (1..9).map(|n| 10 * n + 5).collect()),
        ((1..6).collect(), (20..70).collect()),
        ((1..60).collect(), (70..75).collect()),
        ((50..53).collect(), (1..40).collect()),
    ];
    for (number, (of_home, of_other)) in times.into_iter().enumerate() {
        let halves = [Half::fold(home(), of_home.into_iter()), Half::fold(other, of_other.into_iter())];
        let stores = [
            ((true, true), (false, false)),
            ((true, true), (true, true)),
            ((false, false), (true, true)),
            ((false, true), (true, false)),
        ];
        for (hot_has, cold_has) in stores {
            for (known, likely) in [(murmur2, murmur2), (None, murmur2), (None, None)] {
                let own = if likely.is_some() || home() < other { &halves[0] } else { &halves[1] };
                let (history, _directory) = history(&halves, hot_has, cold_has, (known, likely)).await;
                history.follow_all().await.expect("cold answers");
                let name = format!(
                    "{number}: hot {hot_has:?}, cold {cold_has:?}, known {}, likely {}",
                    known.is_some(),
                    likely.is_some()
                );
                check(&name, &history, own, 0..130).await;
            }
        }
    }
}

#[tokio::test]
async fn each_partition_folds_its_own_events_whatever_the_other_has() {
    let other = (home() + 1) % PARTITIONS;
    let halves = [Half::fold(home(), 1..20), Half::fold(other, 5..80)];
    for (hot_has, cold_has) in [((true, true), (true, true)), ((false, false), (true, true))] {
        for known in [Some(partition as fn(&[u8], i32) -> i32), None] {
            let (history, _directory) = history(&halves, hot_has, cold_has, (known, None)).await;
            for half in &halves {
                let found = history.newest_sagas(&[saga()], &half.chain, half.end()).await.expect("loaded").pop().expect("one");
                let found = found.expect("loaded").expect("there");
                assert_eq!(found.saga, half.told.last().expect("some").1, "hot {hot_has:?}, known {}", known.is_some());
            }
        }
    }
}
