//! node_exporter's `powersupplyclass`, from /sys/class/power_supply (drivers/power/supply/
//! power_supply_sysfs.c): batteries, mains, USB supplies and UPSs.
//!
//! An attribute that can't be read (a gauge that is busy, a property that a driver lists and does not have)
//! is left out. A malformed one costs itself, where node_exporter then gives nothing of any supply.

use std::io;

use super::parse::{FirstError, Span, Texts, malformed, named, signed, text};
use super::{CollectError, Collector};
use crate::host::{Host, Names, Root};
use crate::model::{Kind, Samples};

const CLASS: &str = "class/power_supply";
const INFO: &str = "node_power_supply_info";
const INFO_HELP: &str = "info of /sys/class/power_supply/<power_supply>.";

/// Attribute, divisor, and the metric's name and help.
struct Field(&'static str, f64, &'static str, &'static str);

macro_rules! fields {
    ($($file:literal / $divisor:literal => $metric:literal),* $(,)?) => {
        [$(Field(
            $file,
            $divisor,
            concat!("node_power_supply_", $metric),
            concat!($metric, " value of /sys/class/power_supply/<power_supply>."),
        )),*]
    };
}

const FIELDS: [Field; 49] = fields![
    "authentic" / 1.0 => "authentic",
    "calibrate" / 1.0 => "calibrate",
    "capacity" / 1.0 => "capacity",
    "capacity_alert_max" / 1.0 => "capacity_alert_max",
    "capacity_alert_min" / 1.0 => "capacity_alert_min",
    "charge_control_limit" / 1e6 => "charge_control_limit",
    "charge_control_limit_max" / 1e6 => "charge_control_limit_max",
    "charge_counter" / 1e6 => "charge_counter",
    "charge_empty" / 1e6 => "charge_empty",
    "charge_empty_design" / 1e6 => "charge_empty_design",
    "charge_full" / 1e6 => "charge_full",
    "charge_full_design" / 1e6 => "charge_full_design",
    "charge_now" / 1e6 => "charge_ampere",
    "charge_term_current" / 1e6 => "charge_term_current",
    "constant_charge_current" / 1e6 => "constant_charge_current",
    "constant_charge_current_max" / 1e6 => "constant_charge_current_max",
    "constant_charge_voltage" / 1e6 => "constant_charge_voltage",
    "constant_charge_voltage_max" / 1e6 => "constant_charge_voltage_max",
    "current_boot" / 1e6 => "current_boot",
    "current_max" / 1e6 => "current_max",
    "current_now" / 1e6 => "current_ampere",
    "cycle_count" / 1.0 => "cyclecount",
    "energy_empty" / 1e6 => "energy_empty",
    "energy_empty_design" / 1e6 => "energy_empty_design",
    "energy_full" / 1e6 => "energy_full",
    "energy_full_design" / 1e6 => "energy_full_design",
    "energy_now" / 1e6 => "energy_watthour",
    "input_current_limit" / 1e6 => "input_current_limit",
    "online" / 1.0 => "online",
    "power_now" / 1e6 => "power_watt",
    "precharge_current" / 1e6 => "precharge_current",
    "present" / 1.0 => "present",
    "temp" / 10.0 => "temp_celsius",
    "temp_alert_max" / 10.0 => "temp_alert_max_celsius",
    "temp_alert_min" / 10.0 => "temp_alert_min_celsius",
    "temp_ambient" / 10.0 => "temp_ambient_celsius",
    "temp_ambient_max" / 10.0 => "temp_ambient_max_celsius",
    "temp_ambient_min" / 10.0 => "temp_ambient_min_celsius",
    "temp_max" / 10.0 => "temp_max_celsius",
    "temp_min" / 10.0 => "temp_min_celsius",
    "time_to_empty_now" / 1.0 => "time_to_empty_seconds",
    "time_to_full_now" / 1.0 => "time_to_full_seconds",
    "voltage_boot" / 1e6 => "voltage_boot",
    "voltage_max" / 1e6 => "voltage_max",
    "voltage_max_design" / 1e6 => "voltage_max_design",
    "voltage_min" / 1e6 => "voltage_min",
    "voltage_min_design" / 1e6 => "voltage_min_design",
    "voltage_now" / 1e6 => "voltage_volt",
    "voltage_ocv" / 1e6 => "voltage_ocv",
];

/// The texts, which are labels of one series.
const LABELS: [&str; 11] = [
    "capacity_level",
    "charge_type",
    "health",
    "manufacturer",
    "model_name",
    "scope",
    "serial_number",
    "status",
    "technology",
    "type",
    "usb_type",
];

/// Values and texts of each supply.
#[derive(Default)]
pub(super) struct PowerSupplyClass {
    supplies: Names,
    /// The files of each supply; as many as there were supplies at most.
    files: Vec<Names>,
    texts: Texts,
}

impl Collector for PowerSupplyClass {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        host.list(Root::Sys, CLASS, &mut self.supplies)?;
        self.files.resize_with(self.files.len().max(self.supplies.len()), Names::new);
        for (supply, files) in self.supplies.iter().zip(&mut self.files) {
            // One that went since: the names are empty then.
            let _ = host.list(Root::Sys, format_args!("{CLASS}/{supply}"), files);
        }
        for Field(file, divisor, name, help) in &FIELDS {
            let mut family = out.family_named(name, help, Kind::Gauge);
            for (supply, files) in self.supplies.iter().zip(&self.files) {
                if !has(files, file) {
                    continue;
                }
                let Some(bytes) = attribute(host, supply, file, &mut errors) else { continue };
                let Some(value) = signed(bytes.trim_ascii()) else {
                    let path = named(Root::Sys, format_args!("{CLASS}/{supply}/{file}"));
                    errors.note(malformed(&path, bytes, "a number"));
                    continue;
                };
                family.add(&[("power_supply", supply)], value as f64 / divisor);
            }
        }
        let mut family = out.family_named(INFO, INFO_HELP, Kind::Gauge);
        for (supply, files) in self.supplies.iter().zip(&self.files) {
            if files.is_empty() {
                continue;
            }
            self.texts.clear();
            let mut spans: heapless::Vec<(&str, Span), { LABELS.len() }> = heapless::Vec::new();
            for label in LABELS.into_iter().filter(|label| has(files, label)) {
                let Some(bytes) = attribute(host, supply, label, &mut errors) else { continue };
                let value = bytes.trim_ascii();
                if !value.is_empty() {
                    // There is room for each of them.
                    let _ = spans.push((label, self.texts.keep(&text(value))));
                }
            }
            let mut labels: heapless::Vec<(&str, &str), { LABELS.len() + 1 }> =
                heapless::Vec::new();
            let _ = labels.push(("power_supply", supply));
            labels.extend(spans.iter().map(|(label, span)| (*label, self.texts.get(*span))));
            family.add(&labels, 1.0);
        }
        errors.result()
    }
}

