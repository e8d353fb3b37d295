//! Rules about single files: how they open, how long they are, what they must not contain.

use super::Violation;
use super::lexer::Token;

/// The most lines of a file.
const MOST_LINES: usize = 600;

/// Files that are longer, each with the reason.
const LONGER: &[(&str, &str)] = &[];

/// Hosts that only one network knows: a package mirror, a proxy.
const PRIVATE_HOSTS: &[&str] =
    &["artifactory", "jfrog", "nexus.", "nexus-", "mirror.", ".internal"];

/// Where a lock file may say that a package comes from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Rules for every text file.
pub(super) fn check_any(path: &str, source: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    // In two pieces, so that the rules don't find themselves.
    let machine_paths = [
        ["/wo", "rk/"].concat(),
        ["/.cargo/reg", "istry/"].concat(),
        ["/.rustup/tool", "chains/"].concat(),
    ];
    let is_lock = path.ends_with("Cargo.lock");
    for (index, line) in source.lines().enumerate() {
        let mut report = |message| violations.push(Violation::new(path, index + 1, message));
        for machine_path in &machine_paths {
            if contains_path(line, machine_path) {
                report(format!("{machine_path} is a path of one machine"));
            }
        }
        for host in line.split("://").skip(1).map(host_of) {
            if PRIVATE_HOSTS.iter().any(|private| host.contains(private)) {
                report(format!("{host} is a host of one network"));
            }
        }
        if is_lock
            && let Some(origin) = line.strip_prefix("source = \"")
            && origin.trim_end_matches('"') != REGISTRY
        {
            report(format!("a package that is not from crates.io: {origin}"));
        }
    }
    violations
}

/// Rules for Rust.
pub(super) fn check_rust(
    path: &str,
    source: &str,
    tokens: &[(usize, Token<'_>)],
) -> Vec<Violation> {
    let mut violations = Vec::new();
    if !source.starts_with("//!") {
        violations.push(Violation::new(
            path,
            1,
            "opens without `//!`: what it is, how it is used, what it must not know".to_owned(),
        ));
    }
    let lines = source.lines().count();
    if lines > MOST_LINES && !LONGER.iter().any(|(longer, _)| *longer == path) {
        violations.push(Violation::new(
            path,
            0,
            format!("has {lines} lines, {MOST_LINES} are the most: split it by its nouns"),
        ));
    }
    for (at, &(line, token)) in tokens.iter().enumerate() {
        let follows = |expected: &[Token<'_>]| {
            expected.iter().enumerate().all(|(distance, expected)| {
                tokens.get(at + 1 + distance).is_some_and(|(_, token)| token == expected)
            })
        };
        let message = match token {
            Token::Ident(name @ ("todo" | "unimplemented" | "dbg"))
                if follows(&[Token::Punct('!')])
                    && !follows(&[Token::Punct('!'), Token::Punct('=')]) =>
            {
                format!("`{name}!` is not for finished work")
            }
            Token::Punct('[') if follows(&[Token::Ident("ignore"), Token::Punct(']')]) => {
                "`#[ignore]` needs its reason: `#[ignore = \"…\"]`".to_owned()
            }
            _ => continue,
        };
        violations.push(Violation::new(path, line, message));
    }
    violations
}

/// Exceptions that nothing needs any more. `lines_of` counts the lines of a file, if it is there.
pub(super) fn stale_exceptions(lines_of: impl Fn(&str) -> Option<usize>) -> Vec<Violation> {
    LONGER
        .iter()
        .filter(|(path, _)| lines_of(path).is_none_or(|lines| lines <= MOST_LINES))
        .map(|(path, reason)| {
            let message =
                format!("needs no exception any more ({reason}): take it off tidy's list");
            Violation::new(path, 0, message)
        })
        .collect()
}

/// Whether the line names this path from the root; `crates/work/` is another one.
fn contains_path(line: &str, path: &str) -> bool {
    let from_the_root = !path.starts_with("/.");
    line.match_indices(path).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        !from_the_root || !before.is_some_and(|c| c.is_alphanumeric() || "-_.~*}".contains(c))
    })
}

fn host_of(after_scheme: &str) -> &str {
    let end = after_scheme.find(|c: char| !(c.is_alphanumeric() || "-.".contains(c)));
    after_scheme.get(..end.unwrap_or(after_scheme.len())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::lexer;
    use super::*;

    fn rust(source: &str) -> Vec<String> {
        let violations = check_rust("a.rs", source, &lexer::tokens(source));
        violations.iter().map(Violation::to_string).collect()
    }

    #[track_caller]
    fn breaks(messages: &[String], what: &str) {
        assert!(messages.len() == 1 && messages.iter().all(|m| m.contains(what)), "{messages:?}");
    }

    #[test]
    fn a_file_opens_with_what_it_is() {
        assert!(rust("//! A part.\n").is_empty());
        breaks(&rust("// A part.\n"), "a.rs:1: opens without `//!`");
        breaks(&rust(""), "opens without");
        breaks(&rust("#![no_std]\n//! A part.\n"), "opens without");
    }

    #[test]
    fn unfinished_work_is_found_and_talk_about_it_is_not() {
        breaks(&rust("//! A\nfn f() { todo!() }"), "a.rs:2: `todo!`");
        breaks(&rust("//! A\nfn f() { std::unimplemented! {} }"), "`unimplemented!`");
        breaks(&rust("//! A\nlet a = dbg!(b);"), "`dbg!`");
        assert!(rust("//! A todo!() here\nlet todo = \"dbg!(x)\"; // todo!()").is_empty());
        assert!(rust("//! A\nif todo != dbg { }").is_empty());
    }

    #[test]
    fn an_ignored_test_has_a_reason() {
        breaks(&rust("//! A\n#[test]\n#[ignore]\nfn f() {}"), "a.rs:3: ");
        assert!(rust("//! A\n#[ignore = \"takes an hour\"]\nfn f() {}").is_empty());
        assert!(rust("//! A\nlet list = [ignore, other];").is_empty());
    }

    #[test]
    fn length_counts() {
        let longest = format!("//! A\n{}", "\n".repeat(MOST_LINES - 1));
        assert!(rust(&longest).is_empty());
        breaks(&rust(&format!("{longest}\n")), "has 601 lines");
    }

    #[test]
    fn what_only_one_machine_has_is_found_in_any_file() {
        let any = |path: &str, line: &str| -> Vec<String> {
            check_any(path, line).iter().map(Violation::to_string).collect()
        };
        let work = ["/wo", "rk/"].concat();
        breaks(&any("a.md", &format!("see {work}tree")), "a.md:1: ");
        assert!(any("a.md", &format!("crates{work}tree and ./x{work}y")).is_empty());
        breaks(&any("a.md", &["at /root/.cargo/reg", "istry/src"].concat()), "one machine");
        let host = ["https://artifac", "tory.example.com/x"].concat();
        breaks(&any("a.toml", &format!("url = \"{host}\"")), "one network");
        assert!(any("a.md", "https://grafana.com/docs and http://127.0.0.1:9911/").is_empty());
        breaks(&any("x/Cargo.lock", "source = \"git+https://example.com/a\""), "crates.io");
        assert!(any("Cargo.lock", &format!("source = \"{REGISTRY}\"")).is_empty());
    }
}
