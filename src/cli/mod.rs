//! The command line: one file per command group. Thin: it calls the HTTP api or, for work on this machine, `serve`, `admin` and `demo`.
//!
//! Data goes to stdout, all else to stderr; exit codes are those of `exit`. Knows routes and their JSON; must not know
//! stores, Kafka or the fold.

mod batch;
mod client;
mod config;
mod confirm;
mod effects;
mod exit;
mod json;
mod lineage;
mod local;
mod order;
mod output;
mod page;
mod progress;
mod replay;
mod saga;
mod schedule;
mod schedule_file;
mod session;
mod times;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use serde_json::json;

use crate::config::environment;
use exit::{Exit, Failure, exit_of};
use output::{Format, note, print};
use session::{Global, Session, session};

/// Keeps every saga's history, answers what its state was at any time, and replays failed sagas exactly once.
#[derive(Debug, Parser)]
#[command(
    name = "resaga",
    version,
    after_help = "Examples:
  resaga demo
  resaga serve --config resaga.toml
  resaga saga list --status failed --since -2h
  resaga saga get order-1 --at 2026-01-10T10:00:00Z
  resaga replay run order-1 --from-step charge_payment --set gateway=backup --reason INC-4412 --dry-run

Exit codes: 0 done, 1 other failure, 2 usage, 3 partial, 4 refused by policy, 5 not found, 6 conflict,
7 dependency unreachable, 8 time-out, 9 confirmation missing."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the processor.
    Serve(local::Serve),
    /// Look at sagas.
    #[command(subcommand)]
    Saga(saga::Saga),
    /// Replay a saga, look at replays.
    #[command(subcommand)]
    Replay(replay::Replay),
    /// Replay many sagas: plan, run, watch, stop, retry.
    #[command(subcommand)]
    Batch(batch::Batch),
    /// Replay later, again and again, or whenever a saga fails.
    #[command(subcommand)]
    Schedule(schedule::Schedule),
    /// The topics of the configuration.
    #[command(subcommand)]
    Topic(local::Topic),
    /// The configuration.
    #[command(subcommand)]
    Config(config::Config),
    /// The stores.
    #[command(subcommand)]
    Store(local::Store),
    /// Check brokers, topics and stores end to end and say what to fix.
    #[command(after_help = "Example:\n  resaga doctor -o json")]
    Doctor,
    /// Play an outage and its repair, with nothing installed.
    Demo(local::Demo),
    /// Print a completion script.
    #[command(after_help = "Example:\n  resaga completions bash > /etc/bash_completion.d/resaga")]
    Completions { shell: clap_complete::Shell },
    /// Print the version.
    #[command(after_help = "Example:\n  resaga version -o json")]
    Version,
}

/// The tree of commands, for docs/interface/cli.md.
#[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "docs/interface is rendered from it"))]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Every exit code and what it means, for the same page.
#[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "docs/interface is rendered from it"))]
pub fn exit_codes() -> Vec<(u8, &'static str)> {
    Exit::ALL.into_iter().map(|exit| (exit as u8, exit.meaning())).collect()
}

/// The exit code of an HTTP status, for the page of routes.
#[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "docs/interface is rendered from it"))]
pub fn exit_code_of(status: u16) -> u8 {
    exit_of(status) as u8
}

/// Runs the program with its arguments (the first is its name). Not generic: what it calls would be compiled with the binary once
/// more.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        // Help and version too; clap knows which stream, and that a reader may have left.
        Err(e) => {
            drop(e.print());
            return if e.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let environment = environment();
    let session = session(&cli.global, environment);
    let as_json = session.as_ref().is_ok_and(|session| session.output.is_json());
    let done = session.and_then(|session| {
        let runtime =
            tokio::runtime::Runtime::new().map_err(|e| Failure::new(Exit::Other, "failed", format!("start runtime: {e}")))?;
        let done = runtime.block_on(dispatch(&session, cli.command));
        // What is left has had its time to end; a blocked thread must not hold the process.
        runtime.shutdown_background();
        done
    });
    done.unwrap_or_else(|failure| {
        note(&failure.render(as_json));
        failure.exit.into()
    })
}

async fn dispatch(session: &Session, command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(serve) => return local::serve(session, serve).await,
        Command::Demo(demo) => return local::demo(session, demo).await,
        Command::Saga(command) => saga::run(session, command).await?,
        Command::Replay(command) => replay::run(session, command).await?,
        Command::Batch(command) => batch::run(session, command).await?,
        Command::Schedule(command) => schedule::run(session, command).await?,
        Command::Topic(command) => local::topic(session, command).await?,
        Command::Config(command) => config::run(session, command)?,
        Command::Store(command) => local::store(session, command).await?,
        Command::Doctor => local::doctor(session).await?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "resaga", &mut script);
            print(&String::from_utf8_lossy(&script))?;
        }
        Command::Version if session.output == Format::Table => print(concat!("resaga ", env!("CARGO_PKG_VERSION"), "\n"))?,
        Command::Version => {
            let version = json!({"name": "resaga", "version": env!("CARGO_PKG_VERSION")});
            session.output.object(&version, &[("name", "/name"), ("version", "/version")])?;
        }
    }
    Ok(Exit::Done.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound_and_each_has_an_example() {
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        let mut groups = vec![cli];
        while let Some(command) = groups.pop() {
            let subcommands: Vec<_> = command.get_subcommands().filter(|sub| sub.get_name() != "help").cloned().collect();
            if subcommands.is_empty() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("resaga "), "{} has no example", command.get_name());
            }
            groups.extend(subcommands);
        }
    }

    #[test]
    fn what_this_version_does_not_do_is_in_no_help() {
        for words in [&["resaga", "--help"][..], &["resaga", "replay", "--help"], &["resaga", "serve", "--help"]] {
            let help = Cli::try_parse_from(words).expect_err("help").to_string();
            for hidden in crate::serve::planned_names() {
                assert!(!help.contains(hidden), "{words:?} shows {hidden}:\n{help}");
            }
        }
    }

    #[test]
    fn a_role_that_does_not_exist_is_refused_and_one_that_is_planned_is_taken() {
        let error = Cli::try_parse_from(["resaga", "serve", "--roles", "replays"]).expect_err("no such role").to_string();
        let there = format!("role replays does not exist in this build; it has {}", crate::serve::role_names());
        assert!(error.contains(&there), "{error}");
        assert!(Cli::try_parse_from(["resaga", "serve", "--roles", "bridge,materialize,replay,compact,api"]).is_ok());
    }

    #[test]
    fn commands_that_change_something_take_a_reason() {
        for line in [
            "replay run order-1 --latest --reason x",
            "replay cancel r --reason x",
            "replay undo r --reason x",
            "batch run --status failed --latest --reason x",
            "batch pause b --reason x",
            "schedule create --cron 0 --reason x",
            "schedule delete s --reason x",
            "store accept-gap t 3 --reason x",
            "store take-over-log --reason x",
        ] {
            let arguments = std::iter::once("resaga").chain(line.split(' '));
            assert!(Cli::try_parse_from(arguments).is_ok(), "{line}");
        }
    }
}
