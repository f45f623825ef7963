//! Whose the replay log is: each of its records names the group that wrote it, in a header beside the value.
//!
//! The generation is raised by one when an operator hands the log to another group, so that what the one before may still
//! write counts for nothing.

use bytes::Bytes;

use crate::wire::payload::RecordHeaders;

/// Header of a log record: generation and group id, `3 resaga`.
pub const GROUP: &str = "resaga-group";
/// Header of the record with which an operator hands the log over: who asked for it and why, JSON.
pub const GROUP_WHY: &str = "resaga-group-why";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOwner {
    pub group: String,
    /// From 1.
    pub generation: u64,
}

impl LogOwner {
    /// As the header has it.
    pub fn header(&self) -> (String, Option<Bytes>) {
        (GROUP.to_owned(), Some(Bytes::from(format!("{} {}", self.generation, self.group))))
    }

    /// `None`: no such header, or none that is understood.
    pub fn of(headers: &RecordHeaders) -> Option<Self> {
        let (_, value) = headers.iter().rfind(|(name, _)| name == GROUP)?;
        let (generation, group) = std::str::from_utf8(value.as_deref()?).ok()?.split_once(' ')?;
        Some(Self { group: group.to_owned(), generation: generation.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_read_as_it_was_written() {
        for group in ["resaga", "a group with spaces", ""] {
            let owner = LogOwner { group: group.to_owned(), generation: 3 };
            assert_eq!(LogOwner::of(&[owner.header()]), Some(owner));
        }
        for text in ["", "3", "x resaga", "-1 resaga"] {
            assert_eq!(LogOwner::of(&[(GROUP.to_owned(), Some(Bytes::from(text)))]), None, "{text}");
        }
    }
}
