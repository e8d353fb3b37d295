//! node_exporter's `cpufreq`, from /sys/devices/system/cpu/cpu*/cpufreq (drivers/cpufreq/cpufreq.c). The
//! governors are node_exporter's since its version 1.6.0.
//!
//! CPUs that change their clock together link to one policy, which is read once a round: its attributes
//! may ask the firmware. CPUs that are off have no samples. A driver that can't say a frequency writes
//! `<unknown>`, which is no fault here; node_exporter's collector fails on it.

use super::parse::{FirstError, Span, Texts, malformed, named, text, unsigned};
use super::topology::{in_cpu_list, is_cpu};
use super::{CollectError, Collector};
use crate::host::{Host, Names, Root};
use crate::model::{Desc, Samples};

const DIRECTORY: &str = "devices/system/cpu";

/// Attributes in kHz.
const FREQUENCIES: [(&str, Desc); 6] = [
    (
        "cpuinfo_cur_freq",
        Desc::gauge("node_cpu_frequency_hertz", "Current cpu thread frequency in hertz."),
    ),
    (
        "cpuinfo_min_freq",
        Desc::gauge("node_cpu_frequency_min_hertz", "Minimum cpu thread frequency in hertz."),
    ),
    (
        "cpuinfo_max_freq",
        Desc::gauge("node_cpu_frequency_max_hertz", "Maximum cpu thread frequency in hertz."),
    ),
    (
        "scaling_cur_freq",
        Desc::gauge(
            "node_cpu_scaling_frequency_hertz",
            "Current scaled CPU thread frequency in hertz.",
        ),
    ),
    (
        "scaling_min_freq",
        Desc::gauge(
            "node_cpu_scaling_frequency_min_hertz",
            "Minimum scaled CPU thread frequency in hertz.",
        ),
    ),
    (
        "scaling_max_freq",
        Desc::gauge(
            "node_cpu_scaling_frequency_max_hertz",
            "Maximum scaled CPU thread frequency in hertz.",
        ),
    ),
];
const GOVERNOR: Desc =
    Desc::gauge("node_cpu_scaling_governor", "Current enabled CPU frequency governor.");

/// Frequencies and governors by CPU.
#[derive(Default)]
pub(super) struct Cpufreq {
    names: Names,
    offline: Vec<u8>,
    texts: Texts,
    policies: Vec<Policy>,
    /// Places in `names` and `policies`.
    cpus: Vec<(usize, usize)>,
}

/// What CPUs share, as it was read in this round.
struct Policy {
    /// Where it is in /sys.
    target: Span,
    khz: [Option<u64>; FREQUENCIES.len()],
    governor: Span,
    governors: Span,
}

impl Collector for Cpufreq {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        host.list(Root::Sys, DIRECTORY, &mut self.names)?;
        self.offline.clear();
        let offline = host.find(Root::Sys, format_args!("{DIRECTORY}/offline")).unwrap_or_default();
        self.offline.extend_from_slice(offline.trim_ascii());
        self.texts.clear();
        self.policies.clear();
        self.cpus.clear();
        for (place, name) in self.names.iter().enumerate().filter(|(_, name)| is_cpu(name)) {
            let number = name.trim_start_matches("cpu");
            if in_cpu_list(&self.offline, number.as_bytes()) {
                continue;
            }
            // The link's target is the policy's name; kernels before 4.3 have a directory in its place.
            let path = format_args!("{DIRECTORY}/{name}/cpufreq");
            let target = match host.link(Root::Sys, path) {
                Ok(target) => self.texts.keep(&text(target)),
                Err(error) if error.is_absent() => continue,
                Err(_) => self.texts.keep(name),
            };
            let same = |policy: &Policy| self.texts.get(policy.target) == self.texts.get(target);
            let policy = match self.policies.iter().position(same) {
                Some(policy) => policy,
                None => {
                    let policy = read(host, name, target, &mut self.texts, &mut errors);
                    self.policies.push(policy);
                    self.policies.len() - 1
                }
            };
            self.cpus.push((place, policy));
        }
        self.write(out);
        errors.result()
    }
}

