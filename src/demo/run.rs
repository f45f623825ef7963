//! A whole resaga in this process, and the story played against it from outside.

use std::process::ExitCode;

use super::clock::Moment;
use super::environment::{DemoOptions, listen, prepare};
use super::story::{Played, Story, play, search};
use super::summary::say;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::serve::{self, Process, ROLES, Role, now, partition_counts, signal};

/// Plays the story; with `serve` stays up after it until a signal. `base`: settings for real servers.
pub async fn demo(base: Config, options: DemoOptions) -> anyhow::Result<ExitCode> {
    let environment = prepare(base, &options).await?;
    let listener = listen(&environment.config.api.listen, options.serve).await?;
    let address = listener.local_addr()?;
    let counts = partition_counts(&environment.config).await?;
    let stores = serve::open(&environment.config, &counts).await?;
    let shutdown_timeout = environment.config.serve.shutdown_timeout;
    // Its listener is bound before, to a port of its own.
    let roles: Vec<&Role> = ROLES.iter().collect();
    let (process, mut supervisor) = Process::start(environment.config.clone(), stores, &counts, &roles).await?;
    let shutdown = supervisor.shutdown();
    supervisor.spawn(process.all_routes(listener, shutdown));
    let story = Story {
        kafka: environment.config.kafka.clone(),
        topics: environment.config.topics.clone(),
        server: format!("http://{address}"),
        prefix: if options.brokers.is_some() { format!("order-{}-", environment.suffix) } else { "order-".into() },
        now: || Moment(now().0),
    };
    let told = tokio::select! {
        played = play(&story) => played,
        ended = supervisor.ended() => Err(early(ended)),
        () = signal() => Err(anyhow::anyhow!("interrupted")),
    };
    let outcome = match told {
        Ok(mut played) if options.serve => {
            invite(&story, &played);
            tokio::select! {
                ended = &mut played.orchestrator => Err(anyhow::anyhow!("the orchestrator ended: {ended:?}")),
                ended = supervisor.ended() => Err(early(ended)),
                () = signal() => Ok(played),
            }
        }
        told => told,
    };
    if let Ok(played) = &outcome {
        played.orchestrator.abort();
    }
    let drained = tokio::time::timeout(shutdown_timeout, supervisor.stop()).await;
    let played = outcome?;
    drained.map_err(|_| anyhow::anyhow!("not drained within serve.shutdown_timeout"))??;
    Ok(if played.holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A task that ended before it was told to.
fn early(ended: Result<()>) -> anyhow::Error {
    ended.err().unwrap_or_else(|| Error::bug("a task of the process ended early")).into()
}

/// What to try next.
fn invite(story: &Story, played: &Played) {
    let (one, at) = (&played.one, played.day.middle_of_the_outage());
    let server = if story.server.ends_with(":8080") { String::new() } else { format!(" --server {}", story.server) };
    say(&format!("\nHTTP is at {}; interrupt to end. The orchestrator goes on: what you replay is resumed.", story.server));
    for command in [
        "saga list --failed-step charge_payment --error-type CardDeclined".into(),
        format!("saga get {one} --at {at}"),
        format!("saga history {one}"),
        format!("saga diff {one} --from 3 --to 6"),
        format!("saga lineage {one}"),
        "saga list --error-type OutOfStock --replay none".into(),
        "replay list --status completed --limit 5".into(),
        format!(
            "replay run {} --from-step charge_payment --merge '{{\"payment\":{{\"gateway\":\"backup\"}}}}' --reason demo --wait",
            played.spare
        ),
    ] {
        say(&format!("  resaga{server} {command}"));
    }
    say(&format!("  curl '{}{}&limit=3'", story.server, search(played.day.outage)));
}
