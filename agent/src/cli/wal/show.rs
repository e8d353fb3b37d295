//! `mote wal show`: the contents, oldest first.

use std::io::{self, Write};

use serde::Serialize;

use super::contents::{Contents, Held, Known, Told, kind_name};
use super::ls::describe;
use super::out::{Braces, Name, Number, Object, Out, exact};
use super::{Stop, Target, all_read, content_name, header, time, unreadable};
use crate::encode::Series;
use crate::wal::{Inspection, OtherKind, Place, Record, SegmentFile};

pub(super) const USAGE: &str = "\
Shows what is in WAL directories, oldest first: each record, and in it samples as the Prometheus text
format has them, or log entries as `time {stream}+{metadata} line`. Control characters are shown as
\\x1b, backslashes as \\\\, odd names in quotes, and a NaN that is not the plain one with its bits, such as
NaN(0x7ff0000000000002). Lines that begin with # are records, damage and what can't be decoded.

Usage: mote wal show [DIR] [--records] [--from TIME] [--to TIME] [--last DURATION] [--json]
                     [--config FILE] [--set KEY=VALUE]...

      --records       the records alone: position, kind, time, items, bytes
      --from TIME     records of this time or later, such as 2026-11-21T12:00:00Z or …T14:00:00+02:00
      --to TIME       records of this time or earlier
      --last DURATION records of the last 10m, 2h, 1day before the newest one

A record's time is that of its samples, and for log entries when they were read. Records that were held until the
clock was right (held-round, held-block) are shown with the times that servers get, or, as long as those are
not known, with those of the wrong clock, whatever --from, --to and --last say. Exit code 1 if there are
files that can't be read, or that are no segments although they are named so; damage in a segment alone is
0.

