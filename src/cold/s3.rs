//! S3 and its likes as an object store. The only file that names the AWS crates.
//!
//! One try with a time-out, no retries: those live in the roles. Credentials, region and profile come from where AWS
//! tools look for them (environment, files, instance), settings first.

use std::time::Duration;

use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Credentials, ProvideCredentials, Region};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::{GetObjectError, GetObjectOutput};
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use bytes::Bytes;

use crate::cold::object_store::{Metadata, ObjectInfo, ObjectPart, ObjectStore, Put, check_key};
use crate::error::{Error, Result};

/// Where and how to reach a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    pub bucket: String,
    /// Without slashes around it; may be empty.
    pub prefix: String,
    /// `None`: AWS.
    pub endpoint: Option<String>,
    /// `None`: from the environment or profile, else `us-east-1`.
    pub region: Option<String>,
    pub path_style: bool,
    /// Of one operation.
    pub timeout: Duration,
    /// `None`: found where AWS tools look.
    pub keys: Option<AccessKey>,
}

/// An access key; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    pub id: String,
    pub secret: String,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(***)")
    }
}

pub struct S3 {
    client: Client,
    bucket: String,
    /// Ends with `/` unless empty.
    prefix: String,
}

/// Time to reach a server; the rest of the time-out is for the operation.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most keys that S3 lists at once.
const LIST_PAGE: usize = 1000;

impl S3 {
    /// Asks nothing of the bucket; missing credentials show here.
    pub async fn open(settings: &S3Settings) -> Result<Self> {
        let http = aws_smithy_http_client::Builder::new().tls_provider(tls::Provider::Rustls(CryptoMode::Ring)).build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT_TIMEOUT.min(settings.timeout))
                    .operation_timeout(settings.timeout)
                    .build(),
            );
        if let Some(region) = &settings.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(keys) = &settings.keys {
            loader = loader.credentials_provider(Credentials::new(&keys.id, &keys.secret, None, None, "settings"));
        }
        let shared = loader.load().await;
        let credentials = shared.credentials_provider();
        let credentials = credentials.ok_or_else(|| no_credentials("none configured"))?;
        credentials.provide_credentials().await.map_err(|e| no_credentials(&e.to_string()))?;
        let mut config = aws_sdk_s3::config::Builder::from(&shared).force_path_style(settings.path_style);
        if shared.region().is_none() {
            config = config.region(Region::from_static("us-east-1"));
        }
        if let Some(endpoint) = &settings.endpoint {
            config = config.endpoint_url(endpoint);
        }
        let prefix = if settings.prefix.is_empty() { String::new() } else { format!("{}/", settings.prefix) };
        Ok(Self { client: Client::from_conf(config.build()), bucket: settings.bucket.clone(), prefix })
    }

    fn name(&self, key: &str) -> Result<String> {
        check_key(key)?;
        Ok(format!("{}{key}", self.prefix))
    }

    async fn get(&self, key: &str, range: String) -> Result<GetOutcome> {
        let name = self.name(key)?;
        let sent = self.client.get_object().bucket(&self.bucket).key(name).range(range).send().await;
        let output = match sent {
            Ok(output) => output,
            Err(e) => {
                return match (status(&e), &e) {
                    (_, SdkError::ServiceError(s)) if matches!(s.err(), GetObjectError::NoSuchKey(_)) => Ok(GetOutcome::Nothing),
                    (Some(404), _) if e.code() != Some("NoSuchBucket") => Ok(GetOutcome::Nothing),
                    (Some(416), _) => Ok(GetOutcome::OutOfRange),
                    _ => Err(failed("get object", e)),
                };
            }
        };
        part(output).await.map(GetOutcome::Part)
    }

    /// A range that begins after the last byte, or any of an empty object: no bytes, as of a shorter object.
    async fn nothing_of(&self, key: &str, start: u64) -> Result<Option<ObjectPart>> {
        let found = self.head(key).await?;
        Ok(found.map(|info| ObjectPart {
            bytes: Bytes::new(),
            start: start.min(info.len),
            len: info.len,
            metadata: info.metadata,
        }))
    }
}

enum GetOutcome {
    Part(ObjectPart),
    Nothing,
    OutOfRange,
}

async fn part(output: GetObjectOutput) -> Result<ObjectPart> {
    // `bytes 5-9/100`; a server that sends the whole object says nothing.
    let range = output.content_range().and_then(|text| {
        let (range, len) = text.strip_prefix("bytes ")?.split_once('/')?;
        Some((range.split_once('-')?.0.parse().ok()?, len.parse().ok()?))
    });
    let metadata = sorted(output.metadata());
    let body = output.body.collect().await.map_err(|e| Error::unavailable(format!("get object: read body: {e}")))?.into_bytes();
    let (start, len) = range.unwrap_or((0, body.len() as u64));
    Ok(ObjectPart { bytes: body, start, len, metadata })
}

fn sorted(metadata: Option<&std::collections::HashMap<String, String>>) -> Metadata {
    let mut pairs: Metadata = metadata.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect();
    pairs.sort_unstable();
    pairs
}

