//! HTTP (docs/INTERFACE.md): routes, problems, the description. The only folder that names axum.
//!
//! Reads from `history`, asks the replay side for replays, and turns both into JSON. Decides nothing about sagas; must
//! not know stores or Kafka.

mod api_state;
pub mod batch_service;
mod batches;
mod body;
mod connections;
mod counts;
mod described;
mod guard;
mod json;
mod operations;
mod problem;
mod query;
pub mod replay_service;
mod replays;
mod sagas;
pub mod schedule_service;
mod schedules;
mod search;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};

pub use api_state::{ApiState, Health, Readiness};
pub use connections::{ConnectionLimits, serve};
pub use guard::Hosts;
use problem::Problem;
pub use problem::status_of;
#[cfg(feature = "testing")]
pub use problem::{PROBLEMS, ProblemCode};

/// Every path and what answers there.
fn routes() -> Vec<(&'static str, MethodRouter<ApiState>)> {
    let mut routes = health_routes();
    routes.extend([
        ("/v1/sagas", get(search::sagas)),
        ("/v1/sagas/{id}", get(sagas::state)),
        ("/v1/sagas/{id}/context", get(sagas::context)),
        ("/v1/sagas/{id}/history", get(sagas::history)),
        ("/v1/sagas/{id}/diff", get(sagas::diff)),
        ("/v1/sagas/{id}/checkpoints", get(sagas::checkpoints)),
        ("/v1/sagas/{id}/lineage", get(sagas::lineage)),
        ("/v1/sagas/{id}/replays", get(sagas::replays)),
        ("/v1/counts", get(counts::counts)),
        ("/v1/replays", get(replays::list).post(replays::submit)),
        ("/v1/replays/{id}", get(replays::get)),
        ("/v1/replays/{id}/cancel", post(replays::cancel)),
        ("/v1/replays/{id}/undo", post(replays::undo)),
        ("/v1/batches", get(batches::list).post(batches::submit).layer(DefaultBodyLimit::max(batches::MAX_BODY))),
        ("/v1/batches/plans/{id}", get(batches::plan)),
        ("/v1/batches/{id}", get(batches::get)),
        ("/v1/batches/{id}/replays", get(batches::replays)),
        ("/v1/batches/{id}/pause", post(batches::pause)),
        ("/v1/batches/{id}/resume", post(batches::resume)),
        ("/v1/batches/{id}/cancel", post(batches::cancel)),
        ("/v1/batches/{id}/undo", post(batches::undo)),
        ("/v1/batches/{id}/retry-failed", post(batches::retry_failed).layer(DefaultBodyLimit::max(batches::MAX_BODY))),
        ("/v1/schedules", get(schedules::list).post(schedules::submit)),
        ("/v1/schedules/preview", post(schedules::preview)),
        ("/v1/schedules/{id}", get(schedules::get).delete(schedules::cancel)),
        ("/v1/schedules/{id}/enable", post(schedules::enable)),
        ("/v1/schedules/{id}/disable", post(schedules::disable)),
        ("/openapi.json", get(described::openapi)),
    ]);
    routes
}

fn health_routes<S: Clone + Send + Sync + 'static>() -> Vec<(&'static str, MethodRouter<S>)>
where
    Health: FromRef<S>,
{
    vec![("/livez", get(operations::livez)), ("/readyz", get(operations::readyz)), ("/metrics", get(operations::metrics))]
}

/// The whole of HTTP.
pub fn router(api: ApiState) -> Router {
    let (health, max_body) = (api.health.clone(), api.max_body);
    let paths = with_paths(routes()).fallback(no_route).layer(DefaultBodyLimit::max(max_body));
    watched(paths, health).with_state(api)
}

/// For a process without role `api`: is it alive, is it ready, its metrics.
pub fn health_router(health: Health) -> Router {
    watched(with_paths(health_routes()).fallback(no_role), health.clone()).with_state(health)
}

fn with_paths<S: Clone + Send + Sync + 'static>(routes: Vec<(&'static str, MethodRouter<S>)>) -> Router<S> {
    routes.into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods.fallback(wrong_method)))
}

fn watched<S: Clone + Send + Sync + 'static>(router: Router<S>, health: Health) -> Router<S> {
    router.layer(from_fn_with_state(health, operations::watch))
}

/// A newest state as the routes answer it, for docs/interface/events.md.
#[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "docs/interface is rendered from it"))]
pub fn state_json(found: &crate::history::answer::StateAnswer) -> String {
    json::state(found, None)
}

async fn no_route() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "route_not_found", "there is no such route; /openapi.json lists them")
}

async fn no_role() -> Problem {
    let detail = "this process has not role api: it answers /livez, /readyz and /metrics alone";
    Problem::new(StatusCode::NOT_FOUND, "route_not_found", detail)
}

async fn wrong_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "the route has other methods; /openapi.json lists them")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_description_has_each_route_and_no_other() {
        let description: Value = serde_json::from_str(described::OPENAPI).expect("JSON");
        let described: Vec<&String> = description["paths"].as_object().expect("paths").keys().collect();
        let mut routes: Vec<&str> = routes().iter().map(|(path, _)| *path).collect();
        let mut described: Vec<&str> = described.into_iter().map(String::as_str).collect();
        routes.sort_unstable();
        described.sort_unstable();
        assert_eq!(routes, described);
    }
}
