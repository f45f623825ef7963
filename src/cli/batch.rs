//! `resaga batch` and `resaga schedule`: many replays, and replays later. Thin over their routes.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::Target;
use super::exit::{Exit, Failure};
use super::order::{Attribution, Change, Start, Terms, file, json, json_or_file, one};
use super::output::Column;
use super::page::Page;
use super::saga::Filters;
use super::session::Session;
use super::times;
use crate::saga::time::Micros;

#[derive(Debug, Subcommand)]
pub enum Batch {
    /// What a batch would do, saga by saga; publishes nothing.
    #[command(
        after_help = "Example:\n  resaga batch plan --status failed --failed-step charge_payment --since -2h --from-step charge_payment --reason INC-4412"
    )]
    Plan(Box<Many>),
    /// Replays every saga that the filters find or the list names.
    #[command(
        after_help = "Example:\n  resaga batch run --overrides @tokens.csv --from-step charge_payment --rate-per-second 25 --reason INC-4412"
    )]
    Run(Box<Many>),
    #[command(after_help = "Example:\n  resaga batch get 0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10")]
    Get { batch_id: String },
    #[command(after_help = "Example:\n  resaga batch list")]
    List {
        #[command(flatten)]
        page: Page,
    },
    #[command(after_help = "Example:\n  resaga batch pause 0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10 --reason 'too fast'")]
    Pause(One),
    #[command(after_help = "Example:\n  resaga batch resume 0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10 --reason 'gateway is back'")]
    Resume(One),
    #[command(after_help = "Example:\n  resaga batch cancel 0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10 --reason 'wrong filter'")]
    Cancel(One),
    /// Replays the sagas whose replay failed once more.
    #[command(after_help = "Example:\n  resaga batch retry-failed 0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10 --reason INC-4412")]
    RetryFailed(One),
}

#[derive(Debug, Args)]
pub struct One {
    batch_id: String,
    #[command(flatten)]
    asked: Attribution,
}

#[derive(Debug, Args)]
pub struct Many {
    /// The batch's name.
    #[arg(long)]
    batch_name: Option<String>,
    #[command(flatten)]
    filters: Filters,
    /// Saga ids instead of filters: @FILE, one a line.
    #[arg(long, value_name = "@FILE")]
    ids: Option<String>,
    /// An override for each saga: @FILE.json ({saga id: override}) or @FILE.csv (saga_id and the keys to set).
    #[arg(long, value_name = "@FILE")]
    overrides: Option<String>,
    #[command(flatten)]
    start: Start,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    terms: Terms,
    #[arg(long)]
    rate_per_second: Option<f64>,
    /// Pause when more than so many failed.
    #[arg(long)]
    max_failures: Option<u64>,
    #[arg(long)]
    request_id: Option<String>,
    #[command(flatten)]
    asked: Attribution,
}

#[derive(Debug, Subcommand)]
pub enum Schedule {
    /// Replays later, again and again, or by a policy.
    #[command(
        after_help = "Example:\n  resaga schedule create --due +30m --saga-id order-1 --from-step charge_payment --reason INC-4412"
    )]
    Create(Box<Planned>),
    #[command(after_help = "Example:\n  resaga schedule list")]
    List {
        #[command(flatten)]
        page: Page,
    },
    #[command(after_help = "Example:\n  resaga schedule get 0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10")]
    Get { schedule_id: String },
    #[command(after_help = "Example:\n  resaga schedule delete 0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10 --reason 'not needed'")]
    Delete {
        schedule_id: String,
        #[command(flatten)]
        asked: Attribution,
    },
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("when").required(true))]
pub struct Planned {
    #[arg(long, group = "when", allow_hyphen_values = true, value_parser = times::parse)]
    due: Option<Micros>,
    #[arg(long, group = "when")]
    cron: Option<String>,
    /// JSON or @FILE.
    #[arg(long, group = "when", value_name = "JSON|@FILE")]
    policy: Option<String>,
    #[arg(long)]
    saga_id: Option<String>,
    #[command(flatten)]
    start: Start,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    asked: Attribution,
}

