//! node_exporter's `sysctl`: the settings of /proc/sys that the user names, numbers as samples and words as
//! labels.

use super::options::SysctlOptions;
use super::parse::{FirstError, decimal, fields, malformed, signed, text};
use super::{CollectError, Collector};
use crate::host::{Host, Root};
use crate::model::{Desc, Kind, Samples};

const INFO: Desc = Desc::gauge("node_sysctl_info", "sysctl info");

/// A setting such as `fs.file-nr:total,free,max`: a name and, if it has several numbers, a name for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    name: String,
    /// Below /proc.
    path: String,
    /// For each key, or for the setting as a whole: name of the metric and help.
    families: Vec<(String, String)>,
    mapped: bool,
}

impl Sysctl {
    /// Reads what the user wrote, with keys only where they are allowed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Sysctl, &'static str> {
        let (name, keys) = match text.split_once(':') {
            Some((name, keys)) => (name, Some(keys)),
            None => (text, None),
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        if !name.chars().all(allowed) || name.split(['.', '/']).any(str::is_empty) {
            return Err("a name is parts of letters, digits, - and _ with dots between them");
        }
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let metric: String = name.chars().map(|c| if word(c) { c } else { '_' }).collect();
        let metric = format!("node_sysctl_{metric}");
        let families = match keys {
            None => vec![(metric, format!("sysctl {name}"))],
            Some(keys) => {
                if !keys.split(',').all(|key| !key.is_empty() && key.chars().all(word)) {
                    return Err("keys are letters, digits and _, with commas between them");
                }
                let family =
                    |(at, key)| (format!("{metric}_{key}"), format!("sysctl {name}, field {at}"));
                keys.split(',').enumerate().map(family).collect()
            }
        };
        let path = format!("sys/{}", name.replace('.', "/"));
        Ok(Sysctl { name: name.to_owned(), path, families, mapped: keys.is_some() })
    }

    /// Whether it gives names to several numbers, which words can't have.
    pub fn is_mapped(&self) -> bool {
        self.mapped
    }
}

/// Kernel settings.
pub(super) struct Sysctls {
    options: SysctlOptions,
}

impl Sysctls {
    pub(super) fn new(options: &SysctlOptions) -> Sysctls {
        Sysctls { options: options.clone() }
    }
}

impl Collector for Sysctls {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        for sysctl in &self.options.include {
            if let Some(bytes) = host.find(Root::Proc, &sysctl.path) {
                numbers(sysctl, bytes, out).unwrap_or_else(|error| errors.note(error));
            }
        }
        let mut family = out.family(&INFO);
        for sysctl in &self.options.include_info {
            let bytes = host.find(Root::Proc, &sysctl.path).unwrap_or_default();
            for (index, word) in (0u64..).zip(fields(bytes)) {
                let labels = [
                    ("name", sysctl.name.as_str()),
                    ("value", &text(word)),
                    ("index", &decimal(index)),
                ];
                family.add(&labels, 1.0);
            }
        }
        errors.result()
    }
}

fn numbers(sysctl: &Sysctl, bytes: &[u8], out: &mut Samples) -> Result<(), CollectError> {
    let error = |expected| malformed(&format!("proc/{}", sysctl.path), bytes, expected);
    let value = |token| signed(token).map(|value| value as f64);
    if fields(bytes).any(|token| value(token).is_none()) {
        return Err(error("numbers"));
    }
    let values = || fields(bytes).filter_map(value);
    let count = values().count();
    if sysctl.mapped {
        if count != sysctl.families.len() {
            return Err(error("as many numbers as keys are configured"));
        }
        for ((name, help), value) in sysctl.families.iter().zip(values()) {
            out.family_named(name, help, Kind::Untyped).add(&[], value);
        }
        return Ok(());
    }
    let Some((name, help)) = sysctl.families.first().filter(|_| count > 0) else {
        return Err(error("a number"));
    };
    let mut family = out.family_named(name, help, Kind::Untyped);
    for (index, value) in (0u64..).zip(values()) {
        match count {
            1 => family.add(&[], value),
            _ => family.add(&[("index", &decimal(index))], value),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    fn collect(include: &[&str], info: &[&str]) -> (Vec<String>, Result<(), CollectError>) {
        let tree = Tree::new(&[
            ("proc/sys/kernel/printk", "3\t4\t1\t7\n"),
            ("proc/sys/fs/file-nr", "992\t0\t-1\n"),
            ("proc/sys/kernel/core_pattern", "core %p\n"),
            ("proc/sys/kernel/empty", ""),
        ]);
        let all = |texts: &[&str]| texts.iter().map(|text| Sysctl::parse(text).unwrap()).collect();
        let options = SysctlOptions { include: all(include), include_info: all(info) };
        tree.collect(&mut Sysctls::new(&options))
    }

    #[test]
    fn one_number_several_and_those_with_names() {
        let (text, result) =
            collect(&["fs.file-nr:a,b,c", "kernel.printk", "no.such"], &["kernel.core_pattern"]);
        assert_eq!(
            text,
            [
                "node_sysctl_fs_file_nr_a 992",
                "node_sysctl_fs_file_nr_b 0",
                "node_sysctl_fs_file_nr_c -1",
                "node_sysctl_kernel_printk{index=\"0\"} 3",
                "node_sysctl_kernel_printk{index=\"1\"} 4",
                "node_sysctl_kernel_printk{index=\"2\"} 1",
                "node_sysctl_kernel_printk{index=\"3\"} 7",
                "node_sysctl_info{index=\"0\",name=\"kernel.core_pattern\",value=\"core\"} 1",
                "node_sysctl_info{index=\"1\",name=\"kernel.core_pattern\",value=\"%p\"} 1",
            ]
        );
        assert!(result.is_ok());
    }

    #[test]
    fn words_and_wrong_counts_cost_themselves() {
        for (bad, named) in [
            ("kernel.core_pattern", "proc/sys/kernel/core_pattern: \"core %p"),
            ("kernel.printk:a,b", "proc/sys/kernel/printk: \"3\\t4"),
            ("kernel.empty", "proc/sys/kernel/empty"),
        ] {
            let (text, result) = collect(&[bad, "fs/file-nr"], &[]);
            assert_eq!(text.len(), 3, "{bad}");
            assert!(result.unwrap_err().to_string().contains(named), "{bad}");
        }
    }

    #[test]
    fn names_that_would_leave_the_directory_or_are_no_metric_are_refused() {
        for bad in ["", ".", "a..b", "/etc/passwd", "a/../b", "a b", "a:", "a:b,,c", "a:b c", "ä"]
        {
            assert!(Sysctl::parse(bad).is_err(), "{bad}");
        }
        assert!(!Sysctl::parse("kernel.threads-max").unwrap().is_mapped());
        assert!(Sysctl::parse("fs.file-nr:a,b").unwrap().is_mapped());
    }
}
