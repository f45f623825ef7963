//! A saga with events in two partitions, which the contract rules out and producers do all the same (two partitioners, a record put
//! in by hand): each partition folds its own, and one of them is the saga's history everywhere, hot and cold: that of the
//! first home which has any. Whoever reads it is told.

use futures::future::try_join_all;

use super::answer::Source;
use super::chains::Home;
use super::folds::current;
use super::loaded::{FIRST_READ, LoadedEntries, known};
use super::membership::{is_of, may_be_of};
use super::merge::{self, CandidateMarks, ReadDepth};
use super::reader::History;
use crate::error::{Error, Result};
use crate::hot::{HotQuery, HotRead, Member};
use crate::saga::position::{ChainId, Offset, SagaId};
use crate::saga::stored_entry::StoredEntry;
use crate::saga::time::Micros;
use crate::wire::frame::decode_member;

/// Which of several homes have entries of a saga.
struct HomeSurvey {
    /// Places among the homes, ascending.
    inhabited: Vec<usize>,
    /// Below these offsets the other chains have nothing of the saga.
    nothing_below: Vec<(ChainId, Offset)>,
}

impl History {
    /// Does the saga have events in more than one partition?
    pub async fn is_split(&self, saga: &SagaId) -> Result<bool> {
        Ok(self.load(saga, Micros::MAX, ReadDepth::Start).await?.split)
    }

    /// Learns how far every chain goes: what was never asked for is unknown, and so is who has entries there.
    pub async fn follow_all(&self) -> Result<()> {
        for chain in self.chains.all() {
            self.cold.follow(&chain).await?;
        }
        Ok(())
    }

    /// The entries with effective time <= `upto`, as far back as asked (further, where a store gives more). Empty: the
    /// saga has none.
    pub(super) async fn load(&self, saga: &SagaId, upto: Micros, back: ReadDepth) -> Result<LoadedEntries> {
        let homes = self.chains.homes_of(saga);
        let loaded = match &homes[..] {
            [home] => match self.load_home(saga, upto, back, home).await {
                Ok(loaded) => self.check_other_homes(saga, loaded, home).await,
                failed => failed,
            },
            homes => self.load_of_several(saga, upto, back, homes).await,
        };
        let elsewhere = match &loaded {
            Ok(loaded) => {
                let is_here = |newest: &StoredEntry| homes.iter().any(|home| is_of(&newest.entry.position, home));
                !loaded.entries.last().is_some_and(is_here)
            }
            Err(error) => error.is_unavailable(),
        };
        if !elsewhere {
            return loaded;
        }
        // Where producers put keys may be a guess: before a saga is said to be missing, every chain is asked.
        let everywhere = self.chains.everywhere(saga);
        let chains = |homes: &[Home]| homes.iter().map(Vec::len).sum::<usize>();
        match &everywhere[..] {
            all if chains(all) <= chains(&homes) => loaded,
            [all] => self.load_home(saga, upto, back, all).await,
            all => self.load_among(saga, upto, back, all).await,
        }
    }

    async fn load_of_several(&self, saga: &SagaId, upto: Micros, back: ReadDepth, homes: &[Home]) -> Result<LoadedEntries> {
        if upto == Micros::MAX {
            let query = HotQuery::new(saga.clone(), upto, FIRST_READ);
            // What cannot be read now is read, or told, below.
            let read = self.hot.read(&[query]).await.unwrap_or_default().pop();
            if let Some(read) = read
                && let Some(loaded) = self.load_from_hot(saga, &read, homes).await?
            {
                return Ok(loaded);
            }
        }
        self.load_among(saga, upto, back, homes).await
    }

    /// Hot shows whose entries it has; what cold alone gave is compared with the other chains as far as they are known. That
    /// takes no request unless one of them has entries of the saga, or hot begins later than it is known to reach (it was
    /// wiped): then one, and never again.
    pub(super) async fn check_other_homes(&self, saga: &SagaId, mut loaded: LoadedEntries, home: &Home) -> Result<LoadedEntries> {
        if loaded.split || loaded.source == Source::Hot || loaded.entries.is_empty() {
            return Ok(loaded);
        }
        let marks = match loaded.hot_answers {
            true => self.hot.marks(self.hot.bucket(saga)).await,
            false => Ok(Vec::new()),
        };
        let marks = match marks {
            Err(error) if error.is_unavailable() => Vec::new(),
            marks => marks.map_err(|e| e.context("read hot history"))?,
        };
        for chain in self.chains.all() {
            if home.iter().any(|own| own.topic == chain.topic && own.partition == chain.partition) {
                continue;
            }
            let from = marks.iter().find(|(of, _)| *of == chain).map(|(_, mark)| mark.from);
            let known = self.cold.known_end(&chain).and_then(|end| end.next);
            if from > Some(Offset(0)) && known < from {
                self.cold.follow(&chain).await?;
            }
            if self.cold.known_end(&chain).is_some()
                && self.cold.may_hold(&chain, saga).await?
                && !self.cold.entries_at(&chain, saga, Micros::MAX).await?.is_empty()
            {
                loaded.split = true;
                break;
            }
        }
        Ok(loaded)
    }

