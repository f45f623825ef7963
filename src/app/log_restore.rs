//! Brings back into the view of the replay log what its topic has dropped: history keeps replays as long as their sagas.
//!
//! After the topic was read (the view is whole); until then, and for what the view has no room for, single replays are
//! still found in history by their ids. A replay that still waits is carried out by whoever owns its partition, if
//! history surely has the last word on it; where that cannot be known it is an alarm.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;

use super::stores::Stores;
use crate::cold::gaps::gaps;
use crate::error::{Error, Result};
use crate::history::known::Ends;
use crate::roles::log_saga;
use crate::roles::replay_log::ReplayLog;
use crate::roles::retry::until_available;
use crate::saga::position::{Offset, Position, SagaId, Shown};
use crate::saga::request::ReplayStatus;
use crate::saga::selector::{ReplayStanding, SagaFilter};
use crate::telemetry::Metrics;

/// Replays asked for at a time.
const PAGE: usize = 500;
/// Between two looks whether the archive has what the topic had.
const LOOK: Duration = Duration::from_secs(1);
/// The archive is a flush or two behind; longer is an alarm.
const ALARM_AFTER: Duration = Duration::from_secs(60);
/// Alarm of a partition of the log: a replay may wait there that nobody carries out.
const WAITING_NOT_KNOWN: &str = "waiting_not_known";

pub(super) struct Restoring<'a> {
    pub view: &'a ReplayLog,
    pub stores: &'a Stores,
    /// The log's.
    pub topic: &'a str,
    pub metrics: &'a Metrics,
}

impl Restoring<'_> {
    /// Those that changed last first, until the view is full; of those that wait all. Gives how many. What is there now at
    /// once, the rest when history has all that the topic had.
    pub async fn restore(&self) -> Result<usize> {
        let ends = self.view.all_unknown_below();
        if ends.is_empty() {
            return Ok(0);
        }
        let known = self.is_archived(&ends).await?;
        let restored = self.what_history_has(&ends, known).await?;
        if known {
            return Ok(restored);
        }
        let (began, mut alarmed) = (Instant::now(), Vec::new());
        while !self.is_archived(&ends).await? {
            if alarmed.is_empty() && began.elapsed() >= ALARM_AFTER {
                alarmed = self.not_known(&ends).await;
            }
            tokio::time::sleep(LOOK).await;
        }
        alarmed.iter().for_each(|partition| self.alarm(*partition, false));
        Ok(restored + self.what_history_has(&ends, true).await?)
    }

    async fn is_archived(&self, ends: &Ends) -> Result<bool> {
        until_available("ask how far the archive has the log", || self.stores.log_history.is_durable_to(ends)).await
    }

    /// Tells of which partitions history does not have what the topic had.
    async fn not_known(&self, ends: &Ends) -> Vec<i32> {
        let mut partitions = Vec::new();
        for end in ends {
            if self.stores.log_history.is_durable_to(std::slice::from_ref(end)).await != Ok(true) {
                self.alarm(end.0, true);
                tracing::error!(
                    topic = self.topic,
                    partition = end.0,
                    end = end.1.0,
                    "replays may wait that nobody carries out: the topic has dropped them, and the archive does not have it up to this \
                     end; see that role materialize reads the log"
                );
                partitions.push(end.0);
            }
        }
        partitions
    }

    async fn what_history_has(&self, ends: &Ends, known: bool) -> Result<usize> {
        let history = &self.stores.log_history;
        let filter = SagaFilter { saga_name: Some(log_saga::SAGA_NAME.into()), ..SagaFilter::default() };
        // Not asked: the filter says nothing of replays.
        let standing = |_: SagaId| -> BoxFuture<'static, Result<ReplayStanding>> { Box::pin(async { Ok(ReplayStanding::None) }) };
        let mut given_up: HashMap<i32, Offset> = HashMap::new();
        let (mut after, mut restored, mut full): (Option<String>, usize, bool) = (None, 0, false);
        loop {
            let search = || history.search(&filter, after.as_deref(), PAGE, &standing);
            let page = until_available("search dropped replays in history", search).await?;
            for found in page.sagas {
                let Some(id) = log_saga::replay_id(&found.saga_id).filter(|id| self.view.get(id).is_none()) else { continue };
                match log_saga::newest_at(history, id, ends).await {
                    Ok(Some((record, at))) if record.status == ReplayStatus::Accepted => {
                        match self.still_waits(id, &at, &mut given_up).await {
                            Ok(true) => restored += 1,
                            Ok(false) => {}
                            Err(error @ (Error::Corrupt(_) | Error::Unavailable(_))) => self.not_read(id, &error, known),
                            Err(error) => return Err(error),
                        }
                    }
                    // Once it is full what waits is looked for all the same.
                    Ok(Some((record, _))) if !full => match self.view.restore(record) {
                        true => restored += 1,
                        false => full = true,
                    },
                    Ok(_) => {}
                    Err(error @ (Error::Corrupt(_) | Error::Unavailable(_))) => self.not_read(id, &error, known),
                    Err(error) => return Err(error),
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(restored);
            }
        }
    }

    /// It is found by its id, should it be readable later.
    fn not_read(&self, id: &str, error: &Error, known: bool) {
        if known {
            tracing::warn!(replay_id = %Shown(id), %error, "a replay in history cannot be read");
        }
    }

    /// A replay whose newest record in history says that it waits. `true`: nothing newer was ever recorded, and it is in the view.
    async fn still_waits(&self, id: &str, at: &Position, given_up: &mut HashMap<i32, Offset>) -> Result<bool> {
        // What the view has dropped since is newer than what was asked for.
        let end = self.view.unknown_below(at.partition);
        let newest = log_saga::newest_at(&self.stores.log_history, id, &[(at.partition, end)]).await?;
        let Some((record, at)) = newest.filter(|(record, _)| record.status == ReplayStatus::Accepted) else { return Ok(false) };
        let lost = match given_up.get(&at.partition) {
            Some(lost) => *lost,
            None => {
                let lost = self.given_up(at.partition).await?;
                given_up.insert(at.partition, lost);
                lost
            }
        };
        if at.offset < lost {
            self.alarm(at.partition, true);
            tracing::error!(
                topic = self.topic, partition = at.partition, offset = at.offset.0, replay_id = %Shown(id),
                "a replay waits by what history has, and what was recorded after that is lost (an accepted gap): it may have been carried \
                 out and is left alone; cancel it, and ask for it anew if it was not"
            );
            return Ok(false);
        }
        Ok(self.view.restore_waiting(record, end))
    }

    /// Below this offset records of the partition were lost for good.
    async fn given_up(&self, partition: i32) -> Result<Offset> {
        let chains = self.stores.log_chains.all();
        let newest = chains.iter().filter(|chain| chain.partition == partition).max_by_key(|chain| chain.incarnation);
        match newest {
            Some(chain) if chain.incarnation == 0 => {
                let gaps = gaps(&*self.stores.objects, chain).await?;
                Ok(gaps.last().map_or(Offset(0), |(_, last)| last.next()))
            }
            // The topic was created again.
            _ => Ok(Offset(i64::MAX)),
        }
    }

    fn alarm(&self, partition: i32, on: bool) {
        let labels = [self.topic, &partition.to_string(), WAITING_NOT_KNOWN];
        if on {
            self.metrics.partition_alarms.with_label_values(&labels).set(1);
        } else {
            // It is an error that there is none, and nothing else.
            let _ = self.metrics.partition_alarms.remove_label_values(&labels);
        }
    }
}

#[cfg(test)]
#[path = "log_restore_tests.rs"]
mod tests;
