//! `resaga batch`: many replays. Plans first, asks, and runs exactly what was planned.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::Target;
use super::confirm::{Confirmation, confirm};
use super::effects;
use super::exit::{Exit, Failure};
use super::order::{Attribution, Change, Start, Terms, file, json, one};
use super::output::{Column, note};
use super::page::Page;
use super::progress;
use super::saga::Filters;
use super::session::Session;

#[derive(Debug, Subcommand)]
pub enum Batch {
    /// What a batch would do, saga by saga; publishes nothing.
    #[command(
        after_help = "Example:\n  resaga batch plan --status failed --failed-step charge_payment --since -2h --from-step charge_payment --reason INC-4412"
    )]
    Plan(Box<Many>),
    /// Replays every saga that the filters find or the list names, or exactly those of a plan.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<Run>),
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
    /// Undoes every replay of a batch that was published.
    #[command(after_help = "Example:\n  resaga batch undo 0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10 --reason 'wrong gateway'")]
    Undo(One),
    /// Replays the sagas whose replay failed once more.
    #[command(
        after_help = "Example:\n  resaga batch retry-failed 0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10 --set token=tok_2 --reason INC-4412"
    )]
    RetryFailed(Box<Retry>),
    /// Each saga of a batch with its new saga, status and outcome.
    #[command(after_help = "Example:\n  resaga batch report 0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10 -o csv > report.csv")]
    Report {
        batch_id: String,
        /// Any of these statuses of the replay log; may repeat.
        #[arg(long)]
        status: Vec<String>,
    },
}

const RUN_EXAMPLES: &str = "Examples:
  resaga batch run --overrides @tokens.csv --from-step charge_payment --rate-per-second 25 --confirm 1500 --reason INC-4412
  resaga batch run --overrides @tokens.csv --jq '.payment.token = $item.token' --latest --confirm 1500 --reason INC-4412
  resaga batch run --plan 0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10 --reason INC-4412 --wait";

#[derive(Debug, Args)]
pub struct Run {
    /// Runs exactly the list of this plan.
    #[arg(long, value_name = "PLAN_ID", group = "start")]
    plan: Option<String>,
    #[command(flatten)]
    many: Many,
    /// Waits until every restored saga has ended, --timeout at most (default: an hour), and shows the progress.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    confirmation: Confirmation,
}

#[derive(Debug, Args)]
pub struct Retry {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    change: Change,
    /// An override for each saga, as of `batch run`.
    #[arg(long, value_name = "@FILE")]
    overrides: Option<String>,
    /// The column of a CSV that has the saga ids.
    #[arg(long, value_name = "COLUMN", default_value = "saga_id", requires = "overrides")]
    key: String,
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
    /// An override for each saga: @FILE.json ({saga id: override}) or @FILE.csv (saga_id and the keys to set). With --jq what
    /// the expression sees as `$item`: any JSON, or a row's object.
    #[arg(long, value_name = "@FILE")]
    overrides: Option<String>,
    /// The column of a CSV that has the saga ids.
    #[arg(long, value_name = "COLUMN", default_value = "saga_id", requires = "overrides")]
    key: String,
    #[command(flatten)]
    start: Start,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    terms: Terms,
    /// Replays a second, with a burst of one second.
    #[arg(long)]
    rate_per_second: Option<f64>,
    /// Replays whose restored sagas have not ended, at most.
    #[arg(long)]
    max_in_flight: Option<u64>,
    /// Pause when more than this many failed: a number, or a share of all such as 5%.
    #[arg(long)]
    max_failures: Option<String>,
    #[arg(long)]
    request_id: Option<String>,
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
    ("paused because", "/paused_because"),
    ("code", "/code"),
    ("message", "/message"),
];
const LIST: &[Column] = &[
    ("batch", "/batch_id"),
    ("name", "/name"),
    ("status", "/status"),
    ("total", "/total"),
    ("completed", "/counts/completed"),
    ("refused", "/counts/refused"),
    ("failed", "/counts/failed"),
    ("created", "/created_at"),
];
const VERDICTS: &[Column] = &[("saga", "/saga_id"), ("verdict", "/verdict"), ("code", "/code"), ("new_saga", "/new_saga_id")];
const REPORT: &[Column] = &[
    ("saga", "/original_saga_id"),
    ("new_saga", "/new_saga_id"),
    ("status", "/status"),
    ("outcome", "/outcome"),
    ("code", "/code"),
    ("replay", "/replay_id"),
];

fn target(id: &str) -> Target {
    Target::new("/v1/batches").segment(id)
}

