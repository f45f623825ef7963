//! JSON as a tree whose numbers keep their text: serde_json's own reader would make `1e+3` of `1e3`, and stop at 128 levels.

use serde_json::Value;

use crate::saga::json::Json;
use crate::wire::json::read_value;

/// Levels of what is read: a context of 128 inside answers of answers.
const MAX_DEPTH: usize = 256;

/// `Err`: why it is not JSON, and where.
pub fn read(bytes: &[u8]) -> Result<Value, String> {
    read_value(bytes, MAX_DEPTH).map(|raw| Json::from_valid(raw.text()).to_value()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_text_and_names_their_order() {
        let text = r#"{"b":1e3,"a":[1E5,-0.10,12345678901234567890123],"c":"x"}"#;
        assert_eq!(read(format!(" {text}\n").as_bytes()).expect("JSON").to_string(), text);
        assert_eq!(read(b" 1e3 ").expect("JSON").to_string(), "1e3");
        for wrong in [&b"{"[..], b"1 2", b"", b"\xff", b"nul"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_context_of_127_levels_is_read_inside_an_answer() {
        let text = format!(r#"{{"from":{{"context":{{"a":{}1{}}}}}}}"#, "[".repeat(126), "]".repeat(126));
        assert_eq!(read(text.as_bytes()).expect("JSON").to_string(), text);
    }
}
