//! What node_exporter has not: the board that this is, by its device tree, and on a Raspberry Pi what its
//! firmware says of undervoltage, throttling, clocks, voltages and temperature.
//!
//! The board is read once, from /sys/firmware/devicetree/base, of which /proc/device-tree is a link; a host
//! without one, such as a PC, has no data. The label `serial` is there where any user may read it.
//!
//! Throttling comes from the first of these that this host has:
//! 1. the firmware itself, through /dev/vcio: all bits, and everything else. One message a round, see
//!    [`mailbox`](crate::host::mailbox) for how long it may take. It takes the right to read the device,
//!    which is root's, the group `video`'s and CAP_DAC_READ_SEARCH's.
//! 2. `in0_lcrit_alarm` of the sensor `rpi_volt` (drivers/hwmon/raspberrypi-hwmon.c, Linux 4.19): whether
//!    there was undervoltage in the last two seconds; nothing else.
//! 3. /sys/devices/platform/soc/soc:firmware/get_throttled of the vendor's kernels: all bits as the kernel saw
//!    them last. It comes last because from 4.19 on, where there is the sensor too, the first read of it
//!    makes the kernel log a warning with a stack trace and taints it.
//!
//! The firmware keeps a history of each condition, and any caller may clear it; the kernel's own driver does so
//! every two seconds. So `since="boot"` says whether the firmware's history or this agent has seen the
//! condition; the agent has not before it started.
//!
//! There was no Raspberry Pi where this was written: the protocol is tested, the firmware is not.

mod firmware;

use std::io;

use super::parse::{FirstError, malformed, named, number, text};
use super::{CollectError, Collector};
use crate::host::mailbox::{Mailbox, Message};
use crate::host::{Host, Names, Root};
use crate::model::{Desc, Samples};
use firmware::{CLOCKS, RAILS, Readings, Repertoire};

const TREE: &str = "firmware/devicetree/base";
const GET_THROTTLED: &str = "devices/platform/soc/soc:firmware/get_throttled";
const HWMON: &str = "class/hwmon";

const INFO: Desc = Desc::gauge(
    "node_board_info",
    "The board by its device tree: model, revision code, serial number and what it is compatible with.",
);
const THROTTLED: Desc = Desc::gauge(
    "node_rpi_throttled",
    "Whether the firmware of a Raspberry Pi reports this condition, now or at some time since boot.",
);
const TEMPERATURE: Desc = Desc::gauge(
    "node_rpi_temperature_celsius",
    "Temperature of a Raspberry Pi's processor as the firmware measures it.",
);
const TEMPERATURE_LIMIT: Desc = Desc::gauge(
    "node_rpi_temperature_limit_celsius",
    "Temperature from which on the firmware of a Raspberry Pi slows it down.",
);
const VOLTAGE: Desc =
    Desc::gauge("node_rpi_voltage_volts", "Voltage that the firmware of a Raspberry Pi has set.");
const CLOCK: Desc = Desc::gauge(
    "node_rpi_clock_hertz",
    "Frequency of a Raspberry Pi's clock as the firmware measures it, 0 while it is off.",
);

/// Of bits 0 to 3, and of 16 to 19 the history.
const CONDITIONS: [&str; 4] =
    ["under_voltage", "frequency_capped", "throttled", "soft_temperature_limit"];

/// More than any board's texts have.
const TEXT_MAX: usize = 256;

/// The texts of the board, as labels.
struct Info {
    labels: Vec<(&'static str, String)>,
    is_rpi: bool,
}

impl Info {
    fn write(&self, out: &mut Samples) {
        let mut labels: heapless::Vec<(&str, &str), 4> = heapless::Vec::new();
        labels.extend(self.labels.iter().map(|(name, value)| (*name, value.as_str())));
        out.family(&INFO).add(&labels, 1.0);
    }
}

/// The board and its firmware.
pub(super) struct Board {
    info: Option<Info>,
    mailbox: Option<Mailbox>,
    message: Message,
    repertoire: Repertoire,
    /// Conditions that were seen, by their bits.
    history: u32,
    /// Clocks that have run, by their numbers: the others may not exist.
    clocks: u32,
    names: Names,
    /// The directory of the sensor `rpi_volt`, and whether it was looked for.
    sensor: Option<String>,
    looked_for_sensor: bool,
}

impl Board {
    pub(super) fn new() -> Board {
        Board {
            info: None,
            mailbox: None,
            message: Message::new(),
            repertoire: Repertoire::new(),
            history: 0,
            clocks: 0,
            names: Names::new(),
            sensor: None,
            looked_for_sensor: false,
        }
    }
}

impl Collector for Board {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let info = match &mut self.info {
            Some(info) => info,
            none => none.insert(read_info(host)?),
        };
        let is_rpi = info.is_rpi;
        info.write(out);
        if !is_rpi {
            return Ok(());
        }
        let mut errors = FirstError::default();
        let readings = self.ask(host, &mut errors).unwrap_or_default();
        match readings.throttled {
            Some(bits) => self.write_throttled(bits, out),
            None => self.write_throttled_of_files(host, out, &mut errors),
        }
        self.write(&readings, out);
        errors.result()
    }
}

