//! `mote boards`: the hardware profiles, and which one this host matches.

use lexopt::prelude::*;
use serde_json::json;

use super::{Failure, print};
use crate::config::Source;
use crate::config::boards::{self, Board, Facts, Verdict, systemd_size};
use crate::host::{Host, Roots, memory_cgroup_is_off};

const USAGE: &str = "\
The hardware profiles, and which one this host matches. A profile's values are the defaults of the
configuration; what the configuration says wins.

Usage: mote boards [--json] [--config FILE] [--set KEY=VALUE]...
       mote boards show NAME
       mote boards unit [NAME]

  show NAME    the whole profile
  unit [NAME]  a drop-in for systemd with the limits of a profile; without a name, of this host's:
               mote boards unit > /etc/systemd/system/mote.service.d/board.conf

The configuration says where the host is mounted (host.proc, host.sys, host.root), and may name a board.
";

/// What the list is made of.
struct Seen {
    facts: Facts,
    verdicts: Vec<Verdict>,
    /// The board in force and why; the one that matches if the configuration can't be read.
    board: (&'static str, String),
    off: Option<String>,
}

pub(super) fn command(mut parser: lexopt::Parser) -> Result<(), Failure> {
    let (mut source, mut json, mut words) = (Source::default(), false, Vec::new());
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return print(USAGE),
            Short('c') | Long("config") => source.path = Some(parser.value()?.into()),
            Long("set") => source.sets.push(parser.value()?.string()?),
            Long("json") => json = true,
            Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match (words.as_slice(), json) {
        ([], json) => {
            let seen = look(&source)?;
            if json { print(&as_json(&seen)) } else { print(&as_text(&seen)) }
        }
        (["show", name], false) => print(named(name)?.text),
        (["unit"], false) => {
            let seen = look(&source)?;
            print(&drop_in(
                &named(seen.board.0)?,
                &format!(": {}", seen.board.1),
                seen.off.as_deref(),
            ))
        }
        (["unit", name], false) => print(&drop_in(&named(name)?, "", None)),
        (_, true) => Err(Failure::Usage("--json goes with the list alone".into())),
        (["show"], _) => Err(Failure::Usage("mote boards show needs a board's name".into())),
        _ => Err(Failure::Usage(format!("no such use: boards {}\n\n{USAGE}", words.join(" ")))),
    }
}

fn named(name: &str) -> Result<Board, Failure> {
    Board::named(name).map_err(|error| Failure::Usage(format!("{}; {}", error.problem, error.hint)))
}

/// Also with a configuration that is wrong, which may be so because it names no board that there is.
fn look(source: &Source) -> Result<Seen, Failure> {
    let (roots, chosen) = match source.load() {
        Ok(config) => (config.host, Some((config.board.name, config.board.by))),
        Err(error) => {
            eprintln!("mote: {error}\nmote: what follows is of this host without it");
            (Roots::default(), None)
        }
    };
    let facts = Facts::of(&roots);
    let verdicts = boards::judge(&facts)?;
    let board = match chosen {
        Some(chosen) => chosen,
        None => boards::find(&facts).map(|found| (found.name, found.by))?,
    };
    let off = memory_cgroup_is_off(&mut Host::new(roots));
    Ok(Seen { facts, verdicts, board, off })
}

fn as_text(seen: &Seen) -> String {
    let mut out = format!("this host is {} ({})\n", seen.board.0, seen.board.1);
    if let Some(off) = &seen.off {
        out.push_str(&format!("{off}; until then MemoryHigh and MemoryMax do nothing\n"));
    }
    for verdict in &seen.verdicts {
        let board = &verdict.board;
        let (mark, word, why) = match (board.name == seen.board.0, verdict.fits()) {
            (true, _) => ('*', "this one", &seen.board.1),
            (false, true) => (' ', "would do", &verdict.why),
            (false, false) => (' ', "not", &verdict.why),
        };
        out.push_str(&format!("\n{mark} {:<20} {}\n", board.name, board.description));
        out.push_str(&format!("  {:<20} {word}: {why}\n", ""));
    }
    out
}

fn as_json(seen: &Seen) -> String {
    let board = |Verdict { board, why, .. }: &Verdict| {
        json!({
            "name": board.name,
            "description": board.description,
            "targets": board.targets,
            "matches": board.name == seen.board.0,
            "why": if board.name == seen.board.0 { &seen.board.1 } else { why },
            "memory_high_bytes": board.memory_high,
            "memory_max_bytes": board.memory_max,
            "oldest_kernel": board.oldest_kernel,
            "kernel_notes": board.kernel_notes,
        })
    };
    let value = json!({
        "board": seen.board.0,
        "by": seen.board.1,
        "model": seen.facts.model,
        "memory_bytes": seen.facts.memory,
        "memory_cgroup_off": seen.off,
        "boards": seen.verdicts.iter().map(board).collect::<Vec<_>>(),
    });
    format!("{value:#}\n")
}

/// A drop-in of systemd's; it replaces what the unit says of memory, and nothing else.
fn drop_in(board: &Board, by: &str, off: Option<&str>) -> String {
    let (high, max) = (systemd_size(board.memory_high), systemd_size(board.memory_max));
    let mut out = format!(
        "# Limits of the board {}{by}.\n# {}.\n\
         # For /etc/systemd/system/mote.service.d/board.conf; then: systemctl daemon-reload, and restart mote.\n",
        board.name, board.description
    );
    if let Some(off) = off {
        out.push_str(&format!("# They do nothing here as it is: {off}.\n"));
    }
    for note in &board.kernel_notes {
        out.push_str(&format!("# Its kernel: {note}.\n"));
    }
    out.push_str(&format!(
        "[Service]\n\
         # From here on the kernel takes page cache back and slows the agent down, which gives back by itself then.\n\
         MemoryHigh={high}\n\
         # The backstop: beyond it the kernel kills.\n\
         MemoryMax={max}\n"
    ));
    out
}
