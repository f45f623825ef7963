//! Brings back into the view of the replay log what its topic has dropped: history keeps replays as long as their sagas.
//!
//! After the topic was read (the view is whole); until then, and for what the view has no room for, single replays are
//! still found in history by their ids. A replay that still waits is executed by whoever owns its partition, if
//! history surely has the last word on it; where that cannot be known it is an alarm.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::in_history;
use super::view::{ReplayLog, RestoreOutcome};
use crate::cold::gaps::gaps;
use crate::cold::object_store::ObjectStore;
use crate::error::{Error, Result};
use crate::history::History;
use crate::history::answer::SearchResult;
use crate::history::chains::Chains;
use crate::history::known::PartitionEnds;
use crate::history::replay_lookup::NoReplays;
use crate::retry::Backoff;
use crate::saga::position::{Offset, Position, Shown};
use crate::saga::request::ReplayStatus;
use crate::saga::selector::SagaFilter;
use crate::telemetry::{Alarm, Metrics};

/// Replays asked for at a time.
const PAGE: usize = 500;
/// Between two looks whether the archive has what the topic had.
const LOOK: Duration = Duration::from_secs(1);
/// The archive is a flush or two behind, and a store may fail now and then; longer is an alarm.
pub const ALARM_AFTER: Duration = Duration::from_secs(60);
/// Most replays that are to be looked at again before others are looked at.
const MAX_UNDECIDED: usize = 10_000;

pub struct LogRestore<'a> {
    pub view: &'a ReplayLog,
    /// The log's.
    pub history: &'a History,
    /// The log's, and the archive that has them.
    pub chains: &'a Chains,
    pub objects: &'a dyn ObjectStore,
    /// The log's.
    pub topic: &'a str,
    pub metrics: &'a Metrics,
    /// [`ALARM_AFTER`]; half of it lies between two looks at what is an alarm.
    pub alarm_after: Duration,
}

/// What has come of it so far.
struct Progress {
    restored: usize,
    /// The view has no room for more that no longer wait.
    full: bool,
    /// Of each partition the offset below which records were lost for good.
    given_up: HashMap<i32, Offset>,
    /// Replays that may wait and could not be told of; with the partition, if that is known.
    undecided: BTreeMap<String, Option<i32>>,
    /// What stood in the way last.
    reason: String,
    /// Since when nothing could be told.
    stuck: Option<Instant>,
    backoff: Backoff,
    /// Partitions with the alarm until all is told, and those with one that stays.
    alarmed: BTreeSet<i32>,
    lost: BTreeSet<i32>,
}

impl Progress {
    fn new() -> Self {
        Self {
            restored: 0,
            full: false,
            given_up: HashMap::new(),
            undecided: BTreeMap::new(),
            reason: String::new(),
            stuck: None,
            backoff: Backoff::new("look for waiting replays in history"),
            alarmed: BTreeSet::new(),
            lost: BTreeSet::new(),
        }
    }

    fn is_stuck_for(&mut self, time: Duration) -> bool {
        self.stuck.get_or_insert_with(Instant::now).elapsed() >= time
    }

    fn goes_on(&mut self) {
        self.stuck = None;
        self.backoff.succeeded();
    }
}

