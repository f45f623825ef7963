//! Policies: which entries of a saga's history ask for a replay, and when that is due. Pure.

use jiff::civil::Time;

use super::breaker::StopRule;
use super::zone::Zone;
use crate::saga::entry::Entry;
use crate::saga::failure::SagaFailure;
use crate::saga::fold::Saga;
use crate::saga::position::{EntrySequence, SagaId};
use crate::saga::selector::SagaFilter;
use crate::saga::state::{State, Status};
use crate::saga::time::Micros;

#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Which sagas; with `stuck`, those that are stuck instead of those that fail.
    pub on: SagaFilter,
    /// Microseconds, as `max_delay`.
    pub delay: i64,
    /// The delay grows by this factor with each replay of a lineage.
    pub backoff: f64,
    pub max_delay: i64,
    /// Sagas of this depth or more are left alone.
    pub max_replays: u32,
    pub window: Option<DailyWindow>,
    /// `None`: it never stops itself.
    pub stop: Option<StopRule>,
}

/// A part of each day. Where it ends before it begins, it goes on past midnight.
#[derive(Debug, Clone, PartialEq)]
pub struct DailyWindow {
    pub from: Time,
    /// Exclusive.
    pub until: Time,
    pub zone: Zone,
}

/// An entry that asks for a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyMatch {
    pub saga_id: SagaId,
    pub sequence: EntrySequence,
    pub recorded_time: Micros,
    pub depth: u32,
    /// The failed step; of a stuck saga the one that runs.
    pub step: Option<String>,
}

impl Policy {
    /// When the replay for an entry may go. `None`: never, the saga was replayed often enough, or no window opens.
    pub fn due(&self, found: &PolicyMatch) -> Option<Micros> {
        if found.depth >= self.max_replays {
            return None;
        }
        let grown = self.delay as f64 * self.backoff.powi(found.depth.min(1_000) as i32);
        let delay = if grown < self.max_delay as f64 { grown as i64 } else { self.max_delay };
        let at = found.recorded_time.saturating_add(delay);
        self.window.as_ref().map_or(Some(at), |window| window.next_open(at))
    }

    /// The entries of a whole history that make the saga failed and fit, and were recorded after `since`.
    pub fn matches(&self, entries: &[Entry], since: Micros) -> Vec<PolicyMatch> {
        let mut found = Vec::new();
        let mut slot: Option<Saga> = None;
        let mut failures: Vec<SagaFailure> = Vec::new();
        for entry in entries {
            let before = slot.as_ref().map(|saga| saga.state.status);
            Saga::apply_facts(&mut slot, entry);
            failures.extend(SagaFailure::of(entry));
            let Some(saga) = &slot else { continue };
            let fails = saga.state.status == Status::Failed && before != Some(Status::Failed);
            if fails && entry.recorded_time > since && self.fits(&saga.state, &failures) {
                found.push(PolicyMatch::of(&saga.state));
            }
        }
        found
    }

    /// Do the saga and one failure that still stands fit?
    fn fits(&self, state: &State, failures: &[SagaFailure]) -> bool {
        let stands = |failure: &&SagaFailure| {
            let step = failure.step.as_deref();
            step.is_none_or(|step| state.failed_steps.iter().any(|(failed, _)| failed == step)) || failure.compensation()
        };
        let fits_failure = |failure: &SagaFailure| {
            let error = failure.error.as_ref();
            let (code, kind) = (error.and_then(|error| error.code.as_deref()), error.and_then(|error| error.kind.as_deref()));
            self.on.fits_failure(failure.compensation(), failure.step.as_deref(), code, kind, failure.at)
        };
        self.on.fits_state(state) && (!self.on.asks_for_failure() || failures.iter().filter(stands).any(fits_failure))
    }
}

impl PolicyMatch {
    /// Of the newest entry of a state.
    pub fn of(state: &State) -> Self {
        Self {
            saga_id: state.saga_id.clone(),
            sequence: state.entry.sequence,
            recorded_time: state.entry.recorded_time,
            depth: state.lineage.as_ref().map_or(0, |lineage| lineage.depth),
            step: state.failed_step().or(state.current_step()).map(str::to_owned),
        }
    }
}

