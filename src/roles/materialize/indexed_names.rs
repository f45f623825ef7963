//! The names of sagas and steps that get buckets of their own in the hot indexes. Names are what producers write: one with an
//! order's number in it would make a key for each saga and minute. Facts of names beyond the first few hundred of a partition
//! go to one bucket a minute, without their names. Pure.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use crate::hot::{ActivityFact, FailureFact};

/// Pairs of saga name and step with index buckets of their own, per partition.
const MAX_NAMES: usize = 256;
/// Bytes of the two together.
const MAX_BYTES: usize = 512;

#[derive(Debug, Default)]
pub struct IndexedNames {
    /// By saga name, its steps (`""`: none).
    known: HashMap<Box<str>, HashSet<Box<str>, RandomState>, RandomState>,
    count: usize,
}

impl IndexedNames {
    /// Learns the names of a fact that is written for the first time.
    fn learn(&mut self, saga_name: &str, step: &str) {
        if self.count < MAX_NAMES && saga_name.len() + step.len() <= MAX_BYTES && !self.has(saga_name, step) {
            self.known.entry(saga_name.into()).or_default().insert(step.into());
            self.count += 1;
        }
    }

    fn has(&self, saga_name: &str, step: &str) -> bool {
        self.known.get(saga_name).is_some_and(|steps| steps.contains(step))
    }

    /// As it is written for the first time.
    pub fn new_activity(&mut self, fact: ActivityFact) -> ActivityFact {
        self.learn(&fact.saga_name, "");
        self.activity(fact)
    }

    /// As it is written for the first time.
    pub fn new_failure(&mut self, fact: FailureFact) -> FailureFact {
        self.learn(&fact.saga_name, &fact.step);
        self.failure(fact)
    }

    /// As it was written before.
    pub fn activity(&self, fact: ActivityFact) -> ActivityFact {
        if self.has(&fact.saga_name, "") { fact } else { ActivityFact { saga_name: String::new(), ..fact } }
    }

    /// As it was written before.
    pub fn failure(&self, fact: FailureFact) -> FailureFact {
        if self.has(&fact.saga_name, &fact.step) {
            fact
        } else {
            FailureFact { saga_name: String::new(), step: String::new(), ..fact }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(name: &str) -> ActivityFact {
        ActivityFact { saga: "s".into(), saga_name: name.into(), minute: 7 }
    }

    #[test]
    fn a_name_for_each_saga_makes_no_key_for_each() {
        let mut names = IndexedNames::default();
        let buckets: HashSet<String> = (0..10_000).map(|n| names.new_activity(fact(&format!("order-{n}"))).saga_name).collect();
        assert_eq!(buckets.len(), MAX_NAMES + 1);
        assert_eq!(names.activity(fact("order-3")).saga_name, "order-3", "it stays where it was written");
        assert_eq!(names.new_activity(fact("order-9999")).saga_name, "");
    }

    #[test]
    fn a_name_of_a_megabyte_is_no_key() {
        let mut names = IndexedNames::default();
        assert_eq!(names.new_activity(fact(&"x".repeat(1 << 20))).saga_name, "");
        assert_eq!(names.new_activity(fact("x")).saga_name, "x");
    }
}
