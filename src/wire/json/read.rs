//! One pass over raw bytes: UTF-8, grammar, depth, lone surrogates, duplicate names; gives the members of the
//! outermost object as text.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::saga::json::Json;

/// How deep values may nest in what others write; the outermost object counts as 1.
pub const MAX_DEPTH: usize = 128;
/// The same for resaga's own records, which put a context or a result that was just within the limit some levels
/// deeper.
pub const OWN_MAX_DEPTH: usize = MAX_DEPTH + 8;

/// As many members as most objects have: room for them is made at once.
const MEMBERS: usize = 16;

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
    text: &'a str,
    /// An object in it has two members of one name.
    duplicates: bool,
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
        Some(unescape(self.text, inner))
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
        let mut reader = Reader::new(self.text);
        reader.array().ok().filter(|_| reader.at == self.text.len())
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
    let mut reader = Reader::new(utf8(bytes)?);
    reader.max_depth = max_depth;
    reader.space();
    let object = reader.object()?;
    reader.end()?;
    Ok(object)
}

/// Reads a whole text that is one value of any type.
pub fn read_value(bytes: &[u8], max_depth: usize) -> Result<Raw<'_>, Unreadable> {
    let mut reader = Reader::new(utf8(bytes)?);
    reader.max_depth = max_depth;
    let raw = reader.value()?;
    reader.end()?;
    Ok(raw)
}

fn utf8(bytes: &[u8]) -> Result<&str, Unreadable> {
    std::str::from_utf8(bytes).map_err(|e| Unreadable { at: e.valid_up_to(), why: "not UTF-8" })
}

/// `quoted` with its quotes, `inner` without; both checked before.
fn unescape<'a>(quoted: &'a str, inner: &'a str) -> Cow<'a, str> {
    if memchr::memchr(b'\\', inner.as_bytes()).is_some() {
        Cow::Owned(serde_json::from_str(quoted).unwrap_or_else(|_| inner.to_owned()))
    } else {
        Cow::Borrowed(inner)
    }
}

