//! `mote wal verify`: reads and decodes everything, and says what is wrong with it.

use std::io::{self, Write};

use serde::Serialize;

use super::contents::{Contents, Held, Undecodable, kind_name};
use super::ls::describe;
use super::out::{Out, safe};
use super::show::torn;
use super::{Stop, Target, Times, all_read, content_name, count, header, unreadable};
use crate::encode::{BLOCK, ROUND};
use crate::wal::{Cursor, Inspection, OtherKind, Place, Record, SegmentFile, Slot, UNTIMED};

pub(super) const USAGE: &str = "\
Reads everything in WAL directories: checksums, the decoding of every record, the order of rounds, the
cursors. One line a finding, with file and byte offset. Exit code 1 if something is damaged or, an error,
can't be read. A note is no damage: what recovery is made for, such as a torn tail, which is cut off at the
next start.

Usage: mote wal verify [DIR] [--json] [--config FILE] [--set KEY=VALUE]...

--json prints one object a line, with `type`:
  finding   wal, file, offset, bytes (null: of no one place), what,
            severity (\"damage\", \"error\", \"note\")
  summary   wal, content, version, in_use (null: unknown), good, segments, cursors, bytes,
            records, items, from, to, damage, errors, notes
";

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Damage,
    Error,
    Note,
}

use Severity::{Damage, Error, Note};

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Finding {
        wal: &'a str,
        file: &'a str,
        offset: Option<u64>,
        bytes: Option<u64>,
        severity: Severity,
        what: &'a str,
    },
    Summary {
        wal: &'a str,
        content: String,
        version: u16,
        in_use: Option<bool>,
        good: bool,
        segments: u64,
        cursors: u64,
        bytes: u64,
        records: u64,
        items: u64,
        from: Option<String>,
        to: Option<String>,
        damage: u64,
        errors: u64,
        notes: u64,
    },
}

pub(super) fn run(targets: &[Target], out: &mut Out) -> Result<(), Stop> {
    let (mut damage, mut errors) = (0, 0);
    for (index, target) in targets.iter().enumerate() {
        if index > 0 && !out.json {
            writeln!(out)?;
        }
        let wal = target.inspect()?;
        let (damaged, unread) = Check::new(&wal, out).run()?;
        damage += damaged;
        errors += unread;
    }
    let damaged = format!("the WAL is damaged: {}", count(damage, "finding"));
    match (damage, errors) {
        (0, _) => all_read(errors),
        (_, 0) => Err(Stop::Host(damaged)),
        _ => Err(Stop::Host(format!("{damaged}; {} can't be read", count(errors, "file")))),
    }
}

struct Check<'a> {
    wal: &'a Inspection,
    path: String,
    contents: Contents,
    /// The time of the last round.
    last_ms: Option<i64>,
    times: Times,
    segments: u64,
    records: u64,
    items: u64,
    damage: u64,
    errors: u64,
    notes: u64,
    out: &'a mut Out,
}

