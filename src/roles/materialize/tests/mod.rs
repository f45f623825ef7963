//! The role as a whole: what one partition meets must not keep the others, nor itself for ever.

#[path = "../../../../tests/it/faults/mod.rs"]
#[allow(dead_code, reason = "shared with tests/it, which uses all of it")]
mod faults;
mod simulation;
mod world;

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::kafka::intake::{AssignedPartition, IntakeEvent};
use crate::saga::position::{Offset, TopicPartition};
use world::{EVENTS, World, empty_hot, story, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_states_cannot_be_loaded_takes_no_room_from_others_and_goes_on_where_it_stood() {
    let world = World::new(2);
    let stay = story("stays", 200, 2_000);
    let role = world.start(2, Duration::from_millis(50));
    world.send(0, "stays", &stay[..3]).await;
    until("durable", || async { world.durable(0, "stays").await.len() == 3 }).await;
    role.stop().await;

    // Nothing of it is in memory or in hot.
    let role = world.start(2, Duration::from_millis(50));
    world.send(1, "goes", &story("goes", 1, 10)).await;
    until("both are assigned", || async { role.sequence("goes").await == Some(1) }).await;
    world.hold("read", 0);
    world.send(0, "stays", &stay[3..]).await;
    let goes = story("goes", 200, 2_000);
    world.send(1, "goes", &goes[1..]).await;
    until("the other partition is folded to its end", || async {
        world.durable(1, "goes").await.last().is_some_and(|(_, sequence)| *sequence == 200)
    })
    .await;
    assert_eq!(world.durable(0, "stays").await.len(), 3);
    world.release();
    until("then the first is", || async { world.durable(0, "stays").await.last().is_some_and(|(offset, _)| *offset == 199) })
        .await;
    let whole: Vec<(i64, u64)> = (0..200).map(|offset| (offset, offset as u64 + 1)).collect();
    assert_eq!(world.durable(0, "stays").await.into_iter().filter(|(offset, _)| *offset >= 3).collect::<Vec<_>>(), whole[3..]);
    assert_eq!(world.alarms(), "");
    role.stop().await;
}

/// Events 0 to 2, the last ones; another owner reads only those that it `reads` up to `end`; then event 3.
async fn another_owner_reads_otherwise(
    mut values: Vec<String>,
    theirs: &[String],
    end: i64,
    reads: fn(i64) -> bool,
) -> Vec<(i64, u64)> {
    let world = World::new(1);
    let last = values.pop().expect("four");
    let role = world.start(1, Duration::from_millis(50));
    world.hold("create", 0);
    world.send(0, "s", &values).await;
    until("folded", || async { role.sequence("s").await.is_some_and(|sequence| sequence >= 2) }).await;
    world.append("s", theirs, end, reads).await;
    world.release();
    world.send(0, "s", &[last]).await;
    until("all is durable", || async { world.durable(0, "s").await.last().is_some_and(|(offset, _)| *offset == 3) }).await;
    let durable = world.durable(0, "s").await;
    until("and hot says the same", || async { role.sequence("s").await == durable.last().map(|(_, sequence)| *sequence) }).await;
    assert_eq!(world.alarms(), "");
    assert_eq!(world.metrics.partitions_refolded.get(), 1);
    role.stop().await;
    durable
}

#[tokio::test(flavor = "multi_thread")]
async fn where_another_owner_took_a_record_for_no_event_the_chain_counts_and_the_partition_goes_on() {
    let values = story("s", 4, 10);
    for end in [2, 1] {
        let durable = another_owner_reads_otherwise(values.clone(), &values, end, |offset| offset != 1).await;
        assert_eq!(durable, [(0, 1), (2, 2), (3, 3)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_another_owner_read_an_event_that_was_none_here_the_chain_counts_and_the_partition_goes_on() {
    let theirs = story("s", 4, 10);
    let mut values = theirs.clone();
    values[1] = "no event".into();
    let durable = another_owner_reads_otherwise(values, &theirs, 2, |_| true).await;
    assert_eq!(durable, [(0, 1), (1, 2), (2, 3), (3, 4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_being_opened_are_let_go_of_at_once() {
    let world = World::new(2);
    let (events, received) = mpsc::channel(8);
    let role = world.start_with(2, Duration::from_millis(50), empty_hot(), Some(received));
    world.hold("read", 0);
    let [first, second] = [0, 1].map(|number| TopicPartition::new(EVENTS, number));
    let assigned = |partition: &TopicPartition| AssignedPartition {
        partition: partition.clone(),
        committed: None,
        earliest: Offset(0),
        end: Offset(0),
        leader_epoch: None,
        topic_id: None,
    };
    let (reply, started) = oneshot::channel();
    let partitions = vec![assigned(&first), assigned(&second)];
    events.send(IntakeEvent::Assigned { partitions, reply }).await.expect("the role runs");
    let (reply, revoked) = oneshot::channel();
    let began = tokio::time::Instant::now();
    events.send(IntakeEvent::Revoked { partitions: vec![first], lost: false, reply }).await.expect("the role runs");
    revoked.await.expect("an answer");
    assert!(started.await.is_err(), "the intake asks again for what is left");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let (reply, started) = oneshot::channel();
    events.send(IntakeEvent::Assigned { partitions: vec![assigned(&second)], reply }).await.expect("the role runs");
    assert_eq!(started.await.expect("an answer").len(), 1);
    role.task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_cannot_be_opened_does_not_keep_those_that_were_assigned_with_it() {
    let world = World::new(2);
    world.hold("read", 0);
    world.send(0, "stays", &story("stays", 1, 10)).await;
    world.send(1, "goes", &story("goes", 1, 10)).await;
    let role = world.start(2, Duration::from_millis(50));
    until("one goes on", || async { !world.durable(1, "goes").await.is_empty() }).await;
    world.release();
    until("then the other", || async { !world.durable(0, "stays").await.is_empty() }).await;
    role.stop().await;
}
