//! Effects of steps outside the system, as the configuration declares them: what a replay makes happen again. Pure.

use std::collections::BTreeMap;

use super::lineage::Mode;
use super::plan::Plan;

/// By saga name and step, in words: `charges the card`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeclaredEffects(BTreeMap<String, BTreeMap<String, String>>);

/// A step and what it does outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    pub step: String,
    pub effect: String,
}

impl DeclaredEffects {
    pub fn new(by_saga_name: BTreeMap<String, BTreeMap<String, String>>) -> Self {
        Self(by_saga_name)
    }

    /// Of the steps that run again, resume steps first; in mode compensate of those that are to be compensated. A step that is made
    /// to fail has none.
    pub fn of_plan(&self, plan: &Plan) -> Vec<Effect> {
        let restored = &plan.restored;
        let Some(declared) = self.0.get(&restored.saga_name) else { return Vec::new() };
        let steps: Vec<&String> = match restored.mode {
            Mode::Compensate => restored.completed_steps.iter().collect(),
            Mode::Resume => restored.resume_steps.iter().chain(&plan.runs).collect(),
        };
        let mut effects: Vec<Effect> = Vec::new();
        for step in steps {
            let is_known = effects.iter().any(|known| known.step == *step);
            let is_forced = restored.force_failure.as_ref() == Some(step);
            if let Some(effect) = declared.get(step).filter(|_| !is_known && !is_forced) {
                effects.push(Effect { step: step.clone(), effect: effect.clone() });
            }
        }
        effects
    }
}
