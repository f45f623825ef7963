//! A client of a registry, over HTTP.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
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
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;

use super::missing::{Ask, Missing};
use crate::error::{Error, Result};
use crate::wire::avro::{SchemaId, SchemaRef, Schemas};

/// One request's time limit.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of one response.
const MAX_RESPONSE: usize = 4 << 20;
/// Schemas that a schema may name, directly or through others.
const MAX_REFERENCES: usize = 64;
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.schemaregistry.v1+json");

/// A client of one registry.
#[derive(Debug)]
pub struct SchemaRegistry {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Without a slash at the end.
    base: String,
    authorization: Option<HeaderValue>,
    missing: Mutex<Missing>,
}

#[derive(Deserialize)]
struct Found {
    schema: String,
    #[serde(rename = "schemaType", default)]
    schema_type: Option<String>,
    #[serde(default)]
    references: Option<Vec<Reference>>,
}

/// A schema that another one names types of.
#[derive(Deserialize)]
struct Reference {
    subject: String,
    version: u32,
}

#[derive(Deserialize)]
struct Registered {
    id: u32,
}

#[derive(Deserialize)]
struct Compatibility {
    is_compatible: bool,
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
        Ok(Self { client, base, authorization, missing: Mutex::default() })
    }

    /// Gets a schema and makes it known, or known that it cannot be read. Refused `unknown_schema`: there is none, also not
    /// after a while, or the answer makes no sense; `Unavailable`: try again.
    pub async fn learn(&self, of: SchemaRef, schemas: &Schemas) -> Result<()> {
        match self.missing().before(of, Instant::now()) {
            Ask::Now => {}
            Ask::Later => return Err(not_yet(of)),
            Ask::NoMore => return Err(unknown(of)),
        }
        let path = match of {
            SchemaRef::Id(SchemaId(id)) => format!("/schemas/ids/{id}"),
            SchemaRef::Guid(guid) => format!("/schemas/guids/{guid}"),
        };
        let Some(found) = self.get(&path, || format!("get schema with {of}")).await? else { return self.is_missing(of) };
        if found.schema_type.is_some_and(|kind| kind != "AVRO") {
            schemas.refuse(of, "it is no Avro schema");
            return Ok(());
        }
        let mut references = Vec::new();
        let mut named = found.references.unwrap_or_default();
        let mut asked = HashSet::new();
        while let Some(Reference { subject, version }) = named.pop() {
            if !asked.insert((subject.clone(), version)) {
                continue;
            }
            if asked.len() > MAX_REFERENCES {
                schemas.refuse(of, "it names types of more than 64 other schemas");
                return Ok(());
            }
            let place = utf8_percent_encode(&subject, NON_ALPHANUMERIC);
            // Deleted for new schemas, not for those that name it.
            let path = format!("/subjects/{place}/versions/{version}?deleted=true");
            let found = self.get(&path, || format!("get a schema that the one with {of} names")).await?;
            let Some(found) = found else { return self.is_missing(of) };
            references.push(found.schema);
            named.extend(found.references.unwrap_or_default());
        }
        if let Err(reason) = schemas.insert_with(of, &found.schema, &references) {
            tracing::warn!(%reason, "records with this schema are dead letters");
        }
        Ok(())
    }

    /// Was it asked for a moment ago and given up?
    pub fn has_given_up(&self, of: SchemaRef) -> bool {
        self.missing().before(of, Instant::now()) == Ask::NoMore
    }

    fn missing(&self) -> MutexGuard<'_, Missing> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_missing(&self, of: SchemaRef) -> Result<()> {
        if self.missing().not_found(of, Instant::now()) { Err(unknown(of)) } else { Err(not_yet(of)) }
    }

    /// A schema, if the registry has it and its answer makes sense.
    async fn get(&self, path: &str, action: impl Fn() -> String) -> Result<Option<Found>> {
        let (status, body) = self.send(Method::GET, path, Bytes::new()).await?;
        match status {
            // An answer that says something else gives no schema however often it is asked for.
            StatusCode::OK => Ok(serde_json::from_slice(&body).ok()),
            status if is_missing(status) => Ok(None),
            status => Err(Error::unavailable(format!("{}: registry answers {}", action(), status.as_u16()))),
        }
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

    /// Would it take this schema for a topic's values? Changes nothing. `Unavailable`: it does not answer, or not us.
    pub async fn would_take(&self, topic: &str, schema: &str) -> Result<bool> {
        // A subject that is not there yet is 404, and so is everything where there is no registry.
        let (status, _) = self.send(Method::GET, "/subjects", Bytes::new()).await?;
        if status != StatusCode::OK {
            return Err(Error::unavailable(format!("list subjects: registry answers {}", status.as_u16())));
        }
        let subject = format!("{topic}-value");
        let path = format!("/compatibility/subjects/{}/versions/latest", utf8_percent_encode(&subject, NON_ALPHANUMERIC));
        let body = serde_json::json!({ "schema": schema }).to_string();
        let (status, body) = self.send(Method::POST, &path, body.into()).await?;
        match status {
            StatusCode::OK => Ok(parse::<Compatibility>(&body)?.is_compatible),
            StatusCode::NOT_FOUND => Ok(true),
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => Ok(false),
            status => {
                Err(Error::unavailable(format!("compare schema of subject {subject}: registry answers {}", status.as_u16())))
            }
        }
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
                Err(error) => Err(Error::unavailable(format!("ask registry: read response: {error}"))),
            }
        };
        tokio::time::timeout(TIMEOUT, exchange)
            .await
            .map_err(|_| Error::unavailable(format!("ask registry: no answer within {} s", TIMEOUT.as_secs())))?
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

fn not_yet(of: SchemaRef) -> Error {
    Error::unavailable(format!("get schema with {of}: the registry has none yet"))
}

fn unknown(of: SchemaRef) -> Error {
    Error::refused("unknown_schema", format!("the registry has no Avro schema with {of}"))
}

fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body)
        .map_err(|e| Error::unavailable(format!("ask registry: expected the JSON that its API documents: {e}")))
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
#[path = "client_tests.rs"]
mod tests;