fn read(
    host: &mut Host,
    cpu: &str,
    target: Span,
    texts: &mut Texts,
    errors: &mut FirstError,
) -> Policy {
    let mut policy = Policy {
        target,
        khz: [None; FREQUENCIES.len()],
        governor: Span::default(),
        governors: Span::default(),
    };
    for ((file, _), khz) in FREQUENCIES.iter().zip(&mut policy.khz) {
        let path = format_args!("{DIRECTORY}/{cpu}/cpufreq/{file}");
        let Some(bytes) = host.find(Root::Sys, path) else { continue };
        *khz = unsigned(bytes.trim_ascii());
        if khz.is_none() && !bytes.starts_with(b"<unknown>") {
            errors.note(malformed(&named(Root::Sys, path), bytes, "a number"));
        }
    }
    let mut word = |file| {
        let bytes = host.find(Root::Sys, format_args!("{DIRECTORY}/{cpu}/cpufreq/{file}"));
        texts.keep(text(bytes.unwrap_or_default()).trim())
    };
    policy.governor = word("scaling_governor");
    policy.governors = word("scaling_available_governors");
    policy
}

impl Cpufreq {
    fn write(&self, out: &mut Samples) {
        let cpus = || {
            self.cpus.iter().filter_map(|&(place, policy)| {
                let number = self.names.get(place)?.strip_prefix("cpu")?;
                Some((number, self.policies.get(policy)?))
            })
        };
        for (index, (_, desc)) in FREQUENCIES.iter().enumerate() {
            let mut family = out.family(desc);
            for (cpu, policy) in cpus() {
                if let Some(Some(khz)) = policy.khz.get(index) {
                    family.add(&[("cpu", cpu)], *khz as f64 * 1000.0);
                }
            }
        }
        let mut family = out.family(&GOVERNOR);
        for (cpu, policy) in cpus() {
            let current = self.texts.get(policy.governor);
            for governor in self.texts.get(policy.governors).split_ascii_whitespace() {
                let value = if governor == current { 1.0 } else { 0.0 };
                family.add(&[("cpu", cpu), ("governor", governor)], value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    #[test]
    fn a_malformed_frequency_costs_itself_and_an_unknown_one_is_quiet() {
        let tree = Tree::new(&[
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "<unknown>\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq", "600000\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_max_freq", "fast\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_min_freq", "\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "schedutil\n"),
            (
                "sys/devices/system/cpu/cpu1/cpufreq/scaling_available_governors",
                "powersave schedutil \n",
            ),
            ("sys/devices/system/cpu/cpuidle/current_driver", "none\n"),
        ]);
        let (text, result) = tree.collect(&mut Cpufreq::default());
        assert_eq!(
            text,
            [
                "node_cpu_scaling_frequency_min_hertz{cpu=\"0\"} 600000000",
                "node_cpu_scaling_governor{cpu=\"1\",governor=\"powersave\"} 0",
                "node_cpu_scaling_governor{cpu=\"1\",governor=\"schedutil\"} 1",
            ]
        );
        let error = result.unwrap_err().to_string();
        assert!(error.contains("cpu1/cpufreq/scaling_min_freq"), "{error}");
    }

    #[test]
    fn cpus_of_one_policy_share_it_and_one_that_is_off_has_none() {
        let tree = Tree::new(&[
            ("sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", "1500000\n"),
            ("sys/devices/system/cpu/offline", "2,5-7\n"),
        ]);
        for cpu in [0, 1, 2, 10] {
            let directory = tree.path().join(format!("sys/devices/system/cpu/cpu{cpu}"));
            std::fs::create_dir(&directory).unwrap();
            std::os::unix::fs::symlink("../cpufreq/policy0", directory.join("cpufreq")).unwrap();
        }
        let mut cpufreq = Cpufreq::default();
        let (text, result) = tree.collect(&mut cpufreq);
        assert!(result.is_ok());
        let of = |cpu| format!("node_cpu_scaling_frequency_hertz{{cpu=\"{cpu}\"}} 1500000000");
        assert_eq!(text, [of(0), of(1), of(10)]);
        assert_eq!(cpufreq.policies.len(), 1);
    }
}
