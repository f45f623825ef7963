//! Data on stdout in the format asked for; everything else goes to stderr. A reader that left is no error.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value;

use super::exit::{Exit, Failure};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
    Jsonl,
    Yaml,
    Csv,
}

/// Heading and JSON pointer of a column.
pub type Column = (&'static str, &'static str);

impl Format {
    pub fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Jsonl)
    }

    /// An answer whose `member` is a list.
    pub fn list(self, answer: &Value, member: &str, columns: &[Column]) -> Result<(), Failure> {
        let items = answer[member].as_array().map(Vec::as_slice).unwrap_or_default();
        let rows = || items.iter().map(|item| columns.iter().map(|(_, pointer)| cell(item.pointer(pointer))).collect::<Vec<_>>());
        let headings = columns.iter().map(|(heading, _)| *heading);
        let text = match self {
            Self::Json => pretty(answer),
            Self::Yaml => yaml(answer)?,
            Self::Jsonl => items.iter().map(|item| format!("{item}\n")).collect(),
            Self::Csv => csv(headings, rows())?,
            Self::Table => table(headings.map(|heading| heading.to_uppercase()), rows()),
        };
        print(&text)?;
        if let Some(cursor) = answer["next"].as_str() {
            note(&format!("there is more: --after {cursor}"));
        }
        if let Some(time) = answer["complete_through"].as_str() {
            note(&format!("complete through {time}"));
        }
        Ok(())
    }

    /// One object; as a table its `fields` that are not null, one a line.
    pub fn object(self, answer: &Value, fields: &[Column]) -> Result<(), Failure> {
        let text = match self {
            Self::Json => pretty(answer),
            Self::Jsonl => format!("{answer}\n"),
            Self::Yaml => yaml(answer)?,
            Self::Csv => {
                csv(fields.iter().map(|(heading, _)| *heading), [fields.iter().map(|(_, p)| cell(answer.pointer(p))).collect()])?
            }
            Self::Table => {
                let width = fields.iter().map(|(heading, _)| heading.len()).max().unwrap_or_default();
                let shown =
                    fields.iter().map(|(heading, pointer)| (heading, answer.pointer(pointer).filter(|value| !is_empty(value))));
                shown
                    .filter(|(_, value)| value.is_some())
                    .map(|(heading, value)| format!("{heading:width$}  {}\n", cell(value)))
                    .collect()
            }
        };
        print(&text)
    }
}

impl Format {
    /// A tree of nodes with `children`; as a table one node a line, indented. As CSV it has no shape of its own: JSON.
    pub fn tree(self, root: &Value, line: impl Fn(&Value) -> String) -> Result<(), Failure> {
        match self {
            Self::Json | Self::Csv => print(&pretty(root)),
            Self::Jsonl => print(&format!("{root}\n")),
            Self::Yaml => print(&yaml(root)?),
            Self::Table => {
                let mut text = String::new();
                let mut waiting = vec![(0, root)];
                while let Some((depth, node)) = waiting.pop() {
                    text += &format!("{}{}\n", "  ".repeat(depth), line(node));
                    let children = node["children"].as_array().map(Vec::as_slice).unwrap_or_default();
                    waiting.extend(children.iter().rev().map(|child| (depth + 1, child)));
                }
                print(&text)
            }
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

/// A value on one line: texts bare, lists of texts joined, no control characters (an id may hold an escape sequence).
fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        Some(other) => other.to_string(),
    };
    visible(&text)
}

/// Control characters as escapes, for a terminal.
pub fn visible(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn table(headings: impl Iterator<Item = String>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings.collect::<Vec<_>>()).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn csv<'a>(headings: impl Iterator<Item = &'a str>, rows: impl IntoIterator<Item = Vec<String>>) -> Result<String, Failure> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    let broken = |e: ::csv::Error| Failure::new(Exit::Other, "output", format!("write CSV: {e}"));
    writer.write_record(headings).map_err(broken)?;
    for row in rows {
        writer.write_record(row).map_err(broken)?;
    }
    let bytes = writer.into_inner().map_err(|e| Failure::new(Exit::Other, "output", format!("write CSV: {e}")))?;
    String::from_utf8(bytes).map_err(|e| Failure::new(Exit::Other, "output", format!("write CSV: {e}")))
}

fn yaml(value: &Value) -> Result<String, Failure> {
    serde_saphyr::to_string(&Plain(value)).map_err(|e| Failure::new(Exit::Other, "output", format!("write YAML: {e}")))
}

/// JSON for other formats: numbers as they can hold them, and as text where that would change their digits.
struct Plain<'a>(&'a Value);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(number), _, _) => serializer.serialize_i64(number),
                (_, Some(number), _) => serializer.serialize_u64(number),
                (_, _, Some(float)) if float.to_string() == number.to_string() => serializer.serialize_f64(float),
                _ => serializer.serialize_str(&number.to_string()),
            },
            Value::Array(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(&Plain(item)))?;
                list.end()
            }
            Value::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                members.iter().try_for_each(|(name, value)| map.serialize_entry(name, &Plain(value)))?;
                map.end()
            }
            other => other.serialize(serializer),
        }
    }
}

/// Writes data to stdout.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Other, "output", format!("write to stdout: {e}")))
        }
        _ => Ok(()),
    }
}

/// Says something that is no data. Nobody may be listening.
pub fn note(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_never_moves_the_cursor_of_a_terminal() {
        assert_eq!(cell(Some(&Value::from("a\u{1b}[2J\nb"))), "a\\u{1b}[2J\\nb");
        assert_eq!(cell(Some(&serde_json::json!(["a", "b"]))), "a, b");
        assert_eq!(cell(None), "");
    }

    #[test]
    fn numbers_keep_their_text_in_every_format() {
        let value: Value = serde_json::from_str(r#"{"a":1.10,"b":12345678901234567890123,"c":-3,"d":0.5}"#).expect("JSON");
        assert!(pretty(&value).contains("1.10"));
        let yaml = yaml(&value).expect("YAML");
        assert!(yaml.contains("1.10") && yaml.contains("12345678901234567890123") && yaml.contains("c: -3"), "{yaml}");
        assert!(!yaml.contains("private"), "{yaml}");
    }

    #[test]
    fn a_table_is_columns_and_nothing_else() {
        let rows = vec![vec!["order-1".to_owned(), "failed".to_owned()], vec!["o".to_owned(), "completed".to_owned()]];
        let text = table(["SAGA".to_owned(), "STATUS".to_owned()].into_iter(), rows.into_iter());
        assert_eq!(text, "SAGA     STATUS\norder-1  failed\no        completed\n");
    }
}
