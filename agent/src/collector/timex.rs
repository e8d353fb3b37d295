//! node_exporter's `timex`: how well the clock is kept, from adjtimex(2) (kernel/time/ntp.c).

use std::ffi::c_int;
use std::io;

use super::{CollectError, Collector};
use crate::host::{Host, ReadError, Timex};
use crate::model::{Desc, Samples};

/// The state of a clock that nothing keeps right (TIME_ERROR).
const UNSYNCHRONISED: c_int = 5;
/// Parts per million with 16 bits behind the point.
const PPM: f64 = 1e6 * 65_536.0;
const MICROSECONDS: f64 = 1e6;
const NANOSECONDS: f64 = 1e9;

const SYNC_STATUS: Desc = Desc::gauge(
    "node_timex_sync_status",
    "Is clock synchronized to a reliable server (1 = yes, 0 = no).",
);
const OFFSET: Desc = Desc::gauge(
    "node_timex_offset_seconds",
    "Time offset in between local system and reference clock.",
);
const FREQUENCY: Desc =
    Desc::gauge("node_timex_frequency_adjustment_ratio", "Local clock frequency adjustment.");
const MAXERROR: Desc = Desc::gauge("node_timex_maxerror_seconds", "Maximum error in seconds.");
const ESTIMATED_ERROR: Desc =
    Desc::gauge("node_timex_estimated_error_seconds", "Estimated error in seconds.");
const STATUS: Desc = Desc::gauge("node_timex_status", "Value of the status array bits.");
const CONSTANT: Desc =
    Desc::gauge("node_timex_loop_time_constant", "Phase-locked loop time constant.");
const TICK: Desc = Desc::gauge("node_timex_tick_seconds", "Seconds between clock ticks.");
const PPS_FREQUENCY: Desc =
    Desc::gauge("node_timex_pps_frequency_hertz", "Pulse per second frequency.");
const PPS_JITTER: Desc = Desc::gauge("node_timex_pps_jitter_seconds", "Pulse per second jitter.");
const PPS_SHIFT: Desc =
    Desc::gauge("node_timex_pps_shift_seconds", "Pulse per second interval duration.");
const PPS_STABILITY: Desc = Desc::gauge(
    "node_timex_pps_stability_hertz",
    "Pulse per second stability, average of recent frequency changes.",
);
const PPS_JITTERS: Desc = Desc::counter(
    "node_timex_pps_jitter_total",
    "Pulse per second count of jitter limit exceeded events.",
);
const PPS_CALIBRATIONS: Desc = Desc::counter(
    "node_timex_pps_calibration_total",
    "Pulse per second count of calibration intervals.",
);
const PPS_ERRORS: Desc =
    Desc::counter("node_timex_pps_error_total", "Pulse per second count of calibration errors.");
const PPS_UNSTABLE: Desc = Desc::counter(
    "node_timex_pps_stability_exceeded_total",
    "Pulse per second count of stability limit exceeded events.",
);
const TAI: Desc =
    Desc::gauge("node_timex_tai_offset_seconds", "International Atomic Time (TAI) offset.");

/// The clock's offset, error and state.
pub(super) struct Adjtimex;

impl Collector for Adjtimex {
    fn collect(&mut self, _host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        match Timex::read() {
            Ok((state, timex)) => write(state, &timex, out),
            // A container's filter; as good as a host without it.
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                let path = std::path::Path::new("adjtimex").into();
                return Err(CollectError::NoData(ReadError { path, source }));
            }
            Err(source) => {
                return Err(CollectError::System { attempt: "adjtimex".to_owned(), source });
            }
        }
        Ok(())
    }
}

fn write(state: c_int, timex: &Timex, out: &mut Samples) {
    let unit = if timex.status & Timex::STA_NANO == 0 { MICROSECONDS } else { NANOSECONDS };
    let values = [
        (SYNC_STATUS, if state == UNSYNCHRONISED { 0.0 } else { 1.0 }),
        (OFFSET, timex.offset as f64 / unit),
        (FREQUENCY, 1.0 + timex.freq as f64 / PPM),
        (MAXERROR, timex.maxerror as f64 / MICROSECONDS),
        (ESTIMATED_ERROR, timex.esterror as f64 / MICROSECONDS),
        (STATUS, f64::from(timex.status)),
        (CONSTANT, timex.constant as f64),
        (TICK, timex.tick as f64 / MICROSECONDS),
        (PPS_FREQUENCY, timex.ppsfreq as f64 / PPM),
        (PPS_JITTER, timex.jitter as f64 / unit),
        (PPS_SHIFT, f64::from(timex.shift)),
        (PPS_STABILITY, timex.stabil as f64 / PPM),
        (PPS_JITTERS, timex.jitcnt as f64),
        (PPS_CALIBRATIONS, timex.calcnt as f64),
        (PPS_ERRORS, timex.errcnt as f64),
        (PPS_UNSTABLE, timex.stbcnt as f64),
        (TAI, f64::from(timex.tai)),
    ];
    for (desc, value) in values {
        out.value(&desc, value);
    }
}

#[cfg(test)]
#[allow(clippy::field_reassign_with_default, reason = "the struct has private fields")]
mod tests {
    use super::*;

    fn value(state: c_int, timex: &Timex, name: &str) -> f64 {
        let mut samples = Samples::with_limit(100);
        write(state, timex, &mut samples);
        samples.iter().find(|sample| sample.name() == name).unwrap().value
    }

    #[test]
    fn units_follow_the_status() {
        let mut timex = Timex::default();
        timex.offset = -1_500;
        timex.freq = 65_536;
        assert_eq!(value(0, &timex, "node_timex_offset_seconds"), -0.0015);
        timex.status = Timex::STA_NANO | 1;
        assert_eq!(value(0, &timex, "node_timex_offset_seconds"), -0.0000015);
        assert_eq!(value(0, &timex, "node_timex_frequency_adjustment_ratio"), 1.000001);
        assert_eq!(value(5, &timex, "node_timex_sync_status"), 0.0);
        assert_eq!(value(4, &timex, "node_timex_sync_status"), 1.0);
    }
}
