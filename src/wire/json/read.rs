//! Whole texts, objects with their members, and what is inside of a value.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::raw::{OWN_MAX_DEPTH, Raw, Unreadable};
use super::scan::Scanner;

impl<'a> Raw<'a> {
    /// The members, if it is an object.
    pub fn object(self) -> Option<Object<'a>> {
        // It was read once, as part of something larger: only the depth could differ, and it is smaller here.
        if self.is_object() { read_object(self.text.as_bytes(), OWN_MAX_DEPTH).ok() } else { None }
    }
    /// The elements, if it is an array.
    pub fn array(self) -> Option<Vec<Self>> {
        let mut scanner = Scanner::new(self.text, OWN_MAX_DEPTH).ok()?;
        scanner.array().ok().filter(|_| scanner.end().is_ok())
    }
}

/// An object's members in the order received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object<'a> {
    members: Vec<(Cow<'a, str>, Raw<'a>)>,
    depth: usize,
}

impl<'a> Object<'a> {
    /// How deep it nests; the object itself counts as 1.
    pub fn depth(&self) -> usize {
        self.depth
    }
    /// The member of that name; the last of several. A null is absent.
    pub fn get(&self, name: &str) -> Option<Raw<'a>> {
        self.members.iter().rfind(|(member, _)| member == name).map(|(_, raw)| *raw).filter(|raw| !raw.is_null())
    }
    /// Members in order; of several with one name the value is the last one's, the place the first one's.
    pub fn members(&self) -> Vec<(&str, Raw<'a>)> {
        let mut out: Vec<(&str, Raw<'a>)> = Vec::with_capacity(self.members.len());
        let mut place: HashMap<&str, usize> = HashMap::with_capacity(self.members.len());
        for (name, raw) in &self.members {
            match place.entry(name.as_ref()) {
                Entry::Occupied(at) => out[*at.get()].1 = *raw,
                Entry::Vacant(at) => {
                    at.insert(out.len());
                    out.push((name, *raw));
                }
            }
        }
        out
    }
}

/// Reads a whole text that is one object.
pub fn read_object(bytes: &[u8], max_depth: usize) -> Result<Object<'_>, Unreadable> {
    let mut scanner = Scanner::new(utf8(bytes)?, max_depth)?;
    let (members, depth) = scanner.object()?;
    scanner.end()?;
    Ok(Object { members, depth })
}

/// Reads a whole text that is one value of any type.
pub fn read_value(bytes: &[u8], max_depth: usize) -> Result<Raw<'_>, Unreadable> {
    let mut scanner = Scanner::new(utf8(bytes)?, max_depth)?;
    let raw = scanner.value()?;
    scanner.end()?;
    Ok(raw)
}

fn utf8(bytes: &[u8]) -> Result<&str, Unreadable> {
    std::str::from_utf8(bytes).map_err(|e| Unreadable { at: e.valid_up_to(), why: "not UTF-8" })
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
