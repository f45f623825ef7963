//! The tree of a saga's replays as text and as a graph (Graphviz DOT). Only draws what the route answered.

use std::fmt::Write;

use serde_json::Value;

use super::output::visible;

/// Members of a replay that a line names, where they have a value.
const NAMED: &[(&str, &str)] = &[
    ("runs as", "executed_as"),
    ("undone by", "undone_by"),
    ("batch", "batch_id"),
    ("schedule", "schedule_id"),
    ("by", "requested_by"),
    ("reason", "reason"),
];

fn member<'n>(node: &'n Value, name: &str) -> Option<&'n str> {
    node[name].as_str()
}

/// Where the replay was undone, or that is asked for: the status of its record.
fn undo(node: &Value) -> Option<&str> {
    member(node, "replay_status").filter(|_| member(node, "undone_by").is_some())
}

/// One node: saga, status and resume step, and what became of the replay that made it.
pub fn line(node: &Value) -> String {
    let text = |name| member(node, name).unwrap_or("-");
    let mut line = format!("{}  {}  {}", text("saga_id"), text("status"), text("resume_step"));
    if let Some(status) = member(node, "replay_status") {
        let _ = write!(line, "  replay {status}");
        if let Some(outcome) = member(node, "outcome").filter(|outcome| *outcome != status) {
            let _ = write!(line, " after {outcome}");
        }
    }
    if member(node, "mode") == Some("compensate") {
        line.push_str("  mode compensate");
    }
    for (name, value) in NAMED.iter().filter_map(|(name, of)| Some((name, member(node, of)?))) {
        let _ = write!(line, "  {name} {value}");
    }
    visible(&line)
}

/// Of a node, by how its replay ended, else by what its saga does.
fn colour(node: &Value) -> &'static str {
    match member(node, "outcome").or_else(|| member(node, "status")) {
        Some("completed") => "palegreen",
        Some("failed") => "lightcoral",
        Some("compensated") => "khaki",
        Some("saga_cancelled" | "cancelled") => "lightgrey",
        Some(_) => "lightblue",
        None => "white",
    }
}

/// In a quoted label: what DOT reads as an escape or an entity stands for itself, and no control character is left.
fn label(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in visible(text).replace('\\', "\\\\").chars() {
        match c {
            '"' => escaped.push_str("\\\""),
            '&' => escaped.push_str("&amp;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The whole tree as a graph: an edge for each replay, and a dashed one back for each undo. Nodes are numbered, since ids may be any
/// text.
pub fn dot(root: &Value) -> String {
    let mut text = String::from("digraph lineage {\n  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\"];\n");
    let mut waiting: Vec<(Option<usize>, &Value)> = vec![(None, root)];
    let mut number = 0;
    while let Some((parent, node)) = waiting.pop() {
        let lines: Vec<String> = ["saga_id", "status", "outcome"]
            .into_iter()
            .filter_map(|name| member(node, name).map(|value| (name, value)))
            .filter(|(name, value)| *name != "outcome" || member(node, "status") != Some(value))
            .map(|(name, value)| if name == "outcome" { format!("replay {}", label(value)) } else { label(value) })
            .collect();
        let _ = writeln!(text, "  n{number} [label=\"{}\", fillcolor={}];", lines.join("\\n"), colour(node));
        if let Some(parent) = parent {
            let steps = [member(node, "resume_step"), member(node, "mode").filter(|mode| *mode != "resume")];
            let steps: Vec<String> = steps.into_iter().flatten().map(label).collect();
            let _ = writeln!(text, "  n{parent} -> n{number} [label=\"{}\"];", steps.join("\\n"));
            if let Some(undo) = undo(node) {
                let _ = writeln!(text, "  n{number} -> n{parent} [label=\"{}\", style=dashed, constraint=false];", label(undo));
            }
        }
        let children = node["children"].as_array().map(Vec::as_slice).unwrap_or_default();
        waiting.extend(children.iter().rev().map(|child| (Some(number), child)));
        number += 1;
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tree() -> Value {
        let undone = json!({"saga_id": "new", "status": "compensated", "resume_step": "charge", "mode": "resume", "replay_status": "undone",
            "outcome": "completed", "executed_as": null, "undone_by": "u-1", "batch_id": "b-1", "schedule_id": null, "requested_by": "ops",
            "reason": "INC-1", "children": []});
        let compensates = json!({"saga_id": "n\\2\"\n&lt;", "status": null, "resume_step": null, "mode": "compensate",
            "replay_status": "published", "outcome": null, "undone_by": null, "requested_by": "ops", "reason": "x", "children": []});
        json!({"saga_id": "order-1", "status": "failed", "resume_step": null, "replay_status": null, "outcome": null,
            "children": [undone, compensates]})
    }

    #[test]
    fn a_line_says_what_became_of_the_replay_and_leaves_out_what_is_not_there() {
        let tree = tree();
        assert_eq!(line(&tree), "order-1  failed  -");
        assert_eq!(
            line(&tree["children"][0]),
            "new  compensated  charge  replay undone after completed  undone by u-1  batch b-1  by ops  reason INC-1"
        );
        assert_eq!(line(&tree["children"][1]), "n\\2\"\\n&lt;  -  -  replay published  mode compensate  by ops  reason x");
    }

    #[test]
    fn a_graph_has_an_edge_for_each_replay_a_dashed_one_for_each_undo_and_no_id_that_is_read_as_dot() {
        let drawn = dot(&tree());
        assert_eq!(
            drawn.lines().skip(2).collect::<Vec<_>>(),
            [
                r#"  n0 [label="order-1\nfailed", fillcolor=lightcoral];"#,
                r#"  n1 [label="new\ncompensated\nreplay completed", fillcolor=palegreen];"#,
                r#"  n0 -> n1 [label="charge"];"#,
                r#"  n1 -> n0 [label="undone", style=dashed, constraint=false];"#,
                r#"  n2 [label="n\\2\"\\n&amp;lt;", fillcolor=white];"#,
                r#"  n0 -> n2 [label="compensate"];"#,
                "}",
            ]
        );
    }
}
