//! `[metrics]`: which collectors run, how often, and what they take.

use std::time::Duration;

use super::Metrics;
use super::error::{ConfigError, nearest};
use super::intervals::intervals;
use super::reader::Reader;
use super::relabel;
use crate::{collector, host};

pub(super) fn metrics(top: &Reader<'_>) -> Result<Metrics, ConfigError> {
    let t = top.section("metrics")?;
    let job = t
        .string("job", "integrations/node_exporter", "the label `job` of every series")?
        .map_or_else(|| "integrations/node_exporter".to_owned(), |given| given.value);
    let max_series = t.integer(
        "max_series",
        5_000,
        1..=60_000,
        "the most samples of one round; beyond it the later collectors' are refused, in the order of docs/collectors.md, and counted by collector",
    )?;
    let intervals = intervals(&t)?;
    let collectors = collectors(&t)?;
    let mut options = collector::Options { intervals, ..collector::Options::default() };

    let filesystem = t.section("filesystem")?;
    let target = &mut options.filesystem;
    if let Some(pattern) = pattern(
        &filesystem,
        "fs_types_exclude",
        "file system types that are left out; default: node_exporter's",
    )? {
        target.fs_types_exclude = pattern;
    }
    if let Some(pattern) = pattern(
        &filesystem,
        "mount_points_exclude",
        "mount points that are left out; default: node_exporter's",
    )? {
        target.mount_points_exclude = pattern;
    }
    target.mount_timeout = filesystem.duration(
        "mount_timeout",
        target.mount_timeout,
        Duration::from_millis(10)..=Duration::from_secs(60),
        "how long a mount may take to answer before it is reported as failed",
    )?;
    filesystem.finish()?;

    let netdev = t.section("netdev")?;
    if let Some(pattern) = pattern(&netdev, "device_exclude", "network devices that are left out")?
    {
        options.netdev.device_exclude = pattern;
    }
    if let Some(pattern) = pattern(&netdev, "device_include", "the only network devices, if given")?
    {
        options.netdev.device_include = pattern;
    }
    netdev.finish()?;

    let netclass = t.section("netclass")?;
    if let Some(pattern) = pattern(
        &netclass,
        "device_exclude",
        "network devices whose properties are left out; default: none",
    )? {
        options.netclass.device_exclude = pattern;
    }
    netclass.finish()?;

    let netstat = t.section("netstat")?;
    if let Some(pattern) = pattern(
        &netstat,
        "fields",
        "counters of the network protocols that are reported, as `TcpExt_ListenDrops`; default: node_exporter's",
    )? {
        options.netstat.fields = pattern;
    }
    netstat.finish()?;

    let diskstats = t.section("diskstats")?;
    if let Some(pattern) =
        pattern(&diskstats, "device_exclude", "disks that are left out; default: node_exporter's")?
    {
        options.diskstats.device_exclude = pattern;
    }
    diskstats.finish()?;

    let textfile = t.section("textfile")?;
    let directories = textfile.one_or_more_strings(
        "directory",
        "where the files `*.prom` of others are, one or several, as paths below `host.root` that may be globs",
    )?;
    for given in directories.unwrap_or_default() {
        if !given.value.is_empty() && !given.value.starts_with('/') {
            let problem = format!("textfile.directory: {:?} is no whole path", given.value);
            return Err(given.error(problem, "it begins with a slash"));
        }
        options.textfile.directories.push(given.value);
    }
    textfile.finish()?;
    let hwmon = t.section("hwmon")?;
    if let Some(pattern) =
        pattern(&hwmon, "chip_exclude", "chips of hwmon, by the label `chip`, that are left out")?
    {
        options.hwmon.chip_exclude = pattern;
    }
    if let Some(pattern) = pattern(&hwmon, "chip_include", "the only chips of hwmon, if given")? {
        options.hwmon.chip_include = pattern;
    }
    hwmon.finish()?;
    let smart = t.section("smart")?;
    if let Some(pattern) = pattern(
        &smart,
        "device_exclude",
        "disks that are not asked for their health, such as `sda`; by default none",
    )? {
        options.smart.device_exclude = pattern;
    }
    options.smart.keep_sys_admin = smart.choice(
        "nvme",
        "unprivileged",
        &[("unprivileged", false), ("sys_admin", true)],
        "the kernel tells the health of NVMe only to who has CAP_SYS_ADMIN, which the agent gives up when its probes are loaded: \"sys_admin\" keeps it if it was given, and whoever takes the agent over has the system; \"unprivileged\" does without",
    )?;
    smart.finish()?;
    containers(&t, &mut options.containers)?;
    services(&t, &mut options.services)?;
    kernel(&t, &collectors, &mut options)?;

    let systemd = t.section("systemd")?;
    let target = &mut options.systemd;
    let whole = |given: collector::Pattern| {
        // Only one that is at its bound can be too large with the anchors.
        collector::SystemdOptions::whole(given.as_str()).or(Some(given))
    };
    if let Some(given) =
        pattern(&systemd, "unit_include", "the only units, by their whole names, if given")?
    {
        target.unit_include = given.and_then(whole);
    }
    if let Some(given) = pattern(
        &systemd,
        "unit_exclude",
        "units that are left out, by their whole names; default: node_exporter's",
    )? {
        target.unit_exclude = given.and_then(whole);
    }
    target.enable_restarts_metrics = systemd.boolean(
        "enable_restarts_metrics",
        false,
        "how often each service was restarted",
    )?;
    target.enable_start_time_metrics =
        systemd.boolean("enable_start_time_metrics", false, "when each unit was started")?;
    target.enable_task_metrics =
        systemd.boolean("enable_task_metrics", false, "how many tasks each service has")?;
    systemd.finish()?;
    let relabel = relabel::rules(&t, "relabel")?;
    t.finish()?;
    Ok(Metrics { job, collectors, max_series, options, relabel })
}

