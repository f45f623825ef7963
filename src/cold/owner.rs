//! Whose archive it is: `owner/<number>.json`, created once each; the newest counts, those before handed it over.
//!
//! Claiming it is also the proof that the store keeps conditional writes, on which the chain stands. Knows no Kafka.

use serde::{Deserialize, Serialize};

use crate::cold::keys;
use crate::cold::object_store::{ObjectStore, Put};
use crate::cold::segment::SegmentInfo;
use crate::error::{Error, Result};
use crate::saga::installation::{Installation, OF_ANOTHER};

/// Code: the store cannot do what durability stands on.
pub const UNFIT: &str = "cold_store_unfit";
/// Longest text that is read; ours are far below.
const MAX_TEXT: u64 = 64 << 10;
/// Most times that an archive is handed over.
const MAX_OWNERS: u64 = 10_000;

#[derive(Serialize, Deserialize)]
struct OwnerText {
    version: u32,
    cluster_id: String,
    group_id: String,
    /// Of a hand-over.
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

const VERSION: u32 = 1;

/// The installations that an archive has belonged to, oldest first; the last has it now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owners(Vec<Installation>);

impl Owners {
    pub fn now(&self) -> Option<&Installation> {
        self.0.last()
    }

    /// Where the next owner would be written: it is there once the archive was handed over.
    pub fn next_key(&self) -> String {
        keys::owner(self.0.len() as u64)
    }

    /// `Invalid` [`OF_ANOTHER`]: the archive is not this installation's.
    pub fn check(&self, mine: &Installation) -> Result<()> {
        match self.now() {
            Some(owner) if owner != mine => Err(of_another(owner, mine)),
            _ => Ok(()),
        }
    }

