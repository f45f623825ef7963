//! `resaga saga`: what a saga's history says.

use clap::{Args, Subcommand};

use super::client::Target;
use super::exit::Failure;
use super::lineage;
use super::output::{Column, note, print};
use super::page::Page;
use super::{Session, times};
use crate::saga::time::Micros;

const EXAMPLES: &str = "Examples:
  resaga saga get order-1 --at 2026-01-10T10:00:00Z
  resaga saga list --status failed --failed-step charge_payment --since -2h
  resaga saga diff order-1 --from -1h --to now
  resaga saga context order-1 --pointer /payment/token -o json";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Saga {
    /// The state of a saga, now or at a time.
    #[command(after_help = "Example:\n  resaga saga get order-1 --at -2h")]
    Get {
        id: String,
        #[command(flatten)]
        when: When,
    },
    /// Sagas by status, name, failure and time, newest first.
    #[command(
        after_help = "Example:\n  resaga saga list --status failed --error-code GATEWAY_DOWN --since 2026-01-10T10:00:00Z -o jsonl"
    )]
    List {
        #[command(flatten)]
        filters: Box<Filters>,
        #[command(flatten)]
        page: Page,
    },
    /// How many sagas there are, in groups.
    #[command(
        after_help = "Example:\n  resaga saga count --status failed --repaired no --since -12h --by failed_step --by error_code"
    )]
    Count {
        #[command(flatten)]
        filters: Box<Filters>,
        /// saga_name, status, failed_step, error_code or error_type; may repeat.
        #[arg(long)]
        by: Vec<String>,
    },
    /// A saga's entries, oldest first.
    #[command(after_help = "Example:\n  resaga saga history order-1 --since -1d")]
    History {
        id: String,
        #[command(flatten)]
        window: Window,
        #[command(flatten)]
        page: Page,
    },
    /// What changed between two times, two entries, or two sagas.
    #[command(
        after_help = "Examples:\n  resaga saga diff order-1 --from 3 --to 7\n  resaga saga diff order-1 3cef9842-dc5a-5f6c-ad28-64b3c0783460"
    )]
    Diff {
        id: String,
        /// Another saga: the newest states of both.
        #[arg(conflicts_with_all = ["from", "to"])]
        second: Option<String>,
        /// A time, or an entry's sequence.
        #[arg(long, required_unless_present_any = ["other", "second"], requires = "to", allow_hyphen_values = true, value_parser = point)]
        from: Option<String>,
        /// A time, or an entry's sequence.
        #[arg(long, required_unless_present_any = ["other", "second"], requires = "from", allow_hyphen_values = true, value_parser = point)]
        to: Option<String>,
        /// The same as the second saga.
        #[arg(long, conflicts_with_all = ["from", "to", "second"])]
        other: Option<String>,
    },
    /// The context of a saga, or one value in it.
    #[command(after_help = "Example:\n  resaga saga context order-1 --at -2h --pointer /payment")]
    Context {
        id: String,
        #[command(flatten)]
        when: When,
        /// A JSON pointer (RFC 6901).
        #[arg(long)]
        pointer: Option<String>,
    },
    /// The entries that are snapshots, newest first.
    #[command(after_help = "Example:\n  resaga saga checkpoints order-1")]
    Checkpoints {
        id: String,
        #[command(flatten)]
        page: Page,
    },
    /// The tree of replays that the saga is in.
    #[command(
        after_help = "Examples:\n  resaga saga lineage order-1\n  resaga saga lineage order-1 --dot | dot -Tsvg -o order-1.svg"
    )]
    Lineage {
        id: String,
        /// As a graph for Graphviz, whatever the format: coloured by outcome, undos dashed.
        #[arg(long)]
        dot: bool,
    },
}

#[derive(Debug, Args)]
pub struct When {
    /// RFC 3339 with a zone, or relative: -2h, "90m ago", now.
    #[arg(long, conflicts_with = "sequence", allow_hyphen_values = true, value_parser = times::parse)]
    at: Option<Micros>,
    /// The sequence of an entry.
    #[arg(long)]
    sequence: Option<u64>,
}

#[derive(Debug, Args)]
pub struct Window {
    /// From this time on: RFC 3339 with a zone, or relative such as -2h.
    #[arg(long, allow_hyphen_values = true, value_parser = times::parse)]
    since: Option<Micros>,
    /// Before this time.
    #[arg(long, allow_hyphen_values = true, value_parser = times::parse)]
    until: Option<Micros>,
}

