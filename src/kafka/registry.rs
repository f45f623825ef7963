//! The schema registry (Confluent's REST API, which Apicurio, Karapace and Redpanda speak too): schemas by id or guid,
//! and registration of our own.
//!
//! Tries once with a time-out. Knows HTTP; must not know what a schema means (`wire::avro`).

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lru::LruCache;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::wire::avro::{SchemaId, SchemaRef, Schemas};

/// One request's time limit.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of one response.
const MAX_RESPONSE: usize = 4 << 20;
/// Schemas that are not there are not asked for again before this.
const MISSING_FOR: Duration = Duration::from_secs(30);
/// Missing schemas remembered.
const MAX_MISSING: NonZeroUsize = NonZeroUsize::new(1_024).expect("not zero");
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.schemaregistry.v1+json");

/// A client of one registry.
#[derive(Debug)]
pub struct SchemaRegistry {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Without a slash at the end.
    base: String,
    authorization: Option<HeaderValue>,
    missing: Mutex<LruCache<SchemaRef, Instant>>,
}

#[derive(Deserialize)]
struct Found {
    schema: String,
    #[serde(rename = "schemaType", default)]
    schema_type: Option<String>,
    #[serde(default)]
    references: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
struct Registered {
    id: u32,
}

impl SchemaRegistry {
    /// `url`: `http` or `https`, with or without a path and `user:password@`.
    pub fn new(url: &str) -> Result<Self> {
        let invalid = || Error::invalid("config_invalid", "[registry] url: not an http or https URL");
        let (scheme, rest) =
            url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https")).ok_or_else(invalid)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        let base = format!("{scheme}://{host}{}", path.trim_end_matches('/'));
        base.parse::<Uri>().map_err(|_| invalid())?;
        let authorization = user.map(basic).transpose()?;
        let connector = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(connector);
        Ok(Self { client, base, authorization, missing: Mutex::new(LruCache::new(MAX_MISSING)) })
    }

    /// Gets a schema and makes it known. Refused `unknown_schema`: there is none, or it is not an Avro schema that
    /// stands alone, or the answer makes no sense; `Unavailable`: try again.
    pub async fn learn(&self, of: SchemaRef, schemas: &Schemas) -> Result<()> {
        if self.is_missing(of) {
            return Err(unknown(of));
        }
        let path = match of {
            SchemaRef::Id(SchemaId(id)) => format!("/schemas/ids/{id}"),
            SchemaRef::Guid(guid) => format!("/schemas/guids/{guid}"),
        };
        let (status, body) = self.send(Method::GET, &path, Bytes::new()).await?;
        let known = match status {
            // An answer that says something else gives no schema however often it is asked for.
            StatusCode::OK => serde_json::from_slice::<Found>(&body).is_ok_and(|found| {
                let avro = found.schema_type.is_none_or(|kind| kind == "AVRO");
                let alone = found.references.is_none_or(|references| references.is_empty());
                avro && alone && schemas.insert(of, &found.schema).is_ok()
            }),
            status if is_missing(status) => false,
            status => return Err(Error::unavailable(format!("get schema with {of}: registry answers {}", status.as_u16()))),
        };
        if known {
            return Ok(());
        }
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).put(of, Instant::now());
        Err(unknown(of))
    }

    /// Registers the schema of a topic's values; the same schema again gives the same id. `Invalid`: the registry
    /// holds the topic to another schema.
    pub async fn register(&self, topic: &str, schema: &str) -> Result<SchemaId> {
        let subject = format!("{topic}-value");
        let path = format!("/subjects/{}/versions", utf8_percent_encode(&subject, NON_ALPHANUMERIC));
        let body = serde_json::json!({ "schema": schema }).to_string();
        let (status, body) = self.send(Method::POST, &path, body.into()).await?;
        match status {
            StatusCode::OK | StatusCode::CREATED => Ok(SchemaId(parse::<Registered>(&body)?.id)),
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => Err(Error::invalid(
                "schema_refused",
                format!("register schema of subject {subject}: registry answers {}", status.as_u16()),
            )),
            status => {
                Err(Error::unavailable(format!("register schema of subject {subject}: registry answers {}", status.as_u16())))
            }
        }
    }

    fn is_missing(&self, of: SchemaRef) -> bool {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.get(&of).is_some_and(|since| since.elapsed() < MISSING_FOR)
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base)).header(ACCEPT, MEDIA_TYPE);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, MEDIA_TYPE);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body)).map_err(|e| Error::bug(format!("build request to registry: {e}")))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|e| Error::unavailable(format!("ask registry: {e}")))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_RESPONSE).collect().await;
            match body {
                Ok(body) => Ok((status, body.to_bytes())),
                // No schema, and not the next time either.
                Err(error) if error.is::<LengthLimitError>() => Ok((status, Bytes::new())),
                Err(_) => Err(Error::unavailable("ask registry: no whole response")),
            }
        };
        tokio::time::timeout(TIMEOUT, exchange).await.map_err(|_| Error::unavailable("ask registry: time-out"))?
    }
}

/// Does the registry say that it will not give this schema, rather than that it cannot answer, or not us, now? A record
/// names its schema; one that waited for such an answer to change would hold up all partitions of the process.
fn is_missing(status: StatusCode) -> bool {
    let may_change = matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
    );
    status.is_client_error() && !may_change
}

fn unknown(of: SchemaRef) -> Error {
    Error::refused("unknown_schema", format!("the registry has no Avro schema with {of}"))
}

fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|_| Error::unavailable("ask registry: the response is not what its API says"))
}

/// `user:password`, percent-encoded as in a URL.
fn basic(user: &str) -> Result<HeaderValue> {
    let user: Vec<u8> = percent_decode_str(user).collect();
    let mut value = HeaderValue::from_str(&format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(user)))
        .map_err(|_| Error::invalid("config_invalid", "[registry] url: user and password cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
