//! An attack by a journal: a million entries that nobody has read yet.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Attack, Field, numbers, once_and_in_order, quoted};

const REMOTE: &str = "/lib/systemd/systemd-journal-remote";
const BOOT: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;

/// A journal that is there before the agent is, made by Debian's own program.
pub(crate) struct Backlog {
    dir: tempfile::TempDir,
    entries: u64,
    /// Whether to wait until all of it is read.
    to_its_end: bool,
}

impl Backlog {
    pub(crate) fn new(entries: u64, to_its_end: bool) -> Backlog {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("system.journal"), entries);
        Backlog { dir, entries, to_its_end }
    }
}

fn write(path: &Path, entries: u64) {
    let mut child = Command::new(REMOTE)
        .args(["--compress=yes", "--output"])
        .arg(path)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{REMOTE}: {error}; run `cargo xtask setup`"));
    let mut out = BufWriter::with_capacity(1 << 20, child.stdin.take().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    for number in 0..entries {
        let monotonic = 1_000_000 + number * 1_000;
        let realtime = now - 3_600_000_000 + number * 1_000;
        // One in a thousand is long enough that journald compresses it.
        let tail = if number % 1_000 == 7 { 8_000 } else { (number % 60) as usize };
        write!(
            out,
            "__REALTIME_TIMESTAMP={realtime}\n__MONOTONIC_TIMESTAMP={monotonic}\n_BOOT_ID={BOOT:032x}\n\
             MESSAGE=line {number} {:y<tail$}\nPRIORITY=6\nSYSLOG_IDENTIFIER=test\n\
             _SYSTEMD_UNIT=test.service\n_PID={}\n\n",
            "",
            number % 500
        )
        .unwrap();
    }
    drop(out);
    assert!(child.wait().unwrap().success(), "{REMOTE} failed");
}

impl Attack for Backlog {
    fn name(&self) -> &'static str {
        "journal to catch up on"
    }

    fn tables(&self) -> String {
        format!(
            "[logs.journal]\ndirectories = [{}]\nmax_age = \"240h\"\nlabels = {{ job = \"journal\" }}\n\
             metadata_from = {{ pid = \"_PID\" }}\n",
            quoted(self.dir.path())
        )
    }

    fn has_arrived(&self, field: &Field) -> bool {
        let have = field.loki.with_service(|loki| {
            let streams = loki.streams.iter();
            let of =
                streams.filter(|(stream, _)| stream.get("job").is_some_and(|j| j == "journal"));
            of.map(|(_, entries)| entries.len() as u64).sum::<u64>()
        });
        have >= if self.to_its_end { self.entries } else { 1 }
    }

    fn check(&self, field: &Field) {
        let got = numbers(&field.loki.lines(&[("job", "journal")]));
        println!("{} of {} entries", got.len(), self.entries);
        let count = if self.to_its_end { self.entries } else { got.len() as u64 };
        once_and_in_order("journal", &got, count);
    }
}
