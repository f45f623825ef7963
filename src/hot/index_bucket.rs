//! How facts are bucketed: one index bucket holds the facts of one index, one saga name (and step) and one minute, and is dropped
//! whole. Labels and facts as bytes; the same for every store. Pure; knows no store.

use super::facts::{ActivityFact, FailureFact, IndexQuery};
use crate::error::{Error, Result};
use crate::saga::position::{EntrySequence, SagaId};
use crate::saga::time::Micros;

pub const MINUTE: i64 = 60_000_000;
pub const MINUTES_A_DAY: i64 = 1_440;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Index {
    Failures,
    Compensations,
    Activity,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IndexBucket {
    /// Since the Unix epoch. First, so that index buckets sort by time.
    pub minute: i64,
    pub index: Index,
    pub saga_name: String,
    /// Empty for activity and for a failure without step.
    pub step: String,
}

impl IndexBucket {
    pub fn of_failure(fact: &FailureFact) -> Self {
        Self {
            minute: fact.at.0.div_euclid(MINUTE),
            index: if fact.compensation { Index::Compensations } else { Index::Failures },
            saga_name: fact.saga_name.clone(),
            step: fact.step.clone(),
        }
    }

    pub fn of_activity(fact: &ActivityFact) -> Self {
        Self { minute: fact.minute, index: Index::Activity, saga_name: fact.saga_name.clone(), step: String::new() }
    }

    pub fn day(&self) -> i64 {
        self.minute.div_euclid(MINUTES_A_DAY)
    }

    /// `f:<minute>:<bytes of the saga name>:<saga name>:<step>`; `c:` for compensations, `a:` for activity. Names can
    /// hold any characters, so the first says how long it is.
    pub fn label(&self) -> String {
        let index = match self.index {
            Index::Failures => 'f',
            Index::Compensations => 'c',
            Index::Activity => 'a',
        };
        format!("{index}:{}:{}:{}:{}", self.minute, self.saga_name.len(), self.saga_name, self.step)
    }

    pub fn parse(label: &str) -> Option<Self> {
        let mut parts = label.splitn(4, ':');
        let index = match parts.next()? {
            "f" => Index::Failures,
            "c" => Index::Compensations,
            "a" => Index::Activity,
            _ => return None,
        };
        let minute = parts.next()?.parse().ok()?;
        let len: usize = parts.next()?.parse().ok()?;
        let (saga_name, step) = parts.next()?.split_at_checked(len)?;
        Some(Self { minute, index, saga_name: saga_name.into(), step: step.strip_prefix(':')?.into() })
    }

    /// Can this index bucket hold facts that the query asks for?
    pub fn fits(&self, index: Index, query: &IndexQuery) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        self.index == index
            && minutes(query).is_some_and(|(first, last)| (first..=last).contains(&self.minute))
            && (self.saga_name.is_empty()
                || same(&query.saga_name, &self.saga_name) && (index == Index::Activity || same(&query.step, &self.step)))
    }
}

/// First and last minute of the window; `None`: it is empty.
pub fn minutes(query: &IndexQuery) -> Option<(i64, i64)> {
    (query.since < query.until).then(|| (query.since.0.div_euclid(MINUTE), (query.until.0 - 1).div_euclid(MINUTE)))
}

/// The index that a query for failures reads.
pub fn failure_index(query: &IndexQuery) -> Index {
    if query.compensation { Index::Compensations } else { Index::Failures }
}

/// Start of a minute.
pub fn minute_start(minute: i64) -> Micros {
    Micros(minute.saturating_mul(MINUTE))
}

/// Newest first; the saga decides between failures of one time and sequence, so that pages agree.
pub fn sort_failures(facts: &mut [FailureFact]) {
    facts.sort_by(|a, b| (b.at, b.sequence, &b.saga).cmp(&(a.at, a.sequence, &a.saga)));
}

/// Newest minute first, then by saga.
pub fn sort_activity(facts: &mut [ActivityFact]) {
    facts.sort_by(|a, b| b.minute.cmp(&a.minute).then_with(|| a.saga.cmp(&b.saga)));
}

const HAS_CODE: u8 = 1;
const HAS_TYPE: u8 = 2;

