//! Contexts and what events do to them: one change, or many at once.
//!
//! Many changes are folded into a tree that is taken apart only where a change reaches, and written as a text once, so
//! that small patches of a large context cost their own size and not the context's. One by one or at once, the text is
//! the same: what no change names keeps its bytes.

use super::event::ContextChange;
use super::json::Json;
use super::members::Members;
use super::splice::unsplice;

/// The context after `change`, or `None` where it carries none.
pub fn changed_context(before: &Json, change: &ContextChange) -> Option<Json> {
    match change {
        ContextChange::None => None,
        ContextChange::Full(context) => Some(context.clone()),
        ContextChange::Patch(patch) => Some(merge_patch(before, patch)),
        ContextChange::Set(keys) => Some(set_keys(before, keys)),
        // A splice that does not fit its text can only come from a text that is not the one it was made from; frames
        // carry a checksum and histories are checked for holes, so the fold has nothing better than the last context.
        ContextChange::Splice { prefix, suffix, middle } => {
            unsplice(before.as_str(), *prefix, *suffix, middle).map(Json::from_valid)
        }
    }
}

/// The context after all changes, one after the other.
pub fn changed_by_all(before: &Json, changes: &[&ContextChange]) -> Json {
    let whole = changes.iter().rposition(|change| matches!(change, ContextChange::Full(_)));
    let mut rest = &changes[whole.unwrap_or(0)..];
    let mut context = before.clone();
    while let Some((first, after)) = rest.split_first() {
        let is_patch = |change: &&&ContextChange| matches!(change, ContextChange::Patch(_) | ContextChange::Set(_));
        let patches = rest.iter().take_while(is_patch).count();
        if patches < 2 {
            context = changed_context(&context, first).unwrap_or(context);
            rest = after;
            continue;
        }
        let (patches, after) = rest.split_at(patches);
        context = patched(&context, patches);
        rest = after;
    }
    context
}

fn patched(context: &Json, patches: &[&ContextChange]) -> Json {
    let mut tree = ContextNode::Text(context.as_str());
    let mut size = context.len();
    for change in patches {
        match change {
            ContextChange::Patch(patch) => {
                tree.merge(patch.as_str());
                size += patch.len();
            }
            ContextChange::Set(keys) => {
                tree.set(keys.as_str());
                size += keys.len();
            }
            _ => {}
        }
    }
    tree.text(size)
}

/// RFC 7396: members keep their place, new ones go to the end; what the patch does not name keeps its bytes.
pub fn merge_patch(target: &Json, patch: &Json) -> Json {
    let mut tree = ContextNode::Text(target.as_str());
    tree.merge(patch.as_str());
    tree.text(target.len() + patch.len())
}

/// Top-level keys replaced; null is a value.
pub fn set_keys(target: &Json, keys: &Json) -> Json {
    let mut tree = ContextNode::Text(target.as_str());
    tree.set(keys.as_str());
    tree.text(target.len() + keys.len())
}

/// A value: as its text, or an object that a change reached into.
enum ContextNode<'a> {
    Text(&'a str),
    Object(Members<'a, ContextNode<'a>>),
}

impl<'a> From<&'a str> for ContextNode<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> ContextNode<'a> {
    fn merge(&mut self, patch: &'a str) {
        let Some(patch) = Members::<&'a str>::of(patch) else {
            *self = Self::Text(patch);
            return;
        };
        let members = self.open();
        for (key, value) in patch.into_list() {
            if value == "null" {
                members.remove(&key);
            } else if value.starts_with('{') {
                members.get_or_put(key, || Self::Object(Members::default())).merge(value);
            } else {
                members.put(key, Self::Text(value));
            }
        }
    }

    fn set(&mut self, keys: &'a str) {
        let members = self.open();
        for (key, value) in Members::<&'a str>::of(keys).unwrap_or_default().into_list() {
            members.put(key, Self::Text(value));
        }
    }

    /// The object's members; of what is none, an empty one's.
    fn open(&mut self) -> &mut Members<'a, Self> {
        if let Self::Text(text) = *self {
            *self = Self::Object(Members::of(text).unwrap_or_default());
        }
        match self {
            Self::Object(members) => members,
            Self::Text(_) => unreachable!("opened above"),
        }
    }

    /// `size`: its bytes, about.
    fn text(&self, size: usize) -> Json {
        let mut out = String::with_capacity(size);
        self.write(&mut out);
        Json::from_valid(out)
    }

    fn write(&self, out: &mut String) {
        let members = match self {
            Self::Text(text) => return out.push_str(text),
            Self::Object(members) => members,
        };
        out.push('{');
        let mut first = true;
        for (key, value) in members.iter() {
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            out.push_str(&serde_json::to_string(key).expect("a string is always writable as JSON"));
            out.push(':');
            value.write(out);
        }
        out.push('}');
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn json(text: &str) -> Json {
        Json::from_valid(text)
    }

    fn value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![Just("null".to_owned()), "[0-9]", "\"[a-c ]{0,2}\"", Just("[1, {\"a\":null}]".to_owned())];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let member = ("[ab\u{e9}]|\\\\u0061|c d", inner).prop_map(|(key, value)| format!("\"{key}\": {value}"));
            prop::collection::vec(member, 0..4).prop_map(|members| format!("{{ {} }}", members.join(" ,")))
        })
    }

    fn object() -> impl Strategy<Value = Json> {
        value().prop_filter("an object", |text| text.starts_with('{')).prop_map(|text| json(&text))
    }

    fn change() -> impl Strategy<Value = ContextChange> {
        // A splice that fits is made from its context: this one never does, and changes nothing.
        prop_oneof![
            1 => Just(ContextChange::None),
            1 => object().prop_map(ContextChange::Full),
            4 => object().prop_map(ContextChange::Patch),
            2 => object().prop_map(ContextChange::Set),
            1 => Just(ContextChange::Splice { prefix: 1, suffix: 1_000_000, middle: "".into() }),
        ]
    }

    proptest! {
        #[test]
        fn many_changes_at_once_are_those_changes_one_by_one(before in object(), changes in prop::collection::vec(change(), 0..12)) {
            let one_by_one = changes.iter().fold(before.clone(), |context, change| {
                changed_context(&context, change).unwrap_or(context)
            });
            prop_assert_eq!(changed_by_all(&before, &changes.iter().collect::<Vec<_>>()), one_by_one);
        }
    }

    #[test]
    fn small_patches_of_a_large_context_cost_their_own_size() {
        let large = json(&format!(r#"{{"blob":"{}","n":0}}"#, "x".repeat(3_600_000)));
        let patches: Vec<ContextChange> =
            (0..2_000).map(|n| ContextChange::Patch(json(&format!(r#"{{"n":{n},"k{}":1}}"#, n % 50)))).collect();
        let began = Instant::now();
        let after = changed_by_all(&large, &patches.iter().collect::<Vec<_>>());
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!(after.len(), large.len() + 3 + 10 * r#","k0":1"#.len() + 40 * r#","k10":1"#.len());
    }
}
