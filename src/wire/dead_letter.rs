//! Headers of dead letters (INTERFACE 3). Key, value and the headers that were there stay untouched.

use bytes::Bytes;

use crate::saga::position::Position;

/// The headers of the record followed by ours. `message` names fields and positions, never values.
pub fn dead_letter_headers(
    original: &[(String, Option<Bytes>)],
    position: &Position,
    stage: &str,
    code: &'static str,
    message: &str,
) -> Vec<(String, Option<Bytes>)> {
    let ours = [
        ("__connect.errors.topic", position.topic.to_string()),
        ("__connect.errors.partition", position.partition.to_string()),
        ("__connect.errors.offset", position.offset.to_string()),
        ("__connect.errors.stage", stage.to_owned()),
        ("__connect.errors.exception.message", message.to_owned()),
        ("resaga-code", code.to_owned()),
    ];
    let ours = ours.into_iter().map(|(name, value)| (name.to_owned(), Some(Bytes::from(value))));
    original.iter().cloned().chain(ours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
