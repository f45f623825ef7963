//! Whose the replay log is by the newest records of its topic, read once, without a view of the whole log.

use std::time::Duration;

use super::owner::LogOwner;
use crate::config::KafkaConfig;
use crate::error::Result;
use crate::kafka::ends::Ends;
use crate::kafka::record::Record;
use crate::kafka::sample::Sample;
use crate::saga::position::TopicPartition;

/// Offsets looked at in each partition; more, where they are all control records.
const OFFSETS: i64 = 50;
/// Longest read.
const WITHIN: Duration = Duration::from_secs(10);

/// The newest record of a partition of the log, and whose it is by the newest that says so.
pub struct NewestOwner {
    pub partition: TopicPartition,
    pub record: Record,
    pub owner: LogOwner,
}

/// Of every partition of which one of the newest records says whose it is.
async fn newest_owners(kafka: &KafkaConfig, ends: &Ends, partitions: Vec<TopicPartition>) -> Result<Vec<NewestOwner>> {
    let mut found: Vec<(TopicPartition, Vec<Record>)> = Vec::new();
    let (mut left, mut offsets) = (partitions, OFFSETS);
    while !left.is_empty() {
        let mut sample = Sample::start(kafka, ends, &left, offsets, WITHIN).await?;
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
        Some(NewestOwner { partition, record: records.pop()?, owner })
    });
    Ok(owned.collect())
}

/// What the newest of these records says that says so: earlier versions left the header out here and there.
fn owner_by(records: &[Record]) -> Option<LogOwner> {
    records.iter().rev().find_map(|record| LogOwner::of(&record.headers))
}

/// Those of these partitions of the log that belong to another group than the configured one.
pub async fn of_other_groups(kafka: &KafkaConfig, ends: &Ends, partitions: Vec<TopicPartition>) -> Result<Vec<NewestOwner>> {
    let mut newest = newest_owners(kafka, ends, partitions).await?;
    newest.retain(|newest| newest.owner.group != kafka.group_id);
    Ok(newest)
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
