//! Partitions of which nothing can be replayed now: given back to the intake, which assigns them again later.

use crate::kafka::intake::Intake;
use crate::saga::position::TopicPartition;

pub struct Reassignment {
    intake: Intake,
    /// To be assigned again, and the intake was not told of it yet.
    waiting: Vec<TopicPartition>,
}

impl Reassignment {
    pub fn new(intake: Intake) -> Self {
        Self { intake, waiting: Vec::new() }
    }

    pub fn add(&mut self, partitions: Vec<TopicPartition>) {
        self.waiting.extend(partitions);
    }

    /// They were assigned again, or taken away.
    pub fn forget(&mut self, partitions: &[TopicPartition]) {
        self.waiting.retain(|waiting| !partitions.contains(waiting));
    }

    /// What the intake was not told of yet: it reads on what nobody here takes, and only then assigns it again.
    pub async fn tell_intake(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        match self.intake.assign_later(self.waiting.clone()).await {
            Ok(()) => self.waiting.clear(),
            Err(reason) => tracing::debug!(%reason, "intake not told of partitions that wait, trying again"),
        }
    }
}
