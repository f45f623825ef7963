//! Whose the replay log is.

use std::collections::BTreeSet;

use super::check::{Check, Verdict, ok};
use crate::config::Config;
use crate::error::Result;
use crate::kafka::ends::Ends;
use crate::replay_log::newest_owners::of_other_groups;
use crate::serve::partitions_of;

pub async fn check(config: &Config, counts: &[(String, i32)]) -> Result<Check> {
    let foreign = of_other_groups(&config.kafka, &Ends::new(&config.kafka)?, partitions_of(&config.topics.log, counts)).await?;
    if foreign.is_empty() {
        return Ok(ok("replay log", "no other group has written to it"));
    }
    let groups: BTreeSet<&str> = foreign.iter().map(|newest| newest.owner.group.as_str()).collect();
    let groups = groups.into_iter().collect::<Vec<_>>().join(", ");
    Ok(Check {
        check: "replay log".into(),
        verdict: Verdict::Problem,
        detail: format!(
            "{} partitions of {} belong to group {groups}: group {} executes no replays from them",
            foreign.len(),
            config.topics.log,
            config.kafka.group_id
        ),
        remedy: Some("stop that group's role replay, then: resaga store take-over-log --reason ... --yes".into()),
        exit: None,
    })
}
