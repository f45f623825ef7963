//! Typed access to the members of an object that someone else wrote. What does not fit is named by its path; the
//! value is never quoted.

use std::borrow::Cow;

use super::json::{Object, Raw};
use crate::nearest::nearest;
use crate::saga::json::Json;
use crate::saga::time::Micros;

/// Which field is wrong and in what way: `field "error.code" is not a string`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FieldError(pub String);

pub type Checked<T> = Result<T, FieldError>;

/// An object's members, and where it stands.
#[derive(Debug)]
pub struct Fields<'a> {
    object: Object<'a>,
    path: String,
}

impl<'a> Fields<'a> {
    pub fn new(object: Object<'a>) -> Self {
        Self { object, path: String::new() }
    }
    fn below(&self, name: &str, object: Object<'a>) -> Self {
        Self { object, path: format!("{}{name}.", self.path) }
    }

    /// `field "<path>" <problem>`.
    pub fn wrong(&self, name: &str, problem: &str) -> FieldError {
        FieldError(format!("field \"{}{name}\" {problem}", self.path))
    }
    fn typed<T>(&self, name: &str, what: &str, read: impl FnOnce(Raw<'a>) -> Option<T>) -> Checked<Option<T>> {
        match self.object.get(name) {
            None => Ok(None),
            Some(raw) => read(raw).map(Some).ok_or_else(|| self.wrong(name, &format!("is not {what}"))),
        }
    }
    pub fn required<T>(&self, name: &str, value: Option<T>) -> Checked<T> {
        value.ok_or_else(|| self.wrong(name, "is missing"))
    }

    /// Refuses a member of any other name: what it was meant for would not happen. For what a person sends; records of
    /// others may have members that we do not know.
    pub fn only(&self, known: &[&str]) -> Checked<()> {
        let unknown = self.object.members().into_iter().map(|(name, _)| name).find(|name| !known.contains(name));
        unknown.map_or(Ok(()), |name| Err(self.unknown(name, known)))
    }

    fn unknown(&self, name: &str, known: &[&str]) -> FieldError {
        let shown: String = name.chars().take(64).collect();
        let meant = nearest(name, known.iter().copied()).map(|(known, _)| format!("; did you mean \"{}{known}\"?", self.path));
        self.wrong(&shown, &format!("is not known{}", meant.unwrap_or_default()))
    }

    /// A member as it stands; absent or null: `None`.
    pub fn raw(&self, name: &str) -> Option<Raw<'a>> {
        self.object.get(name)
    }
    pub fn str(&self, name: &str) -> Checked<Option<Cow<'a, str>>> {
        self.typed(name, "a string", Raw::string)
    }
    pub fn string(&self, name: &str) -> Checked<Option<String>> {
        Ok(self.str(name)?.map(Cow::into_owned))
    }
    /// Required, and not empty.
    pub fn needed(&self, name: &str) -> Checked<String> {
        let value = self.required(name, self.string(name)?)?;
        if value.is_empty() { Err(self.wrong(name, "is empty")) } else { Ok(value) }
    }
    pub fn i64(&self, name: &str) -> Checked<Option<i64>> {
        self.typed(name, "an integer of 64 bits", Raw::i64)
    }
    /// At most `i64::MAX`: more does not go through Avro, and a value is of the right type in both formats or in none.
    pub fn u64(&self, name: &str) -> Checked<Option<u64>> {
        self.typed(name, "an integer of 64 bits, 0 or more", |raw| raw.u64().filter(|n| i64::try_from(*n).is_ok()))
    }
    pub fn bool(&self, name: &str) -> Checked<Option<bool>> {
        self.typed(name, "a boolean", Raw::bool)
    }
    pub fn time(&self, name: &str) -> Checked<Option<Micros>> {
        let what = "an RFC 3339 time with a zone, such as 2026-01-10T10:00:00Z";
        self.typed(name, what, |raw| raw.string()?.parse().ok())
    }
    pub fn json(&self, name: &str) -> Option<Json> {
        self.object.get(name).map(Raw::json)
    }
    /// The text of a member that is an object.
    pub fn json_object(&self, name: &str) -> Checked<Option<Json>> {
        self.typed(name, "an object", |raw| raw.is_object().then(|| raw.json()))
    }
    pub fn object(&self, name: &str) -> Checked<Option<Fields<'a>>> {
        Ok(self.typed(name, "an object", Raw::object)?.map(|object| self.below(name, object)))
    }
    pub fn strings(&self, name: &str) -> Checked<Option<Vec<String>>> {
        self.typed(name, "an array of strings", |raw| {
            raw.array()?.into_iter().map(|element| element.string().map(Cow::into_owned)).collect()
        })
    }
    /// An object as pairs in order. `what` names the type for the message.
    pub fn map<T>(&self, name: &str, what: &str, read: impl Fn(Raw<'a>) -> Option<T>) -> Checked<Option<Vec<(String, T)>>> {
        self.typed(name, what, |raw| {
            raw.object()?.members().into_iter().map(|(name, value)| Some((name.to_owned(), read(value)?))).collect()
        })
    }
    pub fn labels(&self, name: &str) -> Checked<Option<Vec<(String, String)>>> {
        self.map(name, "an object of strings", |raw| raw.string().map(Cow::into_owned))
    }
}
