//! node_exporter's `mdadm`, from /proc/mdstat (drivers/md/md.c, `md_seq_show`), with what versions from 1.8
//! on add from /sys/block/*/md (`node_md_degraded`, `node_md_raid_disks`), and what none has: the progress
//! and speed of a resync, recovery, check or reshape, what the array does now, and the sectors that the
//! last check found to differ.
//!
//! The file counts `blocks_synced` in blocks of one disk while something runs, and of the whole array when
//! nothing does; it is node_exporter's so. A reshape does not change `node_md_state`, as there.

use super::parse::{
    FirstError, Span, Texts, fields, lines, malformed, named, number, text, unsigned, whole,
};
use super::{CollectError, Collector};
use crate::host::{Host, Root};
use crate::model::{Desc, Samples};

const FILE: &str = "proc/mdstat";

const BLOCKS: Desc = Desc::gauge("node_md_blocks", "Total number of blocks on device.");
const BLOCKS_SYNCED: Desc =
    Desc::gauge("node_md_blocks_synced", "Number of blocks synced on device.");
const DISKS: Desc = Desc::gauge("node_md_disks", "Number of active/failed/spare disks of device.");
const DISKS_REQUIRED: Desc =
    Desc::gauge("node_md_disks_required", "Total number of disks of device.");
const STATE: Desc = Desc::gauge("node_md_state", "Indicates the state of md-device.");
const RAID_DISKS: Desc = Desc::gauge("node_md_raid_disks", "Number of raid disks on device.");
const DEGRADED: Desc = Desc::gauge("node_md_degraded", "Number of degraded disks on device.");
const MISMATCHED: Desc = Desc::gauge(
    "node_md_mismatched_sectors",
    "Sectors that the last check or repair of device found to differ.",
);
const ACTION: Desc = Desc::gauge("node_md_sync_action", "What device does to its redundancy.");
const RATIO: Desc = Desc::gauge(
    "node_md_sync_completed_ratio",
    "Progress of the resync, recovery, check or reshape that runs on device.",
);
const SPEED: Desc = Desc::gauge(
    "node_md_sync_speed_bytes",
    "Speed of the resync, recovery, check or reshape that runs on device, in bytes per second.",
);

/// The values of the label `state`, and the words of the progress line that mean them.
const STATES: [&str; 5] = ["active", "inactive", "recovering", "resync", "check"];
const DISK_STATES: [&str; 3] = ["active", "failed", "spare"];
/// What md/sync_action may say (md.c, `action_name`).
const ACTIONS: [&str; 7] = ["idle", "check", "repair", "resync", "recover", "reshape", "frozen"];

const ACTIVE: usize = 0;
const INACTIVE: usize = 1;

#[derive(Default)]
struct Array {
    name: Span,
    /// A place in [`STATES`].
    state: usize,
    /// In the order of [`DISK_STATES`].
    disks: [u64; DISK_STATES.len()],
    required: u64,
    blocks: u64,
    synced: u64,
    /// Blocks that are done and blocks that there are to do.
    progress: Option<(u64, u64)>,
    speed: Option<f64>,
    raid_disks: Option<u64>,
    degraded: Option<u64>,
    mismatched: Option<u64>,
    /// A place in [`ACTIONS`].
    action: Option<usize>,
}

/// The arrays of the kernel's software RAID.
#[derive(Default)]
pub(super) struct Mdadm {
    arrays: Vec<Array>,
    texts: Texts,
}

impl Collector for Mdadm {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        self.arrays.clear();
        self.texts.clear();
        let bytes = whole(FILE, host.proc("mdstat")?, &mut errors);
        self.read(bytes, &mut errors);
        for array in &mut self.arrays {
            read_attributes(self.texts.get(array.name), array, host, &mut errors);
        }
        self.write(out);
        errors.result()
    }
}

/// An array's line, such as `md0 : active raid1 sdb1[1] sda1[0]`, and those below it: its size and disks,
/// its progress, its bitmap.
fn parse<'a>(line: &'a [u8], more: [&[u8]; 3]) -> Result<(&'a [u8], Array), CollectError> {
    let mut words = fields(line);
    let name = words.next().unwrap_or_default();
    let state = words.nth(1).and_then(|word| position(&STATES, word));
    let state = state.filter(|state| [ACTIVE, INACTIVE].contains(state));
    let (Some(state), false) = (state, name.contains(&b'/') || name == b"..") else {
        return Err(malformed(FILE, line, "an array, a colon and active or inactive"));
    };
    let count = |mark: &[u8]| words.clone().filter(|word| word.ends_with(mark)).count() as u64;
    let (failed, spare) = (count(b"(F)"), count(b"(S)"));
    let [status, below @ ..] = more;
    let blocks = fields(status).next().unwrap_or_default();
    let blocks = unsigned(blocks).ok_or_else(|| malformed(FILE, status, "a number of blocks"))?;
    let striped = |word: &[u8]| word.starts_with(b"raid0") || word.starts_with(b"linear");
    let (required, active) = if words.clone().any(striped) {
        let disks = words.filter(|word| word.contains(&b'[')).count() as u64;
        (disks, disks)
    } else if state == INACTIVE {
        (0, 0)
    } else {
        disks(status).ok_or_else(|| malformed(FILE, status, "disks such as [2/2] [UU]"))?
    };
    let disks = [active, failed, spare];
    let mut array = Array { state, disks, required, blocks, synced: blocks, ..Array::default() };
    for line in below {
        progress(line, &mut array)?;
    }
    Ok((name, array))
}

