//! node_exporter's `cpu`, from /proc/stat (fs/proc/stat.c) and, where the kernel has them, the thermal
//! throttle counters and the list of isolated CPUs in /sys/devices/system/cpu; and /proc/cpuinfo if asked.
//!
//! Time in guests is part of `user` and `nice` as the kernel counts it, and is not subtracted. A
//! counter that goes backwards, as idle and I/O wait do, keeps its last value, until idle falls by
//! 3 seconds: then the CPU has been off, and its counters begin anew. CPUs that are off have no samples.
//!
//! The parser is our own because the procfs crate loses the CPUs' numbers when one is off.

use super::cpuinfo::CpuInfo;
use super::options::CpuOptions;
use super::parse::{FirstError, decimal, fields, lines, malformed, unsigned, whole};
use super::topology::Topology;
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const FILE: &str = "proc/stat";

const SECONDS: Desc =
    Desc::counter("node_cpu_seconds_total", "Seconds the CPUs spent in each mode.");
const GUEST_SECONDS: Desc = Desc::counter(
    "node_cpu_guest_seconds_total",
    "Seconds the CPUs spent in guests (VMs) for each mode.",
);

/// The label `mode` of the first columns, in the kernel's order.
const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
/// The label `mode` of the two columns after them.
const GUEST_MODES: [&str; 2] = ["user", "nice"];
const COLUMNS: usize = MODES.len() + GUEST_MODES.len();
const IDLE: usize = 3;
/// Columns that every kernel has; older ones lack later columns, which are 0 then.
const COLUMNS_MIN: usize = 4;
/// Idle seconds that a counter may fall without the CPU having been off.
const JUMP_BACK: u64 = 3;

struct Cpu {
    number: u64,
    /// In ticks.
    columns: [u64; COLUMNS],
    seen: bool,
}

/// Seconds by CPU and mode, and throttling.
pub(super) struct CpuTime {
    hertz: u64,
    cpus: Vec<Cpu>,
    /// None until it has been read, and again when a CPU has come or gone.
    topology: Option<Topology>,
    options: CpuOptions,
    info: CpuInfo,
}

impl CpuTime {
    pub(super) fn new(options: &CpuOptions) -> CpuTime {
        CpuTime {
            hertz: rustix::param::clock_ticks_per_second().max(1),
            cpus: Vec::new(),
            topology: None,
            options: options.clone(),
            info: CpuInfo::default(),
        }
    }
}

impl Collector for CpuTime {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        let before = self.cpus.len();
        for cpu in &mut self.cpus {
            cpu.seen = false;
        }
        let mut index = 0;
        // The lines of the CPUs come first; the long line `intr` after them need not be looked at.
        let bytes = whole(FILE, host.proc("stat")?, &mut errors);
        for line in lines(bytes).take_while(|line| line.starts_with(b"cpu")) {
            if line.starts_with(b"cpu ") {
                continue;
            }
            match parse(line) {
                Ok((number, columns)) => self.update(&mut index, number, columns),
                Err(error) => errors.note(error),
            }
        }
        self.cpus.retain(|cpu| cpu.seen);
        if self.cpus.is_empty() {
            errors.note(malformed(FILE, host.last(), "a line for each CPU"));
        }
        self.write(out);

        if before != self.cpus.len() {
            self.topology = None;
        }
        if self.options.info && (self.topology.is_none() || self.options.frequency) {
            self.info.read(host).unwrap_or_else(|error| errors.note(error));
        }
        if self.options.info {
            self.info.write(&self.options, out);
        }
        if self.topology.is_none() {
            match Topology::read(host) {
                Ok(topology) => self.topology = Some(topology),
                Err(error) => errors.note(error),
            }
        }
        if let Some(topology) = &mut self.topology {
            topology.write(host, out).unwrap_or_else(|error| errors.note(error));
        }
        errors.result()
    }
}

/// The number and the ticks of a line such as `cpu0 1 2 3 4 …`.
fn parse(line: &[u8]) -> Result<(u64, [u64; COLUMNS]), CollectError> {
    let mut tokens = fields(line);
    let name = tokens.next().unwrap_or_default();
    let number = name.strip_prefix(b"cpu").and_then(unsigned);
    let number = number.ok_or_else(|| malformed(FILE, name, "cpu and a number"))?;
    let mut columns = [0; COLUMNS];
    for (index, column) in columns.iter_mut().enumerate() {
        match tokens.next() {
            Some(token) => {
                *column = unsigned(token).ok_or_else(|| malformed(FILE, token, "ticks"))?;
            }
            None if index < COLUMNS_MIN => return Err(malformed(FILE, line, "at least 4 columns")),
            None => break,
        }
    }
    Ok((number, columns))
}

