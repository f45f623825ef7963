//! What is read: values and members as text.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::scan::Scanner;
use crate::saga::json::Json;

/// How deep values may nest in what others write; the outermost object counts as 1.
pub const MAX_DEPTH: usize = 128;
/// The same for resaga's own records, which put a context or a result that was just within the limit some levels
/// deeper.
pub const OWN_MAX_DEPTH: usize = MAX_DEPTH + 8;

/// Why bytes are not JSON that can be read; says where, never what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why} at byte {at}")]
pub struct Unreadable {
    pub at: usize,
    pub why: &'static str,
}

/// One value as text, without surrounding white space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a> {
    pub(super) text: &'a str,
    /// It is a string, and has escapes.
    pub(super) escaped: bool,
    /// An object in it has two members of one name.
    pub(super) duplicates: bool,
}

impl<'a> Raw<'a> {
    pub fn text(self) -> &'a str {
        self.text
    }
    pub fn is_null(self) -> bool {
        self.text == "null"
    }
    pub fn is_object(self) -> bool {
        self.text.starts_with('{')
    }
    pub fn is_array(self) -> bool {
        self.text.starts_with('[')
    }
    /// The string without its escapes; `None`: not a string.
    pub fn string(self) -> Option<Cow<'a, str>> {
        let inner = self.text.strip_prefix('"')?.strip_suffix('"')?;
        Some(if self.escaped { unescape(self.text, inner) } else { Cow::Borrowed(inner) })
    }
    /// `None`: not an integer of 64 bits; `2.0` and `2e0` are none.
    pub fn i64(self) -> Option<i64> {
        self.text.parse().ok()
    }
    /// As [`Raw::i64`], and not negative.
    pub fn u64(self) -> Option<u64> {
        if self.text == "-0" { Some(0) } else { self.text.parse().ok() }
    }
    pub fn bool(self) -> Option<bool> {
        match self.text {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }
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
    /// The text to keep: of duplicate names the last wins.
    pub fn json(self) -> Json {
        let json = Json::from_valid(self.text);
        if self.duplicates { Json::from_value(&json.to_value()) } else { json }
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

/// `quoted` with its quotes, `inner` without; both checked before.
pub(super) fn unescape<'a>(quoted: &'a str, inner: &'a str) -> Cow<'a, str> {
    if memchr::memchr(b'\\', inner.as_bytes()).is_some() {
        Cow::Owned(serde_json::from_str(quoted).unwrap_or_else(|_| inner.to_owned()))
    } else {
        Cow::Borrowed(inner)
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
