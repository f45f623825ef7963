//! Numbers of expressions: what is only passed on keeps its text, and whole numbers are exact to 38 digits.
//! All else is IEEE 754 of 64 bits, as JSON's numbers are nearly everywhere.

use std::cmp::Ordering;
use std::fmt;
use std::rc::Rc;

use crate::wire::json::read_value;

#[derive(Debug, Clone)]
pub enum Number {
    Whole(i128),
    Float(f64),
    /// As it came: with a fraction or an exponent, `-0`, or too long.
    Text(Rc<str>),
}

/// Where a 64-bit float no longer fits 128 bits.
const TWO_TO_127: f64 = 1.701_411_834_604_692_3e38;
/// Whole floats below are written without an exponent.
const MAX_PLAIN: f64 = 1e17;

impl Number {
    /// `text`: a number of JSON.
    pub fn of_json(text: &str) -> Self {
        let whole = if text == "-0" { None } else { text.parse().ok() };
        whole.map_or_else(|| Self::Text(text.into()), Self::Whole)
    }

    /// A number as the language has it, such as `.5`.
    pub fn of_literal(text: &str) -> Option<Self> {
        match read_value(text.as_bytes(), 1) {
            Ok(_) => Some(Self::of_json(text)),
            Err(_) => text.parse().ok().map(Self::Float),
        }
    }

    pub fn to_f64(&self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "what does not fit is rounded, as everywhere in JSON")]
            Self::Whole(whole) => *whole as f64,
            Self::Float(float) => *float,
            Self::Text(text) => text.parse().unwrap_or(f64::NAN),
        }
    }

    /// Rounded down, for an index; `None`: not a number, or too large.
    pub fn to_index(&self) -> Option<i128> {
        match self {
            Self::Whole(whole) => Some(*whole),
            other => Some(other.to_f64().floor()).filter(|floor| floor.abs() < TWO_TO_127).map(whole_of),
        }
    }

    /// After floor, ceil or round.
    pub fn rounded(&self, round: fn(f64) -> f64) -> Self {
        match self {
            Self::Whole(whole) => Self::Whole(*whole),
            other => Self::of_f64(round(other.to_f64())),
        }
    }

    /// Whole, if it is.
    pub fn of_f64(float: f64) -> Self {
        if float.fract() == 0.0 && float.abs() < MAX_PLAIN { Self::Whole(whole_of(float)) } else { Self::Float(float) }
    }

    pub fn negated(self) -> Self {
        match self {
            Self::Whole(whole) => whole.checked_neg().map_or(Self::Float(-self.to_f64()), Self::Whole),
            Self::Float(float) => Self::Float(-float),
            Self::Text(text) => Self::Text(text.strip_prefix('-').map_or_else(|| format!("-{text}").into(), Into::into)),
        }
    }

    /// Exact for whole numbers, if the result fits.
    pub fn calculated(&self, other: &Self, whole: fn(i128, i128) -> Option<i128>, float: fn(f64, f64) -> f64) -> Self {
        let exact = match (self, other) {
            (Self::Whole(left), Self::Whole(right)) => whole(*left, *right),
            _ => None,
        };
        exact.map_or_else(|| Self::Float(float(self.to_f64(), other.to_f64())), Self::Whole)
    }

    pub fn is_zero(&self) -> bool {
        self.to_f64() == 0.0
    }

    /// JSON has neither infinity nor what is not a number.
    pub fn is_json(&self) -> bool {
        !matches!(self, Self::Float(float) if !float.is_finite())
    }

    /// Bytes of its text, or more.
    pub fn bytes(&self) -> usize {
        if let Self::Text(text) = self { text.len() } else { 24 }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the callers have rounded it and seen that it fits")]
fn whole_of(float: f64) -> i128 {
    float as i128
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(whole) => whole.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::Float(float) if float.fract() == 0.0 && float.abs() < MAX_PLAIN => write!(f, "{float:.0}"),
            Self::Float(float) => match serde_json::Number::from_f64(*float) {
                Some(number) => number.fmt(f),
                None => f.write_str("null"),
            },
        }
    }
}

impl Ord for Number {
    /// By value, and exact, so that it is an order. What is not a number comes before all.
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Whole(left), Self::Whole(right)) => left.cmp(right),
            (Self::Whole(left), right) => compare(*left, right.to_f64()),
            (left, Self::Whole(right)) => compare(*right, left.to_f64()).reverse(),
            (left, right) => match (left.to_f64(), right.to_f64()) {
                (left, right) if left.is_nan() || right.is_nan() => right.is_nan().cmp(&left.is_nan()),
                (left, right) => left.partial_cmp(&right).unwrap_or(Ordering::Equal),
            },
        }
    }
}

fn compare(whole: i128, float: f64) -> Ordering {
    if float.is_nan() || float < -TWO_TO_127 {
        Ordering::Greater
    } else if float >= TWO_TO_127 {
        Ordering::Less
    } else {
        let below = float.floor();
        whole.cmp(&whole_of(below)).then(if float > below { Ordering::Less } else { Ordering::Equal })
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Number {}