impl DailyWindow {
    /// This time, or the next at which the window opens.
    pub fn next_open(&self, at: Micros) -> Option<Micros> {
        let civil = self.zone.civil(at)?;
        let time = civil.time();
        let is_open =
            if self.from <= self.until { self.from <= time && time < self.until } else { time >= self.from || time < self.until };
        if is_open || self.from == self.until {
            return Some(at);
        }
        let day = if time < self.from { civil.date() } else { civil.date().tomorrow().ok()? };
        self.zone.instant(day.to_datetime(self.from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::event::{ErrorInfo, Kind, StepEvent};
    use crate::saga::testing::{Log, event};

    const MINUTE: i64 = 60_000_000;

    fn policy() -> Policy {
        Policy {
            on: SagaFilter::default(),
            delay: 5 * MINUTE,
            backoff: 2.0,
            max_delay: 360 * MINUTE,
            max_replays: 3,
            window: None,
            stop: None,
        }
    }

    fn of_step(kind: Kind, step: &str, code: Option<&str>) -> StepEvent {
        let error = code.map(|code| Box::new(ErrorInfo { code: Some(code.into()), ..ErrorInfo::default() }));
        StepEvent { step: Some(step.into()), error, ..event(kind) }
    }

    fn found(policy: &Policy, log: &Log, since: i64) -> Vec<(u64, Option<String>)> {
        let entries: Vec<Entry> = log.entries.clone();
        policy.matches(&entries, Micros(since)).into_iter().map(|found| (found.sequence.0, found.step)).collect()
    }

    #[test]
    fn an_entry_that_makes_a_saga_failed_matches_once_and_by_the_failure_that_stands() {
        let log = Log::of([
            event(Kind::SagaStarted),
            of_step(Kind::StepStarted, "pay", None),
            of_step(Kind::StepFailed, "pay", Some("timeout")),
            of_step(Kind::StepStarted, "pay", None),
            of_step(Kind::StepFailed, "pay", Some("declined")),
            event(Kind::SagaFailed),
            event(Kind::ContextUpdated),
        ]);
        let with = |on: SagaFilter| found(&Policy { on, ..policy() }, &log, 0);
        let pay = Some("pay".to_owned());
        assert_eq!(with(SagaFilter::default()), [(6, pay.clone())], "what comes after the failure does not fail it again");
        let code = |code: &str| SagaFilter { error_code: Some(code.into()), ..SagaFilter::default() };
        assert_eq!(with(code("declined")), [(6, pay)]);
        assert!(with(code("other")).is_empty());
        let step = SagaFilter { failed_step: Some("ship".into()), ..SagaFilter::default() };
        assert!(with(step).is_empty());
        let tenant = SagaFilter { tenant: Some("eu".into()), ..SagaFilter::default() };
        assert!(with(tenant).is_empty());
        let recorded = log.entries[5].recorded_time.0;
        assert!(found(&policy(), &log, recorded).is_empty(), "recorded before it counts");
        assert_eq!(found(&policy(), &log, recorded - 1).len(), 1);
    }

    #[test]
    fn each_replay_of_a_lineage_waits_longer_up_to_a_limit() {
        let found =
            |depth| PolicyMatch { saga_id: "a".into(), sequence: EntrySequence(1), recorded_time: Micros(0), depth, step: None };
        let due = |policy: &Policy, depth| policy.due(&found(depth)).map(|at| at.0 / MINUTE);
        assert_eq!([0, 1, 2, 3].map(|depth| due(&policy(), depth)), [Some(5), Some(10), Some(20), None]);
        let long = Policy { max_replays: u32::MAX, ..policy() };
        assert_eq!((due(&long, 7), due(&long, 5_000)), (Some(360), Some(360)));
    }

    #[test]
    fn outside_its_window_a_policy_waits_for_the_next_opening() {
        let window = |from: &str, until: &str| DailyWindow {
            from: from.parse().expect("a time of day"),
            until: until.parse().expect("a time of day"),
            zone: Zone::named("Europe/Berlin").expect("a zone"),
        };
        let open = |window: &DailyWindow, at: &str| window.next_open(at.parse().expect("a time")).map(|at| at.to_string());
        let day = window("06:00", "22:00");
        let same = |at: &str| Some(format!("{at}.000000Z"));
        assert_eq!(open(&day, "2026-07-01T12:00:00Z"), same("2026-07-01T12:00:00"));
        assert_eq!(open(&day, "2026-07-01T20:00:00Z"), same("2026-07-02T04:00:00"), "22:00 there is outside");
        assert_eq!(open(&day, "2026-07-01T02:00:00Z"), same("2026-07-01T04:00:00"));
        let night = window("22:00", "06:00");
        assert_eq!(open(&night, "2026-07-01T22:00:00Z"), same("2026-07-01T22:00:00"));
        assert_eq!(open(&night, "2026-07-01T12:00:00Z"), same("2026-07-01T20:00:00"));
    }
}