#[async_trait]
impl ObjectStore for S3 {
    async fn create(&self, key: &str, body: Bytes, metadata: &Metadata) -> Result<Put> {
        let mut put = self.client.put_object().bucket(&self.bucket).key(self.name(key)?).if_none_match("*");
        for (name, value) in metadata {
            put = put.metadata(name, value);
        }
        match put.body(ByteStream::from(body)).send().await {
            Ok(_) => Ok(Put::Created),
            Err(e) if status(&e) == Some(412) => Ok(Put::Exists),
            Err(e) => Err(failed("create object", e)),
        }
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        match self.client.head_object().bucket(&self.bucket).key(self.name(key)?).send().await {
            Ok(output) => {
                let len = output.content_length().and_then(|len| u64::try_from(len).ok());
                let len = len.ok_or_else(|| Error::unavailable("head object: the answer has no length"))?;
                Ok(Some(ObjectInfo { len, metadata: sorted(output.metadata()) }))
            }
            // A HEAD has no body that would tell a missing object from a missing bucket.
            Err(e) if status(&e) == Some(404) => match self.get(key, "bytes=0-0".into()).await? {
                GetOutcome::Part(part) => Ok(Some(ObjectInfo { len: part.len, metadata: part.metadata })),
                GetOutcome::OutOfRange => Err(Error::unavailable("head object: it was created meanwhile")),
                GetOutcome::Nothing => Ok(None),
            },
            Err(e) => Err(failed("head object", e)),
        }
    }

    async fn get_range(&self, key: &str, start: u64, end: u64) -> Result<Option<ObjectPart>> {
        if end <= start {
            return self.nothing_of(key, start).await;
        }
        match self.get(key, format!("bytes={start}-{}", end - 1)).await? {
            GetOutcome::Part(part) => Ok(Some(part)),
            GetOutcome::Nothing => Ok(None),
            GetOutcome::OutOfRange => self.nothing_of(key, start).await,
        }
    }

    async fn get_suffix(&self, key: &str, len: u64) -> Result<Option<ObjectPart>> {
        if len == 0 {
            return self.nothing_of(key, u64::MAX).await;
        }
        match self.get(key, format!("bytes=-{len}")).await? {
            GetOutcome::Part(part) => Ok(Some(part)),
            GetOutcome::Nothing => Ok(None),
            GetOutcome::OutOfRange => self.nothing_of(key, u64::MAX).await,
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        let mut keys: Vec<String> = Vec::new();
        let mut after = after.map(|after| format!("{}{after}", self.prefix));
        while keys.len() < limit {
            let listed = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(format!("{}{prefix}", self.prefix))
                .set_start_after(after.clone())
                .max_keys((limit - keys.len()).min(LIST_PAGE) as i32)
                .send()
                .await
                .map_err(|e| failed("list objects", e))?;
            let Some(last) = listed.contents().last().and_then(|object| object.key()) else { break };
            after = Some(last.to_owned());
            let found = listed.contents().iter().filter_map(|object| object.key()?.strip_prefix(&self.prefix));
            keys.extend(found.map(str::to_owned));
            if !listed.is_truncated().unwrap_or(false) {
                break;
            }
        }
        keys.truncate(limit);
        Ok(keys)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        match self.client.delete_object().bucket(&self.bucket).key(self.name(key)?).send().await {
            Ok(_) => Ok(()),
            Err(e) if status(&e) == Some(404) => Ok(()),
            Err(e) => Err(failed("delete object", e)),
        }
    }
}

fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// All that is not an answer we know is worth waiting for: somebody may mend it while we run.
fn failed<E: ProvideErrorMetadata>(action: &str, error: SdkError<E>) -> Error {
    let code = error.code().unwrap_or_default().to_owned();
    let text = match &error {
        SdkError::TimeoutError(_) => "no answer in time".to_owned(),
        SdkError::DispatchFailure(e) if e.is_timeout() => "no answer in time".to_owned(),
        SdkError::DispatchFailure(e) if e.is_io() => "cannot reach the server".to_owned(),
        SdkError::DispatchFailure(_) => "cannot send: look at endpoint, TLS and credentials".to_owned(),
        SdkError::ConstructionFailure(_) => "cannot make the request: look at endpoint and region".to_owned(),
        _ => match (status(&error), code.as_str()) {
            (_, "NoSuchBucket") => "no such bucket".to_owned(),
            (Some(401 | 403), _) => format!("access denied ({code}): look at credentials and permissions"),
            (Some(409), _) => "a concurrent write: try again".to_owned(),
            (Some(503), _) | (_, "SlowDown") => "slow down".to_owned(),
            (Some(status), _) => format!("status {status} {code}"),
            (None, _) => format!("an answer that is none {code}"),
        },
    };
    Error::unavailable(format!("{action}: {text}"))
}

fn no_credentials(text: &str) -> Error {
    Error::unavailable(format!("find S3 credentials: {text}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile"))
}
