//! What is told while the story runs, and what was compared. A fact is verified only by a comparison made here.

use std::fmt::Debug;
use std::io::Write;
use std::time::Instant;

/// One line to stdout. A reader that has left is no error.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

pub struct Summary {
    began: Instant,
    facts: Vec<Fact>,
}

struct Fact {
    says: String,
    /// What was found instead; `None`: it holds.
    instead: Option<String>,
}

/// Longest text of what was found instead.
const MAX_INSTEAD: usize = 400;

impl Summary {
    pub fn begin() -> Self {
        Self { began: Instant::now(), facts: Vec::new() }
    }

    /// A line of the story, with the time since its beginning.
    pub fn tell(&self, line: &str) {
        say(&format!("{:>6.2}s  {line}", self.began.elapsed().as_secs_f64()));
    }

    pub fn equal<T: PartialEq + Debug>(&mut self, says: impl Into<String>, expected: &T, found: &T) {
        let instead = (expected != found).then(|| format!("expected {expected:?}, found {found:?}"));
        self.note(says, instead);
    }

    /// A fact of many things: each of `found` is one that does not hold.
    pub fn none(&mut self, says: impl Into<String>, found: &[String]) {
        let first = || found.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
        let instead = (!found.is_empty()).then(|| format!("{} do not hold, such as {}", found.len(), first()));
        self.note(says, instead);
    }

    fn note(&mut self, says: impl Into<String>, instead: Option<String>) {
        let instead = instead.map(|text| text.chars().take(MAX_INSTEAD).collect());
        self.facts.push(Fact { says: says.into(), instead });
    }

    pub fn all_hold(&self) -> bool {
        self.facts.iter().all(|fact| fact.instead.is_none())
    }

    pub fn print(&self) {
        say("\nVerified, by comparing with what the orchestrator wrote down itself:");
        for fact in &self.facts {
            match &fact.instead {
                None => say(&format!("  ok      {}", fact.says)),
                Some(instead) => say(&format!("  DIFFERS {}: {instead}", fact.says)),
            }
        }
        let held = self.facts.iter().filter(|fact| fact.instead.is_none()).count();
        say(&format!("{held} of {} facts hold, after {:.1} s.", self.facts.len(), self.began.elapsed().as_secs_f64()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fact_that_differs_is_enough() {
        let mut summary = Summary::begin();
        summary.equal("one is one", &1, &1);
        summary.none("nothing is wrong", &[]);
        assert!(summary.all_hold());
        summary.none("all are right", &["order-1".into()]);
        assert!(!summary.all_hold());
    }
}
