//! Commands that look at or change an installation without being one of its processes.
//!
//! Each opens what it needs from the configuration, does its work once and tells what it found or did. Prints nothing and
//! knows nothing of the command line.

mod accept_gap;
mod doctor;
mod hand_over;
mod take_over_log;
mod topics;

pub use accept_gap::accept_gap;
pub use doctor::{Verdict, doctor};
pub use hand_over::hand_over;
pub use take_over_log::take_over_log;
pub use topics::{topics_apply, topics_plan};
