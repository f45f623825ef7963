//! Intake on a real broker: positions, ends, hand-over, back-pressure.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use resaga::error::Error;
use resaga::kafka::ends::Ends;
use resaga::kafka::intake::{IntakeEvent, IntakeLimits, StartAt};
use resaga::kafka::publisher::Publisher;
use resaga::kafka::topics::{Topics, plan, wanted};
use resaga::kafka::transaction::{Transaction, TransactionalPublisher};
use resaga::saga::position::{Offset, TopicPartition};
use tokio::time::timeout;

use crate::kafka_fixture::{DEADLINE, Member, next, real, record, records, topic, unique};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: tests/run"]
async fn reading_starts_where_the_role_says() {
    let kafka = real();
    let topic = topic(&kafka, "positions", 3, &[]).await;
    let publisher = Publisher::new(&kafka).unwrap();
    publisher.send((0..3).flat_map(|p| records(&topic, p, 10)).collect()).await.unwrap();
    let mut member = Member::join(&kafka, &unique("g"), &topic);
    let IntakeEvent::Assigned { partitions, reply } = next(&mut member.events).await else { panic!("not assigned") };
    assert_eq!(partitions.len(), 3);
    for assigned in &partitions {
        assert_eq!((assigned.earliest, assigned.end, &assigned.committed), (Offset(0), Offset(10), &None));
        assert!(assigned.topic_id.is_some() && assigned.leader_epoch.is_some(), "{assigned:?}");
    }
    let at = |p: i32| TopicPartition::new(topic.clone(), p);
    let epoch = partitions[0].leader_epoch.unwrap();
    reply
        .send(vec![
            (at(0), StartAt::Offset(Offset(7))),
            (at(1), StartAt::OffsetInEpoch(Offset(2), epoch)),
            (at(2), StartAt::Stop),
        ])
        .unwrap();
    member.until("two ends", |m| m.ends.len() == 2).await;
    assert_eq!(member.values[&at(0)], ["0:7", "0:8", "0:9"]);
    assert_eq!(member.values[&at(1)].len(), 8);
    assert!(!member.values.contains_key(&at(2)), "a stopped partition was read");
    // What was stopped can be read later.
    member.intake.seek(at(2), Offset(9)).await.unwrap();
    member.intake.resume(vec![at(2)]).await.unwrap();
    member.until("the stopped one's end", |m| m.ends.contains_key(&at(2))).await;
    assert_eq!(member.values[&at(2)], ["2:9"]);
    // And back.
    member.intake.seek(at(0), Offset(1)).await.unwrap();
    member.until("read again", |m| m.values[&at(0)].len() == 3 + 9).await;
    assert_eq!(member.values[&at(0)][3], "0:1");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: tests/run"]
async fn the_position_passes_control_records_and_the_end_is_the_high_watermark() {
    let kafka = real();
    let topic = topic(&kafka, "control", 1, &[]).await;
    let partition = TopicPartition::new(topic.clone(), 0);
    let publisher = TransactionalPublisher::open(&kafka, &unique("tx")).await.unwrap();
    let transaction = Transaction { records: records(&topic, 0, 3), ..Transaction::default() };
    publisher.publish(transaction).await.unwrap();
    let mut member = Member::join(&kafka, &unique("g"), &topic);
    member.until("the end", |m| m.ends.get(&partition) == Some(&Offset(4))).await;
    assert_eq!(member.count(), 3);
    let ends = Ends::new(&kafka).unwrap().ends(std::slice::from_ref(&partition)).await.unwrap();
    assert_eq!(ends, [(partition.clone(), Offset(4))]);
    assert_eq!(Ends::new(&kafka).unwrap().each_end(&[partition]).await.unwrap()[0].1.as_ref().unwrap().end, Offset(4));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: tests/run"]
async fn an_open_transaction_holds_the_position_but_not_the_end() {
    let kafka = real();
    let topic = topic(&kafka, "open", 1, &[]).await;
    let partition = TopicPartition::new(topic.clone(), 0);
    Publisher::new(&kafka).unwrap().send(records(&topic, 0, 2)).await.unwrap();
    // What a worker leaves that dies in the middle of a transaction.
    let id = unique("tx");
    let dying: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &kafka.brokers).set("transactional.id", &id).create().unwrap();
    dying.init_transactions(DEADLINE).unwrap();
    dying.begin_transaction().unwrap();
    dying.send(BaseRecord::<[u8], [u8]>::to(&topic).partition(0).payload(b"open")).map_err(|(e, _)| e).unwrap();
    dying.flush(DEADLINE).unwrap();
    let mut member = Member::join(&kafka, &unique("g"), &topic);
    member.until("the last stable offset", |m| m.ends.contains_key(&partition)).await;
    assert_eq!((member.ends[&partition], member.assigned[0].end), (Offset(2), Offset(3)));
    assert_eq!(Ends::new(&kafka).unwrap().ends(std::slice::from_ref(&partition)).await.unwrap()[0].1, Offset(3));
    // Its successor settles it: the end is reached past the abort marker, and the open record was never seen.
    TransactionalPublisher::open(&kafka, &id).await.unwrap();
    member.until("the end", |m| m.ends[&partition] == Offset(4)).await;
    assert_eq!(member.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: tests/run"]
async fn two_members_share_partitions_and_hand_over_what_they_committed() {
    let kafka = real();
    let topic = topic(&kafka, "share", 4, &[]).await;
    let group = unique("g");
    let publisher = Publisher::new(&kafka).unwrap();
    publisher.send((0..4).flat_map(|p| records(&topic, p, 20)).collect()).await.unwrap();
    let mut first = Member::join(&kafka, &group, &topic);
    first.until("all ends", |m| m.ends.len() == 4).await;
    let mut second = Member::join(&kafka, &group, &topic);
    let shared = async {
        while second.assigned.len() != 2 || first.assigned.len() != 2 {
            tokio::select! {
                event = next(&mut first.events) => first.handle(event).await,
                event = next(&mut second.events) => second.handle(event).await,
            }
        }
    };
    timeout(DEADLINE, shared).await.expect("partitions are shared in time");
    for assigned in &second.assigned {
        assert_eq!(assigned.committed, Some((Offset(20), "drained".to_owned())), "handed over: {assigned:?}");
    }
    publisher
        .send((0..4).flat_map(|p| (20..25).map(move |n| (p, n))).map(|(p, n)| record(&topic, p, &format!("{p}:{n}"))).collect())
        .await
        .unwrap();
    let both = async {
        while first.count() + second.count() < 100 {
            tokio::select! {
                event = next(&mut first.events) => first.handle(event).await,
                event = next(&mut second.events) => second.handle(event).await,
            }
        }
    };
    timeout(DEADLINE, both).await.expect("all is read in time");
    let mut all: Vec<_> = first.values.values().chain(second.values.values()).flatten().cloned().collect();
    all.sort();
    all.dedup();
    assert_eq!((all.len(), first.count() + second.count()), (100, 100), "each record once");
    // A member that stops hands over its share at once, not when its session ends (45 s).
    let left = std::time::Instant::now();
    let stopping = first.intake.clone();
    let stopped = tokio::spawn(async move { stopping.stop().await });
    // An end that it reached may come before.
    first.until("gave all up", |m| m.assigned.is_empty()).await;
    timeout(DEADLINE, stopped).await.unwrap().unwrap().unwrap();
    second.until("all partitions", |m| m.assigned.len() == 4).await;
    assert!(left.elapsed() < Duration::from_secs(15), "took over after {:?}", left.elapsed());
    assert!(second.assigned.iter().filter(|a| a.committed.as_ref().is_some_and(|(o, _)| *o == Offset(25))).count() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: tests/run"]
async fn a_slow_role_holds_no_more_than_its_limit_and_keeps_its_partitions() {
    let mut kafka = real();
    kafka.properties.insert("max.poll.interval.ms".into(), "6000".into());
    kafka.properties.insert("session.timeout.ms".into(), "6000".into());
    let topic = topic(&kafka, "slow", 1, &[]).await;
    let value = "x".repeat(10_000);
    let publisher = Publisher::new(&kafka).unwrap();
    publisher.send((0..2_000).map(|_| record(&topic, 0, &value)).collect()).await.unwrap();
    let limits = IntakeLimits { batch_bytes: 100_000, held_bytes: 1_000_000, ..IntakeLimits::default() };
    let mut member = Member::join_with(&kafka, &unique("g"), &topic, limits);
    let assigned = next(&mut member.events).await;
    member.handle(assigned).await;
    // Takes batches and lets none go, for longer than max.poll.interval.
    let mut held = Vec::new();
    let stalled = async {
        loop {
            match next(&mut member.events).await {
                IntakeEvent::Records { batch } => held.extend(batch),
                other => panic!("{other:?}"),
            }
        }
    };
    assert!(timeout(Duration::from_secs(9), stalled).await.is_err(), "the intake stands still");
    let bytes: u64 = held.iter().map(|(_, held)| held.bytes()).sum();
    assert!((1_000_000..1_200_000).contains(&bytes), "{bytes} bytes handed out");
    let seen: usize = held.iter().map(|(part, _)| part.records.len()).sum();
    drop(held);
    member.until("the rest", |m| m.count() + seen == 2_000).await;
    assert_eq!(member.assigned.len(), 1, "still ours");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: tests/run"]
async fn a_paused_partition_is_not_read_until_it_is_resumed() {
    let kafka = real();
    let topic = topic(&kafka, "pause", 2, &[]).await;
    let publisher = Publisher::new(&kafka).unwrap();
    let mut member = Member::join(&kafka, &unique("g"), &topic);
    member.until("ends", |m| m.ends.len() == 2).await;
    let paused = TopicPartition::new(topic.clone(), 0);
    member.intake.pause(vec![paused.clone()]).await.unwrap();
    publisher.send([records(&topic, 0, 5), records(&topic, 1, 5)].concat()).await.unwrap();
    member.until("the other", |m| m.count() == 5).await;
    assert!(!member.values.contains_key(&paused));
    member.intake.resume(vec![paused.clone()]).await.unwrap();
    member.until("all", |m| m.count() == 10).await;
    assert_eq!(member.values[&paused], ["0:0", "0:1", "0:2", "0:3", "0:4"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: tests/run"]
async fn offsets_that_are_gone_are_told_and_the_rest_is_read_on() {
    let kafka = real();
    let topic = topic(&kafka, "gone", 2, &[]).await;
    let publisher = Publisher::new(&kafka).unwrap();
    publisher.send([records(&topic, 0, 5), records(&topic, 1, 5)].concat()).await.unwrap();
    let mut member = Member::join(&kafka, &unique("g"), &topic);
    let IntakeEvent::Assigned { reply, .. } = next(&mut member.events).await else { panic!("not assigned") };
    let at = |p: i32| TopicPartition::new(topic.clone(), p);
    reply.send(vec![(at(0), StartAt::Offset(Offset(500))), (at(1), StartAt::Offset(Offset(0)))]).unwrap();
    member.until("both", |m| m.gone == [at(0)] && m.count() == 5).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: tests/run"]
async fn a_commit_never_goes_back_and_one_for_a_lost_partition_is_refused() {
    let kafka = real();
    let topic = topic(&kafka, "commit", 1, &[]).await;
    Publisher::new(&kafka).unwrap().send(records(&topic, 0, 9)).await.unwrap();
    let group = unique("g");
    let mut member = Member::join(&kafka, &group, &topic);
    member.until("the end", |m| m.ends.len() == 1).await;
    let ours = TopicPartition::new(topic.clone(), 0);
    member.intake.commit(vec![(ours.clone(), Offset(6), "six".into())]).await.unwrap();
    member.intake.commit(vec![(ours.clone(), Offset(4), "four".into())]).await.unwrap();
    let error = member.intake.commit(vec![(TopicPartition::new(topic.clone(), 7), Offset(1), String::new())]).await.unwrap_err();
    assert!(matches!(error, Error::Refused { code: "not_assigned", .. }), "{error:?}");
    drop(member);
    let mut next = Member::join(&kafka, &group, &topic);
    next.until("assignment", |m| m.assigned.len() == 1).await;
    assert_eq!(next.assigned[0].committed, Some((Offset(6), "six".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: tests/run"]
async fn a_topic_that_is_missing_fails_the_intake_and_is_not_created() {
    let kafka = real();
    let missing = unique("missing");
    let mut member = Member::join(&kafka, &unique("g"), &missing.as_str().into());
    let failed = loop {
        match next(&mut member.events).await {
            IntakeEvent::Failed(error) => break error,
            IntakeEvent::Assigned { reply, .. } => reply.send(Vec::new()).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(&failed, Error::Invalid { code: "topic_missing", message } if message.contains(&missing)), "{failed:?}");
    assert_eq!(Topics::new(&kafka).unwrap().describe(&[missing]).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: tests/run"]
async fn topics_are_created_as_wanted_and_then_nothing_differs() {
    let mut config = resaga::config::Config { kafka: real(), ..resaga::config::Config::default() };
    let suffix = unique("");
    for name in
        [&mut config.topics.requests, &mut config.topics.restored, &mut config.topics.log, &mut config.topics.dead_letters]
    {
        name.push_str(&suffix);
    }
    config.topics.events = vec![unique("events")];
    config.topics.partitions = 2;
    let wanted = wanted(&config);
    let names: Vec<_> = wanted.iter().map(|topic| topic.name.clone()).collect();
    let topics = Topics::new(&config.kafka).unwrap();
    assert_eq!(plan(&wanted, &topics.describe(&names).await.unwrap()).len(), 5);
    topics.create(&wanted).await.unwrap();
    topics.create(&wanted).await.unwrap();
    let found = topics.describe(&names).await.unwrap();
    assert_eq!(plan(&wanted, &found), []);
    assert!(found[0].is_log_append_time() && !found[2].is_log_append_time());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: tests/run"]
async fn a_broker_that_does_not_answer_is_unavailable() {
    let kafka = resaga::config::KafkaConfig { brokers: "127.0.0.1:1".into(), ..resaga::config::KafkaConfig::default() };
    let error = Ends::new(&kafka).unwrap().partitions_of("t").await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    let error = TransactionalPublisher::open(&kafka, "x").await.map(drop).unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: tests/run"]
async fn partitions_of_which_the_role_has_not_said_where_to_start_are_taken_away_as_quickly_as_others() {
    let kafka = real();
    let topic = topic(&kafka, "open", 4, &[]).await;
    let group = unique("g");
    let mut slow = Member::join(&kafka, &group, &topic);
    // It opens them, and does not get on with it.
    let IntakeEvent::Assigned { partitions, reply } = next(&mut slow.events).await else { panic!("not assigned") };
    assert_eq!(partitions.len(), 4);
    let mut other = Member::join(&kafka, &group, &topic);
    let began = std::time::Instant::now();
    let revoked = next(&mut slow.events).await;
    let IntakeEvent::Revoked { partitions: taken, .. } = &revoked else { panic!("{revoked:?}") };
    let taken = taken.clone();
    slow.handle(revoked).await;
    drop(reply);
    let both = async {
        while other.assigned.is_empty() || slow.assigned.is_empty() {
            tokio::select! {
                event = next(&mut slow.events) => slow.handle(event).await,
                event = next(&mut other.events) => other.handle(event).await,
            }
        }
    };
    timeout(DEADLINE, both).await.expect("both have some in time");
    assert!(began.elapsed() < Duration::from_secs(20), "after {:?}", began.elapsed());
    let given: Vec<_> = other.assigned.iter().map(|assigned| assigned.partition.clone()).collect();
    assert!(given.iter().all(|partition| taken.contains(partition)), "{given:?} of {taken:?}");
    let left: Vec<_> = slow.assigned.iter().map(|assigned| assigned.partition.clone()).collect();
    assert!(left.len() == 2 && left.iter().all(|partition| !given.contains(partition)), "{left:?}, {given:?}");
}
