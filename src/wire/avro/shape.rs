//! What `wire` needs to know of one of our schemas: for each field its type, its default, and whether its string is
//! JSON text (property `content`: `json`).

use std::collections::HashMap;
use std::sync::LazyLock;

use apache_avro::Schema;

use super::texts;

#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    Null,
    Bool,
    /// int and long are written alike.
    Integer,
    Text,
    /// A string that holds JSON.
    JsonText,
    /// A long: microseconds.
    Time,
    Enum(Vec<String>),
    Array(Box<Shape>),
    Map(Box<Shape>),
    Union(Vec<Shape>),
    Record(Vec<ShapeField>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct ShapeField {
    pub name: String,
    pub shape: Shape,
    /// JSON text.
    pub default: Option<String>,
}

macro_rules! shape {
    ($name:ident, $text:expr) => {
        pub fn $name() -> &'static Shape {
            static SHAPE: LazyLock<Shape> = LazyLock::new(|| Shape::parse($text));
            &SHAPE
        }
    };
}

impl Shape {
    shape!(step_event, texts::STEP_EVENT);
    shape!(replay_request, texts::REPLAY_REQUEST);
    shape!(restored_saga, texts::RESTORED_SAGA);
    shape!(replay_log_entry, texts::REPLAY_LOG_ENTRY);

    /// Of a text that was compiled in.
    fn parse(text: &str) -> Self {
        let schema = Schema::parse_str(text).expect("the schemas compiled in are parsed by a test");
        of(&schema, false, &mut HashMap::new())
    }

    pub fn field(&self, name: &str) -> Option<&ShapeField> {
        match self {
            Self::Record(fields) => fields.iter().find(|field| field.name == name),
            Self::Union(variants) => variants.iter().find_map(|variant| variant.field(name)),
            _ => None,
        }
    }
    /// Is it, or may it be, a record?
    pub fn is_record(&self) -> bool {
        match self {
            Self::Record(_) => true,
            Self::Union(variants) => variants.iter().any(Self::is_record),
            _ => false,
        }
    }
    /// Is it, or may it be, this one?
    pub fn admits(&self, shape: &Shape) -> bool {
        self == shape || matches!(self, Self::Union(variants) if variants.contains(shape))
    }
    /// Of the elements of an array or the values of a map.
    pub fn inner(&self) -> Option<&Shape> {
        match self {
            Self::Array(inner) | Self::Map(inner) => Some(inner),
            Self::Union(variants) => variants.iter().find_map(Self::inner),
            _ => None,
        }
    }
}

fn of(schema: &Schema, json: bool, named: &mut HashMap<String, Shape>) -> Shape {
    match schema {
        Schema::Boolean => Shape::Bool,
        Schema::Int | Schema::Long => Shape::Integer,
        Schema::TimestampMicros => Shape::Time,
        Schema::String if json => Shape::JsonText,
        Schema::String => Shape::Text,
        Schema::Array(array) => Shape::Array(Box::new(of(&array.items, false, named))),
        Schema::Map(map) => Shape::Map(Box::new(of(&map.types, false, named))),
        Schema::Union(union) => Shape::Union(union.variants().iter().map(|variant| of(variant, json, named)).collect()),
        Schema::Enum(of) => {
            let shape = Shape::Enum(of.symbols.clone());
            named.insert(of.name.to_string(), shape.clone());
            shape
        }
        Schema::Record(record) => {
            let fields = record.fields.iter().map(|field| {
                let json = field.custom_attributes.get("content").is_some_and(|content| content == "json");
                let default = field.default.as_ref().map(ToString::to_string);
                ShapeField { name: field.name.clone(), shape: of(&field.schema, json, named), default }
            });
            let shape = Shape::Record(fields.collect());
            named.insert(record.name.to_string(), shape.clone());
            shape
        }
        Schema::Ref { name } => named.get(&name.to_string()).cloned().unwrap_or(Shape::Null),
        _ => Shape::Null,
    }
}
