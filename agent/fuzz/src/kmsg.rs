//! The kernel's log and what /proc says of the probes' subjects, both of foreign bytes.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use mote::host::kmsg::{Position, Record, Verbatim};
use mote::host::{Host, Roots};
use mote::model::Samples;
use mote::probe::kmsg::Recognizer;
use mote::probe::proc::{BlockStats, OomCount, TcpStats};

/// Records, closed by NUL bytes each. What is none is a message of the kernel's, in a record that is.
pub fn kmsg(data: &[u8]) {
    if let Some(position) = Position::from_bytes(data) {
        assert_eq!(position.to_bytes(), data);
    }
    let mut recognizer = Recognizer::new();
    for (seq, chunk) in data.split(|&byte| byte == 0).enumerate() {
        let mut bytes = chunk.to_vec();
        if Record::parse(&mut bytes).is_none() {
            bytes = format!("{},{seq},{},-;", seq % 8, seq * 1_000).into_bytes();
            bytes.extend_from_slice(chunk);
        } else {
            bytes.copy_from_slice(chunk);
        }
        let length = bytes.len();
        let mut same = bytes.clone();
        let verbatim = Verbatim::parse(&mut same).expect("has a header");
        let parts = verbatim.text.len() + verbatim.subsystem.len() + verbatim.device.len();
        assert!(verbatim.level < 8 && parts < length);
        let record = Record::parse(&mut bytes).expect("has a header");
        assert!(record.text.len() < length && !record.text.contains(char::is_control));
        let Some(finding) = recognizer.look(&record) else { continue };
        assert_eq!(record.facility, 0);
        let notice = &finding.notice;
        assert!(notice.family().name.starts_with("mote_") && !notice.probe().is_empty());
        let labels = notice.labels();
        assert!((1..=3).contains(&labels.len()));
        for (name, value) in &labels {
            assert!(!name.is_empty() && value.len() <= 2 * length, "{name}={value}");
        }
        assert_eq!(finding.event(5).is_some(), finding.repeated.is_some());
        let event = notice.event(5);
        assert!(event.timestamp_ns == 5 && event.kind == notice.kind());
        assert!(!event.message.is_empty() && !event.line().contains(char::is_control));
        for (index, (name, _)) in event.fields.iter().enumerate() {
            assert_eq!(event.fields.iter().position(|(have, _)| have == name), Some(index));
        }
    }
    // The texts of the lines of one OOM kill, and 64 incidents.
    assert!(format!("{recognizer:?}").len() < (64 << 10) + 8 * data.len());
}

thread_local! {
    static PROC: RefCell<tempfile::TempDir> = RefCell::new(folder());
}

fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.expect("a temporary directory");
    fs::create_dir(folder.path().join("net")).expect("in the folder");
    folder
}

/// `[which file u8] [its bytes]`
pub fn probe_proc(data: &[u8]) {
    let Some((&which, bytes)) = data.split_first() else { return };
    PROC.with_borrow(|folder| {
        let write = |file| fs::write(folder.path().join(file), bytes).expect("in the folder");
        let mut host = Host::new(Roots { proc: folder.path().into(), ..Roots::default() });
        let mut out = Samples::with_limit(100_000);
        let result = match which % 3 {
            0 => {
                write("diskstats");
                let roots = Roots { sys: "/nonexistent".into(), ..host.roots().clone() };
                BlockStats::default().collect(&mut Host::new(roots), &mut out)
            }
            1 => {
                write("net/snmp");
                TcpStats.collect(&mut host, &mut out)
            }
            _ => {
                write("vmstat");
                let mut count = OomCount::default();
                let first = count.look(&mut host);
                if let Ok(kills) = &first {
                    assert_eq!(*kills, count.look(&mut host).expect("the same file"));
                    assert!(kills.is_none_or(|kills| kills == 0));
                }
                first.map(drop)
            }
        };
        if let Err(error) = result {
            let text = error.to_string();
            assert!(text.starts_with("parsing ") && text.len() < 1 << 10, "{text}");
        }
        for sample in out.iter() {
            assert!(sample.name().starts_with("mote_") && sample.value >= 0.0);
            assert!(sample.labels().is_sorted_by(|a, b| a.0 < b.0));
        }
    });
}
