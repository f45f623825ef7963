//! The role with a scripted intake and a hot store that fails, both by a seed: the same seed gives the same trace, and whatever
//! happens the history at the end is what folding the log gives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::faults::Dice;
use super::faults::hot::{Fault, FaultyHot, Rates};
use super::world::{EVENTS, RunningRole, World, chain, empty_hot, now, until};
use crate::history::answer::PointInTime;
use crate::kafka::broker_clock::Stamp;
use crate::kafka::intake::{AssignedPartition, IntakeEvent, MemoryPermit, StartAt};
use crate::kafka::record::{PartitionRecords, Record};
use crate::saga::fold::{RecordMeta, Saga};
use crate::saga::position::{Offset, Position, TopicPartition};
use crate::saga::testing::settings as fold_settings;
use crate::wire::avro::Schemas;
use crate::wire::event::decode_event;

const STEPS: usize = 30;
const SAGAS: u64 = 5;
/// Marks are checked by the clock after a second: a run that was held up for so long may differ.
const HELD_UP: Duration = Duration::from_millis(900);
/// Of a thousand calls.
const RATES: Rates = Rates { before: 50, after: 60, slow: 0, wiped: 25, older_copy: 80 };

/// What a run did, to be compared with another of the same seed.
#[derive(Debug, PartialEq, Eq)]
struct Trace {
    steps: Vec<&'static str>,
    faults: Vec<(&'static str, Fault)>,
}

/// One partition, its log, and who owns it now.
struct Simulation {
    world: World,
    hot: Arc<FaultyHot>,
    dice: Dice,
    log: Vec<Record>,
    role: Option<(RunningRole, mpsc::Sender<IntakeEvent>)>,
    steps: Vec<&'static str>,
    /// Records given to the role so far, some again.
    delivered: u64,
    /// When marks were last moved or checked, and the longest time between two.
    checked_at: Instant,
    longest_pause: Duration,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            world: World::new(1),
            hot: Arc::new(FaultyHot::new(seed, RATES, empty_hot)),
            dice: Dice::new(seed.wrapping_mul(31)),
            log: Vec::new(),
            role: None,
            steps: Vec::new(),
            delivered: 0,
            checked_at: Instant::now(),
            longest_pause: Duration::ZERO,
        }
    }

    fn partition() -> TopicPartition {
        TopicPartition::new(EVENTS, 0)
    }

    fn end(&self) -> Offset {
        Offset(self.log.len() as i64)
    }

    async fn tell(&self, event: IntakeEvent) {
        let (_, events) = self.role.as_ref().expect("an owner");
        events.send(event).await.expect("the role runs");
    }

    /// Until nothing is being written. Only partitions that are named are taken away.
    async fn revoke(&self, partitions: Vec<TopicPartition>) {
        let (reply, done) = oneshot::channel();
        self.tell(IntakeEvent::Revoked { partitions, lost: false, reply }).await;
        done.await.expect("an answer");
    }

    /// A new process owns the partition, and reads on where the chain ends.
    async fn assign(&mut self) {
        let (events, received) = mpsc::channel(8);
        let never = Duration::from_secs(3_600);
        let role = self.world.start_with(1, never, self.hot.clone(), Some(received));
        self.role = Some((role, events));
        let (reply, started) = oneshot::channel();
        let assigned = AssignedPartition {
            partition: Self::partition(),
            committed: None,
            earliest: Offset(0),
            end: self.end(),
            leader_epoch: None,
            topic_id: None,
        };
        self.tell(IntakeEvent::Assigned { partitions: vec![assigned], reply }).await;
        let starts = started.await.expect("an answer");
        let [(_, StartAt::Offset(start))] = starts[..] else { panic!("not taken over: {starts:?}") };
        self.deliver(start).await;
    }

    /// The log from here on, until it is folded and nothing is being written.
    async fn deliver(&mut self, from: Offset) {
        self.marks_checked();
        let records = self.log[from.0 as usize..].to_vec();
        if records.is_empty() {
            return;
        }
        let end = self.end();
        self.delivered += records.len() as u64;
        let stamp = Stamp::Broker(records[records.len() - 1].timestamp);
        let records = PartitionRecords { partition: Self::partition(), records, position: end, leader_epoch: None, stamp };
        self.tell(IntakeEvent::Records { batch: vec![(records, MemoryPermit::of_nothing())] }).await;
        let folded = self.world.metrics.events_consumed.with_label_values(&[EVENTS]);
        until("folded", || async { folded.get() == self.delivered }).await;
        self.revoke(Vec::new()).await;
        let marks = self.hot.without_faults().await.marks(0).await.expect("memory store");
        assert!(marks.iter().any(|(of, mark)| *of == chain(0) && mark.to == end), "hot vouches for all: {marks:?}");
        self.marks_checked();
    }

    fn marks_checked(&mut self) {
        self.longest_pause = self.longest_pause.max(self.checked_at.elapsed());
        self.checked_at = Instant::now();
    }

    async fn append(&mut self) {
        let from = self.end();
        for _ in 0..=self.dice.below(4) {
            let (offset, saga) = (self.log.len(), format!("s{}", self.dice.below(SAGAS)));
            let is_first = self.log.iter().all(|record| record.key.as_deref() != Some(saga.as_bytes()));
            // One without a start is looked for in other partitions, beside everything else.
            let kind = if is_first { "SAGA_STARTED" } else { "CONTEXT_UPDATED" };
            let name = self.dice.below(3);
            let value = format!(
                r#"{{"event_id":"e{offset}","saga_id":"{saga}","saga_name":"n","kind":"{kind}","context_patch":{{"n{name}":{offset}}}}}"#
            );
            self.log.push(Record {
                offset: Offset(offset as i64),
                timestamp: now().saturating_add(offset as i64 * 1_000_000 - 3_600_000_000),
                by_broker: true,
                key: Some(saga.into()),
                value: Some(value.into()),
                headers: Vec::new(),
            });
        }
        self.deliver(from).await;
    }

    async fn crash(&mut self) {
        let (role, _) = self.role.take().expect("an owner");
        role.task.abort();
        assert!(role.task.await.is_err_and(|ended| ended.is_cancelled()), "it ran until it was ended");
        self.assign().await;
    }

    async fn hand_over(&mut self) {
        self.revoke(vec![Self::partition()]).await;
        self.crash().await;
    }

    async fn step(&mut self) {
        let step = match self.dice.below(20) {
            0..=12 => {
                self.append().await;
                "append"
            }
            13..=14 => {
                self.hot.wipe().await;
                "wipe"
            }
            15..=16 => {
                let changes = 1 + self.dice.below(12) as usize;
                self.hot.put_back(changes).await;
                "put back"
            }
            17..=18 => {
                self.hand_over().await;
                "hand over"
            }
            _ => {
                self.crash().await;
                "crash"
            }
        };
        self.steps.push(step);
    }

    /// What folding the log gives.
    fn folded(&self) -> BTreeMap<String, Saga> {
        let mut sagas: BTreeMap<String, Option<Saga>> = BTreeMap::new();
        for record in &self.log {
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            let Ok(event) = decode_event(key, value, &record.headers, 1 << 20, &Schemas::new(false)) else { panic!("an event") };
            let meta = RecordMeta { position: Position::new(EVENTS, 0, record.offset.0), timestamp: record.timestamp };
            let slot = sagas.entry(event.saga_id.as_str().to_owned()).or_default();
            Saga::admit(slot, event, &meta, false, &fold_settings());
        }
        sagas.into_iter().filter_map(|(id, saga)| Some((id, saga?))).collect()
    }

    /// Runs a seed to its end; `None`: it was held up.
    async fn run(seed: u64) -> Option<Trace> {
        let mut this = Self::new(seed);
        this.assign().await;
        for _ in 0..STEPS {
            this.step().await;
        }
        this.append().await;
        let faults = this.hot.trace().await;
        this.hot.set_rates(Rates::default()).await;
        for is_durable in [false, true] {
            let (role, _) = this.role.as_ref().expect("an owner");
            for (id, saga) in this.folded() {
                let found = role.history.state(&id.as_str().into(), PointInTime::Newest).await.expect("a state");
                assert_eq!(found.state, saga.state, "seed {seed}, saga {id}, durable: {is_durable}, after {:?}", this.steps);
            }
            this.revoke(vec![Self::partition()]).await;
        }
        let mut entries = 0;
        for id in this.folded().keys() {
            entries += this.world.durable(0, id).await.len();
        }
        assert_eq!(entries, this.log.len(), "seed {seed}: each record is one entry, once, after {:?}", this.steps);
        (this.longest_pause < HELD_UP).then_some(Trace { steps: this.steps, faults })
    }

    async fn run_undisturbed(seed: u64) -> Trace {
        for _ in 0..10 {
            if let Some(trace) = Self::run(seed).await {
                return trace;
            }
        }
        panic!("seed {seed}: each run was held up for {HELD_UP:?}")
    }
}

#[tokio::test]
async fn a_seed_gives_the_same_trace_each_time_and_the_history_is_what_folding_the_log_gives() {
    let (mut steps, mut faults) = (Vec::new(), 0);
    for seed in 1..=4 {
        let trace = Simulation::run_undisturbed(seed).await;
        assert_eq!(Simulation::run_undisturbed(seed).await, trace, "seed {seed}");
        steps.extend(trace.steps);
        faults += trace.faults.len();
    }
    assert!(faults > 10, "a schedule with hardly a fault proves nothing: {faults}");
    for step in ["append", "wipe", "put back", "hand over", "crash"] {
        assert!(steps.contains(&step), "no script has the step {step}");
    }
}
