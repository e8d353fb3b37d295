//! What of the metrics WAL really reaches a device: sectors written to an ext4 file system on a loop
//! device, journal and metadata included, for rounds of this machine. Needs root, util-linux and
//! e2fsprogs.
//!
//! `cargo run --release -p benches --bin device`. It must not know how the WAL lays out its files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use benches::Result;
use benches::rounds::{FIRST_MS, INTERVAL_MS, MetricsWal, Recorder};
use benches::table::{Table, thousands};

/// Rounds of one measurement.
const ROUNDS: u64 = 600;
/// Rounds of the one in which the file system is written out after each: it takes longer.
const APART: u64 = 120;
const IMAGE_BYTES: u64 = 256 << 20;
const IDLE: Duration = Duration::from_secs(6);
const SECTOR: u64 = 512;

fn main() -> Result<()> {
    if std::env::args().len() > 1 {
        return Err("device takes no arguments".into());
    }
    let mut table = Table::new();
    let cases = [
        Case {
            what: "a sync a round",
            cursor: Cursor::None,
            every: 1,
            apart: false,
            budget: 6 << 10,
        },
        Case {
            what: "a sync a round, an endpoint",
            cursor: Cursor::Synced,
            every: 1,
            apart: false,
            budget: 12 << 10,
        },
        Case {
            what: "the same, a minute apart",
            cursor: Cursor::Synced,
            every: 1,
            apart: true,
            budget: 32 << 10,
        },
        Case {
            what: "a sync in 10 rounds",
            cursor: Cursor::None,
            every: 10,
            apart: false,
            budget: 2 << 10,
        },
        Case {
            what: "a sync in 10, an endpoint",
            cursor: Cursor::Written,
            every: 10,
            apart: false,
            budget: 2 << 10,
        },
    ];
    match Device::new() {
        Err(error) => table.row("bytes on the device a round", "-", error),
        Ok(device) => {
            let idle = device.idle()?;
            for case in &cases {
                case.measure(&device, idle, &mut table)?;
            }
            let value = format!("{:.0}", idle * 60.0);
            table.row("idle: bytes a minute", value, "the mounted file system, nobody writing");
        }
    }
    table.print("The metrics WAL on its device");
    Ok(())
}

/// What is done with an endpoint's cursor after each round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cursor {
    None,
    Written,
    Synced,
}

struct Case {
    what: &'static str,
    cursor: Cursor,
    /// Rounds from one sync to the next.
    every: u64,
    /// Whether the file system is written out after each round, as it is when rounds are a minute apart:
    /// by itself it writes metadata to its place after 5 to 30 seconds.
    apart: bool,
    /// The most bytes that a round may write to the device; more fails the bench.
    budget: u64,
}

impl Case {
    fn measure(&self, device: &Device, idle: f64, table: &mut Table) -> Result<()> {
        let folder = device.mount.join("wal");
        fs::create_dir(&folder)?;
        let mut recorder = Recorder::new(None);
        let mut log = MetricsWal::create(&folder)?;
        device.write_out()?;
        let rounds = if self.apart { APART } else { ROUNDS };
        let (before, start) = (device.written()?, Instant::now());
        for round in 1..=rounds {
            recorder.collect();
            let next = log.append(FIRST_MS + round as i64 * INTERVAL_MS, &recorder.samples)?;
            if round % self.every == 0 {
                log.wal.sync()?;
            }
            if self.cursor != Cursor::None {
                let reader = log.reader;
                log.wal.acknowledge(reader, next, self.cursor == Cursor::Synced)?;
            }
            if self.apart {
                device.write_out()?;
            }
        }
        device.write_out()?;
        let gone = start.elapsed().as_secs_f64();
        let bytes = (device.written()? - before) as f64 - idle * gone;
        let payload = log.payload_bytes;
        let how = format!(
            "sectors written to {}, {rounds} rounds in {gone:.1} s, less idle; {}",
            device.name,
            if self.apart { "written out after each" } else { "back to back, then written out" }
        );
        let a_round = (bytes / rounds as f64).round().max(0.0) as u64;
        table.row(format!("{}: bytes a round", self.what), thousands(a_round), how);
        if a_round > self.budget {
            let what = self.what;
            return Err(
                format!("{what}: {a_round} bytes a round, the budget is {}", self.budget).into()
            );
        }
        let value = thousands(self.budget);
        table.row(format!("{}: budget", self.what), value, "more fails this program");
        let ratio = format!("{:.2}", bytes / payload as f64);
        let how = format!("the above / {} bytes of payload a round", thousands(payload / rounds));
        table.row(format!("{}: write amplification", self.what), ratio, how);
        let handed = log.wal.stats().written_bytes;
        let how = "mote_wal_written_bytes_total of the same rounds";
        table.row(format!("{}: handed over", self.what), thousands(handed / rounds), how);
        drop(log);
        fs::remove_dir_all(&folder)?;
        device.write_out()
    }
}

/// A file system of its own; unmounted when it is dropped.
struct Device {
    /// The loop device's name, such as `loop0`.
    name: String,
    mount: PathBuf,
    _folder: tempfile::TempDir,
}

impl Device {
    fn new() -> Result<Device> {
        let folder = tempfile::tempdir()?;
        let (image, mount) = (folder.path().join("image"), folder.path().join("mount"));
        File::create(&image)?.set_len(IMAGE_BYTES)?;
        fs::create_dir(&mount)?;
        // Everything at once, so that the kernel writes no tables in the background.
        let now = "lazy_itable_init=0,lazy_journal_init=0";
        run("mkfs.ext4", &["-q", "-F", "-b", "4096", "-E", now], &[&image])?;
        run("mount", &["-o", "loop,noatime"], &[&image, &mount])?;
        let mut device = Device { name: String::new(), mount, _folder: folder };
        let found = run("losetup", &["--noheadings", "--output", "NAME", "-j"], &[&image])?;
        device.name = found.trim().trim_start_matches("/dev/").to_owned();
        device.written()?;
        Ok(device)
    }

    /// Bytes written since it was attached.
    fn written(&self) -> Result<u64> {
        let path = format!("/sys/block/{}/stat", self.name);
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let sectors = text.split_whitespace().nth(6).ok_or("no sectors in its stat")?;
        Ok(sectors.parse::<u64>()? * SECTOR)
    }

    /// Bytes a second that it writes by itself.
    fn idle(&self) -> Result<f64> {
        self.write_out()?;
        let before = self.written()?;
        std::thread::sleep(IDLE);
        Ok((self.written()? - before) as f64 / IDLE.as_secs_f64())
    }

    /// Writes data, journal and metadata to their places.
    fn write_out(&self) -> Result<()> {
        run("sync", &["--file-system"], &[&self.mount]).map(drop)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = run("umount", &[], &[&self.mount]);
    }
}

fn run(program: &str, options: &[&str], paths: &[&Path]) -> Result<String> {
    let output = Command::new(program).args(options).args(paths).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program}: {}", said.lines().next().unwrap_or("failed")).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
