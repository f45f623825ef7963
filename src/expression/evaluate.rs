//! Expression and texts in, an object out: a function of its arguments, but for the time that it may take.

use std::time::Duration;

use jaq_core::{Ctx, Vars};

use super::budget::{self, Stop};
use super::compile::{Data, Expression};
use super::operators::Error;
use super::text;
use super::value::Value;
use crate::saga::json::Json;

/// Levels of the result: an event holds a context one level down, and is read to 128.
const MAX_DEPTH: usize = 127;
/// Values on the way may be larger than the result.
const FACTOR_ON_THE_WAY: usize = 4;

/// What an expression sees.
#[derive(Debug, Clone)]
pub struct Input {
    /// `.`
    pub context: Json,
    /// `$saga`
    pub saga: Json,
    /// `$item`
    pub item: Json,
}

#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub time: Duration,
    /// Bytes of the result.
    pub max_bytes: usize,
}

/// Why there is no result; holds no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Wrong(#[from] super::compile::Wrong),
    #[error("the expression raised an error: {0}")]
    Raised(String),
    #[error("the expression gave nothing instead of one object")]
    Nothing,
    #[error("the expression gave more than one value instead of one object")]
    Several,
    #[error("the expression gave {0} instead of an object")]
    NoObject(&'static str),
    #[error("the expression gave a number that JSON does not have")]
    NoJson,
    #[error("the expression gave an object nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("the expression gave an object of more than {0} bytes")]
    TooLarge(usize),
    #[error("the expression took longer than [limits] max_expression, {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    #[error("the expression takes too much memory")]
    TooMuchMemory,
    #[error("the expression cannot be evaluated")]
    Failed,
}

/// Exactly one object.
pub fn evaluate(expression: &Expression, input: &Input, bounds: Bounds) -> Result<Json, Failure> {
    let given = input.context.len() + input.saga.len() + input.item.len();
    let on_the_way = bounds.max_bytes.max(given).saturating_mul(FACTOR_ON_THE_WAY);
    let done = budget::within(bounds.time, on_the_way, || only(expression, input));
    let value = done.map_err(|stop| match stop {
        Stop::Time => Failure::TimedOut(bounds.time),
        Stop::TooLarge | Stop::TooDeep | Stop::TooMuchCopied => Failure::TooMuchMemory,
        Stop::Panic => Failure::Failed,
    })??;
    if !matches!(value, Value::Object(_)) {
        return Err(Failure::NoObject(value.kind()));
    }
    if !text::is_json(&value) {
        return Err(Failure::NoJson);
    }
    if value.depth() > MAX_DEPTH {
        return Err(Failure::TooDeep);
    }
    let text = text::write(&value);
    if text.len() > bounds.max_bytes {
        return Err(Failure::TooLarge(bounds.max_bytes));
    }
    Ok(Json::from_valid(text))
}

fn only(expression: &Expression, input: &Input) -> Result<Value, Failure> {
    let read = |json: &Json| text::read(json.as_str()).ok_or(Failure::Failed);
    let (context, saga, item) = (read(&input.context)?, read(&input.saga)?, read(&input.item)?);
    let variables = Vars::new([saga, item]);
    let mut outputs = expression.filter.id.run((Ctx::<Data>::new(&expression.filter.lut, variables), context));
    let first = outputs.next().ok_or(Failure::Nothing)?;
    let first = first.map_err(|exception| exception.get_err().map_or(Failure::Failed, |error| raised(&error)))?;
    match outputs.next() {
        None => Ok(first),
        Some(Ok(_)) => Err(Failure::Several),
        Some(Err(exception)) => Err(exception.get_err().map_or(Failure::Failed, |error| raised(&error))),
    }
}

/// Values in it are shown as their kinds.
fn raised(error: &Error) -> Failure {
    Failure::Raised(error.to_string())
}
