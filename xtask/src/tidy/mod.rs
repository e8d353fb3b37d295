//! `cargo xtask tidy`: the house rules that a compiler doesn't know. [`imports`] holds the table of who
//! may know whom, [`text`] the rules about single files, [`lexer`] what both read instead of raw text,
//! so that comments and strings don't count.
//!
//! Looked at is what git tracks or would track. A rule that needs an exception gets it in its table,
//! with the reason.

mod imports;
mod lexer;
mod text;

use std::fmt;
use std::fs;
use std::process::{Command, ExitCode};

use crate::Result;
use crate::context::Context;

/// Pages that a reader is promised.
const PAGES: &[&str] =
    &["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "docs/configuration.md"];

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    /// Relative to the root of the checkout.
    path: String,
    /// From 1; 0 means the whole file.
    line: usize,
    /// What is wrong and what would be right.
    message: String,
}

impl Violation {
    fn new(path: &str, line: usize, message: String) -> Violation {
        Violation { path: path.to_owned(), line, message }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// The command: [`check`] and its exit code.
///
/// # Errors
/// As [`check`].
pub(crate) fn tidy(context: &Context) -> Result<ExitCode> {
    context.step("house rules (tidy)", || check(context))?;
    Ok(ExitCode::SUCCESS)
}

/// Checks every file.
///
/// # Errors
/// All places that break a rule, a line each; or the files could not be listed or read.
pub(crate) fn check(context: &Context) -> Result<()> {
    let paths = files(context)?;
    let mut violations = Vec::new();
    for path in &paths {
        let whole = context.root.join(path);
        // Deleted and not yet committed; or a link, whose target is looked at where it is.
        if !whole.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
            continue;
        }
        let bytes = fs::read(&whole).map_err(|e| format!("{path} can't be read: {e}"))?;
        // What is not text (fixtures, fuzz corpora) has no style.
        if let Ok(source) = String::from_utf8(bytes) {
            violations.extend(check_file(path, &source));
        }
    }
    violations.extend(text::stale_exceptions(|path| {
        fs::read_to_string(context.root.join(path)).ok().map(|source| source.lines().count())
    }));
    for page in PAGES {
        if !context.root.join(page).is_file() {
            violations.push(Violation::new(page, 0, "is missing; readers are promised it".into()));
        }
    }
    if violations.is_empty() {
        context.say(&format!("{} files keep the house rules", paths.len()));
        return Ok(());
    }
    violations.sort();
    let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
    Err(format!("the house rules are broken in these places:\n{}", lines.join("\n")))
}

/// Every rule that looks at one file.
fn check_file(path: &str, source: &str) -> Vec<Violation> {
    let mut violations = text::check_any(path, source);
    if path.ends_with(".rs") {
        let tokens = lexer::tokens(source);
        violations.extend(text::check_rust(path, source, &tokens));
        violations.extend(imports::check(path, &tokens));
    }
    violations
}

/// What git tracks, and what it would after `git add`, relative to the root.
fn files(context: &Context) -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(&context.root)
        .output()
        .map_err(|error| format!("git, which lists the files, could not be started: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "git could not list the files of {}: {}",
            context.root.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    let names = String::from_utf8_lossy(&output.stdout);
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}
