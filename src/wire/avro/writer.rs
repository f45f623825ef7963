//! A writer's schema as far as reading its data needs it: which bytes follow which, and under which names.
//!
//! Read as leniently as Java reads a schema that a registry took: defaults, aliases, docs, the characters of names and
//! symbols decide nothing about the bytes of a datum, so they are not looked at. Must not know our schemas or data.

use std::collections::HashMap;

use serde_json::Value;

/// Place of a type in its schema.
pub type TypeAt = usize;

/// Types that a schema may have, its references included.
const MAX_TYPES: usize = 100_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterSchema {
    pub types: Vec<Type>,
    pub root: TypeAt,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    Null,
    Bool,
    Int,
    Long,
    Float,
    Double,
    Text,
    Bytes,
    /// A long: with `Z`, or what the writer calls local?
    Time(Unit, bool),
    /// Sixteen bytes: with their length before them?
    Uuid(bool),
    /// What JSON has no value for: days, times of day, decimals, durations.
    Lacking(Layout),
    Enum(Vec<String>),
    Array(TypeAt),
    Map(TypeAt),
    Union(Vec<TypeAt>),
    Record(Vec<(String, TypeAt)>),
    /// Another one, by its name.
    Same(TypeAt),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Millis,
    Micros,
    Nanos,
}

/// How long a value is that is not looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Int,
    Long,
    Bytes,
    Fixed(usize),
}

/// Why a schema cannot be read. Names of the schema are quoted, cut; it is no data.
type UnreadableReason = String;

struct SchemaReader {
    types: Vec<Type>,
    /// By full name.
    named: HashMap<String, TypeAt>,
    /// Names that were used, where, and in which namespace.
    uses: Vec<(TypeAt, String, String)>,
}

impl WriterSchema {
    /// `references`: the schemas that it, or one of these, names and does not define.
    pub fn parse(text: &str, references: &[String]) -> Result<Self, UnreadableReason> {
        let mut reader = SchemaReader { types: Vec::new(), named: HashMap::new(), uses: Vec::new() };
        let mut root = 0;
        for text in references.iter().map(String::as_str).chain([text]) {
            // Nested no deeper than serde_json reads, so neither is what follows.
            let json: Value = serde_json::from_str(text).map_err(|_| "it is not JSON, or nested too deep".to_owned())?;
            root = reader.read(&json, "")?;
        }
        reader.resolve()?;
        Ok(Self { types: reader.types, root })
    }

    /// The type at this place; of a name what it stands for.
    pub fn at(&self, mut at: TypeAt) -> (TypeAt, &Type) {
        // A name stands for a definition, which is none itself.
        if let Type::Same(definition) = self.types[at] {
            at = definition;
        }
        (at, &self.types[at])
    }
}

impl SchemaReader {
    fn add(&mut self, of: Type) -> Result<TypeAt, UnreadableReason> {
        if self.types.len() == MAX_TYPES {
            return Err(format!("it has more than {MAX_TYPES} types"));
        }
        self.types.push(of);
        Ok(self.types.len() - 1)
    }

    fn read(&mut self, json: &Value, namespace: &str) -> Result<TypeAt, UnreadableReason> {
        match json {
            Value::String(name) => match primitive(name, None) {
                Some(of) => self.add(of),
                None => {
                    let at = self.add(Type::Null)?;
                    self.uses.push((at, name.clone(), namespace.to_owned()));
                    Ok(at)
                }
            },
            Value::Array(branches) => {
                let branches = branches.iter().map(|branch| self.read(branch, namespace)).collect::<Result<_, _>>()?;
                self.add(Type::Union(branches))
            }
            Value::Object(members) => match members.get("type") {
                Some(Value::String(of)) => self.object(of, json, namespace),
                Some(nested) => self.read(nested, namespace),
                None => Err("a type in it has no \"type\"".into()),
            },
            _ => Err("a type in it is neither a name, an object nor an array".into()),
        }
    }