/// A failure on its index bucket: entry sequence (8 bytes, big-endian), flags (1: error code, 2: error type follow), then saga
/// id, error code, error type as present, each with its length before it (4 bytes, big-endian).
pub fn encode_failure(fact: &FailureFact) -> Vec<u8> {
    let texts = [Some(fact.saga.as_str()), fact.error_code.as_deref(), fact.error_type.as_deref()];
    let mut bytes = Vec::with_capacity(9 + texts.iter().flatten().map(|text| text.len() + 4).sum::<usize>());
    bytes.extend_from_slice(&fact.sequence.0.to_be_bytes());
    let flag = |text: &Option<String>, flag| if text.is_some() { flag } else { 0 };
    bytes.push(flag(&fact.error_code, HAS_CODE) | flag(&fact.error_type, HAS_TYPE));
    for text in texts.into_iter().flatten() {
        bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// Back from a index bucket and the score that the bytes lie under.
pub fn decode_failure(index_bucket: &IndexBucket, at: Micros, bytes: &[u8]) -> Result<FailureFact> {
    let parse = || {
        let (sequence, rest) = bytes.split_first_chunk::<8>()?;
        let (&flags, mut rest) = rest.split_first()?;
        let mut text = || {
            let (len, after) = rest.split_first_chunk::<4>()?;
            let (text, after) = after.split_at_checked(u32::from_be_bytes(*len) as usize)?;
            rest = after;
            std::str::from_utf8(text).ok().map(str::to_owned)
        };
        let saga = text()?;
        let error_code = if flags & HAS_CODE != 0 { Some(text()?) } else { None };
        let error_type = if flags & HAS_TYPE != 0 { Some(text()?) } else { None };
        (rest.is_empty() && flags <= HAS_CODE | HAS_TYPE).then(|| FailureFact {
            saga: SagaId::new(saga),
            saga_name: index_bucket.saga_name.clone(),
            step: index_bucket.step.clone(),
            compensation: index_bucket.index == Index::Compensations,
            at,
            sequence: EntrySequence(u64::from_be_bytes(*sequence)),
            error_code,
            error_type,
        })
    };
    parse().ok_or_else(|| Error::corrupt("read failure index: a fact is not in the layout of this version"))
}

/// Activity on its index bucket: the saga id.
pub fn decode_activity(index_bucket: &IndexBucket, bytes: &[u8]) -> Result<ActivityFact> {
    let saga = std::str::from_utf8(bytes).map_err(|_| Error::corrupt("read activity index: a fact is not UTF-8"))?;
    Ok(ActivityFact { saga: SagaId::from(saga), saga_name: index_bucket.saga_name.clone(), minute: index_bucket.minute })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_failure() -> impl Strategy<Value = FailureFact> {
        (any::<(String, String, String)>(), any::<bool>(), any::<i64>(), any::<u64>(), any::<(Option<String>, Option<String>)>())
            .prop_map(|((saga, saga_name, step), compensation, at, sequence, (error_code, error_type))| FailureFact {
                saga: SagaId::new(saga),
                saga_name,
                step,
                compensation,
                at: Micros(at),
                sequence: EntrySequence(sequence),
                error_code,
                error_type,
            })
    }

    proptest! {
        #[test]
        fn a_failure_reads_back_from_its_index_bucket(fact in any_failure()) {
            let index_bucket = IndexBucket::parse(&IndexBucket::of_failure(&fact).label());
            prop_assert_eq!(index_bucket.as_ref(), Some(&IndexBucket::of_failure(&fact)));
            let bytes = encode_failure(&fact);
            prop_assert_eq!(decode_failure(&index_bucket.unwrap(), fact.at, &bytes), Ok(fact));
        }

        #[test]
        fn bytes_that_are_no_failure_are_an_error_not_a_panic(bytes: Vec<u8>) {
            let index_bucket = IndexBucket { minute: 0, index: Index::Failures, saga_name: String::new(), step: String::new() };
            if let Ok(fact) = decode_failure(&index_bucket, Micros(0), &bytes) {
                prop_assert_eq!(encode_failure(&fact), bytes);
            }
        }
    }

    #[test]
    fn labels_are_what_the_data_formats_page_says() {
        let index_bucket =
            |index, name: &str, step: &str| IndexBucket { minute: 29_467_320, index, saga_name: name.into(), step: step.into() };
        assert_eq!(index_bucket(Index::Failures, "or:der", "charge").label(), "f:29467320:6:or:der:charge");
        assert_eq!(index_bucket(Index::Compensations, "order", "").label(), "c:29467320:5:order:");
        assert_eq!(index_bucket(Index::Activity, "Größe", "").label(), "a:29467320:7:Größe:");
        for label in ["", "f", "x:1:1:a:", "f:1:2:a:", "f:1:1:ab", "f:x:1:a:", "f:1:2:é", "f:1:1:é:"] {
            assert_eq!(IndexBucket::parse(label), None, "{label}");
        }
    }

    #[test]
    fn a_window_ends_before_until() {
        let query = |since, until| IndexQuery {
            since: Micros(since),
            until: Micros(until),
            saga_name: None,
            step: None,
            compensation: false,
        };
        assert_eq!(minutes(&query(0, MINUTE)), Some((0, 0)));
        assert_eq!(minutes(&query(-1, MINUTE + 1)), Some((-1, 1)));
        assert_eq!(minutes(&query(5, 5)), None);
        assert_eq!(minutes(&query(i64::MIN, i64::MAX)), Some((i64::MIN.div_euclid(MINUTE), i64::MAX / MINUTE)));
    }
}
