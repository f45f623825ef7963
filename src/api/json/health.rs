//! Is the process alive, is it ready.

use std::collections::BTreeMap;

use serde_json::json;

pub const ALIVE: &str = r#"{"status":"alive"}"#;

/// What must hold before the process is ready, and whether it does.
pub fn ready(is_ready: bool, checks: &BTreeMap<&'static str, bool>) -> String {
    json!({"status": if is_ready { "ready" } else { "not ready" }, "checks": checks}).to_string()
}
