//! Each file as kernels write it, and as they never would.

use std::fs;

use super::*;
use crate::host::{Host, Roots};
use crate::model::Samples;

/// A /proc with one file, and what a source reads of it.
struct Proc {
    folder: tempfile::TempDir,
    host: Host,
    out: Samples,
    block: BlockStats,
}

impl Proc {
    fn new() -> Proc {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("net")).unwrap();
        let (proc, sys) = (folder.path().into(), folder.path().join("sys"));
        let host = Host::new(Roots { proc, sys, ..Roots::default() });
        let block = BlockStats::default();
        Proc { folder, host, out: Samples::with_limit(1_000), block }
    }

    /// A device's folder in sysfs with one of the files that tell what it is, and its `inflight`.
    fn device(&self, number: &str, file: &str, text: &str, inflight: &str) {
        let folder = self.folder.path().join("sys/dev/block").join(number);
        let file = folder.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        fs::write(folder.join("inflight"), inflight).unwrap();
    }

    fn write(&self, file: &str, text: impl AsRef<[u8]>) {
        fs::write(self.folder.path().join(file), text).unwrap();
    }

    /// The samples as `name{label="value",…} value`.
    fn samples(&self) -> Vec<String> {
        let line = |sample: crate::model::Sample<'_>| {
            let labels: Vec<_> = sample.labels().map(|(n, v)| format!("{n}={v}")).collect();
            let name = sample.name().strip_prefix("mote_").unwrap();
            format!("{name}{{{}}} {}", labels.join(","), sample.value)
        };
        self.out.iter().map(line).collect()
    }

    fn block(&mut self, text: impl AsRef<[u8]>) -> Result<(), ProcError> {
        self.write("diskstats", text);
        self.out.clear();
        self.block.collect(&mut self.host, &mut self.out)
    }

    fn tcp(&mut self, text: &str) -> Result<(), ProcError> {
        self.write("net/snmp", text);
        self.out.clear();
        TcpStats.collect(&mut self.host, &mut self.out)
    }
}

const SDA: &str = " 8 0 sda 100 5 800 250 20 6 160 40 3 90 280 7 0 56 9 11 500\n";

#[test]
fn a_disks_operations_have_a_sum_a_count_and_bytes() {
    let mut proc = Proc::new();
    proc.device("8:0", "mq/0/nr_tags", "1\n", "       1        2\n");
    proc.block(SDA).unwrap();
    assert_eq!(
        proc.samples(),
        [
            "block_io_duration_seconds_bucket{device=sda,le=+Inf,operation=read} 100",
            "block_io_duration_seconds_sum{device=sda,operation=read} 0.25",
            "block_io_duration_seconds_count{device=sda,operation=read} 100",
            "block_io_duration_seconds_bucket{device=sda,le=+Inf,operation=write} 20",
            "block_io_duration_seconds_sum{device=sda,operation=write} 0.04",
            "block_io_duration_seconds_count{device=sda,operation=write} 20",
            "block_io_duration_seconds_bucket{device=sda,le=+Inf,operation=discard} 7",
            "block_io_duration_seconds_sum{device=sda,operation=discard} 0.009",
            "block_io_duration_seconds_count{device=sda,operation=discard} 7",
            "block_io_duration_seconds_bucket{device=sda,le=+Inf,operation=flush} 11",
            "block_io_duration_seconds_sum{device=sda,operation=flush} 0.5",
            "block_io_duration_seconds_count{device=sda,operation=flush} 11",
            "block_io_bytes_total{device=sda,operation=read} 409600",
            "block_io_bytes_total{device=sda,operation=write} 81920",
            "block_io_bytes_total{device=sda,operation=discard} 28672",
            "block_io_inflight{device=sda,operation=read} 1",
            "block_io_inflight{device=sda,operation=write} 2",
        ]
    );
}

#[test]
fn an_old_kernel_has_no_discards_and_a_new_one_may_have_more_columns() {
    let mut proc = Proc::new();
    proc.block("8 0 sda 1 0 8 2 0 0 0 0 0 2 2\n").unwrap();
    assert_eq!(proc.samples().len(), 4, "{:?}", proc.samples());
    proc.block(SDA.replace('\n', " 1 2 3\n")).unwrap();
    assert_eq!(proc.samples().len(), 15);
}

