//! node_exporter's `drbd`, from /proc/drbd (drivers/block/drbd/drbd_proc.c; DRBD 8, and 9 does not have it).
//! Bytes received are not multiplied, though the file gives KiB as for those sent: it is node_exporter's
//! so, and dashboards reckon with it.

use std::fmt::Write as _;

use super::parse::{FirstError, Span, fields, lines, malformed, unsigned, whole};
use super::rows::{Rows, Shape};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const FILE: &str = "proc/drbd";

const DEVICE: &[&str] = &["device"];
const NODE: &[&str] = &["device", "node"];

/// Keys of numbers, their families and what a unit of them is.
#[rustfmt::skip]
const NUMBERS: [(&[u8], Shape, f64); 12] = [
    (b"ns", (Desc::counter("node_drbd_network_sent_bytes_total", "Total number of bytes sent via the network."), DEVICE), 1024.0),
    (b"nr", (Desc::counter("node_drbd_network_received_bytes_total", "Total number of bytes received via the network."), DEVICE), 1.0),
    (b"dw", (Desc::counter("node_drbd_disk_written_bytes_total", "Net data written on local hard disk; in bytes."), DEVICE), 1024.0),
    (b"dr", (Desc::counter("node_drbd_disk_read_bytes_total", "Net data read from local hard disk; in bytes."), DEVICE), 1024.0),
    (b"al", (Desc::counter("node_drbd_activitylog_writes_total", "Number of updates of the activity log area of the meta data."), DEVICE), 1.0),
    (b"bm", (Desc::counter("node_drbd_bitmap_writes_total", "Number of updates of the bitmap area of the meta data."), DEVICE), 1.0),
    (b"lo", (Desc::gauge("node_drbd_local_pending", "Number of open requests to the local I/O sub-system."), DEVICE), 1.0),
    (b"pe", (Desc::gauge("node_drbd_remote_pending", "Number of requests sent to the peer, but that have not yet been answered by the latter."), DEVICE), 1.0),
    (b"ua", (Desc::gauge("node_drbd_remote_unacknowledged", "Number of requests received by the peer via the network connection, but that have not yet been answered."), DEVICE), 1.0),
    (b"ap", (Desc::gauge("node_drbd_application_pending", "Number of block I/O requests forwarded to DRBD, but not yet answered by DRBD."), DEVICE), 1.0),
    (b"ep", (Desc::gauge("node_drbd_epochs", "Number of Epochs currently on the fly."), DEVICE), 1.0),
    (b"oos", (Desc::gauge("node_drbd_out_of_sync_bytes", "Amount of data known to be out of sync; in bytes."), DEVICE), 1024.0),
];

/// Keys of a state of this node and of the other one, and the good state.
#[rustfmt::skip]
const PAIRS: [(&[u8], &[u8], Shape); 2] = [
    (b"ro", b"Primary", (Desc::gauge("node_drbd_node_role_is_primary", "Whether the role of the node is in the primary state."), NODE)),
    (b"ds", b"UpToDate", (Desc::gauge("node_drbd_disk_state_is_up_to_date", "Whether the disk of the node is up to date."), NODE)),
];

const CONNECTED: Shape =
    (Desc::gauge("node_drbd_connected", "Whether DRBD is connected to the peer."), DEVICE);

/// In the order of the rows' numbers.
const SHAPES: [Shape; 15] = {
    let mut shapes = [CONNECTED; 15];
    let mut place = 0;
    while place < NUMBERS.len() {
        shapes[place] = NUMBERS[place].1;
        place += 1;
    }
    shapes[NUMBERS.len()] = PAIRS[0].2;
    shapes[NUMBERS.len() + 1] = PAIRS[1].2;
    shapes
};

/// The devices that are mirrored over the network.
#[derive(Default)]
pub(super) struct Drbd {
    rows: Rows,
}

impl Collector for Drbd {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        self.rows.clear();
        read(whole(FILE, host.proc("drbd")?, &mut errors), &mut self.rows, &mut errors);
        self.rows.write(&SHAPES, out);
        errors.result()
    }
}

