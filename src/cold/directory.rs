//! An object store in a directory, for `demo` and tests.
//!
//! `data/<key>` holds the bytes, `meta/<key>` the metadata and the name under which the bytes were written in `tmp/`.
//! Linking the `meta` file into place is the one atomic step that decides who created an object; only then the
//! winner's bytes are moved to `data/`, and whoever finds that undone does it.

use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::cold::object_store::{Metadata, ObjectInfo, ObjectPart, ObjectStore, Put, check_key};
use crate::error::{Error, Result};

#[derive(Debug, Clone)]
pub struct Directory {
    root: Arc<Path>,
}

#[derive(Serialize, Deserialize)]
struct Sidecar {
    /// File in `tmp/`, until it is moved to `data/`.
    written_as: String,
    metadata: Metadata,
}

impl Directory {
    pub fn open(root: &Path) -> Result<Self> {
        for folder in ["data", "meta", "tmp"] {
            fs::create_dir_all(root.join(folder)).map_err(|e| failed("open directory store", e))?;
        }
        Ok(Self { root: root.into() })
    }

    async fn run<T: Send + 'static>(
        &self,
        action: &'static str,
        key: &str,
        work: impl FnOnce(&Self, &str) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        if !key.is_empty() {
            check_key(key)?;
        }
        let (store, key) = (self.clone(), key.to_owned());
        let done = tokio::task::spawn_blocking(move || work(&store, &key)).await;
        done.map_err(|e| Error::bug(format!("{action}: {e}")))?.map_err(|e| failed(action, e))
    }

    fn data(&self, key: &str) -> PathBuf {
        self.root.join("data").join(key)
    }
    fn meta(&self, key: &str) -> PathBuf {
        self.root.join("meta").join(key)
    }
    fn tmp(&self, name: &str) -> PathBuf {
        self.root.join("tmp").join(name)
    }

    fn create_now(&self, key: &str, body: &[u8], metadata: &Metadata) -> io::Result<Put> {
        if self.meta(key).try_exists()? {
            return Ok(Put::Exists);
        }
        let written_as = uuid::Uuid::new_v4().to_string();
        let (body_at, sidecar_at) = (self.tmp(&written_as), self.tmp(&format!("{written_as}.meta")));
        let sidecar = Sidecar { written_as, metadata: metadata.clone() };
        write_synced(&body_at, body)?;
        write_synced(&sidecar_at, &serde_json::to_vec(&sidecar)?)?;
        let meta = self.meta(key);
        let folder = meta.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder)?;
        let linked = fs::hard_link(&sidecar_at, &meta);
        fs::remove_file(&sidecar_at)?;
        match linked {
            Ok(()) => {
                fs::File::open(folder)?.sync_all()?;
                self.settle(key, &sidecar)?;
                Ok(Put::Created)
            }
            Err(e) => {
                fs::remove_file(&body_at)?;
                if e.kind() == ErrorKind::AlreadyExists { Ok(Put::Exists) } else { Err(e) }
            }
        }
    }

    /// Moves the winner's bytes into place, unless somebody did.
    fn settle(&self, key: &str, sidecar: &Sidecar) -> io::Result<()> {
        let data = self.data(key);
        if data.try_exists()? {
            return Ok(());
        }
        let folder = data.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder)?;
        match fs::rename(self.tmp(&sidecar.written_as), &data) {
            Err(e) if e.kind() == ErrorKind::NotFound && data.try_exists()? => {}
            moved => moved?,
        }
        fs::File::open(folder)?.sync_all()
    }

    /// The open file, its length and metadata.
    fn find(&self, key: &str) -> io::Result<Option<(fs::File, u64, Metadata)>> {
        let Some(text) = if_found(fs::read(self.meta(key)))? else {
            // Not here, or is the directory gone (not mounted)?
            fs::metadata(self.root.join("meta"))?;
            return Ok(None);
        };
        let sidecar: Sidecar = serde_json::from_slice(&text)?;
        self.settle(key, &sidecar)?;
        let Some(file) = if_found(fs::File::open(self.data(key)))? else { return Ok(None) };
        let len = file.metadata()?.len();
        Ok(Some((file, len, sidecar.metadata)))
    }

    /// `range` of the length gives the first byte and the one after the last.
    fn read(&self, key: &str, range: impl FnOnce(u64) -> (u64, u64)) -> io::Result<Option<ObjectPart>> {
        let Some((mut file, len, metadata)) = self.find(key)? else { return Ok(None) };
        let (start, end) = range(len);
        let start = start.min(len);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = vec![0; end.clamp(start, len).saturating_sub(start) as usize];
        file.read_exact(&mut bytes)?;
        Ok(Some(ObjectPart { bytes: bytes.into(), start, len, metadata }))
    }

    fn list_now(&self, prefix: &str, after: Option<&str>, limit: usize) -> io::Result<Vec<String>> {
        let top = self.root.join("meta");
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let (mut open, mut found) = (vec![top.join(folder)], Vec::new());
        while let Some(folder) = open.pop() {
            let Some(files) = if_found(fs::read_dir(folder))? else { continue };
            for file in files {
                let file = file?;
                if file.file_type()?.is_dir() {
                    open.push(file.path());
                    continue;
                }
                let path = file.path();
                let key = path.strip_prefix(&top).ok().and_then(Path::to_str).map(str::to_owned);
                found.extend(key.filter(|key| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)));
            }
        }
        found.sort_unstable();
        found.truncate(limit);
        Ok(found)
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn if_found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn failed(action: &str, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => Error::corrupt(format!("{action}: {error}")),
        _ => Error::unavailable(format!("{action}: {error}")),
    }
}

#[async_trait]
impl ObjectStore for Directory {
    async fn create(&self, key: &str, body: Bytes, metadata: &Metadata) -> Result<Put> {
        let metadata = metadata.clone();
        self.run("create object", key, move |store, key| store.create_now(key, &body, &metadata)).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        let found = self.run("head object", key, |store, key| store.find(key)).await?;
        Ok(found.map(|(_, len, metadata)| ObjectInfo { len, metadata }))
    }

    async fn get_range(&self, key: &str, start: u64, end: u64) -> Result<Option<ObjectPart>> {
        self.run("get object", key, move |store, key| store.read(key, |_| (start, end))).await
    }

    async fn get_suffix(&self, key: &str, len: u64) -> Result<Option<ObjectPart>> {
        self.run("get object", key, move |store, key| store.read(key, |whole| (whole.saturating_sub(len), whole))).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.run("list objects", "", move |store, _| store.list_now(&prefix, after.as_deref(), limit)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let deleted = self.run("delete object", key, |store, key| {
            if_found(fs::remove_file(store.meta(key)))?;
            if_found(fs::remove_file(store.data(key)))
        });
        deleted.await.map(|_| ())
    }
}
