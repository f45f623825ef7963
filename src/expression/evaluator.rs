//! The thread on which expressions are evaluated: its stack is large, and nobody waits for one that does not end.
//!
//! One evaluation at a time. What takes longer than it may is stopped by its budget; a thread that goes on all the same is left
//! behind, and the next evaluation gets another one. After two of them the process must end: each takes a core.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use lru::LruCache;
use tokio::sync::{Mutex, oneshot};

use super::compile::{Expression, Language};
use super::evaluate::{Bounds, Failure, Input, evaluate};
use crate::error::{Error, Result};
use crate::saga::json::Json;

/// Bytes; touched only as far as an expression nests.
pub(super) const STACK: usize = 256 << 20;
/// Compiled expressions that are kept: a batch has one for all its sagas.
const KEPT: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");
/// Threads that may be left behind.
const MAX_LEFT: usize = 2;
const GRACE: Duration = Duration::from_secs(2);

struct Job {
    text: String,
    input: Input,
    bounds: Bounds,
    reply: oneshot::Sender<std::result::Result<Json, Failure>>,
}

/// Cheap to clone; clones share the thread.
#[derive(Clone)]
pub struct Evaluator {
    bounds: Bounds,
    thread: Arc<Mutex<Option<SyncSender<Job>>>>,
    /// Threads that did not end.
    left: Arc<AtomicUsize>,
    /// What the thread does.
    run: fn(&Receiver<Job>),
    /// How long it may take to stop.
    grace: Duration,
}

impl Evaluator {
    /// The thread begins with the first expression.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, thread: Arc::default(), left: Arc::default(), run, grace: GRACE }
    }

    /// `Bug`: threads that cannot be stopped, and the process has to end.
    pub async fn evaluate(&self, text: &str, input: Input) -> Result<std::result::Result<Json, Failure>> {
        let mut thread = self.thread.lock().await;
        // Not when it is left: what asked for that evaluation is refused first, or it would come again with the next process.
        if self.left.load(Ordering::Relaxed) > MAX_LEFT {
            return Err(Error::bug("evaluate an expression: threads of earlier ones do not end"));
        }
        let sender = match thread.take() {
            Some(sender) => sender,
            None => begin(self.run)?,
        };
        let (reply, answer) = oneshot::channel();
        if sender.send(Job { text: text.to_owned(), input, bounds: self.bounds, reply }).is_err() {
            return Ok(Err(Failure::Failed));
        }
        // Whoever waits no more drops the sender, and with it the thread once it is done.
        match tokio::time::timeout(self.bounds.time + self.grace, answer).await {
            Ok(Ok(answer)) => {
                *thread = Some(sender);
                Ok(answer)
            }
            Ok(Err(_)) => Ok(Err(Failure::Failed)),
            Err(_) => {
                let left = self.left.fetch_add(1, Ordering::Relaxed) + 1;
                tracing::error!(left, "an expression's thread does not end and is left behind");
                Ok(Err(Failure::TimedOut(self.bounds.time)))
            }
        }
    }
}

fn begin(run: fn(&Receiver<Job>)) -> Result<SyncSender<Job>> {
    let (sender, jobs) = sync_channel(1);
    let thread = std::thread::Builder::new().name("expressions".into()).stack_size(STACK);
    let begun = thread.spawn(move || run(&jobs));
    begun.map_err(|e| Error::unavailable(format!("begin a thread for expressions: {e}")))?;
    Ok(sender)
}

fn run(jobs: &Receiver<Job>) {
    let language = Language::new();
    let mut kept: LruCache<String, std::result::Result<Expression, Failure>> = LruCache::new(KEPT);
    while let Ok(Job { text, input, bounds, reply }) = jobs.recv() {
        let compiled = kept.get_or_insert(text.clone(), || language.compile(&text).map_err(Failure::from));
        let answer = match compiled {
            Ok(expression) => evaluate(expression, &input, bounds),
            Err(failure) => Err(failure.clone()),
        };
        // Who asked may have gone.
        let _ = reply.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn threads_that_do_not_end_are_left_behind_until_they_are_too_many() {
        let bounds = Bounds { time: Duration::from_millis(300), max_bytes: 100 };
        let mut evaluator = Evaluator { grace: Duration::from_millis(200), ..Evaluator::new(bounds) };
        let input = || Input { context: Json::empty_object(), saga: Json::null(), item: Json::null() };
        for _ in 0..=MAX_LEFT {
            assert!(matches!(evaluator.evaluate(".", input()).await, Ok(Ok(_))));
            evaluator.thread = Arc::default();
            evaluator.run = |jobs| {
                let _job = jobs.recv();
                loop {
                    std::thread::park();
                }
            };
            assert_eq!(evaluator.evaluate(".", input()).await, Ok(Err(Failure::TimedOut(bounds.time))));
            evaluator.run = run;
        }
        assert!(matches!(evaluator.evaluate(".", input()).await, Err(Error::Bug(_))));
    }
}
