//! A problem (RFC 9457), with a stable code, a detail and a hint.

use serde_json::json;

/// `title`: the reason phrase of `status`.
pub fn problem(status: u16, title: &str, code: &str, detail: &str, hint: Option<&str>) -> String {
    json!({
        "type": "about:blank",
        "title": title,
        "status": status,
        "code": code,
        "detail": detail,
        "hint": hint,
    })
    .to_string()
}
