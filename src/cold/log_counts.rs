//! Under which partition counts of the requests topic the replay log was written: `replay-log/<topic>/<number>.json`, created
//! once each, before the first record under that count. By an earlier count a request's record is in another partition.

use serde::{Deserialize, Serialize};

use crate::cold::keys;
use crate::cold::object_store::ObjectStore;
use crate::error::{Error, Result};

/// Longest text that is read; ours are far below.
const MAX_TEXT: u64 = 4 << 10;
/// Most times that a count is raised.
const MAX_COUNTS: usize = 1_000;
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct LogCountText {
    version: u32,
    partitions: i32,
    /// Of the first: nothing was written before.
    log_was_empty: bool,
}

/// The counts, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogCounts {
    pub partitions: Vec<i32>,
    /// Nothing was written under any other. Never so of a log that an earlier version began.
    pub complete: bool,
}

/// What is known more than that; only what follows is read.
pub async fn read(store: &dyn ObjectStore, topic: &str, mut known: LogCounts) -> Result<LogCounts> {
    loop {
        let key = keys::log_count(topic, known.partitions.len() as u64);
        let Some(part) = store.get_suffix(&key, MAX_TEXT).await? else { return Ok(known) };
        let corrupt = |why: String| Error::corrupt(format!("read partition count of the replay log, object {key}: {why}"));
        let text: LogCountText =
            serde_json::from_slice(&part.bytes).map_err(|e| corrupt(format!("not the JSON of a count: {e}")))?;
        if text.version != VERSION {
            return Err(corrupt(format!("version {}, this build reads version {VERSION}", text.version)));
        }
        if text.partitions < 1 || known.partitions.len() >= MAX_COUNTS {
            let before = known.partitions.len();
            return Err(corrupt(format!("{} partitions after {before} other counts, expected 1 or more", text.partitions)));
        }
        if known.partitions.is_empty() {
            known.complete = text.log_was_empty;
        }
        known.partitions.push(text.partitions);
    }
}

/// Before something is written under this count. `log_is_empty`: nothing was ever written to the log; only of consequence
/// for the first count.
pub async fn add(store: &dyn ObjectStore, topic: &str, known: LogCounts, count: i32, log_is_empty: bool) -> Result<LogCounts> {
    let mut known = read(store, topic, known).await?;
    // Again, where somebody else was faster with another one.
    for _ in 0..MAX_COUNTS {
        if known.partitions.contains(&count) {
            return Ok(known);
        }
        let text = LogCountText { version: VERSION, partitions: count, log_was_empty: log_is_empty };
        let text = serde_json::to_vec(&text).map_err(|e| Error::bug(format!("write partition count: {e}")))?;
        store.create(&keys::log_count(topic, known.partitions.len() as u64), text.into(), &Vec::new()).await?;
        known = read(store, topic, known).await?;
    }
    Err(Error::corrupt(format!("the partition count of topic {topic} was raised more than {MAX_COUNTS} times")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cold::directory::Directory;

    fn counts(partitions: &[i32], complete: bool) -> LogCounts {
        LogCounts { partitions: partitions.to_vec(), complete }
    }

    #[tokio::test]
    async fn each_count_is_kept_once_and_whether_there_was_anything_before_is_said_once() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Directory::open(directory.path()).expect("store");
        let none = LogCounts::default();
        assert_eq!(read(&store, "log", none.clone()).await, Ok(none.clone()));
        assert_eq!(add(&store, "log", none.clone(), 12, true).await, Ok(counts(&[12], true)));
        assert_eq!(add(&store, "log", none.clone(), 12, false).await, Ok(counts(&[12], true)));
        let first = counts(&[12], true);
        assert_eq!(add(&store, "log", none.clone(), 24, false).await, Ok(counts(&[12, 24], true)), "by another process");
        assert_eq!(add(&store, "log", first.clone(), 18, false).await, Ok(counts(&[12, 24, 18], true)));
        assert_eq!(read(&store, "log", first).await, Ok(counts(&[12, 24, 18], true)));
        assert_eq!(add(&store, "older", none, 12, false).await, Ok(counts(&[12], false)));
    }
}
