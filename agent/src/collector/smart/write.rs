//! The samples of what disks have said. It must not know how they were asked.

use super::device::{AtaHealth, Report};
use super::{Disk, ata, nvme};
use crate::collector::parse::decimal;
use crate::model::{Desc, Samples};

const INFO: Desc =
    Desc::gauge("node_smart_info", "What a disk says it is; protocol is ata, nvme or scsi.");
const STANDBY: Desc = Desc::gauge(
    "node_smart_device_standby",
    "Whether the disk stands still and was not asked for more.",
);
const HEALTHY: Desc = Desc::gauge(
    "node_smart_healthy",
    "Whether the disk finds itself well: 0 if it predicts its failure, or NVMe gives a critical warning.",
);
const TEMPERATURE: Desc =
    Desc::gauge("node_smart_temperature_celsius", "The temperature that the disk tells.");
const POWER_ON: Desc = Desc::counter(
    "node_smart_power_on_seconds_total",
    "How long the disk has been switched on in its life; it counts hours.",
);
const POWER_CYCLES: Desc = Desc::counter(
    "node_smart_power_cycles_total",
    "How often the disk has been switched on in its life.",
);
const WARNING: Desc = Desc::gauge(
    "node_smart_critical_warning",
    "Whether an NVMe controller gives this critical warning.",
);

type OfNvme = (Desc, fn(&nvme::Log) -> f64);

#[rustfmt::skip]
const NVME: [OfNvme; 13] = [
    (Desc::gauge("node_smart_available_spare_ratio", "Share of NVMe's spare capacity that is left."), |log| percent(log.available_spare)),
    (Desc::gauge("node_smart_available_spare_threshold_ratio", "Share of NVMe's spare capacity below which it warns."), |log| percent(log.available_spare_threshold)),
    (Desc::gauge("node_smart_percentage_used_ratio", "Share of NVMe's expected life that is used; it may be more than 1."), |log| percent(log.percentage_used)),
    (Desc::counter("node_smart_read_bytes_total", "Bytes that the host has read from NVMe, in steps of 512000."), |log| log.read_bytes),
    (Desc::counter("node_smart_written_bytes_total", "Bytes that the host has written to NVMe, in steps of 512000."), |log| log.written_bytes),
    (Desc::counter("node_smart_read_commands_total", "Read commands that NVMe has completed."), |log| log.read_commands),
    (Desc::counter("node_smart_write_commands_total", "Write commands that NVMe has completed."), |log| log.write_commands),
    (Desc::counter("node_smart_controller_busy_seconds_total", "How long NVMe's controller was busy with I/O; it counts minutes."), |log| log.busy_seconds),
    (Desc::counter("node_smart_unsafe_shutdowns_total", "Losses of power that were not announced to NVMe."), |log| log.unsafe_shutdowns),
    (Desc::counter("node_smart_media_errors_total", "Times that NVMe could not read or write data intact."), |log| log.media_errors),
    (Desc::counter("node_smart_error_log_entries_total", "Entries of NVMe's error log in its life."), |log| log.error_log_entries),
    (Desc::counter("node_smart_warning_temperature_seconds_total", "How long NVMe was above its warning temperature; it counts minutes."), |log| log.warning_temperature_seconds),
    (Desc::counter("node_smart_critical_temperature_seconds_total", "How long NVMe was above its critical temperature; it counts minutes."), |log| log.critical_temperature_seconds),
];

type OfAttribute = (Desc, fn(&ata::Attribute) -> Option<f64>);

#[rustfmt::skip]
const ATTRIBUTES: [OfAttribute; 4] = [
    (Desc::gauge("node_smart_attribute_raw", "Raw value of an ATA disk's SMART attribute, of the vendor's unit."), |one| Some(one.raw as f64)),
    (Desc::gauge("node_smart_attribute_normalized", "Value of an ATA disk's SMART attribute as the disk judges it; the less, the worse."), |one| Some(f64::from(one.value))),
    (Desc::gauge("node_smart_attribute_worst", "The worst normalized value that an ATA disk's SMART attribute has had."), |one| Some(f64::from(one.worst))),
    (Desc::gauge("node_smart_attribute_threshold", "The normalized value at which an ATA disk's SMART attribute has failed."), |one| one.threshold.map(f64::from)),
];

