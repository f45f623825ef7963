//! Names and values that a saga is found by.

/// In the order they were received.
pub type Labels = Vec<(String, String)>;
