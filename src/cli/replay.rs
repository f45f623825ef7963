//! `resaga replay`: ask for one replay, follow it, cancel it.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::client::Target;
use super::effects;
use super::exit::{Exit, Failure, exit_of_refusal};
use super::order::{Attribution, Change, Start, Terms};
use super::output::{Column, note};
use super::page::Page;
use super::saga::Window;
use super::session::Session;

const EXAMPLES: &str = "Examples:
  resaga replay run order-1 --from-step charge_payment --set payment_token=tok_new --reason INC-4412 --dry-run
  resaga replay run order-1 --from-step charge_payment --reason INC-4412 --wait
  resaga replay list --status refused --since -1h";

/// Without --timeout, how long --wait waits.
const WAIT: Duration = Duration::from_secs(300);

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Replay {
    /// Restores a saga at a checkpoint, under a new id.
    #[command(after_help = "Examples:
  resaga replay run order-1 --from-step charge_payment --set gateway=backup --set amount:=99.5 --reason INC-4412
  resaga replay run order-1 --latest --merge @override.json --reason INC-4412 --dry-run
  resaga replay run order-1 --latest --jq '.amount = ([.items[].price] | add)' --reason INC-4412 --dry-run
  resaga replay run order-1 --latest --mode compensate --reason INC-4412 --dry-run")]
    Run(Box<Run>),
    /// One record of the replay log.
    #[command(after_help = "Example:\n  resaga replay get 900f44fb-faac-5e2b-928c-b4ea3c60c892")]
    Get { replay_id: String },
    /// Records of the replay log, newest first.
    #[command(after_help = "Example:\n  resaga replay list --saga-id order-1")]
    List {
        #[arg(long)]
        status: Vec<String>,
        /// The original, the restored saga, or the one it runs as.
        #[arg(long)]
        saga_id: Option<String>,
        #[arg(long)]
        request_id: Option<String>,
        #[arg(long)]
        batch_id: Option<String>,
        #[arg(long)]
        requested_by: Option<String>,
        #[command(flatten)]
        window: Window,
        #[command(flatten)]
        page: Page,
    },
    /// Cancels a replay that is not yet published.
    #[command(after_help = "Example:\n  resaga replay cancel 900f44fb-faac-5e2b-928c-b4ea3c60c892 --reason 'wrong saga'")]
    Cancel {
        replay_id: String,
        #[command(flatten)]
        asked: Attribution,
    },
    /// Asks the restored saga's consumers to compensate what it did.
    #[command(after_help = "Example:\n  resaga replay undo 900f44fb-faac-5e2b-928c-b4ea3c60c892 --reason 'wrong gateway'")]
    Undo {
        replay_id: String,
        #[command(flatten)]
        asked: Attribution,
    },
}

