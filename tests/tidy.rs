//! The source itself under test: the arrows and habits of the design that the compiler does not hold.
//!
//! Reads the text of `src/` and nothing else; a finding names file, line, rule and what to do instead.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Top-level module, and the others whose names it may say. `error`, `failpoint` and `nearest` are open to all.
const ARROWS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("failpoint", &[]),
    ("nearest", &[]),
    ("cpu", &[]),
    ("retry", &[]),
    ("saga", &[]),
    ("wire", &["saga"]),
    ("config", &["saga"]),
    ("telemetry", &["config"]),
    ("hot", &["saga", "wire", "config", "telemetry"]),
    ("cold", &["saga", "wire", "cpu", "config", "telemetry"]),
    ("kafka", &["saga", "wire", "config", "telemetry"]),
    ("schema_registry", &["wire", "kafka", "config", "telemetry"]),
    ("history", &["saga", "wire", "hot", "cold", "cpu", "config", "telemetry"]),
    ("partitioning", &["saga", "wire", "kafka", "schema_registry", "config"]),
    ("replay_log", &["saga", "wire", "cold", "kafka", "schema_registry", "history", "retry", "config", "telemetry"]),
    ("roles", BELOW_ROLES),
    ("api", &["saga", "wire", "history", "roles", "cpu", "config", "telemetry"]),
    ("serve", BELOW_SERVE),
    ("admin", BELOW_ADMIN),
    ("demo", &["saga", "wire", "kafka", "serve", "config", "telemetry"]),
    ("cli", &["saga", "wire", "serve", "admin", "demo", "config", "telemetry"]),
    ("main", EVERYTHING),
    ("lib", EVERYTHING),
];
const BELOW_ROLES: &[&str] = &[
    "cpu",
    "retry",
    "saga",
    "wire",
    "config",
    "telemetry",
    "hot",
    "cold",
    "kafka",
    "schema_registry",
    "history",
    "partitioning",
    "replay_log",
];
const BELOW_SERVE: &[&str] = &[
    "cpu",
    "retry",
    "saga",
    "wire",
    "config",
    "telemetry",
    "hot",
    "cold",
    "kafka",
    "schema_registry",
    "history",
    "partitioning",
    "replay_log",
    "roles",
    "api",
];
const BELOW_ADMIN: &[&str] = &[
    "cpu",
    "retry",
    "saga",
    "wire",
    "config",
    "telemetry",
    "hot",
    "cold",
    "kafka",
    "schema_registry",
    "history",
    "partitioning",
    "replay_log",
    "roles",
    "serve",
];
const EVERYTHING: &[&str] = &[
    "cpu",
    "retry",
    "saga",
    "wire",
    "config",
    "telemetry",
    "hot",
    "cold",
    "kafka",
    "schema_registry",
    "history",
    "partitioning",
    "replay_log",
    "roles",
    "api",
    "serve",
    "admin",
    "demo",
    "cli",
];
/// A crate, and the beginnings of the paths that may name it.
const VENDORS: &[(&str, &[&str])] = &[
    ("rdkafka", &["src/kafka/", "src/kafka.rs"]),
    // The module of that name is declared in hot/mod.rs.
    ("redis", &["src/hot/redis", "src/hot/mod.rs"]),
    ("parquet", &["src/cold/segment"]),
    ("aws_sdk_s3", &["src/cold/s3"]),
    ("aws_config", &["src/cold/s3"]),
    ("aws_smithy_http_client", &["src/cold/s3"]),
    ("axum", &["src/api/"]),
    ("clap", &["src/cli/", "src/main.rs"]),
    ("clap_complete", &["src/cli/"]),
    ("comfy_table", &["src/cli/"]),
    ("apache_avro", &["src/wire/"]),
    ("prometheus", &["src/telemetry.rs"]),
    ("tracing_subscriber", &["src/telemetry.rs"]),
];

/// What the pure modules may not say: the world outside comes in as arguments.
const IMPURE: &[&str] = &[
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "new_v4",
    "now_v7",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "tokio::",
    "println!",
    "eprintln!",
];

const LONGEST_FILE: usize = 500;
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "manager", "types", "misc"];
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!", "TODO", "FIXME", "XXX"];

struct Source {
    /// From the top of the package, with `/`.
    path: String,
    whole: String,
    /// Without comments and without the unit tests at the end; lines keep their numbers.
    code: String,
    /// A file that is compiled for tests only.
    tests_only: bool,
}

impl Source {
    fn module(&self) -> &str {
        let inside = self.path.trim_start_matches("src/");
        inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs")
    }

