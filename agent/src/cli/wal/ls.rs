//! `mote wal ls`: a line a file.

use std::io::{self, Write};

use serde::Serialize;

use super::out::{Out, safe};
use super::{Stop, Target, Times, all_read, content_name, header, unreadable};
use crate::wal::{Cursor, Inspection, Other, OtherKind, Place, SegmentFile, Slot};

pub(super) const USAGE: &str = "\
Lists the files of WAL directories: segments with what is in them, cursors with what they have not
acknowledged yet, and files that are no part of the WAL. It reads every record, and decodes none. Exit
code 1 if there are files that can't be read, or that are no segments although they are named so; damage
in a segment alone is 0.

Usage: mote wal ls [DIR] [--json] [--config FILE] [--set KEY=VALUE]...

--json prints one object a line, with `type` and, but for the first type, `wal`, the directory:
  wal       path, content (\"metrics\", \"logs\"), version, bytes, in_use (null: unknown)
  segment   file, position, bytes, records, items, from, to, damaged_bytes, torn_bytes, error
  cursor    file, bytes, position, behind_bytes (of the unread records), unread_records, unread_items,
            damaged, error
  aside     file, bytes, why
  rejected  file, bytes, why: named as a segment; the next start sets it aside
  unreadable  file, bytes, why: named as a segment
  foreign   file, bytes
  total     files, bytes, records, items, from, to, damaged_bytes, torn_bytes
";

#[derive(Default, Serialize)]
struct Counts {
    records: u64,
    items: u64,
    from: Option<String>,
    to: Option<String>,
    damaged_bytes: u64,
    torn_bytes: u64,
    #[serde(skip)]
    times: Times,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Wal {
        path: String,
        content: String,
        version: u16,
        bytes: u64,
        in_use: Option<bool>,
    },
    Segment {
        wal: &'a str,
        file: &'a str,
        position: u64,
        bytes: u64,
        #[serde(flatten)]
        counts: &'a Counts,
        error: Option<String>,
    },
    Cursor {
        wal: &'a str,
        file: &'a str,
        bytes: u64,
        position: Option<u64>,
        behind_bytes: u64,
        unread_records: u64,
        unread_items: u64,
        damaged: bool,
        error: Option<String>,
    },
    Aside {
        wal: &'a str,
        file: &'a str,
        bytes: u64,
        why: Option<&'a str>,
    },
    Rejected {
        wal: &'a str,
        file: &'a str,
        bytes: u64,
        why: &'a str,
    },
    Unreadable {
        wal: &'a str,
        file: &'a str,
        bytes: u64,
        why: &'a str,
    },
    Foreign {
        wal: &'a str,
        file: &'a str,
        bytes: u64,
    },
    Total {
        wal: &'a str,
        files: u64,
        bytes: u64,
        #[serde(flatten)]
        counts: &'a Counts,
    },
}

/// Where a reader goes on, and what there is from there on.
struct Unread<'a> {
    cursor: &'a Cursor,
    from: u64,
    bytes: u64,
    records: u64,
    items: u64,
}

pub(super) fn run(targets: &[Target], out: &mut Out) -> Result<(), Stop> {
    let mut unread = 0;
    for (index, target) in targets.iter().enumerate() {
        if index > 0 && !out.json {
            writeln!(out)?;
        }
        let wal = target.inspect()?;
        let mut list = List::new(&wal, out);
        list.run()?;
        unread += list.unread;
    }
    all_read(unread)
}

struct List<'a> {
    wal: &'a Inspection,
    path: String,
    /// Characters of the longest name.
    width: usize,
    /// Files that can't be read.
    unread: u64,
    out: &'a mut Out,
}

