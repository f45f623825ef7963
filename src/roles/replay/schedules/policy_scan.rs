//! Looks through histories for entries that a policy fits: what became durable since the last look, or the sagas that are stuck.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result};
use crate::history::answer::PointInTime;
use crate::roles::replay::batches::SagaSelection;
use crate::saga::position::{ChainId, EntrySequence, Offset, SagaId, Shown};
use crate::saga::schedule::policy::{Policy, PolicyMatch};
use crate::saga::selector::SagaFilter;
use crate::saga::time::Micros;

/// Entries of one look after which the next chain waits for the next one.
const ENOUGH: usize = 2_000;
/// Histories read together.
const TOGETHER: usize = 128;
/// Stuck sagas of one page.
const PAGE: usize = 1_000;

/// What a look found, and up to where it looked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PolicyScan {
    pub matches: Vec<PolicyMatch>,
    pub scanned: Vec<(ChainId, Offset)>,
}

#[derive(Clone)]
pub struct PolicyScanner {
    pub selection: SagaSelection,
}

impl PolicyScanner {
    /// What failed since the last look; `scanned`: how far that went.
    pub async fn failed(&self, policy: &Policy, since: Micros, scanned: &[(ChainId, Offset)]) -> Result<PolicyScan> {
        let history = &self.selection.history;
        let mut scan = PolicyScan::default();
        for chain in history.all_chains() {
            let from = scanned.iter().find(|(known, _)| *known == chain).map(|(_, next)| *next);
            if scan.matches.len() >= ENOUGH {
                scan.scanned.extend(from.map(|from| (chain, from)));
                continue;
            }
            let found = history.failed_entries(&chain, from, since, ENOUGH).await?;
            let mut wanted: HashMap<SagaId, HashSet<EntrySequence>> = HashMap::new();
            for (saga, sequence) in found.entries {
                wanted.entry(saga).or_default().insert(sequence);
            }
            let sagas: Vec<SagaId> = wanted.keys().cloned().collect();
            for some in sagas.chunks(TOGETHER) {
                let matches = self.matches_of(policy, some, since).await?;
                let is_wanted = |found: &PolicyMatch| wanted.get(&found.saga_id).is_some_and(|of| of.contains(&found.sequence));
                scan.matches.extend(matches.into_iter().filter(is_wanted));
            }
            scan.scanned.push((chain, found.next));
        }
        Ok(scan)
    }

    /// Of these sagas the entries that fit.
    pub async fn matches_of(&self, policy: &Policy, sagas: &[SagaId], since: Micros) -> Result<Vec<PolicyMatch>> {
        let mut matches = Vec::new();
        for (saga, known) in sagas.iter().zip(self.selection.history.entries_of(sagas).await) {
            match known {
                Ok(history) => matches.extend(policy.matches(&history.entries, since)),
                // Erased meanwhile, or in a partition that is not its own.
                Err(Error::Refused { code: "saga_not_found" | "saga_erased", .. }) => {}
                Err(Error::Refused { code: "too_large", .. }) => {
                    tracing::warn!(saga_id = %Shown(saga.as_str()), "a policy passes over a saga: its history is too long to be read as a whole");
                }
                // One that is damaged must not keep the others waiting for ever.
                Err(Error::Corrupt(reason)) => {
                    tracing::error!(saga_id = %Shown(saga.as_str()), reason, "a policy passes over a saga: its history cannot be read");
                }
                Err(other) => return Err(other),
            }
        }
        Ok(matches)
    }

    /// Sagas that are stuck now, by their newest entries.
    pub async fn stuck(&self, policy: &Policy) -> Result<Vec<PolicyMatch>> {
        let history = &self.selection.history;
        let filter = SagaFilter { stuck: true, ..policy.on.clone() };
        let (mut matches, mut after) = (Vec::new(), None);
        loop {
            let page = history.search(&filter, after.as_deref(), PAGE, &self.selection).await?;
            for found in &page.sagas {
                let newest = history.state(&found.saga_id, PointInTime::Newest).await;
                match newest {
                    // It may have gone on meanwhile.
                    Ok(answer) if history.is_stuck(&answer.state, answer.reach.complete_through) => {
                        matches.push(PolicyMatch::of(&answer.state));
                    }
                    Ok(_) | Err(Error::Refused { code: "saga_not_found" | "saga_erased", .. }) => {}
                    Err(other) => return Err(other),
                }
            }
            after = page.next;
            if after.is_none() || matches.len() >= ENOUGH {
                return Ok(matches);
            }
        }
    }
}
