//! `mote wal`: looks into WAL directories, of a running agent or of a stopped one. It changes nothing
//! there, and its memory does not grow with what they hold.

mod contents;
mod ls;
mod out;
mod show;
mod time;
mod verify;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lexopt::prelude::*;

use super::{Failure, print};
use crate::config::Source;
use crate::wal::Inspection;

use out::Out;
use show::{Show, Span};

const USAGE: &str = "\
Looks into the WAL directories of an agent, running or stopped, and changes nothing there.

Usage: mote wal COMMAND [DIR] [OPTIONS]

Commands:
  ls        the files: segments, cursors, and what is no part of the WAL
  show      the contents, oldest first
  verify    read everything and say what is damaged; exit code 1 if something is

DIR is a WAL directory, or a state directory that has them in wal/metrics and wal/logs; default: the
state_dir of the configuration.

  -c, --config FILE   the configuration; else $MOTE_CONFIG, else /etc/mote/mote.toml if it is there
      --set KEY=VALUE overrides a key of it
      --json          one JSON object a line

`mote wal COMMAND --help` says more.
";

/// Which command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Ls,
    Show,
    Verify,
}

impl Which {
    fn named(name: &OsString) -> Result<Which, Failure> {
        match name.to_str() {
            Some("ls") => Ok(Which::Ls),
            Some("show") => Ok(Which::Show),
            Some("verify") => Ok(Which::Verify),
            _ => Err(Failure::Usage(format!(
                "there is no command \"wal {}\"; there are ls, show and verify\n\n{USAGE}",
                out::safe(&name.to_string_lossy())
            ))),
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Which::Ls => ls::USAGE,
            Which::Show => show::USAGE,
            Which::Verify => verify::USAGE,
        }
    }
}

pub(super) fn command(mut parser: lexopt::Parser) -> Result<(), Failure> {
    let mut source = Source::default();
    let (mut which, mut dir, mut json) = (None, None, false);
    let (mut show, mut span, mut only_show) = (Show::default(), Span::default(), None);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return print(which.map_or(USAGE, Which::usage)),
            Short('c') | Long("config") => source.path = Some(parser.value()?.into()),
            Long("set") => source.sets.push(parser.value()?.string()?),
            Long("json") => json = true,
            Long("records") => {
                show.records = true;
                only_show = Some("--records");
            }
            Long(name @ ("from" | "to" | "last")) => {
                only_show = Some(match name {
                    "from" => "--from",
                    "to" => "--to",
                    _ => "--last",
                });
                let name = name.to_owned();
                span.set(&name, &parser.value()?.string()?).map_err(Failure::Usage)?;
            }
            Value(name) if which.is_none() => which = Some(Which::named(&name)?),
            Value(path) if dir.is_none() => dir = Some(PathBuf::from(path)),
            argument => return Err(argument.unexpected().into()),
        }
    }
    let Some(which) = which else {
        return Err(Failure::Usage(format!("no command after \"wal\"\n\n{USAGE}")));
    };
    if let (true, Some(option)) = (which != Which::Show, only_show) {
        return Err(Failure::Usage(format!("{option} goes with mote wal show")));
    }
    let dir = match dir {
        Some(dir) => dir,
        None => source.load()?.agent.state_dir,
    };
    let targets = targets(&dir)?;
    let mut out = Out::new(json, which == Which::Verify);
    let result = match which {
        Which::Ls => ls::run(&targets, &mut out),
        Which::Show => show.run(&targets, &span, &mut out),
        Which::Verify => verify::run(&targets, &mut out),
    };
    out.end(result)
}

/// What a WAL holds, as `pipeline/open.rs` numbers it.
const CONTENTS: [(&str, u32); 2] = [("metrics", 1), ("logs", 2)];

/// A WAL's directory, and what it must hold where its place says so.
struct Target {
    path: PathBuf,
    content: Option<u32>,
}

impl Target {
    fn inspect(&self) -> Result<Inspection, Stop> {
        Inspection::new(&self.path, self.content).map_err(|error| Stop::Host(error.to_string()))
    }
}

