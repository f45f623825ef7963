//! Whose the replay log is: what `doctor` says of it, and `store take-over-log`, with which an operator hands it over.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::check::ok;
use super::{Check, Verdict, topics};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kafka::ends::Ends;
use crate::kafka::record::{NewRecord, Record};
use crate::kafka::sample::Sample;
use crate::kafka::transaction::{Transaction, TransactionalPublisher};
use crate::roles::replay::log_claims::claim_id;
use crate::saga::position::TopicPartition;
use crate::wire::log_owner::{GROUP, GROUP_WHY, LogOwner};

/// Offsets looked at in each partition; more, where they are all control records.
const OFFSETS: i64 = 50;
/// Longest read.
const WITHIN: Duration = Duration::from_secs(10);

/// The newest record of a partition of the log, and whose it is by the newest that says so.
struct Newest {
    partition: TopicPartition,
    record: Record,
    owner: LogOwner,
}

/// Of every partition of which one of the newest records says whose it is.
async fn newest(config: &Config, ends: &Ends, partitions: Vec<TopicPartition>) -> Result<Vec<Newest>> {
    let mut found: Vec<(TopicPartition, Vec<Record>)> = Vec::new();
    let (mut left, mut offsets) = (partitions, OFFSETS);
    while !left.is_empty() {
        let mut sample = Sample::start(&config.kafka, ends, &left, offsets, WITHIN).await?;
        while let Some(batch) = sample.next().await? {
            for records in batch.into_iter().filter(|records| !records.records.is_empty()) {
                match found.iter_mut().find(|(of, _)| *of == records.partition) {
                    Some((_, before)) => before.extend(records.records),
                    None => found.push((records.partition, records.records)),
                }
            }
        }
        // Those that had fewer offsets than that are read whole.
        let (earliest, latest) = (ends.earliest(&left).await?, ends.ends(&left).await?);
        let longer = earliest.into_iter().zip(latest).filter(|((_, earliest), (_, end))| end.0 - earliest.0 > offsets);
        left = longer.map(|((partition, _), _)| partition).filter(|of| !found.iter().any(|(is, _)| is == of)).collect();
        offsets = offsets.saturating_mul(10);
    }
    let owned = found.into_iter().filter_map(|(partition, mut records)| {
        let owner = owner_by(&records)?;
        Some(Newest { partition, record: records.pop()?, owner })
    });
    Ok(owned.collect())
}

/// What the newest of these records says that says so: earlier versions left the header out here and there.
fn owner_by(records: &[Record]) -> Option<LogOwner> {
    records.iter().rev().find_map(|record| LogOwner::of(&record.headers))
}

fn partitions(config: &Config, counts: &[(String, i32)]) -> Vec<TopicPartition> {
    let log = &config.topics.log;
    let count = counts.iter().find(|(name, _)| name == log).map_or(0, |(_, count)| *count);
    (0..count).map(|partition| TopicPartition::new(log.as_str(), partition)).collect()
}

/// The partitions that are another group's.
async fn anothers(config: &Config, ends: &Ends, of: Vec<TopicPartition>) -> Result<Vec<Newest>> {
    let mut newest = newest(config, ends, of).await?;
    newest.retain(|newest| newest.owner.group != config.kafka.group_id);
    Ok(newest)
}

pub(super) async fn check(config: &Config, counts: &[(String, i32)]) -> Result<Check> {
    let anothers = anothers(config, &Ends::new(&config.kafka)?, partitions(config, counts)).await?;
    if anothers.is_empty() {
        return Ok(ok("replay log", "no other group has written to it"));
    }
    let groups: BTreeSet<&str> = anothers.iter().map(|newest| newest.owner.group.as_str()).collect();
    let groups = groups.into_iter().collect::<Vec<_>>().join(", ");
    Ok(Check {
        check: "replay log".into(),
        verdict: Verdict::Problem,
        detail: format!(
            "{} partitions of {} belong to group {groups}: group {} carries out no replays from them",
            anothers.len(),
            config.topics.log,
            config.kafka.group_id
        ),
        remedy: Some("stop that group's role replay, then: resaga store take-over-log --reason ... --yes".into()),
        exit: None,
    })
}

/// Hands the log over to the configured group: the newest record of each partition is written again, as this group's.
/// Tells what was done.
pub async fn take_over_log(config: &Config, requested_by: &str, reason: &str) -> anyhow::Result<String> {
    let counts = topics::partition_counts(config).await?;
    let ends = Ends::new(&config.kafka)?;
    let group = &config.kafka.group_id;
    let found = anothers(config, &ends, partitions(config, &counts)).await?;
    if found.is_empty() {
        let message = format!("no partition of {} belongs to another group than {group}", config.topics.log);
        return Err(Error::invalid("request_invalid", message).into());
    }
    let others: BTreeSet<&str> = found.iter().map(|newest| newest.owner.group.as_str()).collect();
    for other in others {
        let members = ends.members_of(&format!("{other}-replay")).await?;
        if members > 0 {
            let message = format!("group {other}-replay still has {members} members: stop that group's role replay first");
            return Err(Error::invalid("request_invalid", message).into());
        }
    }
    let why = serde_json::json!({"requested_by": requested_by, "reason": reason}).to_string();
    let mut taken = 0;
    for Newest { partition, .. } in found {
        // From here on nobody else claims it; looked at again, as somebody may have done so meanwhile.
        let id = claim_id(&config.topics.log, partition.partition);
        let publisher = TransactionalPublisher::open(&config.kafka, &id).await?;
        let Some(newest) = anothers(config, &ends, vec![partition]).await?.pop() else { continue };
        let records = vec![again(newest, group, &why)];
        let transaction = Transaction { records, ..Transaction::default() };
        publisher.publish(transaction).await.map_err(|e| Error::unavailable(format!("hand over the replay log: {e}")))?;
        taken += 1;
    }
    Ok(format!("{taken} partitions of {} belong to group {group} now; restart its processes with role replay", config.topics.log))
}

/// The same record, of the next generation.
fn again(newest: Newest, group: &str, why: &str) -> NewRecord {
    let Newest { partition, record, owner } = newest;
    let mut headers = record.headers;
    headers.retain(|(name, _)| name != GROUP && name != GROUP_WHY);
    headers.push(LogOwner { group: group.to_owned(), generation: owner.generation + 1 }.header());
    headers.push((GROUP_WHY.to_owned(), Some(Bytes::from(why.to_owned()))));
    NewRecord {
        topic: partition.topic.to_string(),
        partition: Some(partition.partition),
        key: record.key,
        value: record.value,
        headers,
        timestamp: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::position::Offset;
    use crate::saga::time::Micros;

    #[test]
    fn a_newest_record_that_does_not_say_whose_it_is_makes_the_log_nobodys_no_more_than_its_view() {
        let record = |offset, headers| Record {
            offset: Offset(offset),
            timestamp: Micros(0),
            by_broker: true,
            key: None,
            value: None,
            headers,
        };
        let owner = |group: &str| LogOwner { group: group.into(), generation: 1 };
        let records = [record(1, vec![owner("green").header()]), record(2, vec![owner("blue").header()]), record(3, Vec::new())];
        assert_eq!(owner_by(&records), Some(owner("blue")));
        assert_eq!(owner_by(&records[2..]), None);
    }
}
