//! Transactions on a real broker: visibility, fencing, stale memberships, speed.

use std::collections::BTreeMap;
use std::time::Instant;

use resaga::config;
use resaga::kafka::ends::Ends;
use resaga::kafka::publisher::Publisher;
use resaga::kafka::tail::{Tail, TailEvent, TailLimits};
use resaga::kafka::transaction::{PublishError, Transaction, TransactionalPublisher};
use resaga::saga::position::{Offset, Topic, TopicPartition};
use tokio::time::timeout;

use crate::kafka_fixture::{DEADLINE, Member, next, real, record, records, topic, unique};

/// Everything a `read_committed` reader sees of a partition up to its end.
async fn committed(kafka: &config::KafkaConfig, partition: &TopicPartition) -> Vec<String> {
    let end = Ends::new(kafka).unwrap().ends(std::slice::from_ref(partition)).await.unwrap()[0].1;
    let (_tail, mut events) = Tail::start(kafka, "judge", &[(partition.clone(), Offset(0))], TailLimits::default()).unwrap();
    let mut seen = Vec::new();
    loop {
        match timeout(DEADLINE, events.recv()).await.unwrap().unwrap() {
            TailEvent::Records { batch } => seen.extend(
                batch.into_iter().flat_map(|(b, _)| b.records).map(|r| String::from_utf8(r.value.unwrap().to_vec()).unwrap()),
            ),
            TailEvent::ReachedEnd { position, .. } if position >= end => return seen,
            TailEvent::ReachedEnd { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn one(topic: &Topic, value: &str) -> Transaction {
    Transaction { records: vec![record(topic, 0, value)], ..Transaction::default() }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: tests/run"]
async fn records_and_offsets_appear_together() {
    let kafka = real();
    let (input, output) = (topic(&kafka, "in", 1, &[]).await, topic(&kafka, "out", 1, &[]).await);
    Publisher::new(&kafka).unwrap().send(records(&input, 0, 5)).await.unwrap();
    let group = unique("g");
    let mut member = Member::join(&kafka, &group, &input);
    member.until("the end", |m| m.ends.len() == 1).await;
    let publisher = TransactionalPublisher::open(&kafka, &unique("tx")).await.unwrap();
    let read = TopicPartition::new(input.clone(), 0);
    let transaction = Transaction {
        records: records(&output, 0, 3),
        offsets: vec![(read.clone(), Offset(5))],
        group: Some(member.intake.group_metadata().await.unwrap()),
        ..Transaction::default()
    };
    publisher.publish(transaction).await.unwrap();
    assert_eq!(committed(&kafka, &TopicPartition::new(output, 0)).await, ["0:0", "0:1", "0:2"]);
    member.positions.clear();
    drop(member);
    let mut next = Member::join(&kafka, &group, &input);
    next.until("assignment", |m| m.assigned.len() == 1).await;
    assert_eq!(next.assigned[0].committed.as_ref().map(|(offset, _)| *offset), Some(Offset(5)));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: tests/run"]
async fn a_zombie_is_fenced_and_what_it_writes_is_never_seen() {
    let kafka = real();
    let topic = topic(&kafka, "zombie", 1, &[]).await;
    let id = unique("tx");
    let old = TransactionalPublisher::open(&kafka, &id).await.unwrap();
    old.publish(one(&topic, "old")).await.unwrap();
    let new = TransactionalPublisher::open(&kafka, &id).await.unwrap();
    let error = old.publish(one(&topic, "zombie")).await.unwrap_err();
    assert!(matches!(error, PublishError::Fenced(_)), "{error:?}");
    assert!(matches!(old.publish(one(&topic, "again")).await, Err(PublishError::Unavailable(_))), "a fenced publisher is closed");
    new.publish(one(&topic, "new")).await.unwrap();
    assert_eq!(committed(&kafka, &TopicPartition::new(topic, 0)).await, ["old", "new"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: tests/run"]
async fn a_membership_that_is_over_commits_nothing() {
    let kafka = real();
    let (input, output) = (topic(&kafka, "in", 2, &[]).await, topic(&kafka, "out", 1, &[]).await);
    Publisher::new(&kafka).unwrap().send(records(&input, 0, 5)).await.unwrap();
    let group = unique("g");
    let mut first = Member::join(&kafka, &group, &input);
    first.until("ends", |m| m.ends.len() == 2).await;
    let stale = first.intake.group_metadata().await.unwrap();
    // Another member joins: a new generation.
    let mut second = Member::join(&kafka, &group, &input);
    let shared = async {
        while second.assigned.len() != 1 || first.assigned.len() != 1 {
            tokio::select! {
                // Only the wait may be cut short: a revoke that is half handled is never answered.
                event = next(&mut first.events) => first.handle(event).await,
                event = next(&mut second.events) => second.handle(event).await,
            }
        }
    };
    timeout(DEADLINE, shared).await.expect("shared in time");
    let publisher = TransactionalPublisher::open(&kafka, &unique("tx")).await.unwrap();
    let offsets = vec![(TopicPartition::new(input.clone(), 0), Offset(5))];
    let transaction = Transaction { records: records(&output, 0, 3), offsets, group: Some(stale), ..Transaction::default() };
    let error = publisher.publish(transaction.clone()).await.unwrap_err();
    assert!(matches!(error, PublishError::Aborted(_)), "{error:?}");
    // The publisher goes on, with a membership that is valid.
    let group = Some(first.intake.group_metadata().await.unwrap());
    publisher.publish(Transaction { group, records: vec![record(&output, 0, "good")], ..transaction }).await.unwrap();
    assert_eq!(committed(&kafka, &TopicPartition::new(output, 0)).await, ["good"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: tests/run"]
async fn a_record_larger_than_its_topic_takes_aborts_all_and_the_publisher_goes_on() {
    let kafka = real();
    let topic = topic(&kafka, "small", 1, &[("max.message.bytes", "2000")]).await;
    let publisher = TransactionalPublisher::open(&kafka, &unique("tx")).await.unwrap();
    // Random text, so that it does not compress to nothing.
    let large: String = (0..200).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
    let records = vec![record(&topic, 0, "small"), record(&topic, 0, &large)];
    let error = publisher.publish(Transaction { records, ..Transaction::default() }).await.unwrap_err();
    assert_eq!(error, PublishError::TooLarge);
    // The refused batch left a hole in the producer's sequence, which librdkafka only mends by aborting once more.
    while let Err(error) = publisher.publish(one(&topic, "next")).await {
        assert!(matches!(error, PublishError::Aborted(_)), "{error:?}");
    }
    assert_eq!(committed(&kafka, &TopicPartition::new(topic.clone(), 0)).await, ["next"]);
    let error = Publisher::new(&kafka).unwrap().send(vec![record(&topic, 0, &large)]).await.unwrap_err();
    assert_eq!(error.code(), "too_large");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: tests/run"]
async fn reading_keeps_up_with_a_burst() {
    let kafka = real();
    let topic = topic(&kafka, "burst", 12, &[]).await;
    let publisher = Publisher::new(&kafka).unwrap();
    let value = (0..34).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect::<String>();
    const COUNT: usize = 120_000;
    let started = Instant::now();
    for part in 0..12 {
        publisher.send((0..COUNT / 12).map(|_| record(&topic, part, &value)).collect()).await.unwrap();
    }
    println!("wrote {COUNT} records of {} bytes in {:?}", value.len(), started.elapsed());
    let mut member = Member::join(&kafka, &unique("g"), &topic);
    let assigned = next(&mut member.events).await;
    member.handle(assigned).await;
    let started = Instant::now();
    let mut counts: BTreeMap<i32, usize> = BTreeMap::new();
    while counts.values().sum::<usize>() < COUNT {
        if let resaga::kafka::intake::IntakeEvent::Records { batch } = next(&mut member.events).await {
            for (part, _) in batch {
                *counts.entry(part.partition.partition).or_default() += part.records.len();
            }
        }
    }
    let rate = COUNT as f64 / started.elapsed().as_secs_f64();
    println!("read {rate:.0} records/s");
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), vec![COUNT / 12; 12]);
}