fn containers(
    t: &Reader<'_>,
    target: &mut collector::ContainersOptions,
) -> Result<(), ConfigError> {
    let t = t.section("containers")?;
    let most = "the most containers that are reported; those that are known longest stay, the others are counted in `mote_containers_ignored`";
    target.max = t.integer("max", target.max as u32, 0..=1_000, most)? as usize;
    if let Some(given) = pattern(&t, "name_exclude", "containers that are left out, by name")? {
        target.name_exclude = given;
    }
    if let Some(given) = pattern(&t, "name_include", "the only containers, if given")? {
        target.name_include = given;
    }
    let given = t.string(
        "docker_host",
        collector::ContainersOptions::DOCKER_HOST,
        "who is asked for names and images where Docker's files can't be read: a socket below `host.root`, or `tcp://HOST:PORT` of a proxy that allows reading; \"\": nobody",
    )?;
    if let Some(given) = given {
        target.docker_host = match given.value.as_str() {
            "" => None,
            text => Some(host::Endpoint::parse(text).ok_or_else(|| {
                let hint = "\"unix:///var/run/docker.sock\" or \"tcp://127.0.0.1:2375\"";
                given.error(format!("docker_host is no endpoint: {text:?}"), hint)
            })?),
        };
    }
    t.finish()
}

fn services(t: &Reader<'_>, target: &mut collector::ServicesOptions) -> Result<(), ConfigError> {
    let t = t.section("services")?;
    let most = "the most services that are reported; those that are known longest stay, the others are counted in `mote_services_ignored`";
    target.max = t.integer("max", target.max as u32, 0..=2_000, most)? as usize;
    if let Some(given) = pattern(&t, "name_exclude", "services that are left out, by name")? {
        target.name_exclude = given;
    }
    if let Some(given) = pattern(&t, "name_include", "the only services, if given")? {
        target.name_include = given;
    }
    t.finish()
}