/// The filters of the search route; also the selector of a batch.
#[derive(Debug, Args)]
pub struct Filters {
    /// running, compensating, completed, failed, compensated or cancelled; may repeat.
    #[arg(long)]
    status: Vec<String>,
    /// Exactly this name.
    #[arg(long, visible_alias = "name")]
    saga_name: Option<String>,
    /// A failure of this step is in the history.
    #[arg(long)]
    failed_step: Option<String>,
    /// A failed compensation of this step is in the history.
    #[arg(long)]
    compensation_failed_step: Option<String>,
    /// Of that failure.
    #[arg(long)]
    error_code: Option<String>,
    /// Of that failure.
    #[arg(long)]
    error_type: Option<String>,
    #[command(flatten)]
    window: Window,
    #[arg(long)]
    tenant: Option<String>,
    #[arg(long)]
    region: Option<String>,
    /// name:value; may repeat.
    #[arg(long)]
    label: Vec<String>,
    /// Replays between the saga and its root; 0: originals.
    #[arg(long)]
    depth: Option<u32>,
    /// none, open, completed or failed.
    #[arg(long)]
    replay: Option<String>,
    /// yes or no: whether a saga of its lineage tree below it completed.
    #[arg(long)]
    repaired: Option<String>,
    /// Runs or compensates, and nothing was recorded for longer than stuck.after.
    #[arg(long)]
    stuck: bool,
    /// Also sagas restored with a forced failure.
    #[arg(long)]
    forced: bool,
    /// This saga alone.
    #[arg(long)]
    saga_id: Option<String>,
}

impl Filters {
    /// Names and values as the search route has them.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let one = |name, value: &Option<String>| value.clone().map(|value| (name, value));
        let mut pairs: Vec<_> = self.status.iter().map(|status| ("status", status.clone())).collect();
        pairs.extend(one("saga_name", &self.saga_name));
        pairs.extend(one("failed_step", &self.failed_step));
        pairs.extend(one("compensation_failed_step", &self.compensation_failed_step));
        pairs.extend(one("error_code", &self.error_code));
        pairs.extend(one("error_type", &self.error_type));
        pairs.extend(self.window.since.map(|at| ("since", at.to_string())));
        pairs.extend(self.window.until.map(|at| ("until", at.to_string())));
        pairs.extend(one("tenant", &self.tenant));
        pairs.extend(one("region", &self.region));
        pairs.extend(self.label.iter().map(|label| ("label", label.clone())));
        pairs.extend(self.depth.map(|depth| ("depth", depth.to_string())));
        pairs.extend(one("replay", &self.replay));
        pairs.extend(one("repaired", &self.repaired));
        pairs.extend(self.stuck.then(|| ("stuck", "true".to_owned())));
        pairs.extend(self.forced.then(|| ("forced", "true".to_owned())));
        pairs.extend(one("saga_id", &self.saga_id));
        pairs
    }

    pub fn target(&self, route: &str) -> Target {
        self.pairs().into_iter().fold(Target::new(route), |target, (name, value)| target.query(name, &value))
    }
}

fn point(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    times::parse(text).map(|at| at.to_string())
}

impl When {
    fn on(&self, target: Target) -> Target {
        target.maybe("at", self.at).maybe("sequence", self.sequence)
    }
}

impl Window {
    pub fn on(&self, target: Target) -> Target {
        target.maybe("since", self.since).maybe("until", self.until)
    }
}