const BATCH: &[Column] = &[
    ("batch", "/batch_id"),
    ("name", "/name"),
    ("status", "/status"),
    ("total", "/total"),
    ("counts", "/counts"),
    ("eta", "/eta"),
    ("created", "/created_at"),
];
const VERDICTS: &[Column] = &[("saga", "/saga_id"), ("verdict", "/verdict"), ("code", "/code"), ("new_saga", "/new_saga_id")];
const SCHEDULE: &[Column] = &[
    ("schedule", "/schedule_id"),
    ("at", "/at"),
    ("cron", "/cron"),
    ("policy", "/policy"),
    ("next_due", "/next_due"),
    ("runs", "/runs"),
    ("enabled", "/enabled"),
    ("requested_by", "/requested_by"),
];

pub async fn run(session: &Session, command: Batch) -> Result<(), Failure> {
    let (client, output) = (session.client()?, session.output);
    let batch = |id: &str| Target::new("/v1/batches").segment(id);
    let (one, action) = match command {
        Batch::Plan(many) => {
            let answer = client.post(&Target::new("/v1/batches"), &many.body(session, true)?).await?;
            return output.list(&answer, "sagas", VERDICTS);
        }
        Batch::Run(many) => {
            let answer = client.post(&Target::new("/v1/batches"), &many.body(session, false)?).await?;
            return if many.terms.dry_run { output.list(&answer, "sagas", VERDICTS) } else { output.object(&answer, BATCH) };
        }
        Batch::Get { batch_id } => {
            let answer = client.get(&batch(&batch_id)).await?;
            output.object(&answer, BATCH)?;
            let failed =
                ["refused", "failed"].iter().any(|count| answer["counts"][count].as_u64().is_some_and(|count| count > 0));
            return match answer["status"].as_str() {
                Some("done") if failed => Err(Failure::new(Exit::Partial, "partial", "some of the batch's replays failed")),
                _ => Ok(()),
            };
        }
        Batch::List { page } => {
            return output.list(&page.of(session, Target::new("/v1/batches"), "batches").await?, "batches", BATCH);
        }
        Batch::Pause(one) => (one, "pause"),
        Batch::Resume(one) => (one, "resume"),
        Batch::Cancel(one) => (one, "cancel"),
        Batch::RetryFailed(one) => (one, "retry-failed"),
    };
    let mut body = Map::new();
    one.asked.add_to(&mut body, &session.environment)?;
    let answer = client.post(&batch(&one.batch_id).segment(action), &Value::Object(body)).await?;
    output.object(&answer, BATCH)
}

pub async fn run_schedule(session: &Session, command: Schedule) -> Result<(), Failure> {
    let (client, output) = (session.client()?, session.output);
    let schedules = Target::new("/v1/schedules");
    match command {
        Schedule::Create(planned) => output.object(&client.post(&schedules, &planned.body(session)?).await?, SCHEDULE),
        Schedule::List { page } => output.list(&page.of(session, schedules, "schedules").await?, "schedules", SCHEDULE),
        Schedule::Get { schedule_id } => output.object(&client.get(&schedules.segment(&schedule_id)).await?, SCHEDULE),
        Schedule::Delete { schedule_id, asked } => {
            let mut body = Map::new();
            asked.add_to(&mut body, &session.environment)?;
            output.object(&client.delete(&schedules.segment(&schedule_id), &Value::Object(body)).await?, SCHEDULE)
        }
    }
}

/// Where, what and on which terms, as members of one object.
fn order(start: &Start, change: &Change, terms: &Terms) -> Result<Map<String, Value>, Failure> {
    let mut order = Map::new();
    order.insert("from".into(), start.to_json()?);
    order.extend(change.to_json()?.map(|change| ("override".to_owned(), change)));
    terms.add_to(&mut order)?;
    Ok(order)
}

impl Many {
    fn body(&self, session: &Session, plan: bool) -> Result<Value, Failure> {
        let mut batch = order(&self.start, &self.change, &self.terms)?;
        if plan {
            batch.insert("dry_run".into(), json!(true));
        }
        batch.extend(self.batch_name.as_ref().map(|name| ("name".to_owned(), json!(name))));
        batch.extend(self.rate_per_second.map(|rate| ("rate_per_second".to_owned(), json!(rate))));
        batch.extend(self.max_failures.map(|most| ("max_failures".to_owned(), json!(most))));
        let overrides = self.overrides.as_deref().map(overrides).transpose()?;
        let listed = match (&self.ids, &overrides) {
            (Some(ids), _) => {
                let text = file(ids.strip_prefix('@').unwrap_or(ids), "--ids")?;
                Some(text.lines().filter(|line| !line.is_empty()).map(|id| json!(id)).collect::<Vec<_>>())
            }
            (None, Some(overrides)) if self.filters.pairs().is_empty() => Some(overrides.keys().map(|id| json!(id)).collect()),
            _ => None,
        };
        match listed {
            Some(_) if !self.filters.pairs().is_empty() => return Err(Failure::usage("--ids and filters exclude each other")),
            Some(ids) => drop(batch.insert("saga_ids".into(), Value::Array(ids))),
            None => drop(batch.insert("selector".into(), selector(&self.filters))),
        }
        batch.extend(overrides.map(|overrides| ("overrides".to_owned(), Value::Object(overrides))));

        let mut body = Map::new();
        body.insert("request_id".into(), json!(self.request_id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string())));
        body.insert("batch".into(), Value::Object(batch));
        self.asked.add_to(&mut body, &session.environment)?;
        Ok(Value::Object(body))
    }
}

