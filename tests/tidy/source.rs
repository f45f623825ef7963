//! Reads the text of `src/`: which part of a file is code, and which files are compiled for tests only.

use std::fs;
use std::path::{Path, PathBuf};

pub struct Source {
    /// From the top of the package, with `/`.
    pub path: String,
    pub whole: String,
    /// Without comments and without the unit tests at the end; lines keep their numbers.
    pub code: String,
    /// A file that is compiled for tests only.
    pub tests_only: bool,
}

impl Source {
    /// Top-level module.
    pub fn module(&self) -> &str {
        let inside = self.path.trim_start_matches("src/");
        inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs")
    }

    /// Places of a word in the code that stands alone and is not a later part of a path: (line number, rest of the code from there).
    pub fn places<'a>(&'a self, word: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
        self.code.match_indices(word).filter_map(move |(at, _)| {
            let before = self.code[..at].chars().next_back();
            let free = before.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == ':'));
            free.then(|| (self.line(at), &self.code[at..]))
        })
    }

    pub fn line(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }
}

pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of `src/`, in the order of their paths.
pub fn sources() -> Vec<Source> {
    let texts = texts("src", &["rs"]);
    assert!(texts.len() > 5, "no source found below {}", top().display());
    let mut tests_only: Vec<String> = texts.iter().flat_map(|(path, text)| modules_of_tests(path, text)).collect();
    // What is below a module of tests is one, too.
    let below: Vec<String> = tests_only.iter().map(|path| format!("{}/", module_folder(path))).collect();
    let deeper = texts.iter().filter(|(path, _)| below.iter().any(|folder| path.starts_with(folder)));
    tests_only.extend(deeper.map(|(path, _)| path.clone()));
    texts.iter().map(|(path, text)| parse(path, text, tests_only.contains(path))).collect()
}

/// Path and text of the files below a folder of the package whose names end so (an empty ending: none). Hidden ones are left out.
pub fn texts(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    collect(&top().join(folder), endings, &mut files);
    files.sort();
    let named = files.iter().map(|file| {
        let path = file.strip_prefix(top()).expect("found below it").to_string_lossy().replace('\\', "/");
        (path, String::from_utf8_lossy(&fs::read(file).expect("read file")).into_owned())
    });
    named.collect()
}

fn collect(folder: &Path, endings: &[&str], files: &mut Vec<PathBuf>) {
    for item in fs::read_dir(folder).expect("list folder") {
        let path = item.expect("list folder").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.is_dir() {
            collect(&path, endings, files);
        } else if endings.contains(&path.extension().and_then(|e| e.to_str()).unwrap_or_default()) {
            files.push(path);
        }
    }
}

/// The folder that the submodules of a file are in.
pub fn module_folder(path: &str) -> &str {
    match path.strip_suffix("/mod.rs").or_else(|| path.strip_suffix("/lib.rs")) {
        Some(folder) => folder,
        None => path.trim_end_matches(".rs"),
    }
}

/// Paths of the files that `#[cfg(test)] mod name;` in this file stands for, or `#[cfg(test)] #[path = "name.rs"] mod tests;`.
pub fn modules_of_tests(path: &str, text: &str) -> Vec<String> {
    let beside = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let below = module_folder(path);
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

pub fn parse(path: &str, whole: &str, tests_only: bool) -> Source {
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
