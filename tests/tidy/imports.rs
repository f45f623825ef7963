//! Which file uses which: paths in `use` and in the code, followed to the file that has the thing, through re-exports.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, module_folder};

/// A path after `use`, and the name under which it is known from then on.
struct Import {
    path: Vec<String>,
    name: String,
    /// `pub use`: the file passes it on and does not use it.
    passes_on: bool,
}

/// The modules of the crate by their paths (`["hot", "keys"]`), with their files and imports.
pub struct Modules<'a> {
    sources: BTreeMap<Vec<String>, &'a Source>,
    imports: BTreeMap<Vec<String>, Vec<Import>>,
}

/// From a file to one that it uses.
pub type Arrow = (String, String);

impl<'a> Modules<'a> {
    pub fn new(sources: &'a [Source]) -> Self {
        let code = sources.iter().filter(|source| !source.tests_only && source.path != "src/main.rs");
        let sources: BTreeMap<_, _> = code.map(|source| (module_path(&source.path), source)).collect();
        let imports = sources.iter().map(|(module, source)| (module.clone(), imports(&source.code))).collect();
        Self { sources, imports }
    }

    /// Every arrow, with the path that is the first reason for it.
    pub fn arrows(&self) -> BTreeMap<Arrow, String> {
        let mut arrows = BTreeMap::new();
        for (module, source) in &self.sources {
            let imports = &self.imports[module];
            let used = imports.iter().filter(|import| !import.passes_on).map(|import| import.path.clone());
            for path in used.chain(paths_in_code(&source.code)) {
                // A name that was imported stands for its path.
                let known = imports.iter().find(|import| !is_root(&path[0]) && import.name == path[0]);
                let whole = known.map_or(path.clone(), |import| [&import.path[..], &path[1..]].concat());
                let Some(file) = self.absolute(module, &whole).and_then(|absolute| self.file_of(&absolute, 0)) else { continue };
                if file != source.path {
                    arrows.entry((source.path.clone(), file)).or_insert_with(|| path.join("::"));
                }
            }
        }
        arrows
    }

    /// From the top of the crate; `None`: of another crate, or a name of this file.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        let ups = path.iter().take_while(|part| *part == "super").count();
        let (base, rest) = match path.first().map(String::as_str) {
            Some("crate") => (&module[..0], &path[1..]),
            Some("self") => (module, &path[1..]),
            Some("super") => (&module[..module.len().checked_sub(ups)?], &path[ups..]),
            _ => (module, path),
        };
        let absolute = [base, rest].concat();
        let is_child = absolute.get(..=base.len()).is_some_and(|child| self.sources.contains_key(child));
        (is_root(&path[0]) || is_child).then_some(absolute)
    }

    /// The file that has what this path names: an import of a parent is followed, whether it is for others or not.
    fn file_of(&self, path: &[String], depth: usize) -> Option<String> {
        let length = (0..=path.len()).rev().find(|length| self.sources.contains_key(&path[..*length]))?;
        let (module, rest) = path.split_at(length);
        let passed_on = rest.first().filter(|_| depth < 8).and_then(|item| {
            let import = self.imports[module].iter().find(|import| import.name == *item)?;
            let from = self.absolute(module, &import.path)?;
            self.file_of(&[&from[..], &rest[1..]].concat(), depth + 1)
        });
        passed_on.or_else(|| Some(self.sources[module].path.clone()))
    }
}

/// The shortest circle of each arrow that is in one, shortest first, beginning with the smallest path.
pub fn circles<'a>(arrows: impl Iterator<Item = &'a Arrow>) -> BTreeSet<Vec<String>> {
    let mut uses = BTreeMap::<&str, Vec<&str>>::new();
    for (from, to) in arrows {
        uses.entry(from).or_default().push(to);
    }
    let mut found = BTreeSet::new();
    for (from, targets) in &uses {
        for to in targets {
            if let Some(mut circle) = way(&uses, to, from) {
                let first = (0..circle.len()).min_by_key(|at| circle[*at]).unwrap_or_default();
                circle.rotate_left(first);
                found.insert(circle.into_iter().map(str::to_owned).collect());
            }
        }
    }
    found
}

/// The shortest way along the arrows, both ends in it.
fn way<'a>(uses: &BTreeMap<&'a str, Vec<&'a str>>, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![from]];
    let mut seen = BTreeSet::from([from]);
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let last = way[way.len() - 1];
            if last == to {
                return Some(way);
            }
            for next in uses.get(last).into_iter().flatten().filter(|next| seen.insert(next)) {
                longer.push([&way[..], &[*next]].concat());
            }
        }
        ways = longer;
    }
    None
}

