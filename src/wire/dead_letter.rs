//! Dead letters (docs/interface/dead-letters.md): key, value and headers as they were, and ours that say why and where from. One that no
//! topic takes whole is cut, by one rule for every role, and says what it was: nothing vanishes, and nothing stops for it.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::payload::RecordHeaders;
use crate::saga::position::Position;

/// Sizes in bytes to which a dead letter that was refused for its size is cut, one after the other: below what a topic
/// takes that nobody has set up, well below that, and at last hardly more than our headers.
pub const CUT_TO: [usize; 3] = [512 << 10, 16 << 10, 0];

/// The first of our headers; they are the last of a dead letter.
const FIRST: &str = "__connect.errors.topic";
/// Which parts were cut.
const CUT: &str = "resaga-cut";
/// Bytes of key, value and headers as they were.
const FULL_SIZE: &str = "resaga-full-size";
/// Of the value as it was, in hex.
const SHA256: &str = "resaga-sha256";
/// Bytes of our message that a cut letter keeps at most.
const MESSAGE: usize = 1 << 10;

/// Key, value and headers of a record to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterRecord {
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// The headers of the record followed by ours. `message` names fields and positions, never values.
pub fn dead_letter_headers(
    original: &RecordHeaders,
    position: &Position,
    stage: &str,
    code: &'static str,
    message: &str,
) -> Vec<(String, Option<Bytes>)> {
    let ours = [
        (FIRST, position.topic.to_string()),
        ("__connect.errors.partition", position.partition.to_string()),
        ("__connect.errors.offset", position.offset.to_string()),
        ("__connect.errors.stage", stage.to_owned()),
        ("__connect.errors.exception.message", message.to_owned()),
        ("resaga-code", code.to_owned()),
    ];
    let ours = ours.into_iter().map(|(name, value)| (name.to_owned(), Some(Bytes::from(value))));
    original.iter().cloned().chain(ours).collect()
}

/// The size of a record, in bytes of key, value and headers.
pub fn size(key: Option<&[u8]>, value: Option<&[u8]>, headers: &RecordHeaders) -> usize {
    key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers.iter().map(header_size).sum::<usize>()
}

/// The same letter in about `most` bytes, with three headers more: what was cut, how large it was, the hash of its value.
/// Our headers stay; of the rest a key has a quarter, its headers then a half of what is left, the value the remainder.
/// A header is kept whole or not at all.
pub fn cut(letter: &DeadLetterRecord, most: usize) -> DeadLetterRecord {
    let at = letter.headers.iter().rposition(|(name, _)| name == FIRST).unwrap_or(letter.headers.len());
    let (theirs, ours) = letter.headers.split_at(at);
    let full_size = size(letter.key.as_deref(), letter.value.as_deref(), theirs);
    let mut ours: Vec<(String, Option<Bytes>)> =
        ours.iter().map(|(name, value)| (name.clone(), value.as_ref().map(|value| prefix(value, MESSAGE)))).collect();
    let text = |name: &str, value: String| (name.to_owned(), Some(Bytes::from(value)));
    ours.push(text(FULL_SIZE, full_size.to_string()));
    if let Some(value) = &letter.value {
        ours.push(text(SHA256, hex(&Sha256::digest(value))));
    }

    let mut room = most.saturating_sub(ours.iter().map(header_size).sum());
    let key = letter.key.as_ref().map(|key| prefix(key, room / 4));
    room -= key.as_ref().map_or(0, Bytes::len);
    let mut for_headers = room / 2;
    let fits = |header: &&(String, Option<Bytes>)| {
        let left = for_headers.checked_sub(header_size(header));
        for_headers = left.unwrap_or(for_headers);
        left.is_some()
    };
    let mut headers: Vec<(String, Option<Bytes>)> = theirs.iter().filter(fits).cloned().collect();
    room -= headers.iter().map(header_size).sum::<usize>();
    let value = letter.value.as_ref().map(|value| prefix(value, room));

    let parts = [("key", key != letter.key), ("value", value != letter.value), ("headers", headers.len() < theirs.len())];
    let cut: Vec<&str> = parts.into_iter().filter(|(_, cut)| *cut).map(|(name, _)| name).collect();
    headers.extend(ours);
    headers.push(text(CUT, cut.join(",")));
    DeadLetterRecord { key, value, headers }
}