/// The devices that have counts.
fn named(proc: &Proc) -> Vec<String> {
    let mut names: Vec<_> = proc
        .samples()
        .iter()
        .filter_map(|line| Some(line.split_once("device=")?.1.split_once(',')?.0.to_owned()))
        .collect();
    names.dedup();
    names.sort_unstable();
    names.dedup();
    names
}

#[test]
fn what_no_request_is_made_to_would_be_counted_twice() {
    let mut proc = Proc::new();
    let busy = "9 0 9 9 9 0 9 9 0 9 9";
    let mut text = String::new();
    for (number, name, file, says) in [
        ("179:0", "mmcblk0", "mq/0/nr_tags", "1\n"),
        ("179:1", "mmcblk0p1", "partition", "1\n"),
        ("8:0", "sda", "queue/scheduler", "noop deadline [cfq] \n"),
        ("8:1", "sda1", "partition", "1\n"),
        ("8:16", "sdb", "queue/scheduler", "[none] mq-deadline \n"),
        ("253:0", "dm-0", "queue/scheduler", "none\n"),
        ("253:1", "dm-1", "mq/0/nr_tags", "1\n"),
        ("9:0", "md0", "md/level", "raid1\n"),
        ("7:0", "loop0", "mq/0/nr_tags", "128\n"),
        ("252:0", "zram0", "queue/hw_sector_size", "4096\n"),
        ("259:0", "nvme0n1", "queue/nr_requests", "128\n"),
    ] {
        proc.device(number, file, says, "0 0\n");
        text += &format!("{} {name} {busy}\n", number.replace(':', " "));
    }
    // Nothing is known of it but its name.
    text += &format!("8 32 sdc {busy}\n8 33 sdc1 {busy}\n");
    proc.block(&text).unwrap();
    assert_eq!(named(&proc), ["dm-1", "loop0", "mmcblk0", "sda", "sdb", "sdc"]);
}

#[test]
fn a_device_is_asked_about_once_and_again_when_it_is_another() {
    let mut proc = Proc::new();
    let idle = "0 0 0 0 0 0 0 0 0 0 0";
    let busy = "9 0 9 9 9 0 9 9 0 9 9";
    proc.block(format!("259 0 nvme0n1 {idle}\n")).unwrap();
    assert!(proc.samples().is_empty(), "one that never had a request");
    proc.device("259:0", "mq/0/nr_tags", "1\n", "3 4\n");
    let text = format!("259 0 nvme0n1 {busy}\n");
    proc.block(&text).unwrap();
    assert_eq!(proc.samples().len(), 10);
    let mq = proc.folder.path().join("sys/dev/block/259:0/mq");
    fs::remove_dir_all(mq).unwrap();
    proc.block(&text).unwrap();
    assert_eq!(proc.samples().len(), 10, "it is remembered");
    proc.block(format!("259 0 nvme1n1 {busy}\n")).unwrap();
    assert!(proc.samples().is_empty(), "the number is another device's");
    proc.block(&text).unwrap();
    assert!(proc.samples().is_empty(), "it was gone in between");
}

#[test]
fn a_malformed_line_costs_itself() {
    let mut proc = Proc::new();
    for bad in [
        "8 0\n",
        "x\n",
        "8 0 sdb 1 2 3\n",
        "8 0 sdb 1 2 3 4 5 6 7 8 9 10 x\n",
        "8 0 sdb -1 2 3 4 5 6 7 8 9 10 11\n",
        "8 x sdb 1 2 3 4 5 6 7 8 9 10 11\n",
        "8 0 sdb 1 2 3 4 5 6 7 8 9 10 18446744073709551616\n",
        "8 0 sdb 1 2 3 4 5 6 7 8 9 10 11 x\n",
    ] {
        let error = proc.block(format!("{bad}{SDA}")).unwrap_err().to_string();
        assert!(error.starts_with("parsing diskstats: "), "{error}");
        assert_eq!(proc.samples().len(), 15, "{bad:?}");
    }
    assert!(proc.block([b"8 0 \xff ".as_slice(), &SDA.as_bytes()[9..]].concat()).is_err());
    proc.block("").unwrap();
    assert!(proc.samples().is_empty());
}

