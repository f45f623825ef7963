//! `GET /v1/counts`: how many sagas a search finds, in groups.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;

use super::api_state::ApiState;
use super::json;
use super::problem::{Answer, Problem, json_text};
use super::query::Query;
use super::search::filter;
use crate::error::Error;
use crate::saga::grouping::{GroupBy, SagaGroups};
use crate::saga::time::Micros;

/// Sagas of one page of the search behind it.
const PAGE: usize = 20_000;
const MAX_GROUPS: usize = 10_000;
const MAX_TIME: Duration = Duration::from_secs(60);

pub async fn counts(State(api): State<ApiState>, query: Query) -> Answer {
    let group = |text: &str| {
        let must = || format!("by must be one of {}", GroupBy::ALL.map(GroupBy::as_str).join(", "));
        GroupBy::parse(text).ok_or_else(|| Problem::invalid(must()))
    };
    let mut by: Vec<GroupBy> = query.all("by").map(group).collect::<Result<_, _>>()?;
    by.dedup();
    let filter = filter(&query)?;
    let deadline = Instant::now() + MAX_TIME;
    let (mut groups, mut after, mut through) = (SagaGroups::default(), None::<String>, Micros::MAX);
    loop {
        let page = api.history.search(&filter, after.as_deref(), PAGE, &*api.replays).await?;
        page.sagas.iter().for_each(|saga| groups.add(&by, saga));
        through = through.min(page.complete_through);
        if groups.groups() > MAX_GROUPS {
            let message = format!("there are more than {MAX_GROUPS} groups: ask with fewer `by` or a narrower filter");
            return Err(Error::refused("too_large", message).into());
        }
        if page.next.is_none() {
            break;
        }
        if Instant::now() >= deadline {
            let limit = MAX_TIME.as_secs();
            let message = format!("counting takes longer than {limit} s: narrow since and until, and add up the parts");
            return Err(Error::refused("too_large", message).into());
        }
        after = page.next;
    }
    let total = groups.total();
    Ok(json_text(StatusCode::OK, json::counts(&by, total, &groups.largest_first(), through)))
}
