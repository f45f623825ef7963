//! Work on this machine, without a server in between: serve, topics, stores, doctor, demo.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::exit::{Exit, Failure};
use super::order::Attribution;
use super::output::{Column, note};
use super::session::Session;
use crate::demo::DemoOptions;
use crate::saga::position::TopicPartition;
use crate::serve::{ROLES, Role, role_names};
use crate::{admin, telemetry};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  resaga serve --config resaga.toml
  resaga serve --roles materialize,api --setting kafka.brokers=kafka-0:9092")]
pub struct Serve {
    #[arg(long, value_delimiter = ',', value_parser = role, help = format!("{}; comma separated. Default: all", role_names()))]
    roles: Vec<&'static Role>,
}

#[derive(Debug, Subcommand)]
pub enum Topic {
    /// What `apply` would do.
    #[command(after_help = "Example:\n  resaga topic plan")]
    Plan,
    /// Creates the topics that are missing; never deletes or shrinks one.
    #[command(after_help = "Example:\n  resaga topic apply --setting topics.partitions=24")]
    Apply,
}

#[derive(Debug, Subcommand)]
pub enum Store {
    /// Lets a stopped partition go on across offsets that are gone; its sagas get anomaly log_gap.
    #[command(
        after_help = "Example:\n  resaga store accept-gap saga.events.v1 3 --reason 'retention was too short, INC-4412' --yes"
    )]
    AcceptGap {
        topic: String,
        partition: i32,
        /// Yes, these offsets are lost.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        asked: Attribution,
    },
    /// Hands the replay log to the configured group, once the group before executes no more replays.
    #[command(
        after_help = "Example:\n  resaga store take-over-log --setting kafka.group_id=green --reason 'blue is gone, INC-4412' --yes"
    )]
    TakeOverLog {
        /// Yes, no other group is to replay from these topics any more.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        asked: Attribution,
    },
    /// Makes the archive this installation's: for a new group_id or cluster that goes on with it. The one before must have
    /// stopped.
    #[command(after_help = "Example:\n  resaga store hand-over --reason 'new group_id, INC-4412' --yes")]
    HandOver {
        /// Yes, whoever has the archive now has stopped.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        asked: Attribution,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  resaga demo
  resaga demo --serve
  resaga demo --brokers 127.0.0.1:9092 --redis redis://127.0.0.1:6379/0 --s3 s3://bucket/prefix")]
pub struct Demo {
    /// Stay up afterwards with HTTP on loopback.
    #[arg(long)]
    serve: bool,
    /// Real brokers instead of the mock cluster in this process.
    #[arg(long, value_name = "HOST:PORT")]
    brokers: Option<String>,
    /// A real Redis instead of memory.
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// A real S3 instead of a directory.
    #[arg(long, value_name = "URL")]
    s3: Option<String>,
}

const TOPICS: &[Column] = &[
    ("topic", "/topic"),
    ("action", "/action"),
    ("partitions", "/partitions"),
    ("replication", "/replication"),
    ("detail", "/detail"),
];
const CHECKS: &[Column] = &[("check", "/check"), ("verdict", "/verdict"), ("detail", "/detail"), ("remedy", "/remedy")];

fn role(text: &str) -> Result<&'static Role, String> {
    Role::named(text).ok_or_else(|| format!("role {text} does not exist in this build; it has {}", role_names()))
}

pub async fn serve(session: &Session, serve: Serve) -> Result<ExitCode, Failure> {
    let config = session.load()?.config;
    telemetry::init_logs(config.log.format, &config.log.level)?;
    if let Some((point, nth)) = crate::config::crash_point(&session.environment) {
        crate::failpoint::arm(point, nth);
    }
    let mut roles = if serve.roles.is_empty() { ROLES.iter().collect() } else { serve.roles };
    for planned in roles.extract_if(.., |role| role.is_planned()) {
        tracing::warn!(role = planned.name, "this version has not this role: nothing runs of it");
    }
    Ok(crate::serve::serve(config, roles).await?)
}

pub async fn topic(session: &Session, command: Topic) -> Result<(), Failure> {
    let config = session.load()?.config;
    let topics = match command {
        Topic::Plan => admin::topics_plan(&config).await?,
        Topic::Apply => admin::topics_apply(&config).await?,
    };
    session.output.list(&json!({"topics": value(&topics)?}), "topics", TOPICS)
}

pub async fn doctor(session: &Session) -> Result<(), Failure> {
    let checks = admin::doctor(&session.load()?.config).await?;
    session.output.list(&json!({"checks": value(&checks)?}), "checks", CHECKS)?;
    match checks.iter().find(|check| check.verdict == admin::Verdict::Problem) {
        None => Ok(()),
        Some(check) => Err(Failure::new(
            check.exit.map_or(Exit::Other, Exit::of_number),
            "problem",
            format!("{}: {}", check.check, check.detail),
        )),
    }
}

pub async fn store(session: &Session, command: Store) -> Result<(), Failure> {
    let (yes, asked, what, first) = match &command {
        Store::AcceptGap { yes, asked, .. } => {
            (*yes, asked, "offsets that are lost stay lost once this is done", "stop the partition's owner first")
        }
        Store::TakeOverLog { yes, asked } => {
            (*yes, asked, "the group before executes no more replays once this is done", "stop its role replay first")
        }
        Store::HandOver { yes, asked } => {
            (*yes, asked, "the installation that has the archive is refused it from now on", "stop it first")
        }
    };
    let mut who = serde_json::Map::new();
    asked.add_to(&mut who, &session.environment)?;
    if !yes {
        return Err(Failure::new(Exit::Unconfirmed, "unconfirmed", what).hint(format!("--yes confirms it; {first}")));
    }
    let text = |member: &str| who.get(member).and_then(Value::as_str).unwrap_or_default();
    let (config, requested_by, reason) = (session.load()?.config, text("requested_by"), text("reason"));
    note(&match command {
        Store::AcceptGap { topic, partition, .. } => {
            admin::accept_gap(&config, TopicPartition::new(topic, partition), requested_by, reason).await?
        }
        Store::TakeOverLog { .. } => admin::take_over_log(&config, requested_by, reason).await?,
        Store::HandOver { .. } => admin::hand_over(&config, requested_by, reason).await?,
    });
    Ok(())
}

pub async fn demo(session: &Session, demo: Demo) -> Result<ExitCode, Failure> {
    let config = session.load()?.config;
    // The story is told on stdout; the log has what goes wrong. A mock cluster ends before its clients do.
    let level = if demo.brokers.is_some() { "warn" } else { "warn,librdkafka=off" };
    telemetry::init_logs(config.log.format, level)?;
    let options = DemoOptions { serve: demo.serve, brokers: demo.brokers, redis: demo.redis, s3: demo.s3 };
    Ok(crate::demo::demo(config, options).await?)
}

fn value(rows: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(rows).map_err(|e| Failure::new(Exit::Other, "output", e.to_string()))
}