fn header_size((name, value): &(String, Option<Bytes>)) -> usize {
    name.len() + value.as_ref().map_or(0, Bytes::len)
}

fn prefix(bytes: &Bytes, most: usize) -> Bytes {
    bytes.slice(..bytes.len().min(most))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn letter(key: usize, value: Option<usize>, headers: &[usize]) -> DeadLetterRecord {
        let bytes = |length: usize| Some(Bytes::from(vec![b'a'; length]));
        let theirs: Vec<_> = headers.iter().map(|length| ("h".to_owned(), bytes(*length))).collect();
        let headers = dead_letter_headers(&theirs, &Position::new("t", 3, 41), "decode", "too_large", "why");
        DeadLetterRecord { key: bytes(key), value: value.and_then(bytes), headers }
    }

    fn header<'l>(letter: &'l DeadLetterRecord, name: &str) -> Option<&'l str> {
        let (_, value) = letter.headers.iter().rfind(|(found, _)| found == name)?;
        value.as_deref().map(|value| std::str::from_utf8(value).unwrap())
    }

    #[test]
    fn headers_that_were_there_come_first_and_untouched() {
        let original = vec![("a".to_owned(), None), ("resaga-code".to_owned(), Some(Bytes::from_static(b"\xff")))];
        let headers = dead_letter_headers(&original, &Position::new("t", 3, 41), "events", "undecodable", "why");
        assert_eq!(headers[..2], original[..]);
        let ours: Vec<_> = headers[2..].iter().map(|(name, value)| (name.as_str(), value.as_deref().unwrap())).collect();
        let wanted: [(&str, &[u8]); 6] = [
            ("__connect.errors.topic", b"t"),
            ("__connect.errors.partition", b"3"),
            ("__connect.errors.offset", b"41"),
            ("__connect.errors.stage", b"events"),
            ("__connect.errors.exception.message", b"why"),
            ("resaga-code", b"undecodable"),
        ];
        assert_eq!(ours, wanted);
    }

    #[test]
    fn a_cut_letter_says_what_it_was_and_where_it_came_from() {
        let cut = cut(&DeadLetterRecord { value: Some(Bytes::from_static(b"abc")), ..letter(7, None, &[1]) }, 0);
        assert_eq!((cut.key.as_deref(), cut.value.as_deref()), (Some(&b""[..]), Some(&b""[..])));
        // FIPS 180-2, B.1: the hash of "abc".
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let said = ["resaga-cut", "resaga-full-size", "resaga-sha256", "__connect.errors.offset"].map(|name| header(&cut, name));
        assert_eq!(said, [Some("key,value,headers"), Some("12"), Some(hash), Some("41")]);
    }

    #[test]
    fn what_fits_its_share_stays_whole() {
        let cut = cut(&letter(36, Some(70 << 20), &[10, 1 << 20, 20]), 512 << 10);
        assert_eq!(header(&cut, "resaga-cut"), Some("value,headers"));
        assert_eq!(cut.key.as_ref().map(Bytes::len), Some(36));
        let theirs: Vec<usize> =
            cut.headers.iter().filter(|(name, _)| name == "h").filter_map(|(_, v)| v.as_ref().map(Bytes::len)).collect();
        assert_eq!(theirs, [10, 20], "the large one is left out, not those behind it");
        assert!(cut.value.is_some_and(|value| value.len() > 500 << 10));
    }

    proptest! {
        #[test]
        fn a_cut_letter_is_no_larger_than_asked_beside_our_headers(
            key in 0..3_000_usize, value in proptest::option::of(0..3_000_usize),
            headers in proptest::collection::vec(0..2_000_usize, 0..5), most in 0..9_000_usize,
        ) {
            let whole = letter(key, value, &headers);
            let cut = cut(&whole, most);
            let ours = 400;
            prop_assert!(size(cut.key.as_deref(), cut.value.as_deref(), &cut.headers) <= most.max(ours) + 30);
            prop_assert_eq!(cut.value.is_some(), whole.value.is_some(), "null is not empty");
            prop_assert_eq!(header(&cut, "resaga-code"), Some("too_large"));
        }
    }
}
