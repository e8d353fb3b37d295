//! Whether the kernel's memory cgroup is there, without which systemd's MemoryHigh and MemoryMax do nothing.
//!
//! Raspberry Pi's device trees put `cgroup_disable=memory` on the kernel's command line; its kernels take
//! `cgroup_enable=memory` behind it, from /boot/firmware/cmdline.txt (mm/memcontrol.c, kernel/cgroup/cgroup.c).

use super::{Host, Root};

/// Why memory limits of cgroups do nothing on this host; None: they work, or nothing can be said.
pub fn memory_cgroup_is_off(host: &mut Host) -> Option<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // Version 2, mounted alone or beside version 1; then the controller may be in either.
    let controllers = host.find(Root::Sys, "fs/cgroup/cgroup.controllers").map(text);
    let hybrid = host.path(Root::Sys, "fs/cgroup/memory").exists();
    match &controllers {
        Some(words) if words.split_whitespace().any(|word| word == "memory") => return None,
        _ if hybrid => return None,
        _ => {}
    }
    let line = host.find(Root::Proc, "cmdline").map(text).unwrap_or_default();
    let disabled = line.split_whitespace().any(|word| {
        word.strip_prefix("cgroup_disable=")
            .is_some_and(|list| list.split(',').any(|name| name == "memory"))
    });
    Some(match disabled {
        true => {
            "the memory cgroup is off: cgroup_disable=memory is on the kernel's command line (on a \
                 Raspberry Pi cgroup_enable=memory in /boot/firmware/cmdline.txt turns it on)"
                .into()
        }
        // Nothing is mounted there, as in many containers.
        false if controllers.is_none() => return None,
        false => "this kernel has no memory cgroup".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Roots;

    #[test]
    fn a_memory_cgroup_that_is_switched_off_is_told_with_what_turns_it_on() {
        for (controllers, v1, cmdline, part) in [
            (Some("cpuset cpu io memory pids\n"), false, "cgroup_disable=memory", None),
            (
                Some("cpuset cpu io pids\n"),
                false,
                "a cgroup_disable=memory b\n",
                Some("cmdline.txt"),
            ),
            (Some("cpu\n"), false, "cgroup_disable=cpu,memory", Some("cmdline.txt")),
            (Some("cpu\n"), false, "cgroup_disable=cpu", Some("no memory cgroup")),
            (None, true, "", None),
            (Some(""), true, "", None),
            (None, false, "x", None),
            (None, false, "cgroup_disable=memory", Some("cmdline.txt")),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let cgroup = dir.path().join("sys/fs/cgroup");
            std::fs::create_dir_all(&cgroup).unwrap();
            std::fs::create_dir_all(dir.path().join("proc")).unwrap();
            if let Some(text) = controllers {
                std::fs::write(cgroup.join("cgroup.controllers"), text).unwrap();
            }
            if v1 {
                std::fs::create_dir(cgroup.join("memory")).unwrap();
            }
            std::fs::write(dir.path().join("proc/cmdline"), cmdline).unwrap();
            let mut host = Host::new(Roots {
                proc: dir.path().join("proc"),
                sys: dir.path().join("sys"),
                root: dir.path().into(),
            });
            let off = memory_cgroup_is_off(&mut host);
            assert_eq!(off.is_some(), part.is_some(), "{controllers:?} {cmdline}");
            assert!(part.is_none_or(|part| off.unwrap().contains(part)), "{cmdline}");
        }
        // Nothing is mounted: nothing is known.
        let roots = Roots { sys: "/no/such".into(), proc: "/no/such".into(), root: "/".into() };
        assert_eq!(memory_cgroup_is_off(&mut Host::new(roots)), None);
    }
}
