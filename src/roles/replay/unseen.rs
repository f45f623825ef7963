//! Log records that the view of the log may not have yet.

use std::collections::HashMap;
use std::sync::Arc;

use crate::saga::request::LogRecord;

/// Log records that this process committed or is about to commit and that the view may not have yet.
pub type Pending = HashMap<String, Arc<LogRecord>>;

/// What is newer than the view of the log, newest first.
#[derive(Clone, Copy)]
pub struct Unseen<'a>(pub &'a [&'a Pending]);

impl<'a> Unseen<'a> {
    pub fn get(self, replay_id: &str) -> Option<&'a Arc<LogRecord>> {
        self.0.iter().find_map(|pending| pending.get(replay_id))
    }

    /// The newest of each replay.
    pub fn records(self) -> impl Iterator<Item = &'a Arc<LogRecord>> {
        let newest = move |(at, id): (usize, &String)| !self.0[..at].iter().any(|newer| newer.contains_key(id));
        let all = self.0.iter().enumerate().flat_map(|(at, pending)| pending.iter().map(move |record| (at, record)));
        all.filter(move |(at, (id, _))| newest((*at, id))).map(|(_, (_, record))| record)
    }
}
