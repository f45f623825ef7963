//! Every shape of an HTTP answer, as JSON text: members in the order of the contract, texts as they came.
//!
//! Pure. What goes over Kafka as well (a restored saga, a log record) is written by `wire`. Knows no route and no status.

mod batch;
mod entry;
mod health;
mod lineage;
mod lists;
mod parts;
mod problem;
mod replay;
mod schedule;
mod state;

use crate::saga::json::Json;

// All of each: a new shape has one place.
pub use batch::*;
pub use health::*;
pub use lineage::*;
pub use lists::*;
pub use problem::*;
pub use replay::*;
pub use schedule::*;
pub use state::*;

/// A part of a context.
pub fn value(value: &Json) -> String {
    format!("{{\"value\":{}}}", value.as_str())
}
