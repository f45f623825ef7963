//! Writes members in the order they are given, values as text; the same input always gives the same bytes.

use std::fmt::{Display, Write};

use crate::saga::json::Json;

/// One object being written. [`Writer::end`] gives its text.
#[derive(Debug)]
pub struct Writer {
    out: String,
    /// No member was written yet.
    is_empty: bool,
}

impl Writer {
    pub fn with_capacity(bytes: usize) -> Self {
        let mut out = String::with_capacity(bytes.max(2));
        out.push('{');
        Self { out, is_empty: true }
    }

    pub fn end(mut self) -> String {
        self.out.push('}');
        self.out
    }

    pub fn name(&mut self, name: &str) -> &mut Self {
        if !std::mem::take(&mut self.is_empty) {
            self.out.push(',');
        }
        quote(&mut self.out, name);
        self.out.push(':');
        self
    }

    /// A member whose value is valid JSON text.
    pub fn raw(&mut self, name: &str, text: &str) {
        self.name(name).out.push_str(text);
    }
    pub fn null(&mut self, name: &str) {
        self.raw(name, "null");
    }
    pub fn str(&mut self, name: &str, value: &str) {
        quote(&mut self.name(name).out, value);
    }
    pub fn opt_str(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.str(name, value),
            None => self.null(name),
        }
    }
    pub fn json(&mut self, name: &str, value: Option<&Json>) {
        self.raw(name, value.map_or("null", Json::as_str));
    }
    pub fn bool(&mut self, name: &str, value: bool) {
        self.raw(name, if value { "true" } else { "false" });
    }
    /// An integer, or null.
    pub fn int<T: Display>(&mut self, name: &str, value: Option<T>) {
        match value {
            Some(value) => write!(self.name(name).out, "{value}").expect("a String takes all that is written"),
            None => self.null(name),
        }
    }
    /// Something that is written as a string by its `Display`, such as a time; or null.
    pub fn text<T: Display>(&mut self, name: &str, value: Option<T>) {
        match value {
            Some(value) => write!(self.name(name).out, "\"{value}\"").expect("a String takes all that is written"),
            None => self.null(name),
        }
    }
    pub fn strings<S: AsRef<str>>(&mut self, name: &str, values: impl IntoIterator<Item = S>) {
        self.name(name).out.push('[');
        for (at, value) in values.into_iter().enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            quote(&mut self.out, value.as_ref());
        }
        self.out.push(']');
    }
    /// A member that is an object of its own.
    pub fn object(&mut self, name: &str, members: impl FnOnce(&mut Writer)) {
        self.name(name).out.push('{');
        // Into the same text.
        let mut inner = Writer { out: std::mem::take(&mut self.out), is_empty: true };
        members(&mut inner);
        self.out = inner.end();
    }
    /// A member that is an object with these members.
    pub fn map<'v, V: 'v>(&mut self, name: &str, members: &'v [(String, V)], value: impl Fn(&mut Writer, &str, &'v V)) {
        self.object(name, |inner| {
            for (name, member) in members {
                value(inner, name, member);
            }
        });
    }
}

/// A string as JSON.
pub fn quote(out: &mut String, value: &str) {
    if value.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push('"');
        out.push_str(value);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(value).expect("a str is always JSON"));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{MAX_DEPTH, read_object};
    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(name: String, value: String, list: Vec<String>, number: i64) {
            prop_assume!(!["l", "n", "o"].contains(&name.as_str()));
            let mut writer = Writer::with_capacity(0);
            writer.str(&name, &value);
            writer.strings("l", &list);
            writer.int("n", Some(number));
            writer.object("o", |o| o.opt_str("x", None));
            let text = writer.end();
            let object = read_object(text.as_bytes(), MAX_DEPTH).unwrap();
            prop_assert_eq!(object.get(&name).unwrap().string().unwrap(), value);
            let read: Vec<String> = object.get("l").unwrap().array().unwrap().iter().map(|s| s.string().unwrap().into_owned()).collect();
            prop_assert_eq!(read, list);
            prop_assert_eq!(object.get("n").unwrap().i64(), Some(number));
            prop_assert_eq!(object.get("o").unwrap().text(), r#"{"x":null}"#);
        }
    }
}