/// Of `[4/3] [UU_U]`: how many disks the array wants, and how many it has.
fn disks(status: &[u8]) -> Option<(u64, u64)> {
    fields(status).find_map(|word| pair(word, b"[", b"]"))
}

/// Two numbers with a stroke between them, in brackets.
fn pair(word: &[u8], open: &[u8], close: &[u8]) -> Option<(u64, u64)> {
    let inner = word.strip_prefix(open)?.strip_suffix(close)?;
    let (first, second) = inner.split_at_checked(inner.iter().position(|&byte| byte == b'/')?)?;
    Some((unsigned(first)?, unsigned(second.strip_prefix(b"/")?)?))
}

/// A line such as `[=>...]  recovery = 12.6% (369/2930) finish=301.5min speed=141520K/sec`, or one of
/// `resync=DELAYED`, `resync=PENDING` and `resync=REMOTE`; any other line says nothing of progress.
fn progress(line: &[u8], array: &mut Array) -> Result<(), CollectError> {
    let word = fields(line).find(|word| !word.starts_with(b"[")).unwrap_or_default();
    let waits = word.contains(&b'=');
    let kind = word.split(|&byte| byte == b'=').next().unwrap_or_default();
    let state = match kind {
        b"recovery" => "recovering",
        b"resync" => "resync",
        b"check" => "check",
        b"reshape" => STATES.get(array.state).copied().unwrap_or_default(),
        _ => return Ok(()),
    };
    array.state = position(&STATES, state.as_bytes()).unwrap_or(array.state);
    if waits {
        if kind != b"reshape" {
            array.synced = 0;
        }
        return Ok(());
    }
    let blocks = fields(line).find_map(|word| pair(word, b"(", b")"));
    let speed = fields(line)
        .find_map(|word| word.strip_prefix(b"speed="))
        .and_then(|speed| speed.strip_suffix(b"K/sec"))
        .and_then(unsigned);
    let (Some((done, all)), Some(speed)) = (blocks, speed) else {
        return Err(malformed(FILE, line, "blocks such as (1/2) and speed=3K/sec"));
    };
    if kind != b"reshape" {
        array.synced = done;
    }
    array.progress = Some((done, all));
    array.speed = Some(speed as f64 * 1024.0);
    Ok(())
}

/// The attributes below /sys/block. Arrays without redundancy lack all but `raid_disks`.
fn read_attributes(name: &str, array: &mut Array, host: &mut Host, errors: &mut FirstError) {
    let mut value = |file| {
        let path = format_args!("block/{name}/md/{file}");
        number(host, Root::Sys, path, errors)
    };
    if array.state == INACTIVE {
        return;
    }
    array.raid_disks = value("raid_disks");
    array.degraded = value("degraded");
    array.mismatched = value("mismatch_cnt");
    let path = format_args!("block/{name}/md/sync_action");
    if let Some(bytes) = host.find(Root::Sys, path) {
        array.action = position(&ACTIONS, bytes.trim_ascii());
        if array.action.is_none() {
            errors.note(malformed(&named(Root::Sys, path), bytes, "an action such as idle"));
        }
    }
}

fn position(words: &[&str], word: &[u8]) -> Option<usize> {
    words.iter().position(|known| known.as_bytes() == word)
}

impl Mdadm {
    /// Reads the whole file.
    fn read(&mut self, bytes: &[u8], errors: &mut FirstError) {
        let mut rest = lines(bytes).peekable();
        while let Some(line) = rest.next() {
            let indented = line.first().is_none_or(u8::is_ascii_whitespace);
            if indented || line.starts_with(b"Personalities") || line.starts_with(b"unused") {
                continue;
            }
            let mut more = [&b""[..]; 3];
            for slot in &mut more {
                match rest.next_if(|next| next.first().is_some_and(u8::is_ascii_whitespace)) {
                    Some(next) => *slot = next,
                    None => break,
                }
            }
            match parse(line, more) {
                Ok((name, array)) => {
                    let name = self.texts.keep(&text(name));
                    self.arrays.push(Array { name, ..array });
                }
                Err(error) => errors.note(error),
            }
        }
    }

