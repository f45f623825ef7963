//! Values as they stand in Redis, and what they mean: marks, members, scores.

use bytes::Bytes;
use redis::{FromRedisValue, Value};

use super::keys::parse_mark_field;
use crate::error::{Error, Result};
use crate::hot::mark::Mark;
use crate::hot::store::Member;
use crate::saga::position::{ChainId, Offset};
use crate::saga::time::Micros;

/// An answer that can only be there if someone else writes under our keys.
pub(super) fn unexpected(what: &str) -> Error {
    Error::corrupt(format!(
        "redis holds {what} in another layout than this version writes: another program or version writes under this prefix; give \
         it a prefix of its own (hot.url ...?prefix=)"
    ))
}

/// `from:to:complete_through:settled`, decimal.
pub(super) fn mark_value(mark: &Mark) -> String {
    format!("{}:{}:{}:{}", mark.from, mark.to, mark.complete_through.0, mark.settled)
}

pub(super) fn parse_mark(value: &str) -> Result<Mark> {
    let parse = || {
        let mut parts = value.split(':').map(|part| part.parse::<i64>().ok());
        let mut next = || parts.next().flatten();
        let (from, to, complete_through, settled) = (Offset(next()?), Offset(next()?), Micros(next()?), Offset(next()?));
        let mark = Mark { from, to, complete_through, settled };
        parts.next().is_none().then_some(mark)
    };
    parse().ok_or_else(|| unexpected("a mark"))
}

pub(super) fn parse_marks(answer: Option<Value>) -> Result<Vec<(ChainId, Mark)>> {
    let fields: Vec<(String, String)> = parse(answer.ok_or_else(|| unexpected("answers"))?)?;
    let mark = |(field, value): (String, String)| {
        Ok((parse_mark_field(&field).ok_or_else(|| unexpected("a mark"))?, parse_mark(&value)?))
    };
    let mut marks = fields.into_iter().map(mark).collect::<Result<Vec<_>>>()?;
    marks.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(marks)
}

/// Of these chains, in their order; those that have none are left out.
pub(super) fn parse_marks_of(chains: &[ChainId], answer: Option<Value>) -> Result<Vec<(ChainId, Mark)>> {
    let values: Vec<Option<String>> = parse(answer.ok_or_else(|| unexpected("answers"))?)?;
    if values.len() != chains.len() {
        return Err(unexpected("answers"));
    }
    let there = chains.iter().zip(values).filter_map(|(chain, value)| Some((chain, value?)));
    there.map(|(chain, value)| Ok((chain.clone(), parse_mark(&value)?))).collect()
}

pub(super) fn parse<T: FromRedisValue>(answer: Value) -> Result<T> {
    T::from_redis_value(answer).map_err(|_| unexpected("a value"))
}

pub(super) fn parse_members(answer: Value) -> Result<Vec<Member>> {
    let members: Vec<(Bytes, f64)> = parse(answer)?;
    let member = |(bytes, score): (Bytes, f64)| Member { effective_time: micros(score), bytes };
    Ok(members.into_iter().map(member).collect())
}

/// Exact within +-2^53 us; beyond, the nearest double (and i64), as Redis itself compares.
pub(super) fn micros(score: f64) -> Micros {
    Micros(score as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_and_anything_else_is_corrupt() {
        let mark = Mark { from: Offset(3), to: Offset(40), complete_through: Micros(-5), settled: Offset(7) };
        assert_eq!(mark_value(&mark), "3:40:-5:7");
        assert_eq!(parse_mark("3:40:-5:7"), Ok(mark));
        for value in ["", "3:40:5", "3:40:5:6:7", "a:b:c:d", "3: 40:5:6"] {
            assert!(matches!(parse_mark(value), Err(Error::Corrupt(_))), "{value}");
        }
    }
}
