//! `resaga schedule`: replays later, again and again, or by a policy. Thin over its routes.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::Target;
use super::exit::Failure;
use super::order::{Attribution, Change, Terms, json, json_or_file};
use super::output::Column;
use super::page::Page;
use super::schedule_file::{self, ScheduleFile};
use super::session::Session;
use super::times;
use crate::saga::time::Micros;

#[derive(Debug, Subcommand)]
pub enum Schedule {
    /// Replays once at a time, by a cron expression, or whenever a saga fails.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Box<New>),
    /// What a schedule would have done in a window of time; nothing is written.
    #[command(after_help = "Example:\n  resaga schedule preview --policy @policy.json --since -7d")]
    Preview {
        #[command(flatten)]
        what: Box<Definition>,
        /// Recorded or due from then on: RFC 3339 with a zone, or relative such as -7d.
        #[arg(long, allow_hyphen_values = true, value_parser = times::parse)]
        since: Micros,
        /// Before then; default: now.
        #[arg(long, allow_hyphen_values = true, value_parser = times::parse)]
        until: Option<Micros>,
        #[command(flatten)]
        page: Page,
    },
    #[command(after_help = "Example:\n  resaga schedule list")]
    List,
    #[command(after_help = "Example:\n  resaga schedule get 0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10")]
    Get { schedule_id: String },
    /// Ends it; what waits for a policy is cancelled.
    #[command(after_help = "Example:\n  resaga schedule delete 0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10 --reason 'not needed'")]
    Delete(One),
    /// Lets it go on; a policy's breaker counts anew.
    #[command(after_help = "Example:\n  resaga schedule enable 0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10 --reason 'gateway is back'")]
    Enable(One),
    /// Stops it for now; what waits for a policy is cancelled.
    #[command(after_help = "Example:\n  resaga schedule disable 0194f3a0-7c1e-7cc3-9b1a-3d2f6a5b8c10 --reason 'gateway is down'")]
    Disable(One),
    /// Compares the `[[schedule]]` tables of a file with what runs.
    #[command(after_help = "Example:\n  resaga schedule plan --file schedules.toml")]
    Plan {
        #[command(flatten)]
        file: ScheduleFile,
    },
    /// Makes what runs as the `[[schedule]]` tables of a file say.
    #[command(after_help = "Example:\n  resaga schedule apply --file schedules.toml --reason 'change 17'")]
    Apply {
        #[command(flatten)]
        file: ScheduleFile,
        #[command(flatten)]
        asked: Attribution,
    },
}

const CREATE_EXAMPLES: &str = "Examples:
  resaga schedule create --due +30m --saga-id order-1 --from-step charge_payment --reason INC-4412
  resaga schedule create --cron '0 6 * * *' --zone Europe/Berlin --batch @batch.json --reason 'nightly repair'
  resaga schedule create --policy '{\"on\":{\"error_code\":\"TIMEOUT\"},\"delay\":\"5m\",\"stop_ratio\":0.1}' --reason 'gateway time-outs'";

#[derive(Debug, Args)]
pub struct One {
    schedule_id: String,
    #[command(flatten)]
    asked: Attribution,
}

#[derive(Debug, Args)]
pub struct New {
    #[command(flatten)]
    what: Definition,
    #[command(flatten)]
    asked: Attribution,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("when").required(true))]
pub struct Definition {
    /// Once, then: RFC 3339 with a zone, or relative such as +30m.
    #[arg(long, group = "when", allow_hyphen_values = true, value_parser = times::parse)]
    due: Option<Micros>,
    /// Five fields: minute, hour, day of month, month, day of week.
    #[arg(long, group = "when")]
    cron: Option<String>,
    /// Whenever a saga fails, or is stuck: JSON or @FILE.
    #[arg(long, group = "when", value_name = "JSON|@FILE")]
    policy: Option<String>,
    /// The whole schedule: JSON or @FILE.
    #[arg(long, group = "when", value_name = "JSON|@FILE")]
    definition: Option<String>,
    /// For people.
    #[arg(long)]
    name: Option<String>,
    /// Of --cron: IANA name [default: UTC].
    #[arg(long, requires = "cron")]
    zone: Option<String>,
    /// Of the runs that were missed: the last is made up for, or none.
    #[arg(long, value_parser = ["last", "none"])]
    catch_up: Option<String>,
    /// The saga, of --due and --cron.
    #[arg(long, conflicts_with_all = ["policy", "batch"])]
    saga_id: Option<String>,
    /// Many sagas, of --due and --cron, as the member `batch` of a BATCH: JSON or @FILE.
    #[arg(long, value_name = "JSON|@FILE", conflicts_with = "policy")]
    batch: Option<String>,
    /// Just before the last attempt of this step; of a policy the default is the failed step.
    #[arg(long, value_name = "STEP", conflicts_with = "from")]
    from_step: Option<String>,
    /// The request's `from` as JSON.
    #[arg(long, value_name = "JSON")]
    from: Option<String>,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    terms: Terms,
}

