//! node_exporter's `interrupts`, from /proc/interrupts (kernel/irq/proc.c and each architecture's
//! arch_show_interrupts): a column for each CPU that is on, then chip, line and devices, all in one text
//! where the interrupt has a name and no number.
//!
//! The label `cpu` is the kernel's number of the CPU; node_exporter counts columns, which is something
//! else once a CPU is off. Lines with fewer columns than CPUs (`ERR`, `MIS`, `FIQ`) are left out as there.

use super::parse::{FirstError, decimal, fields, lines, malformed, text, unsigned, whole};
use super::{CollectError, Collector};
use crate::host::Host;
use crate::model::{Desc, Samples};

const FILE: &str = "proc/interrupts";
const TOTAL: Desc = Desc::counter("node_interrupts_total", "Interrupt details.");

/// Interrupts by CPU and source.
#[derive(Default)]
pub(super) struct Interrupts {
    cpus: Vec<u64>,
    info: String,
    devices: String,
}

impl Collector for Interrupts {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        let mut rows = lines(whole(FILE, host.proc("interrupts")?, &mut errors));
        self.cpus.clear();
        header(FILE, rows.next().unwrap_or_default(), &mut self.cpus)?;
        let mut family = out.family(&TOTAL);
        for row in rows {
            let Some(colon) = row.iter().position(|&byte| byte == b':') else {
                errors.note(malformed(FILE, row, "a name and a colon"));
                continue;
            };
            let (name, columns) = row.split_at(colon);
            let name = name.trim_ascii_start();
            // On ARM a long name leaves no space before the first number.
            let columns = fields(columns.get(1..).unwrap_or_default());
            let mut rest = columns.clone().skip(self.cpus.len());
            let Some(first) = rest.next() else { continue };
            self.info.clear();
            self.devices.clear();
            push(&mut self.info, first);
            let target = if unsigned(name).is_some() { &mut self.devices } else { &mut self.info };
            rest.for_each(|word| push(target, word));
            let kind = text(name);
            for (cpu, token) in self.cpus.iter().zip(columns) {
                let Some(value) = unsigned(token) else {
                    errors.note(malformed(FILE, row, "a number for each CPU"));
                    break;
                };
                let cpu = decimal(*cpu);
                let labels = [
                    ("cpu", cpu.as_str()),
                    ("type", &kind),
                    ("info", &self.info),
                    ("devices", &self.devices),
                ];
                family.add(&labels, value as f64);
            }
        }
        errors.result()
    }
}

/// The numbers of the CPUs in a first line such as `CPU0 CPU2`.
pub(super) fn header(file: &str, line: &[u8], cpus: &mut Vec<u64>) -> Result<(), CollectError> {
    for name in fields(line) {
        let number = name.strip_prefix(b"CPU").and_then(unsigned);
        cpus.push(number.ok_or_else(|| malformed(file, line, "the names of the CPUs"))?);
    }
    if cpus.is_empty() {
        return Err(malformed(file, line, "the names of the CPUs"));
    }
    Ok(())
}

/// Adds a word behind a space.
fn push(text: &mut String, word: &[u8]) {
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(&super::parse::text(word));
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    fn collect(file: &str) -> (Vec<String>, Result<(), CollectError>) {
        Tree::new(&[(FILE, file)]).collect(&mut Interrupts::default())
    }

    #[test]
    fn names_without_a_space_and_a_cpu_that_is_off() {
        let (text, result) = collect(
            "      CPU0  CPU2\n 11:   5  6  GICv2  30 Level   a,  b\nIPI10:7 8  Wake  up\nErr:  0\n",
        );
        assert!(result.is_ok());
        let a = "devices=\"30 Level a, b\",info=\"GICv2\",type=\"11\"}";
        let b = "devices=\"\",info=\"Wake up\",type=\"IPI10\"}";
        let line =
            |cpu, rest, value| format!("node_interrupts_total{{cpu=\"{cpu}\",{rest} {value}");
        assert_eq!(text, [line(0, a, 5), line(2, a, 6), line(0, b, 7), line(2, b, 8)]);
    }

    #[test]
    fn a_malformed_line_costs_itself() {
        let (text, result) = collect("CPU0\n1: x chip a\nno colon\n2: 7 chip\n3: 9");
        assert_eq!(
            text,
            ["node_interrupts_total{cpu=\"0\",devices=\"\",info=\"chip\",type=\"2\"} 7"]
        );
        // The cut line comes first, as it is looked for first.
        assert!(result.unwrap_err().to_string().contains("proc/interrupts: \"3: 9\""));
        for bad in ["", "CPUx\n1: 2 a\n", "1: 2 a\n", "\n"] {
            let (text, result) = collect(bad);
            assert!(text.is_empty() && result.is_err(), "{bad:?}");
        }
    }
}
