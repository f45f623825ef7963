//! Pages as files: compared or written whole, and read by their marks (`<!-- example: name -->` before a fenced block,
//! `<!-- rows: name -->` before a table).

use std::fs;
use std::path::{Path, PathBuf};

/// Set to 1: pages are written instead of compared.
const UPDATE: &str = "RESAGA_UPDATE_DOCS";
const HOW: &str = "RESAGA_UPDATE_DOCS=1 cargo test --test docs";

/// The first line of a generated page.
pub fn generated(title: &str, from: &str) -> String {
    format!("# {title}\n\n<!-- Generated from {from} by tests/docs. Do not edit: change the code and run\n     {HOW} -->\n\n")
}

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn read(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn updates() -> bool {
    std::env::var(UPDATE).is_ok_and(|value| value == "1")
}

/// Is the file at `path` this text?
pub fn check_file(path: &str, rendered: &str) {
    let found = fs::read_to_string(file(path)).unwrap_or_default();
    if found == rendered {
        return;
    }
    if updates() {
        fs::write(file(path), rendered).unwrap_or_else(|e| panic!("{path}: {e}"));
        return;
    }
    panic!("{path} is not what the code says. Write it by: {HOW}\n{}", first_difference(&found, rendered));
}

/// Is the fenced block behind this mark this text?
pub fn check_example(path: &str, name: &str, rendered: &str) {
    let page = read(path);
    let (from, to) = fence(path, &page, name);
    let rendered = rendered.trim_end();
    if page[from..to].trim_end() == rendered {
        return;
    }
    if updates() {
        let written = format!("{}{rendered}\n{}", &page[..from], &page[to..]);
        fs::write(file(path), written).unwrap_or_else(|e| panic!("{path}: {e}"));
        return;
    }
    let difference = first_difference(&page[from..to], rendered);
    panic!("{path}: example {name} is not what the code gives. Write it by: {HOW}\n{difference}");
}

/// What is in the fenced block behind this mark.
pub fn example(path: &str, name: &str) -> String {
    let page = read(path);
    let (from, to) = fence(path, &page, name);
    page[from..to].to_owned()
}

fn fence(path: &str, page: &str, name: &str) -> (usize, usize) {
    let inside = || {
        let mark = page.find(&format!("<!-- example: {name} -->"))?;
        let opening = mark + page[mark..].find("```")?;
        let from = opening + page[opening..].find('\n')? + 1;
        Some((from, from + page[from..].find("```")?))
    };
    inside().unwrap_or_else(|| panic!("{path} has no fenced block behind `<!-- example: {name} -->`"))
}

/// The names in back quotes in the first cells of the table behind this mark.
pub fn rows(path: &str, name: &str) -> Vec<String> {
    let page = read(path);
    let mark = format!("<!-- rows: {name} -->");
    let (_, rest) = page.split_once(&mark).unwrap_or_else(|| panic!("{path} has no table behind `{mark}`"));
    let lines = rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    lines.skip(2).flat_map(|line| quoted(line.split('|').nth(1).unwrap_or_default())).collect()
}

/// Words in back quotes.
pub fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Has the table these names, in this order?
pub fn check_rows<T: AsRef<str>>(path: &str, name: &str, wanted: impl IntoIterator<Item = T>) {
    let (found, wanted) = (rows(path, name), wanted.into_iter().map(|name| name.as_ref().to_owned()).collect::<Vec<_>>());
    let lacking: Vec<_> = wanted.iter().filter(|name| !found.contains(name)).collect();
    let strange: Vec<_> = found.iter().filter(|name| !wanted.contains(name)).collect();
    assert!(
        found == wanted,
        "{path}: edit the table behind `<!-- rows: {name} -->`: it has no row for {lacking:?}, rows that the code does not know \
         {strange:?}; the order is\n{wanted:?}"
    );
}

fn first_difference(page: &str, code: &str) -> String {
    let number = page.lines().zip(code.lines()).take_while(|(page, code)| page == code).count();
    let line = |text: &str| text.lines().nth(number).unwrap_or("(it ends here)").to_owned();
    format!("line {}:\n  page: {}\n  code: {}", number + 1, line(page), line(code))
}

/// A Markdown table; cells with `|` are escaped.
pub fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut out = format!("| {} |\n|{}\n", headings.join(" | "), "---|".repeat(headings.len())).replace("|  |", "| |");
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
        out += &format!("| {} |\n", cells.join(" | ")).replace("|  |", "| |").replace("|  |", "| |");
    }
    out
}

pub fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

/// docs/INTERFACE.md and the pages below it.
pub fn pages() -> Vec<String> {
    let folder = fs::read_dir(file("docs/interface")).expect("docs/interface");
    let names = folder.map(|item| item.expect("docs/interface").file_name().to_string_lossy().into_owned());
    let mut pages: Vec<String> =
        names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/interface/{name}")).collect();
    pages.push("docs/INTERFACE.md".to_owned());
    pages.sort();
    pages
}

#[test]
fn every_page_is_linked_from_the_first() {
    let first = read("docs/INTERFACE.md");
    for page in pages() {
        let name = page.trim_start_matches("docs/");
        assert!(page == "docs/INTERFACE.md" || first.contains(&format!("({name})")), "docs/INTERFACE.md does not name {name}");
    }
    assert!(read("README.md").contains("(docs/INTERFACE.md)"), "README.md does not name docs/INTERFACE.md");
}
