//! For `doctor`: sagas with events in more than one partition, by name: among the newest keys, and of those where they should not
//! be whether history has them elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use super::check::{Check, ok, warning};
use crate::error::Result;
use crate::partitioning::Keys;
use crate::saga::partitioner::Partitioner;
use crate::saga::position::{SagaId, TopicPartition};
use crate::serve::Stores;

/// Most strays that history is asked for.
const MAX_ASKED: usize = 20;
/// Most sagas that are named.
const MAX_NAMED: usize = 5;
/// Longest part of an id that is shown: others choose them.
const MAX_SHOWN: usize = 80;

/// The partitions of each saga that the newest keys have in several.
fn in_several(found: &[Keys]) -> BTreeMap<SagaId, BTreeSet<&TopicPartition>> {
    let mut homes: BTreeMap<SagaId, BTreeSet<&TopicPartition>> = BTreeMap::new();
    for keys in found {
        for saga in &keys.keys {
            homes.entry(saga.clone()).or_default().insert(&keys.partition);
        }
    }
    homes.retain(|_, partitions| partitions.len() > 1);
    homes
}

/// Keys that lie elsewhere than where this partitioner puts them.
fn strays(found: &[Keys], partitioner: Partitioner) -> BTreeMap<SagaId, BTreeSet<&TopicPartition>> {
    let mut strays: BTreeMap<SagaId, BTreeSet<&TopicPartition>> = BTreeMap::new();
    for keys in found {
        let is_stray = |saga: &&SagaId| partitioner.partition(saga.as_str().as_bytes(), keys.of) != keys.partition.partition;
        for saga in keys.keys.iter().filter(is_stray) {
            strays.entry(saga.clone()).or_default().insert(&keys.partition);
        }
    }
    strays
}

/// What `doctor` says. `stores`: where they answer.
pub(super) async fn check(found: &[Keys], partitioner: Option<Partitioner>, stores: Option<&Stores>) -> Result<Check> {
    const CHECK: &str = "sagas";
    let mut split = in_several(found);
    if let (Some(partitioner), Some(stores)) = (partitioner, stores) {
        for (saga, partitions) in strays(found, partitioner).into_iter().take(MAX_ASKED) {
            if !split.contains_key(&saga) && stores.history.is_split(&saga).await? {
                split.insert(saga, partitions);
            }
        }
    }
    if split.is_empty() {
        return Ok(ok(CHECK, "none of the newest has events in more than one partition"));
    }
    let named: Vec<String> = split.iter().take(MAX_NAMED).map(|(saga, partitions)| named(saga, partitions)).collect();
    let more = split.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!("; {more} more") } else { String::new() };
    Ok(warning(
        CHECK,
        format!("events in more than one partition: {}{more}; replays of these are refused", named.join("; ")),
        "let all producers of step events use one partitioner; one partition's events are each saga's history, the others' are not",
    ))
}

fn named(saga: &SagaId, partitions: &BTreeSet<&TopicPartition>) -> String {
    let id: String = saga.as_str().chars().take(MAX_SHOWN).collect();
    let cut = if id.len() < saga.as_str().len() { "..." } else { "" };
    let partitions: Vec<String> = partitions.iter().map(ToString::to_string).collect();
    format!("saga {id:?}{cut} (newest in {})", partitions.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::check::Verdict;

    fn keys(partition: i32, sagas: &[&str]) -> Keys {
        let keys = sagas.iter().map(|saga| SagaId::from(*saga)).collect();
        Keys { partition: TopicPartition::new("t", partition), of: 3, keys }
    }

    #[tokio::test]
    async fn a_saga_in_two_partitions_is_named_cut_and_escaped() {
        let whole = [keys(0, &["a", "a"]), keys(1, &["b"])];
        assert_eq!(check(&whole, None, None).await.expect("checked").verdict, Verdict::Ok);
        let long = format!("line\n{}", "x".repeat(200));
        let split = [keys(0, &["a", &long]), keys(2, &["b", &long, &long])];
        let found = check(&split, None, None).await.expect("checked");
        assert_eq!(found.verdict, Verdict::Warning);
        assert!(found.detail.contains(r#"saga "line\nxxxx"#) && found.detail.contains("t[0], t[2]"), "{}", found.detail);
        assert!(!found.detail.contains(&"x".repeat(100)), "{}", found.detail);
    }
}
