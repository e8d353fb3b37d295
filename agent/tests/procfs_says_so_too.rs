//! The collectors beside the procfs crate, which reads the same files of this machine by parsers of its own. The
//! agent does not use it: its types own their text, so that each round would allocate.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use mote::collector::{Options, Set};
use mote::host::{Host, Roots};
use mote::model::Samples;
use procfs::{Current, CurrentSI};

type Values = BTreeMap<String, f64>;

/// The round's values by name and the label `device` or `cpu` and `mode`.
fn collect() -> Values {
    let names = ["loadavg", "meminfo", "diskstats", "netdev", "stat", "vmstat", "cpu"];
    let mut options = Options::default();
    options.diskstats.device_exclude = None;
    let mut set = Set::new(|entry| names.contains(&entry.name), &options);
    let mut samples = Samples::with_limit(100_000);
    set.collect(&mut Host::new(Roots::default()), &mut samples);
    let key = |sample: mote::model::Sample<'_>| {
        let labels: Vec<_> = sample.labels().map(|label| label.1).collect();
        format!("{} {}", sample.name(), labels.join(" ")).trim_end().to_owned()
    };
    samples.iter().map(|sample| (key(sample), sample.value)).collect()
}

/// What procfs says.
fn theirs() -> Values {
    let mut all = Values::new();
    let mut put = |key: String, value: f64| _ = all.insert(key, value);
    let load = procfs::LoadAverage::current().unwrap();
    put("node_load1".into(), (f64::from(load.one) * 100.0).round() / 100.0);
    put("node_load15".into(), (f64::from(load.fifteen) * 100.0).round() / 100.0);
    let memory = procfs::Meminfo::current().unwrap();
    put("node_memory_MemTotal_bytes".into(), memory.mem_total as f64);
    put("node_memory_SwapTotal_bytes".into(), memory.swap_total as f64);
    for disk in procfs::diskstats().unwrap() {
        put(format!("node_disk_reads_completed_total {}", disk.name), disk.reads as f64);
        put(format!("node_disk_read_bytes_total {}", disk.name), disk.sectors_read as f64 * 512.0);
        put(format!("node_disk_writes_completed_total {}", disk.name), disk.writes as f64);
    }
    for (name, device) in procfs::net::dev_status().unwrap() {
        put(format!("node_network_receive_bytes_total {name}"), device.recv_bytes as f64);
        put(format!("node_network_transmit_packets_total {name}"), device.sent_packets as f64);
        put(format!("node_network_transmit_carrier_total {name}"), device.sent_carrier as f64);
    }
    let stat = procfs::KernelStats::current().unwrap();
    put("node_context_switches_total".into(), stat.ctxt as f64);
    put("node_boot_time_seconds".into(), stat.btime as f64);
    for (number, cpu) in stat.cpu_time.iter().enumerate() {
        put(format!("node_cpu_seconds_total {number} user"), cpu.user as f64 / 100.0);
        put(
            format!("node_cpu_seconds_total {number} softirq"),
            cpu.softirq.unwrap() as f64 / 100.0,
        );
    }
    put("node_vmstat_pgfault".into(), procfs::vmstat().unwrap()["pgfault"] as f64);
    all
}

#[test]
fn values_lie_between_two_readings_of_the_procfs_crate() {
    let mut wrong = Vec::new();
    // The load may be renewed between two readings, and devices may come and go.
    for _ in 0..3 {
        let (before, ours, after) = (theirs(), collect(), theirs());
        assert!(before.len() > 12, "{before:?}");
        wrong.clear();
        for (key, low) in &before {
            let Some(high) = after.get(key) else { continue };
            let still = key.starts_with("node_load");
            match ours.get(key) {
                Some(value) if low <= value && value <= high => {}
                Some(value) if still && (value == low || value == high) => {}
                other => wrong.push(format!("{key}: {other:?}, not from {low} to {high}")),
            }
        }
        if wrong.is_empty() {
            return;
        }
    }
    panic!("{wrong:#?}");
}
