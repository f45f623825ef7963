//! `resaga schedule`: replays later. Thin over its routes.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::batch::order;
use super::client::Target;
use super::exit::Failure;
use super::order::{Attribution, Change, Start, Terms, json_or_file};
use super::output::Column;
use super::page::Page;
use super::session::Session;
use super::times;
use crate::saga::time::Micros;

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

pub async fn run(session: &Session, command: Schedule) -> Result<(), Failure> {
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