--json prints one object a line, with `type`:
  wal          path, content, version, bytes, in_use (null: unknown)
  record       wal, file, offset, position, kind, time, items, bytes,
               held (\"known\", \"estimated\", \"unknown\" as its time is; null: it was not held)
  sample       name, labels, value (a number, or \"NaN\", \"+Inf\", \"-Inf\", \"NaN(0x…)\"), timestamp_ms
  entry        time, timestamp_ns (a string), stream, metadata, line
  damage       wal, file, offset, bytes, items (null: unknown)
  torn         wal, file, offset, bytes
  undecodable  wal, file, offset, bytes, items, why
  unreadable   wal, file, why
";

/// What is shown of each record.
#[derive(Clone, Copy, Default)]
pub(super) struct Show {
    /// The records without their contents.
    pub(super) records: bool,
}

/// The times that are asked for, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Default)]
pub(super) struct Span {
    from: Option<i64>,
    to: Option<i64>,
    last: Option<i64>,
}

impl Span {
    /// Takes an option `from`, `to` or `last`; the error is what is wrong with its value.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        if name == "last" {
            let duration = humantime::parse_duration(value).ok();
            let ms = duration.and_then(|duration| i64::try_from(duration.as_millis()).ok());
            let ms = ms.ok_or_else(|| format!("--last {value:?}: a duration is 30s, 10m, 2h"))?;
            self.last = Some(ms);
        } else {
            let ms = time::parse(value);
            let ms = ms.ok_or_else(|| {
                format!("--{name} {value:?}: a time is 2026-11-21T12:00:00Z (RFC 3339)")
            })?;
            *(if name == "from" { &mut self.from } else { &mut self.to }) = Some(ms);
        }
        match self {
            Span { last: Some(_), from: Some(_), .. } | Span { last: Some(_), to: Some(_), .. } => {
                Err("--last goes with neither --from nor --to".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The span with `last` counted from the newest record of all WALs.
    fn settle(self, targets: &[Target]) -> Result<Span, Stop> {
        let Some(last) = self.last else { return Ok(self) };
        let mut newest = None;
        for target in targets {
            newest = newest.max(target.inspect()?.newest_ms());
        }
        Ok(Span { from: newest.map(|newest| newest.saturating_sub(last)), ..self })
    }

    fn has(&self, time_ms: i64) -> bool {
        self.from.is_none_or(|from| time_ms >= from) && self.to.is_none_or(|to| time_ms <= to)
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Wal {
        path: &'a str,
        content: String,
        version: u16,
        bytes: u64,
        in_use: Option<bool>,
    },
    Record {
        wal: &'a str,
        file: &'a str,
        offset: u64,
        position: u64,
        kind: String,
        time: String,
        held: Option<&'static str>,
        items: u32,
        bytes: u64,
    },
    Damage {
        wal: &'a str,
        file: &'a str,
        offset: u64,
        bytes: u64,
        items: Option<u32>,
    },
    Torn {
        wal: &'a str,
        file: &'a str,
        offset: u64,
        bytes: u64,
    },
    Undecodable {
        wal: &'a str,
        file: &'a str,
        offset: u64,
        bytes: u64,
        items: u32,
        why: String,
    },
    Unreadable {
        wal: &'a str,
        file: &'a str,
        why: String,
    },
}

#[derive(Serialize)]
struct SampleLine<'a, L: Serialize> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    labels: L,
    value: Number,
    timestamp_ms: i64,
}

#[derive(Serialize)]
struct EntryLine<'a, L: Serialize, M: Serialize> {
    #[serde(rename = "type")]
    kind: &'static str,
    time: String,
    timestamp_ns: String,
    stream: L,
    metadata: M,
    line: &'a str,
}

impl Show {
    pub(super) fn run(self, targets: &[Target], span: &Span, out: &mut Out) -> Result<(), Stop> {
        let span = span.settle(targets)?;
        let mut unread = 0;
        for target in targets {
            let wal = target.inspect()?;
            let path = wal.path().to_string_lossy().into_owned();
            let mut view = View { wal: &wal, path, span, records: self.records, unread: 0, out };
            view.run()?;
            unread += view.unread;
        }
        all_read(unread)
    }
}

struct View<'a> {
    wal: &'a Inspection,
    path: String,
    span: Span,
    records: bool,
    /// Files that can't be read.
    unread: u64,
    out: &'a mut Out,
}

impl View<'_> {
    fn run(&mut self) -> io::Result<()> {
        let wal = self.wal;
        if self.out.json {
            self.out.object(&Line::Wal {
                path: &self.path,
                content: content_name(wal.content),
                version: Inspection::VERSION,
                bytes: wal.bytes(),
                in_use: wal.in_use,
            })?;
        } else {
            writeln!(self.out, "# {}", header(wal))?;
        }
        let mut contents = Contents::of(wal);
        for segment in &wal.segments {
            self.segment(segment, &mut contents)?;
        }
        for other in &wal.others {
            if matches!(other.what, OtherKind::Rejected(_) | OtherKind::Unreadable(_)) {
                self.unreadable(&other.name, describe(&other.what))?;
            }
        }
        Ok(())
    }

    fn segment(&mut self, segment: &SegmentFile, contents: &mut Contents) -> io::Result<()> {
        let file = segment.name.as_str();
        let mut walk = match self.wal.walk(segment) {
            Ok(Some(walk)) => walk,
            Ok(None) => return Ok(()),
            Err(error) => return self.unreadable(file, unreadable(&error)),
        };
        let mut payload = Vec::new();
        loop {
            match walk.next(&mut payload) {
                Ok(Some(Place::Record(record))) => {
                    self.record(file, &record, &payload, contents)?;
                }
                Ok(Some(Place::Damage(damage))) => {
                    let (offset, bytes) = (damage.offset, damage.bytes);
                    if damage.record.is_none_or(|(_, time_ms)| self.span.has(time_ms)) {
                        let items = damage.record.map(|(items, _)| items);
                        self.damage(file, offset, bytes, items)?;
                    }
                }
                Ok(Some(Place::Torn { offset, bytes })) => self.torn(file, offset, bytes)?,
                Ok(None) => return Ok(()),
                Err(error) => return self.unreadable(file, unreadable(&error)),
            }
        }
    }

    fn record(
        &mut self,
        file: &str,
        record: &Record,
        payload: &[u8],
        contents: &mut Contents,
    ) -> io::Result<()> {
        let told = contents.told(record, payload);
        // Nobody can tell whether what has no time is in the span.
        let shown = told.time().is_none_or(|ms| self.span.has(ms));
        if shown {
            self.record_line(file, record, told)?;
        }
        if self.records {
            return Ok(());
        }
        // What is not shown may still be needed to read what is.
        match contents.decode(record, payload) {
            _ if !shown => Ok(()),
            Ok(Held::Round { timestamp_ms }) => contents
                .samples()
                .try_for_each(|(series, value)| self.sample(&series, Number(value), timestamp_ms)),
            Ok(Held::Block) => self.entries(contents),
            Err(why) if self.out.json => self.out.object(&Line::Undecodable {
                wal: &self.path,
                file,
                offset: record.position - record.segment,
                bytes: record.next - record.position,
                items: record.items,
                why: why.to_string(),
            }),
            Err(why) => writeln!(self.out, "# {:016x} {why}", record.position),
        }
    }

    fn record_line(&mut self, file: &str, record: &Record, told: Told) -> io::Result<()> {
        let bytes = record.next - record.position;
        let (kind, time) = (kind_name(record.kind), time::rfc3339_ms(told.ms));
        let held = told.held.map(Known::as_str);
        let (position, items) = (record.position, record.items);
        if self.out.json {
            let offset = position - record.segment;
            let wal = &self.path;
            return self.out.object(&Line::Record {
                wal,
                file,
                offset,
                position,
                kind,
                time,
                held,
                items,
                bytes,
            });
        }
        let mark = if self.records { "" } else { "# " };
        writeln!(
            self.out,
            "{mark}{position:016x} {kind:<5} {time:<24} {items:>6} items {bytes:>8} bytes{}",
            match told.held {
                None | Some(Known::Exact) => "",
                Some(Known::Estimated) => "  (estimated: its boot never learned the time)",
                Some(Known::No) => "  (by a clock that nobody vouched for)",
            }
        )
    }

    fn sample(&mut self, series: &Series, value: Number, timestamp_ms: i64) -> io::Result<()> {
        let name = series.labels().find(|(name, _)| *name == "__name__").map_or("", |(_, v)| v);
        let labels = series.labels().filter(|(name, _)| *name != "__name__");
        if self.out.json {
            let (kind, labels) = ("sample", Object(labels));
            return self.out.object(&SampleLine { kind, name, labels, value, timestamp_ms });
        }
        // A name that is odd stands in the braces in quotes, as the text format has it.
        let has_labels = labels.clone().next().is_some();
        if name.is_empty() || Name(name).is_plain() {
            write!(self.out, "{name}")?;
            if name.is_empty() || has_labels {
                write!(self.out, "{}", Braces(labels))?;
            }
        } else {
            let braces = Braces(labels).to_string();
            let comma = if has_labels { "," } else { "" };
            let labels = braces.strip_prefix('{').unwrap_or_default();
            write!(self.out, "{{{}{comma}{labels}", Name(name))?;
        }
        writeln!(self.out, " {value} {timestamp_ms}")
    }

    fn entries(&mut self, contents: &Contents) -> io::Result<()> {
        let block = contents.block();
        for entry in block.entries() {
            let Some(stream) = block.streams().get(usize::from(entry.stream.0)) else { continue };
            let time = time::rfc3339_ns(entry.timestamp_ns);
            let metadata = entry.metadata.iter();
            if self.out.json {
                self.out.object(&EntryLine {
                    kind: "entry",
                    time,
                    timestamp_ns: entry.timestamp_ns.to_string(),
                    stream: Object(stream.iter()),
                    metadata: Object(metadata),
                    line: entry.line,
                })?;
                continue;
            }
            write!(self.out, "{time} {}", Braces(stream.iter()))?;
            if !entry.metadata.is_empty() {
                write!(self.out, "+{}", Braces(metadata))?;
            }
            writeln!(self.out, " {}", exact(entry.line))?;
        }
        Ok(())
    }

    fn damage(
        &mut self,
        file: &str,
        offset: u64,
        bytes: u64,
        items: Option<u32>,
    ) -> io::Result<()> {
        if self.out.json {
            let wal = &self.path;
            return self.out.object(&Line::Damage { wal, file, offset, bytes, items });
        }
        let items = items.map_or(String::new(), |items| format!(", with {items} items"));
        writeln!(self.out, "# {file} byte {offset}: DAMAGED, {bytes} bytes are skipped{items}")
    }

    fn torn(&mut self, file: &str, offset: u64, bytes: u64) -> io::Result<()> {
        if self.out.json {
            return self.out.object(&Line::Torn { wal: &self.path, file, offset, bytes });
        }
        writeln!(self.out, "# {file} byte {offset}: {}", torn(self.wal, bytes))
    }

    fn unreadable(&mut self, file: &str, why: String) -> io::Result<()> {
        self.unread += 1;
        if self.out.json {
            return self.out.object(&Line::Unreadable { wal: &self.path, file, why });
        }
        writeln!(self.out, "# {file}: {why}")
    }
}

/// What is said of a torn tail.
pub(super) fn torn(wal: &Inspection, bytes: u64) -> String {
    if wal.may_be_in_use() {
        return format!("{bytes} bytes that are being written, or a torn tail");
    }
    format!("torn tail, {bytes} bytes, is cut off at the next start")
}