/// An array or object that is open; of an object, where its names begin in [`Reader::names`].
#[derive(Clone, Copy)]
enum Open {
    Array,
    Object { names: usize },
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    max_depth: usize,
    /// How deep the outermost value of [`Reader::value`] stands.
    outer: usize,
    /// The deepest so far.
    depth: usize,
    open: Vec<Open>,
    names: Vec<Cow<'a, str>>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, max_depth: OWN_MAX_DEPTH, outer: 0, depth: 0, open: Vec::new(), names: Vec::with_capacity(MEMBERS) }
    }

    fn fail<T>(&self, why: &'static str) -> Result<T, Unreadable> {
        Err(Unreadable { at: self.at, why })
    }
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
    fn end(&mut self) -> Result<(), Unreadable> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { self.fail("more after the end of the JSON value") }
    }

    fn object(&mut self) -> Result<Object<'a>, Unreadable> {
        if !self.take(b'{') {
            return self.fail("not a JSON object");
        }
        self.outer = 1;
        self.depth = 1;
        let mut members = Vec::with_capacity(MEMBERS);
        self.space();
        if self.take(b'}') {
            return Ok(Object { members, depth: self.depth });
        }
        loop {
            self.name()?;
            let name = self.names.pop().unwrap_or_default();
            members.push((name, self.value()?));
            self.space();
            if self.take(b'}') {
                return Ok(Object { members, depth: self.depth });
            }
            if !self.take(b',') {
                return self.fail("expected `,` or `}`");
            }
        }
    }

    fn array(&mut self) -> Result<Vec<Raw<'a>>, Unreadable> {
        if !self.take(b'[') {
            return self.fail("not a JSON array");
        }
        self.outer = 1;
        let mut elements = Vec::new();
        self.space();
        if self.take(b']') {
            return Ok(elements);
        }
        loop {
            elements.push(self.value()?);
            self.space();
            if self.take(b']') {
                return Ok(elements);
            }
            if !self.take(b',') {
                return self.fail("expected `,` or `]`");
            }
        }
    }

    /// One value, without recursion.
    fn value(&mut self) -> Result<Raw<'a>, Unreadable> {
        self.space();
        let start = self.at;
        let mut duplicates = false;
        loop {
            self.space();
            match self.peek() {
                Some(b'{') => {
                    self.push(Open::Object { names: self.names.len() })?;
                    self.space();
                    if self.peek() != Some(b'}') {
                        self.name()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.push(Open::Array)?;
                    self.space();
                    if self.peek() != Some(b']') {
                        continue;
                    }
                }
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.literal("true")?,
                Some(b'f') => self.literal("false")?,
                Some(b'n') => self.literal("null")?,
                _ => return self.fail("expected a JSON value"),
            }
            loop {
                let Some(top) = self.open.last().copied() else {
                    return Ok(Raw { text: &self.text[start..self.at], duplicates });
                };
                self.space();
                match (self.peek(), top) {
                    (Some(b'}'), Open::Object { names }) => {
                        duplicates |= any_twice(&mut self.names[names..]);
                        self.names.truncate(names);
                        self.open.pop();
                        self.at += 1;
                    }
                    (Some(b']'), Open::Array) => {
                        self.open.pop();
                        self.at += 1;
                    }
                    (Some(b','), Open::Array) => {
                        self.at += 1;
                        break;
                    }
                    (Some(b','), Open::Object { .. }) => {
                        self.at += 1;
                        self.name()?;
                        break;
                    }
                    _ => return self.fail("expected `,` or the end of an array or object"),
                }
            }
        }
    }

    fn push(&mut self, open: Open) -> Result<(), Unreadable> {
        if self.outer + self.open.len() >= self.max_depth {
            return self.fail("nested too deep");
        }
        self.at += 1;
        self.open.push(open);
        self.depth = self.depth.max(self.outer + self.open.len());
        Ok(())
    }

    /// A member's name and the colon; the name goes to `names`.
    fn name(&mut self) -> Result<(), Unreadable> {
        self.space();
        let start = self.at;
        if self.peek() != Some(b'"') {
            return self.fail("expected the name of a member");
        }
        let escaped = self.string()?;
        let inner = &self.text[start + 1..self.at - 1];
        self.names.push(if escaped { unescape(&self.text[start..self.at], inner) } else { Cow::Borrowed(inner) });
        self.space();
        if self.take(b':') { Ok(()) } else { self.fail("expected `:`") }
    }

    /// Has it escapes?
    fn string(&mut self) -> Result<bool, Unreadable> {
        self.at += 1;
        let mut escaped = false;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            self.at += plain_prefix(rest);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return self.fail("a control character in a string"),
                None => return self.fail("a string without an end"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Unreadable> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                self.at += 1;
                match self.hex4()? {
                    0xDC00..=0xDFFF => self.fail("a lone surrogate"),
                    0xD800..=0xDBFF => {
                        let pair = self.take(b'\\') && self.take(b'u');
                        if pair && matches!(self.hex4()?, 0xDC00..=0xDFFF) { Ok(()) } else { self.fail("a lone surrogate") }
                    }
                    _ => Ok(()),
                }
            }
            _ => self.fail("an unknown escape"),
        }
    }

    fn hex4(&mut self) -> Result<u32, Unreadable> {
        let mut code = 0;
        for _ in 0..4 {
            let Some(digit) = self.peek().and_then(|b| char::from(b).to_digit(16)) else {
                return self.fail("expected four hexadecimal digits");
            };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }

    fn number(&mut self) -> Result<(), Unreadable> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Unreadable> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return self.fail("expected a digit");
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn literal(&mut self, word: &'static str) -> Result<(), Unreadable> {
        if !self.text[self.at..].starts_with(word) {
            return self.fail("expected a JSON value");
        }
        self.at += word.len();
        Ok(())
    }
}

/// How many bytes at the beginning stand for themselves inside a string.
fn plain_prefix(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let found = special_bytes(u64::from_le_bytes(*chunk));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + bytes[at..].iter().position(|byte| !PLAIN[usize::from(*byte)]).unwrap_or(bytes.len() - at)
}

/// The high bit of each byte that is a quote, a backslash or below 0x20. Exact up to the first such byte: above it a borrow
/// may set more (the zero-byte test of Warren, "Hacker's Delight", 6-1).
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, 0x20) | equal(b'"') | equal(b'\\')) & (ONES << 7)
}

/// Bytes inside a string that stand for themselves.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < 0x20 {
        plain[byte] = false;
        byte += 1;
    }
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain
};

/// Bits of the sieve below.
const SIEVE: usize = 1 << 10;

fn any_twice(names: &mut [Cow<'_, str>]) -> bool {
    // Nearly always each name falls on a bit of its own, and then no two are equal.
    let mut sieve = [0_u64; SIEVE / 64];
    let all_apart = names.iter().all(|name| {
        let bit = sieve_bit(name.as_bytes());
        let (word, mask) = (&mut sieve[bit / 64], 1 << (bit % 64));
        let fresh = *word & mask == 0;
        *word |= mask;
        fresh
    });
    if all_apart {
        return false;
    }
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

/// Of length, first, middle and last byte: names differ in one of them, or are compared in full.
fn sieve_bit(name: &[u8]) -> usize {
    let at = |place: usize| name.get(place).copied().map_or(0, u32::from);
    let mixed = (name.len() as u32) ^ at(0) << 8 ^ at(name.len() / 2) << 16 ^ at(name.len().wrapping_sub(1)) << 24;
    // Fibonacci hashing: the high bits of the product (Knuth, "The Art of Computer Programming" 3, 6.4).
    (mixed.wrapping_mul(0x9E37_79B1) >> (32 - SIEVE.trailing_zeros())) as usize
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
