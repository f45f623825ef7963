//! `.a`, `.[0]`, `.[1:2]`, `.[]`: what stands there, and what stands there instead.
//!
//! As in jq, what is set below null makes an object or array. Removed members leave the order of the others.

use std::rc::Rc;

use jaq_core::ValT;
use jaq_core::box_iter::{BoxIter, box_once};
use jaq_core::path::Opt;
use jaq_core::val::{Range, ValX};

use super::budget;
use super::number::Number;
use super::operators::{Error, Outcome};
use super::text;
use super::value::{Array, Object, Value, unshared};

impl ValT for Value {
    fn from_num(literal: &str) -> Outcome {
        let number = Number::of_literal(literal);
        number.map(Self::Number).ok_or_else(|| Error::str("cannot read a number of the expression"))
    }

    fn from_map<I: IntoIterator<Item = (Self, Self)>>(members: I) -> Outcome {
        let mut object = Object::default();
        for (name, value) in members {
            object.insert(name_of(&name)?, value);
        }
        Ok(Self::Object(Rc::new(object)))
    }

    fn key_values(self) -> BoxIter<'static, Result<(Self, Self), Error>> {
        match self {
            Self::Array(array) => {
                Box::new((0..array.items.len()).map(move |at| Ok((Self::whole(at as u64), array.items[at].clone()))))
            }
            Self::Object(object) => Box::new((0..object.members.len()).filter_map(move |at| {
                let (name, value) = object.members.get_index(at)?;
                Some(Ok((Self::string(&**name), value.clone())))
            })),
            other => box_once(Err(not_iterable(other))),
        }
    }

    fn values(self) -> Box<dyn Iterator<Item = Outcome>> {
        match self {
            Self::Array(array) => Box::new((0..array.items.len()).map(move |at| Ok(array.items[at].clone()))),
            Self::Object(object) => {
                Box::new((0..object.members.len()).filter_map(move |at| Some(Ok(object.members.get_index(at)?.1.clone()))))
            }
            other => box_once(Err(not_iterable(other))),
        }
    }

    fn index(self, index: &Self) -> Outcome {
        match (self, index) {
            (value, Self::Object(bounds)) if !matches!(value, Self::Object(_)) => value.range(bounds_of(bounds)),
            (Self::Null, Self::String(_) | Self::Number(_) | Self::Null) => Ok(Self::Null),
            (Self::Object(object), Self::String(name)) => Ok(object.members.get(name.as_str()).cloned().unwrap_or(Self::Null)),
            (Self::Array(array), Self::Number(at)) => {
                let at = at.to_index().and_then(|at| place(at, array.items.len()));
                Ok(at.and_then(|at| array.items.get(at).cloned()).unwrap_or(Self::Null))
            }
            (value, index) => Err(Error::index(value, index.clone())),
        }
    }

    fn range(self, range: Range<&Self>) -> Outcome {
        match self {
            Self::Null => Ok(Self::Null),
            Self::Array(array) => {
                let (from, until) = bounds(&range, array.items.len())?;
                Ok(Self::array(array.items[from..until].iter().cloned()))
            }
            Self::String(text) => {
                budget::read(text.len());
                let (from, until) = bounds(&range, text.chars().count())?;
                Ok(Self::string(text.chars().skip(from).take(until - from).collect::<String>()))
            }
            other => Err(Error::typ(other, "array or string")),
        }
    }

    fn map_values<'a, I: Iterator<Item = ValX<'a, Self>>>(self, opt: Opt, f: impl Fn(Self) -> I) -> ValX<'a, Self> {
        match self {
            Self::Array(array) => array.items.iter().cloned().flat_map(f).collect(),
            Self::Object(object) => {
                let mut changed = Object::default();
                for (name, value) in &object.members {
                    if let Some(value) = f(value.clone()).next() {
                        changed.insert(name.clone(), value?);
                    }
                }
                Ok(Self::Object(Rc::new(changed)))
            }
            other => opt.fail(other, |other| not_iterable(other).into()),
        }
    }

    fn map_index<'a, I: Iterator<Item = ValX<'a, Self>>>(self, index: &Self, opt: Opt, f: impl Fn(Self) -> I) -> ValX<'a, Self> {
        let bytes = self.bytes();
        match (self, index) {
            (value, Self::Object(bounds)) if !matches!(value, Self::Object(_)) => value.map_range(bounds_of(bounds), opt, f),
            (Self::Null, Self::String(name)) => map_member(Rc::new(Object::default()), 0, name, f),
            (Self::Object(object), Self::String(name)) => map_member(object, bytes, name, f),
            (Self::Null, Self::Number(at)) => map_item(Rc::new(Array::default()), 0, at, opt, f),
            (Self::Array(array), Self::Number(at)) => map_item(array, bytes, at, opt, f),
            (value, index) => opt.fail(value, |value| Error::index(value, index.clone()).into()),
        }
    }

    fn map_range<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        range: Range<&Self>,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        let array = match self {
            Self::Array(array) => array,
            Self::Null => Rc::new(Array::default()),
            other => return opt.fail(other, |other| Error::typ(other, "array").into()),
        };
        let (from, until) = match bounds(&range, array.items.len()) {
            Ok(bounds) => bounds,
            Err(error) => return opt.fail(Self::Array(array), |_| error.into()),
        };
        let instead = match f(Self::array(array.items[from..until].iter().cloned())).next().transpose()? {
            None => Self::array([]),
            Some(instead) => instead,
        };
        let Self::Array(instead) = instead else { return Err(Error::typ(instead, "array").into()) };
        let items = array.items[..from].iter().chain(&instead.items).chain(&array.items[until..]);
        Ok(Self::array(items.cloned()))
    }

    fn as_bool(&self) -> bool {
        !matches!(self, Self::Null | Self::Bool(false))
    }

    fn into_string(self) -> Self {
        match self {
            text @ Self::String(_) => text,
            other => Self::string(text::write(&other)),
        }
    }
}

