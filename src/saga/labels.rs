//! Labels of a saga: names and values that its producer chose.

/// Labels in the order they were received.
pub type Labels = Vec<(String, String)>;

/// A label filter `k:v`; the name ends at the first colon. `None`: no colon or no name.
pub fn parse_label(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once(':')?;
    (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
}

/// Labels with others on top: a name keeps its place.
pub fn merge_labels(labels: &[(String, String)], on_top: &[(String, String)]) -> Vec<(String, String)> {
    let mut merged = labels.to_vec();
    for (key, value) in on_top {
        match merged.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => old.clone_from(value),
            None => merged.push((key.clone(), value.clone())),
        }
    }
    merged
}
