//! The description of the routes, and what it says of a request's parameters: one that it does not have is refused,
//! for `?stauts=failed` must not list everything.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::response::Response;
use serde_json::Value;

use super::problem::{Problem, json_text};
use super::query::Query;
use crate::nearest::nearest;

/// Kept by hand; a test holds it to the routes.
pub const OPENAPI: &str = include_str!("openapi.json");

pub async fn openapi() -> Response {
    json_text(axum::http::StatusCode::OK, OPENAPI.into())
}

/// Of each path and method (lower case) the parameters.
static PARAMETERS: LazyLock<HashMap<(String, String), Vec<String>>> = LazyLock::new(|| {
    let description: Value = serde_json::from_str(OPENAPI).unwrap_or_default();
    let paths = description["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(path, methods)| {
        methods.as_object().into_iter().flatten().map(move |(method, operation)| ((path.clone(), method.clone()), operation))
    });
    operations.map(|(at, operation)| (at, queries(operation))).collect()
});

fn queries(operation: &Value) -> Vec<String> {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let queries = parameters.filter(|parameter| parameter["in"] == "query");
    queries.filter_map(|parameter| parameter["name"].as_str()).map(str::to_owned).collect()
}

fn judge(path: &str, method: &Method, query: &str) -> Result<(), Problem> {
    let method = if *method == Method::HEAD { "get".to_owned() } else { method.as_str().to_lowercase() };
    let Some(known) = PARAMETERS.get(&(path.to_owned(), method)) else { return Ok(()) };
    match Query::parse(query)?.names().find(|name| !known.iter().any(|known| known == name)) {
        Some(unknown) => Err(Problem::unknown("parameter", unknown, known.iter().map(String::as_str))),
        None => Ok(()),
    }
}

/// Refuses a request with a parameter that its route does not have.
pub fn known_parameters(request: &Request) -> Result<(), Problem> {
    let query = request.uri().query().filter(|query| !query.is_empty());
    let path = request.extensions().get::<MatchedPath>();
    path.zip(query).map_or(Ok(()), |(path, query)| judge(path.as_str(), request.method(), query))
}

impl Problem {
    /// A member or parameter that nobody reads: it was meant for something, and doing without it is something else.
    pub fn unknown<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let shown: String = name.chars().take(64).collect();
        Self::invalid(match nearest(name, known) {
            Some((nearest, _)) => format!("{what} \"{shown}\" is not known; did you mean \"{nearest}\"?"),
            None => format!("{what} \"{shown}\" is not known: there is none here"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_the_route_does_not_have_is_refused_with_the_nearest_name() {
        let said = |path, method, query| judge(path, &method, query).map_err(|problem| problem.detail);
        assert_eq!(said("/v1/sagas", Method::GET, "status=failed&label=a:b&label=c:d"), Ok(()));
        let stauts = said("/v1/sagas", Method::GET, "stauts=failed").expect_err("refused");
        assert!(stauts.contains("\"stauts\"") && stauts.contains("\"status\""), "{stauts}");
        let at = said("/v1/sagas/{id}", Method::HEAD, "At=2026-01-10T10:00:00Z").expect_err("refused");
        assert!(at.contains("did you mean \"at\""), "{at}");
        for (path, method) in [("/v1/replays", Method::POST), ("/v1/sagas/{id}/lineage", Method::GET), ("/livez", Method::GET)] {
            let none = said(path, method, "dry_run=true").expect_err("refused");
            assert!(none.contains("there is none here"), "{path}: {none}");
        }
        assert_eq!(said("/v1/batches", Method::GET, "limit=5"), Ok(()), "of a later version: 501 says more");
    }
}