impl Board {
    /// Asks the firmware, if there is a device; quiet if there is none.
    fn ask(&mut self, host: &mut Host, errors: &mut FirstError) -> Option<Readings> {
        let groups = self.repertoire.next();
        if groups.is_empty() {
            return None;
        }
        let mailbox = match self.mailbox.take() {
            Some(mailbox) => mailbox,
            None => Mailbox::open(host).ok()?,
        };
        firmware::ask(groups, &mut self.message);
        let called = mailbox.call(&mut self.message);
        self.mailbox = Some(mailbox);
        match called {
            Ok(()) => match Readings::decode(groups, &self.message) {
                Ok(readings) => {
                    self.repertoire.answered(groups, &readings);
                    Some(readings)
                }
                Err(error) => {
                    errors.note(CollectError::parse(
                        "dev/vcio",
                        error.0,
                        "an answer to the request",
                    ));
                    None
                }
            },
            Err(source) => {
                let timed_out = source.kind() == io::ErrorKind::TimedOut;
                if self.repertoire.refused(groups, timed_out) {
                    let attempt = "asking the firmware through dev/vcio, which is not tried again";
                    errors.note(CollectError::System { attempt: attempt.to_owned(), source });
                }
                None
            }
        }
    }

    fn write_throttled(&mut self, bits: u32, out: &mut Samples) {
        self.history |= (bits | bits >> 16) & 0xf;
        let mut family = out.family(&THROTTLED);
        for (bit, condition) in CONDITIONS.iter().enumerate() {
            for (since, bits) in [("now", bits), ("boot", self.history)] {
                let value = f64::from(bits >> bit & 1);
                family.add(&[("condition", condition), ("since", since)], value);
            }
        }
    }

    /// Throttling as files of the kernel's tell it.
    fn write_throttled_of_files(
        &mut self,
        host: &mut Host,
        out: &mut Samples,
        errors: &mut FirstError,
    ) {
        if !self.looked_for_sensor {
            self.sensor = find_sensor(host, &mut self.names);
            self.looked_for_sensor = true;
        }
        if let Some(sensor) = &self.sensor {
            let path = format_args!("{HWMON}/{sensor}/in0_lcrit_alarm");
            match number(host, Root::Sys, path, errors) {
                Some(alarm) => {
                    let labels = [("condition", "under_voltage"), ("since", "now")];
                    out.family(&THROTTLED).add(&labels, f64::from(u8::from(alarm != 0)));
                }
                // Its module may have been loaded anew, under another number.
                None => self.looked_for_sensor = false,
            }
            return;
        }
        let Some(bytes) = host.find(Root::Sys, GET_THROTTLED) else {
            // The sensor's module may come later.
            self.looked_for_sensor = false;
            return;
        };
        match hexadecimal(bytes.trim_ascii()) {
            Some(bits) => self.write_throttled(bits, out),
            None => {
                let path = named(Root::Sys, format_args!("{GET_THROTTLED}"));
                errors.note(malformed(&path, bytes, "a hexadecimal number"));
            }
        }
    }

    fn write(&mut self, readings: &Readings, out: &mut Samples) {
        let thousandths = |value: u32| f64::from(value) / 1000.0;
        if let Some(value) = readings.temperature {
            out.value(&TEMPERATURE, thousandths(value));
        }
        if let Some(value) = readings.temperature_limit {
            out.value(&TEMPERATURE_LIMIT, thousandths(value));
        }
        let mut family = out.family(&VOLTAGE);
        for (rail, value) in RAILS.iter().zip(readings.rails) {
            if let Some(value) = value {
                family.add(&[("rail", rail)], f64::from(value) / 1e6);
            }
        }
        let mut family = out.family(&CLOCK);
        for (index, (clock, value)) in CLOCKS.iter().zip(readings.clocks).enumerate() {
            let Some(value) = value else { continue };
            self.clocks |= u32::from(value != 0) << index;
            if self.clocks >> index & 1 == 1 {
                family.add(&[("clock", clock)], f64::from(value));
            }
        }
    }
}

