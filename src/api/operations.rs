//! Routes for those who run it: is it alive, is it ready, its metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Health;
use super::problem::{Problem, json_text};
use crate::telemetry::METRICS_CONTENT_TYPE;

/// What must hold before this process is ready, by name, and whether it does. The roles tell; nobody is asked here.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<RwLock<BTreeMap<&'static str, bool>>>);

impl Readiness {
    /// What is waited for: broker, hot, cold, assignment ...
    pub fn of(names: impl IntoIterator<Item = &'static str>) -> Self {
        Self(Arc::new(RwLock::new(names.into_iter().map(|name| (name, false)).collect())))
    }

    pub fn set(&self, name: &'static str, holds: bool) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, holds);
    }

    pub fn is_ready(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().all(|holds| *holds)
    }

    fn all(&self) -> BTreeMap<&'static str, bool> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The process turns.
pub async fn livez() -> Response {
    json_text(StatusCode::OK, r#"{"status":"alive"}"#.into())
}

pub async fn readyz(State(health): State<Health>) -> Response {
    let checks = health.readiness.all();
    let ready = checks.values().all(|holds| *holds);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"status": if ready { "ready" } else { "not ready" }, "checks": checks}))).into_response()
}

pub async fn metrics(State(health): State<Health>) -> Result<Response, Problem> {
    Ok(([(CONTENT_TYPE, METRICS_CONTENT_TYPE)], health.metrics.render()?).into_response())
}

/// Counts and times every request under its route, never under its path.
pub async fn measure(State(health): State<Health>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none".to_owned(), |path| path.as_str().to_owned());
    let method = if route == "none" { "none" } else { label_of(request.method()) };
    let began = Instant::now();
    let response = next.run(request).await;
    health.metrics.http_requests.with_label_values(&[&route, method, response.status().as_str()]).inc();
    health.metrics.http_request_duration.with_label_values(&[&route]).observe(began.elapsed().as_secs_f64());
    response
}

/// A client may send any token as method, and each would be a series for ever.
fn label_of(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}
