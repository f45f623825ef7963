//! One pass over the bytes of a text: grammar, depth, control characters, lone surrogates, duplicate names.
//!
//! Positions are kept in locals and bytes beyond the end read as 0, which begins nothing: a look costs one comparison.

use std::borrow::Cow;

use wide::u8x16;

use super::names::{Name, any_twice};
use super::raw::{Raw, Unreadable, unescape};

/// As many members as most objects have: room for them is made at once.
const MEMBERS: usize = 16;

/// An array or object that is open; of an object, where its names begin in [`Scanner::names`].
#[derive(Clone, Copy)]
enum OpenValue {
    Array,
    Object { names: usize },
}

/// Goes over one text once.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    max_depth: usize,
    /// How deep the outermost value of [`Scanner::value`] stands.
    outer: usize,
    /// The deepest so far.
    depth: usize,
    open: Vec<OpenValue>,
    names: Vec<Name>,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str, max_depth: usize) -> Result<Self, Unreadable> {
        if u32::try_from(text.len()).is_err() {
            return fail(0, "longer than 4 GiB");
        }
        Ok(Self { text, at: 0, max_depth, outer: 0, depth: 0, open: Vec::new(), names: Vec::with_capacity(MEMBERS) })
    }

    /// Nothing but white space follows.
    pub fn end(&self) -> Result<(), Unreadable> {
        let at = after_space(self.text.as_bytes(), self.at);
        if at == self.text.len() { Ok(()) } else { fail(at, "more after the end of the JSON value") }
    }

    /// Members in the order received, and how deep the object nests.
    #[expect(clippy::type_complexity, reason = "what an object is made of")]
    pub fn object(&mut self) -> Result<(Vec<(Cow<'a, str>, Raw<'a>)>, usize), Unreadable> {
        let bytes = self.text.as_bytes();
        self.at = self.begin(b'{', "not a JSON object")?;
        self.depth = 1;
        let mut members = Vec::with_capacity(MEMBERS);
        if byte(bytes, self.at) == b'}' {
            self.at += 1;
            return Ok((members, self.depth));
        }
        loop {
            let (name, at) = name(bytes, self.at)?;
            self.at = at;
            let (quoted, inner) = (&self.text[name.quoted()], &self.text[name.inner()]);
            let name = if name.escaped { unescape(quoted, inner) } else { Cow::Borrowed(inner) };
            members.push((name, self.value()?));
            let at = after_space(bytes, self.at);
            match byte(bytes, at) {
                b',' => self.at = after_space(bytes, at + 1),
                b'}' => {
                    self.at = at + 1;
                    return Ok((members, self.depth));
                }
                _ => return fail(at, "expected `,` or `}`"),
            }
        }
    }

    /// Elements in order.
    pub fn array(&mut self) -> Result<Vec<Raw<'a>>, Unreadable> {
        let bytes = self.text.as_bytes();
        self.at = self.begin(b'[', "not a JSON array")?;
        let mut elements = Vec::new();
        if byte(bytes, self.at) == b']' {
            self.at += 1;
            return Ok(elements);
        }
        loop {
            elements.push(self.value()?);
            let at = after_space(bytes, self.at);
            match byte(bytes, at) {
                b',' => self.at = at + 1,
                b']' => {
                    self.at = at + 1;
                    return Ok(elements);
                }
                _ => return fail(at, "expected `,` or `]`"),
            }
        }
    }

    /// Behind the bracket and the space after it.
    fn begin(&mut self, bracket: u8, otherwise: &'static str) -> Result<usize, Unreadable> {
        let bytes = self.text.as_bytes();
        let at = after_space(bytes, self.at);
        self.outer = 1;
        if byte(bytes, at) == bracket { Ok(after_space(bytes, at + 1)) } else { fail(at, otherwise) }
    }

    /// One value, without recursion.
    pub fn value(&mut self) -> Result<Raw<'a>, Unreadable> {
        let bytes = self.text.as_bytes();
        let mut at = after_space(bytes, self.at);
        let start = at;
        let (mut escaped, mut duplicates) = (false, false);
        loop {
            match byte(bytes, at) {
                b'"' => (at, escaped) = string(bytes, at)?,
                b'{' => {
                    self.push(OpenValue::Object { names: self.names.len() }, at)?;
                    at = after_space(bytes, at + 1);
                    if byte(bytes, at) != b'}' {
                        at = self.member(at)?;
                        continue;
                    }
                }
                b'[' => {
                    self.push(OpenValue::Array, at)?;
                    at = after_space(bytes, at + 1);
                    if byte(bytes, at) != b']' {
                        continue;
                    }
                }
                b'-' | b'0'..=b'9' => at = number(bytes, at)?,
                b't' => at = literal(bytes, at, "true")?,
                b'f' => at = literal(bytes, at, "false")?,
                b'n' => at = literal(bytes, at, "null")?,
                _ => return fail(at, "expected a JSON value"),
            }
            loop {
                let Some(top) = self.open.last().copied() else {
                    self.at = at;
                    return Ok(Raw { text: &self.text[start..at], escaped, duplicates });
                };
                at = after_space(bytes, at);
                match (byte(bytes, at), top) {
                    (b',', OpenValue::Array) => {
                        at = after_space(bytes, at + 1);
                        break;
                    }
                    (b',', OpenValue::Object { .. }) => {
                        at = self.member(after_space(bytes, at + 1))?;
                        break;
                    }
                    (b'}', OpenValue::Object { names }) => {
                        duplicates |= any_twice(self.text, &self.names[names..]);
                        self.names.truncate(names);
                        self.open.pop();
                        at += 1;
                    }
                    (b']', OpenValue::Array) => {
                        self.open.pop();
                        at += 1;
                    }
                    _ => return fail(at, "expected `,` or the end of an array or object"),
                }
            }
        }
    }

    fn push(&mut self, open: OpenValue, at: usize) -> Result<(), Unreadable> {
        if self.outer + self.open.len() >= self.max_depth {
            return fail(at, "nested too deep");
        }
        self.open.push(open);
        self.depth = self.depth.max(self.outer + self.open.len());
        Ok(())
    }

    /// Remembers the name of a member; where its value begins.
    #[inline]
    fn member(&mut self, at: usize) -> Result<usize, Unreadable> {
        let (name, at) = name(self.text.as_bytes(), at)?;
        self.names.push(name);
        Ok(at)
    }
}

