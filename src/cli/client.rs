//! A thin HTTP client. Paths go out exactly as built, never normalised: `..` is a saga id like any other.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::exit::{Exit, Failure, exit_of};
use super::json;

/// Everything but RFC 3986's unreserved characters is encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Path and query of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    path: String,
    query: String,
}

impl Target {
    /// `path` is sent as it is.
    pub fn new(path: &str) -> Self {
        Self { path: path.into(), query: String::new() }
    }

    /// One more path segment, encoded; dots are encoded when nothing else is in it, for no one to resolve them.
    pub fn segment(mut self, segment: &str) -> Self {
        self.path.push('/');
        if segment.bytes().all(|b| b == b'.') {
            self.path.push_str(&segment.replace('.', "%2E"));
        } else {
            self.path.extend(utf8_percent_encode(segment, ENCODED));
        }
        self
    }

    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query.push_str(name);
        self.query.push('=');
        self.query.extend(utf8_percent_encode(value, ENCODED));
        self
    }

    pub fn maybe(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, &value.to_string()),
            None => self,
        }
    }

    pub fn as_string(&self) -> String {
        format!("{}{}", self.path, self.query)
    }
}

pub struct Client {
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// `http://host:port`, and a path before every route if a proxy wants one.
    server: String,
    time_out: Duration,
}

impl Client {
    pub fn new(server: &str, time_out: Duration) -> Result<Self, Failure> {
        let uri: Uri = server.parse().map_err(|_| Failure::usage("--server is not a URL"))?;
        if uri.authority().is_none() || !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(Failure::usage("--server must begin with http:// or https://"));
        }
        let connector = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().build();
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { http, server: server.trim_end_matches('/').to_owned(), time_out })
    }

    pub async fn get(&self, target: &Target) -> Result<Value, Failure> {
        self.send(Method::GET, target, None).await
    }
    pub async fn post(&self, target: &Target, body: &Value) -> Result<Value, Failure> {
        self.send(Method::POST, target, Some(body)).await
    }
    pub async fn delete(&self, target: &Target, body: &Value) -> Result<Value, Failure> {
        self.send(Method::DELETE, target, Some(body)).await
    }

    async fn send(&self, method: Method, target: &Target, body: Option<&Value>) -> Result<Value, Failure> {
        let mut request = Request::builder().method(method).uri(format!("{}{}", self.server, target.as_string()));
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = request.body(Full::new(bytes)).map_err(|_| Failure::usage("the request is too long for a URL"))?;

        let exchange = async {
            let answer = self.http.request(request).await.map_err(|e| self.unreachable(&e))?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|e| Failure::new(Exit::Unreachable, "unreachable", format!("read answer of server: {e}")))?;
            Ok::<_, Failure>((status, body.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(self.time_out, exchange).await.map_err(|_| {
            let message = format!("no answer from {} within {}", self.server, humantime::format_duration(self.time_out));
            Failure::new(Exit::TimeOut, "time_out", message).hint("--timeout waits longer")
        })??;
        let value = json::read(&body);
        if (200..300).contains(&status) {
            return value.map_err(|e| Failure::new(Exit::Other, "bad_answer", format!("answer of server is not JSON: {e}")));
        }
        Err(refusal(status, value.ok()))
    }

    fn unreachable(&self, error: &hyper_util::client::legacy::Error) -> Failure {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Failure::new(Exit::Unreachable, "unreachable", format!("connect to {}{cause}", self.server))
            .hint("is `resaga serve` running there? --server or RESAGA_SERVER names another")
    }
}

/// From `application/problem+json`, or from the status alone if something else answered.
fn refusal(status: u16, problem: Option<Value>) -> Failure {
    let text = |name: &str| problem.as_ref().and_then(|problem| problem[name].as_str()).map(str::to_owned);
    let code = text("code").unwrap_or_else(|| format!("http_{status}"));
    let message = text("detail").or_else(|| text("title")).unwrap_or_else(|| format!("the server answered {status}"));
    Failure { exit: exit_of(status), code, message, hint: text("hint") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_any_characters_are_one_segment() {
        for (id, encoded) in [
            ("order-1", "order-1"),
            ("..", "%2E%2E"),
            (".", "%2E"),
            ("a/b", "a%2Fb"),
            ("a.b", "a.b"),
            ("100%", "100%25"),
            ("a b+c?d#e", "a%20b%2Bc%3Fd%23e"),
            ("\0\n", "%00%0A"),
            ("Größe/7 🚚", "Gr%C3%B6%C3%9Fe%2F7%20%F0%9F%9A%9A"),
        ] {
            assert_eq!(Target::new("/v1/sagas").segment(id).as_string(), format!("/v1/sagas/{encoded}"));
        }
    }

    #[test]
    fn a_path_with_encoded_dots_is_not_resolved() {
        let target = Target::new("/v1/sagas").segment("..").segment("history").query("after", "a+b/=");
        let uri: Uri = format!("http://h{}", target.as_string()).parse().expect("a URI");
        assert_eq!(uri.path_and_query().expect("path").as_str(), "/v1/sagas/%2E%2E/history?after=a%2Bb%2F%3D");
    }

    #[test]
    fn a_problem_becomes_a_failure_with_its_code_and_hint() {
        let problem = serde_json::json!({"code": "before_first_event", "detail": "d", "hint": "h"});
        let failure = refusal(404, Some(problem));
        assert_eq!((failure.exit, failure.code.as_str(), failure.message.as_str()), (Exit::NotFound, "before_first_event", "d"));
        assert_eq!(failure.hint.as_deref(), Some("h"));
        assert_eq!(refusal(502, None).exit, Exit::Unreachable);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unreachable() {
        let client = Client::new("http://127.0.0.1:1", Duration::from_secs(5)).expect("client");
        let failure = client.get(&Target::new("/v1/sagas")).await.expect_err("nobody listens on port 1");
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(Client::new("127.0.0.1:8080", Duration::from_secs(5)).is_err());
    }
}
