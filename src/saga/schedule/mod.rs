//! Schedules and policies: what is replayed later, again and again, or whenever a saga fails (docs/interface/requests.md,
//! Schedules and policies). What one asks for, and how far it is. Pure.

pub mod breaker;
pub mod cron;
pub mod due;
pub mod member;
pub mod policy;
pub mod progress;
pub mod would;
pub mod zone;

use self::cron::CronTime;
use self::policy::Policy;
use super::json::Json;
use super::position::SagaId;
use super::time::Micros;

/// What a SCHEDULE asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleOrder {
    pub name: Option<String>,
    pub trigger: Trigger,
    pub catch_up: CatchUp,
    pub work: ScheduledWork,
}

/// When its requests are made.
#[derive(Debug, Clone, PartialEq)]
pub enum Trigger {
    /// Once.
    At(Micros),
    Cron(Box<CronTime>),
    /// Whenever a saga fails, or is stuck.
    Policy(Box<Policy>),
}

/// What becomes of due times that passed while nobody ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatchUp {
    /// The last of them is made up for.
    #[default]
    Last,
    None,
}

/// What each of its requests is.
#[derive(Debug, Clone, PartialEq)]
pub enum ScheduledWork {
    /// The members of a REPLAY. Those of a policy name no saga.
    Replay { saga_id: Option<SagaId>, members: Json },
    /// The member `batch` of a BATCH. `last`: its selector looks back this long from the due time, microseconds.
    Batch { batch: Json, last: Option<i64> },
}
