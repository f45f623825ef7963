//! docs/interface/http.md: routes, parameters and answers, from the description that the router itself goes by, and the problem codes
//! from their table.

use std::collections::BTreeSet;

use resaga::api::PROBLEMS;
use serde_json::{Map, Value};

use crate::pages::{check_file, code, generated, table};

const PAGE: &str = "docs/interface/http.md";
const OPENAPI: &str = include_str!("../../src/api/openapi.json");

const INTRO: &str = "\
`GET /openapi.json` is the same for programs (OpenAPI 3.1). Every process answers `/livez`, `/readyz` and `/metrics`; the other routes need
role `api`. Ids in a path are percent-encoded. Names, times and cursors: [common rules](../INTERFACE.md#common-rules). A parameter or
a member of a body that nobody reads is 400 `request_invalid` and the answer names the nearest one; a parameter may be given once unless
it is a list.

Who may ask: a POST or DELETE that a browser sends for a page of another site (`Sec-Fetch-Site` or `Origin` say so) is 403
`cross_origin`; a `Host` that is neither a loopback name, nor the listen address, nor one of `[api] hosts` is 421 `host_not_allowed`.
There is no authentication.
";

/// Codes that every route may give.
const EVERYWHERE: [&str; 7] =
    ["request_invalid", "cross_origin", "route_not_found", "method_not_allowed", "host_not_allowed", "unavailable", "bug"];
/// Codes of rules that this version does not have.
const RESERVED: [&str; 3] = ["saga_erased", "legal_hold", "override_missing"];

fn description() -> Value {
    serde_json::from_str(OPENAPI).expect("src/api/openapi.json is JSON")
}

#[test]
fn the_page_of_http_is_what_the_description_says() {
    let description = description();
    let mut out = generated("HTTP", "src/api/openapi.json and src/api/problem.rs");
    out += INTRO;
    out += "\n## Routes\n\n";
    let there = operations(&description);
    let row = |o: &Operation<'_>| vec![format!("[`{}`](#{})", o.title(), o.anchor()), text(&o.operation["summary"])];
    out += &table(&["route", ""], there.iter().map(row));
    for operation in &there {
        out += &operation.section();
    }
    out += "\n## Members of answers\n\nAn absent value is null, never missing.\n";
    for (name, schema) in members(&description["components"]["schemas"]) {
        out += &section_of_schema(name, schema);
    }
    out += "\n## Problem codes\n\n";
    out += "`code` is stable. Exit: of the [command line](cli.md#exit-codes) that met it. Not given yet: ";
    out += &format!("{}.\n\n", RESERVED.map(code).join(", "));
    let row = |problem: &resaga::api::ProblemCode| {
        let exit = resaga::cli::exit_code_of(problem.status);
        vec![code(problem.code), problem.status.to_string(), exit.to_string(), problem.hint.unwrap_or_default().to_owned()]
    };
    out += &table(&["code", "status", "exit", "hint"], PROBLEMS.iter().map(row));
    out +=
        "\n409 `request_invalid` (exit 6): the replay to be cancelled no longer waits. A problem with 503 has `Retry-After`.\n";
    check_file(PAGE, &out);
}

struct Operation<'d> {
    method: String,
    path: &'d str,
    operation: &'d Value,
}

fn operations(description: &Value) -> Vec<Operation<'_>> {
    let paths = members(&description["paths"]);
    let of_path = |(path, methods)| members(methods).into_iter().map(move |(method, operation)| (path, method, operation));
    let operation = |(path, method, operation): (_, &str, _)| Operation { method: method.to_uppercase(), path, operation };
    paths.into_iter().flat_map(of_path).map(operation).collect()
}

impl Operation<'_> {
    fn title(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn anchor(&self) -> String {
        let kept = self.title().to_lowercase();
        kept.chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    }

    fn section(&self) -> String {
        let mut out = format!("\n### {}\n\n{}\n", self.title(), text(&self.operation["summary"]));
        if !self.operation["description"].is_null() {
            out += &format!("\n{}\n", text(&self.operation["description"]));
        }
        let parameters = self.operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !parameters.is_empty() {
            let row = |p: &Value| {
                let place = match p["in"].as_str() {
                    Some("query") if p["schema"]["type"] == "array" => "query, may repeat".to_owned(),
                    _ => text(&p["in"]),
                };
                let schema = if p["schema"]["items"].is_null() { &p["schema"] } else { &p["schema"]["items"] };
                vec![code(&text(&p["name"])), place, kind(schema), text(&p["description"])]
            };
            out += &format!("\n{}", table(&["parameter", "in", "type", "meaning"], parameters.iter().map(row)));
        }
        if let Some(body) = schema_of(&self.operation["requestBody"]) {
            out += &format!("\nBody: {}\n", of_body(body));
        }
        out += "\n";
        for (status, answer) in members(&self.operation["responses"]).into_iter().filter(|(status, _)| *status != "default") {
            let shape = schema_of(answer).map(shown).filter(|shape| !shape.is_empty()).map(|shape| format!(" {shape}"));
            out += &format!("- {status}: {}{}\n", text(&answer["description"]), shape.unwrap_or_default());
            for (header, of) in members(&answer["headers"]) {
                out += &format!("  - header `{header}`: {}\n", text(&of["description"]));
            }
        }
        let problems = strings(&self.operation["x-problems"]);
        if !problems.is_empty() {
            let shown = problems.iter().map(|problem| format!("{} `{problem}`", status_of(problem)));
            out += &format!("- {}\n", shown.collect::<Vec<_>>().join(", "));
        }
        out
    }
}