    fn object(&mut self, of: &str, json: &Value, namespace: &str) -> Result<TypeAt, UnreadableReason> {
        let needed = |member: &str| json.get(member).ok_or_else(|| format!("its {of} lacks \"{member}\""));
        match of {
            "array" => {
                let items = self.read(needed("items")?, namespace)?;
                self.add(Type::Array(items))
            }
            "map" => {
                let values = self.read(needed("values")?, namespace)?;
                self.add(Type::Map(values))
            }
            "record" | "error" => {
                // Its place first: it may contain itself.
                let (at, namespace) = self.define(json, namespace, Type::Null)?;
                let fields = needed("fields")?.as_array().ok_or("fields of a record are no array")?;
                let mut read = Vec::with_capacity(fields.len());
                for field in fields {
                    let name = field.get("name").and_then(Value::as_str).ok_or("a field has no name")?;
                    let of = field.get("type").ok_or_else(|| format!("field {} has no type", shown(name)))?;
                    read.push((name.to_owned(), self.read(of, &namespace)?));
                }
                self.types[at] = Type::Record(read);
                Ok(at)
            }
            "enum" => {
                let symbols = needed("symbols")?.as_array().ok_or("symbols of an enum are no array")?;
                let symbols: Option<Vec<String>> = symbols.iter().map(|symbol| symbol.as_str().map(str::to_owned)).collect();
                let symbols = symbols.ok_or("a symbol of an enum is no string")?;
                Ok(self.define(json, namespace, Type::Enum(symbols))?.0)
            }
            "fixed" => {
                let size = needed("size")?.as_u64().and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or("the size of a fixed is no number of bytes")?;
                let of = match logical(json) {
                    Some("uuid") if size == 16 => Type::Uuid(false),
                    _ => Type::Lacking(Layout::Fixed(size)),
                };
                Ok(self.define(json, namespace, of)?.0)
            }
            name => match primitive(name, logical(json)) {
                Some(of) => self.add(of),
                None => self.read(&Value::String(name.to_owned()), namespace),
            },
        }
    }

    /// A named type: its place, and the namespace for what is inside.
    fn define(&mut self, json: &Value, around: &str, of: Type) -> Result<(TypeAt, String), UnreadableReason> {
        let name = json.get("name").and_then(Value::as_str).ok_or("a record, enum or fixed has no name")?;
        let (namespace, full) = match name.rsplit_once('.') {
            Some((namespace, _)) => (namespace.to_owned(), name.to_owned()),
            None => {
                let namespace = json.get("namespace").and_then(Value::as_str).unwrap_or(around);
                (namespace.to_owned(), full_name(namespace, name))
            }
        };
        let at = self.add(of)?;
        // The first counts: a reference that two schemas bring along defines the same twice.
        self.named.entry(full).or_insert(at);
        Ok((at, namespace))
    }

    fn resolve(&mut self) -> Result<(), UnreadableReason> {
        for (at, name, namespace) in std::mem::take(&mut self.uses) {
            let in_namespace = if name.contains('.') { None } else { self.named.get(&full_name(&namespace, &name)) };
            let definition = in_namespace.or_else(|| self.named.get(name.as_str()));
            let definition = *definition.ok_or_else(|| format!("type {} is defined nowhere", shown(&name)))?;
            self.types[at] = Type::Same(definition);
        }
        Ok(())
    }
}

