//! Who may use whom: the layers, files without circles, vendor crates in their adapters, and what pure code may not touch.

use std::fmt::Write as _;

use crate::check;
use crate::imports::{Arrow, Modules, circles};
use crate::source::{Source, modules_of_tests, parse, sources};

/// What a top-level module may use besides itself and [`OPEN_TO_ALL`].
enum Uses {
    Only(&'static [&'static str]),
    AllBelow,
    AllBelowBut(&'static [&'static str]),
}
use Uses::{AllBelow, AllBelowBut, Only};

const OPEN_TO_ALL: [&str; 5] = ["error", "failpoint", "nearest", "cpu", "retry"];

/// The layers, lowest first: a module may use such as stand before it.
const ARROWS: &[(&str, Uses)] = &[
    ("error", Only(&[])),
    ("failpoint", Only(&[])),
    ("nearest", Only(&[])),
    ("cpu", Only(&[])),
    ("retry", Only(&[])),
    ("saga", Only(&[])),
    ("wire", Only(&["saga"])),
    ("config", Only(&["saga"])),
    ("expression", Only(&["saga", "wire"])),
    ("telemetry", Only(&["saga", "config"])),
    ("hot", Only(&["saga", "wire", "config", "telemetry"])),
    ("cold", Only(&["saga", "wire", "config", "telemetry"])),
    ("kafka", Only(&["saga", "wire", "config", "telemetry"])),
    ("schema_registry", Only(&["saga", "wire"])),
    ("history", Only(&["saga", "wire", "hot", "cold", "config", "telemetry"])),
    ("partitioning", Only(&["saga", "wire", "kafka", "schema_registry", "config"])),
    ("replay_log", AllBelowBut(&["hot", "partitioning"])),
    ("roles", AllBelow),
    ("api", Only(&["saga", "wire", "history", "roles", "config", "telemetry"])),
    ("serve", AllBelow),
    ("admin", AllBelowBut(&["api"])),
    ("demo", Only(&["saga", "wire", "kafka", "serve", "config", "telemetry"])),
    ("cli", Only(&["saga", "wire", "api", "serve", "admin", "demo", "config", "telemetry"])),
    ("main", AllBelow),
    ("lib", AllBelow),
];

/// `None`: no such module.
fn allowed(module: &str) -> Option<Vec<&'static str>> {
    let at = ARROWS.iter().position(|(name, _)| *name == module)?;
    let below = ARROWS[..at].iter().map(|(name, _)| *name);
    let mut allowed: Vec<&str> = match &ARROWS[at].1 {
        Only(names) => names.to_vec(),
        AllBelow => below.collect(),
        AllBelowBut(others) => below.filter(|name| !others.contains(name)).collect(),
    };
    allowed.extend(OPEN_TO_ALL);
    Some(allowed)
}

/// A crate, and the beginnings of the paths that may name it.
const VENDORS: &[(&str, &[&str])] = &[
    ("rdkafka", &["src/kafka/"]),
    ("jaq_core", &["src/expression/"]),
    ("redis", &["src/hot/redis/"]),
    ("parquet", &["src/cold/segment"]),
    ("aws_sdk_s3", &["src/cold/s3"]),
    ("aws_config", &["src/cold/s3"]),
    ("aws_smithy_http_client", &["src/cold/s3"]),
    ("axum", &["src/api/"]),
    ("clap", &["src/cli/"]),
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

#[test]
fn the_layers_are_listed_lowest_first() {
    for (at, (module, uses)) in ARROWS.iter().enumerate() {
        let (Only(names) | AllBelowBut(names)) = uses else { continue };
        for name in *names {
            assert!(ARROWS[..at].iter().any(|(below, _)| below == name), "`{module}` names `{name}`, which is not below it");
        }
    }
}

#[test]
fn arrows_point_downwards_only() {
    check("a module uses one that it must not know (docs/ARCHITECTURE.md)", |source, found| {
        let Some(allowed) = allowed(source.module()) else {
            found(1, format!("module `{}` is not in ARROWS of tests/tidy/arrows.rs: say there what it may use", source.module()));
            return;
        };
        for (line, used) in used_modules(source) {
            let is_module = ARROWS.iter().any(|(module, _)| *module == used);
            if is_module && used != source.module() && !allowed.contains(&used.as_str()) {
                found(line, format!("`{}` must not use `{used}`; it may use {allowed:?}", source.module()));
            }
        }
    });
}

/// Arrows that close a circle of files today. Whoever takes one away takes its line away; there is never a new one.
#[rustfmt::skip]
const CLOSES_A_CIRCLE: &[(&str, &str, &str)] = &[
];

#[test]
fn files_that_use_each_other_in_circles_become_fewer() {
    let sources = sources();
    let mut arrows = Modules::new(&sources).arrows();
    let all = arrows.clone();
    let mut report = String::new();
    for (from, to, why) in CLOSES_A_CIRCLE {
        let arrow: Arrow = (format!("src/{from}"), format!("src/{to}"));
        arrows.remove(&arrow);
        if !circles(all.keys()).iter().any(|circle| has(circle, &arrow)) {
            let _ = writeln!(report, "  {from} -> {to} ({why}): closes no circle any more, take it out of CLOSES_A_CIRCLE");
        }
    }
    for circle in circles(arrows.keys()) {
        let next = circle.iter().cycle().skip(1);
        let steps = circle.iter().zip(next).map(|(from, to)| {
            let by = &arrows[&(from.clone(), to.clone())];
            format!("\n    {from} uses {to} by `{by}`")
        });
        let _ = writeln!(report, "  a circle of files: put what both need in a file below them{}", steps.collect::<String>());
    }
    assert!(report.is_empty(), "files use each other in circles (CONTRIBUTING.md):\n{report}");
}

/// Is the arrow one of the circle's?
fn has(circle: &[String], (from, to): &Arrow) -> bool {
    circle.iter().zip(circle.iter().cycle().skip(1)).any(|(one, other)| one == from && other == to)
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
    check("a vendor crate is named outside of its adapter", |source, found| {
        for (vendor, homes) in VENDORS {
            if homes.iter().any(|home| source.path.starts_with(home)) {
                continue;
            }
            for (line, rest) in source.places(vendor) {
                // A module of that name is its adapter.
                if source.code[..source.code.len() - rest.len()].ends_with("mod ") {
                    continue;
                }
                let after = &rest[vendor.len()..];
                if after.starts_with("::") || after.starts_with(';') {
                    found(line, format!("`{vendor}` belongs in {homes:?}: put what you need behind a function there"));
                }
            }
        }
    });
}

#[test]
fn only_config_reads_the_environment() {
    check("the environment is read outside of config.rs", |source, found| {
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
    check("a pure module does I/O, or reads a clock, randomness or the environment", |source, found| {
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
fn names_of_modules_are_found_in_the_code() {
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
