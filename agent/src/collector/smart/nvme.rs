//! NVMe's SMART / Health Information log page (02h; NVM Express Base Specification, "Get Log Page"): 512
//! bytes, little-endian. It must not know how the page is read.

/// The page's number.
pub(super) const PAGE: u8 = 0x02;
/// Its length.
pub(super) const LENGTH: usize = 512;

/// Data units are of 1,000 times 512 bytes.
const DATA_UNIT: f64 = 512_000.0;

/// The bits of the first byte, from bit 0 on.
pub const WARNINGS: [&str; 6] = [
    "available_spare",
    "temperature",
    "reliability",
    "read_only",
    "volatile_memory_backup",
    "persistent_memory",
];

/// The page. Counters of 128 bits lose their last digits beyond 2^53.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Log {
    /// Bits as in [`WARNINGS`].
    pub critical_warning: u8,
    /// In °C; none if the controller doesn't say.
    pub temperature: Option<f64>,
    /// In percent.
    pub available_spare: u8,
    /// In percent.
    pub available_spare_threshold: u8,
    /// In percent of the expected life, up to 255.
    pub percentage_used: u8,
    /// Bytes.
    pub read_bytes: f64,
    /// Bytes.
    pub written_bytes: f64,
    /// Commands.
    pub read_commands: f64,
    /// Commands.
    pub write_commands: f64,
    /// In seconds; the controller counts minutes.
    pub busy_seconds: f64,
    /// How often it was switched on.
    pub power_cycles: f64,
    /// In seconds; the controller counts hours.
    pub power_on_seconds: f64,
    /// Losses of power that were not announced.
    pub unsafe_shutdowns: f64,
    /// Data that could not be read or written.
    pub media_errors: f64,
    /// Entries of the error log over its life.
    pub error_log_entries: f64,
    /// Above the warning temperature, in seconds; the controller counts minutes.
    pub warning_temperature_seconds: f64,
    /// Above the critical temperature, in seconds; the controller counts minutes.
    pub critical_temperature_seconds: f64,
}

/// Decodes the page; none if it is too short.
pub fn decode(page: &[u8]) -> Option<Log> {
    let page: &[u8; LENGTH] = page.get(..LENGTH)?.try_into().ok()?;
    let byte = |at: usize| page.get(at).copied();
    let kelvin = u16::from_le_bytes([byte(1)?, byte(2)?]);
    let large = |at: usize| -> Option<f64> {
        let bytes: [u8; 16] = page.get(at..at + 16)?.try_into().ok()?;
        Some(u128::from_le_bytes(bytes) as f64)
    };
    let small = |at: usize| -> Option<f64> {
        let bytes: [u8; 4] = page.get(at..at + 4)?.try_into().ok()?;
        Some(f64::from(u32::from_le_bytes(bytes)))
    };
    Some(Log {
        critical_warning: byte(0)?,
        // Whole kelvins, and whole degrees as all tools show them.
        temperature: (kelvin != 0).then(|| f64::from(kelvin) - 273.0),
        available_spare: byte(3)?,
        available_spare_threshold: byte(4)?,
        percentage_used: byte(5)?,
        read_bytes: large(32)? * DATA_UNIT,
        written_bytes: large(48)? * DATA_UNIT,
        read_commands: large(64)?,
        write_commands: large(80)?,
        busy_seconds: large(96)? * 60.0,
        power_cycles: large(112)?,
        power_on_seconds: large(128)? * 3600.0,
        unsafe_shutdowns: large(144)?,
        media_errors: large(160)?,
        error_log_entries: large(176)?,
        warning_temperature_seconds: small(192)? * 60.0,
        critical_temperature_seconds: small(196)? * 60.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each field another value, and 0xee in what is reserved or not read.
    fn page() -> [u8; LENGTH] {
        let mut page = [0xee; LENGTH];
        page[..6].copy_from_slice(&[0b0000_0101, 0x3d, 0x01, 99, 10, 3]);
        for (index, at) in (32..192).step_by(16).enumerate() {
            page[at..at + 16].fill(0);
            page[at] = index as u8 + 1;
        }
        page[32 + 1] = 1; // 257 units read
        page[192..200].copy_from_slice(&[7, 0, 0, 0, 0, 1, 0, 0]);
        page
    }

    #[test]
    fn every_field_lies_where_the_specification_puts_it() {
        let log = decode(&page()).unwrap();
        let expected = Log {
            critical_warning: 5,
            temperature: Some(44.0),
            available_spare: 99,
            available_spare_threshold: 10,
            percentage_used: 3,
            read_bytes: 257.0 * 512_000.0,
            written_bytes: 2.0 * 512_000.0,
            read_commands: 3.0,
            write_commands: 4.0,
            busy_seconds: 5.0 * 60.0,
            power_cycles: 6.0,
            power_on_seconds: 7.0 * 3600.0,
            unsafe_shutdowns: 8.0,
            media_errors: 9.0,
            error_log_entries: 10.0,
            warning_temperature_seconds: 7.0 * 60.0,
            critical_temperature_seconds: 256.0 * 60.0,
        };
        assert_eq!(log, expected);
    }

    #[test]
    fn a_short_page_is_none_and_a_long_one_is_cut() {
        let page = page();
        for length in 0..LENGTH {
            assert_eq!(decode(&page[..length]), None, "{length}");
        }
        let mut long = page.to_vec();
        long.push(1);
        assert_eq!(decode(&long), decode(&page));
    }

    #[test]
    fn extremes_are_numbers_and_no_temperature_is_none() {
        let log = decode(&[0xff; LENGTH]).unwrap();
        assert_eq!(log.power_cycles, u128::MAX as f64);
        assert_eq!(log.temperature, Some(65_535.0 - 273.0));
        assert!(log.read_bytes.is_finite());
        assert_eq!(decode(&[0; LENGTH]).unwrap().temperature, None);
    }
}
