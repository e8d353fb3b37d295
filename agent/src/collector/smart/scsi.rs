//! SCSI's own health: the log pages Informational Exceptions (2Fh) and Temperature (0Dh), read with LOG
//! SENSE (SPC-4). Also sense data, by which a device says why it did not do something. It must not know how
//! commands are sent.

/// The Informational Exceptions page.
pub(super) const EXCEPTIONS: u8 = 0x2f;
/// The Temperature page.
pub(super) const TEMPERATURE: u8 = 0x0d;
/// How much is read of each: both are shorter.
pub(super) const LENGTH: usize = 252;

/// A temperature that the device does not know.
const UNKNOWN: u8 = 0xff;

/// What the two pages say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Health {
    /// Whether no failure is predicted.
    pub healthy: Option<bool>,
    /// In °C.
    pub temperature: Option<f64>,
}

/// LOG SENSE of the cumulative values of a page.
pub(super) fn log_sense(page: u8) -> [u8; 10] {
    const CUMULATIVE: u8 = 0b01 << 6;
    [0x4d, 0, CUMULATIVE | (page & 0x3f), 0, 0, 0, 0, 0, LENGTH as u8, 0]
}

/// What the Informational Exceptions page says of failures to come; none if it does not.
pub fn exceptions(page: &[u8]) -> Health {
    let Some(value) = parameter(page, EXCEPTIONS, 0) else { return Health::default() };
    // 5Dh is "failure prediction threshold exceeded", of which FFh is a rehearsal; 0Bh warns of
    // temperatures and the like, which is no failure.
    let failing = value.first() == Some(&0x5d) && value.get(1) != Some(&0xff);
    let temperature = value.get(2).filter(|degrees| !matches!(**degrees, 0 | UNKNOWN));
    Health {
        healthy: (value.len() >= 2).then_some(!failing),
        temperature: temperature.map(|degrees| f64::from(*degrees)),
    }
}

/// The temperature of the Temperature page, in °C.
pub fn temperature(page: &[u8]) -> Option<f64> {
    let degrees = *parameter(page, TEMPERATURE, 0)?.get(1)?;
    (degrees != UNKNOWN).then(|| f64::from(degrees))
}

/// The value of a parameter in a log page.
fn parameter(page: &[u8], number: u8, code: u16) -> Option<&[u8]> {
    let (header, rest) = page.split_first_chunk::<4>()?;
    let [kind, subpage, high, low] = *header;
    // Bit 6 says that there is a subpage code.
    if kind & 0x3f != number || kind & 0x40 != 0 && subpage != 0 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    let mut rest = rest.get(..length).unwrap_or(rest);
    while let Some((header, values)) = rest.split_first_chunk::<4>() {
        let [high, low, _, length] = *header;
        let (value, next) = values.split_at_checked(usize::from(length))?;
        if u16::from_be_bytes([high, low]) == code {
            return Some(value);
        }
        rest = next;
    }
    None
}

/// Why a command was not done: sense key, additional sense code and its qualifier, in either format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// The sense key.
    pub key: u8,
    /// The additional sense code and its qualifier.
    pub code: [u8; 2],
}

impl Sense {
    /// Whether the device does not know the command or a part of it, or refuses it.
    pub fn is_unsupported(self) -> bool {
        // ILLEGAL REQUEST; and what a translator makes of an ATA command that the disk has aborted.
        self.key == 0x05 || self.key == 0x0b
    }
}

/// Decodes sense data; none if it is none.
pub fn sense(bytes: &[u8]) -> Option<Sense> {
    let byte = |at: usize| bytes.get(at).copied();
    match byte(0)? & 0x7f {
        0x70 | 0x71 => Some(Sense {
            key: byte(2)? & 0x0f,
            code: [byte(12).unwrap_or(0), byte(13).unwrap_or(0)],
        }),
        0x72 | 0x73 => {
            Some(Sense { key: byte(1)? & 0x0f, code: [byte(2).unwrap_or(0), byte(3).unwrap_or(0)] })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(healthy: bool, temperature: Option<f64>) -> Health {
        Health { healthy: Some(healthy), temperature }
    }

    #[test]
    fn log_sense_has_its_bytes() {
        assert_eq!(log_sense(EXCEPTIONS), [0x4d, 0, 0x6f, 0, 0, 0, 0, 0, 252, 0]);
        assert_eq!(log_sense(TEMPERATURE), [0x4d, 0, 0x4d, 0, 0, 0, 0, 0, 252, 0]);
    }

    #[test]
    fn the_exceptions_page_says_whether_a_failure_is_predicted() {
        let page = |asc, ascq, degrees| [0x2f, 0, 0, 8, 0, 0, 3, 4, asc, ascq, degrees, 0];
        assert_eq!(exceptions(&page(0, 0, 38)), health(true, Some(38.0)));
        assert_eq!(exceptions(&page(0x5d, 0x10, 38)), health(false, Some(38.0)));
        assert_eq!(exceptions(&page(0x5d, 0xff, 0)), health(true, None));
        assert_eq!(exceptions(&page(0x0b, 0x01, 0xff)), health(true, None));
    }

    #[test]
    fn the_temperature_page_may_have_a_reference_first() {
        let page = [0x0d, 0, 0, 12, 0, 1, 3, 2, 0, 60, 0, 0, 3, 2, 0, 31];
        assert_eq!(temperature(&page), Some(31.0));
        assert_eq!(temperature(&[0x0d, 0, 0, 6, 0, 0, 3, 2, 0, 0xff]), None);
    }

    #[test]
    fn foreign_and_cut_pages_say_nothing() {
        let page = [0x2f, 0, 0, 8, 0, 0, 3, 4, 0x5d, 0x10, 38, 0];
        for length in 0..page.len() {
            assert_eq!(exceptions(&page[..length]), Health::default(), "{length}");
        }
        assert_eq!(temperature(&page), None);
        assert_eq!(exceptions(&[0x6f, 1, 0, 8, 0, 0, 3, 4, 0x5d, 0x10, 38, 0]), Health::default());
        // A parameter of a single byte, and one that ends behind its page.
        assert_eq!(exceptions(&[0x2f, 0, 0, 5, 0, 0, 3, 1, 0x5d]), Health::default());
        assert_eq!(exceptions(&[0x2f, 0, 0, 6, 0, 0, 3, 4, 0x5d, 0x10, 38, 0]), Health::default());
    }

    #[test]
    fn sense_data_of_both_formats() {
        let fixed = [0x70, 0, 0x25, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0x00];
        assert_eq!(sense(&fixed), Some(Sense { key: 5, code: [0x20, 0] }));
        assert_eq!(sense(&[0x72, 1, 0, 0x1d]), Some(Sense { key: 1, code: [0, 0x1d] }));
        assert!(sense(&fixed).unwrap().is_unsupported());
        for none in [&[][..], &[0x70, 0], &[0x00; 18], &[0x7f; 18]] {
            assert_eq!(sense(none), None);
        }
    }
}
