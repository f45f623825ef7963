//! What several shapes have in common.

use crate::saga::time::Micros;

/// Where nothing is known yet: 1970, a time that every reader of RFC 3339 takes.
pub fn known_through(complete_through: Micros) -> Micros {
    complete_through.max(Micros(0))
}

pub fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}