impl<'a> Check<'a> {
    fn new(wal: &'a Inspection, out: &'a mut Out) -> Check<'a> {
        Check {
            wal,
            path: wal.path().to_string_lossy().into_owned(),
            contents: Contents::of(wal),
            last_ms: None,
            times: Times::default(),
            segments: 0,
            records: 0,
            items: 0,
            damage: 0,
            errors: 0,
            notes: 0,
            out,
        }
    }

    /// Returns how many findings are damage, and how many files can't be read.
    fn run(mut self) -> io::Result<(u64, u64)> {
        let wal = self.wal;
        if !self.out.json {
            writeln!(self.out, "{}", header(wal))?;
        }
        let mut end = None;
        for segment in &wal.segments {
            end = self.segment(segment)?.or(end);
        }
        for cursor in &wal.cursors {
            self.cursor(cursor, end)?;
        }
        for other in &wal.others {
            let severity = match other.what {
                OtherKind::Rejected(_) => Damage,
                OtherKind::Unreadable(_) => Error,
                OtherKind::Aside(_) | OtherKind::Foreign => Note,
            };
            self.find(severity, &other.name, None, None, &describe(&other.what))?;
        }
        self.summary()?;
        Ok((self.damage, self.errors))
    }

    fn find(
        &mut self,
        severity: Severity,
        file: &str,
        offset: Option<u64>,
        bytes: Option<u64>,
        what: &str,
    ) -> io::Result<()> {
        let (number, word) = match severity {
            Damage => (&mut self.damage, "DAMAGE"),
            Error => (&mut self.errors, "ERROR"),
            Note => (&mut self.notes, "note"),
        };
        *number += 1;
        if self.out.json {
            let wal = &self.path;
            return self.out.object(&Line::Finding { wal, file, offset, bytes, severity, what });
        }
        write!(self.out, "  {word:<6}  {}", safe(file))?;
        if let Some(offset) = offset {
            write!(self.out, " byte {offset}")?;
        }
        writeln!(self.out, ": {what}")
    }

    /// Checks a segment, and returns the position behind its last record.
    fn segment(&mut self, segment: &SegmentFile) -> io::Result<Option<u64>> {
        let name = segment.name.as_str();
        let mut walk = match self.wal.walk(segment) {
            Ok(Some(walk)) => walk,
            Ok(None) => return Ok(None),
            Err(error) => {
                self.find(Error, name, None, None, &unreadable(&error))?;
                return Ok(None);
            }
        };
        self.segments += 1;
        let (mut payload, mut records, errors) = (Vec::new(), 0, self.errors);
        loop {
            match walk.next(&mut payload) {
                Ok(Some(Place::Record(record))) => {
                    records += 1;
                    self.record(name, &record, &payload)?;
                }
                Ok(Some(Place::Damage(damage))) => {
                    let what = match damage.record {
                        Some((items, time_ms)) => format!(
                            "{} bytes are damaged and skipped: a record of {} of {}",
                            damage.bytes,
                            count(u64::from(items), "item"),
                            super::time::rfc3339_ms(time_ms)
                        ),
                        None => format!("{} bytes are damaged and skipped", damage.bytes),
                    };
                    self.find(Damage, name, Some(damage.offset), Some(damage.bytes), &what)?;
                }
                Ok(Some(Place::Torn { offset, bytes })) => {
                    let what = torn(self.wal, bytes);
                    self.find(Note, name, Some(offset), Some(bytes), &what)?;
                }
                Ok(None) => break,
                Err(error) => {
                    self.find(Error, name, None, None, &unreadable(&error))?;
                    break;
                }
            }
        }
        self.records += records;
        if records == 0 && errors == self.errors && !self.wal.may_be_in_use() {
            self.find(Note, name, None, None, "it has no record")?;
        }
        Ok(Some(walk.end()))
    }

    fn record(&mut self, file: &str, record: &Record, payload: &[u8]) -> io::Result<()> {
        self.items += u64::from(record.items);
        let told = self.contents.told(record, payload);
        told.time().into_iter().for_each(|time_ms| self.times.add(time_ms));
        let offset = Some(record.position - record.segment);
        let bytes = Some(record.next - record.position);
        let within = |cursor: &Cursor| {
            cursor.position().is_some_and(|at| record.position < at && at < record.next)
        };
        for cursor in self.wal.cursors.iter().filter(|cursor| within(cursor)) {
            let what = format!(
                "its position is inside the record at byte {} of {file}",
                record.position - record.segment
            );
            self.find(Damage, &cursor.name, None, None, &what)?;
        }
        let held = match self.contents.decode(record, payload) {
            Ok(held) => held,
            Err(why) => {
                let what = match why {
                    Undecodable::Kind => format!("{why}: {}", kind_name(record.kind)),
                    _ => format!("a record of {} {why}", count(u64::from(record.items), "item")),
                };
                return self.find(Damage, file, offset, bytes, &what);
            }
        };
        let items = self.contents.items(held);
        if items != u64::from(record.items) {
            let what = format!("{} items are in its header and {items} in it", record.items);
            self.find(Damage, file, offset, bytes, &what)?;
        }
        let expected = match self.wal.content {
            Some(1) => ROUND,
            Some(2) => BLOCK,
            _ => record.kind & !UNTIMED,
        };
        if expected != record.kind & !UNTIMED {
            let what = format!("a {} in a WAL of another content", kind_name(record.kind));
            self.find(Damage, file, offset, bytes, &what)?;
        }
        let Held::Round { timestamp_ms } = held else { return Ok(()) };
        if timestamp_ms != told.ms {
            let what = "its header has another time than its samples";
            self.find(Damage, file, offset, bytes, what)?;
        }
        if told.time().is_none() {
            return Ok(());
        }
        let back =
            self.last_ms.replace(timestamp_ms).map_or(-1, |last| last.saturating_sub(timestamp_ms));
        if back == 0 {
            let what = "a round of the same time as the one before it";
            self.find(Damage, file, offset, bytes, what)?;
        } else if back > 0 {
            let what = format!("the clock was set back by {:.3} s", back as f64 / 1000.0);
            self.find(Note, file, offset, bytes, &what)?;
        }
        Ok(())
    }

    fn cursor(&mut self, cursor: &Cursor, end: Option<u64>) -> io::Result<()> {
        let name = cursor.name.as_str();
        let slots = match &cursor.slots {
            Ok(slots) => slots,
            Err(error) => {
                return self.find(Error, name, None, None, &unreadable(&io::Error::from(*error)));
            }
        };
        let then = if cursor.position().is_some() {
            "the other one counts"
        } else {
            "its reader begins at the oldest record"
        };
        for (index, slot) in slots.iter().enumerate() {
            if *slot == Slot::Damaged {
                let what = format!("a slot is damaged; {then}");
                self.find(Damage, name, Some(Cursor::offset(index)), None, &what)?;
            }
        }
        if cursor.bytes > Cursor::BYTES {
            let over = cursor.bytes - Cursor::BYTES;
            let what = format!("{over} bytes behind its slots are cut off at the next start");
            self.find(Note, name, Some(Cursor::BYTES), Some(over), &what)?;
        }
        let first = self.wal.segments.first().map(|segment| segment.base);
        let (Some(position), Some(first), Some(end)) = (cursor.position(), first, end) else {
            return Ok(());
        };
        if position < first {
            let what = format!(
                "it is {} bytes before the oldest segment: what was between was given up",
                first - position
            );
            self.find(Note, name, None, None, &what)?;
        }
        if position > end {
            let what = format!(
                "it is {} bytes behind the end: what it acknowledged was not synced when the power went",
                position - end
            );
            self.find(Note, name, None, None, &what)?;
        }
        Ok(())
    }

    fn summary(&mut self) -> io::Result<()> {
        let (wal, cursors) = (self.wal, self.wal.cursors.len() as u64);
        let (from, to) = (self.times.from(), self.times.to());
        if self.out.json {
            return self.out.object(&Line::Summary {
                wal: &self.path,
                content: content_name(wal.content),
                version: Inspection::VERSION,
                in_use: wal.in_use,
                good: self.damage + self.errors == 0,
                segments: self.segments,
                cursors,
                bytes: wal.bytes(),
                records: self.records,
                items: self.items,
                from,
                to,
                damage: self.damage,
                errors: self.errors,
                notes: self.notes,
            });
        }
        let state = match (self.damage, self.errors) {
            (0, 0) => "good".to_owned(),
            (0, errors) => format!("UNKNOWN ({} can't be read)", count(errors, "file")),
            (damage, 0) => format!("DAMAGED ({})", count(damage, "finding")),
            (damage, errors) => format!(
                "DAMAGED ({}; {} can't be read)",
                count(damage, "finding"),
                count(errors, "file")
            ),
        };
        write!(
            self.out,
            "  {state}: {}, {}, {}",
            count(self.segments, "segment"),
            count(self.records, "record"),
            count(self.items, "item")
        )?;
        if let (Some(from), Some(to)) = (from, to) {
            write!(self.out, " from {from} to {to}")?;
        }
        writeln!(self.out, "; {}", count(cursors, "cursor"))
    }
}
