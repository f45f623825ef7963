//! How two states of a saga differ, besides their contexts. Pure.

use std::collections::HashSet;

use super::state::State;

/// What a list of steps has more and less than another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListChange {
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

impl ListChange {
    fn between(from: &[String], to: &[String]) -> Self {
        let missing_in = |list: &[String], other: &[String]| {
            let other: HashSet<&String> = other.iter().collect();
            list.iter().filter(|step| !other.contains(step)).cloned().collect()
        };
        Self { added: missing_in(to, from), removed: missing_in(from, to) }
    }
}

/// How two states differ, besides their contexts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepsChange {
    pub completed: ListChange,
    pub skipped: ListChange,
    pub compensated: ListChange,
}

impl StepsChange {
    pub fn between(from: &State, to: &State) -> Self {
        Self {
            completed: ListChange::between(&from.completed_steps, &to.completed_steps),
            skipped: ListChange::between(&from.skipped_steps, &to.skipped_steps),
            compensated: ListChange::between(&from.compensated_steps, &to.compensated_steps),
        }
    }
}
