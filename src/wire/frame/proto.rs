//! The messages inside a frame. Tags are for ever: a member is added under a new tag and never moved; what an older
//! version does not know it skips.
//!
//! Only repeated pairs, no maps: equal values give equal bytes.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub struct PairText {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub text: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct PairInt {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(sint64, optional, tag = "2")]
    pub value: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Labels {
    #[prost(message, repeated, tag = "1")]
    pub pairs: Vec<PairText>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Error {
    #[prost(string, optional, tag = "1")]
    pub code: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub kind: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub message: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub details: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct FailedStep {
    #[prost(string, tag = "1")]
    pub step: String,
    #[prost(message, optional, tag = "2")]
    pub error: Option<Error>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Lineage {
    #[prost(string, tag = "1")]
    pub parent: String,
    #[prost(string, tag = "2")]
    pub root: String,
    #[prost(uint32, tag = "3")]
    pub depth: u32,
    #[prost(string, tag = "4")]
    pub replay_id: String,
    #[prost(string, optional, tag = "5")]
    pub resume_step: Option<String>,
    /// Mode compensate.
    #[prost(bool, tag = "6")]
    pub compensate: bool,
    #[prost(string, optional, tag = "7")]
    pub force_failure: Option<String>,
    #[prost(string, optional, tag = "8")]
    pub executes: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Splice {
    #[prost(uint32, tag = "1")]
    pub prefix: u32,
    #[prost(uint32, tag = "2")]
    pub suffix: u32,
    #[prost(string, tag = "3")]
    pub middle: String,
}

/// What the event did to the context.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Context {
    #[prost(string, tag = "30")]
    Full(String),
    #[prost(string, tag = "31")]
    Patch(String),
    #[prost(string, tag = "32")]
    Set(String),
    #[prost(message, tag = "33")]
    Splice(Splice),
    /// The whole context, which stands elsewhere: in the state of the same frame, or in a column of its own.
    #[prost(bool, tag = "34")]
    Elsewhere(bool),
}

#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    #[prost(string, tag = "2")]
    pub topic: String,
    #[prost(sfixed64, tag = "5")]
    pub effective_time: i64,
    /// Less `effective_time`.
    #[prost(sint64, tag = "6")]
    pub occurred_after: i64,
    /// Less `effective_time`.
    #[prost(sint64, tag = "7")]
    pub recorded_after: i64,
    #[prost(bool, tag = "8")]
    pub snapshot: bool,
    #[prost(uint32, repeated, tag = "9")]
    pub anomalies: Vec<u32>,
    #[prost(string, tag = "10")]
    pub event_id: String,
    #[prost(string, tag = "12")]
    pub saga_name: String,
    #[prost(uint32, tag = "13")]
    pub kind: u32,
    /// Where it is not the occurred time itself.
    #[prost(sfixed64, optional, tag = "14")]
    pub occurred_at: Option<i64>,
    #[prost(string, optional, tag = "15")]
    pub step: Option<String>,
    #[prost(sint64, optional, tag = "16")]
    pub step_index: Option<i64>,
    #[prost(sint64, optional, tag = "17")]
    pub attempt: Option<i64>,
    #[prost(uint64, optional, tag = "18")]
    pub event_sequence: Option<u64>,
    #[prost(string, optional, tag = "19")]
    pub result: Option<String>,
    #[prost(message, optional, tag = "20")]
    pub error: Option<Error>,
    #[prost(string, optional, tag = "21")]
    pub saga_version: Option<String>,
    #[prost(string, optional, tag = "22")]
    pub tenant: Option<String>,
    #[prost(string, optional, tag = "23")]
    pub region: Option<String>,
    #[prost(message, optional, tag = "24")]
    pub labels: Option<Labels>,
    #[prost(message, optional, tag = "25")]
    pub lineage: Option<Lineage>,
    /// The restored saga as JSON.
    #[prost(string, optional, tag = "26")]
    pub restored: Option<String>,
    #[prost(bool, tag = "27")]
    pub no_occurred_at: bool,
    #[prost(oneof = "Context", tags = "30, 31, 32, 33, 34")]
    pub context: Option<Context>,
}

#[derive(Clone, PartialEq, Message)]
pub struct EntryRef {
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    #[prost(string, tag = "2")]
    pub event_id: String,
    #[prost(uint32, tag = "3")]
    pub kind: u32,
    #[prost(sfixed64, tag = "4")]
    pub effective_time: i64,
    #[prost(sfixed64, tag = "5")]
    pub recorded_time: i64,
    #[prost(string, tag = "6")]
    pub topic: String,
    #[prost(uint32, tag = "7")]
    pub partition: u32,
    #[prost(uint64, tag = "8")]
    pub offset: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Seen {
    #[prost(fixed64, tag = "1")]
    pub event_id_hash: u64,
    #[prost(uint64, optional, tag = "2")]
    pub sequence: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Saga {
    #[prost(string, tag = "1")]
    pub saga_id: String,
    #[prost(string, tag = "2")]
    pub saga_name: String,
    #[prost(string, optional, tag = "3")]
    pub saga_version: Option<String>,
    #[prost(uint32, tag = "4")]
    pub status: u32,
    #[prost(message, repeated, tag = "5")]
    pub running_steps: Vec<PairInt>,
    #[prost(string, repeated, tag = "6")]
    pub completed_steps: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    pub skipped_steps: Vec<String>,
    #[prost(string, repeated, tag = "8")]
    pub compensated_steps: Vec<String>,
    #[prost(message, repeated, tag = "9")]
    pub failed_steps: Vec<FailedStep>,
    #[prost(message, optional, tag = "10")]
    pub end_error: Option<Error>,
    #[prost(string, optional, tag = "11")]
    pub compensation_failed_step: Option<String>,
    #[prost(message, optional, tag = "12")]
    pub compensation_error: Option<Error>,
    #[prost(message, repeated, tag = "13")]
    pub attempts: Vec<PairInt>,
    #[prost(message, repeated, tag = "14")]
    pub results: Vec<PairText>,
    #[prost(string, tag = "15")]
    pub context: String,
    #[prost(sfixed64, tag = "16")]
    pub started_at: i64,
    #[prost(sfixed64, optional, tag = "17")]
    pub ended_at: Option<i64>,
    #[prost(string, optional, tag = "18")]
    pub tenant: Option<String>,
    #[prost(string, optional, tag = "19")]
    pub region: Option<String>,
    #[prost(message, repeated, tag = "20")]
    pub labels: Vec<PairText>,
    #[prost(message, optional, tag = "21")]
    pub lineage: Option<Lineage>,
    #[prost(uint32, repeated, tag = "22")]
    pub anomalies: Vec<u32>,
    #[prost(uint64, optional, tag = "23")]
    pub snapshot: Option<u64>,
    /// Absent: the entry that stands in the same frame.
    #[prost(message, optional, tag = "24")]
    pub entry: Option<EntryRef>,
    #[prost(message, repeated, tag = "25")]
    pub window: Vec<Seen>,
    #[prost(uint64, optional, tag = "26")]
    pub highest_sequence: Option<u64>,
}

/// What a member of the hot store holds.
#[derive(Clone, PartialEq, Message)]
pub struct Member {
    #[prost(message, optional, tag = "1")]
    pub entry: Option<Entry>,
    #[prost(message, optional, boxed, tag = "2")]
    pub saga: Option<Box<Saga>>,
}
