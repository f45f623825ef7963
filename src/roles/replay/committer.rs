//! The producer whose transactions carry batches: opened when needed, kept while it is good, and fenced by a newer one of the
//! same transactional id.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config;
use crate::error::{Error, Result};
use crate::kafka::transaction::TransactionalPublisher;
use crate::retry::until_available;

/// Pause after being fenced: another instance of the same name may be starting or going.
const FENCED_PAUSE: Duration = Duration::from_secs(1);
const FENCED_WINDOW: Duration = Duration::from_secs(60);
/// Times in this window after which the role gives up.
const MAX_FENCED: usize = 2;

pub struct Committer {
    kafka: config::KafkaConfig,
    transactional_id: String,
    producer: Option<TransactionalPublisher>,
    fenced: VecDeque<Instant>,
}

impl Committer {
    pub fn new(kafka: config::KafkaConfig, transactional_id: String) -> Self {
        Self { kafka, transactional_id, producer: None, fenced: VecDeque::new() }
    }

    /// Opens the producer, where there is none. Opening settles what was left open: committed or aborted, and visible in the log
    /// from then on.
    pub async fn open(&mut self) -> Result<()> {
        if self.producer.is_none() {
            let open = || TransactionalPublisher::open(&self.kafka, &self.transactional_id);
            self.producer = Some(until_available("open transactional producer", open).await?);
        }
        Ok(())
    }

    /// The producer, for one transaction.
    pub async fn take(&mut self) -> Result<TransactionalPublisher> {
        self.open().await?;
        self.producer.take().ok_or_else(|| Error::bug("take the transactional producer: it was opened and is not there"))
    }

    pub fn put_back(&mut self, producer: TransactionalPublisher) {
        self.producer = Some(producer);
    }

    /// Another producer has the transactional id: a pause, and an error if that goes on.
    pub async fn was_fenced(&mut self) -> Result<()> {
        let now = Instant::now();
        self.fenced.retain(|at| now.duration_since(*at) < FENCED_WINDOW);
        self.fenced.push_back(now);
        if self.fenced.len() > MAX_FENCED {
            return Err(Error::bug(format!(
                "fenced again and again: another process uses the transactional id {}; give each its own [kafka] instance",
                self.transactional_id
            )));
        }
        tokio::time::sleep(FENCED_PAUSE).await;
        Ok(())
    }
}
