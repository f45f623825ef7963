//! Settings that change what the fold gives: which clock is believed, how large a state may be, which entries are snapshots.

use std::collections::BTreeMap;

use super::event::Kind;

/// Which entries become snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotPolicy {
    /// At STEP_STARTED, after compensation (STEP_COMPENSATED), at the end.
    #[default]
    BeforeEachStep,
    /// At STEP_FAILED, COMPENSATION_FAILED and SAGA_FAILED.
    OnFailure,
    /// At the four ends.
    OnCompletion,
    EveryEvent,
    /// CHECKPOINT events only.
    Manual,
}

/// Settings that change what the fold gives; written into each cold segment as [`FoldSettings::text`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldSettings {
    /// Microseconds that `occurred_at` may be after the record's timestamp.
    pub max_clock_ahead_micros: i64,
    /// Bytes of a state, by [`State::size`](super::state::State::size); over it the last context is kept.
    pub max_state_bytes: u64,
    pub policy: SnapshotPolicy,
    /// Policy by saga name, where it differs.
    pub policy_by_saga: Vec<(String, SnapshotPolicy)>,
}

/// Raised when the fold makes other entries of the same log.
const FOLD: u32 = 1;

/// Members in the order of their names.
#[derive(serde::Serialize)]
struct FoldText<'a> {
    fold: u32,
    max_clock_ahead_micros: i64,
    max_state_bytes: u64,
    policy: SnapshotPolicy,
    policy_by_saga: BTreeMap<&'a str, SnapshotPolicy>,
}

impl FoldSettings {
    /// As each segment names them: JSON without white space, members sorted by name, no number with a point. Equal texts,
    /// equal entries of the same log.
    pub fn text(&self) -> String {
        let by_saga = self.policy_by_saga.iter().map(|(name, policy)| (name.as_str(), *policy)).collect();
        let text = FoldText {
            fold: FOLD,
            max_clock_ahead_micros: self.max_clock_ahead_micros,
            max_state_bytes: self.max_state_bytes,
            policy: self.policy,
            policy_by_saga: by_saga,
        };
        serde_json::to_string(&text).expect("whole numbers and texts can always be written as JSON")
    }

    /// Tells folds apart that may make different entries of the same log: by these settings and by what this version does.
    pub fn id(&self) -> u32 {
        xxhash_rust::xxh3::xxh3_64(self.text().as_bytes()) as u32
    }

    pub fn policy_of(&self, saga_name: &str) -> SnapshotPolicy {
        self.policy_by_saga.iter().find(|(name, _)| name == saga_name).map_or(self.policy, |(_, policy)| *policy)
    }
}

impl SnapshotPolicy {
    /// Is the entry of an event of this kind a snapshot? A restored saga's first entry is one under `every_event`
    /// alone: the policies name steps, compensation, failures and ends.
    pub fn takes(self, kind: Kind) -> bool {
        kind == Kind::Checkpoint
            || match self {
                Self::BeforeEachStep => matches!(kind, Kind::StepStarted | Kind::StepCompensated) || kind.is_end(),
                Self::OnFailure => kind.is_failure(),
                Self::OnCompletion => kind.is_end(),
                Self::EveryEvent => true,
                Self::Manual => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_the_settings_is_byte_by_byte_that_of_the_golden_file() {
        let settings = FoldSettings {
            max_clock_ahead_micros: 3_600_000_000,
            max_state_bytes: 4_194_304,
            policy: SnapshotPolicy::BeforeEachStep,
            policy_by_saga: vec![
                ("order \"b\"".into(), SnapshotPolicy::EveryEvent),
                ("Gr\u{f6}\u{df}e".into(), SnapshotPolicy::Manual),
                ("order".into(), SnapshotPolicy::OnFailure),
            ],
        };
        assert_eq!(settings.text().as_bytes(), include_bytes!("fold_settings.golden.json"));
        let turned = FoldSettings { policy_by_saga: settings.policy_by_saga.iter().rev().cloned().collect(), ..settings.clone() };
        assert_eq!((turned.text(), turned.id()), (settings.text(), settings.id()), "the order of the configuration is not in it");
        let other = FoldSettings { max_state_bytes: 1, ..settings.clone() };
        assert_ne!(other.id(), settings.id());
    }
}
