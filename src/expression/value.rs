//! JSON values as expressions see them: a tree whose parts are shared, and which knows its size and depth, so that neither can
//! grow without end ([`budget`]). Objects keep their order, numbers their text.

use std::cmp::Ordering;
use std::fmt;
use std::rc::Rc;

use indexmap::IndexMap;

use super::budget;
use super::number::Number;

#[expect(clippy::rc_buffer, reason = "`+` appends in place")]
pub enum Value {
    Null,
    Bool(bool),
    Number(Number),
    String(Rc<String>),
    Array(Rc<Array>),
    Object(Rc<Object>),
}

/// Members by name, in the order in which they came.
pub type Map = IndexMap<Rc<str>, Value, foldhash::fast::RandomState>;

#[derive(Clone, Default)]
pub struct Array {
    pub items: Vec<Value>,
    pub size: Size,
}

#[derive(Clone, Default)]
pub struct Object {
    pub members: Map,
    pub size: Size,
}

/// Of an array or object.
#[derive(Debug, Clone, Copy, Default)]
pub struct Size {
    /// Of its parts as text, some more rather than less.
    bytes: usize,
    /// Levels of its parts, some more rather than less.
    depth: usize,
}

impl Size {
    /// A part is added; what it would be too large with is never made.
    pub fn add(&mut self, name: usize, part: &Value) {
        self.bytes = self.bytes.saturating_add(name + part.bytes() + 4);
        self.depth = self.depth.max(part.depth());
        budget::fits(self.bytes, self.depth + 1);
    }

    /// A part is taken out.
    pub fn take(&mut self, name: usize, part: &Value) {
        self.bytes = self.bytes.saturating_sub(name + part.bytes() + 4);
    }
}

impl Value {
    pub fn string(text: impl Into<String>) -> Self {
        let text = text.into();
        budget::copy(text.len());
        budget::fits(text.len(), 0);
        Self::String(Rc::new(text))
    }

    pub fn array(items: impl IntoIterator<Item = Self>) -> Self {
        let mut array = Array::default();
        for item in items {
            budget::copy(size_of::<Self>());
            array.size.add(0, &item);
            array.items.push(item);
        }
        Self::Array(Rc::new(array))
    }

    pub fn object(members: impl IntoIterator<Item = (Rc<str>, Self)>) -> Self {
        let mut object = Object::default();
        for (name, value) in members {
            object.insert(name, value);
        }
        Self::Object(Rc::new(object))
    }

    pub fn whole(number: impl TryInto<i128>) -> Self {
        number.try_into().map_or(Self::Null, |whole| Self::Number(Number::Whole(whole)))
    }

    /// Of its text, some more rather than less.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 5,
            Self::Number(number) => number.bytes(),
            Self::String(text) => text.len() + 2,
            Self::Array(array) => array.size.bytes + 2,
            Self::Object(object) => object.size.bytes + 2,
        }
    }

    /// 0: neither an array nor an object.
    pub fn depth(&self) -> usize {
        match self {
            Self::Array(array) => array.size.depth + 1,
            Self::Object(object) => object.size.depth + 1,
            _ => 0,
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }
}

impl Object {
    pub fn insert(&mut self, name: Rc<str>, value: Value) {
        budget::copy(name.len() + 2 * size_of::<Value>());
        self.size.add(name.len(), &value);
        let length = name.len();
        if let Some(before) = self.members.insert(name, value) {
            self.size.take(length, &before);
        }
    }

    /// The others keep their order.
    pub fn remove(&mut self, name: &str) {
        budget::read(self.members.len());
        if let Some(value) = self.members.shift_remove(name) {
            self.size.take(name.len(), &value);
        }
    }
}

/// To change it; what others hold, too, is copied first.
pub fn unshared<T: Clone>(shared: &mut Rc<T>, bytes: usize) -> &mut T {
    if Rc::strong_count(shared) > 1 {
        budget::copy(bytes);
    }
    Rc::make_mut(shared)
}

impl Clone for Value {
    /// Cheap. Nothing is evaluated without it, so it counts.
    fn clone(&self) -> Self {
        budget::step();
        match self {
            Self::Null => Self::Null,
            Self::Bool(bool) => Self::Bool(*bool),
            Self::Number(number) => Self::Number(number.clone()),
            Self::String(text) => Self::String(text.clone()),
            Self::Array(array) => Self::Array(array.clone()),
            Self::Object(object) => Self::Object(object.clone()),
        }
    }
}

impl fmt::Display for Value {
    /// Its kind: in messages, whoever reads them, there are no values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

impl Ord for Value {
    /// null, false, true, numbers, strings, arrays, objects; as jq's manual has it under `sort`.
    fn cmp(&self, other: &Self) -> Ordering {
        budget::step();
        let rank = |value: &Self| match value {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Number(_) => 2,
            Self::String(_) => 3,
            Self::Array(_) => 4,
            Self::Object(_) => 5,
        };
        match (self, other) {
            (Self::Bool(left), Self::Bool(right)) => left.cmp(right),
            (Self::Number(left), Self::Number(right)) => left.cmp(right),
            (Self::String(left), Self::String(right)) => {
                budget::read(left.len().min(right.len()));
                left.cmp(right)
            }
            (Self::Array(left), Self::Array(right)) => left.items.cmp(&right.items),
            (Self::Object(left), Self::Object(right)) => {
                let (left, right) = (sorted(left), sorted(right));
                let names = left.iter().map(|(name, _)| name).cmp(right.iter().map(|(name, _)| name));
                names.then_with(|| left.iter().map(|(_, value)| value).cmp(right.iter().map(|(_, value)| value)))
            }
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

fn sorted(object: &Object) -> Vec<(&Rc<str>, &Value)> {
    budget::read(object.size.bytes);
    let mut members: Vec<_> = object.members.iter().collect();
    members.sort_unstable_by_key(|(name, _)| *name);
    members
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Value {}
