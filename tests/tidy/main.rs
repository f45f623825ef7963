//! The source itself under test: the arrows and habits that the compiler does not hold. CONTRIBUTING.md says why.
//!
//! Reads the text of the repository and nothing else; a finding names file, line, rule and what to do instead. [`arrows`]:
//! who may use whom; [`habits`]: how a file is written and where its tests are; [`imports`] and [`source`] read the code.

mod arrows;
mod habits;
mod imports;
mod source;

use std::fmt::Write as _;

use source::{Source, sources};

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