/// Writes all samples.
pub(super) fn disks(disks: &[Disk], out: &mut Samples) {
    info(disks, out);
    let standby = |report: &Report| Some(f64::from(u8::from(*report == Report::Standby)));
    family(disks, out, &STANDBY, standby);
    family(disks, out, &HEALTHY, |report| healthy(report).map(|well| f64::from(u8::from(well))));
    family(disks, out, &TEMPERATURE, |report| match report {
        Report::Ata(health) => ata::temperature(&health.attributes),
        Report::Nvme(log) => log.temperature,
        Report::Scsi(health) => health.temperature,
        Report::Silent | Report::Standby | Report::Running => None,
    });
    family(disks, out, &POWER_ON, |report| match report {
        Report::Ata(health) => {
            ata::power_on_hours(&health.attributes).map(|hours| f64::from(hours) * 3600.0)
        }
        Report::Nvme(log) => Some(log.power_on_seconds),
        _ => None,
    });
    family(disks, out, &POWER_CYCLES, |report| match report {
        Report::Ata(health) => ata::power_cycles(&health.attributes).map(|count| count as f64),
        Report::Nvme(log) => Some(log.power_cycles),
        _ => None,
    });
    warnings(disks, out);
    for (desc, value) in &NVME {
        family(disks, out, desc, |report| match report {
            Report::Nvme(log) => Some(value(log)),
            _ => None,
        });
    }
    for (desc, value) in &ATTRIBUTES {
        attributes(disks, out, desc, *value);
    }
}

fn percent(value: u8) -> f64 {
    f64::from(value) / 100.0
}

fn healthy(report: &Report) -> Option<bool> {
    match report {
        Report::Ata(health) => health.healthy,
        Report::Nvme(log) => Some(log.critical_warning == 0),
        Report::Scsi(health) => health.healthy,
        Report::Silent | Report::Standby | Report::Running => None,
    }
}

/// A family with one sample a disk.
fn family(disks: &[Disk], out: &mut Samples, desc: &Desc, value: impl Fn(&Report) -> Option<f64>) {
    let mut family = out.family(desc);
    for disk in disks {
        if let Some(value) = disk.report.as_ref().and_then(&value) {
            family.add(&[("device", &disk.name)], value);
        }
    }
}

fn info(disks: &[Disk], out: &mut Samples) {
    let mut family = out.family(&INFO);
    for disk in disks {
        let protocol = match &disk.report {
            Some(Report::Ata(_)) => "ata",
            Some(Report::Nvme(_)) => "nvme",
            Some(Report::Scsi(_)) => "scsi",
            // Only ATA disks tell that they stand still; what they are, they said before.
            Some(Report::Standby) if !disk.model.is_empty() => "ata",
            _ => continue,
        };
        let labels = [
            ("device", disk.name.as_str()),
            ("firmware", disk.firmware.as_str()),
            ("model", disk.model.as_str()),
            ("protocol", protocol),
            ("serial", disk.serial.as_str()),
        ];
        family.add(&labels, 1.0);
    }
}

fn warnings(disks: &[Disk], out: &mut Samples) {
    let mut family = out.family(&WARNING);
    for disk in disks {
        let Some(Report::Nvme(log)) = &disk.report else { continue };
        for (bit, warning) in nvme::WARNINGS.into_iter().enumerate() {
            let given = log.critical_warning >> bit & 1;
            family.add(&[("device", &disk.name), ("warning", warning)], f64::from(given));
        }
    }
}

fn attributes(
    disks: &[Disk],
    out: &mut Samples,
    desc: &Desc,
    value: impl Fn(&ata::Attribute) -> Option<f64>,
) {
    let mut family = out.family(desc);
    for disk in disks {
        let Some(Report::Ata(AtaHealth { identity, attributes, .. })) = &disk.report else {
            continue;
        };
        for attribute in attributes {
            let Some(value) = value(attribute) else { continue };
            let id = decimal(u64::from(attribute.id));
            let name = super::attributes::name(attribute.id, identity.solid_state);
            let labels =
                [("attribute_id", id.as_str()), ("attribute_name", name), ("device", &disk.name)];
            family.add(&labels, value);
        }
    }
}
