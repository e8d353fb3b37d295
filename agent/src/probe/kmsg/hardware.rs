//! Messages about heat (drivers/thermal/thermal_core.c, arch/x86 and drivers/thermal/intel
//! therm_throt.c) and about the supply of a Raspberry Pi (drivers/hwmon/raspberrypi-hwmon.c;
//! drivers/firmware/raspberrypi.c in the Pi's own kernels up to 4.19).
//!
//! ```text
//! thermal thermal_zone0: critical temperature reached (95 C), shutting down
//! thermal thermal_zone0: cpu-thermal: critical temperature reached, shutting down
//! mce: CPU0: Package temperature above threshold, cpu clock throttled (total events = 1)
//! Under-voltage detected! (0x00050005)
//! hwmon hwmon1: Undervoltage detected!
//! hwmon hwmon1: Voltage normalised
//! ```

use agent_common::thermal::trip_type;

use super::notice::{Notice, ThermalTrip, Undervoltage};
use super::scan::{Scan, number_after};

/// The number of the type of a trip point that turns the machine off (include/uapi/linux/thermal.h).
const CRITICAL: u32 = 3;

/// An x86 CPU that has slowed itself down, which no trip point of a zone tells.
pub(super) const THROTTLE: &str = "throttle";

pub(super) fn thermal(text: &str) -> Option<Notice> {
    let mut scan = Scan(text);
    let (zone, trip) = if scan.tag("thermal ").is_some() {
        scan.tag("thermal_zone")?;
        let zone = scan.number()?;
        scan.tag(": ")?;
        scan.0.contains("ritical temperature reached").then_some(())?;
        (zone.to_string(), trip_type(CRITICAL))
    } else {
        let _ = scan.tag("mce: ");
        scan.tag("CPU")?;
        scan.number()?;
        scan.tag(": ")?;
        let place = scan.until("emperature ")?;
        // "is" came with 5.6.
        let _ = scan.tag("is ");
        scan.tag("above threshold, cpu clock ")?;
        match place {
            "Package t" => ("package".to_owned(), THROTTLE),
            // Without SMT the kernel once said "Temperature" alone.
            "Core t" | "T" => ("core".to_owned(), THROTTLE),
            _ => return None,
        }
    };
    let celsius = number_after(scan.0, "reached(").or_else(|| number_after(scan.0, "reached ("));
    let message = text.to_owned();
    Some(Notice::ThermalTrip(ThermalTrip { zone, trip, celsius, message }))
}

pub(super) fn undervoltage(text: &str) -> Option<Notice> {
    let mut scan = Scan(text);
    if scan.tag("hwmon ").is_some() || scan.tag("raspberrypi-firmware ").is_some() {
        scan.until(": ")?;
    }
    let over = scan.0.starts_with("Voltage normalised");
    let under = scan.0.starts_with("Under-voltage detected!")
        || scan.0.starts_with("Undervoltage detected!");
    (over || under).then(|| Notice::Undervoltage(Undervoltage { over, message: text.to_owned() }))
}
