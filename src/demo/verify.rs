//! After the replays: resaga's answers beside what the orchestrator wrote down.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::engine::{CHARGE, Picture, RESERVE};
use super::gateways::{BACKUP, PRIMARY};
use super::operator::{OPERATOR, Operator};
use super::orchestrator::Orchestrator;
use super::summary::Summary;

/// Says how a state answer differs from the orchestrator's picture.
pub fn differs(id: &str, picture: &Picture, state: &Value) -> Option<String> {
    let pairs = [
        ("status", json!(picture.status), &state["status"]),
        ("current_step", json!(picture.current_step), &state["current_step"]),
        ("completed_steps", json!(picture.completed_steps), &state["completed_steps"]),
        ("failed_step", json!(picture.failed_step), &state["failed_step"]),
        ("error", picture.error.clone(), &state["error"]),
        ("context", picture.context.clone(), &state["context"]),
        ("entry.sequence", json!(picture.events), &state["entry"]["sequence"]),
    ];
    let (name, expected, found) = pairs.into_iter().find(|(_, expected, found)| expected != *found)?;
    Some(format!("{id}: {name} should be {expected}, is {found}"))
}

pub async fn verify(
    operator: &Operator,
    summary: &mut Summary,
    orchestrator: &Orchestrator,
    lost: &BTreeSet<String>,
    one: &str,
) -> anyhow::Result<()> {
    restored_topic(summary, orchestrator, lost);
    replay_log(operator, summary, orchestrator, lost).await?;
    states(operator, summary, orchestrator, lost).await?;
    lineage(operator, summary, orchestrator, one).await?;
    money(summary, orchestrator, lost);
    Ok(())
}

/// What the orchestrator was given to resume.
fn restored_topic(summary: &mut Summary, orchestrator: &Orchestrator, lost: &BTreeSet<String>) {
    let book = orchestrator.book();
    let restored: Vec<_> = book.resumed.values().map(|resumed| &resumed.restored).collect();
    summary.equal("as many restored sagas came as orders were lost", &lost.len(), &restored.len());
    summary.equal("none came twice", &0, &book.repeated);
    let ids: BTreeSet<&str> = restored.iter().map(|saga| saga.saga_id.as_str()).collect();
    summary.equal("each has an id of its own", &restored.len(), &ids.len());
    summary.equal("none of which is an order's", &0, &ids.iter().filter(|id| book.orders.contains_key(**id)).count());
    let originals: BTreeSet<String> = restored.iter().map(|saga| saga.original_saga_id.clone()).collect();
    summary.equal("every lost order has exactly one", lost, &originals);
    let wrong = restored.iter().filter_map(|saga| {
        let page = book.orders.get(&saga.original_saga_id)?;
        let mut context = page.context_at_step.clone();
        context["payment"]["gateway"] = BACKUP.into();
        let reservation = format!("reservation-{}", saga.original_saga_id);
        let right = saga.context == context
            && saga.resume_step.as_deref() == Some(CHARGE)
            && saga.completed_steps == [RESERVE]
            && saga.results.get(RESERVE) == Some(&json!({"reservation": reservation}))
            && saga.root_saga_id == saga.original_saga_id;
        (!right).then(|| saga.saga_id.clone())
    });
    let wrong: Vec<String> = wrong.collect();
    summary
        .none("each has the context of the moment before the charge, with the backup gateway, and keeps the reservation", &wrong);
}