/// Reads the device tree's root.
fn read_info(host: &mut Host) -> Result<Info, CollectError> {
    let model = property(host.sys(format_args!("{TREE}/model"))?);
    let mut labels = vec![("model", model)];
    let compatible = host.find(Root::Sys, format_args!("{TREE}/compatible")).map(property);
    let is_rpi = compatible.as_ref().is_some_and(|names| names.contains("raspberrypi,"));
    labels.extend(compatible.map(|names| ("compatible", names)));
    if let Some(bytes) = host.find(Root::Sys, format_args!("{TREE}/system/linux,revision")) {
        // As /proc/cpuinfo shows it. Cells of a device tree are big-endian.
        let revision = bytes.try_into().map(u32::from_be_bytes);
        labels.extend(revision.map(|revision| ("revision", format!("{revision:04x}"))));
    }
    let serial = host.find(Root::Sys, format_args!("{TREE}/serial-number")).map(property);
    labels.extend(serial.map(|serial| ("serial", serial)));
    labels.retain(|(_, value)| !value.is_empty());
    Ok(Info { labels, is_rpi })
}

/// A property's strings, each of which ends with a NUL byte, with spaces between them.
fn property(bytes: &[u8]) -> String {
    let strings = bytes.split(|&byte| byte == 0).filter(|string| !string.is_empty());
    let mut joined = String::new();
    for string in strings {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(&text(string));
    }
    let end = joined.floor_char_boundary(TEXT_MAX);
    joined.truncate(end);
    joined
}

/// The chip whose name is `rpi_volt`.
fn find_sensor(host: &mut Host, names: &mut Names) -> Option<String> {
    host.list(Root::Sys, HWMON, names).ok()?;
    let is_it = |name: &&str| {
        host.find(Root::Sys, format_args!("{HWMON}/{name}/name"))
            .is_some_and(|bytes| bytes.trim_ascii() == b"rpi_volt")
    };
    names.iter().find(is_it).map(str::to_owned)
}

