//! `+ - * / %` and the sign.

use std::collections::BTreeSet;
use std::ops::{Add, Div, Mul, Neg, Rem, Sub};
use std::rc::Rc;

use jaq_core::ops::Math;

use super::budget;
use super::value::{Value, unshared};

pub type Error = jaq_core::Error<Value>;
pub type Outcome = Result<Value, Error>;

impl Add for Value {
    type Output = Outcome;
    fn add(self, other: Self) -> Outcome {
        budget::step();
        let bytes = self.bytes();
        match (self, other) {
            (Self::Null, value) | (value, Self::Null) => Ok(value),
            (Self::Number(left), Self::Number(right)) => {
                Ok(Self::Number(left.calculated(&right, i128::checked_add, |left, right| left + right)))
            }
            (Self::String(mut left), Self::String(right)) => {
                budget::copy(right.len());
                budget::fits(left.len() + right.len(), 0);
                unshared(&mut left, bytes).push_str(&right);
                Ok(Self::String(left))
            }
            (Self::Array(mut left), Self::Array(right)) => {
                let array = unshared(&mut left, bytes);
                for item in &right.items {
                    budget::copy(size_of::<Self>());
                    array.size.add(0, item);
                    array.items.push(item.clone());
                }
                Ok(Self::Array(left))
            }
            (Self::Object(mut left), Self::Object(right)) => {
                let object = unshared(&mut left, bytes);
                for (name, value) in &right.members {
                    object.insert(name.clone(), value.clone());
                }
                Ok(Self::Object(left))
            }
            (left, right) => Err(Error::math(left, Math::Add, right)),
        }
    }
}

impl Sub for Value {
    type Output = Outcome;
    fn sub(self, other: Self) -> Outcome {
        budget::step();
        match (self, other) {
            (Self::Number(left), Self::Number(right)) => {
                Ok(Self::Number(left.calculated(&right, i128::checked_sub, |left, right| left - right)))
            }
            (Self::Array(left), Self::Array(right)) => {
                let without: BTreeSet<&Self> = right.items.iter().collect();
                Ok(Self::array(left.items.iter().filter(|item| !without.contains(item)).cloned()))
            }
            (left, right) => Err(Error::math(left, Math::Sub, right)),
        }
    }
}

impl Mul for Value {
    type Output = Outcome;
    fn mul(self, other: Self) -> Outcome {
        budget::step();
        match (self, other) {
            (Self::Number(left), Self::Number(right)) => {
                Ok(Self::Number(left.calculated(&right, i128::checked_mul, |left, right| left * right)))
            }
            (Self::String(text), Self::Number(times)) | (Self::Number(times), Self::String(text)) => {
                let times = times.to_index().and_then(|times| usize::try_from(times).ok()).filter(|times| *times > 0);
                let Some(times) = times else { return Ok(Self::Null) };
                let bytes = text.len().saturating_mul(times);
                budget::fits(bytes, 0);
                budget::copy(bytes);
                Ok(Self::string(text.repeat(times)))
            }
            (left @ Self::Object(_), right @ Self::Object(_)) => Ok(merged(left, &right)),
            (left, right) => Err(Error::math(left, Math::Mul, right)),
        }
    }
}

/// Members of the right replace those of the left, objects in objects are merged.
fn merged(left: Value, right: &Value) -> Value {
    let bytes = left.bytes();
    let (Value::Object(mut object), Value::Object(other)) = (left, right) else { return right.clone() };
    let members = unshared(&mut object, bytes);
    for (name, value) in &other.members {
        let value = match (members.members.get(name), value) {
            (Some(before @ Value::Object(_)), Value::Object(_)) => merged(before.clone(), value),
            _ => value.clone(),
        };
        members.insert(name.clone(), value);
    }
    Value::Object(object)
}

fn by_zero(of: &str) -> Error {
    Error::str(format_args!("cannot {of} by zero"))
}

impl Div for Value {
    type Output = Outcome;
    fn div(self, other: Self) -> Outcome {
        budget::step();
        match (self, other) {
            (Self::Number(_), Self::Number(right)) if right.is_zero() => Err(by_zero("divide")),
            (Self::Number(left), Self::Number(right)) => {
                let whole = |left: i128, right: i128| left.checked_rem(right).filter(|rest| *rest == 0).map(|_| left / right);
                Ok(Self::Number(left.calculated(&right, whole, |left, right| left / right)))
            }
            (Self::String(text), Self::String(by)) => {
                budget::copy(text.len());
                Ok(match (text.is_empty(), by.is_empty()) {
                    (true, _) => Self::array([]),
                    (false, true) => Self::array(text.chars().map(Self::string)),
                    (false, false) => Self::array(text.split(by.as_str()).map(Self::string)),
                })
            }
            (left, right) => Err(Error::math(left, Math::Div, right)),
        }
    }
}

impl Rem for Value {
    type Output = Outcome;
    fn rem(self, other: Self) -> Outcome {
        budget::step();
        match (self, other) {
            (Self::Number(_), Self::Number(right)) if right.is_zero() => Err(by_zero("take the rest of a division")),
            (Self::Number(left), Self::Number(right)) => {
                Ok(Self::Number(left.calculated(&right, i128::checked_rem, |left, right| left % right)))
            }
            (left, right) => Err(Error::math(left, Math::Rem, right)),
        }
    }
}

impl Neg for Value {
    type Output = Outcome;
    fn neg(self) -> Outcome {
        budget::step();
        match self {
            Self::Number(number) => Ok(Self::Number(number.negated())),
            other => Err(Error::typ(other, "number")),
        }
    }
}

impl From<bool> for Value {
    fn from(bool: bool) -> Self {
        Self::Bool(bool)
    }
}
impl From<isize> for Value {
    fn from(whole: isize) -> Self {
        Self::whole(whole)
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::string(text)
    }
}
impl From<jaq_core::val::Range<Self>> for Value {
    fn from(range: jaq_core::val::Range<Self>) -> Self {
        let bounds = [("start", range.start), ("end", range.end)];
        Self::object(bounds.into_iter().filter_map(|(name, bound)| Some((Rc::from(name), bound?))))
    }
}
impl FromIterator<Self> for Value {
    fn from_iter<I: IntoIterator<Item = Self>>(items: I) -> Self {
        Self::array(items)
    }
}
