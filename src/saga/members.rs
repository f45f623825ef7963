//! The members of one JSON object: names and values, in order of first occurrence; of duplicate names the last wins.
//!
//! Takes a text apart one level deep: what a value is made of, its user decides.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

pub struct Members<'a, V> {
    /// `None`: removed.
    list: Vec<(Cow<'a, str>, Option<V>)>,
    /// Of more than [`LOOKED_THROUGH`] members, those that are there: where each stands.
    places: HashMap<Cow<'a, str>, usize>,
}

/// Up to this many members a linear search is faster than hashing.
const LOOKED_THROUGH: usize = 24;

impl<V> Default for Members<'_, V> {
    fn default() -> Self {
        Self { list: Vec::new(), places: HashMap::new() }
    }
}

impl<'a, V: From<&'a str>> Members<'a, V> {
    /// `None`: not an object.
    pub fn of(text: &'a str) -> Option<Self> {
        if !text.starts_with('{') {
            return None;
        }
        let mut members = Self::default();
        let mut reader = serde_json::Deserializer::from_str(text);
        reader.deserialize_map(Fill(&mut members)).expect("valid JSON object by construction");
        Some(members)
    }
}

impl<'a, V> Members<'a, V> {
    pub fn get(&self, key: &str) -> Option<&V> {
        self.list[self.find(key)?].1.as_ref()
    }

    fn find(&self, key: &str) -> Option<usize> {
        if self.list.len() <= LOOKED_THROUGH {
            return self.list.iter().position(|(known, value)| value.is_some() && known == key);
        }
        self.places.get(key).copied()
    }

    pub fn put(&mut self, key: Cow<'a, str>, value: V) {
        match self.find(&key) {
            Some(place) => self.list[place].1 = Some(value),
            None => self.add(key, value),
        }
    }

    /// The member, which is added with `value` if there is none.
    pub fn get_or_put(&mut self, key: Cow<'a, str>, value: impl FnOnce() -> V) -> &mut V {
        let place = self.find(&key).unwrap_or_else(|| {
            self.add(key, value());
            self.list.len() - 1
        });
        self.list[place].1.as_mut().expect("only members that are there are found")
    }

    fn add(&mut self, key: Cow<'a, str>, value: V) {
        let place = self.list.len();
        self.list.push((key, Some(value)));
        let all = self.list.len() == LOOKED_THROUGH + 1;
        let new = if all { 0 } else { place };
        if self.list.len() > LOOKED_THROUGH {
            let there = self.list.iter().enumerate().skip(new).filter(|(_, (_, value))| value.is_some());
            self.places.extend(there.map(|(place, (key, _))| (key.clone(), place)));
        }
    }

    pub fn remove(&mut self, key: &str) {
        // A member that comes again later goes to the end: it must not find its old place.
        if let Some(place) = self.find(key) {
            self.list[place].1 = None;
            self.places.remove(key);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Cow<'a, str>, &V)> {
        self.list.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)))
    }

    pub fn into_list(self) -> impl Iterator<Item = (Cow<'a, str>, V)> {
        self.list.into_iter().filter_map(|(key, value)| Some((key, value?)))
    }
}

struct Fill<'m, 'a, V>(&'m mut Members<'a, V>);

impl<'a, V: From<&'a str>> Visitor<'a> for Fill<'_, 'a, V> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Key<'a>>()? {
            let value: &'a RawValue = map.next_value()?;
            self.0.put(key.0, V::from(value.get()));
        }
        Ok(())
    }
}

#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
