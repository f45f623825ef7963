//! The name that was probably meant by one that nobody knows. Pure; knows no names of its own.

/// The nearest of the known names, and how near it is: 1 is the same, 0 has nothing in common. `None`: none is known.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<(&'a str, f64)> {
    let name = name.to_lowercase();
    let near = |known: &str| strsim::normalized_damerau_levenshtein(&name, known);
    known.into_iter().map(|known| (known, near(known))).max_by(|a, b| a.1.total_cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_near_and_case_is_none() {
        let known = ["status", "saga_id", "dry_run"];
        assert_eq!(nearest("stauts", known).map(|(name, _)| name), Some("status"));
        assert_eq!(nearest("dryRun", known).map(|(name, _)| name), Some("dry_run"));
        assert_eq!(nearest("SAGA_ID", known), Some(("saga_id", 1.0)));
        assert_eq!(nearest("x", []), None);
    }
}