fn map_member<'a, I: Iterator<Item = ValX<'a, Value>>>(
    mut object: Rc<Object>,
    bytes: usize,
    name: &str,
    f: impl Fn(Value) -> I,
) -> ValX<'a, Value> {
    let before = object.members.get(name).cloned().unwrap_or(Value::Null);
    match f(before).next().transpose()? {
        Some(value) => unshared(&mut object, bytes).insert(name.into(), value),
        None if object.members.contains_key(name) => unshared(&mut object, bytes).remove(name),
        None => {}
    }
    Ok(Value::Object(object))
}

fn map_item<'a, I: Iterator<Item = ValX<'a, Value>>>(
    mut array: Rc<Array>,
    bytes: usize,
    at: &Number,
    opt: Opt,
    f: impl Fn(Value) -> I,
) -> ValX<'a, Value> {
    let Some(at) = at.to_index().and_then(|at| place(at, array.items.len())) else {
        return opt.fail(Value::Array(array), |_| Error::str("cannot set an element before the first").into());
    };
    let before = array.items.get(at).cloned().unwrap_or(Value::Null);
    match f(before).next().transpose()? {
        Some(value) => {
            let Array { items, size } = unshared(&mut array, bytes);
            while items.len() <= at {
                budget::copy(size_of::<Value>());
                size.add(0, &Value::Null);
                items.push(Value::Null);
            }
            size.add(0, &value);
            size.take(0, &std::mem::replace(&mut items[at], value));
        }
        None if at < array.items.len() => {
            let Array { items, size } = unshared(&mut array, bytes);
            budget::read((items.len() - at) * size_of::<Value>());
            size.take(0, &items.remove(at));
        }
        None => {}
    }
    Ok(Value::Array(array))
}

/// A negative one counts from the end; `None`: before the first.
fn place(at: i128, length: usize) -> Option<usize> {
    let length = i128::try_from(length).ok()?;
    usize::try_from(if at < 0 { length + at } else { at }).ok()
}

/// Where a slice begins and ends, within the length.
fn bounds(range: &Range<&Value>, length: usize) -> Result<(usize, usize), Error> {
    let bound = |value: Option<&Value>, otherwise: usize, round: fn(f64) -> f64| match value {
        None | Some(Value::Null) => Ok(otherwise),
        Some(Value::Number(number)) => {
            let at = number.rounded(round).to_index().unwrap_or_default().clamp(-(1 << 64), 1 << 64);
            Ok(place(at, length).unwrap_or(0).min(length))
        }
        Some(other) => Err(Error::typ(other.clone(), "number")),
    };
    let (from, until) = (bound(range.start, 0, f64::floor)?, bound(range.end, length, f64::ceil)?);
    Ok((from, until.max(from)))
}

/// A path has a slice as an object.
fn bounds_of(object: &Object) -> Range<&Value> {
    object.members.get("start")..object.members.get("end")
}

fn name_of(name: &Value) -> Result<Rc<str>, Error> {
    match name {
        Value::String(name) => Ok(name.as_str().into()),
        other => Err(Error::typ(other.clone(), "name of a member")),
    }
}

fn not_iterable(value: Value) -> Error {
    Error::typ(value, "array or object")
}