/// Whether the supply has this attribute.
fn has(files: &Names, file: &str) -> bool {
    files.iter().any(|name| name == file)
}

/// An attribute's bytes; none where node_exporter passes over it too, or where it can't be read, which is
/// noted.
fn attribute<'a>(
    host: &'a mut Host,
    supply: &str,
    file: &str,
    errors: &mut FirstError,
) -> Option<&'a [u8]> {
    match host.sys(format_args!("{CLASS}/{supply}/{file}")) {
        Ok(_) => Some(host.last()),
        Err(error) => {
            // ENODATA has no kind of its own.
            let none = error.source.kind() == io::ErrorKind::InvalidInput
                || error.source.raw_os_error() == Some(rustix::io::Errno::NODATA.raw_os_error());
            if !none && !error.is_absent() {
                errors.note(error.into());
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::testing;

    #[test]
    fn a_malformed_attribute_costs_itself_and_is_named() {
        let sys = tempfile::tempdir().unwrap();
        let files = [
            ("BAT0/type", "Battery\n"),
            ("BAT0/status", "\n"),
            ("BAT0/capacity", "9_9\n"),
            ("BAT0/voltage_now", "12000000\n"),
            ("BAT0/temp", "-55\n"),
            ("AC/online", "1"),
        ];
        testing::write(&sys.path().join(CLASS), &files);
        std::fs::create_dir(sys.path().join(CLASS).join("BAT0/power")).unwrap();
        let (text, result) = testing::collect(&mut PowerSupplyClass::default(), sys.path());
        assert_eq!(
            text,
            "node_power_supply_online{power_supply=\"AC\"} 1\n\
             node_power_supply_temp_celsius{power_supply=\"BAT0\"} -5.5\n\
             node_power_supply_voltage_volt{power_supply=\"BAT0\"} 12\n\
             node_power_supply_info{power_supply=\"AC\"} 1\n\
             node_power_supply_info{power_supply=\"BAT0\",type=\"Battery\"} 1\n"
        );
        let error = result.unwrap_err().to_string();
        assert!(error.contains("sys/class/power_supply/BAT0/capacity: \"9_9"), "{error}");
    }

    #[test]
    fn a_supply_that_went_is_not_reported_again() {
        let sys = tempfile::tempdir().unwrap();
        let class = sys.path().join(CLASS);
        testing::write(&class, &[("A/online", "1\n"), ("B/online", "0\n")]);
        let mut collector = PowerSupplyClass::default();
        assert_eq!(testing::collect(&mut collector, sys.path()).0.lines().count(), 4);
        std::fs::remove_dir_all(class.join("A")).unwrap();
        assert_eq!(
            testing::collect(&mut collector, sys.path()).0,
            "node_power_supply_online{power_supply=\"B\"} 0\n\
             node_power_supply_info{power_supply=\"B\"} 1\n"
        );
    }
}