pub async fn run(session: &Session, command: Batch) -> Result<(), Failure> {
    let (client, output) = (session.client()?, session.output);
    let (one, action) = match command {
        Batch::Plan(many) => {
            let answer = client.post(&Target::new("/v1/batches"), &many.body(session, true)?).await?;
            return show(session, &answer, many.terms.compensates());
        }
        Batch::Run(run) => return start(session, *run).await,
        Batch::Get { batch_id } => {
            let answer = client.get(&target(&batch_id)).await?;
            output.object(&answer, BATCH)?;
            return verdict(&answer);
        }
        Batch::List { page } => {
            return output.list(&page.of(session, Target::new("/v1/batches"), "batches").await?, "batches", LIST);
        }
        Batch::Report { batch_id, status } => {
            let replays = target(&batch_id).segment("replays");
            let replays = status.iter().fold(replays, |replays, status| replays.query("status", status));
            return output.list(&Page::whole().of(session, replays, "replays").await?, "replays", REPORT);
        }
        Batch::RetryFailed(retry) => {
            let mut body = Map::new();
            body.extend(retry.change.to_json()?.map(|change| ("override".to_owned(), change)));
            let overrides = retry.change.of_each(retry.overrides.as_deref(), &retry.key)?;
            body.extend(overrides.map(|all| ("overrides".to_owned(), all.into())));
            return change(session, retry.one, "retry-failed", body).await;
        }
        Batch::Pause(one) => (one, "pause"),
        Batch::Resume(one) => (one, "resume"),
        Batch::Cancel(one) => (one, "cancel"),
        Batch::Undo(one) => (one, "undo"),
    };
    change(session, one, action, Map::new()).await
}

async fn change(session: &Session, one: One, action: &str, mut body: Map<String, Value>) -> Result<(), Failure> {
    one.asked.add_to(&mut body, &session.environment)?;
    let answer = session.client()?.post(&target(&one.batch_id).segment(action), &Value::Object(body)).await?;
    session.output.object(&answer, BATCH)
}

/// Without a plan one is made first: what is asked about is exactly what is run.
async fn start(session: &Session, run: Run) -> Result<(), Failure> {
    let client = session.client()?;
    let batches = Target::new("/v1/batches");
    let plan_id = match &run.plan {
        Some(plan_id) if run.many.says_what() => {
            return Err(Failure::usage(format!(
                "--plan {plan_id} has the sagas and what to do with them: leave the other flags out"
            )));
        }
        Some(plan_id) => {
            // Whoever names a plan has seen it; a number that is given all the same must be its own.
            if run.confirmation.is_given() {
                let plan = client.get(&batches.clone().segment("plans").segment(plan_id).query("limit", "1")).await?;
                confirm(&run.confirmation, plan["total"].as_u64().unwrap_or_default(), &counted(&plan), &[])?;
            }
            plan_id.clone()
        }
        None => {
            let plan = client.post(&batches, &run.many.body(session, true)?).await?;
            if run.many.terms.dry_run {
                return show(session, &plan, run.many.terms.compensates());
            }
            let total = plan["total"].as_u64().unwrap_or_default();
            let warnings = effects::warnings(&plan, run.many.terms.compensates());
            confirm(&run.confirmation, total, &counted(&plan), &warnings)?;
            plan["plan_id"].as_str().unwrap_or_default().to_owned()
        }
    };
    let mut body = Map::new();
    body.insert("plan_id".into(), json!(plan_id));
    run.many.asked.add_to(&mut body, &session.environment)?;
    let answer = client.post(&batches, &Value::Object(body)).await.map_err(|failure| match failure.exit {
        Exit::Unreachable | Exit::TimeOut => {
            failure.hint(format!("resaga batch run --plan {plan_id} runs it once, however often"))
        }
        _ => failure,
    })?;
    if !run.wait {
        return session.output.object(&answer, BATCH);
    }
    let batch_id = answer["batch_id"].as_str().unwrap_or_default();
    let last = progress::until_done(session, &target(batch_id), batch_id).await?;
    session.output.object(&last, BATCH)?;
    verdict(&last)
}

/// What a plan says in sum.
fn counted(plan: &Value) -> String {
    let counts = plan["counts"].as_object();
    let refused = counts.into_iter().flatten().filter(|(name, _)| *name != "replay");
    let refused: Vec<String> = refused.map(|(code, count)| format!("{count} {code}")).collect();
    let refused = if refused.is_empty() { String::new() } else { format!(", and refuses {}", refused.join(", ")) };
    let replayed = plan["counts"]["replay"].as_u64().unwrap_or_default();
    let total = plan["total"].as_u64().unwrap_or_default();
    format!("this replays {replayed} of {total} sagas{refused}")
}

fn show(session: &Session, plan: &Value, compensates: bool) -> Result<(), Failure> {
    session.output.list(plan, "sagas", VERDICTS)?;
    effects::warnings(plan, compensates).iter().for_each(|warning| note(warning));
    note(&planned(plan));
    Ok(())
}

fn planned(plan: &Value) -> String {
    let plan_id = plan["plan_id"].as_str().unwrap_or_default();
    format!("{}; nothing was published; resaga batch run --plan {plan_id} runs exactly this list", counted(plan))
}