const GROUPS: &[Column] = &[
    ("saga_name", "/saga_name"),
    ("status", "/status"),
    ("failed_step", "/failed_step"),
    ("error_code", "/error_code"),
    ("error_type", "/error_type"),
    ("count", "/count"),
];
const STATE: &[Column] = &[
    ("saga", "/saga_id"),
    ("name", "/saga_name"),
    ("version", "/saga_version"),
    ("status", "/status"),
    ("as of", "/as_of"),
    ("current step", "/current_step"),
    ("running", "/running_steps"),
    ("completed", "/completed_steps"),
    ("skipped", "/skipped_steps"),
    ("compensated", "/compensated_steps"),
    ("failed step", "/failed_step"),
    ("error", "/error"),
    ("compensation failed", "/compensation_failed_step"),
    ("compensation error", "/compensation_error"),
    ("context", "/context"),
    ("results", "/results"),
    ("attempts", "/attempts"),
    ("started", "/started_at"),
    ("updated", "/updated_at"),
    ("ended", "/ended_at"),
    ("tenant", "/tenant"),
    ("region", "/region"),
    ("labels", "/labels"),
    ("lineage", "/lineage"),
    ("entry", "/entry/sequence"),
    ("event", "/entry/event_id"),
    ("kind", "/entry/kind"),
    ("recorded", "/entry/recorded_time"),
    ("position", "/entry/position"),
    ("snapshot", "/snapshot/sequence"),
    ("folded", "/folded"),
    ("source", "/source"),
    ("complete through", "/complete_through"),
    ("anomalies", "/anomalies"),
];
const FOUND: &[Column] = &[
    ("saga", "/saga_id"),
    ("name", "/saga_name"),
    ("status", "/status"),
    ("current", "/current_step"),
    ("failed", "/failed_step"),
    ("error", "/error/code"),
    ("updated", "/updated_at"),
    ("failed_at", "/failed_at"),
    ("depth", "/depth"),
];
const ENTRIES: &[Column] = &[
    ("seq", "/sequence"),
    ("effective_time", "/effective_time"),
    ("kind", "/kind"),
    ("step", "/step"),
    ("status", "/status"),
    ("snapshot", "/snapshot"),
    ("error", "/error/code"),
    ("changed", "/changed"),
    ("anomalies", "/anomalies"),
];
const CHECKPOINTS: &[Column] =
    &[("seq", "/sequence"), ("effective_time", "/effective_time"), ("kind", "/kind"), ("step", "/step"), ("name", "/name")];
const DIFFERENCE: &[Column] = &[
    ("from", "/from/entry/sequence"),
    ("from time", "/from/as_of"),
    ("to", "/to/entry/sequence"),
    ("to time", "/to/as_of"),
    ("status from", "/status/from"),
    ("status to", "/status/to"),
    ("completed +", "/steps/completed/added"),
    ("completed -", "/steps/completed/removed"),
    ("skipped +", "/steps/skipped/added"),
    ("skipped -", "/steps/skipped/removed"),
    ("compensated +", "/steps/compensated/added"),
    ("compensated -", "/steps/compensated/removed"),
    ("context", "/patch"),
];

/// The routes of one saga.
pub fn saga(id: &str) -> Target {
    Target::new("/v1/sagas").segment(id)
}

pub async fn run(session: &Session, command: Saga) -> Result<(), Failure> {
    let output = session.output;
    match command {
        Saga::Get { id, when } => output.object(&session.client()?.get(&when.on(saga(&id))).await?, STATE),
        Saga::List { filters, page } => {
            output.list(&page.of(session, filters.target("/v1/sagas"), "sagas").await?, "sagas", FOUND)
        }
        Saga::Count { filters, by } => {
            let target = by.iter().fold(filters.target("/v1/counts"), |target, by| target.query("by", by));
            let answer = session.client()?.get(&target).await?;
            let columns: Vec<Column> =
                GROUPS.iter().filter(|(name, _)| *name == "count" || by.iter().any(|by| by == name)).copied().collect();
            output.list(&answer, "groups", &columns)?;
            note(&format!("{} sagas", answer["total"]));
            Ok(())
        }
        Saga::History { id, window, page } => {
            let target = window.on(saga(&id).segment("history"));
            output.list(&page.of(session, target, "entries").await?, "entries", ENTRIES)
        }
        Saga::Diff { id, second, from, to, other } => {
            let other = other.or(second);
            let target = saga(&id).segment("diff").maybe("from", from).maybe("to", to).maybe("other", other);
            output.object(&session.client()?.get(&target).await?, DIFFERENCE)
        }
        Saga::Context { id, when, pointer } => {
            let target = when.on(saga(&id).segment("context")).maybe("pointer", pointer);
            output.object(&session.client()?.get(&target).await?, &[("value", "/value")])
        }
        Saga::Checkpoints { id, page } => {
            let answer = page.of(session, saga(&id).segment("checkpoints"), "checkpoints").await?;
            output.list(&answer, "checkpoints", CHECKPOINTS)
        }
        Saga::Lineage { id, dot } => {
            let tree = session.client()?.get(&saga(&id).segment("lineage")).await?;
            if dot { print(&lineage::dot(&tree)) } else { output.tree(&tree, lineage::line) }
        }
    }
}