/// Options of the collectors of processor and kernel.
fn kernel(
    t: &Reader<'_>,
    collectors: &[&str],
    options: &mut collector::Options,
) -> Result<(), ConfigError> {
    let cpu = t.section("cpu")?;
    let target = &mut options.cpu;
    target.guest = cpu.boolean("guest", true, "whether the seconds in guests are told apart")?;
    let info = cpu.boolean(
        "info",
        false,
        "whether `node_cpu_info` tells /proc/cpuinfo; and `node_cpu_frequency_hertz` its clock, if the collector `cpufreq` is off",
    )?;
    let flags = "flags of the first CPU that `node_cpu_flag_info` tells; turns `info` on";
    target.flags_include = pattern(&cpu, "flags_include", flags)?.flatten();
    let bugs = "bugs of the first CPU that `node_cpu_bug_info` tells; turns `info` on";
    target.bugs_include = pattern(&cpu, "bugs_include", bugs)?.flatten();
    target.info = info || target.flags_include.is_some() || target.bugs_include.is_some();
    target.frequency = !collectors.contains(&"cpufreq");
    cpu.finish()?;

    let stat = t.section("stat")?;
    options.stat.softirq = stat.boolean("softirq", false, "whether softirqs are told by vector")?;
    stat.finish()?;

    let vmstat = t.section("vmstat")?;
    let text = "fields of /proc/vmstat that are told; default: node_exporter's";
    options.vmstat.fields = pattern(&vmstat, "fields", text)?.flatten();
    vmstat.finish()?;

    let sysctl = t.section("sysctl")?;
    let text = "settings whose numbers are told, such as \"kernel.printk\", or with a name for each number \"fs.file-nr:total,free,max\"; the collector is off unless it is enabled";
    options.sysctl.include = sysctls(&sysctl, "include", true, text)?;
    let text = "settings whose words are told, as labels of `node_sysctl_info`";
    options.sysctl.include_info = sysctls(&sysctl, "include_info", false, text)?;
    sysctl.finish()
}

/// Settings of /proc/sys, none of them twice.
fn sysctls(
    t: &Reader<'_>,
    key: &'static str,
    mapped: bool,
    text: &'static str,
) -> Result<Vec<collector::Sysctl>, ConfigError> {
    let mut sysctls: Vec<collector::Sysctl> = Vec::new();
    for given in t.strings(key, text)?.unwrap_or_default() {
        let hint = "a setting such as \"kernel.printk\" or \"fs.file-nr:total,free,max\"";
        let sysctl = match collector::Sysctl::parse(&given.value) {
            Ok(sysctl) if sysctl.is_mapped() && !mapped => Err("words have no names"),
            Ok(sysctl) if sysctls.contains(&sysctl) => Err("it is given twice"),
            other => other,
        };
        let wrong = |reason| given.error(format!("{key}: {:?}: {reason}", given.value), hint);
        sysctls.push(sysctl.map_err(wrong)?);
    }
    Ok(sysctls)
}

/// A pattern that was given; an empty one means none.
fn pattern(
    t: &Reader<'_>,
    key: &'static str,
    text: &'static str,
) -> Result<Option<Option<collector::Pattern>>, ConfigError> {
    let Some(given) = t.string(key, "", text)? else { return Ok(None) };
    if given.value.is_empty() {
        return Ok(Some(None));
    }
    match collector::pattern(&given.value) {
        Ok(pattern) => Ok(Some(Some(pattern))),
        Err(error) => {
            // The crate draws the pattern and a caret over several lines; its last line is the reason.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or(&text).trim();
            let reason = reason.strip_prefix("error: ").unwrap_or(reason);
            Err(given.error(
                format!("{key}: the pattern {:?} is no regular expression: {reason}", given.value),
                "Rust's regex syntax, which is RE2's; no look-around, no back-references",
            ))
        }
    }
}

fn collectors(t: &Reader<'_>) -> Result<Vec<&'static str>, ConfigError> {
    let t = t.section("collectors")?;
    let known = || collector::TABLE.iter().map(|entry| entry.name);
    let names = |key, text| -> Result<Option<Vec<String>>, ConfigError> {
        let Some(given) = t.strings(key, text)? else { return Ok(None) };
        for name in &given {
            if !known().any(|known| known == name.value) {
                let hint = match nearest(&name.value, known()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("collectors: {}", known().collect::<Vec<_>>().join(", ")),
                };
                return Err(name.error(format!("there is no collector {:?}", name.value), hint));
            }
        }
        Ok(Some(given.into_iter().map(|name| name.value).collect()))
    };
    let enable =
        names("enable", "collectors that run beside the default ones")?.unwrap_or_default();
    let disable = names("disable", "collectors that don't run")?.unwrap_or_default();
    let only = names("only", "the only collectors that run")?;
    t.finish()?;
    let runs = |entry: &collector::Entry| match &only {
        Some(only) => only.iter().any(|name| name == entry.name),
        None => entry.default || enable.iter().any(|name| name == entry.name),
    };
    Ok(collector::TABLE
        .iter()
        .filter(|entry| runs(entry) && !disable.iter().any(|name| name == entry.name))
        .map(|entry| entry.name)
        .collect())
}