    /// Places of a word in the code that stands alone and is not a later part of a path: (line number, rest of the code from there).
    fn places<'a>(&'a self, word: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
        self.code.match_indices(word).filter_map(move |(at, _)| {
            let before = self.code[..at].chars().next_back();
            let free = before.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == ':'));
            free.then(|| (self.line(at), &self.code[at..]))
        })
    }

    fn line(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }
}

#[test]
fn arrows_point_downwards_only() {
    check("a module uses one that it must not know (DESIGN 7)", |source, found| {
        let Some((_, allowed)) = ARROWS.iter().find(|(module, _)| *module == source.module()) else {
            found(1, format!("module `{}` is not in ARROWS of tests/tidy.rs: say there what it may use", source.module()));
            return;
        };
        for (line, used) in used_modules(source) {
            if used != source.module()
                && used != "error"
                && EVERYTHING.contains(&used.as_str())
                && !allowed.contains(&used.as_str())
            {
                found(line, format!("`{}` must not use `{used}`; it may use {allowed:?}", source.module()));
            }
        }
    });
}

/// Names after `crate::`, also of a group `crate::{a::x, b}`, and after a `super::super::` that leaves the folder.
fn used_modules(source: &Source) -> Vec<(usize, String)> {
    let mut used = Vec::new();
    for prefix in ["crate::", "super::super::", "resaga::"] {
        for (line, rest) in source.places(prefix) {
            let rest = &rest[prefix.len()..];
            match rest.strip_prefix('{') {
                None => used.push((line, word(rest))),
                Some(group) => used.extend(heads(group).into_iter().map(|head| (line, head))),
            }
        }
    }
    used
}

