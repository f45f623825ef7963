//! An object store that fails before or after it did what was asked, or is slow, on a seeded schedule; and one that
//! counts what it is asked.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use resaga::cold::object_store::{Metadata, ObjectInfo, ObjectPart, ObjectStore, Put};
use resaga::error::{Error, Result};

use super::Dice;

/// How often each fault strikes, in calls per thousand; they exclude each other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// Nothing was done; the caller hears `Unavailable`.
    pub before: u64,
    /// It was done, the reply is lost; the caller hears `Unavailable`.
    pub after: u64,
    /// Nothing was done; the caller hears a 503.
    pub slow_down: u64,
    /// Up to 20 ms late.
    pub slow: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Before,
    After,
    SlowDown,
    Slow(Duration),
}

pub struct FaultyObjects {
    store: Arc<dyn ObjectStore>,
    down: AtomicBool,
    state: Mutex<State>,
}

struct State {
    dice: Dice,
    rates: Rates,
    trace: Vec<(&'static str, Fault)>,
}

impl FaultyObjects {
    pub fn new(store: Arc<dyn ObjectStore>, seed: u64, rates: Rates) -> Self {
        let state = Mutex::new(State { dice: Dice::new(seed), rates, trace: Vec::new() });
        Self { store, down: AtomicBool::new(false), state }
    }

    /// While down every call fails and does nothing.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub fn set_rates(&self, rates: Rates) {
        self.state.lock().expect("lock").rates = rates;
    }

    /// What struck, in order of the calls.
    pub fn trace(&self) -> Vec<(&'static str, Fault)> {
        self.state.lock().expect("lock").trace.clone()
    }

    async fn run<T>(&self, call: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Error::unavailable(format!("{call}: down")));
        }
        let fault = self.state.lock().expect("lock").draw(call);
        match fault {
            None => work.await,
            Some(Fault::Before) => Err(Error::unavailable(format!("{call}: cannot reach the server"))),
            Some(Fault::SlowDown) => Err(Error::unavailable(format!("{call}: slow down"))),
            Some(Fault::After) => {
                work.await?;
                Err(Error::unavailable(format!("{call}: no answer in time")))
            }
            Some(Fault::Slow(delay)) => {
                tokio::time::sleep(delay).await;
                work.await
            }
        }
    }
}

impl State {
    fn draw(&mut self, call: &'static str) -> Option<Fault> {
        let delay = Duration::from_millis(1 + self.dice.below(20));
        let mut roll = self.dice.below(1000);
        let rates = self.rates;
        let faults = [
            (rates.before, Fault::Before),
            (rates.after, Fault::After),
            (rates.slow_down, Fault::SlowDown),
            (rates.slow, Fault::Slow(delay)),
        ];
        for (rate, fault) in faults {
            if roll < rate {
                self.trace.push((call, fault));
                return Some(fault);
            }
            roll -= rate;
        }
        None
    }
}

#[async_trait]
impl ObjectStore for FaultyObjects {
    async fn create(&self, key: &str, body: Bytes, metadata: &Metadata) -> Result<Put> {
        self.run("create", self.store.create(key, body, metadata)).await
    }
    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.run("head", self.store.head(key)).await
    }
    async fn get_range(&self, key: &str, start: u64, end: u64) -> Result<Option<ObjectPart>> {
        self.run("get_range", self.store.get_range(key, start, end)).await
    }
    async fn get_suffix(&self, key: &str, len: u64) -> Result<Option<ObjectPart>> {
        self.run("get_suffix", self.store.get_suffix(key, len)).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        self.run("list", self.store.list(prefix, after, limit)).await
    }
    async fn delete(&self, key: &str) -> Result<()> {
        self.run("delete", self.store.delete(key)).await
    }
}

/// Counts requests.
pub struct CountedObjects {
    store: Arc<dyn ObjectStore>,
    pub creates: AtomicU64,
    pub reads: AtomicU64,
    pub lists: AtomicU64,
}

impl CountedObjects {
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, creates: AtomicU64::default(), reads: AtomicU64::default(), lists: AtomicU64::default() }
    }

    /// Reads since the last call.
    pub fn take_reads(&self) -> u64 {
        self.reads.swap(0, Ordering::SeqCst)
    }
}

#[async_trait]
impl ObjectStore for CountedObjects {
    async fn create(&self, key: &str, body: Bytes, metadata: &Metadata) -> Result<Put> {
        self.creates.fetch_add(1, Ordering::SeqCst);
        self.store.create(key, body, metadata).await
    }
    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.store.head(key).await
    }
    async fn get_range(&self, key: &str, start: u64, end: u64) -> Result<Option<ObjectPart>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.store.get_range(key, start, end).await
    }
    async fn get_suffix(&self, key: &str, len: u64) -> Result<Option<ObjectPart>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.store.get_suffix(key, len).await
    }
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        self.store.list(prefix, after, limit).await
    }
    async fn delete(&self, key: &str) -> Result<()> {
        self.store.delete(key).await
    }
}
