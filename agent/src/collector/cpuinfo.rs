//! What node_exporter's `cpu` tells of the processors' kind, where the user asks for it: /proc/cpuinfo
//! (each architecture's show_cpuinfo), read when a CPU has come or gone, and every round for the frequency.
//!
//! ARM has no such thing as vendor or package in it; its `Features` are the flags. Frequencies (of
//! node_exporter since 1.7.0) are here for those who switch the collector `cpufreq` off, as both have one
//! name.

use super::options::CpuOptions;
use super::parse::{FirstError, Span, Texts, decimal, lines, malformed, text, unsigned, whole};
use super::{CollectError, Pattern};
use crate::host::Host;
use crate::model::{Desc, Samples};

const FILE: &str = "proc/cpuinfo";

const INFO: Desc = Desc::gauge("node_cpu_info", "CPU information from /proc/cpuinfo.");
const FLAGS: Desc = Desc::gauge(
    "node_cpu_flag_info",
    "The `flags` field of CPU information from /proc/cpuinfo taken from the first core.",
);
const BUGS: Desc = Desc::gauge(
    "node_cpu_bug_info",
    "The `bugs` field of CPU information from /proc/cpuinfo taken from the first core.",
);
const FREQUENCY: Desc =
    Desc::gauge("node_cpu_frequency_hertz", "CPU frequency in hertz from /proc/cpuinfo.");

/// Labels of [`INFO`], and the keys that they are read from: x86's first, then what others call it.
const LABELS: [(&str, &[&str]); 9] = [
    ("package", &["physical id"]),
    ("core", &["core id", "hart"]),
    ("vendor", &["vendor_id", "vendor"]),
    ("family", &["cpu family"]),
    ("model", &["model"]),
    ("model_name", &["model name", "isa"]),
    ("microcode", &["microcode"]),
    ("stepping", &["stepping"]),
    ("cachesize", &["cache size"]),
];
const PACKAGE: usize = 0;
const CORE: usize = 1;

/// The processors as /proc/cpuinfo describes them.
#[derive(Default)]
pub(super) struct CpuInfo {
    texts: Texts,
    cpus: Vec<Cpu>,
    flags: Span,
    bugs: Span,
}

#[derive(Default)]
struct Cpu {
    number: u64,
    values: [Span; LABELS.len()],
    megahertz: f64,
}

impl CpuInfo {
    /// Reads the file anew.
    pub(super) fn read(&mut self, host: &mut Host) -> Result<(), CollectError> {
        self.texts.clear();
        self.cpus.clear();
        self.flags = Span::default();
        self.bugs = Span::default();
        let mut errors = FirstError::default();
        let bytes = match host.proc("cpuinfo") {
            Err(error) if error.is_absent() => return Ok(()),
            other => other?,
        };
        for line in lines(whole(FILE, bytes, &mut errors)) {
            self.line(line).unwrap_or_else(|error| errors.note(error));
        }
        errors.result()
    }

    fn line(&mut self, line: &[u8]) -> Result<(), CollectError> {
        let Some(colon) = line.windows(2).position(|pair| pair == b": ") else { return Ok(()) };
        let (key, value) = line.split_at(colon);
        let (key, value) = (key.trim_ascii(), value.get(2..).unwrap_or_default());
        if key == b"processor" {
            let number = unsigned(value).ok_or_else(|| malformed(FILE, line, "a CPU's number"))?;
            self.cpus.push(Cpu { number, ..Cpu::default() });
            return Ok(());
        }
        // ARM's kernels before 3.8 say `Processor`, once, and lines of the whole machine come last.
        let first = self.cpus.len() == 1;
        let Some(cpu) = self.cpus.last_mut() else { return Ok(()) };
        match key {
            b"flags" | b"Features" if first => self.flags = self.texts.keep(&text(value)),
            b"bugs" if first => self.bugs = self.texts.keep(&text(value)),
            b"cpu MHz" => {
                let number = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                let number = number.filter(|number: &f64| number.is_finite() && *number >= 0.0);
                cpu.megahertz = number.ok_or_else(|| malformed(FILE, line, "MHz"))?;
            }
            key => {
                let mut places = LABELS.iter().zip(&mut cpu.values);
                let known = places.find(|((_, keys), _)| keys.iter().any(|k| k.as_bytes() == key));
                if let Some((_, place)) = known {
                    *place = self.texts.keep(&text(value));
                }
            }
        }
        Ok(())
    }

