//! `GET /v1/sagas`: the filters of a search, read strictly, and what it finds.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::api_state::ApiState;
use super::json;
use super::problem::{Problem, json_text};
use super::query::Query;
use crate::saga::labels::parse_label;
use crate::saga::position::SagaId;
use crate::saga::selector::{ReplayStanding, SagaFilter};
use crate::saga::state::Status;

pub(super) fn filter(query: &Query) -> Result<SagaFilter, Problem> {
    let (since, until) = query.window()?;
    let status = |text: &str| {
        let must = || format!("status must be one of {}", Status::ALL.map(Status::as_str).join(", "));
        Status::parse(text).ok_or_else(|| Problem::invalid(must()))
    };
    let label = |text: &str| parse_label(text).ok_or_else(|| Problem::invalid("label must be name:value"));
    let standing = |text: &str| {
        let must = || format!("replay must be one of {}", ReplayStanding::ALL.map(ReplayStanding::as_str).join(", "));
        ReplayStanding::parse(text).ok_or_else(|| Problem::invalid(must()))
    };
    let repaired = |text: &str| match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(Problem::invalid("repaired must be yes or no")),
    };
    Ok(SagaFilter {
        saga_id: query.one("saga_id")?.map(SagaId::from),
        statuses: query.all("status").map(status).collect::<Result<_, _>>()?,
        saga_name: query.text("saga_name")?,
        failed_step: query.text("failed_step")?,
        compensation_failed_step: query.text("compensation_failed_step")?,
        error_code: query.text("error_code")?,
        error_type: query.text("error_type")?,
        since,
        until,
        tenant: query.text("tenant")?,
        region: query.text("region")?,
        labels: query.all("label").map(label).collect::<Result<_, _>>()?,
        depth: query.number("depth")?,
        replay: query.one("replay")?.map(standing).transpose()?,
        repaired: query.one("repaired")?.map(repaired).transpose()?,
        stuck: query.switch("stuck")?,
        forced: query.switch("forced")?,
    })
}

pub async fn sagas(State(api): State<ApiState>, query: Query) -> Result<Response, Problem> {
    let (filter, limit) = (filter(&query)?, query.limit()?);
    let found = api.history.search(&filter, query.one("after")?, limit, &*api.replays).await?;
    Ok(json_text(StatusCode::OK, json::sagas(&found.sagas, found.next.as_deref(), found.complete_through)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SagaFilter, Problem> {
        filter(&Query::parse(text).expect("a query"))
    }

    #[test]
    fn each_filter_is_read_and_some_may_repeat() {
        let filter = read(
            "status=failed&status=running&saga_name=n&failed_step=s&error_code=c&error_type=t&since=2026-01-10T10:00:00Z\
             &until=2026-01-10T10:20:00Z&tenant=a&region=eu&label=k:v&label=l:w:x&depth=0&replay=none&forced=true&saga_id=a/b&repaired=no&stuck=true",
        )
        .expect("a filter");
        assert_eq!(filter.statuses, [Status::Failed, Status::Running]);
        assert_eq!(filter.labels, [("k".into(), "v".into()), ("l".into(), "w:x".into())]);
        assert_eq!((filter.depth, filter.replay, filter.forced), (Some(0), Some(ReplayStanding::None), true));
        assert_eq!((filter.repaired, filter.stuck), (Some(false), true));
        assert_eq!(filter.saga_id.expect("id").as_str(), "a/b");
        assert_eq!(read("unknown=1"), Ok(SagaFilter::default()));
    }

    #[test]
    fn a_value_that_cannot_be_meant_is_refused() {
        for wrong in [
            "status=Failed",
            "status=",
            "label=k",
            "label=:v",
            "depth=-1",
            "depth=x",
            "replay=maybe",
            "forced=yes",
            "repaired=true",
            "stuck=1h",
            "tenant=a&tenant=b",
        ] {
            assert_eq!(read(wrong).expect_err(wrong).code, "request_invalid", "{wrong}");
        }
        assert_eq!(read("since=yesterday").expect_err("no time").code, "invalid_time");
    }
}