#[derive(Debug, clap::Args)]
pub struct Run {
    id: String,
    #[command(flatten)]
    start: Start,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    terms: Terms,
    /// The restored saga's id; default: derived from request and saga.
    #[arg(long)]
    new_saga_id: Option<String>,
    /// Running a command again with the same id replays once; default: a new one.
    #[arg(long)]
    request_id: Option<String>,
    /// Wait until it is published, or until the restored saga ended; --timeout limits it (default 5m).
    #[arg(long, value_name = "UNTIL", num_args = 0..=1, require_equals = true, default_missing_value = "published")]
    wait: Option<Until>,
    #[command(flatten)]
    asked: Attribution,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Until {
    Published,
    Ended,
}

const RECORD: &[Column] = &[
    ("replay", "/replay_id"),
    ("request", "/request_id"),
    ("command", "/command"),
    ("status", "/status"),
    ("code", "/code"),
    ("message", "/message"),
    ("saga", "/original_saga_id"),
    ("new saga", "/new_saga_id"),
    ("executed as", "/executed_as"),
    ("from", "/from"),
    ("checkpoint", "/checkpoint"),
    ("resume step", "/resume_step"),
    ("mode", "/mode"),
    ("forced failure", "/force_failure"),
    ("changed", "/changed"),
    ("compensated since", "/compensated_since"),
    ("outcome", "/outcome"),
    ("undone by", "/undone_by"),
    ("requested by", "/requested_by"),
    ("reason", "/reason"),
    ("accepted", "/accepted_at"),
    ("published", "/published_at"),
    ("ended", "/ended_at"),
    ("position", "/position"),
];
const RECORDS: &[Column] = &[
    ("replay", "/replay_id"),
    ("status", "/status"),
    ("code", "/code"),
    ("saga", "/original_saga_id"),
    ("new_saga", "/new_saga_id"),
    ("resume_step", "/resume_step"),
    ("requested_by", "/requested_by"),
    ("accepted", "/accepted_at"),
];
const PLAN: &[Column] = &[
    ("replay", "/plan/replay_id"),
    ("saga", "/plan/original_saga_id"),
    ("new saga", "/plan/saga_id"),
    ("mode", "/plan/mode"),
    ("checkpoint", "/plan/checkpoint/sequence"),
    ("as of", "/plan/checkpoint/effective_time"),
    ("resume step", "/plan/resume_step"),
    ("resume steps", "/plan/resume_steps"),
    ("completed", "/plan/completed_steps"),
    ("skipped", "/plan/skipped_steps"),
    ("compensated since", "/plan/compensated_since"),
    ("forced failure", "/plan/force_failure"),
    ("runs", "/runs"),
    ("context diff", "/diff"),
    ("context", "/plan/context"),
];
const ACCEPTED: &[Column] = &[("request", "/request_id"), ("replay", "/replay_id"), ("new saga", "/new_saga_id")];

fn record(replay_id: &str) -> Target {
    Target::new("/v1/replays").segment(replay_id)
}

pub async fn run(session: &Session, command: Replay) -> Result<(), Failure> {
    let output = session.output;
    match command {
        Replay::Run(run) => start(session, &run).await,
        Replay::Get { replay_id } => output.object(&session.client()?.get(&record(&replay_id)).await?, RECORD),
        Replay::List { status, saga_id, request_id, batch_id, requested_by, window, page } => {
            let target = status.iter().fold(Target::new("/v1/replays"), |target, status| target.query("status", status));
            let target = target.maybe("saga_id", saga_id).maybe("request_id", request_id).maybe("batch_id", batch_id);
            let target = window.on(target.maybe("requested_by", requested_by));
            output.list(&page.of(session, target, "replays").await?, "replays", RECORDS)
        }
        Replay::Cancel { replay_id, asked } => change(session, record(&replay_id).segment("cancel"), &asked).await,
        Replay::Undo { replay_id, asked } => change(session, record(&replay_id).segment("undo"), &asked).await,
    }
}

async fn change(session: &Session, target: Target, asked: &Attribution) -> Result<(), Failure> {
    let mut body = Map::new();
    asked.add_to(&mut body, &session.environment)?;
    let answer = session.client()?.post(&target, &Value::Object(body)).await?;
    session.output.object(&answer, ACCEPTED)
}

async fn start(session: &Session, run: &Run) -> Result<(), Failure> {
    let request_id = run.request_id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let mut body = Map::new();
    body.insert("request_id".into(), json!(request_id));
    body.insert("command".into(), json!("REPLAY"));
    body.insert("saga_id".into(), json!(run.id));
    body.insert("from".into(), run.start.to_json()?);
    body.extend(run.change.to_json()?.map(|change| ("override".to_owned(), change)));
    run.terms.add_to(&mut body)?;
    body.extend(run.new_saga_id.as_ref().map(|id| ("new_saga_id".to_owned(), json!(id))));
    run.asked.add_to(&mut body, &session.environment)?;

    let client = session.client()?;
    let answer = client.post(&Target::new("/v1/replays"), &Value::Object(body)).await.map_err(|failure| match failure.exit {
        // It may have been taken: asking again with the same id is safe.
        Exit::Unreachable | Exit::TimeOut => {
            failure.hint(format!("running it again with --request-id {request_id} replays once"))
        }
        _ => failure,
    })?;
    if run.terms.dry_run {
        session.output.object(&answer, &plan_columns(&answer))?;
        notes(&answer).iter().for_each(|text| note(text));
        return Ok(());
    }
    let Some(until) = run.wait else { return session.output.object(&answer, ACCEPTED) };
    let replay_id = answer["replay_id"].as_str().unwrap_or_default();
    let last = wait(session, replay_id, until).await?;
    session.output.object(&last, RECORD)?;
    verdict(&last)
}

/// In mode compensate `completed_steps` are what is to be undone.
fn plan_columns(answer: &Value) -> Vec<Column> {
    let compensates = answer["plan"]["mode"] == "compensate";
    let column = |(heading, pointer): &Column| match *pointer {
        "/plan/completed_steps" if compensates => ("compensates", *pointer),
        _ => (*heading, *pointer),
    };
    PLAN.iter().map(column).collect()
}

/// What a dry run has to say besides its plan.
fn notes(answer: &Value) -> Vec<String> {
    let plan = &answer["plan"];
    let mut notes = Vec::new();
    if plan["mode"] == "compensate" && plan["completed_steps"].as_array().is_some_and(Vec::is_empty) {
        notes.push(
            "no step would be compensated: none is completed at this point and not compensated yet; --latest takes all".into(),
        );
    }
    notes.extend(effects::warnings(answer, plan["mode"] == "compensate"));
    notes.push(match answer["would_refuse"].as_str() {
        None => "nothing was published; the same command without --dry-run publishes it".into(),
        Some(code) => {
            let remedy = match code {
                "saga_completed" => "; --allow-completed lets it pass",
                "already_replayed" | "not_permitted" => "; --allow-repeat lets it pass",
                _ => "",
            };
            format!("nothing was published; without --dry-run the same command is refused now: {code}{remedy}")
        }
    });
    notes
}

/// Asks for the record until it has come as far as wanted.
async fn wait(session: &Session, replay_id: &str, until: Until) -> Result<Value, Failure> {
    let deadline = Instant::now() + session.time_out.unwrap_or(WAIT);
    let mut pause = Duration::from_millis(50);
    loop {
        match session.client()?.get(&record(replay_id)).await {
            Ok(record) if has_come(&record, until) => return Ok(record),
            Ok(_) => {}
            // The log may not know it yet.
            Err(failure) if failure.exit == Exit::NotFound => {}
            Err(failure) => return Err(failure),
        }
        if Instant::now() + pause >= deadline {
            let message = format!("replay {replay_id} has not come that far yet; the work goes on");
            return Err(Failure::new(Exit::TimeOut, "time_out", message).hint(format!("resaga replay get {replay_id}")));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// A dry run of the same request id is another matter: the real run's record replaces its.
fn has_come(record: &Value, until: Until) -> bool {
    match record["status"].as_str() {
        _ if record["dry_run"] == true => false,
        Some("accepted") => false,
        Some("published") => until != Until::Ended,
        _ => true,
    }
}

/// Did it end as it was meant to?
fn verdict(record: &Value) -> Result<(), Failure> {
    let text = |member: &str| record[member].as_str().unwrap_or_default();
    let as_meant = match text("status") {
        "published" | "completed" => true,
        "refused" => {
            return Err(Failure::new(exit_of_refusal(text("code")), text("code"), text("message")));
        }
        "failed" | "compensated" => {
            !text("force_failure").is_empty() || text("mode") == "compensate" && text("status") == "compensated"
        }
        _ => false,
    };
    match as_meant {
        true => Ok(()),
        false => Err(Failure::new(Exit::Other, text("status"), format!("the replay ended as {}", text("status")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_for_the_real_run_and_as_far_as_asked() {
        let come = |record: Value, until| has_come(&record, until);
        for status in ["accepted", "dry_run", "refused"] {
            assert!(!come(json!({"status": status, "dry_run": true}), Until::Published), "{status}");
        }
        assert!(!come(json!({"status": "accepted", "dry_run": false}), Until::Published));
        assert!(come(json!({"status": "published", "dry_run": false}), Until::Published));
        assert!(!come(json!({"status": "published", "dry_run": false}), Until::Ended));
        assert!(come(json!({"status": "refused", "dry_run": false}), Until::Ended));
    }

    #[test]
    fn a_dry_run_says_what_the_real_run_would_meet() {
        let plan = |would_refuse: Value| json!({"plan": {"mode": "resume", "completed_steps": []}, "would_refuse": would_refuse});
        assert_eq!(notes(&plan(Value::Null)), ["nothing was published; the same command without --dry-run publishes it"]);
        for (code, flag) in [("saga_completed", "--allow-completed"), ("already_replayed", "--allow-repeat")] {
            let said = notes(&plan(json!(code)));
            assert!(said.len() == 1 && said[0].contains(code) && said[0].contains(flag), "{said:?}");
            assert!(!said[0].contains("publishes"), "{said:?}");
        }
    }

    #[test]
    fn a_dry_run_of_a_compensation_says_what_is_compensated() {
        let plan = |steps: Value| json!({"plan": {"mode": "compensate", "completed_steps": steps}, "would_refuse": null});
        assert_eq!(notes(&plan(json!(["a"]))).len(), 1);
        assert!(notes(&plan(json!([])))[0].contains("no step would be compensated"));
        let headings: Vec<_> = plan_columns(&plan(json!([]))).into_iter().map(|(heading, _)| heading).collect();
        assert!(headings.contains(&"compensates") && !headings.contains(&"completed"));
    }

    #[test]
    fn the_exit_code_of_a_wait_is_that_of_its_end() {
        let exit = |record: Value| verdict(&record).map_or_else(|failure| failure.exit, |()| Exit::Done);
        assert_eq!(exit(json!({"status": "published"})), Exit::Done);
        assert_eq!(exit(json!({"status": "completed"})), Exit::Done);
        assert_eq!(exit(json!({"status": "failed"})), Exit::Other);
        assert_eq!(exit(json!({"status": "failed", "force_failure": "ship"})), Exit::Done);
        assert_eq!(exit(json!({"status": "compensated", "mode": "compensate"})), Exit::Done);
        assert_eq!(exit(json!({"status": "refused", "code": "saga_running"})), Exit::Conflict);
        assert_eq!(exit(json!({"status": "refused", "code": "too_deep"})), Exit::Refused);
    }
}
