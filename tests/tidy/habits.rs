//! How a file is written: its opening, its length, its names, where its tests are, what it cites.

use crate::check;
use crate::source::{module_folder, sources, texts};

const LONGEST_FILE: usize = 500;
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "manager", "types", "misc"];
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!", "TODO", "FIXME", "XXX"];

/// A log line's fields that others wrote. Positions, chains and codes are ours.
const WRITTEN_BY_OTHERS: &[&str] =
    &["saga", "saga_id", "replay_id", "request_id", "batch_id", "saga_name", "step", "event_id", "requested_by"];

#[test]
fn a_log_line_shows_what_others_wrote_cut_and_escaped() {
    check("a log line has a text that others wrote as it stands (docs/ARCHITECTURE.md, guarantees)", |source, found| {
        for (line, rest) in source.places("tracing::") {
            let call = rest.split(");").next().unwrap_or(rest);
            let words =
                |part: &str| part.split(|c: char| !(c.is_alphanumeric() || c == '_')).map(str::to_owned).collect::<Vec<_>>();
            // Fields come before the message, and stand between commas.
            for field in call.split(['(', ',']).filter(|field| !field.contains('"')) {
                let named = words(field).iter().any(|word| WRITTEN_BY_OTHERS.contains(&word.as_str()));
                if named && !call.contains("Shown") && !call.contains("shown()") {
                    found(line, format!("`{}`: use saga::position::Shown, or leave it out", field.trim()));
                }
            }
        }
    });
}

#[test]
fn nothing_unwraps_outside_of_tests() {
    check("`unwrap` outside of tests", |source, found| {
        for (at, _) in source.code.match_indices(".unwrap()") {
            found(source.line(at), "return the error, or `expect` with the reason why it cannot fail".into());
        }
    });
}

#[test]
fn files_fit_in_the_head() {
    check("a file is too long", |source, found| {
        let lines = source.whole.lines().count();
        if lines > LONGEST_FILE {
            found(lines, format!("{lines} lines; split it before {LONGEST_FILE}"));
        }
    });
}

#[test]
fn modules_say_what_they_are_for() {
    check("a file without its opening `//!` lines", |source, found| {
        if source.path != "src/main.rs" && !source.tests_only && !source.whole.starts_with("//!") {
            found(1, "open with 2-6 lines: what it is for, what it knows, what it must not know".into());
        }
    });
}

#[test]
fn names_mean_something() {
    check("a file or folder with an empty name", |source, found| {
        for part in source.path.trim_end_matches(".rs").split('/') {
            if EMPTY_NAMES.contains(&part) {
                found(1, format!("`{part}` says nothing: name it after what a newcomer would look for"));
            }
        }
    });
}

#[test]
fn nothing_is_left_unfinished() {
    check("unfinished code", |source, found| {
        for mark in UNFINISHED {
            for (at, line) in source.whole.lines().enumerate() {
                if line.contains(mark) {
                    found(at + 1, format!("`{mark}`"));
                }
            }
        }
    });
}

#[test]
fn a_module_with_submodules_is_a_folder_with_its_mod_rs() {
    let sources = sources();
    check("two module styles: move `name.rs` to `name/mod.rs` (CONTRIBUTING.md)", |source, found| {
        let folder = format!("{}/", module_folder(&source.path));
        let is_root = ["/mod.rs", "/lib.rs"].iter().any(|name| source.path.ends_with(name));
        if !is_root && sources.iter().any(|other| other.path.starts_with(&folder)) {
            found(1, format!("has a folder of its name beside it: move it to {folder}mod.rs"));
        }
    });
}

#[test]
fn tests_are_where_one_looks_for_them() {
    check("tests in another place than CONTRIBUTING.md says", |source, found| {
        let (folder, name) = source.path.rsplit_once('/').unwrap_or_default();
        if name == "tests.rs" {
            found(1, format!("tests of a whole folder are in {folder}/tests/mod.rs, those of one file in <file>_tests.rs"));
        }
        if let Some(of) = name.strip_suffix("_tests.rs") {
            let declares = format!("#[cfg(test)]\n#[path = \"{name}\"]\nmod tests;");
            let is_declared = texts(folder, &["rs"])
                .iter()
                .any(|(path, text)| *path == format!("{folder}/{of}.rs") && text.contains(&declares));
            if !is_declared {
                found(1, format!("end {folder}/{of}.rs with: {}", declares.replace('\n', " ")));
            }
        }
        // What is left are short tests at the end of the file that they are of.
        if let Some((at, tests)) = source.whole.split_once("\n#[cfg(test)]\nmod tests {\n")
            && tests.lines().position(|line| line == "}").is_some_and(|end| end + 1 < tests.lines().count())
        {
            found(at.lines().count() + 1, "something follows `mod tests`: tests are the end of their file".into());
        }
    });
}

/// Documents that are not part of the repository by these names: what is cited is `docs/ARCHITECTURE.md`,
/// `docs/INTERFACE.md` or `CONTRIBUTING.md`, with the heading.
const NOT_CITED: [&str; 3] = [concat!("DES", "IGN"), concat!("INTER", "FACE"), concat!("STY", "LE")];

#[test]
fn documents_are_cited_by_their_paths() {
    let files = ["src", "tests", "bench"]
        .into_iter()
        .flat_map(|folder| texts(folder, &["rs", "py", "c", "go", "java", "toml", "yaml", "ini", ""]));
    let mut report = String::new();
    for (path, text) in files {
        let is_cited = |line: &str| NOT_CITED.iter().any(|name| cites(line, name));
        let lines: Vec<usize> = text.lines().enumerate().filter(|(_, line)| is_cited(line)).map(|(at, _)| at + 1).collect();
        for at in lines {
            report.push_str(&format!(
                "  {path}:{at}: cite docs/ARCHITECTURE.md, docs/INTERFACE.md or CONTRIBUTING.md, with the heading\n"
            ));
        }
    }
    assert!(report.is_empty(), "a document is cited that is not in the repository:\n{report}");
}

/// Is the word there, other than as the name of a file in `docs/`?
fn cites(line: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let is_path = |before: &str| before.ends_with("docs/") || before.ends_with("](../");
    line.match_indices(name).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + name.len()..]);
        !(before.ends_with(is_part) || after.starts_with(is_part) || is_path(before) && after.starts_with(".md"))
    })
}

#[test]
fn a_citation_is_told_from_a_path() {
    let name = NOT_CITED[1];
    assert!(cites(&format!("as {name} 3 says"), name) && cites(&format!("({name})"), name));
    assert!(!cites(&format!("docs/{name}.md, Topics"), name) && !cites(&format!("{name}S"), name));
}
