//! Every answer of the router held to the description (src/api/openapi.json): its status, and of JSON exactly the members.

use std::sync::LazyLock;

use serde_json::Value;

static DESCRIPTION: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../src/api/openapi.json")).expect("the description is JSON"));

/// Panics where an answer is not what the description says of its route.
pub fn check(method: &str, path: &str, status: u16, text: &str) {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let Some(operation) = operation(method, path) else { return };
    let Some(answer) = operation["responses"].get(status.to_string()) else {
        let answer: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{method} {path}: {status}: {e}: {text}"));
        return is_described(method, path, &DESCRIPTION["components"]["schemas"]["Problem"], &answer, "");
    };
    let schema = &answer["content"]["application/json"]["schema"];
    if !schema.is_null() {
        let answer: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{method} {path}: {e}: {text}"));
        is_described(method, path, schema, &answer, "");
    }
}

/// Of the route that the path has; ids stand for any part.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |route: &str| {
        let route: Vec<&str> = route.split('/').collect();
        route.len() == parts.len() && route.iter().zip(&parts).all(|(route, part)| route == part || *route == "{id}")
    };
    let paths = DESCRIPTION["paths"].as_object()?;
    paths.iter().find(|(route, _)| fits(route))?.1.get(method.to_lowercase())
}

fn is_described(method: &str, path: &str, schema: &Value, value: &Value, at: &str) {
    let wrong = |what: &str| panic!("{method} {path}: answer{at}: {what}\n  described: {schema}\n  answered: {value}");
    if let Some(name) = schema["$ref"].as_str().and_then(|of| of.rsplit_once('/')) {
        return is_described(method, path, &DESCRIPTION["components"]["schemas"][name.1], value, at);
    }
    if let Some(some) = schema["oneOf"].as_array() {
        let null = some.iter().any(|one| one["type"] == "null");
        return match some.iter().find(|one| one["type"] != "null").filter(|_| !value.is_null()) {
            Some(one) => is_described(method, path, one, value, at),
            None if null && value.is_null() => {}
            None => wrong("null is not described"),
        };
    }
    let types = match &schema["type"] {
        Value::Null => &[][..],
        Value::Array(types) => types,
        one => std::slice::from_ref(one),
    };
    let is = |name: &Value| match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        _ => value.is_null(),
    };
    if !types.is_empty() && !types.iter().any(is) {
        wrong("another type is described");
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        wrong("another value is described");
    }
    if let (Some(properties), Some(members)) = (schema["properties"].as_object(), value.as_object()) {
        if !properties.keys().eq(members.keys()) {
            wrong("other members are described, or in another order");
        }
        for (name, value) in members {
            is_described(method, path, &properties[name], value, &format!("{at}/{name}"));
        }
    }
    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
        if !schema["items"].is_null() {
            is_described(method, path, &schema["items"], item, &format!("{at}/{number}"));
        }
    }
}
