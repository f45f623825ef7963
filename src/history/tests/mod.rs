//! Properties of the reader over real stores: whatever hot lost, an answer is the fold of every entry that it claims
//! to reach.

mod buckets;
mod long;
mod split;
mod world;

use std::time::Duration;

use proptest::prelude::*;

use super::answer::{PointInTime, Source, StateAnswer};
use crate::error::Error;
use crate::history::replay_lookup::NoReplays;
use crate::saga::failure::SagaFailure;
use crate::saga::fold_settings::SnapshotPolicy;
use crate::saga::partitioner::partition;
use crate::saga::patch::changed_pointers;
use crate::saga::position::{Offset, SagaId};
use crate::saga::selector::{FoundSaga, ReplayStanding, SagaFilter};
use crate::saga::state::Status;
use crate::saga::time::Micros;
use world::{Act, TOPIC, Told, World};

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let log = (any::<u8>(), any::<u8>(), any::<u8>(), 0..90_u8, any::<u8>(), any::<bool>())
        .prop_map(|(saga, kind, change, seconds, late, hole)| Act::Log { saga, kind, change, seconds, late, hole });
    let act = prop_oneof![
        12 => log,
        6 => (any::<u8>(), proptest::bool::weighted(0.2)).prop_map(|(partition, crash)| Act::Consume { partition, crash }),
        4 => any::<u8>().prop_map(|partition| Act::Flush { partition }),
        1 => Just(Act::Evict),
        1 => Just(Act::LateExpiry),
        1 => any::<u8>().prop_map(|bucket| Act::Wipe { bucket }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(bucket, share)| Act::GoBack { bucket, share }),
        2 => (any::<u8>(), any::<u8>(), 5..9_u8)
            .prop_map(|(partition, bucket, share)| Act::FailOver { partition, bucket, share }),
        1 => any::<u8>().prop_map(|partition| Act::Restart { partition }),
        1 => (0..20_u8).prop_map(|minutes_ago| Act::DropIndexes { minutes_ago }),
        1 => Just(Act::RaisePartitions),
        1 => proptest::bool::weighted(0.3).prop_map(Act::Down),
    ];
    proptest::collection::vec(act, 1..60)
}

fn policies() -> impl Strategy<Value = SnapshotPolicy> {
    prop_oneof![Just(SnapshotPolicy::BeforeEachStep), Just(SnapshotPolicy::Manual), Just(SnapshotPolicy::EveryEvent)]
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// The entries that an answer reaching so far must have.
fn reached<'w>(world: &'w World, saga: &SagaId, to: impl Fn(i32) -> Offset) -> Vec<&'w Told> {
    let all = world.truth.get(saga).into_iter().flatten();
    all.take_while(|told| told.entry.position.offset < to(told.entry.position.partition)).collect()
}

fn check_reach(world: &World, found: &StateAnswer, told: &[&Told]) {
    let all = &world.truth[&found.state.saga_id];
    let last = told.last().expect("found").entry.sequence.0 as usize;
    for missed in &all[last..] {
        assert!(missed.entry.recorded_time >= found.reach.complete_through, "{:?} is claimed and missing", missed.entry.position);
    }
}

async fn check_states(world: &World) {
    for (saga, all) in &world.truth {
        let mut whens = vec![PointInTime::Newest, PointInTime::Sequence(0), PointInTime::Sequence(all.len() as u64 + 1)];
        for told in all {
            let at = told.entry.effective_time;
            whens.extend([
                PointInTime::At(at),
                PointInTime::At(at.saturating_add(-1)),
                PointInTime::Sequence(told.entry.sequence.0),
            ]);
        }
        for when in whens {
            check_state(world, saga, when).await;
        }
        check_pages(world, saga).await;
    }
    check_many(world).await;
    match world.history.state(&"unknown".into(), PointInTime::Newest).await {
        Err(error) if error.is_unavailable() => assert!(world.lacks_hot(), "{error}"),
        unknown => assert_eq!(unknown.expect_err("no such saga").code(), "saga_not_found"),
    }
}

/// Many at once are each as it is alone.
async fn check_many(world: &World) {
    let sagas: Vec<SagaId> = world.truth.keys().cloned().chain(["unknown".into()]).collect();
    let together = world.history.entries_of(&sagas).await;
    assert_eq!(together.len(), sagas.len());
    for (saga, together) in sagas.iter().zip(together) {
        match (together, world.history.entries(saga).await) {
            (Ok(together), Ok(alone)) => assert_eq!(together.entries, alone.entries, "{saga}"),
            (together, alone) => assert_eq!(together.map_err(|e| e.code()).err(), alone.map_err(|e| e.code()).err(), "{saga}"),
        }
    }
}

