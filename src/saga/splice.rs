//! A text as the difference from the one before it: what both begin with, what both end with, and what lies between.

/// How `after` comes from `before`: the first `prefix` bytes, `middle`, the last `suffix` bytes; cut between characters.
pub fn splice<'a>(before: &str, after: &'a str) -> (u32, u32, &'a str) {
    let limit = before.len().min(after.len()).min(u32::MAX as usize);
    let (b, a) = (before.as_bytes(), after.as_bytes());
    let mut prefix = common(limit, |i| (b[i], a[i]), |i, n| b[i..i + n] == a[i..i + n]);
    while !after.is_char_boundary(prefix) || !before.is_char_boundary(prefix) {
        prefix -= 1;
    }
    let limit = limit - prefix;
    let (bl, al) = (before.len(), after.len());
    let mut suffix = common(limit, |i| (b[bl - 1 - i], a[al - 1 - i]), |i, n| b[bl - i - n..bl - i] == a[al - i - n..al - i]);
    while !after.is_char_boundary(al - suffix) || !before.is_char_boundary(bl - suffix) {
        suffix -= 1;
    }
    // Both fit: `limit` is at most u32::MAX.
    (prefix as u32, suffix as u32, &after[prefix..al - suffix])
}

/// How many places from 0 up to `limit` are the same, in steps of a block as long as possible.
fn common(limit: usize, at: impl Fn(usize) -> (u8, u8), same: impl Fn(usize, usize) -> bool) -> usize {
    const BLOCK: usize = 32;
    let mut n = 0;
    while n + BLOCK <= limit && same(n, BLOCK) {
        n += BLOCK;
    }
    while n < limit && at(n).0 == at(n).1 {
        n += 1;
    }
    n
}

/// Undoes [`splice`]; `None`: the splice was not made from this text.
pub fn unsplice(before: &str, prefix: u32, suffix: u32, middle: &str) -> Option<String> {
    let (prefix, suffix) = (prefix as usize, suffix as usize);
    let head = before.get(..prefix)?;
    let tail = before.get(before.len().checked_sub(suffix)?..)?;
    let mut out = String::with_capacity(prefix + middle.len() + suffix);
    out.push_str(head);
    out.push_str(middle);
    out.push_str(tail);
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_splice_gives_the_text_back(before in "[ab{é🚚]{0,80}", after in "[ab{é🚚]{0,80}") {
            let (prefix, suffix, middle) = splice(&before, &after);
            prop_assert_eq!(unsplice(&before, prefix, suffix, middle), Some(after.clone()));
        }

        #[test]
        fn a_splice_of_a_small_change_is_small(head in "[a-z]{0,90}", tail in "[a-z]{0,90}") {
            let (before, after) = (format!("{head}1{tail}"), format!("{head}2{tail}"));
            prop_assert_eq!(splice(&before, &after), (head.len() as u32, tail.len() as u32, "2"));
        }
    }
}