fn read(bytes: &[u8], rows: &mut Rows, errors: &mut FirstError) {
    // Words of the lines above the first device have no value that is wanted.
    let mut device: Option<Span> = None;
    let [local, remote] = ["local", "remote"].map(|node| rows.keep(node));
    for word in lines(bytes).flat_map(fields) {
        let mut parts = word.split(|&byte| byte == b':');
        let (Some(key), Some(value), None) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if let (Some(number), true) = (unsigned(key), value.is_empty()) {
            let mut name = heapless::String::<24>::new();
            // u64::MAX has 20 digits.
            let _ = write!(name, "drbd{number}");
            device = Some(rows.keep(&name));
            continue;
        }
        let Some(device) = device else { continue };
        let number = NUMBERS.iter().position(|(known, ..)| *known == key);
        let pair = PAIRS.iter().position(|(known, ..)| *known == key);
        if let Some((place, (_, _, unit))) = number.and_then(|at| Some((at, NUMBERS.get(at)?))) {
            match unsigned(value) {
                Some(value) => rows.add(place, &[device], value as f64 * unit),
                None => errors.note(malformed(FILE, word, "a key, a colon and a number")),
            }
        } else if let Some((place, (_, good, _))) = pair.and_then(|at| Some((at, PAIRS.get(at)?))) {
            let Some(stroke) = value.iter().position(|&byte| byte == b'/') else {
                errors.note(malformed(FILE, word, "a state of each node"));
                continue;
            };
            let (here, there) = value.split_at(stroke);
            let there = there.strip_prefix(b"/").unwrap_or(there);
            for (node, state) in [(local, here), (remote, there)] {
                let is = f64::from(u8::from(state == *good));
                rows.add(NUMBERS.len() + place, &[device, node], is);
            }
        } else if key == b"cs" {
            let is = f64::from(u8::from(value == b"Connected"));
            rows.add(SHAPES.len() - 1, &[device], is);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_word_costs_itself_and_is_named() {
        let good = "version: 8.4\n 0: cs:Connected ro:Primary/Secondary\n ns:5 oos:2\n";
        for (word, replaced, left) in [
            ("", "", 5),
            ("ns:5", "ns:x", 4),
            ("ns:5", "ns:", 4),
            ("ro:Primary/Secondary", "ro:Primary", 3),
            ("oos:2", "oos:-2", 4),
            (" 0:", " 0:x", 0),
        ] {
            let (mut rows, mut errors) = (Rows::default(), FirstError::default());
            read(good.replacen(word, replaced, 1).as_bytes(), &mut rows, &mut errors);
            let mut samples = Samples::with_limit(20);
            rows.write(&SHAPES, &mut samples);
            assert_eq!(samples.len(), left, "{replaced}");
            let error = errors.result().err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(error.is_empty(), word.is_empty() || left == 0, "{error}");
            assert!(error.contains(replaced) || left == 0, "{error}");
        }
    }

    #[test]
    fn families_have_their_units() {
        let (mut rows, mut errors) = (Rows::default(), FirstError::default());
        read(
            b" 7: cs:WFConnection ds:UpToDate/DUnknown\n ns:2 nr:2 oos:1\n",
            &mut rows,
            &mut errors,
        );
        let mut samples = Samples::with_limit(20);
        rows.write(&SHAPES, &mut samples);
        let got: Vec<_> = samples.iter().map(|s| (s.name().to_owned(), s.value)).collect();
        let name = |name: &str| format!("node_drbd_{name}");
        assert_eq!(
            got,
            [
                (name("network_sent_bytes_total"), 2048.0),
                (name("network_received_bytes_total"), 2.0),
                (name("out_of_sync_bytes"), 1024.0),
                (name("disk_state_is_up_to_date"), 1.0),
                (name("disk_state_is_up_to_date"), 0.0),
                (name("connected"), 0.0),
            ]
        );
    }
}
