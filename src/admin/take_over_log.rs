//! `store take-over-log`: an operator hands the replay log to the configured group.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::config::Config;
use crate::error::Error;
use crate::kafka::ends::Ends;
use crate::kafka::record::NewRecord;
use crate::kafka::transaction::{Transaction, TransactionalPublisher};
use crate::replay_log::newest_owners::{NewestOwner, of_other_groups};
use crate::replay_log::owner::{GROUP, GROUP_WHY, LogOwner};
use crate::roles::replay::log_claims::claim_id;
use crate::serve::{partition_counts, partitions_of};

/// Hands the log over to the configured group: the newest record of each partition is written again, as this group's.
/// Tells what was done.
pub async fn take_over_log(config: &Config, requested_by: &str, reason: &str) -> anyhow::Result<String> {
    let counts = partition_counts(config).await?;
    let ends = Ends::new(&config.kafka)?;
    let group = &config.kafka.group_id;
    let found = of_other_groups(&config.kafka, &ends, partitions_of(&config.topics.log, &counts)).await?;
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
    for NewestOwner { partition, .. } in found {
        // From here on nobody else claims it; looked at again, as somebody may have done so meanwhile.
        let id = claim_id(&config.topics.log, partition.partition);
        let publisher = TransactionalPublisher::open(&config.kafka, &id).await?;
        let Some(newest) = of_other_groups(&config.kafka, &ends, vec![partition]).await?.pop() else { continue };
        let records = vec![with_owner(newest, group, &why)];
        let transaction = Transaction { records, ..Transaction::default() };
        publisher.publish(transaction).await.map_err(|e| Error::unavailable(format!("hand over the replay log: {e}")))?;
        taken += 1;
    }
    Ok(format!("{taken} partitions of {} belong to group {group} now; restart its processes with role replay", config.topics.log))
}

/// The same record, as the group's, of the next generation.
fn with_owner(newest: NewestOwner, group: &str, why: &str) -> NewRecord {
    let NewestOwner { partition, record, owner } = newest;
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
