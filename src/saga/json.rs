//! JSON kept as the text it came as: key order and number text survive, and nothing is turned into a tree
//! unless a patch, a diff or an override needs it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Number, Value};

/// One valid JSON value as text, without surrounding white space. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json(Arc<str>);

impl Json {
    /// `text` must be one valid JSON value; the readers in `wire` have checked it.
    pub fn from_valid(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }
    pub fn null() -> Self {
        Self("null".into())
    }
    pub fn empty_object() -> Self {
        Self("{}".into())
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Bytes of the text.
    #[cfg_attr(feature = "testing", expect(clippy::len_without_is_empty, reason = "a JSON text is never empty"))]
    pub fn len(&self) -> usize {
        self.0.len()
    }
    pub fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }
    pub fn is_null(&self) -> bool {
        &*self.0 == "null"
    }
    /// The tree; key order and number text kept.
    pub fn to_value(&self) -> Value {
        tree(&self.0)
    }
    pub fn from_value(value: &Value) -> Self {
        Self(value.to_string().into())
    }
}

/// serde_json's own tree would write `1e3` as `1e+3`, and take an object with one of the names that it keeps numbers
/// and raw texts under for a number; here a number is its text, and every name a name.
fn tree(text: &str) -> Value {
    const VALID: &str = "valid JSON by construction";
    match text.as_bytes().first() {
        Some(b'{') => {
            let members: RawMembers = read(text).expect(VALID);
            Value::Object(members.0.into_iter().map(|(name, value)| (name, tree(value.get()))).collect())
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = read(text).expect(VALID);
            Value::Array(items.into_iter().map(|item| tree(item.get())).collect())
        }
        Some(b'-' | b'0'..=b'9') => Value::Number(Number::from_string_unchecked(text.to_owned())),
        _ => read(text).expect(VALID),
    }
}

fn read<'t, T: Deserialize<'t>>(text: &'t str) -> serde_json::Result<T> {
    let mut reader = serde_json::Deserializer::from_str(text);
    // Depth was limited where the text came in.
    reader.disable_recursion_limit();
    T::deserialize(&mut reader)
}

/// An object's members in order, values as text. Of duplicate names the tree keeps the last.
struct RawMembers<'t>(Vec<(String, &'t RawValue)>);

impl<'de> Deserialize<'de> for RawMembers<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> serde::de::Visitor<'de> for Visit {
            type Value = RawMembers<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<RawMembers<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(RawMembers(members))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // RawValue needs an owned or borrowed str that is valid JSON; this one is by construction.
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}
impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(raw.get().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_keeps_the_text_of_numbers_and_the_order_of_names() {
        let text = r#"{"b":1e3,"a":[1E5,-0.10,12345678901234567890,"\u00e9",null,true],"c":{"d":1e-7}}"#;
        assert_eq!(Json::from_value(&Json::from_valid(text).to_value()).as_str(), text.replace("\\u00e9", "é"));
    }

    #[test]
    fn names_that_serde_json_uses_itself_are_kept() {
        for name in ["$serde_json::private::Number", "$serde_json::private::RawValue"] {
            let text = format!(r#"{{"{name}":"1","a":[{{"{name}":"x"}}]}}"#);
            let json = Json::from_valid(text.as_str());
            assert_eq!(Json::from_value(&json.to_value()), json);
            assert_eq!(serde_json::to_string(&json).expect("text"), text);
            assert_eq!(serde_json::from_str::<Json>(&text).expect("text"), json);
        }
    }

    #[test]
    fn nesting_of_128_is_read() {
        let text = format!("{}1{}", "[".repeat(128), "]".repeat(128));
        assert_eq!(Json::from_value(&Json::from_valid(text.as_str()).to_value()).as_str(), text);
    }
}
