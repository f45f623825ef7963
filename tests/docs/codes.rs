//! Tables of codes in pages that are written by hand: they have the codes that the code has, and each code that is given somewhere in
//! src/ is on a page.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use resaga::api::PROBLEMS;
use resaga::saga::event::Kind;
use resaga::saga::plan::REFUSALS;
use resaga::saga::request::{CommandName, ReplayStatus};
use resaga::saga::state::{Anomaly, Status};
use resaga::telemetry::Alarm;

use crate::pages::{check_rows, pages, quoted, read};

#[test]
fn the_tables_of_codes_are_whole() {
    let events = "docs/interface/events.md";
    check_rows(events, "kinds", Kind::ALL.map(Kind::as_str));
    check_rows(events, "statuses", Status::ALL.map(Status::as_str));
    check_rows(events, "anomalies", Anomaly::ALL.map(Anomaly::as_str));
    check_rows("docs/interface/requests.md", "refusals", REFUSALS);
    check_rows("docs/interface/requests.md", "commands", CommandName::ALL.map(CommandName::as_str));
    check_rows("docs/interface/replay-log.md", "statuses", ReplayStatus::ALL.map(ReplayStatus::as_str));
    check_rows("docs/interface/codes.md", "alarms", Alarm::ALL.map(Alarm::code));
}

#[test]
fn each_refusal_has_a_status() {
    for code in REFUSALS {
        assert!(PROBLEMS.iter().any(|problem| problem.code == code), "src/api/problem.rs: PROBLEMS has no {code}");
    }
}

#[test]
fn each_alarm_is_raised_somewhere() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    for alarm in Alarm::ALL {
        let given = |text: &str| text.contains(&format!("\"{}\"", alarm.code())) || text.contains(&format!("Alarm::{alarm:?}"));
        let places = sources.iter().filter(|(path, text)| !path.ends_with("telemetry.rs") && given(text));
        assert!(places.count() > 0, "nothing raises the alarm {}", alarm.code());
    }
}

/// What stands before a code where one is given.
const GIVEN: [&str; 7] =
    ["refused(\"", "invalid(\"", "dead(\"", "Refusal::new(\"", "code: \"", "StatusCode::", "_CODE: &str = \""];

#[test]
fn each_code_that_is_given_is_on_a_page() {
    let on_pages: BTreeSet<String> = pages().iter().flat_map(|page| quoted(&read(page))).collect();
    let mut lacking = BTreeSet::new();
    for (path, text) in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        for code in given(&text) {
            if !on_pages.contains(&code) {
                lacking.insert(format!("{code} ({path})"));
            }
        }
    }
    assert!(lacking.is_empty(), "codes that no page below docs/interface has in back quotes:\n{lacking:#?}");
}

/// Codes of a source file, its tests aside.
fn given(text: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let mut codes = BTreeSet::new();
    for before in GIVEN {
        for rest in text.split(before).skip(1) {
            // Of calls with more before it: the first literal of the line.
            let literal = if before.ends_with('"') {
                rest.split('"').next()
            } else {
                rest.lines().next().and_then(|line| line.split('"').nth(1))
            };
            let is_code = |text: &&str| text.len() > 2 && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            codes.extend(literal.filter(is_code).map(str::to_owned));
        }
    }
    codes
}

fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for item in fs::read_dir(folder).expect("list src") {
        let path = item.expect("list src").path();
        let name = path.to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if name.ends_with(".rs")
            && !name.ends_with("tests.rs")
            && !name.ends_with("testing.rs")
            && !name.contains("/tests/")
        {
            found.push((name, fs::read_to_string(&path).expect("read source")));
        }
    }
    found
}

#[test]
fn the_scan_finds_codes() {
    let text =
        "Error::refused(\"a_b\", x); Problem::new(StatusCode::GONE, \"c_d\", y)\n#[cfg(test)]\nmod tests {\n refused(\"e_f\")";
    assert_eq!(given(text).into_iter().collect::<Vec<_>>(), ["a_b", "c_d"]);
}