    /// `Corrupt`: the segment was written by an installation that the archive never belonged to. Where no owner is known
    /// nothing is held against anybody.
    pub fn check_segment(&self, info: &SegmentInfo) -> Result<()> {
        if self.0.is_empty() || self.0.contains(&info.installation) {
            return Ok(());
        }
        let (chain, start, of) = (&info.chain, info.start, &info.installation);
        Err(Error::corrupt(format!("segment {start} of {chain} was written by another installation: {of}")))
    }
}

fn of_another(owner: &Installation, mine: &Installation) -> Error {
    let message = format!(
        "cold store: it belongs to another installation ({owner}), this is {mine}; give this one a cold.url of its own, or hand \
         the archive over with `resaga store hand-over`"
    );
    Error::invalid(OF_ANOTHER, message)
}

/// The owners so far, and the newest one's bytes.
async fn read(store: &dyn ObjectStore) -> Result<(Owners, Option<bytes::Bytes>)> {
    let (mut owners, mut newest) = (Owners::default(), None);
    while let Some(part) = store.get_suffix(&owners.next_key(), MAX_TEXT).await? {
        let corrupt = |why: String| Error::corrupt(format!("read owner of archive, object {}: {why}", owners.next_key()));
        let text: OwnerText =
            serde_json::from_slice(&part.bytes).map_err(|e| corrupt(format!("not the JSON of an owner: {e}")))?;
        if text.version != VERSION {
            return Err(corrupt(format!("version {}, this build reads version {VERSION}", text.version)));
        }
        if owners.0.len() as u64 >= MAX_OWNERS {
            return Err(corrupt(format!("more than {MAX_OWNERS} owners")));
        }
        owners.0.push(Installation { cluster_id: text.cluster_id, group_id: text.group_id });
        newest = Some(part.bytes);
    }
    Ok((owners, newest))
}

/// The owners so far; none: nobody has claimed it.
pub async fn owners(store: &dyn ObjectStore) -> Result<Owners> {
    read(store).await.map(|(owners, _)| owners)
}

/// Makes an archive that is nobody's this installation's. `Invalid`: it is another's, or no place for an archive.
pub async fn claim(store: &dyn ObjectStore, mine: &Installation) -> Result<Owners> {
    let (mut owners, mut newest) = read(store).await?;
    if newest.is_none() {
        let text = text(mine, None)?;
        store.create(&owners.next_key(), text.into(), &Vec::new()).await?;
        // Ours, or that of whoever was faster.
        (owners, newest) = read(store).await?;
    }
    owners.check(mine)?;
    let newest = newest.ok_or_else(|| Error::unavailable("claim cold store: what was written is not there"))?;
    probe_conditional_put(store, &keys::owner(owners.0.len() as u64 - 1), newest).await?;
    Ok(owners)
}

/// For `doctor`: whose it is and whether it is fit, without claiming it.
pub async fn look(store: &dyn ObjectStore) -> Result<Owners> {
    let (owners, newest) = read(store).await?;
    match newest {
        Some(bytes) => probe_conditional_put(store, &keys::owner(owners.0.len() as u64 - 1), bytes).await?,
        None => {
            let key = keys::owner_probe();
            store.create(&key, "{}".into(), &Vec::new()).await?;
            let kept = probe_conditional_put(store, &key, "{}".into()).await;
            store.delete(&key).await?;
            kept?;
        }
    }
    Ok(owners)
}

/// Gives the archive to this installation; what the owners before wrote stays its own. Gives the one before.
pub async fn hand_over(store: &dyn ObjectStore, mine: &Installation, why: (&str, &str)) -> Result<Installation> {
    let (owners, _) = read(store).await?;
    let before =
        owners.now().ok_or_else(|| Error::invalid("request_invalid", "the archive is nobody's yet: `serve` claims it"))?;
    if before == mine {
        return Err(Error::invalid("request_invalid", format!("the archive belongs to this installation already: {mine}")));
    }
    match store.create(&owners.next_key(), text(mine, Some(why))?.into(), &Vec::new()).await? {
        Put::Created => Ok(before.clone()),
        Put::Exists => Err(Error::unavailable("hand over cold store: somebody else did at the same time; look again")),
    }
}

fn text(installation: &Installation, why: Option<(&str, &str)>) -> Result<Vec<u8>> {
    let (requested_by, reason) = why.map(|(by, reason)| (by.to_owned(), reason.to_owned())).unzip();
    let Installation { cluster_id, group_id } = installation.clone();
    let text = OwnerText { version: VERSION, cluster_id, group_id, requested_by, reason };
    serde_json::to_vec(&text).map_err(|e| Error::bug(format!("write owner: {e}")))
}

/// An object that is there must survive being created again. The same bytes: nothing is lost where it does not.
async fn probe_conditional_put(store: &dyn ObjectStore, key: &str, bytes: bytes::Bytes) -> Result<()> {
    match store.create(key, bytes, &Vec::new()).await? {
        Put::Exists => Ok(()),
        Put::Created => Err(Error::invalid(
            UNFIT,
            "cold store: it ignores If-None-Match, so two owners of a partition would overwrite each other's segments; use a \
             server that has conditional writes",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use bytes::Bytes;

    use super::*;
    use crate::cold::directory::Directory;
    use crate::cold::object_store::{Metadata, ObjectInfo, ObjectPart};

    fn store() -> (Arc<Directory>, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("directory");
        (Arc::new(Directory::open(directory.path()).expect("store")), directory)
    }

    fn of(cluster: &str, group: &str) -> Installation {
        Installation { cluster_id: cluster.into(), group_id: group.into() }
    }

    #[tokio::test]
    async fn an_archive_is_of_whoever_came_first_until_it_is_handed_over() {
        let (store, _directory) = store();
        let [first, group, cluster] = [of("c", "g"), of("c", "other"), of("other", "g")];
        assert_eq!(owners(&*store).await, Ok(Owners::default()));
        assert_eq!(hand_over(&*store, &first, ("ops", "x")).await.map_err(|e| e.code()), Err("request_invalid"));
        for _ in 0..2 {
            assert_eq!(claim(&*store, &first).await, Ok(Owners(vec![first.clone()])));
        }
        for other in [&group, &cluster] {
            let error = claim(&*store, other).await.expect_err("of another");
            assert_eq!(error.code(), OF_ANOTHER);
            assert!(error.to_string().contains(&first.to_string()) && error.to_string().contains(&other.to_string()), "{error}");
        }
        assert_eq!(hand_over(&*store, &first, ("ops", "x")).await.map_err(|e| e.code()), Err("request_invalid"), "it has it");
        assert_eq!(hand_over(&*store, &group, ("ops", "x")).await, Ok(first.clone()));
        let owners = claim(&*store, &group).await.expect("handed over");
        assert_eq!(owners, Owners(vec![first.clone(), group]));
        assert_eq!(claim(&*store, &first).await.map_err(|e| e.code()), Err(OF_ANOTHER));
        assert_eq!(look(&*store).await, Ok(owners));
    }

    #[tokio::test]
    async fn a_look_claims_nothing() {
        let (store, _directory) = store();
        assert_eq!(look(&*store).await, Ok(Owners::default()));
        assert_eq!(store.list("", None, 10).await, Ok(Vec::new()));
    }

    /// Writes over what is there.
    struct Overwriting(Arc<Directory>);

    #[async_trait]
    impl ObjectStore for Overwriting {
        async fn create(&self, key: &str, body: Bytes, metadata: &Metadata) -> Result<Put> {
            self.0.delete(key).await?;
            self.0.create(key, body, metadata).await
        }
        async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
            self.0.head(key).await
        }
        async fn get_range(&self, key: &str, start: u64, end: u64) -> Result<Option<ObjectPart>> {
            self.0.get_range(key, start, end).await
        }
        async fn get_suffix(&self, key: &str, len: u64) -> Result<Option<ObjectPart>> {
            self.0.get_suffix(key, len).await
        }
        async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
            self.0.list(prefix, after, limit).await
        }
        async fn delete(&self, key: &str) -> Result<()> {
            self.0.delete(key).await
        }
    }

    #[tokio::test]
    async fn a_store_that_writes_over_what_is_there_is_no_place_for_an_archive() {
        let (good, _directory) = store();
        let store = Overwriting(good.clone());
        assert_eq!(look(&store).await.map_err(|e| e.code()), Err(UNFIT));
        assert_eq!(good.list("", None, 10).await, Ok(Vec::new()), "the look leaves nothing behind");
        let mine = of("c", "g");
        for _ in 0..2 {
            assert_eq!(claim(&store, &mine).await.map_err(|e| e.code()), Err(UNFIT));
        }
        assert_eq!(look(&store).await.map_err(|e| e.code()), Err(UNFIT));
        assert_eq!(claim(&*good, &mine).await, Ok(Owners(vec![mine])), "nothing was lost");
    }
}
