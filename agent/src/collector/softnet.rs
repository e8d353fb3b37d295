//! node_exporter's `softnet`, from /proc/net/softnet_stat (net/core/net-procfs.c): packets that each CPU
//! has taken from devices. 1.5.0 has the first three families, later versions the others.
//!
//! A line is a CPU that is online; its number is in the file since Linux 5.10, and before that CPUs are
//! counted from 0, as 1.5.0 does always.

use super::parse::{FirstError, decimal, fields, hex, lines, malformed, whole};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const FILE: &str = "proc/net/softnet_stat";

/// Each with its column. Columns have been added: the tenth and eleventh with Linux 3.11, the rest with 5.10.
const STATISTICS: [(usize, Desc); 7] = [
    (0, Desc::counter("node_softnet_processed_total", "Number of processed packets")),
    (1, Desc::counter("node_softnet_dropped_total", "Number of dropped packets")),
    (
        2,
        Desc::counter(
            "node_softnet_times_squeezed_total",
            "Number of times processing packets ran out of quota",
        ),
    ),
    (
        8,
        Desc::counter(
            "node_softnet_cpu_collision_total",
            "Number of collision occur while obtaining device lock while transmitting",
        ),
    ),
    (
        9,
        Desc::counter(
            "node_softnet_received_rps_total",
            "Number of times cpu woken up received_rps",
        ),
    ),
    (
        10,
        Desc::counter(
            "node_softnet_flow_limit_count_total",
            "Number of times flow limit has been reached",
        ),
    ),
    (11, Desc::gauge("node_softnet_backlog_len", "Softnet backlog status")),
];

/// The column of the CPU's number.
const CPU: usize = 12;

struct Cpu {
    number: u64,
    values: [Option<u64>; STATISTICS.len()],
}

/// Packets of each CPU.
#[derive(Default)]
pub(super) struct Softnet {
    cpus: Vec<Cpu>,
}

impl Collector for Softnet {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        self.read(host.proc("net/softnet_stat")?, &mut errors);
        for (index, (_, desc)) in STATISTICS.iter().enumerate() {
            let mut family = out.family(desc);
            for cpu in &self.cpus {
                if let Some(value) = cpu.values.get(index).copied().flatten() {
                    family.add(&[("cpu", decimal(cpu.number).as_str())], value as f64);
                }
            }
        }
        errors.result()
    }
}

impl Softnet {
    fn read(&mut self, bytes: &[u8], errors: &mut FirstError) {
        self.cpus.clear();
        if bytes.is_empty() {
            errors.note(malformed(FILE, bytes, "a line for each CPU"));
        }
        for (index, line) in lines(whole(FILE, bytes, errors)).enumerate() {
            match parse(index as u64, line) {
                // A number that a malformed line pretends must not make a series twice.
                Ok(cpu) if self.cpus.iter().all(|other| other.number != cpu.number) => {
                    self.cpus.push(cpu);
                }
                Ok(_) => errors.note(malformed(FILE, line, "another CPU's number")),
                Err(error) => errors.note(error),
            }
        }
    }
}

fn parse(index: u64, line: &[u8]) -> Result<Cpu, CollectError> {
    let mut cpu = Cpu { number: index, values: [None; STATISTICS.len()] };
    let mut columns = 0;
    for (column, field) in fields(line).enumerate() {
        // %08x of 32 bits.
        let value = hex(field).filter(|value| *value <= u64::from(u32::MAX));
        let value = value.ok_or_else(|| malformed(FILE, field, "a hexadecimal number"))?;
        if column == CPU {
            cpu.number = value;
        }
        let known = STATISTICS.iter().zip(&mut cpu.values).find(|((at, _), _)| *at == column);
        if let Some((_, slot)) = known {
            *slot = Some(value);
        }
        columns += 1;
    }
    match columns {
        9.. => Ok(cpu),
        _ => Err(malformed(FILE, line, "nine hexadecimal numbers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Cpu>, Option<String>) {
        let mut softnet = Softnet::default();
        let mut errors = FirstError::default();
        softnet.read(text.as_bytes(), &mut errors);
        (softnet.cpus, errors.result().err().map(|error| error.to_string()))
    }

    #[test]
    fn columns_of_each_kernel() {
        let (cpus, error) = read("ff 1 2 0 0 0 0 0 3\nfe 1 2 0 0 0 0 0 3\n");
        assert_eq!(error, None);
        assert_eq!((cpus[0].number, cpus[1].number), (0, 1));
        assert_eq!(cpus[1].values, [Some(254), Some(1), Some(2), Some(3), None, None, None]);
        let (cpus, error) = read("ff 1 2 0 0 0 0 0 3 4 5 6 00000007 8 9\n");
        assert_eq!(error, None);
        assert_eq!(cpus[0].number, 7);
        assert_eq!(cpus[0].values, [255, 1, 2, 3, 4, 5, 6].map(Some));
    }

    #[test]
    fn a_malformed_cpu_costs_itself() {
        for bad in ["1 2 3", "1 2 3 4 5 6 7 8 g", "1 2 3 4 5 6 7 8 100000000", "1 2 3 4 5 6 7 8 -1"]
        {
            let (cpus, error) = read(&format!("{bad}\n1 1 2 0 0 0 0 0 3\n"));
            assert_eq!(cpus.len(), 1, "{bad}");
            assert!(error.unwrap().contains(FILE), "{bad}");
        }
        let (cpus, error) = read("1 1 2 0 0 0 0 0 3 0 0 0 1\n1 1 2 0 0 0 0 0 3 0 0 0 1\n");
        assert!(cpus.len() == 1 && error.is_some());
        assert!(read("").1.is_some());
    }
}