fn status_of(code: &str) -> u16 {
    let known = PROBLEMS.iter().find(|problem| problem.code == code);
    known.unwrap_or_else(|| panic!("src/api/openapi.json: x-problems has {code}, which src/api/problem.rs does not know")).status
}

fn of_body(schema: &Value) -> String {
    let required = strings(&schema["required"]);
    let row = |(name, of): (&str, &Value)| {
        format!("`{name}`{} ({})", if required.contains(&name.to_owned()) { ", required" } else { "" }, kind(of))
    };
    match schema["externalDocs"]["url"].as_str() {
        Some(url) => format!("a [{}]({url}).", text(&schema["description"])),
        None => format!("{}.", members(&schema["properties"]).into_iter().map(row).collect::<Vec<_>>().join("; ")),
    }
}

fn section_of_schema(name: &str, schema: &Value) -> String {
    let mut out = format!("\n### {name}\n\n{}\n", text(&schema["description"]));
    if let Some(url) = schema["externalDocs"]["url"].as_str() {
        return format!("{out}\nMembers: [{}]({url}).\n", url.trim_end_matches(".md").replace('-', " "));
    }
    if !schema["enum"].is_null() {
        return format!("{out}\nOne of {}.\n", kind(schema));
    }
    let row = |(name, of): (&str, &Value)| vec![code(name), kind(of), text(&of["description"])];
    out += &format!("\n{}", table(&["member", "type", "meaning"], members(&schema["properties"]).into_iter().map(row)));
    out
}

/// An answer: the name of its shape, or its members.
fn shown(schema: &Value) -> String {
    if !schema["$ref"].is_null() {
        return kind(schema);
    }
    let members = members(&schema["properties"]).into_iter().map(|(name, of)| {
        let meaning = Some(text(&of["description"])).filter(|text| !text.is_empty()).map(|text| format!(": {text}"));
        format!("`{name}` ({}){}", kind(of), meaning.unwrap_or_default().trim_end_matches('.'))
    });
    let members: Vec<_> = members.collect();
    if members.is_empty() { String::new() } else { format!("{}.", members.join("; ")) }
}

/// What a value is, in words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|of| of.rsplit_once('/')) {
        return format!("[{0}](#{1})", name.1, name.1.to_lowercase());
    }
    if let Some(some) = schema["oneOf"].as_array() {
        let kinds: Vec<_> = some.iter().map(kind).collect();
        return kinds.join(" or ");
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(|v| v.as_str().map_or_else(|| "null".into(), code)).collect::<Vec<_>>().join(", ");
    }
    if let Some(value) = schema["const"].as_str() {
        return code(value);
    }
    let types = match &schema["type"] {
        Value::String(one) => vec![one.clone()],
        of => strings(of),
    };
    let one = |of: String| match of.as_str() {
        "array" => format!("list of {}", kind(&schema["items"])),
        "object" if !schema["additionalProperties"].is_null() => format!("object of {}", kind(&schema["additionalProperties"])),
        "object" if !schema["properties"].is_null() => {
            let inside = members(&schema["properties"]).into_iter().map(|(name, of)| format!("`{name}` {}", kind(of)));
            format!("object ({})", inside.collect::<Vec<_>>().join(", "))
        }
        "string" if schema["format"] == "date-time" => "time".to_owned(),
        "integer" if schema["maximum"].is_u64() => format!("integer, {} to {}", schema["minimum"], schema["maximum"]),
        _ => of,
    };
    let kinds: Vec<_> = types.into_iter().map(one).collect();
    let default = Some(&schema["default"]).filter(|default| !default.is_null()).map(|default| format!(", default {default}"));
    if kinds.is_empty() { "JSON".to_owned() } else { format!("{}{}", kinds.join(" or "), default.unwrap_or_default()) }
}

fn schema_of(answer: &Value) -> Option<&Value> {
    let schema = &answer["content"]["application/json"]["schema"];
    (!schema.is_null()).then_some(schema)
}

fn members(object: &Value) -> Vec<(&str, &Value)> {
    object.as_object().into_iter().flat_map(Map::iter).map(|(name, value)| (name.as_str(), value)).collect()
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[test]
fn each_problem_code_is_of_some_route() {
    let description = description();
    let named: BTreeSet<String> = operations(&description).iter().flat_map(|o| strings(&o.operation["x-problems"])).collect();
    for problem in PROBLEMS {
        let known = named.contains(problem.code) || EVERYWHERE.contains(&problem.code) || RESERVED.contains(&problem.code);
        assert!(known, "src/api/openapi.json: no x-problems has {}", problem.code);
    }
}

#[test]
fn the_answers_about_replays_have_the_members_of_their_records() {
    let description = description();
    for (schema, avro, left_out) in [("LogRecord", "ReplayLogEntry", "request"), ("RestoredSaga", "RestoredSaga", "")] {
        let described: Vec<_> = members(&description["components"]["schemas"][schema]["properties"])
            .into_iter()
            .map(|(name, _)| name.to_owned())
            .collect();
        let fields: Vec<_> = crate::records::fields(avro).into_iter().filter(|field| field != left_out).collect();
        assert_eq!(described, fields, "src/api/openapi.json, {schema}, against schemas/{avro}.avsc");
    }
}
