//! The cold store: each partition's chain of Parquet segments, and the catalog that finds a saga in it (docs/data-formats.md).
//!
//! The chain is the truth about what is durable. Knows objects, Parquet and entries; must not know Kafka or Redis.

pub mod batch_lists;
mod cache;
mod catalog;
pub mod chain;
pub mod directory;
mod filter;
mod footer;
pub mod gaps;
pub mod keys;
pub mod log_counts;
pub mod object_store;
pub mod owner;
pub mod reader;
mod recorder;
pub mod s3;
pub mod segment;
pub mod view;

use std::path::Path;
use std::sync::Arc;

use crate::config;
use crate::error::{Error, Result};
use object_store::ObjectStore;

/// The object store that the settings name: `s3://bucket/prefix` or `file:///path`.
pub async fn open(settings: &config::ColdConfig) -> Result<Arc<dyn ObjectStore>> {
    if let Some(path) = settings.url.strip_prefix("file://") {
        return Ok(Arc::new(directory::Directory::open(Path::new(path))?));
    }
    let unknown = || Error::invalid("config_invalid", "cold.url: give s3://bucket/prefix or file:///path");
    let rest = settings.url.strip_prefix("s3://").ok_or_else(unknown)?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(unknown());
    }
    let settings = s3::S3Settings {
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
        endpoint: settings.endpoint.clone(),
        region: settings.region.clone(),
        path_style: settings.path_style,
        timeout: settings.timeout,
        keys: None,
    };
    Ok(Arc::new(s3::S3::open(&settings).await?))
}
