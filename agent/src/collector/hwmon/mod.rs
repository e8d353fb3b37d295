//! node_exporter's `hwmon`, from /sys/class/hwmon (drivers/hwmon, Documentation/hwmon/sysfs-interface.rst):
//! temperatures, fans, voltages, currents, power and their limits and alarms.
//!
//! [`scan`](scan::scan) looks through all chips and says what to read; a round then lists names, which tell
//! whether a chip or a file came or went, and reads only that. Names of chips and labels of sensors are
//! taken to stay while the files do. Series and names are those of 1.5.0; from later
//! versions are the filter of chips (1.6) and the type `freq` (1.8). A file that holds no number or can't be
//! read has no sample and is no error, as there: hwmon has texts among its attributes, and sensors that are
//! asleep. Where two chips would give the same series, on which node_exporter fails, the first one does.

mod metric;
mod names;
mod scan;

use std::hash::{DefaultHasher, Hash, Hasher};

use super::options::HwmonOptions;
use super::parse::FirstError;
use super::{CollectError, Collector};
use crate::host::{Host, Names, Root};
use crate::model::{Desc, Samples};
use scan::{CLASS, Plan};

const CHIP_NAMES: Desc =
    Desc::gauge("node_hwmon_chip_names", "Annotation metric for human-readable chip names");
const SENSOR_LABEL: Desc =
    Desc::gauge("node_hwmon_sensor_label", "Label for given chip and sensor");

/// Sensors of chips.
pub(super) struct Hwmon {
    options: HwmonOptions,
    plan: Plan,
    /// Of the names and links that the plan was made for; none if it is to be made anew.
    planned: Option<u64>,
    names: Names,
    files: Names,
}

impl Hwmon {
    pub(super) fn new(options: &HwmonOptions) -> Hwmon {
        Hwmon {
            options: options.clone(),
            plan: Plan::default(),
            planned: None,
            names: Names::new(),
            files: Names::new(),
        }
    }

    /// Makes the plan anew if chips or their files are not those that it was made for.
    fn update(&mut self, host: &mut Host, errors: &mut FirstError) -> Result<(), CollectError> {
        host.list(Root::Sys, CLASS, &mut self.names)?;
        let mut hasher = DefaultHasher::new();
        for name in self.names.iter() {
            name.hash(&mut hasher);
            // A chip that takes the number of one that went is another device's.
            if let Ok(link) = host.link(Root::Sys, format_args!("{CLASS}/{name}")) {
                link.hash(&mut hasher);
            }
            for folder in ["", "/device"] {
                let path = format_args!("{CLASS}/{name}{folder}");
                if host.list(Root::Sys, path, &mut self.files).is_ok() {
                    self.files.len().hash(&mut hasher);
                    self.files.iter().for_each(|file| file.hash(&mut hasher));
                }
            }
        }
        let found = hasher.finish();
        if self.planned != Some(found) {
            self.plan = scan::scan(host, &self.names, &self.options, errors);
            // What could not be listed is tried again with the next round.
            self.planned = errors.is_empty().then_some(found);
        }
        Ok(())
    }
}

impl Collector for Hwmon {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        self.update(host, &mut errors)?;
        let mut family = out.family(&CHIP_NAMES);
        for (chip, name) in &self.plan.chips {
            family.add(&[("chip", chip), ("chip_name", name)], 1.0);
        }
        let mut family = out.family(&SENSOR_LABEL);
        for (chip, sensor, label) in &self.plan.labels {
            family.add(&[("chip", chip), ("sensor", sensor), ("label", label)], 1.0);
        }
        let mut values = self.plan.values.iter();
        for family in &self.plan.families {
            let mut opened = out.family_named(&family.name, &family.help, family.kind);
            for value in values.by_ref().take(family.values) {
                let path = format_args!("{CLASS}/{}", value.path);
                let Some(bytes) = host.find(Root::Sys, path) else { continue };
                let Some(number) = value.unit.value(scan::text(bytes)) else { continue };
                opened.add(&[("chip", &value.chip), ("sensor", &value.sensor)], number);
            }
        }
        errors.result()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::collector::{pattern, testing};

    fn collect(hwmon: &mut Hwmon, sys: &Path) -> String {
        let (text, result) = testing::collect(hwmon, sys);
        result.unwrap();
        text
    }

    fn chip(sys: &Path, number: u32, device: &str, files: &[(&str, &str)]) {
        let folder = sys.join(format!("devices/{device}/hwmon/hwmon{number}"));
        testing::write(&folder, files);
        let link = |target: String, at: &Path| std::os::unix::fs::symlink(target, at).unwrap();
        let parent = Path::new(device).file_name().unwrap().to_str().unwrap();
        link(format!("../../../{parent}"), &folder.join("device"));
        fs::create_dir_all(sys.join(CLASS)).unwrap();
        let target = format!("../../devices/{device}/hwmon/hwmon{number}");
        link(target, &sys.join(format!("{CLASS}/hwmon{number}")));
    }

    #[test]
    fn a_chip_that_comes_and_one_that_goes_are_noticed_at_once() {
        let sys = tempfile::tempdir().unwrap();
        chip(sys.path(), 0, "platform/a.0", &[("name", "a\n"), ("temp1_input", "1000\n")]);
        let mut hwmon = Hwmon::new(&HwmonOptions::default());
        let first = collect(&mut hwmon, sys.path());
        assert!(
            first.contains("node_hwmon_temp_celsius{chip=\"platform_a_0\",sensor=\"temp1\"} 1\n")
        );
        chip(sys.path(), 1, "platform/b.0", &[("fan1_input", "900\n")]);
        let second = collect(&mut hwmon, sys.path());
        assert!(second.contains("node_hwmon_fan_rpm{chip=\"platform_b_0\",sensor=\"fan1\"} 900\n"));
        // Another device takes the number of one that went.
        fs::remove_file(sys.path().join("class/hwmon/hwmon0")).unwrap();
        chip(sys.path(), 0, "platform/c.0", &[("temp1_input", "3000\n")]);
        let third = collect(&mut hwmon, sys.path());
        assert!(
            third.contains("chip=\"platform_c_0\"") && !third.contains("platform_a_0"),
            "{third}"
        );
    }