#[cold]
fn fail<T>(at: usize, why: &'static str) -> Result<T, Unreadable> {
    Err(Unreadable { at, why })
}

#[inline]
fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

#[inline]
fn after_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(byte(bytes, at), b' ' | b'\t' | b'\n' | b'\r') {
        at += 1;
    }
    at
}

/// A member's name, and where its value begins.
#[inline]
fn name(bytes: &[u8], at: usize) -> Result<(Name, usize), Unreadable> {
    if byte(bytes, at) != b'"' {
        return fail(at, "expected the name of a member");
    }
    let (end, escaped) = string(bytes, at)?;
    let colon = after_space(bytes, end);
    if byte(bytes, colon) != b':' {
        return fail(colon, "expected `:`");
    }
    Ok((Name { start: at as u32 + 1, end: end as u32 - 1, escaped }, after_space(bytes, colon + 1)))
}

/// From its quote on: where it ends, and whether it has escapes.
#[inline(always)]
fn string(bytes: &[u8], quote: usize) -> Result<(usize, bool), Unreadable> {
    let mut at = quote + 1;
    let mut escaped = false;
    loop {
        at += plain_prefix(&bytes[at..]);
        match bytes.get(at) {
            Some(b'"') => return Ok((at + 1, escaped)),
            Some(b'\\') => {
                escaped = true;
                at = escape(bytes, at + 1)?;
            }
            Some(_) => return fail(at, "a control character in a string"),
            None => return fail(at, "a string without an end"),
        }
    }
}

/// Behind the backslash.
fn escape(bytes: &[u8], at: usize) -> Result<usize, Unreadable> {
    match byte(bytes, at) {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(at + 1),
        b'u' => match hex4(bytes, at + 1)? {
            0xDC00..=0xDFFF => fail(at, "a lone surrogate"),
            0xD800..=0xDBFF => {
                let pair = byte(bytes, at + 5) == b'\\' && byte(bytes, at + 6) == b'u';
                if pair && matches!(hex4(bytes, at + 7)?, 0xDC00..=0xDFFF) { Ok(at + 11) } else { fail(at, "a lone surrogate") }
            }
            _ => Ok(at + 5),
        },
        _ => fail(at, "an unknown escape"),
    }
}

fn hex4(bytes: &[u8], from: usize) -> Result<u32, Unreadable> {
    let mut code = 0;
    for at in from..from + 4 {
        let Some(digit) = char::from(byte(bytes, at)).to_digit(16) else {
            return fail(at, "expected four hexadecimal digits");
        };
        code = code * 16 + digit;
    }
    Ok(code)
}

fn number(bytes: &[u8], mut at: usize) -> Result<usize, Unreadable> {
    at += usize::from(byte(bytes, at) == b'-');
    at = if byte(bytes, at) == b'0' { at + 1 } else { digits(bytes, at)? };
    if byte(bytes, at) == b'.' {
        at = digits(bytes, at + 1)?;
    }
    if matches!(byte(bytes, at), b'e' | b'E') {
        at += 1;
        at = digits(bytes, at + usize::from(matches!(byte(bytes, at), b'+' | b'-')))?;
    }
    Ok(at)
}

fn digits(bytes: &[u8], from: usize) -> Result<usize, Unreadable> {
    let mut at = from;
    while byte(bytes, at).is_ascii_digit() {
        at += 1;
    }
    if at > from { Ok(at) } else { fail(at, "expected a digit") }
}

fn literal(bytes: &[u8], at: usize, word: &'static str) -> Result<usize, Unreadable> {
    if bytes[at..].starts_with(word.as_bytes()) { Ok(at + word.len()) } else { fail(at, "expected a JSON value") }
}

/// How many bytes at the beginning stand for themselves inside a string.
#[inline(always)]
fn plain_prefix(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<16>() {
        let found = special_bytes(*chunk);
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
        at += 16;
    }
    at + bytes[at..].iter().position(|byte| !PLAIN[usize::from(*byte)]).unwrap_or(bytes.len() - at)
}

/// A bit for each byte that is a quote, a backslash or below 0x20.
#[inline(always)]
fn special_bytes(chunk: [u8; 16]) -> u32 {
    let bytes = u8x16::new(chunk);
    let equal = |byte: u8| bytes.simd_eq(u8x16::splat(byte));
    let control = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
    (control | equal(b'"') | equal(b'\\')).to_bitmask()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_string_is_looked_through_sixteen_bytes_at_once_as_one_by_one(bytes in proptest::collection::vec(any::<u8>(), 0..70)) {
            let one_by_one = bytes.iter().position(|byte| !PLAIN[usize::from(*byte)]).unwrap_or(bytes.len());
            prop_assert_eq!(plain_prefix(&bytes), one_by_one);
            // Nearly always a special byte is among the first: also with those alone that may be confused with one.
            let confusing = [b'!', b'#', b'[', b']', 0x20, 0x7f, 0xa2, 0xdc];
            let near: Vec<u8> = bytes.iter().map(|byte| confusing[usize::from(*byte % 8)]).collect();
            prop_assert_eq!(plain_prefix(&near), near.len());
        }
    }
}
