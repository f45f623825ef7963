//! How values are written: durations and sizes with their units, choices by name, lists, rates.
//!
//! Each kind reads a TOML value, reads the text of an environment variable or flag, and writes the value back. What is
//! said about a wrong value names its type and the remedy, never the value, which may be a secret.

use std::time::Duration;

use toml::Value;

use super::sections::{LogFormat, PartitionerSetting};
use crate::saga::fold_settings::SnapshotPolicy;

/// A way to write a `T`.
pub trait ValueKind<T> {
    /// For the reference: what a value is, with its unit.
    fn name() -> String;
    /// `Err`: what it must be, as the end of a sentence that begins with the key.
    fn read(value: &Value) -> Result<T, String>;
    fn write(value: &T) -> Value;
    /// The TOML value that a text from outside the file stands for.
    fn of_text(text: &str) -> Value {
        Value::String(text.to_owned())
    }
}

fn wrong(must: &str, value: &Value) -> String {
    format!("must be {must}, not {}", noun(value))
}

fn noun(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "this text",
        Value::Integer(_) => "a bare number",
        Value::Float(_) => "a number with a point",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a time",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

pub struct TextValue;
impl ValueKind<String> for TextValue {
    fn name() -> String {
        "text".into()
    }
    fn read(value: &Value) -> Result<String, String> {
        value.as_str().map(str::to_owned).ok_or_else(|| wrong("text in quotes", value))
    }
    fn write(value: &String) -> Value {
        Value::String(value.clone())
    }
}
/// Empty: absent.
impl ValueKind<Option<String>> for TextValue {
    fn name() -> String {
        "text".into()
    }
    fn read(value: &Value) -> Result<Option<String>, String> {
        Self::read(value).map(|text: String| (!text.is_empty()).then_some(text))
    }
    fn write(value: &Option<String>) -> Value {
        Value::String(value.clone().unwrap_or_default())
    }
}

/// A list of texts; outside the file comma separated.
pub struct List;
impl ValueKind<Vec<String>> for List {
    fn name() -> String {
        "list of texts".into()
    }
    fn read(value: &Value) -> Result<Vec<String>, String> {
        let must = "a list of texts, such as [\"a\", \"b\"]";
        let items = value.as_array().ok_or_else(|| wrong(must, value))?;
        items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(|| format!("must be {must}"))).collect()
    }
    fn write(value: &Vec<String>) -> Value {
        Value::Array(value.iter().cloned().map(Value::String).collect())
    }
    fn of_text(text: &str) -> Value {
        Value::Array(
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(|item| Value::String(item.into())).collect(),
        )
    }
}

pub struct Switch;
impl ValueKind<bool> for Switch {
    fn name() -> String {
        "true or false".into()
    }
    fn read(value: &Value) -> Result<bool, String> {
        value.as_bool().ok_or_else(|| wrong("true or false", value))
    }
    fn write(value: &bool) -> Value {
        Value::Boolean(*value)
    }
    fn of_text(text: &str) -> Value {
        text.parse().map_or_else(|_| Value::String(text.into()), Value::Boolean)
    }
}

/// A whole number without unit.
pub struct Count;
macro_rules! count {
    ($($number:ty),*) => {$(
        impl ValueKind<$number> for Count {
            fn name() -> String {
                "whole number".into()
            }
            fn read(value: &Value) -> Result<$number, String> {
                let number = value.as_integer().ok_or_else(|| wrong("a whole number", value))?;
                <$number>::try_from(number).map_err(|_| format!("must be a whole number from {} to {}", <$number>::MIN, <$number>::MAX))
            }
            fn write(value: &$number) -> Value {
                Value::Integer(i64::try_from(*value).unwrap_or(i64::MAX))
            }
            fn of_text(text: &str) -> Value {
                text.parse().map_or_else(|_| Value::String(text.into()), Value::Integer)
            }
        }
    )*};
}
count!(i32, u32, u64, usize);