    /// Writes what was read last.
    pub(super) fn write(&self, options: &CpuOptions, out: &mut Samples) {
        let mut family = out.family(&INFO);
        for cpu in &self.cpus {
            let number = decimal(cpu.number);
            let mut labels = [("cpu", number.as_str()); LABELS.len() + 1];
            for (label, ((name, _), value)) in labels.iter_mut().zip(LABELS.iter().zip(&cpu.values))
            {
                *label = (name, self.texts.get(*value));
            }
            family.add(&labels, 1.0);
        }
        if options.frequency {
            let mut family = out.family(&FREQUENCY);
            for cpu in &self.cpus {
                let [package, core] = [PACKAGE, CORE].map(|at| cpu.values.get(at));
                let [package, core] =
                    [package, core].map(|span| self.texts.get(span.copied().unwrap_or_default()));
                let number = decimal(cpu.number);
                let labels = [("package", package), ("core", core), ("cpu", &number)];
                family.add(&labels, cpu.megahertz * 1e6);
            }
        }
        let mut words = |desc: &Desc, label, span, include: &Option<Pattern>| {
            let Some(include) = include else { return };
            let mut family = out.family(desc);
            let words = self.texts.get(span).split_ascii_whitespace();
            for word in words.filter(|word| include.is_match(word.as_bytes())) {
                family.add(&[(label, word)], 1.0);
            }
        };
        words(&FLAGS, "flag", self.flags, &options.flags_include);
        words(&BUGS, "bug", self.bugs, &options.bugs_include);
    }
}

#[cfg(test)]
mod tests {
    use super::super::cpu::CpuTime;
    use super::super::pattern;
    use super::super::testing::Tree;
    use super::*;

    const STAT: &str = "cpu  1 2 3 4\ncpu0 1 2 3 4\n";

    fn collect(cpuinfo: &str, frequency: bool) -> (Vec<String>, Result<(), CollectError>) {
        let options = CpuOptions {
            info: true,
            frequency,
            flags_include: pattern("^(aes|half)$").ok(),
            bugs_include: pattern("spectre").ok(),
            ..CpuOptions::default()
        };
        let tree = Tree::new(&[("proc/stat", STAT), (FILE, cpuinfo)]);
        let (text, result) = tree.collect(&mut CpuTime::new(&options));
        let own = |line: &String| !line.starts_with("node_cpu_seconds") && !line.contains("guest");
        (text.into_iter().filter(own).collect(), result)
    }

    #[test]
    fn arm_has_features_and_lines_of_the_machine() {
        let (text, result) = collect(
            "processor\t: 0\nmodel name\t: ARMv6 (v6l)\nFeatures\t: half thumb \n\n\
             Hardware\t: BCM2835\nModel\t\t: Raspberry Pi Zero\n",
            false,
        );
        assert!(result.is_ok());
        assert_eq!(
            text,
            [
                "node_cpu_info{cachesize=\"\",core=\"\",cpu=\"0\",family=\"\",microcode=\"\",\
                 model=\"\",model_name=\"ARMv6 (v6l)\",package=\"\",stepping=\"\",vendor=\"\"} 1",
                "node_cpu_flag_info{flag=\"half\"} 1",
            ]
        );
    }

    #[test]
    fn flags_are_those_of_the_first_and_malformed_lines_cost_themselves() {
        let (text, result) = collect(
            "flags\t: aes\nprocessor\t: 0\nphysical id\t: 1\nflags\t: aes sse\nbugs\t: spectre_v1\n\
             cpu MHz\t: fast\n\nprocessor\t: x\ncore id\t: 3\nprocessor\t: 2\ncpu MHz\t\t: 800.5\n\
             flags\t: half\nprocessor\n",
            true,
        );
        let frequency = |cpu, core, package, hertz| {
            format!(
                "node_cpu_frequency_hertz{{core=\"{core}\",cpu=\"{cpu}\",package=\"{package}\"}} {hertz}"
            )
        };
        assert_eq!(text.len(), 6);
        assert_eq!(text[2..4], [frequency(0, "3", "1", 0), frequency(2, "", "", 800_500_000)]);
        assert_eq!(text[4], "node_cpu_flag_info{flag=\"aes\"} 1");
        assert_eq!(text[5], "node_cpu_bug_info{bug=\"spectre_v1\"} 1");
        assert!(result.unwrap_err().to_string().contains("cpu MHz\\t: fast"));
    }

    #[test]
    fn without_the_file_the_seconds_are_still_there() {
        let tree = Tree::new(&[("proc/stat", STAT)]);
        let options = CpuOptions { info: true, guest: false, ..CpuOptions::default() };
        let (text, result) = tree.collect(&mut CpuTime::new(&options));
        assert_eq!(text.len(), 8, "{text:?}");
        assert!(result.is_ok());
    }
}
