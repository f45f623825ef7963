//! The operator: asks resaga over HTTP, as anyone would.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::time::Instant;

/// One question's time limit.
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// The most that a page may have.
const PAGE: usize = 1_000;
/// Questions asked at once.
const AT_ONCE: usize = 8;

/// Longest wait for something to come about.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(50);

/// Who asks for the replays, and why.
pub const OPERATOR: &str = "ops@example.org";
pub const REASON: &str = "INC-4412: payment outage";

#[derive(Clone)]
pub struct Operator {
    http: Client<HttpConnector, Full<Bytes>>,
    /// `http://host:port`
    server: String,
}

impl Operator {
    pub fn new(server: String) -> Self {
        Self { http: Client::builder(TokioExecutor::new()).build_http(), server }
    }

    pub async fn get(&self, target: &str) -> anyhow::Result<Value> {
        self.ask("GET", target, Bytes::new()).await
    }

    pub async fn post(&self, target: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask("POST", target, Bytes::from(body.to_string())).await
    }

    /// Every page of a list.
    pub async fn all(&self, target: &str, member: &str) -> anyhow::Result<Vec<Value>> {
        let mut found = Vec::new();
        let mut page = format!("{target}&limit={PAGE}");
        loop {
            let mut answer = self.get(&page).await?;
            match answer[member].take() {
                Value::Array(some) => found.extend(some),
                _ => bail!("GET {page}: no {member} in the answer"),
            }
            let Some(next) = answer["next"].as_str() else { return Ok(found) };
            page = format!("{target}&limit={PAGE}&after={}", utf8_percent_encode(next, NON_ALPHANUMERIC));
        }
    }

    /// The states of many sagas (ids of letters, digits and hyphens), in the order asked; `query` is empty or `?at=...`.
    pub async fn states(&self, ids: &[String], query: &str) -> anyhow::Result<Vec<Value>> {
        let asked: Vec<String> = ids.iter().map(|id| format!("/v1/sagas/{id}{query}")).collect();
        let answers = futures::stream::iter(asked).map(|target| async move { self.get(&target).await });
        let answers: Vec<anyhow::Result<Value>> = answers.buffered(AT_ONCE).collect().await;
        answers.into_iter().collect()
    }

    /// Whether `GET target` succeeds now.
    pub async fn answers(&self, target: &str) -> bool {
        self.get(target).await.is_ok()
    }

    async fn ask(&self, method: &str, target: &str, body: Bytes) -> anyhow::Result<Value> {
        let about = || format!("{method} {target}");
        let request = Request::builder().method(method).uri(format!("{}{target}", self.server));
        let request = request.header("content-type", "application/json").body(Full::new(body)).with_context(about)?;
        let exchange = async {
            let answer = self.http.request(request).await.with_context(about)?;
            let good = answer.status().is_success();
            let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|e| anyhow::anyhow!("{}: {e}", about()))?.to_bytes();
            if !good {
                bail!("{}: {}", about(), String::from_utf8_lossy(&body));
            }
            serde_json::from_slice(&body).with_context(about)
        };
        tokio::time::timeout(TIMEOUT, exchange).await.with_context(about)?
    }
}

/// Waits until it is so.
pub async fn until<F: Future<Output = bool>>(what: &str, is: impl Fn() -> F) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is().await {
        if Instant::now() >= deadline {
            bail!("waited {} s in vain until {what}", PATIENCE.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
