//! Routes for those who run it: is it alive, is it ready, its metrics.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::api_state::Health;
use super::problem::{Problem, json_text};
use super::{described, json};
use crate::telemetry::METRICS_CONTENT_TYPE;

/// The process answers.
pub async fn livez() -> Response {
    json_text(StatusCode::OK, json::ALIVE.into())
}

pub async fn readyz(State(health): State<Health>) -> Response {
    let checks = health.readiness.all();
    let ready = checks.values().all(|holds| *holds);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_text(status, json::ready(ready, &checks))
}

pub async fn metrics(State(health): State<Health>) -> Result<Response, Problem> {
    Ok(([(CONTENT_TYPE, METRICS_CONTENT_TYPE)], health.metrics.render()?).into_response())
}

/// What every request goes through before its route, in one layer, for each layer is a boxed service: may it be answered
/// at all, and are its parameters known. Counts and times it under its route, never under its path.
pub async fn watch(State(health): State<Health>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = if route.is_none() { "none" } else { label_of(request.method()) };
    let began = Instant::now();
    let response = match health.hosts.judge(&request).and_then(|()| described::known_parameters(&request)) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    health.metrics.http_requests.with_label_values(&[route, method, response.status().as_str()]).inc();
    health.metrics.http_request_duration.with_label_values(&[route]).observe(began.elapsed().as_secs_f64());
    response
}

/// A client may send any token as method, and each would be a series for ever.
fn label_of(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}