/// Why a command ended before its end.
enum Stop {
    /// What it writes can't be written.
    Output(io::Error),
    /// A message of what is wrong on this host.
    Host(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Output(error)
    }
}

/// What content a number stands for.
fn content_name(content: Option<u32>) -> String {
    match (content, CONTENTS.iter().find(|(_, number)| Some(*number) == content)) {
        (_, Some((name, _))) => (*name).to_owned(),
        (Some(number), None) => format!("content {number}"),
        (None, None) => "empty".to_owned(),
    }
}

/// The WAL directories at `dir`.
fn targets(dir: &Path) -> Result<Vec<Target>, Failure> {
    let names = names(dir).map_err(|error| refused(dir, &error))?;
    if names.iter().any(is_wal_file) {
        return Ok(vec![Target { path: dir.to_owned(), content: None }]);
    }
    for parent in [dir.join("wal"), dir.to_owned()] {
        let mut found = Vec::new();
        for (name, content) in CONTENTS {
            let path = parent.join(name);
            match self::names(&path) {
                Ok(names) if names.iter().any(|name| is_wal_file(name) || name == "LOCK") => {
                    found.push(Target { path, content: Some(content) });
                }
                Err(error)
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) =>
                {
                    return Err(refused(&path, &error));
                }
                _ => {}
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
    }
    // A log in which nothing was written yet.
    if names.iter().any(|name| name == "LOCK") {
        return Ok(vec![Target { path: dir.to_owned(), content: None }]);
    }
    Err(Failure::Host(format!(
        "there is no WAL in {0}: neither *.wal files nor a WAL in wal/metrics, wal/logs, metrics or logs \
         below it; give a WAL directory or the state_dir of an agent",
        shown(dir)
    )))
}

fn names(dir: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
}

fn is_wal_file(name: &OsString) -> bool {
    let extension = Path::new(name).extension();
    extension.is_some_and(|end| end == "wal" || end == "cursor" || end == "aside")
}

fn refused(dir: &Path, error: &io::Error) -> Failure {
    let place = shown(dir);
    Failure::Host(format!("looking for a WAL in {place}: {error}"))
}

fn shown(path: &Path) -> String {
    out::safe(&path.to_string_lossy()).to_string()
}

/// The line that opens what is said of a WAL.
fn header(wal: &Inspection) -> String {
    format!(
        "{}: {}, format version {}, {} bytes{}",
        shown(wal.path()),
        content_name(wal.content),
        Inspection::VERSION,
        wal.bytes(),
        match wal.in_use {
            Some(true) => ", in use by a running agent",
            Some(false) => "",
            None => ", perhaps in use: its LOCK can't be read",
        }
    )
}

/// A number of things: "1 record", "2 records".
fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// The message of a file that can't be read.
fn unreadable(error: &dyn std::fmt::Display) -> String {
    format!("can't be read: {error}")
}

/// Ends a command that could not show everything. `unread`: how many files it could not read or that are
/// no segments although they are named so.
fn all_read(unread: u64) -> Result<(), Stop> {
    match unread {
        0 => Ok(()),
        _ => Err(Stop::Host(format!("{} can't be read", count(unread, "file")))),
    }
}

/// Times of records, from the oldest to the newest.
#[derive(Clone, Copy, Default)]
struct Times(Option<(i64, i64)>);

impl Times {
    fn add(&mut self, time_ms: i64) {
        let (from, to) = self.0.unwrap_or((time_ms, time_ms));
        self.0 = Some((from.min(time_ms), to.max(time_ms)));
    }

    fn join(&mut self, other: Times) {
        if let Some((from, to)) = other.0 {
            self.add(from);
            self.add(to);
        }
    }

    fn from(self) -> Option<String> {
        self.0.map(|(from, _)| time::rfc3339_ms(from))
    }

    fn to(self) -> Option<String> {
        self.0.map(|(_, to)| time::rfc3339_ms(to))
    }
}
