//! A restored saga as the orchestrator reads it from its topic: the members it needs, in the words of docs/INTERFACE.md, Topics.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::clock::Moment;

#[derive(Debug, Clone, Deserialize)]
pub struct Restored {
    pub saga_id: String,
    pub mode: String,
    pub resume_step: Option<String>,
    pub completed_steps: Vec<String>,
    pub attempts: Map<String, Value>,
    pub results: Map<String, Value>,
    pub context: Value,
    pub original_saga_id: String,
    pub root_saga_id: String,
    pub replay_id: String,
    #[serde(deserialize_with = "moment")]
    pub restored_at: Moment,
}

impl Restored {
    pub fn read(value: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(value)
    }
}

fn moment<'de, D: serde::Deserializer<'de>>(text: D) -> Result<Moment, D::Error> {
    let text = String::deserialize(text)?;
    Moment::parse(&text).ok_or_else(|| serde::de::Error::custom("not a time"))
}