    fn write(&self, out: &mut Samples) {
        self.each(&STATE, "state", &STATES, |array| Some(array.state), out);
        let mut family = out.family(&DISKS);
        for array in &self.arrays {
            for (state, count) in DISK_STATES.iter().zip(array.disks) {
                let device = self.texts.get(array.name);
                family.add(&[("device", device), ("state", state)], count as f64);
            }
        }
        self.value(&DISKS_REQUIRED, |array| Some(array.required as f64), out);
        self.value(&BLOCKS, |array| Some(array.blocks as f64), out);
        self.value(&BLOCKS_SYNCED, |array| Some(array.synced as f64), out);
        self.value(&RAID_DISKS, |array| array.raid_disks.map(|disks| disks as f64), out);
        self.value(&DEGRADED, |array| array.degraded.map(|disks| disks as f64), out);
        self.value(&MISMATCHED, |array| array.mismatched.map(|sectors| sectors as f64), out);
        self.each(&ACTION, "action", &ACTIONS, |array| array.action, out);
        let ratio = |(done, all): (u64, u64)| (all > 0).then(|| done as f64 / all as f64);
        self.value(&RATIO, |array| array.progress.and_then(ratio), out);
        self.value(&SPEED, |array| array.speed, out);
    }

    fn value(&self, desc: &Desc, value: impl Fn(&Array) -> Option<f64>, out: &mut Samples) {
        let mut family = out.family(desc);
        for array in &self.arrays {
            if let Some(value) = value(array) {
                family.add(&[("device", self.texts.get(array.name))], value);
            }
        }
    }

    /// A series for each of the words, 1 for the one that holds.
    fn each(
        &self,
        desc: &Desc,
        label: &str,
        words: &[&str],
        which: impl Fn(&Array) -> Option<usize>,
        out: &mut Samples,
    ) {
        let mut family = out.family(desc);
        for array in &self.arrays {
            let Some(which) = which(array) else { continue };
            for (index, word) in words.iter().enumerate() {
                let labels = [("device", self.texts.get(array.name)), (label, *word)];
                family.add(&labels, f64::from(u8::from(index == which)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(line: &str, more: [&str; 3]) -> Result<Array, String> {
        let parsed = parse(line.as_bytes(), more.map(str::as_bytes));
        parsed.map(|(_, array)| array).map_err(|error| error.to_string())
    }

    #[test]
    fn a_failed_disk_and_a_recovery_that_runs() {
        let line = "md1 : active (read-only) raid5 sdc[3](F) sdb[1] sda[0] sdd[4](S)";
        let recovery = "  [=>..]  recovery = 25.0% (25/100) finish=1.0min speed=2K/sec";
        let got = array(line, ["  200 blocks level 5 [3/2] [UU_]", recovery, "  bitmap: 1/1"]);
        let got = got.unwrap();
        assert_eq!((got.disks, got.required, got.blocks, got.synced), ([2, 1, 1], 3, 200, 25));
        assert_eq!((STATES[got.state], got.speed), ("recovering", Some(2048.0)));
        assert_eq!(got.progress, Some((25, 100)));
    }

    #[test]
    fn what_waits_has_nothing_synced_and_a_reshape_is_still_active() {
        for waits in ["  \tresync=DELAYED", "  \tresync=PENDING", "  resync=REMOTE"] {
            let got = array("md0 : active raid1 sda[0]", ["  9 blocks [2/1] [U_]", waits, ""]);
            let got = got.unwrap();
            assert_eq!((STATES[got.state], got.synced), ("resync", 0));
            assert_eq!(got.progress, None);
        }
        let reshape = "  [>...]  reshape =  1.0% (1/100) finish=9.0min speed=1K/sec";
        let got = array("md0 : active raid5 sda[0]", ["  9 blocks [2/2] [UU]", reshape, ""]);
        let got = got.unwrap();
        assert_eq!((STATES[got.state], got.synced), ("active", 9));
        assert_eq!(got.progress, Some((1, 100)));
    }

    #[test]
    fn stripes_and_inactive_arrays_tell_no_disks_in_brackets() {
        let got = array("md3 : active raid0 sdb[1] sda[0]", ["  9 blocks 512k chunks", "", ""]);
        assert_eq!(got.map(|got| (got.disks, got.required)), Ok(([2, 0, 0], 2)));
        let got = array("md2 : inactive sdb[1](S)", ["  9 blocks super 1.2", "", ""]);
        assert_eq!(got.map(|got| (got.disks, STATES[got.state])), Ok(([0, 0, 1], "inactive")));
    }

    #[test]
    fn a_malformed_array_is_named() {
        let good = "  9 blocks [2/2] [UU]";
        for (line, more, token) in [
            ("md0", [good, "", ""], "md0"),
            ("md0 : broken raid1", [good, "", ""], "broken"),
            ("../x : active raid1", [good, "", ""], "../x"),
            ("md0 : active raid1 a[0]", ["", "", ""], "\"\""),
            ("md0 : active raid1 a[0]", ["  x blocks [2/2]", "", ""], "x blocks"),
            ("md0 : active raid1 a[0]", ["  9 blocks [2/] [UU]", "", ""], "[2/]"),
            ("md0 : active raid1 a[0]", ["  9 blocks [UU]", "", ""], "[UU]"),
            ("md0 : active raid1 a[0]", [good, "  check = 1% (1/", ""], "(1/"),
            ("md0 : active raid1 a[0]", [good, "  check = 1% (1/2) speed=9M/sec", ""], "9M/sec"),
        ] {
            let error = array(line, more).map(|_| ()).unwrap_err();
            assert!(error.contains(token) && error.contains(FILE), "{error}");
        }
    }
}