async fn check_state(world: &World, saga: &SagaId, when: PointInTime) {
    match world.history.state(saga, when).await {
        Ok(found) => {
            let told = reached(world, saga, |partition| found.reach.of(TOPIC, partition));
            let inside = |told: &&&Told| match when {
                PointInTime::Newest => true,
                PointInTime::At(at) => told.entry.effective_time <= at,
                PointInTime::Sequence(sequence) => told.entry.sequence.0 <= sequence,
            };
            let expected = told.iter().rfind(inside).expect("found what was never written");
            assert_eq!(found.state, expected.saga.state, "{saga} {when:?} from {:?}", found.source);
            assert_eq!(found.folded, found.state.entry.sequence.0 - found.state.snapshot.map_or(0, |s| s.0));
            check_reach(world, &found, &told);
            if world.is_down() {
                assert_eq!(found.source, Source::Cold);
            }
        }
        Err(Error::Refused { code, .. }) => {
            let known = |partition: i32| world.durable_end(partition as usize).max(world.told_to[partition as usize]);
            assert!(!has(world, saga, when, known), "{saga} {when:?}: {code} but durable, or told before");
            let expected = match when {
                _ if world.history.state(saga, PointInTime::Newest).await.is_err() => "saga_not_found",
                PointInTime::At(_) => "before_first_event",
                _ => "sequence_not_found",
            };
            assert_eq!(code, expected, "{saga} {when:?}");
        }
        Err(error) if error.is_unavailable() => {
            assert!(world.lacks_hot(), "{saga} {when:?}: {error}");
            assert!(!has(world, saga, when, |partition| world.durable_end(partition as usize)), "{saga} {when:?}: durable");
        }
        Err(error) => panic!("{saga} {when:?}: {error}"),
    }
}

/// Does what is known so far answer the question?
fn has(world: &World, saga: &SagaId, when: PointInTime, to: impl Fn(i32) -> Offset) -> bool {
    let known = reached(world, saga, to);
    match when {
        PointInTime::Newest => !known.is_empty(),
        PointInTime::At(at) => known.iter().any(|told| told.entry.effective_time <= at),
        PointInTime::Sequence(sequence) => known.iter().any(|told| told.entry.sequence.0 == sequence),
    }
}

