//! Who may know whom inside the agent: one table for its own modules, one for libraries that have one
//! owner each. ARCHITECTURE.md gives the reasons; this makes them hold.
//!
//! A reference is `crate::module`, `super::…` that reaches the crate's root, or `library::`, anywhere in
//! a file, tests inside it included.

use super::Violation;
use super::lexer::Token;

const SOURCE: &str = "agent/src/";

/// What a top-level module may name of the crate, besides itself.
enum Allowed {
    /// These and no others.
    Only(&'static [&'static str]),
    /// All but these.
    NotThese(&'static [&'static str]),
}

use Allowed::{NotThese, Only};

/// Sources read the host and write the model; nothing else, and never each other.
const SOURCES: Allowed = Only(&["model", "host", "memory"]);

/// Sources that read what others expose as well.
const READERS: Allowed = Only(&["model", "host", "memory", "exposition"]);

const MODULES: &[(&str, Allowed)] = &[
    ("model", Only(&[])),
    ("exposition", Only(&[])),
    ("sort", Only(&[])),
    ("relabel", Only(&["model"])),
    ("collector", READERS),
    ("probe", SOURCES),
    ("logs", SOURCES),
    // What a page is made into before it counts.
    ("scrape", Only(&["model", "host", "memory", "exposition", "relabel"])),
    ("clock", Only(&["host"])),
    // It knows bytes, not telemetry.
    ("wal", Only(&["host", "memory"])),
    ("endpoint", NotThese(&["collector", "probe", "logs", "scrape", "wal", "pipeline", "cli"])),
    ("host", NotThese(WIRING)),
    ("memory", NotThese(WIRING)),
    ("encode", NotThese(WIRING)),
    ("config", NotThese(WIRING)),
    ("status", NotThese(WIRING)),
];

/// Tools that know nothing themselves, which everybody may name.
const TOOLS: &[&str] = &["sort"];

/// Data flows one way; what knows everything is known by nobody.
const WIRING: &[&str] = &["pipeline", "cli"];

/// Libraries, and the only modules that may name them.
const OWNERS: &[(&[&str], &[&str])] = &[
    (&["aya", "aya_log", "aya_obj"], &["probe"]),
    (&["prost"], &["encode"]),
    // In `logs` only to open what journald has compressed.
    (&["zstd"], &["wal", "encode", "logs"]),
    (&["lzma_rust2"], &["logs"]),
    (
        &["hyper", "hyper_util", "http_body_util", "rustls", "tokio_rustls", "openssl_probe"],
        &["endpoint", "status"],
    ),
];

/// Libraries that a module may not name, whoever else does.
const FORBIDDEN: &[(&str, &[&str])] = &[("collector", &["tokio"]), ("model", &["tokio"])];

/// Checks one file; only those of the agent's library have rules.
pub(super) fn check(path: &str, tokens: &[(usize, Token<'_>)]) -> Vec<Violation> {
    let Some(inside) = path.strip_prefix(SOURCE).and_then(|path| path.strip_suffix(".rs")) else {
        return Vec::new();
    };
    let mut module: Vec<&str> = inside.split('/').collect();
    if matches!(module.last(), Some(&"mod" | &"lib" | &"main")) {
        module.pop();
    }
    let Some(&own) = module.first() else { return Vec::new() };

    let mut violations = Vec::new();
    for (line, name) in modules_named(tokens, module.len()) {
        let fine =
            MODULES.iter().filter(|(who, _)| *who == own).all(|(_, allowed)| match allowed {
                Only(these) => name == own || these.contains(&name) || TOOLS.contains(&name),
                NotThese(these) => name != "*" && !these.contains(&name),
            });
        if !fine {
            violations.push(Violation::new(
                path,
                line,
                format!("`{own}` must not know `crate::{name}`"),
            ));
        }
    }
    for (line, name) in libraries_named(tokens) {
        let owners = OWNERS.iter().find(|(libraries, _)| libraries.contains(&name));
        if let Some((_, owners)) = owners
            && !owners.contains(&own)
        {
            violations.push(Violation::new(
                path,
                line,
                format!("the library `{name}` belongs to {}, not to `{own}`", owners.join(" and ")),
            ));
        }
        if FORBIDDEN.iter().any(|(who, libraries)| *who == own && libraries.contains(&name)) {
            violations.push(Violation::new(
                path,
                line,
                format!("`{own}` must not use the library `{name}`"),
            ));
        }
    }
    violations
}

/// The top-level modules that a file names, in which `depth` modules lie around its items; `*` for
/// all of them at once.
fn modules_named<'a>(tokens: &[(usize, Token<'a>)], depth: usize) -> Vec<(usize, &'a str)> {
    let mut named = Vec::new();
    let mut braces = 0usize;
    // The depth of braces in which each inline module lies.
    let mut inline: Vec<usize> = Vec::new();
    let mut at = 0;
    while let Some(&(_, token)) = tokens.get(at) {
        match token {
            Token::Punct('{') => {
                braces += 1;
                let before = at.checked_sub(2).and_then(|at| tokens.get(at));
                if matches!(before, Some((_, Token::Ident("mod")))) {
                    inline.push(braces);
                }
            }
            Token::Punct('}') => {
                inline.pop_if(|opened| *opened == braces);
                braces = braces.saturating_sub(1);
            }
            Token::Ident("crate") if is_path(tokens, at + 1) => {
                first_names(tokens, at + 3, &mut named);
            }
            Token::Ident("super") => {
                let mut up = 0;
                while ident(tokens, at) == Some("super") && is_path(tokens, at + 1) {
                    up += 1;
                    at += 3;
                }
                if up > 0 {
                    if up == depth + inline.len() {
                        first_names(tokens, at, &mut named);
                    }
                    continue;
                }
            }
            Token::Ident(_) | Token::Punct(_) | Token::Literal => {}
        }
        at += 1;
    }
    named
}

