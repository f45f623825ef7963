//! Writes the catalog of a chain: the owner's part, after each segment that completes a group.

use crate::cold::catalog::{CatalogEntry, CatalogFile, FAN, MAX_ENTRIES, TOP_LEVEL};
use crate::cold::object_store::{ObjectStore, Put};
use crate::cold::view::{ChainView, read_catalog};
use crate::error::{Error, Result};

/// Writes every file that is due, smallest first, and puts them in the view.
pub async fn record(store: &dyn ObjectStore, view: &mut ChainView) -> Result<()> {
    while let Some(number) = view.trailing_number() {
        let file = build_first(view, number)?;
        let file = create(store, file).await?;
        view.replace_segments(file);
    }
    for level in 2..=TOP_LEVEL {
        let due = |view: &ChainView| {
            let small = |at: &usize| view.files[*at..*at + FAN].iter().map(|f| f.entries).sum::<u64>() <= MAX_ENTRIES;
            view.runs(level).into_iter().find(small)
        };
        while let Some(at) = due(view) {
            let file = merge(store, view, at, level).await?;
            let file = create(store, file).await?;
            view.replace_files(at, file);
        }
    }
    Ok(())
}

type BuiltCatalog = (bytes::Bytes, CatalogFile);

fn build_first(view: &ChainView, number: u64) -> Result<BuiltCatalog> {
    let segments = &view.trailing[..FAN];
    let mut entries: Vec<CatalogEntry> = Vec::new();
    for (segment, index) in (0..).zip(segments) {
        let of_segment = index.sagas.iter();
        entries.extend(of_segment.map(|s| CatalogEntry { hash: s.hash, segment, first_effective: s.first_effective }));
    }
    entries.sort_unstable();
    CatalogFile::build(&view.chain, 1, number, segments.iter().map(|index| index.segment_ref()).collect(), &entries)
}

async fn merge(store: &dyn ObjectStore, view: &ChainView, at: usize, level: u8) -> Result<BuiltCatalog> {
    let files = &view.files[at..at + FAN];
    let (mut entries, mut segments) = (Vec::new(), Vec::new());
    for file in files {
        let first = segments.len() as u16;
        let all = file.all_blocks();
        let range = file.bytes_of(all.clone());
        if !range.is_empty() {
            let part = store.get_range(&file.key(), range.start, range.end).await?;
            let part = part.ok_or_else(|| {
                Error::unavailable(format!("merge catalog: object {} is missing although it was read before", file.key()))
            })?;
            entries
                .extend(file.entries_of(all, part.bytes)?.into_iter().map(|e| CatalogEntry { segment: first + e.segment, ..e }));
        }
        segments.extend(file.segments.iter().cloned());
    }
    entries.sort_unstable();
    CatalogFile::build(&view.chain, level, files[0].number / FAN as u64, segments, &entries)
}

/// Ours, or the one that was there; one that is damaged is written again.
async fn create(store: &dyn ObjectStore, (bytes, file): BuiltCatalog) -> Result<CatalogFile> {
    let key = file.key();
    if store.create(&key, bytes.clone(), &Vec::new()).await? == Put::Created {
        return Ok(file);
    }
    if let Some(stored) = read_catalog(store, &file.chain, file.level, file.number).await? {
        return Ok(stored);
    }
    store.delete(&key).await?;
    match store.create(&key, bytes, &Vec::new()).await? {
        Put::Created => Ok(file),
        Put::Exists => Err(Error::unavailable(format!("write catalog: object {key} was created by another owner meanwhile"))),
    }
}
