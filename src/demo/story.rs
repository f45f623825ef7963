//! The story, chapter by chapter: trade, outage, search, a look back, a dry run, one batch of 1,500 replays, an undo, a policy.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::clock::{Day, Moment, Window};
use super::engine::{CHARGE, SAGA_NAME};
use super::gateways::{BACKUP, DECLINED, TIMED_OUT};
use super::operator::{OPERATOR, Operator, REASON, until};
use super::orchestrator::Orchestrator;
use super::orders::of_the_day;
use super::summary::Summary;
use super::{afterwards, repair, verify};
use crate::config;
use crate::kafka::ends::Ends;
use crate::saga::position::TopicPartition;

/// Where the story is played.
pub struct Story {
    pub kafka: config::KafkaConfig,
    pub topics: config::TopicsConfig,
    /// `http://host:port` of resaga.
    pub server: String,
    /// Begins every saga id: letters, digits and hyphens.
    pub prefix: String,
    pub now: fn() -> Moment,
}

/// What is left when the story is over.
pub struct Played {
    pub holds: bool,
    pub day: Day,
    /// One of the orders that were lost and replayed.
    pub one: String,
    /// One that failed in the hiccup and was not replayed.
    pub spare: String,
    /// Goes on resuming what is restored; `Err`: why it does not.
    pub orchestrator: JoinHandle<anyhow::Result<()>>,
}

/// Plays it to the end, or says why it could not be.
pub async fn play(story: &Story) -> anyhow::Result<Played> {
    let mut summary = Summary::begin();
    let day = Day::before((story.now)());
    let operator = Operator::new(story.server.clone());
    until("resaga is ready", || operator.answers("/readyz")).await?;
    summary.tell("resaga is ready");
    let orchestrator = Orchestrator::new(&story.kafka, &story.topics.events[0], day)?;
    let following = orchestrator.clone().follow(story.kafka.clone(), story.topics.restored.clone());
    let mut following = tokio::spawn(following);

    let chapters = async {
        let orders = of_the_day(&day, &story.prefix);
        let records = orchestrator.trade(&orders).await?;
        let lost = orchestrator.book().lost_to_the_outage(&orders);
        summary.tell(&format!(
            "{} orders, {records} step events from {} to {}; no payment from {} to {}: {} orders lost",
            orders.len(),
            day.opens.time_of_day(),
            day.closes.time_of_day(),
            day.outage.from.time_of_day(),
            day.outage.to.time_of_day(),
            lost.len()
        ));
        let traded = (story.now)();
        find(&operator, &mut summary, &day, &orchestrator, &lost, traded).await?;
        look_back(&operator, &mut summary, &orchestrator).await?;
        let one = lost.iter().nth(lost.len() / 2).context("no order was lost")?.clone();
        dry_run(&operator, &mut summary, &one).await?;
        summary.equal("the dry run restored nothing", &0, &orchestrator.book().resumed.len());
        repair::replay(&operator, &mut summary, &orchestrator, &day, &lost).await?;
        let letters = dead_letters(story).await?;
        summary.equal("no record was a dead letter", &0, &letters);
        verify::verify(&operator, &mut summary, &orchestrator, &lost, &one).await?;
        afterwards::undo(&operator, &mut summary, &orchestrator, &one).await?;
        afterwards::policy(&operator, &mut summary, &orchestrator, &day, &story.prefix).await?;
        let spare =
            orchestrator.book().failed_with(TIMED_OUT).difference(&lost).next().context("nothing failed in the hiccup")?.clone();
        anyhow::Ok((orders, one, spare))
    };
    let (orders, one, spare) = tokio::select! {
        played = chapters => played?,
        ended = &mut following => bail!("the orchestrator ended: {:?}", ended),
    };
    {
        let book = orchestrator.book();
        let at_once = orders.iter().filter(|order| book.orders[&order.id].picture.status == "completed").count();
        summary.tell(&format!("{at_once} orders completed at once, {} by replay", book.resumed.len()));
    }
    summary.print();
    Ok(Played { holds: summary.all_hold(), day, one, spare, orchestrator: following })
}