impl<'a> List<'a> {
    fn new(wal: &'a Inspection, out: &'a mut Out) -> List<'a> {
        let segments = wal.segments.iter().map(|segment| &segment.name);
        let cursors = wal.cursors.iter().map(|cursor| &cursor.name);
        let names = segments.chain(cursors).chain(wal.others.iter().map(|other| &other.name));
        let width = names.map(|name| safe(name).to_string().chars().count()).max().unwrap_or(0);
        let path = wal.path().to_string_lossy().into_owned();
        List { wal, path, width: width.max("FILE".len()), unread: 0, out }
    }

    fn run(&mut self) -> io::Result<()> {
        let wal = self.wal;
        let first = wal.segments.first().map_or(0, |segment| segment.base);
        let unread = |cursor: &'a Cursor| {
            let from = cursor.position().unwrap_or(first).max(first);
            Unread { cursor, from, bytes: 0, records: 0, items: 0 }
        };
        let mut unread: Vec<Unread<'_>> = wal.cursors.iter().map(unread).collect();
        self.head()?;
        let mut total = Counts::default();
        for segment in &wal.segments {
            let mut counts = Counts::default();
            let error = match count(wal, segment, &mut unread, &mut counts) {
                Ok(true) => None,
                Ok(false) => continue,
                Err(error) => Some(unreadable(&error)),
            };
            self.unread += u64::from(error.is_some());
            counts.settle();
            self.segment(segment, &counts, error)?;
            total.add(&counts);
        }
        for unread in &unread {
            self.cursor(unread)?;
        }
        for other in &wal.others {
            self.other(other)?;
        }
        self.total(&total)
    }

    fn head(&mut self) -> io::Result<()> {
        let wal = self.wal;
        if self.out.json {
            return self.out.object(&Line::Wal {
                path: self.path.clone(),
                content: content_name(wal.content),
                version: Inspection::VERSION,
                bytes: wal.bytes(),
                in_use: wal.in_use,
            });
        }
        writeln!(self.out, "{}", header(wal))?;
        self.row("FILE", &"BYTES", &"RECORDS", &"ITEMS", "FROM                      TO")
    }

    fn row(
        &mut self,
        name: &str,
        bytes: &dyn std::fmt::Display,
        records: &dyn std::fmt::Display,
        items: &dyn std::fmt::Display,
        rest: &str,
    ) -> io::Result<()> {
        let width = self.width;
        let line = format!("  {name:<width$}  {bytes:>10}  {records:>8}  {items:>10}  {rest}");
        writeln!(self.out, "{}", line.trim_end())
    }

    fn segment(
        &mut self,
        segment: &SegmentFile,
        counts: &Counts,
        error: Option<String>,
    ) -> io::Result<()> {
        if self.out.json {
            return self.out.object(&Line::Segment {
                wal: &self.path,
                file: &segment.name,
                position: segment.base,
                bytes: segment.bytes,
                counts,
                error,
            });
        }
        let rest = match error {
            Some(error) => format!("{}  {error}", counts.rest()),
            None => counts.rest(),
        };
        self.row(&segment.name, &segment.bytes, &counts.records, &counts.items, &rest)
    }

    fn cursor(&mut self, unread: &Unread<'_>) -> io::Result<()> {
        let Unread { cursor, bytes: behind, records, items, .. } = unread;
        let position = cursor.position();
        let (damaged, error) = match &cursor.slots {
            Ok(slots) => (slots.contains(&Slot::Damaged), None),
            Err(error) => (false, Some(unreadable(&io::Error::from(*error)))),
        };
        self.unread += u64::from(error.is_some());
        if self.out.json {
            return self.out.object(&Line::Cursor {
                wal: &self.path,
                file: &cursor.name,
                bytes: cursor.bytes,
                position,
                behind_bytes: *behind,
                unread_records: *records,
                unread_items: *items,
                damaged,
                error,
            });
        }
        if let Some(error) = error {
            return self.row(&safe(&cursor.name).to_string(), &cursor.bytes, &"", &"", &error);
        }
        let at = match (position, damaged) {
            (Some(position), false) => format!("at {position:016x}"),
            (Some(position), true) => format!("at {position:016x}, a slot is damaged"),
            (None, false) => "nothing acknowledged".to_owned(),
            (None, true) => "damaged: begins at the oldest record".to_owned(),
        };
        let rest = format!(
            "{at}; not acknowledged: {}, {}, {behind} bytes",
            super::count(*records, "record"),
            super::count(*items, "item")
        );
        self.row(&safe(&cursor.name).to_string(), &cursor.bytes, &"", &"", &rest)
    }

    fn other(&mut self, other: &Other) -> io::Result<()> {
        let (wal, file, bytes) = (self.path.as_str(), other.name.as_str(), other.bytes);
        let is_unread = matches!(other.what, OtherKind::Rejected(_) | OtherKind::Unreadable(_));
        self.unread += u64::from(is_unread);
        if self.out.json {
            let line = match &other.what {
                OtherKind::Aside(why) => Line::Aside { wal, file, bytes, why: why.as_deref() },
                OtherKind::Rejected(why) => Line::Rejected { wal, file, bytes, why },
                OtherKind::Unreadable(why) => Line::Unreadable { wal, file, bytes, why },
                OtherKind::Foreign => Line::Foreign { wal, file, bytes },
            };
            return self.out.object(&line);
        }
        let rest = describe(&other.what);
        self.row(&safe(file).to_string(), &bytes, &"", &"", &rest)
    }

    fn total(&mut self, counts: &Counts) -> io::Result<()> {
        let wal = self.wal;
        let files = (wal.segments.len() + wal.cursors.len() + wal.others.len()) as u64;
        if self.out.json {
            let bytes = wal.bytes();
            return self.out.object(&Line::Total { wal: &self.path, files, bytes, counts });
        }
        let (name, rest) = (format!("total: {}", super::count(files, "file")), counts.rest());
        self.row(&name, &wal.bytes(), &counts.records, &counts.items, &rest)
    }
}