async fn check_pages(world: &World, saga: &SagaId) {
    let Ok(whole) = world.history.entries(saga).await else { return };
    let told = reached(world, saga, |partition| whole.reach.of(TOPIC, partition));
    assert_eq!(whole.entries.len(), told.len());
    let middle = told[told.len() / 2].entry.effective_time;
    let mut rows = Vec::new();
    let mut after = None;
    loop {
        let page = world.history.page(saga, Some(middle), None, after.as_deref(), 2).await.expect("a page");
        rows.extend(page.rows);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let first = told.partition_point(|told| told.entry.effective_time < middle);
    assert_eq!(rows.len(), told.len() - first);
    for (row, at) in rows.iter().zip(first..) {
        assert_eq!(row.entry.position, told[at].entry.position);
        assert_eq!(row.status, told[at].saga.state.status);
        let empty = crate::saga::json::Json::empty_object();
        let before = if at == 0 { &empty } else { &told[at - 1].saga.state.context };
        assert_eq!(row.changed, changed_pointers(before, &told[at].saga.state.context));
    }
    let checkpoints = world.history.checkpoints(saga, None, 1_000).await.expect("checkpoints").checkpoints;
    let expected = told.iter().rev().filter(|told| told.entry.snapshot).map(|told| told.entry.sequence);
    assert!(checkpoints.iter().map(|checkpoint| checkpoint.sequence).eq(expected));
}

fn filters(world: &World) -> Vec<SagaFilter> {
    let text = |text: &str| Some(text.to_owned());
    let middle = |share: i64| Some(Micros(1_768_000_000_000_000 + (world.now.0 - 1_768_000_000_000_000) / 4 * share));
    let base = SagaFilter::default();
    vec![
        base.clone(),
        SagaFilter { since: middle(1), until: middle(3), ..base.clone() },
        SagaFilter { saga_id: Some("saga-1".into()), ..base.clone() },
        SagaFilter { failed_step: text("charge"), ..base.clone() },
        SagaFilter { error_code: text("E1"), since: middle(2), ..base.clone() },
        SagaFilter { error_code: text("E0"), until: middle(3), ..base.clone() },
        SagaFilter { compensation_failed_step: text("reserve"), ..base.clone() },
        SagaFilter { statuses: vec![Status::Running], saga_name: text("name-1"), ..base },
    ]
}

async fn search(world: &World, filter: &SagaFilter, limit: usize, time: Duration) -> Vec<FoundSaga> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = world.history.search_within(time, filter, after.as_deref(), limit, &NoReplays).await.expect("a search");
        assert!(page.sagas.len() <= limit);
        found.extend(page.sagas);
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

async fn check_searches(world: &World) {
    for filter in filters(world) {
        let mut expected = Vec::new();
        for saga in world.truth.keys() {
            let Ok(state) = world.history.state(saga, PointInTime::Newest).await else { continue };
            let told = reached(world, saga, |partition| state.reach.of(TOPIC, partition));
            let failures: Vec<SagaFailure> = told.iter().filter_map(|told| SagaFailure::of(&told.entry)).collect();
            expected.extend(filter.find(&state.state, &failures, || ReplayStanding::None));
        }
        expected.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.saga_id.cmp(&b.saga_id)));
        let long = Duration::from_secs(60);
        for (limit, time) in [(2, long), (100, long), (100, Duration::ZERO)] {
            assert_eq!(search(world, &filter, limit, time).await, expected, "{filter:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn an_answer_is_the_fold_of_every_entry_that_it_claims_to_reach(acts in acts(), many in any::<bool>(), policy in policies()) {
        run(async {
            let mut world = World::new(if many { 4 } else { 1 }, policy).await;
            for (number, act) in acts.iter().enumerate() {
                world.act(act).await;
                if number % 8 == 7 {
                    check_states(&world).await;
                }
            }
            check_states(&world).await;
            if !world.stale {
                check_searches(&world).await;
            }
            world.act(&Act::Down(false)).await;
            world.heal().await;
            check_states(&world).await;
            check_searches(&world).await;
        });
    }
}

async fn written(buckets: u16) -> World {
    let mut world = World::new(buckets, SnapshotPolicy::BeforeEachStep).await;
    for number in 0..40 {
        world.act(&Act::Log { saga: number, kind: number, change: number, seconds: 20, late: 0, hole: false }).await;
    }
    world.act(&Act::Consume { partition: 0, crash: false }).await;
    world
}

async fn sources(world: &World) -> Vec<Source> {
    let mut sources = Vec::new();
    for saga in world.truth.keys() {
        sources.push(world.history.state(saga, PointInTime::Newest).await.expect("a state").source);
    }
    sources.dedup();
    sources
}

#[test]
fn hot_answers_alone_until_it_is_wiped_then_cold_does() {
    run(async {
        let mut world = written(1).await;
        assert_eq!(sources(&world).await, [Source::Hot]);
        world.act(&Act::Flush { partition: 0 }).await;
        assert_eq!(sources(&world).await, [Source::Hot]);
        world.act(&Act::Wipe { bucket: 0 }).await;
        assert_eq!(sources(&world).await, [Source::Cold]);
    });
}

#[test]
fn a_hot_store_that_does_not_answer_is_asked_once_for_an_answer() {
    run(async {
        let mut world = durable(6).await;
        world.act(&Act::Down(true)).await;
        assert_eq!(sources(&world).await, [Source::Cold]);
        assert_eq!(world.hot.unanswered.load(std::sync::atomic::Ordering::Relaxed), 1);
    });
}

#[test]
fn hot_entries_go_on_from_cold_after_a_wipe() {
    run(async {
        let mut world = written(1).await;
        world.act(&Act::Flush { partition: 0 }).await;
        world.act(&Act::Wipe { bucket: 0 }).await;
        let context_updated = 4;
        for saga in 0..6 {
            world.act(&Act::Log { saga, kind: context_updated, change: 1, seconds: 1, late: 0, hole: false }).await;
        }
        world.act(&Act::Consume { partition: 0, crash: false }).await;
        assert_eq!(sources(&world).await, [Source::Both]);
        check_states(&world).await;
    });
}

/// `entries` of one saga, all durable.
async fn durable(entries: u8) -> World {
    let mut world = World::new(1, SnapshotPolicy::EveryEvent).await;
    for change in 0..entries {
        world.act(&Act::Log { saga: 0, kind: 4, change, seconds: 1, late: 0, hole: false }).await;
    }
    world.act(&Act::Consume { partition: 0, crash: false }).await;
    world.act(&Act::Flush { partition: 0 }).await;
    world
}

#[test]
fn a_mark_is_not_believed_against_what_the_chain_is_known_to_hold() {
    run(async {
        let mut world = durable(6).await;
        world.forge("saga-0", 2).await;
        world.act(&Act::Restart { partition: 0 }).await;
        world.act(&Act::Log { saga: 0, kind: 4, change: 1, seconds: 1, late: 0, hole: false }).await;
        // Loads the saga, and compares it with the truth.
        world.act(&Act::Consume { partition: 0, crash: false }).await;
        assert_eq!(world.truth[&SagaId::from("saga-0")].len(), 7);
    });
}

#[test]
fn an_entry_that_is_not_above_what_the_chain_has_is_recognised() {
    run(async {
        let world = durable(6).await;
        let told = world.truth[&SagaId::from("saga-0")].last().expect("six").clone();
        assert_eq!(world.has_already(&[&told]).await, Some(told.entry.sequence));
        let mut next = told.clone();
        next.entry.sequence = told.entry.sequence.next();
        assert_eq!(world.has_already(&[&next]).await, None);
        let mut other = told;
        other.entry.event.saga_id = "saga-1".into();
        assert_eq!(world.has_already(&[&other]).await, None);
    });
}

#[test]
fn the_newest_segments_tell_sequences_wherever_the_catalog_ends() {
    run(async {
        let mut world = World::new(1, SnapshotPolicy::BeforeEachStep).await;
        for number in 0..40 {
            world.act(&Act::Log { saga: 0, kind: 2, change: number, seconds: 1, late: 0, hole: false }).await;
            world.act(&Act::Consume { partition: 0, crash: false }).await;
            world.act(&Act::Flush { partition: 0 }).await;
            let told = &world.truth[&SagaId::from("saga-0")];
            for back in told.iter().rev().take(8) {
                assert_eq!(world.has_already(&[back]).await, Some(back.entry.sequence), "of {}", told.len());
            }
            if number % 7 == 0 {
                world.act(&Act::Restart { partition: 0 }).await;
            }
        }
    });
}

#[test]
fn the_sagas_of_a_segment_come_with_their_newest_entries() {
    run(async {
        let mut world = written(1).await;
        world.act(&Act::Flush { partition: 0 }).await;
        let chain = world::chain(0);
        let (found, next) = world.history.durable_sagas(&chain, Offset(0)).await.expect("cold answers").expect("a segment");
        assert_eq!(next, world.durable_end(0));
        let newest = world.truth.iter().map(|(saga, told)| (saga.clone(), told.last().expect("entries").entry.sequence));
        assert!(found.into_iter().map(|durable| (durable.saga, durable.sequence)).eq(newest));
        assert_eq!(world.history.durable_sagas(&chain, next).await.expect("cold answers"), None);
    });
}

#[test]
fn a_long_saga_is_read_back_to_where_folding_can_begin() {
    run(async {
        let mut world = World::new(1, SnapshotPolicy::Manual).await;
        for number in 0..200_u8 {
            // No CHECKPOINT: no snapshot at all.
            world.act(&Act::Log { saga: 0, kind: number % 5, change: number, seconds: 1, late: 0, hole: false }).await;
            if number % 50 == 49 {
                world.act(&Act::Consume { partition: 0, crash: false }).await;
                world.act(&Act::Flush { partition: 0 }).await;
            }
        }
        for _ in 0..2 {
            for when in [
                PointInTime::Newest,
                PointInTime::Sequence(1),
                PointInTime::Sequence(77),
                PointInTime::Sequence(150),
                PointInTime::Sequence(200),
            ] {
                check_state(&world, &"saga-0".into(), when).await;
            }
            check_pages(&world, &"saga-0".into()).await;
            // Loads it with its window, and compares.
            world.act(&Act::Restart { partition: 0 }).await;
            world.act(&Act::Log { saga: 0, kind: 0, change: 0, seconds: 1, late: 0, hole: false }).await;
            world.act(&Act::Consume { partition: 0, crash: false }).await;
            world.act(&Act::Flush { partition: 0 }).await;
            world.act(&Act::Wipe { bucket: 0 }).await;
        }
    });
}

#[test]
fn a_saga_is_found_where_a_wrong_guess_of_the_partitioner_does_not_look() {
    run(async {
        let mut world = World::new(1, SnapshotPolicy::BeforeEachStep).await;
        world.act(&Act::RaisePartitions).await;
        for number in 0..40 {
            world.act(&Act::Log { saga: number, kind: number, change: number, seconds: 20, late: 0, hole: false }).await;
        }
        world.heal().await;
        world.guess(|key, partitions| (partition(key, partitions) + 1) % partitions);
        check_states(&world).await;
        for partition in 0..3 {
            world.act(&Act::Flush { partition }).await;
        }
        world.act(&Act::Wipe { bucket: 0 }).await;
        check_states(&world).await;
        assert_eq!(sources(&world).await, [Source::Cold]);
    });
}

#[test]
fn a_search_ends_however_many_segments_lie_at_one_time() {
    run(async {
        let mut world = World::new(1, SnapshotPolicy::Manual).await;
        // Each segment reaches 90 seconds back, into all those before it.
        for number in 0..40 {
            for (saga, late) in [(number, 0), (number + 1, 3)] {
                world.act(&Act::Log { saga, kind: 2, change: number, seconds: 1, late, hole: false }).await;
            }
            world.act(&Act::Consume { partition: 0, crash: false }).await;
            world.act(&Act::Flush { partition: 0 }).await;
        }
        world.act(&Act::Down(true)).await;
        let searches = check_searches(&world);
        tokio::time::timeout(Duration::from_secs(60), searches).await.expect("ends long before");
    });
}