impl LogRestore<'_> {
    /// Those that changed last first, until the view is full; of those that wait all. Gives how many. What is there now at
    /// once, the rest when history has all that the topic had.
    pub async fn restore(&self) -> Result<usize> {
        let mut progress = Progress::new();
        self.report_wait(&mut progress);
        let ends = self.view.all_unknown_below();
        if ends.is_empty() {
            return Ok(0);
        }
        let known = self.history.is_durable_to(&ends).await == Ok(true);
        self.find_archived_replays(&ends, known, &mut progress).await?;
        if !known {
            self.wait_until_archived(&ends, &mut progress).await?;
            self.find_archived_replays(&ends, true, &mut progress).await?;
        }
        self.decide_all_but(0, &ends, &mut progress).await?;
        progress.alarmed.difference(&progress.lost).for_each(|partition| self.alarm(*partition, false));
        Ok(progress.restored)
    }

    /// Of replays that waited, and of which the topic has a newer record that nobody understands.
    fn report_wait(&self, progress: &mut Progress) {
        for record in self.view.may_wait() {
            self.may_wait(&record.replay_id, record.position.partition, progress);
        }
    }

    fn may_wait(&self, id: &str, partition: i32, progress: &mut Progress) {
        self.alarm(partition, true);
        progress.lost.insert(partition);
        tracing::error!(
            topic = self.topic, partition, replay_id = %Shown(id),
            "a replay waits by its newest record that is understood, and the topic has a newer one that is not: it may have been executed \
             and is left alone; start a version that understands it, or give the registry its schema"
        );
    }

    /// Waits until the archive has the log up to these ends.
    async fn wait_until_archived(&self, ends: &PartitionEnds, progress: &mut Progress) -> Result<()> {
        loop {
            match self.history.is_durable_to(ends).await {
                Ok(true) => {
                    progress.goes_on();
                    return Ok(());
                }
                Ok(false) => {}
                Err(error @ (Error::Corrupt(_) | Error::Unavailable(_))) => drop(progress.backoff.failed(&error.to_string())),
                Err(error) => return Err(error),
            }
            if progress.is_stuck_for(self.alarm_after) && progress.alarmed.is_empty() {
                progress.alarmed.extend(self.alarm_unarchived(ends).await);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Tells of which partitions history does not have what the topic had.
    async fn alarm_unarchived(&self, ends: &PartitionEnds) -> Vec<i32> {
        let mut partitions = Vec::new();
        for end in ends {
            if self.history.is_durable_to(std::slice::from_ref(end)).await != Ok(true) {
                self.alarm(end.0, true);
                tracing::error!(
                    topic = self.topic,
                    partition = end.0,
                    end = end.1.0,
                    "replays may wait that nobody executes: the topic has dropped them, and the archive does not have it up to this \
                     end; see that role materialize reads the log"
                );
                partitions.push(end.0);
            }
        }
        partitions
    }

    async fn find_archived_replays(&self, ends: &PartitionEnds, known: bool, progress: &mut Progress) -> Result<()> {
        progress.given_up.clear();
        let mut after: Option<String> = None;
        loop {
            let page = self.search(after.as_deref(), ends, progress).await?;
            for found in page.sagas {
                let Some(id) = in_history::replay_id(&found.saga_id) else { continue };
                self.examine(id, ends, known, progress).await;
                self.decide_all_but(MAX_UNDECIDED, ends, progress).await?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn search(&self, after: Option<&str>, ends: &PartitionEnds, progress: &mut Progress) -> Result<SearchResult> {
        let filter = SagaFilter { saga_name: Some(in_history::SAGA_NAME.into()), ..SagaFilter::default() };
        loop {
            match self.history.search(&filter, after, PAGE, &NoReplays).await {
                Err(error @ (Error::Corrupt(_) | Error::Unavailable(_))) => {
                    progress.reason = error.to_string();
                    self.pause(ends.iter().map(|(partition, _)| *partition).collect(), progress).await;
                }
                other => {
                    progress.goes_on();
                    return other;
                }
            }
        }
    }

    /// Looks again at those that could not be told of, until at most this many are left.
    async fn decide_all_but(&self, left: usize, ends: &PartitionEnds, progress: &mut Progress) -> Result<()> {
        while progress.undecided.len() > left {
            let all = || ends.iter().map(|(partition, _)| *partition);
            let of: Option<BTreeSet<i32>> = progress.undecided.values().copied().collect();
            self.pause(of.unwrap_or_else(|| all().collect()), progress).await;
            // An operator may have accepted a gap.
            progress.given_up.clear();
            for (id, _) in std::mem::take(&mut progress.undecided) {
                self.examine(&id, ends, true, progress).await;
            }
        }
        progress.goes_on();
        Ok(())
    }

    async fn pause(&self, partitions: BTreeSet<i32>, progress: &mut Progress) {
        let pause = progress.backoff.failed(&progress.reason);
        let is_alarm = progress.is_stuck_for(self.alarm_after);
        for partition in partitions.into_iter().filter(|_| is_alarm) {
            if progress.alarmed.insert(partition) {
                self.alarm(partition, true);
                let first = progress.undecided.keys().next().map_or("", String::as_str);
                tracing::error!(
                    topic = self.topic, partition, undecided = progress.undecided.len(), first = %Shown(first), reason = progress.reason,
                    "replays may wait that nobody executes: the topic has dropped them, and history cannot be asked for them; trying again"
                );
            }
        }
        tokio::time::sleep(if is_alarm { self.alarm_after / 2 } else { pause }).await;
    }

    /// One replay that history has. What cannot be told of it is looked at again, where history has all that the topic had.
    async fn examine(&self, id: &str, ends: &PartitionEnds, known: bool, progress: &mut Progress) {
        if self.view.get(id).is_some() {
            return;
        }
        let mut partition = None;
        let reason = match self.decide(id, ends, &mut partition, progress).await {
            Ok(true) => return,
            Ok(false) => "the view has dropped more since history was asked".to_owned(),
            Err(error) => error.to_string(),
        };
        if known {
            tracing::debug!(replay_id = %Shown(id), reason, "whether a replay in history waits cannot be told now");
            progress.undecided.insert(id.to_owned(), partition);
            progress.reason = reason;
        }
    }

    /// `false`: it is to be asked again. `partition`: the one it is found in, if it waits.
    async fn decide(&self, id: &str, ends: &PartitionEnds, partition: &mut Option<i32>, progress: &mut Progress) -> Result<bool> {
        match in_history::newest_at(self.history, id, ends).await? {
            Some((record, at)) if record.status == ReplayStatus::Accepted => {
                *partition = Some(at.partition);
                match self.still_waits(id, &at, progress).await? {
                    RestoreOutcome::Newer if self.view.not_understood(id, None).is_some() => {
                        self.may_wait(id, at.partition, progress)
                    }
                    RestoreOutcome::Waits => progress.restored += 1,
                    RestoreOutcome::Newer => {}
                    RestoreOutcome::AskAgain => return Ok(false),
                }
            }
            // Once it is full what waits is looked for all the same.
            Some((record, _)) if !progress.full => match self.view.restore(record) {
                true => progress.restored += 1,
                false => progress.full = true,
            },
            _ => {}
        }
        Ok(true)
    }

    /// A replay whose newest record in history says that it waits: it does where nothing newer was ever recorded.
    async fn still_waits(&self, id: &str, at: &Position, progress: &mut Progress) -> Result<RestoreOutcome> {
        // What the view has dropped since is newer than what was asked for.
        let end = self.view.unknown_below(at.partition);
        let newest = in_history::newest_at(self.history, id, &[(at.partition, end)]).await?;
        let Some((record, at)) = newest.filter(|(record, _)| record.status == ReplayStatus::Accepted) else {
            return Ok(RestoreOutcome::Newer);
        };
        let lost = match progress.given_up.get(&at.partition) {
            Some(lost) => *lost,
            None => {
                let lost = self.given_up(at.partition).await?;
                progress.given_up.insert(at.partition, lost);
                lost
            }
        };
        if at.offset < lost {
            self.alarm(at.partition, true);
            progress.lost.insert(at.partition);
            tracing::error!(
                topic = self.topic, partition = at.partition, offset = at.offset.0, replay_id = %Shown(id),
                "a replay waits by what history has, and what was recorded after that is lost (an accepted gap): it may have been executed \
                 and is left alone; cancel it, and request it again if it was not"
            );
            return Ok(RestoreOutcome::Newer);
        }
        Ok(self.view.restore_waiting(record, end))
    }

    /// Below this offset records of the partition were lost for good.
    async fn given_up(&self, partition: i32) -> Result<Offset> {
        let chains = self.chains.all();
        let newest = chains.iter().filter(|chain| chain.partition == partition).max_by_key(|chain| chain.incarnation);
        match newest {
            Some(chain) if chain.incarnation == 0 => {
                let gaps = gaps(self.objects, chain).await?;
                Ok(gaps.last().map_or(Offset(0), |(_, last)| last.next()))
            }
            // The topic was created again.
            _ => Ok(Offset(i64::MAX)),
        }
    }

    fn alarm(&self, partition: i32, on: bool) {
        if on {
            self.metrics.raise_alarm(self.topic, partition, Alarm::WaitingNotKnown);
        } else {
            self.metrics.clear_alarm(self.topic, partition, Alarm::WaitingNotKnown);
        }
    }
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
