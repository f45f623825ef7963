//! One value as text, and why a text is no JSON.

use std::borrow::Cow;

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
    /// The text to keep: of duplicate names the last wins.
    pub fn json(self) -> Json {
        let json = Json::from_valid(self.text);
        if self.duplicates { Json::from_value(&json.to_value()) } else { json }
    }
}

/// `quoted` with its quotes, `inner` without; both checked before.
pub(super) fn unescape<'a>(quoted: &'a str, inner: &'a str) -> Cow<'a, str> {
    if memchr::memchr(b'\\', inner.as_bytes()).is_some() {
        Cow::Owned(serde_json::from_str(quoted).unwrap_or_else(|_| inner.to_owned()))
    } else {
        Cow::Borrowed(inner)
    }
}