/// The first names of the members of a `use` group, up to its closing brace.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut at_head) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_head = true,
            c if at_head && !c.is_whitespace() => {
                heads.push(word(&group[at..]));
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn each_vendor_crate_is_named_in_its_adapter_only() {
    check("a vendor crate is named outside of its adapter (DESIGN 7, rule 2)", |source, found| {
        for (vendor, homes) in VENDORS {
            if homes.iter().any(|home| source.path.starts_with(home)) {
                continue;
            }
            for (line, rest) in source.places(vendor) {
                let after = &rest[vendor.len()..];
                if after.starts_with("::") || after.starts_with(';') {
                    found(line, format!("`{vendor}` belongs in {homes:?}: put what you need behind a function there"));
                }
            }
        }
    });
}

/// A log line's fields that others wrote. Positions, chains and codes are ours.
const WRITTEN_BY_OTHERS: &[&str] =
    &["saga", "saga_id", "replay_id", "request_id", "batch_id", "saga_name", "step", "event_id", "requested_by"];

#[test]
fn a_log_line_shows_what_others_wrote_cut_and_escaped() {
    check("a log line has a text that others wrote as it stands (DESIGN 2, guarantee 8)", |source, found| {
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
fn only_config_reads_the_environment() {
    check("the environment is read outside of config.rs (DESIGN 7)", |source, found| {
        if source.module() == "config" {
            return;
        }
        for name in ["std::env::", "env::", "std::env;"] {
            for (line, rest) in source.places(name) {
                // Arguments are not the environment.
                if !rest[name.len()..].starts_with("args") {
                    found(line, "add the setting to config and take it as an argument".into());
                }
            }
        }
    });
}

#[test]
fn saga_and_wire_touch_nothing_outside() {
    check("a pure module does I/O, or reads a clock, randomness or the environment (DESIGN 7, rule 1)", |source, found| {
        if !matches!(source.module(), "saga" | "wire") {
            return;
        }
        for name in IMPURE {
            for (at, _) in source.code.match_indices(name) {
                found(source.line(at), format!("`{name}`: let it come in as an argument"));
            }
        }
    });
}

#[test]
fn nothing_unwraps_outside_of_tests() {
    check("`unwrap` outside of tests (STYLE 8)", |source, found| {
        for (at, _) in source.code.match_indices(".unwrap()") {
            found(source.line(at), "return the error, or `expect` with the reason why it cannot fail".into());
        }
    });
}

#[test]
fn files_fit_in_the_head() {
    check("a file is too long (STYLE 4)", |source, found| {
        let lines = source.whole.lines().count();
        if lines > LONGEST_FILE {
            found(lines, format!("{lines} lines; split it before {LONGEST_FILE}"));
        }
    });
}

#[test]
fn modules_say_what_they_are_for() {
    check("a file without its opening `//!` lines (STYLE 9)", |source, found| {
        if source.path != "src/main.rs" && !source.tests_only && !source.whole.starts_with("//!") {
            found(1, "open with 2-6 lines: what it is for, what it knows, what it must not know".into());
        }
    });
}

#[test]
fn names_mean_something() {
    check("a file or folder with an empty name (STYLE 3)", |source, found| {
        for part in source.path.trim_end_matches(".rs").split('/') {
            if EMPTY_NAMES.contains(&part) {
                found(1, format!("`{part}` says nothing: name it after what a newcomer would look for"));
            }
        }
    });
}

#[test]
fn nothing_is_left_unfinished() {
    check("unfinished code (STYLE 15)", |source, found| {
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
fn the_scan_finds_what_it_looks_for() {
    let source = parse(
        "src/saga/x.rs",
        "//! crate::hot::a\nuse crate::{cold::{b, c}, error::Error, wire};\nfn f() { crate::api::g().unwrap() } // redis::x\nuse redis::Client;\n\
         use super::super::kafka::K;\nuse crate::hot::redis::Y;\n#[cfg(test)]\nmod tests { use crate::roles; }\n",
        false,
    );
    let used: Vec<String> = used_modules(&source).into_iter().map(|(_, module)| module).collect();
    assert_eq!(used, ["cold", "error", "wire", "api", "hot", "kafka"]);
    assert_eq!(source.places("redis").map(|(line, _)| line).collect::<Vec<_>>(), [4]);
    assert_eq!(source.module(), "saga");
    assert_eq!(modules_of_tests("src/a/mod.rs", "#[cfg(test)]\nmod b;\nmod c;"), ["src/a/b.rs", "src/a/b/mod.rs"]);
}

/// Runs `rule` on every file and fails with all that it found.
fn check(what: &str, rule: impl Fn(&Source, &mut dyn FnMut(usize, String))) {
    let mut report = String::new();
    for source in sources() {
        rule(&source, &mut |line, message| {
            let _ = writeln!(report, "  {}:{line}: {message}", source.path);
        });
    }
    assert!(report.is_empty(), "{what}:\n{report}");
}

fn sources() -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&top.join("src"), &mut files);
    assert!(files.len() > 5, "no source found below {}", top.display());
    files.sort();
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|file| {
            let path = file.strip_prefix(top).expect("found below it").to_string_lossy().replace('\\', "/");
            (path, fs::read_to_string(file).expect("read source file"))
        })
        .collect();
    let tests_only: Vec<String> = texts.iter().flat_map(|(path, text)| modules_of_tests(path, text)).collect();
    texts.iter().map(|(path, text)| parse(path, text, tests_only.contains(path))).collect()
}

/// Paths of the files that `#[cfg(test)] mod name;` in this file stands for, or `#[cfg(test)] #[path = "name.rs"] mod tests;`.
fn modules_of_tests(path: &str, text: &str) -> Vec<String> {
    let beside = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let is_root = path.ends_with("/mod.rs") || path.ends_with("/lib.rs");
    let below = if is_root { beside } else { path.trim_end_matches(".rs") };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let declared = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]").filter_map(|pair| {
        if let Some(file) = pair[1].strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
            return Some(vec![format!("{beside}/{file}")]);
        }
        let name = pair[1].strip_suffix(';')?.rsplit_once("mod ")?.1;
        Some(vec![format!("{below}/{name}.rs"), format!("{below}/{name}/mod.rs")])
    });
    declared.flatten().collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for item in fs::read_dir(folder).expect("list source folder") {
        let path = item.expect("list source folder").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn parse(path: &str, whole: &str, tests_only: bool) -> Source {
    let mut code = String::with_capacity(whole.len());
    let mut in_tests = tests_only;
    let mut lines = whole.lines().peekable();
    while let Some(line) = lines.next() {
        let opens_tests = line.trim() == "#[cfg(test)]"
            && lines.peek().is_some_and(|next| next.trim_start().starts_with("mod ") && !next.trim_end().ends_with(';'));
        in_tests |= opens_tests;
        if !in_tests {
            code.push_str(without_comment(line));
        }
        code.push('\n');
    }
    Source { path: path.to_owned(), whole: whole.to_owned(), code, tests_only }
}

/// A line up to its comment; `//` after a `:` is part of a URL.
fn without_comment(line: &str) -> &str {
    let mut from = 0;
    while let Some(found) = line[from..].find("//") {
        let at = from + found;
        if !line[..at].ends_with(':') {
            return &line[..at];
        }
        from = at + 2;
    }
    line
}