#[test]
fn the_largest_counts_are_no_trouble() {
    let mut proc = Proc::new();
    let max = [u64::MAX.to_string().as_str(); 17].join(" ");
    proc.block(format!("8 0 sda {max}\n")).unwrap();
    assert_eq!(proc.samples().len(), 15);
}

const TCP: &str = "Ip: Forwarding\nIp: 2\n\
    Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab \
    InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors\n\
    Tcp: 1 200 120000 -1 197054 169368 27291 2273 0 2677356 2653037 252 0 29401 0\nUdp: InDatagrams\n";

#[test]
fn tcps_counters_are_found_by_their_names() {
    let mut proc = Proc::new();
    let expected = [
        "tcp_retransmits_total{family=any} 252",
        "tcp_resets_total{direction=sent,family=any} 29401",
        "tcp_connects_total{family=any,result=started} 197054",
        "tcp_connects_total{family=any,result=failed} 27291",
    ];
    proc.tcp(TCP).unwrap();
    assert_eq!(proc.samples(), expected);
    let short =
        "Tcp: OutRsts ActiveOpens X RetransSegs AttemptFails\nTcp: 29401 197054 -1 252 27291\n";
    proc.tcp(short).unwrap();
    assert_eq!(proc.samples(), expected);
}

#[test]
fn tcps_counters_that_are_not_there_are_an_error_and_not_zero() {
    let mut proc = Proc::new();
    for (bad, left) in [
        ("", 0),
        ("Tcp:\nTcp:\n", 0),
        ("Tcp: RetransSegs\n", 0),
        ("Tcp: RetransSegs OutRsts\nTcp: 1\n", 1),
        ("Tcp: RetransSegs OutRsts\nTcp: 1 -2\n", 1),
        ("Tcp: RetransSegs OutRsts\nTcp: 1 99999999999999999999\n", 1),
        ("TcpExt: RetransSegs\nTcpExt: 1\n", 0),
    ] {
        let error = proc.tcp(bad).unwrap_err().to_string();
        assert!(error.starts_with("parsing net/snmp: "), "{error}");
        assert_eq!(proc.samples().len(), left, "{bad:?}");
    }
}

#[test]
fn kills_are_counted_from_the_first_look_on() {
    let mut proc = Proc::new();
    let mut count = OomCount::default();
    for (text, expected) in [
        ("nr_free_pages 5\noom_kill 7\ndrop_pagecache 0\n", Some(0)),
        ("oom_kill 7\n", Some(0)),
        ("oom_kill 9\n", Some(2)),
        ("oom_killed 900\n", None),
        ("", None),
        ("oom_kill 3\n", Some(0)),
        ("oom_kill 4\n", Some(1)),
    ] {
        proc.write("vmstat", text);
        assert_eq!(count.look(&mut proc.host).unwrap(), expected, "{text:?}");
    }
    for bad in ["oom_kill\n", "oom_kill x\n", "oom_kill -1\n"] {
        proc.write("vmstat", bad);
        assert!(count.look(&mut proc.host).is_err(), "{bad:?}");
    }
    proc.write("vmstat", "oom_kill 5\n");
    assert_eq!(count.look(&mut proc.host).unwrap(), Some(1), "an error forgets nothing");
}

#[test]
fn files_that_are_not_there_are_absent() {
    let mut host = Host::new(Roots { proc: "/nonexistent".into(), ..Roots::default() });
    let mut out = Samples::with_limit(10);
    let results = [
        BlockStats::default().collect(&mut host, &mut out),
        TcpStats.collect(&mut host, &mut out),
        OomCount::default().look(&mut host).map(|_| ()),
    ];
    for result in results {
        assert!(matches!(result, Err(ProcError::Read(error)) if error.is_absent()));
    }
    assert!(out.is_empty());
}

#[test]
fn this_machines_own_files_are_read() {
    let mut host = Host::new(Roots::default());
    let mut out = Samples::with_limit(10_000);
    BlockStats::default().collect(&mut host, &mut out).unwrap();
    TcpStats.collect(&mut host, &mut out).unwrap();
    assert!(out.len() > 4 && out.refused() == 0);
    assert_eq!(OomCount::default().look(&mut host).unwrap(), Some(0));
}
