//! The chapter in which 1,500 orders are repaired by one batch: planned, and run exactly as planned.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use super::clock::Day;
use super::engine::{CHARGE, SAGA_NAME};
use super::gateways::{BACKUP, TIMED_OUT};
use super::operator::{OPERATOR, Operator, REASON, until};
use super::orchestrator::Orchestrator;
use super::summary::Summary;

/// Plans the batch, runs the plan, and waits until every restored saga has ended.
pub async fn replay(
    operator: &Operator,
    summary: &mut Summary,
    orchestrator: &Orchestrator,
    day: &Day,
    lost: &BTreeSet<String>,
) -> anyhow::Result<()> {
    // A charge that begins at the end of the outage is given up half a minute later.
    let until_then = day.outage.to.after(Duration::from_secs(31));
    let selector = json!({
        "saga_name": SAGA_NAME, "failed_step": CHARGE, "error_type": TIMED_OUT,
        "since": day.outage.from.to_string(), "until": until_then.to_string(),
    });
    let batch = json!({
        "name": "payment outage", "selector": selector, "from": {"step": CHARGE},
        "override": {"merge": {"payment": {"gateway": BACKUP}}}, "max_failures": "1%",
    });
    let plan = operator
        .post("/v1/batches", &json!({"batch": batch, "dry_run": true, "requested_by": OPERATOR, "reason": REASON}))
        .await?;
    summary.tell(&format!("plan of one batch: {} of {} sagas would be replayed", plan["counts"]["replay"], plan["total"]));
    summary.equal("the plan would replay every lost order, and nothing else", &json!({"replay": lost.len()}), &plan["counts"]);
    summary.equal("and nothing was restored by planning", &0, &orchestrator.book().resumed.len());

    let run = json!({"plan_id": plan["plan_id"], "requested_by": OPERATOR, "reason": REASON});
    let mut ids = Vec::new();
    // Asked twice, as by a client that had no answer.
    for _ in 0..2 {
        ids.push(operator.post("/v1/batches", &run).await?["batch_id"].clone());
    }
    summary.equal("the plan was asked for twice and is one batch", &plan["plan_id"], &ids[1]);
    let batch_id = ids[0].as_str().context("a batch without an id")?.to_owned();
    summary.tell(&format!("batch {batch_id} with the {BACKUP} gateway, asked for twice"));
    until("every restored saga has been resumed", || async { orchestrator.book().resumed.len() >= lost.len() }).await?;
    summary.tell(&format!("{} restored sagas resumed by the orchestrator", orchestrator.book().resumed.len()));
    let target = format!("/v1/batches/{batch_id}");
    until("the batch is done", || async { operator.get(&target).await.is_ok_and(|batch| batch["status"] == "done") }).await?;
    let batch = operator.get(&target).await?;
    let others: Vec<String> = others_than_completed(&batch["counts"]);
    summary.equal(
        "every replay of the batch completed",
        &(json!(lost.len()), Vec::new()),
        &(batch["counts"]["completed"].clone(), others),
    );
    summary.tell("every replay has its outcome in the replay log");
    Ok(())
}

fn others_than_completed(counts: &Value) -> Vec<String> {
    let counts = counts.as_object().into_iter().flatten();
    counts
        .filter(|(name, count)| *name != "completed" && **count != json!(0))
        .map(|(name, count)| format!("{name} {count}"))
        .collect()
}