fn full_name(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn logical(json: &Value) -> Option<&str> {
    json.get("logicalType").and_then(Value::as_str)
}

/// A logical type that does not belong to its type is none.
fn primitive(name: &str, logical: Option<&str>) -> Option<Type> {
    Some(match (name, logical) {
        ("int", Some("date" | "time-millis")) => Type::Lacking(Layout::Int),
        ("long", Some("time-micros")) => Type::Lacking(Layout::Long),
        ("long", Some("timestamp-millis")) => Type::Time(Unit::Millis, true),
        ("long", Some("timestamp-micros")) => Type::Time(Unit::Micros, true),
        ("long", Some("timestamp-nanos")) => Type::Time(Unit::Nanos, true),
        ("long", Some("local-timestamp-millis")) => Type::Time(Unit::Millis, false),
        ("long", Some("local-timestamp-micros")) => Type::Time(Unit::Micros, false),
        ("long", Some("local-timestamp-nanos")) => Type::Time(Unit::Nanos, false),
        ("bytes", Some("uuid")) => Type::Uuid(true),
        ("bytes", Some("decimal" | "big-decimal")) => Type::Lacking(Layout::Bytes),
        ("null", _) => Type::Null,
        ("boolean", _) => Type::Bool,
        ("int", _) => Type::Int,
        ("long", _) => Type::Long,
        ("float", _) => Type::Float,
        ("double", _) => Type::Double,
        ("string", _) => Type::Text,
        ("bytes", _) => Type::Bytes,
        _ => return None,
    })
}

/// A name from somebody's schema, for a message.
fn shown(name: &str) -> String {
    let cut: String = name.chars().take(80).collect();
    format!("{cut:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<WriterSchema, UnreadableReason> {
        WriterSchema::parse(text, &[])
    }
    fn record(fields: &str) -> String {
        format!(r#"{{"type":"record","name":"R","namespace":"com.acme.Outer$","fields":[{fields}]}}"#)
    }

    #[test]
    fn what_a_registry_and_java_take_is_read() {
        for field in [
            r#"{"name":"a","type":"string","default":null}"#,
            r#"{"name":"a","type":"int","default":"0"}"#,
            r#"{"name":"a","type":{"type":"enum","name":"E","symbols":["A"],"default":"NONE"}}"#,
            r#"{"name":"a","type":{"type":"enum","name":"E","symbols":["X-LARGE","a b"]}}"#,
            r#"{"name":"order-id","type":"string"}"#,
            r#"{"name":"a","type":{"type":"error","name":"Failed","fields":[{"name":"b","type":"R"}]}}"#,
            r#"{"name":"a","type":["null","com.acme.Outer$.R"],"default":"x"}"#,
            r#"{"name":"a","type":{"type":"string","logicalType":"decimal"}}"#,
            r#"{"name":"a","type":{"type":"bytes","logicalType":"decimal","precision":-1}}"#,
            r#"{"name":"a","type":{"type":{"type":"string"}}}"#,
            r#"{"name":"a","type":{"type":"R"}}"#,
        ] {
            assert!(parse(&record(field)).is_ok(), "{field}: {:?}", parse(&record(field)));
        }
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let deep = format!("{}\"null\"{}", "[".repeat(100_000), "]".repeat(100_000));
        for (text, why) in [
            ("{", "it is not JSON, or nested too deep"),
            (deep.as_str(), "it is not JSON, or nested too deep"),
            ("7", "a type in it is neither a name, an object nor an array"),
            ("{}", "a type in it has no \"type\""),
            (r#"{"type":"array"}"#, "its array lacks \"items\""),
            (r#"{"type":"fixed","name":"F","size":-1}"#, "the size of a fixed is no number of bytes"),
            (r#"["null","com.acme.Address"]"#, "type \"com.acme.Address\" is defined nowhere"),
        ] {
            assert_eq!(parse(text), Err(why.to_owned()), "{}", &text[..text.len().min(80)]);
        }
    }

    #[test]
    fn names_are_found_in_references_in_their_namespace_and_without_one() {
        let references = [
            r#"{"type":"record","name":"Line","namespace":"com.acme","fields":[{"name":"to","type":"Address"}]}"#.to_owned(),
            r#"{"type":"record","name":"com.acme.Address","fields":[{"name":"zip","type":"Zip"}]}"#.to_owned(),
            r#"{"type":"fixed","name":"Zip","size":5}"#.to_owned(),
        ];
        let read = WriterSchema::parse(r#"["null","com.acme.Line"]"#, &references).unwrap();
        let Type::Union(branches) = read.at(read.root).1 else { panic!("a union") };
        let Type::Record(line) = read.at(branches[1]).1 else { panic!("a record") };
        let Type::Record(address) = read.at(line[0].1).1 else { panic!("a record") };
        assert_eq!(*read.at(address[0].1).1, Type::Lacking(Layout::Fixed(5)));
    }
}