/// Did it end as it was meant to?
fn verdict(batch: &Value) -> Result<(), Failure> {
    let count = |name: &str| batch["counts"][name].as_u64().unwrap_or_default();
    if let Some(code) = batch["code"].as_str() {
        return Err(Failure::new(Exit::Refused, code, batch["message"].as_str().unwrap_or_default()));
    }
    match batch["status"].as_str() {
        Some("done") if count("refused") + count("failed") > 0 => {
            Err(Failure::new(Exit::Partial, "partial", "some of the batch's replays were refused or failed"))
        }
        _ => Ok(()),
    }
}

/// Where, what and on which terms, as members of one object.
pub(super) fn order(start: &Start, change: &Change, terms: &Terms) -> Result<Map<String, Value>, Failure> {
    let mut order = Map::new();
    order.insert("from".into(), start.to_json()?);
    order.extend(change.to_json()?.map(|change| ("override".to_owned(), change)));
    terms.add_to(&mut order)?;
    Ok(order)
}

impl Many {
    /// Was anything given that a plan has?
    fn says_what(&self) -> bool {
        let changes = self.change.to_json().map_or(true, |change| change.is_some());
        changes || self.ids.is_some() || self.overrides.is_some() || !self.filters.pairs().is_empty() || self.batch_name.is_some()
    }

    fn body(&self, session: &Session, plan: bool) -> Result<Value, Failure> {
        let mut batch = order(&self.start, &self.change, &self.terms)?;
        if plan {
            batch.insert("dry_run".into(), json!(true));
        }
        batch.extend(self.batch_name.as_ref().map(|name| ("name".to_owned(), json!(name))));
        batch.extend(self.rate_per_second.map(|rate| ("rate_per_second".to_owned(), json!(rate))));
        batch.extend(self.max_in_flight.map(|most| ("max_in_flight".to_owned(), json!(most))));
        let failures =
            self.max_failures.as_ref().map(|most| most.parse::<u64>().map_or_else(|_| json!(most), |most| json!(most)));
        batch.extend(failures.map(|most| ("max_failures".to_owned(), most)));
        let overrides = self.change.of_each(self.overrides.as_deref(), &self.key)?;
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
            None if self.filters.pairs().is_empty() => {
                return Err(Failure::usage("say which sagas: filters such as --status, or --ids, or --overrides"));
            }
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
            "forced" | "stuck" => drop(selector.insert(name.into(), json!(true))),
            _ => drop(selector.insert(name.into(), json!(value))),
        }
    }
    Value::Object(selector)
}

impl Change {
    /// `overrides`: what is given for each saga; `key`: the column of a CSV that has the ids.
    fn of_each(&self, argument: Option<&str>, key: &str) -> Result<Option<Map<String, Value>>, Failure> {
        argument.map(|argument| overrides(argument, key, self.is_expression())).transpose()
    }
}

fn overrides(argument: &str, key: &str, are_items: bool) -> Result<Map<String, Value>, Failure> {
    let path = argument.strip_prefix('@').ok_or_else(|| Failure::usage("--overrides must be @FILE"))?;
    let text = file(path, "--overrides")?;
    if path.ends_with(".csv") {
        return overrides_of_csv(&text, key, are_items);
    }
    match json(&text, "--overrides")? {
        Value::Object(overrides) => Ok(overrides),
        _ => Err(Failure::usage("--overrides must hold an object of overrides by saga id")),
    }
}

/// A row per saga: its id in column `key`, and the keys to set in its context, or of the object for an expression. A heading that
/// ends in `:` has JSON below it.
fn overrides_of_csv(text: &str, key: &str, are_items: bool) -> Result<Map<String, Value>, Failure> {
    let broken = |e: csv::Error| Failure::usage(format!("--overrides is not CSV: {e}"));
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headings = reader.headers().map_err(broken)?.clone();
    let id_at = headings.iter().position(|heading| heading == key);
    let id_at =
        id_at.ok_or_else(|| Failure::usage(format!("--overrides has no column {key}: --key names the one with the saga ids")))?;
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
        let keys = Value::Object(merge);
        overrides.insert(row[id_at].to_owned(), if are_items { keys } else { one("merge", keys) });
    }
    Ok(overrides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_overrides_gives_each_saga_its_own() {
        let table = "saga_id,token,n:\norder-1,tok_a,1e3\n\"o,2\",tok_b,null\n";
        let items = Value::Object(overrides_of_csv(table, "saga_id", true).expect("read"));
        assert_eq!(items.to_string(), r#"{"order-1":{"token":"tok_a","n":1e3},"o,2":{"token":"tok_b","n":null}}"#);
        let overrides = overrides_of_csv(table, "saga_id", false).expect("read");
        assert_eq!(
            Value::Object(overrides).to_string(),
            r#"{"order-1":{"merge":{"token":"tok_a","n":1e3}},"o,2":{"merge":{"token":"tok_b","n":null}}}"#
        );
        assert!(overrides_of_csv("id,token\n1,2\n", "saga_id", false).is_err());
        let by_id = overrides_of_csv("id,token\n1,2\n", "id", false).expect("read");
        assert_eq!(by_id["1"].to_string(), r#"{"merge":{"token":"2"}}"#);
    }
}
