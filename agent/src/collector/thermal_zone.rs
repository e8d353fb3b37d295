//! node_exporter's `thermal_zone`, from /sys/class/thermal (drivers/thermal/thermal_sysfs.c): temperatures
//! of zones and states of what cools them.
//!
//! A zone that is switched off, or whose sensor does not answer (EINVAL, EAGAIN, EIO), has no temperature and
//! is left out; version 1.5.0 gives nothing at all then, later ones do as here.

use super::parse::{FirstError, Span, Texts, signed_number, text};
use super::{CollectError, Collector};
use crate::host::{Host, Names, Root};
use crate::model::{Desc, Samples};

const CLASS: &str = "class/thermal";

const TEMP: Desc = Desc::gauge("node_thermal_zone_temp", "Zone temperature in Celsius");
const STATES: [Desc; 2] = [
    Desc::gauge("node_cooling_device_cur_state", "Current throttle state of the cooling device"),
    Desc::gauge("node_cooling_device_max_state", "Maximum throttle state of the cooling device"),
];

/// Zones and cooling devices.
#[derive(Default)]
pub(super) struct ThermalZone {
    names: Names,
    texts: Texts,
    /// Numbers and types, and the current and the maximum state.
    devices: Vec<(Span, Span, [f64; 2])>,
}

impl Collector for ThermalZone {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        host.list(Root::Sys, CLASS, &mut self.names)?;
        self.texts.clear();
        self.devices.clear();
        let mut family = out.family(&TEMP);
        for name in self.names.iter() {
            let Some(number) = numbered(name, "thermal_zone") else { continue };
            let path = format_args!("{CLASS}/{name}/temp");
            let Some(temp) = signed_number(host, Root::Sys, path, &mut errors) else { continue };
            let Some(kind) = host.find(Root::Sys, format_args!("{CLASS}/{name}/type")) else {
                continue;
            };
            let kind = text(kind.trim_ascii());
            family.add(&[("zone", number), ("type", &kind)], temp as f64 / 1000.0);
        }
        for name in self.names.iter() {
            let Some(number) = numbered(name, "cooling_device") else { continue };
            let mut state = |file| {
                // -1 is a state of the Intel power clamp's.
                let path = format_args!("{CLASS}/{name}/{file}");
                signed_number(host, Root::Sys, path, &mut errors).map(|state| state as f64)
            };
            let (Some(current), Some(max)) = (state("cur_state"), state("max_state")) else {
                continue;
            };
            let Some(kind) = host.find(Root::Sys, format_args!("{CLASS}/{name}/type")) else {
                continue;
            };
            let kind = self.texts.keep(&text(kind.trim_ascii()));
            self.devices.push((self.texts.keep(number), kind, [current, max]));
        }
        for (index, desc) in STATES.iter().enumerate() {
            let mut family = out.family(desc);
            for (number, kind, states) in &self.devices {
                let labels = [("name", self.texts.get(*number)), ("type", self.texts.get(*kind))];
                family.add(&labels, states.get(index).copied().unwrap_or_default());
            }
        }
        errors.result()
    }
}

/// What follows the prefix, which begins with a digit.
fn numbered<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    name.strip_prefix(prefix).filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::testing;

    #[test]
    fn a_malformed_zone_costs_itself_and_is_named() {
        let sys = tempfile::tempdir().unwrap();
        let files = [
            ("class/thermal/thermal_zone0/type", "acpitz\n"),
            ("class/thermal/thermal_zone0/temp", "27x00\n"),
            ("class/thermal/thermal_zone1/type", "cpu ü\n"),
            ("class/thermal/thermal_zone1/temp", "-500\n"),
            ("class/thermal/thermal_zone2/type", "off\n"),
            ("class/thermal/thermal_zone3/temp", "1\n"),
            ("class/thermal/thermal_zonex/temp", "x\n"),
            ("class/thermal/cooling_device0/type", "Fan\n"),
            ("class/thermal/cooling_device0/cur_state", "-1\n"),
            ("class/thermal/cooling_device0/max_state", "50\n"),
            ("class/thermal/cooling_device1/type", "Fan\n"),
            ("class/thermal/cooling_device1/cur_state", "1\n"),
        ];
        testing::write(sys.path(), &files);
        let (text, result) = testing::collect(&mut ThermalZone::default(), sys.path());
        assert_eq!(
            text,
            "node_thermal_zone_temp{type=\"cpu ü\",zone=\"1\"} -0.5\n\
             node_cooling_device_cur_state{name=\"0\",type=\"Fan\"} -1\n\
             node_cooling_device_max_state{name=\"0\",type=\"Fan\"} 50\n"
        );
        let error = result.unwrap_err().to_string();
        assert!(error.contains("sys/class/thermal/thermal_zone0/temp: \"27x00"), "{error}");
    }

    #[test]
    fn a_host_without_zones_has_no_data() {
        let sys = tempfile::tempdir().unwrap();
        let (_, result) = testing::collect(&mut ThermalZone::default(), sys.path());
        assert!(matches!(result, Err(CollectError::NoData(_))));
    }
}