    /// From hot alone, where one read shows all of the saga and cold has nothing of it in another home.
    pub(super) async fn load_from_hot(&self, saga: &SagaId, read: &HotRead, homes: &[Home]) -> Result<Option<LoadedEntries>> {
        let candidates = homes.concat();
        let marks = CandidateMarks { candidates: &candidates, marks: &read.marks };
        self.note_marks(saga, &marks);
        let at_home = homes.iter().position(|home| read.members.iter().all(|member| may_be_of(member, home)));
        let Some(at_home) = at_home.filter(|_| read.members.len() < FIRST_READ) else { return Ok(None) };
        let run = merge::hot_run(
            &current(&read.members, self.fold),
            ReadDepth::Start,
            &marks,
            |_| true,
            |bytes| decode_member(saga, bytes),
        );
        let is_here = |stored: &StoredEntry| is_of(&stored.entry.position, &homes[at_home]);
        if !run.entries.iter().all(is_here) || self.cold_may_have_in_others(saga, homes, at_home).await? {
            return Ok(None);
        }
        Ok(self.hot_alone(saga, &marks, run).await?.ok())
    }

    /// May cold, as far as it is known, have entries of the saga in another of these homes?
    async fn cold_may_have_in_others(&self, saga: &SagaId, homes: &[Home], at_home: usize) -> Result<bool> {
        let others = homes.iter().enumerate().filter(|(at, _)| *at != at_home);
        for chain in others.flat_map(|(_, home)| home) {
            if self.cold.known_end(chain).is_none() {
                self.cold.follow(chain).await?;
            }
            if self.cold.may_hold(chain, saga).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// From the first of several homes that has any entry of the saga, of whatever time.
    pub(super) async fn load_among(&self, saga: &SagaId, upto: Micros, back: ReadDepth, homes: &[Home]) -> Result<LoadedEntries> {
        let survey = self.survey(saga, homes).await?;
        let Some((first, others)) = survey.inhabited.split_first() else {
            return self.load_home(saga, upto, back, &homes.concat()).await;
        };
        let mut loaded = self.load_home(saga, upto, back, &homes[*first]).await?;
        loaded.split |= !others.is_empty();
        let own: Vec<ChainId> = loaded.reach.to.iter().map(|(chain, _)| chain.clone()).collect();
        loaded.reach.to.extend(survey.nothing_below.into_iter().filter(|(chain, _)| !own.contains(chain)));
        Ok(loaded)
    }

    async fn survey(&self, saga: &SagaId, homes: &[Home]) -> Result<HomeSurvey> {
        let read = self.all_members(saga).await?;
        let candidates = homes.concat();
        let marks = CandidateMarks { candidates: &candidates, marks: &read.marks };
        self.note_marks(saga, &marks);
        let several_topics = candidates.iter().any(|chain| chain.topic != candidates[0].topic);
        let mut survey = HomeSurvey { inhabited: Vec::new(), nothing_below: Vec::new() };
        for (at, home) in homes.iter().enumerate() {
            let is_here = |member: &Member| match may_be_of(member, home) {
                true if several_topics => {
                    decode_member(saga, &member.bytes).is_ok_and(|stored| is_of(&stored.entry.position, home))
                }
                here => here,
            };
            let in_hot = read.members.iter().any(is_here);
            if in_hot || self.in_cold(saga, home, &marks).await? {
                survey.inhabited.push(at);
            } else {
                let cold_end = |chain: &ChainId| self.cold.known_end(chain).map(known);
                let known = |chain: &ChainId| merge::reach(marks.of(chain), cold_end(chain), false, (self.now)());
                survey.nothing_below.extend(home.iter().filter_map(|chain| Some((chain.clone(), known(chain)?.to))));
            }
        }
        Ok(survey)
    }

    /// Does cold have entries of the saga there, as far as hot does not vouch?
    async fn in_cold(&self, saga: &SagaId, home: &Home, marks: &CandidateMarks<'_>) -> Result<bool> {
        let behind = |chain: &&ChainId| {
            let from = marks.of(chain).map(|mark| mark.from);
            from.is_none() || self.cold.known_end(chain).and_then(|end| end.next) < from
        };
        try_join_all(home.iter().filter(behind).map(|chain| self.cold.follow(chain))).await?;
        for chain in home {
            if self.cold.may_hold(chain, saga).await? && !self.cold.entries_at(chain, saga, Micros::MAX).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Every member of the saga's key. None where hot does not answer: then cold alone counts.
    async fn all_members(&self, saga: &SagaId) -> Result<HotRead> {
        let mut limit = FIRST_READ * 8;
        loop {
            let query = HotQuery::new(saga.clone(), Micros::MAX, limit);
            let read = match self.hot.read(&[query]).await {
                Ok(mut reads) => reads.pop().ok_or_else(|| Error::bug("read hot history: no answer"))?,
                Err(error) if error.is_unavailable() => return Ok(HotRead::default()),
                Err(error) => return Err(error.context("read hot history")),
            };
            let bytes: usize = read.members.iter().map(|member| member.bytes.len()).sum();
            // As many as fit in memory, if the others are like these; what is beyond is not seen.
            let most = (self.max_bytes / (bytes / limit).max(1)).min(self.max_entries + 1);
            if read.members.len() < limit || most <= limit {
                return Ok(read);
            }
            limit = (limit * 8).min(most);
        }
    }
}