/// The first name of a path, or of each path of a group in braces.
fn first_names<'a>(tokens: &[(usize, Token<'a>)], from: usize, named: &mut Vec<(usize, &'a str)>) {
    let mut depth = 0usize;
    let mut expected = true;
    for (line, token) in tokens.get(from..).unwrap_or_default() {
        match token {
            Token::Ident(name) if expected => {
                // `use crate::{self as all}` is the root itself.
                named.push((*line, if *name == "self" { "*" } else { name }));
                expected = false;
            }
            Token::Punct('*') if expected => {
                named.push((*line, "*"));
                expected = false;
            }
            Token::Punct('{') => {
                depth += 1;
                expected = depth == 1;
            }
            Token::Punct('}') => depth = depth.saturating_sub(1),
            Token::Punct(',') => expected = depth == 1,
            Token::Ident(_) | Token::Punct(_) | Token::Literal => {}
        }
        if depth == 0 {
            return;
        }
    }
}

/// The first names of all paths that begin in another crate, as far as a reader of words can tell.
fn libraries_named<'a>(tokens: &[(usize, Token<'a>)]) -> Vec<(usize, &'a str)> {
    let mut named = Vec::new();
    for (at, &(line, token)) in tokens.iter().enumerate() {
        let Token::Ident(name) = token else { continue };
        let before = |distance: usize| {
            at.checked_sub(distance).and_then(|at| tokens.get(at)).map(|(_, token)| *token)
        };
        let inside_a_path = before(1) == Some(Token::Punct(':'))
            && before(2) == Some(Token::Punct(':'))
            // `::hyper` begins at the root of all crates, `a::hyper` and `<T>::hyper` do not.
            && matches!(before(3), Some(Token::Ident(_) | Token::Punct('>')))
            && !matches!(before(3), Some(Token::Ident("use")));
        let imported = matches!(before(1), Some(Token::Ident("use" | "crate")));
        let begins = is_path(tokens, at + 1) || imported;
        if begins && !inside_a_path && before(1) != Some(Token::Punct('.')) {
            named.push((line, name));
        }
    }
    named
}