/// What a file is that is no part of the log, for a person.
pub(super) fn describe(what: &OtherKind) -> String {
    match what {
        OtherKind::Aside(Some(why)) => format!("set aside: {why}"),
        OtherKind::Aside(None) => "set aside".to_owned(),
        OtherKind::Rejected(why) => format!("no segment of this WAL: {why}"),
        OtherKind::Unreadable(why) => unreadable(why),
        OtherKind::Foreign => "not of the WAL".to_owned(),
    }
}

/// Counts what is in a segment and what of it each reader has not acknowledged, up to where it can be read.
/// False if its file has gone.
fn count(
    wal: &Inspection,
    segment: &SegmentFile,
    unread: &mut [Unread<'_>],
    counts: &mut Counts,
) -> io::Result<bool> {
    let Some(mut walk) = wal.walk(segment)? else { return Ok(false) };
    let mut payload = Vec::new();
    while let Some(found) = walk.next(&mut payload)? {
        match found {
            Place::Record(record) => {
                counts.records += 1;
                counts.items += u64::from(record.items);
                // Those of a clock that nobody vouched for are no times.
                record.time().into_iter().for_each(|time_ms| counts.times.add(time_ms));
                for reader in unread.iter_mut().filter(|reader| record.position >= reader.from) {
                    reader.bytes += record.next - record.position;
                    reader.records += 1;
                    reader.items += u64::from(record.items);
                }
            }
            Place::Damage(damage) => counts.damaged_bytes += damage.bytes,
            Place::Torn { bytes, .. } => counts.torn_bytes += bytes,
        }
    }
    Ok(true)
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.records += other.records;
        self.items += other.items;
        self.damaged_bytes += other.damaged_bytes;
        self.torn_bytes += other.torn_bytes;
        self.times.join(other.times);
        self.settle();
    }

    fn settle(&mut self) {
        (self.from, self.to) = (self.times.from(), self.times.to());
    }

    /// The times, and what is wrong.
    fn rest(&self) -> String {
        let text = |time: &Option<String>| time.as_deref().unwrap_or("-").to_owned();
        let mut rest = format!("{:<24}  {:<24}", text(&self.from), text(&self.to));
        if self.damaged_bytes > 0 {
            rest += &format!("  DAMAGED: {} bytes", self.damaged_bytes);
        }
        if self.torn_bytes > 0 {
            rest += &format!("  torn tail: {} bytes", self.torn_bytes);
        }
        rest
    }
}
