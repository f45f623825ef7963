//! Lists in pages: as many requests as the asked number of items takes.

use clap::Args;
use serde_json::Value;

use super::client::Target;
use super::exit::Failure;
use super::session::Session;

/// Items that one request may ask for.
const MOST: u64 = 1_000;

#[derive(Debug, Args)]
pub struct Page {
    /// How many to give at most; several pages are asked for if need be.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Go on where an earlier answer ended.
    #[arg(long)]
    after: Option<String>,
}

impl Page {
    /// All there is.
    pub fn whole() -> Self {
        Self { limit: u64::MAX, after: None }
    }

    /// One answer of up to `limit` items: `next` is that of the last page asked for, `complete_through` the least.
    pub async fn of(&self, session: &Session, target: Target, member: &str) -> Result<Value, Failure> {
        let client = session.client()?;
        gather(self.limit, self.after.clone(), member, async |limit, after| {
            client.get(&target.clone().query("limit", &limit.to_string()).maybe("after", after)).await
        })
        .await
    }

    /// The same of a question that is asked by POST.
    pub async fn of_post(&self, session: &Session, target: Target, body: &Value, member: &str) -> Result<Value, Failure> {
        let client = session.client()?;
        gather(self.limit, self.after.clone(), member, async |limit, after| {
            client.post(&target.clone().query("limit", &limit.to_string()).maybe("after", after), body).await
        })
        .await
    }
}

/// Goes on until this many items were received: a page may be short, even empty, and still have a `next`.
async fn gather(
    limit: u64,
    mut after: Option<String>,
    member: &str,
    ask: impl AsyncFn(u64, Option<String>) -> Result<Value, Failure>,
) -> Result<Value, Failure> {
    let mut whole: Option<Value> = None;
    loop {
        let received = whole.as_ref().and_then(|whole| whole[member].as_array()).map_or(0, Vec::len) as u64;
        let page = ask(limit.saturating_sub(received).min(MOST), after.clone()).await?;
        let next = page["next"].as_str().map(str::to_owned);
        let joined = match whole.take() {
            None => page,
            Some(sum) => join(sum, page, member),
        };
        let received = joined[member].as_array().map_or(0, Vec::len) as u64;
        // A cursor that leads to itself would be followed for ever.
        if received >= limit || next.is_none() || next == after {
            return Ok(joined);
        }
        after = next;
        whole = Some(joined);
    }
}

/// `sum` and the page that comes after it.
fn join(mut sum: Value, mut page: Value, member: &str) -> Value {
    let more = page[member].as_array_mut().map(std::mem::take).unwrap_or_default();
    if let Some(items) = sum[member].as_array_mut() {
        items.extend(more);
    }
    sum["next"] = page["next"].take();
    // Times of one form and zone: their texts are in their order.
    if let (Some(so_far), Some(now)) = (sum["complete_through"].as_str(), page["complete_through"].as_str())
        && now < so_far
    {
        sum["complete_through"] = page["complete_through"].take();
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use serde_json::json;

    use super::*;

    /// Gathers from pages given; what was asked for: limit and cursor.
    async fn gathered(limit: u64, pages: &[Value]) -> (Value, Vec<(u64, Option<String>)>) {
        let asked = RefCell::new(Vec::new());
        let answer = gather(limit, None, "sagas", async |limit, after| {
            asked.borrow_mut().push((limit, after));
            Ok(pages[asked.borrow().len() - 1].clone())
        });
        let answer = answer.await.expect("an answer");
        (answer, asked.into_inner())
    }

    fn page(items: u64, next: Option<&str>, through: &str) -> Value {
        json!({"sagas": (0..items).collect::<Vec<_>>(), "next": next, "complete_through": through})
    }

    #[tokio::test]
    async fn short_pages_are_followed_until_the_number_asked_for_is_there() {
        let pages = [page(2, Some("a"), "2026-3"), page(0, Some("b"), "2026-1"), page(3, Some("c"), "2026-2")];
        let (answer, asked) = gathered(5, &pages).await;
        assert_eq!(answer["sagas"], json!([0, 1, 0, 1, 2]));
        assert_eq!((&answer["next"], &answer["complete_through"]), (&json!("c"), &json!("2026-1")));
        assert_eq!(asked, [(5, None), (3, Some("a".into())), (3, Some("b".into()))]);
    }

    #[tokio::test]
    async fn a_list_ends_where_there_is_no_next() {
        let (answer, asked) = gathered(1_500, &[page(1_000, Some("a"), "2026-3"), page(7, None, "2026-4")]).await;
        assert_eq!(answer["sagas"].as_array().map(Vec::len), Some(1_007));
        assert_eq!((&answer["next"], &answer["complete_through"]), (&Value::Null, &json!("2026-3")));
        assert_eq!(asked, [(1_000, None), (500, Some("a".into()))]);
    }
}