/// A length of time with its unit.
pub struct DurationValue;
impl ValueKind<Duration> for DurationValue {
    fn name() -> String {
        "duration".into()
    }
    fn read(value: &Value) -> Result<Duration, String> {
        let must = "a duration with its unit, such as \"30s\", \"1h\" or \"30d\"";
        let text = value.as_str().ok_or_else(|| wrong(must, value))?;
        let has_unit = text.trim_end().ends_with(|c: char| c.is_ascii_alphabetic());
        humantime::parse_duration(text).ok().filter(|_| has_unit).ok_or_else(|| format!("must be {must}"))
    }
    fn write(value: &Duration) -> Value {
        let nanos = value.as_nanos();
        let units = [
            (86_400_000_000_000, "d"),
            (3_600_000_000_000, "h"),
            (60_000_000_000, "m"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
            (1_000, "us"),
        ];
        let (size, unit) = if nanos == 0 {
            (1_000_000_000, "s")
        } else {
            units.into_iter().find(|(size, _)| nanos.is_multiple_of(*size)).unwrap_or((1, "ns"))
        };
        Value::String(format!("{}{unit}", nanos / size))
    }
}

/// A number of bytes with its unit.
pub struct Size;
impl ValueKind<u64> for Size {
    fn name() -> String {
        "size in bytes".into()
    }
    fn read(value: &Value) -> Result<u64, String> {
        let must = "a size with its unit, such as \"64KiB\" or \"1MiB\"";
        let text = value.as_str().ok_or_else(|| wrong(must, value))?.trim();
        let has_unit = text.ends_with(|c: char| c.is_ascii_alphabetic());
        text.parse::<bytesize::ByteSize>()
            .ok()
            .filter(|_| has_unit)
            .map(|size| size.as_u64())
            .ok_or_else(|| format!("must be {must}"))
    }
    fn write(value: &u64) -> Value {
        let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let (size, unit) = units.into_iter().find(|(size, _)| *value > 0 && value.is_multiple_of(*size)).unwrap_or((1, "B"));
        Value::String(format!("{}{unit}", value / size))
    }
}

/// A number a second; `None`: unlimited.
pub struct Rate;
impl ValueKind<Option<f64>> for Rate {
    fn name() -> String {
        "rate a second".into()
    }
    fn read(value: &Value) -> Result<Option<f64>, String> {
        let rate = match value {
            Value::String(text) if text == "unlimited" => return Ok(None),
            Value::String(text) => text.strip_suffix("/s").unwrap_or(text).trim().parse().ok(),
            Value::Integer(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            _ => None,
        };
        rate.filter(|rate: &f64| rate.is_finite() && *rate > 0.0)
            .map(Some)
            .ok_or_else(|| "must be \"unlimited\" or a number a second above 0, such as \"10/s\"".into())
    }
    fn write(value: &Option<f64>) -> Value {
        Value::String(value.map_or_else(|| "unlimited".into(), |rate| format!("{rate}/s")))
    }
}

/// A whole number above 0; `None`: unlimited.
pub struct Limit;
impl ValueKind<Option<u32>> for Limit {
    fn name() -> String {
        "whole number, or `unlimited`".into()
    }
    fn read(value: &Value) -> Result<Option<u32>, String> {
        let number = match value {
            Value::String(text) if text == "unlimited" => return Ok(None),
            Value::Integer(number) => u32::try_from(*number).ok(),
            _ => None,
        };
        let must = || "must be \"unlimited\" or a whole number above 0".into();
        number.filter(|number| *number > 0).map(Some).ok_or_else(must)
    }
    fn write(value: &Option<u32>) -> Value {
        value.map_or_else(|| Value::String("unlimited".into()), |number| Value::Integer(number.into()))
    }
    fn of_text(text: &str) -> Value {
        text.parse().map_or_else(|_| Value::String(text.into()), Value::Integer)
    }
}

/// One of a few names.
pub struct Choice;
macro_rules! choice {
    ($type:ty: $($name:literal => $variant:path),*) => {
        impl ValueKind<$type> for Choice {
            fn name() -> String {
                [$($name),*].map(|name| format!("`{name}`")).join(", ")
            }
            fn read(value: &Value) -> Result<$type, String> {
                match value.as_str() {
                    $(Some($name) => Ok($variant),)*
                    _ => Err(format!("must be one of {}", [$($name),*].join(", "))),
                }
            }
            fn write(value: &$type) -> Value {
                let name = match value { $($variant => $name),* };
                Value::String(name.into())
            }
        }
    };
}
choice!(PartitionerSetting: "auto" => PartitionerSetting::Auto, "murmur2" => PartitionerSetting::Murmur2,
    "crc32" => PartitionerSetting::Crc32, "fnv1a" => PartitionerSetting::Fnv1a);
choice!(LogFormat: "text" => LogFormat::Text, "json" => LogFormat::Json);
choice!(SnapshotPolicy: "before_each_step" => SnapshotPolicy::BeforeEachStep, "on_failure" => SnapshotPolicy::OnFailure,
    "on_completion" => SnapshotPolicy::OnCompletion, "every_event" => SnapshotPolicy::EveryEvent, "manual" => SnapshotPolicy::Manual);

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::String(text.into())
    }

    #[test]
    fn durations_need_a_unit_and_come_back_as_written() {
        for written in ["30d", "2555d", "1h", "90m", "30s", "250ms", "0s"] {
            assert_eq!(DurationValue::write(&DurationValue::read(&text(written)).expect(written)), text(written));
        }
        for wrong in [text("30"), text(""), text("soon"), text("-1s"), Value::Integer(30), text("0")] {
            assert!(DurationValue::read(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_need_a_unit_and_come_back_as_written() {
        for written in ["64KiB", "1MiB", "64MiB", "1GiB", "1000B", "0B"] {
            assert_eq!(Size::write(&Size::read(&text(written)).expect(written)), text(written));
        }
        assert_eq!(Size::read(&text("1.5 MiB")), Ok(3 << 19));
        assert_eq!(Size::read(&text("64kB")), Ok(64_000));
        for wrong in [text("64"), text("KiB"), text("-1MiB"), text("1 parsec"), Value::Integer(64)] {
            assert!(Size::read(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_unlimited_or_a_number_a_second() {
        assert_eq!(Rate::read(&text("unlimited")), Ok(None));
        assert_eq!(Rate::read(&text("10/s")), Ok(Some(10.0)));
        assert_eq!(Rate::read(&text("0.5")), Ok(Some(0.5)));
        assert_eq!(Rate::read(&Value::Integer(50)), Ok(Some(50.0)));
        for wrong in [text("10/m"), text("0/s"), text("-1"), text("NaN"), text("inf"), Value::Boolean(true)] {
            assert!(Rate::read(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_limit_is_unlimited_or_a_number() {
        for (written, limit) in [("unlimited", None), ("3", Some(3))] {
            let value = Limit::of_text(written);
            assert_eq!(Limit::read(&value), Ok(limit));
            assert_eq!(Limit::write(&limit), value);
        }
        for wrong in ["0", "-1", "many", "1.5", ""] {
            assert!(Limit::read(&Limit::of_text(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_outside_the_file_is_comma_separated() {
        assert_eq!(List::read(&List::of_text("a, b,,c")), Ok(vec!["a".into(), "b".into(), "c".into()]));
        assert_eq!(List::read(&List::of_text("")), Ok(vec![]));
        assert!(List::read(&text("a")).is_err());
    }
}