impl CpuTime {
    /// Takes over a CPU's new ticks. `index` is where it stood last time, as CPUs come in order.
    fn update(&mut self, index: &mut usize, number: u64, columns: [u64; COLUMNS]) {
        let at = match self.cpus.get(*index) {
            Some(cpu) if cpu.number == number => Some(*index),
            _ => self.cpus.iter().position(|cpu| cpu.number == number),
        };
        *index = at.unwrap_or(self.cpus.len()) + 1;
        let Some(cpu) = at.and_then(|at| self.cpus.get_mut(at)) else {
            self.topology = None;
            self.cpus.push(Cpu { number, columns, seen: true });
            return;
        };
        cpu.seen = true;
        let [old_idle, new_idle] = [&cpu.columns, &columns].map(|columns| columns[IDLE]);
        if old_idle.saturating_sub(new_idle) >= JUMP_BACK * self.hertz {
            cpu.columns = columns;
            return;
        }
        for (old, new) in cpu.columns.iter_mut().zip(columns) {
            *old = new.max(*old);
        }
    }

    fn write(&self, out: &mut Samples) {
        let seconds = |ticks: u64| ticks as f64 / self.hertz as f64;
        let mut family = out.family(&SECONDS);
        for cpu in &self.cpus {
            let number = decimal(cpu.number);
            for (mode, ticks) in MODES.iter().zip(cpu.columns) {
                family.add(&[("cpu", &number), ("mode", mode)], seconds(ticks));
            }
        }
        if !self.options.guest {
            return;
        }
        let mut family = out.family(&GUEST_SECONDS);
        for cpu in &self.cpus {
            let number = decimal(cpu.number);
            for (mode, &ticks) in GUEST_MODES.iter().zip(cpu.columns.iter().skip(MODES.len())) {
                family.add(&[("cpu", &number), ("mode", mode)], seconds(ticks));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu_time() -> CpuTime {
        CpuTime { hertz: 100, ..CpuTime::new(&CpuOptions::default()) }
    }

    fn columns(user: u64, idle: u64) -> [u64; COLUMNS] {
        [user, 0, 0, idle, 0, 0, 0, 0, 0, 0]
    }

    #[test]
    fn a_counter_keeps_its_value_when_it_goes_backwards() {
        let mut cpu = cpu_time();
        cpu.update(&mut 0, 0, columns(10, 1000));
        cpu.update(&mut 0, 0, columns(9, 701));
        assert_eq!(cpu.cpus[0].columns, columns(10, 1000));
        cpu.update(&mut 0, 0, columns(11, 999));
        assert_eq!(cpu.cpus[0].columns, columns(11, 1000));
    }

    #[test]
    fn a_cpu_that_was_off_begins_anew() {
        let mut cpu = cpu_time();
        cpu.update(&mut 0, 0, columns(10, 1000));
        cpu.update(&mut 0, 0, columns(2, 700));
        assert_eq!(cpu.cpus[0].columns, columns(2, 700));
    }

    #[test]
    fn cpus_keep_their_numbers_when_one_is_off() {
        let mut cpu = cpu_time();
        let mut index = 0;
        for number in [0, 2, 3] {
            cpu.update(&mut index, number, columns(number, 5));
        }
        let numbers = |cpu: &CpuTime| cpu.cpus.iter().map(|cpu| cpu.number).collect::<Vec<_>>();
        assert_eq!(numbers(&cpu), [0, 2, 3]);
        cpu.update(&mut 1, 3, columns(4, 6));
        assert_eq!((numbers(&cpu), cpu.cpus[2].columns), (vec![0, 2, 3], columns(4, 6)));
    }

    #[test]
    fn malformed_lines_are_named() {
        for (line, token) in [
            (&b"cpux 1 2 3 4"[..], "cpux"),
            (b"cpu0 1 2 3", "cpu0 1 2 3"),
            (b"cpu0 1 -2 3 4", "-2"),
            (b"cpu0 1 2 3 4 5 6 7 8 9 x", "\"x\""),
            (b"cpu18446744073709551616 1 2 3 4", "cpu18446744073709551616"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains("proc/stat") && error.contains(token), "{error}");
        }
    }
}
