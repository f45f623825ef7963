//! Kafka without servers: librdkafka's mock cluster.

use resaga::config;
use resaga::error::Error;
use resaga::kafka::ends::Ends;
use resaga::kafka::intake::{Intake, IntakeEvent, IntakeLimits, MemoryPermit};
use resaga::kafka::mock::MockKafka;
use resaga::kafka::publisher::Publisher;
use resaga::kafka::sample::Sample;
use resaga::kafka::tail::{Tail, TailEvent, TailLimits};
use resaga::kafka::transaction::{Transaction, TransactionalPublisher};
use resaga::saga::position::{Offset, Topic, TopicPartition};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use crate::kafka_fixture::{DEADLINE, Member, next, records};

fn mock(partitions: i32) -> (MockKafka, config::KafkaConfig, Topic) {
    let cluster = MockKafka::start().unwrap();
    cluster.create_topic("t", partitions).unwrap();
    let kafka = config::KafkaConfig { brokers: cluster.brokers(), ..config::KafkaConfig::default() };
    (cluster, kafka, "t".into())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read_to_the_end_with_key_value_and_headers() {
    let (_cluster, kafka, topic) = mock(2);
    let publisher = Publisher::new(&kafka).unwrap();
    publisher.send([records(&topic, 0, 3), records(&topic, 1, 2)].concat()).await.unwrap();
    let mut member = Member::join(&kafka, "g", &topic);
    member.until("both ends", |m| m.ends.len() == 2).await;
    assert_eq!(member.values[&TopicPartition::new("t", 0)], ["0:0", "0:1", "0:2"]);
    assert_eq!(member.ends[&TopicPartition::new("t", 1)], Offset(2));
    let ends = Ends::new(&kafka).unwrap();
    assert_eq!(ends.partitions_of("t").await.unwrap(), 2);
    let partitions = [TopicPartition::new("t", 1), TopicPartition::new("t", 0)];
    assert_eq!(ends.ends(&partitions).await.unwrap(), [(partitions[0].clone(), Offset(2)), (partitions[1].clone(), Offset(3))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyed_record_goes_where_java_producers_put_it() {
    let (_cluster, kafka, topic) = mock(12);
    let mut new = records(&topic, 0, 1);
    new[0].partition = None;
    new[0].key = Some("order-1".into());
    Publisher::new(&kafka).unwrap().send(new).await.unwrap();
    let mut member = Member::join(&kafka, "g", &topic);
    member.until("the record", |m| m.count() == 1).await;
    // Kafka's own DefaultPartitioner: (murmur2("order-1") & 0x7fffffff) % 12.
    let expected = resaga::saga::partitioner::partition(b"order-1", 12);
    assert_eq!(member.values.keys().next().unwrap().partition, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_revokes_first_so_that_the_role_can_commit() {
    let (_cluster, mut kafka, topic) = mock(1);
    // The mock keeps a member that left until its session ends.
    kafka.properties.insert("session.timeout.ms".into(), "6000".into());
    Publisher::new(&kafka).unwrap().send(records(&topic, 0, 5)).await.unwrap();
    let mut member = Member::join(&kafka, "g", &topic);
    member.until("the end", |m| m.ends.len() == 1).await;
    let intake = member.intake.clone();
    let stopped = tokio::spawn(async move { intake.stop().await });
    let event = next(&mut member.events).await;
    assert!(matches!(event, IntakeEvent::Revoked { lost: false, .. }), "{event:?}");
    member.handle(event).await;
    timeout(DEADLINE, stopped).await.unwrap().unwrap().unwrap();
    let mut again = Member::join(&kafka, "g", &topic);
    again.until("assignment", |m| m.assigned.len() == 1).await;
    assert_eq!(again.assigned[0].committed, Some((Offset(5), "drained".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_does_not_exist_is_named() {
    let (_cluster, kafka, _) = mock(1);
    let error = Ends::new(&kafka).unwrap().partitions_of("nowhere").await.unwrap_err();
    assert!(matches!(&error, Error::Invalid { code: "topic_missing", message } if message.contains("nowhere")), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_property_is_named() {
    let kafka =
        config::KafkaConfig { properties: [("no.such.thing".into(), "1".into())].into(), ..config::KafkaConfig::default() };
    let error = Intake::start(&kafka, "g", &["t".into()], IntakeLimits::default()).map(drop).unwrap_err();
    assert!(matches!(&error, Error::Invalid { message, .. } if message.contains("kafka.properties.no.such.thing")), "{error:?}");
    let error = TransactionalPublisher::open(&kafka, "x").await.map(drop).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_reads_whole_partitions_in_no_group() {
    let (_cluster, kafka, topic) = mock(1);
    let publisher = TransactionalPublisher::open(&kafka, "tx").await.unwrap();
    let transaction = Transaction { records: records(&topic, 0, 10), ..Transaction::default() };
    publisher.publish(transaction).await.unwrap();
    let partition = TopicPartition::new(topic, 0);
    let (_tail, mut events) = Tail::start(&kafka, "view", &[(partition.clone(), Offset(4))], TailLimits::default()).unwrap();
    let mut seen = Vec::new();
    loop {
        match timeout(DEADLINE, events.recv()).await.unwrap().unwrap() {
            TailEvent::Records { batch } => seen.extend(batch.into_iter().flat_map(|(b, _)| b.records).map(|r| r.offset.0)),
            TailEvent::ReachedEnd { position, .. } if position >= Offset(10) => break,
            TailEvent::ReachedEnd { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, (4..10).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_last_in_a_transaction_is_written_after_all_else() {
    let (_cluster, kafka, topic) = mock(2);
    let publisher = TransactionalPublisher::open(&kafka, "tx").await.unwrap();
    let ends = Ends::new(&kafka).unwrap();
    let last = TopicPartition::new(topic.clone(), 1);
    let (_tail, mut events) = Tail::start(&kafka, "view", &[(last, Offset(0))], TailLimits::default()).unwrap();
    let transaction = Transaction { records: records(&topic, 0, 5_000), last: records(&topic, 1, 1), ..Transaction::default() };
    let published = tokio::spawn(async move { publisher.publish(transaction).await });
    while !matches!(timeout(DEADLINE, events.recv()).await.unwrap().unwrap(), TailEvent::Records { .. }) {}
    // Seen before the commit: the mock cluster isolates nothing.
    let first = TopicPartition::new(topic, 0);
    assert_eq!(ends.ends(std::slice::from_ref(&first)).await.unwrap(), [(first, Offset(5_000))]);
    published.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_is_the_newest_records_of_each_partition_and_ends_by_itself() {
    let (_cluster, kafka, topic) = mock(3);
    let publisher = Publisher::new(&kafka).unwrap();
    publisher.send([records(&topic, 0, 30), records(&topic, 2, 2)].concat()).await.unwrap();
    let partitions: Vec<_> = (0..3).map(|n| TopicPartition::new("t", n)).collect();
    let ends = Ends::new(&kafka).unwrap();
    let mut sample = Sample::start(&kafka, &ends, &partitions, 5, DEADLINE).await.unwrap();
    let mut offsets = std::collections::BTreeMap::<i32, Vec<i64>>::new();
    while let Some(batch) = sample.next().await.unwrap() {
        for of in batch {
            offsets.entry(of.partition.partition).or_default().extend(of.records.iter().map(|record| record.offset.0));
        }
    }
    assert_eq!(offsets.into_iter().collect::<Vec<_>>(), [(0, vec![25, 26, 27, 28, 29]), (2, vec![0, 1])]);
}

/// Events until the partition is read again as `ticket` says; gives the offsets of it that came before that.
async fn until_read_again(events: &mut Receiver<IntakeEvent>, partition: &TopicPartition, ticket: u64) -> Vec<i64> {
    let mut before = Vec::new();
    loop {
        match next(events).await {
            IntakeEvent::ReadsAgain { partition: of, ticket: told, outcome } => {
                assert_eq!((&of, told, outcome), (partition, ticket, Ok(())));
                return before;
            }
            IntakeEvent::Records { batch } => {
                let of = batch.iter().map(|(records, _)| records).filter(|records| records.partition == *partition);
                before.extend(of.flat_map(|records| &records.records).map(|record| record.offset.0));
            }
            IntakeEvent::ReachedEnd { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_let_go_of_takes_no_room_and_is_read_again_from_where_its_role_says() {
    let (_cluster, kafka, topic) = mock(2);
    let publisher = Publisher::new(&kafka).unwrap();
    publisher.send(records(&topic, 0, 3_000)).await.unwrap();
    // Far less than partition 0 has.
    let limits = IntakeLimits { batch_records: 100, held_bytes: 50_000, ..IntakeLimits::default() };
    let mut member = Member::join_with(&kafka, "g", &topic, limits);
    let assigned = next(&mut member.events).await;
    member.handle(assigned).await;
    let [first, other] = [0, 1].map(|number| TopicPartition::new(topic.clone(), number));
    let mut waiting = Vec::new();
    while waiting.iter().map(|held: &MemoryPermit| held.bytes()).sum::<u64>() < 50_000 {
        if let IntakeEvent::Records { batch } = next(&mut member.events).await {
            waiting.extend(batch.into_iter().map(|(_, held)| held));
        }
    }
    member.intake.let_go(first.clone()).unwrap();
    drop(waiting);
    publisher.send(records(&topic, 1, 1_000)).await.unwrap();
    member.until("the other partition's end", |m| m.values.get(&other).is_some_and(|values| values.len() == 1_000)).await;
    member.intake.read_again(first.clone(), Offset(7), 5).unwrap();
    until_read_again(&mut member.events, &first, 5).await;
    member.values.clear();
    member.until("the end of the first", |m| m.positions.get(&first) == Some(&Offset(3_000))).await;
    let all: Vec<String> = (7..3_000).map(|n| format!("0:{n}")).collect();
    assert_eq!(member.values[&first], all, "from there on, and nothing is left out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_lets_go_of_a_partition_and_reads_it_again() {
    let (_cluster, kafka, topic) = mock(2);
    Publisher::new(&kafka).unwrap().send([records(&topic, 0, 50), records(&topic, 1, 50)].concat()).await.unwrap();
    let [first, other] = [0, 1].map(|number| TopicPartition::new(topic.clone(), number));
    let from = [(first.clone(), Offset(0)), (other.clone(), Offset(0))];
    let (tail, mut events) = Tail::start(&kafka, "view", &from, TailLimits::default()).unwrap();
    tail.let_go(first.clone()).unwrap();
    let (mut read, mut again) = (Vec::new(), false);
    while read.len() < 47 {
        match timeout(DEADLINE, events.recv()).await.unwrap().unwrap() {
            TailEvent::Records { batch } if again => {
                let of = batch.into_iter().map(|(records, _)| records).filter(|records| records.partition == first);
                read.extend(of.flat_map(|records| records.records).map(|record| record.offset.0));
            }
            TailEvent::ReachedEnd { partition, .. } if partition == other => {
                tail.read_again(first.clone(), Offset(3), 9).unwrap();
            }
            TailEvent::ReadsAgain { partition, ticket, outcome } => {
                assert_eq!((&partition, ticket, outcome), (&first, 9, Ok(())));
                again = true;
            }
            TailEvent::Records { .. } | TailEvent::ReachedEnd { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(read, (3..50).collect::<Vec<_>>());
}