fn is_path(tokens: &[(usize, Token<'_>)], at: usize) -> bool {
    let colon = |at| matches!(tokens.get(at), Some((_, Token::Punct(':'))));
    colon(at) && colon(at + 1)
}

fn ident<'a>(tokens: &[(usize, Token<'a>)], at: usize) -> Option<&'a str> {
    match tokens.get(at) {
        Some((_, Token::Ident(name))) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::lexer;
    use super::*;

    fn messages(path: &str, source: &str) -> Vec<String> {
        check(path, &lexer::tokens(source)).iter().map(Violation::to_string).collect()
    }

    #[track_caller]
    fn breaks(path: &str, source: &str, what: &str) {
        let messages = messages(path, source);
        assert!(
            messages.len() == 1 && messages.iter().all(|message| message.contains(what)),
            "{source:?} in {path}: {messages:?}"
        );
    }

    #[track_caller]
    fn keeps(path: &str, source: &str) {
        assert_eq!(messages(path, source), Vec::<String>::new(), "{source:?} in {path}");
    }

    #[test]
    fn a_collector_knows_only_host_model_and_memory() {
        let path = "agent/src/collector/cpu.rs";
        keeps(path, "use crate::host::Host;\nuse crate::model::{Desc, Samples};");
        keeps(path, "use super::{CollectError, Collector};\nfn f() { crate::collector::x(); }");
        keeps(path, "use crate::{host::Host, model::{Desc, wal}, memory};");
        breaks(path, "\n\nuse crate::wal::Wal;", ":3: `collector` must not know `crate::wal`");
        breaks(path, "use crate::{host::Host, wal::{A, B}};", "`crate::wal`");
        breaks(path, "use crate::{\n  host::Host,\n  probe,\n};", ":3: ");
        breaks(path, "fn f() -> crate::config::Config {}", "`crate::config`");
        breaks(path, "use crate::*;", "`crate::*`");
        breaks(path, "use super::super::logs::file;", "`crate::logs`");
        breaks(
            path,
            "mod tests { use super::super::super::{host, pipeline}; }",
            "`crate::pipeline`",
        );
        keeps(path, "mod tests { use super::super::parse::wal; }\nuse super::wal;");
        breaks("agent/src/collector/mod.rs", "use super::wal::Wal;", "`crate::wal`");
        keeps("agent/src/collector/mod.rs", "mod tests { use super::wal; }");
        breaks(
            "agent/src/collector/mod.rs",
            "mod tests { use super::super::wal; }",
            "`crate::wal`",
        );
    }

    #[test]
    fn comments_strings_and_visibilities_are_not_imports() {
        let path = "agent/src/model/round.rs";
        keeps(path, "// use crate::wal;\n/* crate::host */ pub(crate) fn f() { \"crate::wal\"; }");
        keeps(path, "#![doc = r#\"crate::wal\"#]\npub(in crate::model) struct S;");
    }

    #[test]
    fn every_part_has_its_rule() {
        breaks("agent/src/model/mod.rs", "use crate::host::Host;", "`model`");
        breaks("agent/src/probe/block.rs", "use crate::collector::Collector;", "`probe`");
        breaks("agent/src/logs/file/mod.rs", "use crate::wal::Writer;", "`logs`");
        breaks("agent/src/wal/writer.rs", "use crate::model::Round;", "`wal`");
        breaks("agent/src/wal.rs", "use crate::model::Round;", "`wal`");
        breaks("agent/src/endpoint/mimir.rs", "use crate::collector::TABLE;", "`endpoint`");
        keeps("agent/src/endpoint/mimir.rs", "use crate::encode::remote_write;");
        breaks("agent/src/status/mod.rs", "use crate::pipeline::Pipeline;", "`status`");
        keeps(
            "agent/src/pipeline.rs",
            "use crate::{collector, probe, logs, wal, endpoint, status};",
        );
        keeps("agent/src/cli/run.rs", "use crate::pipeline;");
        keeps("agent/src/lib.rs", "pub mod wal; use crate::wal::Wal;");
        keeps("agent/tests/wal.rs", "use mote::wal::Wal;");
    }

    #[test]
    fn a_library_has_one_owner() {
        breaks(
            "agent/src/pipeline.rs",
            "use aya::Ebpf;",
            "`aya` belongs to probe, not to `pipeline`",
        );
        keeps("agent/src/probe/load.rs", "use aya::Ebpf;");
        breaks("agent/src/cli/logger.rs", "use aya_log::EbpfLogger;", "`aya_log`");
        breaks("agent/src/wal/mod.rs", "#[derive(prost::Message)] struct A;", "`prost`");
        breaks("agent/src/logs/docker.rs", "use ::hyper::client;", "`hyper`");
        breaks("agent/src/logs/docker.rs", "extern crate hyper;", "`hyper`");
        breaks("agent/src/config/mod.rs", "use rustls as tls;", "`rustls`");
        keeps("agent/src/status/http.rs", "use hyper::server::conn::http1;");
        keeps("agent/src/wal/mod.rs", "fn f(zstd: u8, prost: A) { prost.hyper(); a::aya::b(); }");
        breaks("agent/src/collector/cpu.rs", "async fn f() { tokio::spawn(x); }", "`tokio`");
        keeps("agent/src/probe/mod.rs", "use tokio::io::unix::AsyncFd;");
    }
}
