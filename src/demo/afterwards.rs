//! The last chapters: one replay is undone, and a policy repairs a second, smaller outage by itself.

use std::collections::BTreeSet;

use anyhow::Context;
use serde_json::{Value, json};

use super::clock::Day;
use super::engine::SAGA_NAME;
use super::gateways::{BACKUP, TIMED_OUT};
use super::operator::{OPERATOR, Operator, until};
use super::orchestrator::Orchestrator;
use super::orders::of_a_second_outage;
use super::summary::Summary;
use super::verify::differs;

/// Orders of the second outage.
const SECOND: u32 = 25;

/// The customer of one repaired order no longer wants it: what its restored saga did is taken back.
pub async fn undo(operator: &Operator, summary: &mut Summary, orchestrator: &Orchestrator, one: &str) -> anyhow::Result<()> {
    let (replay_id, restored) = {
        let book = orchestrator.book();
        let found = book.resumed.iter().find(|(_, resumed)| resumed.restored.original_saga_id == one);
        let (replay_id, resumed) = found.context("the order was not replayed")?;
        (replay_id.clone(), resumed.restored.saga_id.clone())
    };
    let why = json!({"requested_by": OPERATOR, "reason": "the customer cancelled"});
    operator.post(&format!("/v1/replays/{replay_id}/undo"), &why).await?;
    let target = format!("/v1/replays/{replay_id}");
    until("the replay is undone", || async { operator.get(&target).await.is_ok_and(|record| record["status"] == "undone") })
        .await?;
    let state = operator.get(&format!("/v1/sagas/{restored}")).await?;
    let again = operator.post(&format!("/v1/replays/{replay_id}/undo"), &why).await;
    summary.tell(&format!("undo: {restored} compensated {}", state["compensated_steps"]));
    let book = orchestrator.book();
    let undone: Vec<_> = book.undone.values().collect();
    summary.equal("the undo asked one saga to compensate, once", &1, &undone.len());
    let asked = undone.first().context("nothing was asked to compensate")?;
    summary.none(
        "and its state is what the orchestrator made of it",
        &differs(&restored, &asked.picture, &state).into_iter().collect::<Vec<_>>(),
    );
    summary.equal(
        "the backup gateway gave the money of that order back",
        &vec![(BACKUP.to_owned(), one.to_owned())],
        &book.gateways.refunds().to_vec(),
    );
    summary.equal("a second undo is refused", &true, &again.is_err());
    Ok(())
}

/// From now on whatever times out is replayed with the backup gateway, and nobody has to get up.
pub async fn policy(
    operator: &Operator,
    summary: &mut Summary,
    orchestrator: &Orchestrator,
    day: &Day,
    prefix: &str,
) -> anyhow::Result<()> {
    let policy = json!({"on": {"saga_name": SAGA_NAME, "error_type": TIMED_OUT}, "delay": "1s", "stop_ratio": 0.2});
    let schedule = json!({
        "name": "gateway time-outs", "policy": policy, "override": {"merge": {"payment": {"gateway": BACKUP}}},
    });
    let asked = json!({"schedule": schedule, "requested_by": OPERATOR, "reason": "the next outage"});
    let schedule_id = operator.post("/v1/schedules", &asked).await?["schedule_id"].clone();
    let target = format!("/v1/schedules/{}", schedule_id.as_str().context("a schedule without an id")?);
    summary.tell("a policy: after a time-out of the gateway, replay with the backup gateway");
    let before: BTreeSet<String> = orchestrator.book().resumed.keys().cloned().collect();
    let orders = of_a_second_outage(day, prefix, SECOND);
    orchestrator.trade(&orders).await?;
    summary.tell(&format!("a second outage: {SECOND} orders lost"));
    until("the policy has repaired them", || async {
        operator.get(&target).await.is_ok_and(|schedule| schedule["counts"]["completed"] == json!(SECOND))
    })
    .await?;
    let schedule = operator.get(&target).await?;
    summary.tell(&format!("the policy replayed {} of them, {} completed", schedule["runs"], schedule["counts"]["completed"]));
    let book = orchestrator.book();
    let lost: BTreeSet<String> = orders.into_iter().map(|order| order.id).collect();
    let repaired = book.resumed.iter().filter(|(replay_id, _)| !before.contains(*replay_id));
    let repaired: Vec<String> = repaired.map(|(_, resumed)| resumed.restored.original_saga_id.clone()).collect();
    summary.equal("the policy replayed as many orders as the second outage cost", &lost.len(), &repaired.len());
    summary.equal("and they are those", &lost, &repaired.into_iter().collect());
    let expected = json!([SECOND, true, Value::Null]);
    let found = json!([schedule["runs"], schedule["enabled"], schedule["stopped_because"]]);
    summary.equal("it asked once for each, and goes on", &expected, &found);
    summary.equal("nobody paid twice in all of it", &0, &book.gateways.charged_twice());
    Ok(())
}