/// The search that finds what the outage cost: step, error and window of the failure.
pub fn search(window: Window) -> String {
    // A charge that begins at the end of the outage is given up half a minute later.
    let until = window.to.after(Duration::from_secs(31));
    format!("/v1/sagas?saga_name={SAGA_NAME}&failed_step={CHARGE}&error_type={TIMED_OUT}&since={}&until={until}", window.from)
}

async fn find(
    operator: &Operator,
    summary: &mut Summary,
    day: &Day,
    orchestrator: &Orchestrator,
    lost: &BTreeSet<String>,
    traded: Moment,
) -> anyhow::Result<()> {
    let in_the_outage = search(day.outage);
    until("everything published can be found", || async {
        let answer = operator.get(&format!("{in_the_outage}&limit=1")).await;
        let through = answer.ok().and_then(|answer| Moment::parse(answer["complete_through"].as_str()?));
        through.is_some_and(|through| through >= traded)
    })
    .await?;
    summary.tell("everything published is in resaga's history");
    let found = ids(&operator.all(&in_the_outage, "sagas").await?);
    summary.tell(&format!("search: {} sagas failed at {CHARGE} with {TIMED_OUT} in the window", found.len()));
    summary.equal("the search finds as many orders as were lost", &lost.len(), &found.len());
    summary.equal("and they are those, each once", lost, &found.into_iter().collect());
    for kind in [TIMED_OUT, DECLINED, "OutOfStock"] {
        let found = ids(&operator.all(&format!("/v1/sagas?error_type={kind}"), "sagas").await?);
        let expected = orchestrator.book().failed_with(kind);
        summary.equal(
            format!("without window the search for {kind} finds all {}", expected.len()),
            &expected,
            &found.into_iter().collect(),
        );
    }
    Ok(())
}

fn ids(sagas: &[Value]) -> Vec<String> {
    sagas.iter().map(|saga| saga["saga_id"].as_str().unwrap_or_default().to_owned()).collect()
}

/// How things stood in the middle of the outage.
async fn look_back(operator: &Operator, summary: &mut Summary, orchestrator: &Orchestrator) -> anyhow::Result<()> {
    let (at, noted) = {
        let book = orchestrator.book();
        let noted = book.orders.iter().filter_map(|(id, page)| Some((id.clone(), page.noted.clone()?)));
        (book.day.middle_of_the_outage(), noted.collect::<Vec<_>>())
    };
    let ids: Vec<String> = noted.iter().map(|(id, _)| id.clone()).collect();
    let states = operator.states(&ids, &format!("?at={at}")).await?;
    if let Some(state) = states.first() {
        summary.tell(&format!(
            "at {}: {} was {}, at {}, {} done (now it is {})",
            at.time_of_day(),
            state["saga_id"],
            state["status"],
            state["current_step"],
            state["completed_steps"],
            operator.get(&format!("/v1/sagas/{}", ids[0])).await?["status"],
        ));
    }
    let differ: Vec<String> =
        noted.iter().zip(&states).filter_map(|((id, picture), state)| verify::differs(id, picture, state)).collect();
    summary.none(
        format!("the state of the {} orders that ran in the middle of the outage is, as of then, what it was", noted.len()),
        &differ,
    );
    Ok(())
}

async fn dry_run(operator: &Operator, summary: &mut Summary, saga: &str) -> anyhow::Result<()> {
    let request = json!({
        "request_id": format!("INC-4412/try/{saga}"), "saga_id": saga, "from": {"step": CHARGE},
        "override": {"merge": {"payment": {"gateway": BACKUP}}}, "dry_run": true, "requested_by": OPERATOR, "reason": REASON,
    });
    let answer = operator.post("/v1/replays", &request).await?;
    summary.tell(&format!("dry run of {saga}: {} would change, {} would run again", answer["diff"], answer["runs"]));
    let expected = json!([{"op": "replace", "path": "/payment/gateway", "value": BACKUP}]);
    summary.equal("the dry run shows that the gateway changes and nothing else", &expected, &answer["diff"]);
    Ok(())
}

async fn dead_letters(story: &Story) -> anyhow::Result<i64> {
    let ends = Ends::new(&story.kafka)?;
    let topic = &story.topics.dead_letters;
    let partitions: Vec<_> = (0..ends.partitions_of(topic).await?).map(|p| TopicPartition::new(topic.as_str(), p)).collect();
    Ok(ends.ends(&partitions).await?.iter().map(|(_, end)| end.0).sum())
}
