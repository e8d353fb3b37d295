//! The examples of docs/stages.md: each one's stages, the entries that come, and those that leave.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use mote::config;
use mote::logs::stage::Stages;
use mote::model::{Block, Labels};
use tokio::time::Instant;

const NOW: &str = "2024-05-01T12:00:00Z";

fn nanoseconds(time: &str) -> i64 {
    let time = humantime::parse_rfc3339(time).unwrap_or_else(|error| panic!("{time}: {error}"));
    i64::try_from(time.duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

fn document() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join("docs/stages.md")).unwrap()
}

/// Language, contents and line of each block between fences.
fn fenced(text: &str) -> Vec<(String, String, usize)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String, usize)> = None;
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open = Some((language.to_owned(), String::new(), number + 1));
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((_, contents, _))) => {
                contents.push_str(line);
                contents.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block has no end");
    blocks
}

/// `{a="1", b="x\"y"}` to pairs, and what stands behind it.
fn pairs(text: &str) -> (Vec<(String, String)>, &str) {
    let mut pairs = Vec::new();
    let mut rest = text.strip_prefix('{').unwrap_or_else(|| panic!("no '{{' at {text:?}"));
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return (pairs, rest);
        }
        let (name, behind) =
            rest.split_once("=\"").unwrap_or_else(|| panic!("no value in {text:?}"));
        let mut value = String::new();
        let mut chars = behind.char_indices();
        loop {
            match chars.next().unwrap_or_else(|| panic!("no end in {text:?}")) {
                (at, '"') => {
                    rest = &behind[at + 1..];
                    break;
                }
                (_, '\\') => value.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    c => c,
                }),
                (_, c) => value.push(c),
            }
        }
        pairs.push((name.to_owned(), value));
    }
}

/// Puts an entry of the document into a block.
fn read(line: &str, block: &mut Block) {
    let (time, rest) = match line.starts_with('{') {
        true => (NOW, line),
        false => line.split_once(' ').unwrap(),
    };
    let (labels, rest) = pairs(rest);
    let (metadata, rest) = match rest.trim_start().strip_prefix("+ ") {
        Some(rest) => pairs(rest),
        None => (Vec::new(), rest),
    };
    let line = rest.strip_prefix(" | ").unwrap_or_else(|| panic!("no ' | ' in {line:?}"));
    let stream = block.stream(&Labels::from_pairs(labels).unwrap()).unwrap();
    block.push_with(stream, nanoseconds(time), &line.replace("\\n", "\n"), metadata);
}

/// Writes the entries as the document does.
fn write(block: &Block, out: &mut String) {
    for entry in block.entries() {
        if entry.timestamp_ns != nanoseconds(NOW) {
            let time =
                UNIX_EPOCH + Duration::from_nanos(u64::try_from(entry.timestamp_ns).unwrap());
            out.push_str(&format!("{} ", humantime::format_rfc3339(time)));
        }
        out.push_str(&block.streams()[usize::from(entry.stream.0)].to_string());
        let pairs: Vec<String> =
            entry.metadata.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        if !pairs.is_empty() {
            out.push_str(&format!(" + {{{}}}", pairs.join(", ")));
        }
        out.push_str(&format!(" | {}\n", entry.line.replace('\n', "\\n")));
    }
}

fn run(toml: &str, given: &str) -> Result<String, String> {
    let config = config::parse(toml, Path::new("mote.toml"), &[]).map_err(|e| e.to_string())?;
    let now = Instant::now();
    let mut stages = Stages::new(&config.logs.stages, &BTreeMap::new(), now);
    let (mut block, mut out) = (Block::new(), String::new());
    given.lines().for_each(|line| read(line, &mut block));
    stages.run(&mut block, nanoseconds(NOW), now);
    write(&block, &mut out);
    while let Some(due) = stages.due() {
        block.clear();
        stages.run(&mut block, nanoseconds(NOW), due);
        write(&block, &mut out);
    }
    Ok(out)
}

#[test]
fn examples_do_what_is_said_of_them() {
    let text = document();
    let blocks = fenced(&text);
    assert!(blocks.len() >= 3 * 9 && blocks.len().is_multiple_of(3), "{} blocks", blocks.len());
    let mut failures = Vec::new();
    for example in blocks.chunks(3) {
        let [(toml, stages, line), (given, before, _), (left, expected, _)] = example else {
            panic!("three blocks each")
        };
        assert_eq!(
            (toml.as_str(), given.as_str(), left.as_str()),
            ("toml", "in", "out"),
            "line {line}"
        );
        match run(stages, before) {
            Ok(out) if out == *expected => {}
            Ok(out) => failures.push(format!("line {line}: not as it is said, but\n{out}")),
            Err(error) => failures.push(format!("line {line}: {error}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_key_of_a_stage_has_an_example() {
    let text = document();
    let examples: String = fenced(&text)
        .into_iter()
        .filter(|(language, ..)| language == "toml")
        .map(|(_, contents, _)| contents)
        .collect();
    let reference = config::reference();
    let mut stage = false;
    let mut actions = Vec::new();
    for line in reference.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            stage = title == "`[[logs.stage]]`";
            let table = title.strip_suffix(" of `[[logs.stage]]`");
            actions.extend(table.map(|table| table.trim_matches('`').to_owned()));
        } else if stage && let Some(row) = line.strip_prefix("| `") {
            actions.push(row.split('`').next().unwrap().to_owned());
        }
    }
    assert!(actions.len() >= 6, "{actions:?}");
    for action in actions {
        assert!(
            examples.lines().any(|line| line.starts_with(&format!("{action} = "))),
            "{action} has no example in docs/stages.md"
        );
    }
}
