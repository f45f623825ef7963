//! `store accept-gap`: an operator accepts that offsets are lost, and the partition goes on after them.

use super::chains::only;
use crate::cold::chain::{Appended, ChainWriter, newest_incarnation};
use crate::cold::gaps;
use crate::cold::owner;
use crate::cold::segment::NewSegment;
use crate::config::Config;
use crate::error::Error;
use crate::kafka::ends::Ends;
use crate::saga::position::{ChainId, Offset, TopicPartition};
use crate::serve::installation;

/// Writes a segment without rows that names the lost offsets, or begins the next incarnation of a re-created topic;
/// tells what it wrote.
pub async fn accept_gap(config: &Config, partition: TopicPartition, requested_by: &str, reason: &str) -> anyhow::Result<String> {
    let objects = crate::cold::open(&config.cold).await?;
    let ends = Ends::new(&config.kafka)?;
    let mine = installation(config, &ends).await?;
    owner::owners(&*objects).await?.check(&mine)?;
    let one = std::slice::from_ref(&partition);
    let earliest = only(&ends.earliest(one).await?);
    let topic_id = ends.topic_id(&partition.topic).await?;
    let incarnation = newest_incarnation(&*objects, &partition.topic, partition.partition).await?;
    let chain = ChainId { topic: partition.topic.clone(), incarnation, partition: partition.partition };
    let mut writer = ChainWriter::open(objects.clone(), chain.clone(), None).await?;
    let next = writer.next();
    // After the chain: an owner at work makes it longer meanwhile, and it must not seem to pass the end.
    let end = only(&ends.ends(one).await?);
    let was = writer.newest().and_then(|newest| newest.topic_id.clone());
    let replaced = matches!((&was, &topic_id), (Some(was), Some(is)) if was != is);
    if replaced || next > end {
        let chain = ChainId { incarnation: incarnation + 1, ..chain };
        ChainWriter::open(objects, chain.clone(), Some(earliest)).await?;
        return Ok(format!(
            "{partition} was replaced: its history goes on in incarnation {} from offset {earliest}",
            chain.incarnation
        ));
    }
    if next >= earliest {
        return Err(Error::invalid(
            "request_invalid",
            format!("{partition} has no gap: it is durable to {next}, the log begins at {earliest}"),
        )
        .into());
    }
    let last = Offset(earliest.0 - 1);
    let why = serde_json::json!({"requested_by": requested_by, "reason": reason}).to_string();
    gaps::give_up(&*objects, &chain, next, last, why).await?;
    let segment = NewSegment {
        topic_id,
        clock: writer.newest().map(|newest| newest.clock).unwrap_or_default(),
        installation: mine,
        gap: true,
        ..NewSegment::empty(next, last)
    };
    match writer.append(&segment).await? {
        Appended::Exists { stored, .. } if stored.end != last => Err(Error::unavailable(format!(
            "{partition}: an owner appended offsets {} to {} meanwhile; look again with `resaga doctor`",
            stored.start, stored.end
        ))
        .into()),
        Appended::Created { .. } | Appended::Exists { .. } => {
            Ok(format!("{partition}: offsets {next} to {last} are given up; restart the process that owns it"))
        }
    }
}