/// A number of hexadecimal digits only.
fn hexadecimal(token: &[u8]) -> Option<u32> {
    if !token.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(token).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::testing;

    const INFO_LINE: &str = "node_board_info{compatible=\"raspberrypi,4-model-b brcm,bcm2711\",\
                             model=\"Raspberry Pi 4 Model B\"} 1\n";

    fn pi(files: &[(&str, &str)]) -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        let tree = [
            ("firmware/devicetree/base/model", "Raspberry Pi 4 Model B\0"),
            ("firmware/devicetree/base/compatible", "raspberrypi,4-model-b\0brcm,bcm2711\0"),
        ];
        testing::write(sys.path(), &tree);
        testing::write(sys.path(), files);
        sys
    }

    fn lines(now: [u8; 4], boot: [u8; 4]) -> String {
        let line = |(condition, (now, boot)): (&&str, (u8, u8))| {
            format!(
                "node_rpi_throttled{{condition=\"{condition}\",since=\"now\"}} {now}\n\
                 node_rpi_throttled{{condition=\"{condition}\",since=\"boot\"}} {boot}\n"
            )
        };
        CONDITIONS.iter().zip(now.into_iter().zip(boot)).map(line).collect()
    }

    #[test]
    fn a_host_without_a_device_tree_has_no_data() {
        let sys = tempfile::tempdir().unwrap();
        let (text, result) = testing::collect(&mut Board::new(), sys.path());
        assert!(text.is_empty() && matches!(result, Err(CollectError::NoData(_))));
    }

    #[test]
    fn a_board_that_is_no_raspberry_pi_is_named_and_not_asked() {
        let sys = tempfile::tempdir().unwrap();
        let files = [
            ("firmware/devicetree/base/model", "Hardkernel ODROID-HC4\0"),
            ("firmware/devicetree/base/compatible", "hardkernel,odroid-hc4\0amlogic,sm1\0\0"),
            ("firmware/devicetree/base/serial-number", "\0"),
            (GET_THROTTLED, "5\n"),
        ];
        testing::write(sys.path(), &files);
        let (text, result) = testing::collect(&mut Board::new(), sys.path());
        result.unwrap();
        assert_eq!(
            text,
            "node_board_info{compatible=\"hardkernel,odroid-hc4 amlogic,sm1\",\
             model=\"Hardkernel ODROID-HC4\"} 1\n"
        );
    }

    #[test]
    fn a_condition_that_was_seen_stays_in_the_history() {
        let sys = pi(&[(GET_THROTTLED, "20005\n")]);
        let mut board = Board::new();
        let mut collect = |text: &str| {
            testing::write(sys.path(), &[(GET_THROTTLED, text)]);
            testing::collect(&mut board, sys.path()).0
        };
        let with = |lines: String| format!("{INFO_LINE}{lines}");
        assert_eq!(collect("0\n"), with(lines([0; 4], [0; 4])));
        assert_eq!(collect("20005\n"), with(lines([1, 0, 1, 0], [1, 1, 1, 0])));
        // The kernel's driver has cleared the firmware's history.
        assert_eq!(collect("8"), with(lines([0, 0, 0, 1], [1, 1, 1, 1])));
    }

    #[test]
    fn a_malformed_file_is_named_and_the_board_is_told() {
        for bad in ["", "x\n", "0x5\n", "-1\n", "+5\n", "100000000\n", "\u{661}\n"] {
            let sys = pi(&[(GET_THROTTLED, bad)]);
            let (text, result) = testing::collect(&mut Board::new(), sys.path());
            assert_eq!(text, INFO_LINE, "{bad:?}");
            let error = result.unwrap_err().to_string();
            assert!(error.contains("soc:firmware/get_throttled"), "{error}");
        }
    }

    #[test]
    fn the_file_that_makes_the_kernel_warn_is_not_read_where_there_is_the_sensor() {
        let sys = pi(&[
            (GET_THROTTLED, "f\n"),
            ("class/hwmon/hwmon0/name", "cpu_thermal\n"),
            ("class/hwmon/hwmon1/name", "rpi_volt\n"),
            ("class/hwmon/hwmon1/in0_lcrit_alarm", "1\n"),
        ]);
        let mut board = Board::new();
        let alarm = "node_rpi_throttled{condition=\"under_voltage\",since=\"now\"} 1\n";
        assert_eq!(testing::collect(&mut board, sys.path()).0, format!("{INFO_LINE}{alarm}"));
        // Its module was loaded anew.
        std::fs::rename(
            sys.path().join("class/hwmon/hwmon1"),
            sys.path().join("class/hwmon/hwmon2"),
        )
        .unwrap();
        assert_eq!(testing::collect(&mut board, sys.path()).0, INFO_LINE);
        assert_eq!(testing::collect(&mut board, sys.path()).0, format!("{INFO_LINE}{alarm}"));
    }

    #[test]
    fn properties_of_any_bytes_are_text() {
        assert_eq!(property(b"\0\0a\0\xff\0"), "a \u{fffd}");
        assert_eq!(property(b""), "");
        assert!(property("ä".repeat(1_000).as_bytes()).len() <= TEXT_MAX);
        let sys = pi(&[("firmware/devicetree/base/system/linux,revision", "abc")]);
        let (text, result) = testing::collect(&mut Board::new(), sys.path());
        result.unwrap();
        assert_eq!(text, INFO_LINE);
    }

    #[test]
    fn what_the_firmware_says_is_in_base_units_and_a_clock_that_never_ran_is_left_out() {
        let mut board = Board::new();
        let mut readings = Readings {
            temperature: Some(48_312),
            temperature_limit: Some(85_000),
            rails: [Some(868_750), None, None, None],
            ..Readings::default()
        };
        readings.clocks[2] = Some(1_500_345_728);
        readings.clocks[3] = Some(0);
        let shown = |board: &mut Board, readings: &Readings| {
            let mut out = Samples::with_limit(100);
            board.write(readings, &mut out);
            let show = |s: crate::model::Sample<'_>| {
                let label = s.labels().next().map_or("", |(_, value)| value);
                format!("{}{{{label}}} {}\n", s.name(), s.value)
            };
            out.iter().map(show).collect::<String>()
        };
        assert_eq!(
            shown(&mut board, &readings),
            "node_rpi_temperature_celsius{} 48.312\nnode_rpi_temperature_limit_celsius{} 85\n\
             node_rpi_voltage_volts{core} 0.86875\nnode_rpi_clock_hertz{arm} 1500345728\n"
        );
        let mut off = Readings::default();
        off.clocks[2] = Some(0);
        assert_eq!(shown(&mut board, &off), "node_rpi_clock_hertz{arm} 0\n");
    }
}