fn module_path(file: &str) -> Vec<String> {
    let inside = module_folder(file).trim_start_matches("src").trim_start_matches('/');
    inside.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn is_root(part: &str) -> bool {
    matches!(part, "crate" | "self" | "super")
}

/// Every `use` in the code, groups taken apart.
fn imports(code: &str) -> Vec<Import> {
    let mut imports = Vec::new();
    for (_, passes_on, tree) in uses(code) {
        take_apart(tree, &[], passes_on, &mut imports);
    }
    imports
}

/// Where a `use` begins, whether it passes on, and its tree.
fn uses(code: &str) -> impl Iterator<Item = (usize, bool, &str)> {
    code.match_indices("use ").filter_map(|(at, _)| {
        let line = code[..at].rfind('\n').map_or(0, |end| end + 1);
        let before = code[line..at].trim();
        let is_use = before.is_empty() || (before.starts_with("pub") && !before.contains(' '));
        let tree = code[at + 4..].split(';').next()?;
        is_use.then_some((at, !before.is_empty(), tree))
    })
}

/// One tree of a `use`: `a::b`, `a as b`, `a::{b, c::{d, e}}`.
fn take_apart(tree: &str, before: &[String], passes_on: bool, imports: &mut Vec<Import>) {
    let tree = tree.trim();
    if let Some((head, group)) = tree.split_once('{') {
        let before: Vec<String> = before.iter().cloned().chain(parts(head)).collect();
        for member in members(group.trim_end().strip_suffix('}').unwrap_or(group)) {
            take_apart(member, &before, passes_on, imports);
        }
        return;
    }
    let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias.trim())));
    let mut path: Vec<String> = before.iter().cloned().chain(parts(path)).collect();
    // `a::{self}` is `a`, and `a::*` uses `a`.
    while path.len() > 1 && path.last().is_some_and(|last| last == "self" || last == "*") {
        path.pop();
    }
    if let Some(last) = path.last().cloned() {
        imports.push(Import { name: alias.map_or(last, str::to_owned), path, passes_on });
    }
}

fn parts(path: &str) -> impl Iterator<Item = String> {
    path.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned)
}

/// The members of a group, whose braces are closed.
fn members(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut members) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    members.push(&group[start..]);
    members.retain(|member| !member.trim().is_empty());
    members
}

/// Paths of two parts or more outside of `use`, those that cannot be a module's (they begin with a type) left out.
fn paths_in_code(code: &str) -> Vec<Vec<String>> {
    let trees: Vec<(usize, usize)> = uses(code).map(|(at, _, tree)| (at, at + 4 + tree.len())).collect();
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("::") {
        let head = code[..at].trim_end_matches(is_name);
        let start = head.len();
        if head.ends_with("::") || start == at || trees.iter().any(|(from, to)| (*from..*to).contains(&at)) {
            continue;
        }
        let end = code[start..].find(|c: char| !is_name(c) && c != ':').map_or(code.len(), |length| start + length);
        let path: Vec<String> = parts(code[start..end].trim_end_matches(':')).collect();
        if path.len() > 1 && path[0].starts_with(|c: char| c.is_lowercase() || c == '_') {
            paths.push(path);
        }
    }
    paths
}

#[test]
fn a_use_is_followed_to_the_file_that_has_the_thing() {
    let source = |path, text| crate::source::parse(path, text, false);
    let sources = [
        source("src/lib.rs", "mod a;\nmod b;\n"),
        source("src/a/mod.rs", "mod x;\nmod y;\npub use x::{Thing, other as another};\nuse y::Y;\nuse std::fmt;\nstruct Here;\n"),
        source("src/a/x.rs", "use super::Here;\nuse crate::{a::Y as Z, b::{self, c::C}};\nfn f() { b::g(); fmt::x() }\n"),
        source("src/a/y.rs", "fn f() { super::Thing::new(); crate::b::c::d() }\n"),
        source("src/b/mod.rs", "pub mod c;\npub(crate) use crate::a::another;\nuse super::b::another as q;\n"),
        source("src/b/c.rs", "use super::another;\n// use super::super::a::Here;\nfn f() { Type::new() }\n"),
    ];
    let modules = Modules::new(&sources);
    let arrows = modules.arrows();
    let short = |path: &str| path.trim_start_matches("src/").trim_end_matches(".rs").to_owned();
    let found: Vec<String> = arrows.keys().map(|(from, to)| format!("{} {}", short(from), short(to))).collect();
    let expected = ["a/mod a/y", "a/x a/mod", "a/x a/y", "a/x b/c", "a/x b/mod", "a/y a/x", "a/y b/c", "b/c a/x", "b/mod a/x"];
    assert_eq!(found, expected);
    let circles = circles(arrows.keys());
    let all: Vec<String> =
        circles.iter().map(|circle| circle.iter().map(|path| short(path)).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(all, ["a/mod a/y a/x", "a/x a/y", "a/x a/y b/c", "a/x b/c", "a/x b/mod"]);
}
