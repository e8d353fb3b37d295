//! Attacks by log files: a flood, and a line without end.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Attack, Field, Going, numbers, once_and_in_order, quoted};

/// So many lines a second into one file.
pub(crate) struct Flood {
    dir: tempfile::TempDir,
    rate: u64,
    going: Option<Going<u64>>,
    lines: u64,
}

impl Flood {
    pub(crate) fn new(rate: u64) -> Flood {
        Flood { dir: tempfile::tempdir().unwrap(), rate, going: None, lines: 0 }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("flood.log")
    }

    fn arrived(&self, field: &Field) -> Vec<String> {
        field.loki.lines(&[("job", "flood")])
    }
}

impl Attack for Flood {
    fn name(&self) -> &'static str {
        "flood of log lines"
    }

    fn tables(&self) -> String {
        format!(
            "[[logs.file]]\npaths = [{}]\nlabels = {{ job = \"flood\" }}\n",
            quoted(&self.path())
        )
    }

    fn begin(&mut self, _: &mut Field) {
        let (path, rate) = (self.path(), self.rate);
        self.going = Some(Going::start(move |stop| {
            let mut file = File::options().create(true).append(true).open(path).unwrap();
            let (start, mut written, mut text) = (Instant::now(), 0u64, Vec::new());
            while !stop.load(Ordering::SeqCst) {
                let due = start.elapsed().as_micros() as u64 * rate / 1_000_000;
                text.clear();
                while written < due {
                    let tail = (written % 50) as usize;
                    writeln!(text, "line {written} {:x<tail$}", "").unwrap();
                    written += 1;
                }
                file.write_all(&text).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
            let rate = written as f64 / start.elapsed().as_secs_f64();
            println!("{written} lines, {rate:.0} a second");
            written
        }));
    }

    fn end(&mut self, _: &mut Field) {
        self.lines = self.going.take().unwrap().end();
    }

    fn has_arrived(&self, field: &Field) -> bool {
        let have = field.loki.with_service(|loki| {
            let of = |(stream, _): &(&crate::support::strict_loki::Stream, _)| {
                stream.get("job").is_some_and(|job| job == "flood")
            };
            loki.streams.iter().filter(of).map(|(_, entries)| entries.len()).sum::<usize>()
        });
        have as u64 >= self.lines
    }

    fn check(&self, field: &Field) {
        once_and_in_order("flood", &numbers(&self.arrived(field)), self.lines);
    }
}

/// One line of this length, whose end comes when all is over.
pub(crate) struct LongLine {
    dir: tempfile::TempDir,
}

/// `logs.max_line`
const MAX_LINE: usize = 64 << 10;

impl LongLine {
    pub(crate) fn new(length: u64) -> LongLine {
        let dir = tempfile::tempdir().unwrap();
        let mut file = File::create(dir.path().join("long.log")).unwrap();
        let chunk = vec![b'x'; 1 << 20];
        // Most are zeros, which take no room on the disk.
        for at in (0..length).step_by(16 << 20) {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&chunk).unwrap();
        }
        file.set_len(length).unwrap();
        LongLine { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("long.log")
    }
}

impl Attack for LongLine {
    fn name(&self) -> &'static str {
        "endless line"
    }

    fn tables(&self) -> String {
        format!(
            "[[logs.file]]\npaths = [{}]\nlabels = {{ job = \"long\" }}\n",
            quoted(&self.path())
        )
    }

    fn end(&mut self, _: &mut Field) {
        let mut file = File::options().append(true).open(self.path()).unwrap();
        file.write_all(b"\nthe next line\n").unwrap();
    }

    fn has_arrived(&self, field: &Field) -> bool {
        field.loki.lines(&[("job", "long")]).len() >= 2
    }

    fn check(&self, field: &Field) {
        let lines = field.loki.lines(&[("job", "long")]);
        assert_eq!(lines.len(), 2, "{:?}", lines.iter().map(String::len).collect::<Vec<_>>());
        assert!(lines[0].len() == MAX_LINE && lines[0].bytes().all(|byte| byte == b'x'));
        assert_eq!(lines[1], "the next line");
    }
}