pub(super) const SCHEDULE: &[Column] = &[
    ("schedule", "/schedule_id"),
    ("name", "/name"),
    ("at", "/at"),
    ("cron", "/cron"),
    ("policy", "/policy/on"),
    ("next_due", "/next_due"),
    ("last_due", "/last_due"),
    ("runs", "/runs"),
    ("enabled", "/enabled"),
    ("stopped_because", "/stopped_because"),
    ("status", "/status"),
    ("requested_by", "/requested_by"),
];

const WOULD: &[Column] =
    &[("saga", "/saga_id"), ("sequence", "/sequence"), ("due", "/due"), ("verdict", "/verdict"), ("code", "/code")];

pub async fn run(session: &Session, command: Schedule) -> Result<(), Failure> {
    let (client, output) = (session.client()?, session.output);
    let schedules = Target::new("/v1/schedules");
    match command {
        Schedule::Create(new) => {
            let mut body = Map::new();
            body.insert("schedule".into(), new.what.to_json()?);
            new.asked.add_to(&mut body, &session.environment)?;
            output.object(&client.post(&schedules, &Value::Object(body)).await?, &[("schedule", "/schedule_id")])
        }
        Schedule::Preview { what, since, until, page } => {
            let until = until.unwrap_or_else(times::now);
            let body = json!({"schedule": what.to_json()?, "since": since.to_string(), "until": until.to_string()});
            let page = page.of_post(session, schedules.segment("preview"), &body, "would").await?;
            output.list(&page, "would", WOULD)
        }
        Schedule::List => output.list(&client.get(&schedules).await?, "schedules", SCHEDULE),
        Schedule::Get { schedule_id } => output.object(&client.get(&schedules.segment(&schedule_id)).await?, SCHEDULE),
        Schedule::Delete(one) => {
            let target = schedules.segment(&one.schedule_id);
            output.object(&client.delete(&target, &one.body(session)?).await?, SCHEDULE)
        }
        Schedule::Enable(one) => {
            let target = schedules.segment(&one.schedule_id).segment("enable");
            output.object(&client.post(&target, &one.body(session)?).await?, SCHEDULE)
        }
        Schedule::Disable(one) => {
            let target = schedules.segment(&one.schedule_id).segment("disable");
            output.object(&client.post(&target, &one.body(session)?).await?, SCHEDULE)
        }
        Schedule::Plan { file } => schedule_file::plan(session, &file).await,
        Schedule::Apply { file, asked } => schedule_file::apply(session, &file, &asked).await,
    }
}

impl One {
    fn body(&self, session: &Session) -> Result<Value, Failure> {
        let mut body = Map::new();
        self.asked.add_to(&mut body, &session.environment)?;
        Ok(Value::Object(body))
    }
}

impl Definition {
    fn to_json(&self) -> Result<Value, Failure> {
        if let Some(definition) = &self.definition {
            return json_or_file(definition, "--definition");
        }
        let mut schedule = Map::new();
        let texts = [
            ("name", &self.name),
            ("at", &self.due.map(|at| at.to_string())),
            ("cron", &self.cron),
            ("zone", &self.zone),
            ("catch_up", &self.catch_up),
            ("saga_id", &self.saga_id),
        ];
        schedule.extend(texts.into_iter().filter_map(|(name, text)| text.as_ref().map(|text| (name.to_owned(), json!(text)))));
        for (name, flag, text) in [("policy", "--policy", &self.policy), ("batch", "--batch", &self.batch)] {
            if let Some(text) = text {
                schedule.insert(name.into(), json_or_file(text, flag)?);
            }
        }
        match (&self.from_step, &self.from) {
            (Some(step), _) => drop(schedule.insert("from".into(), json!({"step": step}))),
            (None, Some(from)) => drop(schedule.insert("from".into(), json(from, "--from")?)),
            (None, None) => {}
        }
        if let Some(change) = self.change.to_json()? {
            schedule.insert("override".into(), change);
        }
        self.terms.add_to(&mut schedule)?;
        Ok(Value::Object(schedule))
    }
}
