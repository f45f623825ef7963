//! The documents under test: what they point at is there, and what the code cites is in them.
//!
//! Reads text and nothing else; a finding names file, line and what is missing.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose Markdown files are documents, besides the top itself.
const DOCUMENTS: &[&str] = &["docs", "examples"];
/// Folders whose files may cite documents.
const CITING: &[&str] = &["src", "tests", "bench", "examples"];
/// What a path in a document may begin with; other words between backticks are no paths of this package.
const ROOTS: &[&str] = &["src/", "tests/", "bench/", "docs/", "examples/", "config/", "schemas/", "deploy/"];
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// From the top of the package, with `/`: the text of each file with one of these endings, in these folders.
fn files(folders: &[&str], endings: &[&str]) -> Vec<(String, String)> {
    let mut found: Vec<PathBuf> = Vec::new();
    folders.iter().for_each(|folder| collect(&top().join(folder), &mut found));
    found.sort();
    let wanted = |path: &&PathBuf| endings.iter().any(|ending| path.to_string_lossy().ends_with(ending));
    let named = found.iter().filter(wanted).map(|path| {
        let name = path.strip_prefix(top()).expect("found below it").to_string_lossy().replace('\\', "/");
        (name, fs::read_to_string(path).expect("read file"))
    });
    named.collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("read folder") {
        let path = entry.expect("read folder").path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn documents() -> Vec<(String, String)> {
    let at_the_top = fs::read_dir(top()).expect("read folder").map(|entry| entry.expect("read folder").path());
    let mut documents = files(DOCUMENTS, &[".md"]);
    for path in at_the_top.filter(|path| path.extension().is_some_and(|ending| ending == "md")) {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        documents.push((name, fs::read_to_string(&path).expect("read document")));
    }
    assert!(documents.len() > 5, "no documents found");
    documents
}

/// Lines outside of code fences, with their numbers.
fn lines(text: &str) -> Vec<(usize, &str)> {
    let mut in_fence = false;
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let is_fence = line.trim_start().starts_with("```");
        in_fence ^= is_fence;
        if !in_fence && !is_fence {
            lines.push((at + 1, line));
        }
    }
    lines
}

fn headings(text: &str) -> Vec<String> {
    let titles = lines(text).into_iter().filter(|(_, line)| line.starts_with('#'));
    titles.map(|(_, line)| line.trim_start_matches('#').trim().to_owned()).collect()
}

/// As GitHub names the place of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// `folder` and a relative path, without `..`.
fn resolve(folder: &str, relative: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    let anchors: HashMap<&str, Vec<String>> = documents
        .iter()
        .map(|(path, text)| (path.as_str(), headings(text).iter().map(|heading| anchor(heading)).collect()))
        .collect();
    let mut missing = Vec::new();
    for (path, text) in &documents {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (line, link) in links(text) {
            let (file, place) = link.split_once('#').map_or((link, None), |(file, place)| (file, Some(place)));
            let target = if file.is_empty() { path.clone() } else { resolve(folder, file) };
            if !top().join(&target).exists() {
                missing.push(format!("  {path}:{line}: {link}: no such file"));
            } else if let (Some(place), Some(anchors)) = (place, anchors.get(target.as_str()))
                && !anchors.iter().any(|anchor| anchor == place)
            {
                missing.push(format!("  {path}:{line}: {link}: {target} has no such heading"));
            }
        }
    }
    assert!(missing.is_empty(), "links that lead nowhere:\n{}", missing.join("\n"));
}

/// Targets of Markdown links that are no URLs; a link's text may go over lines.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    for (number, line) in lines(text) {
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            let target = rest.split(')').next().unwrap_or(rest);
            if !target.contains("://") {
                links.push((number, target));
            }
        }
    }
    links
}

#[test]
fn every_path_that_a_document_names_is_there() {
    let mut missing = Vec::new();
    for (path, text) in documents() {
        // What was done is history, and names files of then.
        if path == "CHANGELOG.md" {
            continue;
        }
        for (line, text) in lines(&text) {
            for word in text.split('`').skip(1).step_by(2) {
                let is_path = ROOTS.iter().any(|root| word.starts_with(root)) && !word.contains(['<', '*', ' ', '{']);
                let is_test = word.starts_with("test_") && path == "docs/fault-catalogue.md" && word.ends_with(".py");
                let named = if is_test { format!("tests/e2e/{word}") } else { word.to_owned() };
                // What is to be made is said to be new.
                if (is_path || is_test) && !text.contains("(new)") && !top().join(named.trim_end_matches('/')).exists() {
                    missing.push(format!("  {path}:{line}: {named}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "paths that documents name and that are not there:\n{}", missing.join("\n"));
}

#[test]
fn the_code_cites_headings_that_there_are() {
    let headings: HashMap<String, Vec<String>> = documents().iter().map(|(path, text)| (path.clone(), headings(text))).collect();
    let mut wrong = Vec::new();
    for (path, text) in files(CITING, &[".rs", ".py"]) {
        if path == "tests/links.rs" {
            continue;
        }
        // A comment may go over lines.
        let text = joined(&text);
        for (at, _) in text.match_indices(".md, ") {
            let begin = text[..at].rfind([' ', '(', '`', '"', '\n']).map_or(0, |before| before + 1);
            let document = &text[begin..at + 3];
            let rest = &text[at + 5..];
            match headings.get(document) {
                None if document.starts_with("docs/") && !document.contains('{') => {
                    wrong.push(format!("  {path}: {document}: no such document"))
                }
                None => {}
                Some(headings)
                    if !rest.starts_with(char::is_uppercase) || headings.iter().any(|h| rest.starts_with(h.as_str())) => {}
                Some(_) => {
                    let cited: String = rest.chars().take(40).collect();
                    wrong.push(format!("  {path}: {document}, {cited}: no such heading"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "citations of nothing:\n{}", wrong.join("\n"));
}

/// The text with each comment's lines joined to one.
fn joined(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    for line in text.lines().map(str::trim_start) {
        match ["//! ", "/// ", "// "].iter().find_map(|mark| line.strip_prefix(mark)) {
            Some(comment) => joined.push_str(comment),
            None => {
                joined.push('\n');
                joined.push_str(line);
            }
        }
        joined.push(' ');
    }
    joined
}

#[test]
fn the_scan_finds_what_it_looks_for() {
    assert_eq!(anchor("What runs, and `why`"), "what-runs-and-why");
    assert_eq!(resolve("docs/decisions", "../../src/a.rs"), "src/a.rs");
    assert_eq!(links("[a](b.md#c) [d](https://e) [f](#g)\n```\n[h](i)\n```\n"), [(1, "b.md#c"), (1, "#g")]);
    assert_eq!(headings("# A\n```\n# b\n```\n## C d\n"), ["A", "C d"]);
    assert!(joined("/// a (docs/X.md,\n/// Y z)\nfn f() {}\n").contains("docs/X.md, Y z"));
}