    #[test]
    fn a_file_that_comes_and_one_that_goes_are_noticed_at_once() {
        let sys = tempfile::tempdir().unwrap();
        chip(sys.path(), 0, "platform/a.0", &[("temp1_input", "1000\n")]);
        let mut hwmon = Hwmon::new(&HwmonOptions::default());
        let one = collect(&mut hwmon, sys.path());
        let device = sys.path().join("devices/platform/a.0");
        testing::write(&device, &[("fan1_input", "900\n")]);
        assert!(collect(&mut hwmon, sys.path()).contains("node_hwmon_fan_rpm"));
        fs::remove_file(device.join("fan1_input")).unwrap();
        assert_eq!(collect(&mut hwmon, sys.path()), one);
    }

    #[test]
    fn a_sensor_that_can_not_be_read_for_a_while_comes_back() {
        let sys = tempfile::tempdir().unwrap();
        chip(sys.path(), 0, "platform/a.0", &[("temp1_input", "1000\n"), ("in0_input", "5\n")]);
        let input = sys.path().join("devices/platform/a.0/hwmon/hwmon0/temp1_input");
        let mut hwmon = Hwmon::new(&HwmonOptions::default());
        let whole = collect(&mut hwmon, sys.path());
        for bad in [&b""[..], b"N/A\n", b"\xff\xfe", b"1e999\n"] {
            fs::write(&input, bad).unwrap();
            let text = collect(&mut hwmon, sys.path());
            assert_eq!(text, "node_hwmon_in_volts{chip=\"platform_a_0\",sensor=\"in0\"} 0.005\n");
        }
        fs::write(&input, "1000\n").unwrap();
        assert_eq!(collect(&mut hwmon, sys.path()), whole);
    }

    #[test]
    fn the_devices_own_files_come_before_those_of_the_class_and_make_no_series_twice() {
        let sys = tempfile::tempdir().unwrap();
        chip(sys.path(), 0, "i2c/0-004c", &[("temp1_input", "1000\n"), ("temp01_max", "9000\n")]);
        let device = sys.path().join("devices/i2c/0-004c");
        fs::write(device.join("temp1_input"), "2000\n").unwrap();
        fs::write(device.join("temp1_max"), "8000\n").unwrap();
        fs::create_dir(device.join("power")).unwrap();
        let text = collect(&mut Hwmon::new(&HwmonOptions::default()), sys.path());
        assert_eq!(
            text,
            "node_hwmon_temp_celsius{chip=\"i2c_0_004c\",sensor=\"temp1\"} 2\n\
             node_hwmon_temp_max_celsius{chip=\"i2c_0_004c\",sensor=\"temp1\"} 8\n"
        );
    }

    #[test]
    fn two_chips_of_one_device_make_no_series_twice() {
        let sys = tempfile::tempdir().unwrap();
        chip(sys.path(), 0, "platform/a.0", &[("temp1_input", "1000\n")]);
        chip(
            sys.path(),
            1,
            "platform/a.0",
            &[("temp1_input", "2000\n"), ("temp2_input", "3000\n")],
        );
        let text = collect(&mut Hwmon::new(&HwmonOptions::default()), sys.path());
        assert_eq!(
            text,
            "node_hwmon_temp_celsius{chip=\"platform_a_0\",sensor=\"temp1\"} 1\n\
             node_hwmon_temp_celsius{chip=\"platform_a_0\",sensor=\"temp2\"} 3\n"
        );
    }

    #[test]
    fn a_frequency_has_the_name_of_its_label() {
        let sys = tempfile::tempdir().unwrap();
        let files = [
            ("name", "amdgpu\n"),
            ("freq1_input", "2124000000\n"),
            ("freq1_label", "sclk\n"),
            ("freq2_input", "5\n"),
        ];
        chip(sys.path(), 0, "pci/0000:0c:00.0", &files);
        let text = collect(&mut Hwmon::new(&HwmonOptions::default()), sys.path());
        let series = "node_hwmon_freq_freq_mhz{chip=\"pci_0000:0c:00_0\",sensor=\"sclk\"} 2124\n";
        assert!(text.contains(series) && !text.contains("freq2"), "{text}");
    }

    #[test]
    fn chips_are_left_out_by_name() {
        let sys = tempfile::tempdir().unwrap();
        chip(sys.path(), 0, "platform/a.0", &[("temp1_input", "1000\n")]);
        chip(sys.path(), 1, "platform/b.0", &[("temp1_input", "2000\n")]);
        let only = |exclude: Option<&str>, include: Option<&str>| {
            let compile = |text: Option<&str>| text.map(|text| pattern(text).unwrap());
            let options =
                HwmonOptions { chip_exclude: compile(exclude), chip_include: compile(include) };
            collect(&mut Hwmon::new(&options), sys.path())
        };
        let series = "node_hwmon_temp_celsius{chip=\"platform_b_0\",sensor=\"temp1\"} 2\n";
        assert_eq!(only(Some("^platform_a"), None), series);
        assert_eq!(only(None, Some("b_0$")), series);
    }
}