/// The filters as an object: those that may repeat as lists.
fn selector(filters: &Filters) -> Value {
    let mut selector = Map::new();
    for (name, value) in filters.pairs() {
        match name {
            "status" | "label" => match selector.entry(name).or_insert_with(|| json!([])).as_array_mut() {
                Some(list) => list.push(json!(value)),
                None => unreachable!("only lists are put under {name}"),
            },
            "depth" => drop(selector.insert(name.into(), value.parse::<u32>().map_or(json!(value), |depth| json!(depth)))),
            "forced" => drop(selector.insert(name.into(), json!(true))),
            _ => drop(selector.insert(name.into(), json!(value))),
        }
    }
    Value::Object(selector)
}

fn overrides(argument: &str) -> Result<Map<String, Value>, Failure> {
    let path = argument.strip_prefix('@').ok_or_else(|| Failure::usage("--overrides must be @FILE"))?;
    let text = file(path, "--overrides")?;
    if path.ends_with(".csv") {
        return overrides_of_csv(&text);
    }
    match json(&text, "--overrides")? {
        Value::Object(overrides) => Ok(overrides),
        _ => Err(Failure::usage("--overrides must hold an object of overrides by saga id")),
    }
}

/// A row per saga: `saga_id`, and the keys to set in its context. A heading that ends in `:` has JSON below it.
fn overrides_of_csv(text: &str) -> Result<Map<String, Value>, Failure> {
    let broken = |e: csv::Error| Failure::usage(format!("--overrides is not CSV: {e}"));
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headings = reader.headers().map_err(broken)?.clone();
    let id_at = headings.iter().position(|heading| heading == "saga_id");
    let id_at = id_at.ok_or_else(|| Failure::usage("--overrides has no column saga_id"))?;
    let mut overrides = Map::new();
    for row in reader.records() {
        let row = row.map_err(broken)?;
        let mut merge = Map::new();
        for (heading, value) in headings.iter().zip(&row).enumerate().filter(|(at, _)| *at != id_at).map(|(_, pair)| pair) {
            match heading.strip_suffix(':') {
                Some(key) => drop(merge.insert(key.into(), json(value, "a cell of --overrides")?)),
                None => drop(merge.insert(heading.into(), json!(value))),
            }
        }
        overrides.insert(row[id_at].to_owned(), one("merge", Value::Object(merge)));
    }
    Ok(overrides)
}

impl Planned {
    fn body(&self, session: &Session) -> Result<Value, Failure> {
        let mut schedule = order(&self.start, &self.change, &self.terms)?;
        schedule.extend(self.due.map(|at| ("at".to_owned(), json!(at.to_string()))));
        schedule.extend(self.cron.as_ref().map(|cron| ("cron".to_owned(), json!(cron))));
        if let Some(policy) = &self.policy {
            schedule.insert("policy".into(), json_or_file(policy, "--policy")?);
        }
        schedule.extend(self.saga_id.as_ref().map(|id| ("saga_id".to_owned(), json!(id))));
        let mut body = Map::new();
        body.insert("schedule".into(), Value::Object(schedule));
        self.asked.add_to(&mut body, &session.environment)?;
        Ok(Value::Object(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_overrides_gives_each_saga_its_own() {
        let overrides = overrides_of_csv("saga_id,token,n:\norder-1,tok_a,1e3\n\"o,2\",tok_b,null\n").expect("read");
        assert_eq!(
            Value::Object(overrides).to_string(),
            r#"{"order-1":{"merge":{"token":"tok_a","n":1e3}},"o,2":{"merge":{"token":"tok_b","n":null}}}"#
        );
        assert!(overrides_of_csv("id,token\n1,2\n").is_err());
    }
}