async fn replay_log(
    operator: &Operator,
    summary: &mut Summary,
    orchestrator: &Orchestrator,
    lost: &BTreeSet<String>,
) -> anyhow::Result<()> {
    let records = operator.all("/v1/replays?status=completed", "replays").await?;
    let dry = operator.all("/v1/replays?status=dry_run", "replays").await?;
    let all = operator.all(&format!("/v1/replays?requested_by={OPERATOR}"), "replays").await?;
    let all = all.iter().filter(|record| record["command"] == "REPLAY").count();
    summary.equal("the replay log has one completed replay for each lost order", &lost.len(), &records.len());
    summary.equal("and the dry run, and nothing else", &(1, lost.len() + 1), &(dry.len(), all));
    let book = orchestrator.book();
    let wrong = records.iter().filter_map(|record| {
        let replay_id = record["replay_id"].as_str().unwrap_or_default();
        let resumed = book.resumed.get(replay_id);
        let right = resumed.is_some_and(|resumed| {
            record["new_saga_id"] == resumed.restored.saga_id.as_str()
                && record["original_saga_id"] == resumed.restored.original_saga_id.as_str()
                && record["outcome"] == "completed"
                && record["changed"] == json!(["/payment/gateway"])
        });
        (!right).then(|| replay_id.to_owned())
    });
    let wrong: Vec<String> = wrong.collect();
    summary.none("each names the order, the restored saga, what was changed and the outcome", &wrong);
    Ok(())
}

/// Restored sagas and originals, as they are now.
async fn states(
    operator: &Operator,
    summary: &mut Summary,
    orchestrator: &Orchestrator,
    lost: &BTreeSet<String>,
) -> anyhow::Result<()> {
    let restored: Vec<String> = orchestrator.book().resumed.values().map(|resumed| resumed.restored.saga_id.clone()).collect();
    let originals: Vec<String> = lost.iter().cloned().collect();
    let after = operator.states(&restored, "").await?;
    let before = operator.states(&originals, "").await?;
    let replayed = operator.all(&format!("/v1/sagas?failed_step={CHARGE}&status=failed&replay=completed"), "sagas").await?;
    summary.equal("the search finds them as replayed", &lost.len(), &replayed.len());
    let book = orchestrator.book();
    let wrong = book.resumed.values().zip(&after).filter_map(|(resumed, state)| {
        let saga = &resumed.restored;
        differs(&saga.saga_id, &resumed.picture, state).or_else(|| {
            let right = state["status"] == "completed"
                && state["lineage"]["parent"] == saga.original_saga_id.as_str()
                && state["lineage"]["replay_id"] == saga.replay_id.as_str();
            (!right).then(|| format!("{}: lineage", saga.saga_id))
        })
    });
    let wrong: Vec<String> = wrong.collect();
    summary.none("every restored saga completed, and its state is what the orchestrator made of it", &wrong);
    let changed = originals.iter().zip(&before).filter_map(|(id, state)| differs(id, &book.orders[id].picture, state));
    let changed: Vec<String> = changed.collect();
    summary.none("every original is as it was: failed, with the same entries and context", &changed);
    Ok(())
}

async fn lineage(operator: &Operator, summary: &mut Summary, orchestrator: &Orchestrator, one: &str) -> anyhow::Result<()> {
    let tree = operator.get(&format!("/v1/sagas/{one}/lineage")).await?;
    let child = &tree["children"][0];
    summary.tell(&format!(
        "lineage: {} ({}) -> {} ({}), resumed at {}",
        tree["saga_id"], tree["status"], child["saga_id"], child["status"], child["resume_step"]
    ));
    let book = orchestrator.book();
    let expected = book.resumed.values().find(|resumed| resumed.restored.original_saga_id == one);
    let expected = expected.map(|resumed| json!([one, "failed", resumed.restored.saga_id, "completed", 1]));
    let found = json!([tree["saga_id"], tree["status"], child["saga_id"], child["status"], child["depth"]]);
    summary.equal("the lineage of one leads from the order to its restored saga", &expected, &Some(found));
    Ok(())
}

/// The gateways' own ledgers.
fn money(summary: &mut Summary, orchestrator: &Orchestrator, lost: &BTreeSet<String>) {
    let book = orchestrator.book();
    summary.equal("the backup gateway charged as many orders as were lost", &lost.len(), &book.gateways.charged(BACKUP));
    let others = book.orders.values().filter(|page| page.picture.status == "completed").count();
    summary.equal("the primary gateway charged the others", &others, &book.gateways.charged(PRIMARY));
    summary.equal("nobody paid twice", &0, &book.gateways.charged_twice());
}
