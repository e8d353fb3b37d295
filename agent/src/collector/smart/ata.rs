//! ATA's SMART: the commands inside ATA PASS-THROUGH (16) (SAT-4), their answers in sense data, and the pages
//! of IDENTIFY DEVICE, SMART READ DATA and SMART READ THRESHOLDS (ATA8-ACS; ACS-3 keeps the commands and
//! leaves the attributes to vendors). It must not know how commands are sent.

use std::fmt;

/// The length of every page here.
pub(super) const LENGTH: usize = 512;
/// How many attributes a page has room for.
pub const MAX_ATTRIBUTES: usize = 30;

/// Bytes of an attribute's entry in either page; they begin behind the revision.
const ENTRY: usize = 12;
const ENTRIES: usize = 2;

/// Text of IDENTIFY DEVICE.
pub type Text = heapless::String<40>;

/// A command in ATA PASS-THROUGH (16).
pub(super) type Command = [u8; 16];

const IDENTIFY_DEVICE: u8 = 0xec;
const CHECK_POWER_MODE: u8 = 0xe5;
const SMART: u8 = 0xb0;
const READ_DATA: u8 = 0xd0;
const READ_THRESHOLDS: u8 = 0xd1;
const RETURN_STATUS: u8 = 0xda;
/// What SMART commands have in LBA 15:8 and 23:16, and get back while the disk is well.
const GOOD: [u8; 2] = [0x4f, 0xc2];
/// What they get back when a threshold is exceeded.
const EXCEEDED: [u8; 2] = [0xf4, 0x2c];

/// A command that reads one page, by PIO.
const fn page_in(features: u8, lba: [u8; 2], command: u8) -> Command {
    // Protocol 4; from the device, in blocks, as many as the sector count says.
    [0x85, 4 << 1, 0x0e, 0, features, 0, 1, 0, 0, 0, lba[0], 0, lba[1], 0, command, 0]
}

/// A command without data whose registers are wanted (CK_COND).
const fn no_data(features: u8, lba: [u8; 2], command: u8) -> Command {
    [0x85, 3 << 1, 0x20, 0, features, 0, 0, 0, 0, 0, lba[0], 0, lba[1], 0, command, 0]
}

pub(super) const ASK_POWER: Command = no_data(0, [0, 0], CHECK_POWER_MODE);
pub(super) const ASK_IDENTITY: Command = page_in(0, [0, 0], IDENTIFY_DEVICE);
pub(super) const ASK_DATA: Command = page_in(READ_DATA, GOOD, SMART);
pub(super) const ASK_THRESHOLDS: Command = page_in(READ_THRESHOLDS, GOOD, SMART);
pub(super) const ASK_STATUS: Command = no_data(RETURN_STATUS, GOOD, SMART);

/// The registers that a command without data gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// STATUS, of which bit 0 is an error.
    pub status: u8,
    /// COUNT 7:0.
    pub count: u8,
    /// LBA 15:8 and 23:16.
    pub lba: [u8; 2],
}

/// Finds the registers in sense data: the ATA Status Return descriptor, or the fixed format's fields with
/// additional sense "ATA pass through information available". None where a bridge keeps them to itself.
pub fn registers(sense: &[u8]) -> Option<Registers> {
    let byte = |at: usize| sense.get(at).copied();
    match byte(0)? & 0x7f {
        0x72 | 0x73 => {
            let mut rest = sense.get(8..)?;
            loop {
                let (&[code, length], _) = rest.split_first_chunk::<2>()?;
                let (descriptor, next) = rest.split_at_checked(2 + usize::from(length))?;
                let byte = |at: usize| descriptor.get(at).copied();
                if code == 0x09 && length >= 12 {
                    let lba = [byte(9)?, byte(11)?];
                    return Some(Registers { status: byte(13)?, count: byte(5)?, lba });
                }
                rest = next;
            }
        }
        0x70 | 0x71 if (byte(12)?, byte(13)?) == (0x00, 0x1d) => {
            Some(Registers { status: byte(4)?, count: byte(6)?, lba: [byte(10)?, byte(11)?] })
        }
        _ => None,
    }
}

/// Whether the disk stands still, by the answer to CHECK POWER MODE.
pub fn is_standby(registers: Registers) -> bool {
    // STANDBY_Z and _Y; with a non-volatile cache, 40h is the same.
    registers.status & 1 == 0 && matches!(registers.count, 0x00 | 0x01 | 0x40)
}

/// Whether the disk finds itself well, by the answer to SMART RETURN STATUS; none if it does not say.
pub fn is_healthy(registers: Registers) -> Option<bool> {
    match registers.lba {
        _ if registers.status & 1 != 0 => None,
        GOOD => Some(true),
        EXCEEDED => Some(false),
        _ => None,
    }
}

/// What IDENTIFY DEVICE says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The model.
    pub model: Text,
    /// The serial number.
    pub serial: Text,
    /// The firmware's revision.
    pub firmware: Text,
    /// Whether it is of flash.
    pub solid_state: bool,
    /// Whether it has SMART and it is on.
    pub smart: bool,
}

/// Decodes IDENTIFY DEVICE; none if it is too short.
pub fn identity(page: &[u8]) -> Option<Identity> {
    let page = page.get(..LENGTH)?;
    let word = |at: usize| -> Option<u16> {
        Some(u16::from_le_bytes([*page.get(2 * at)?, *page.get(2 * at + 1)?]))
    };
    let text = |words: std::ops::Range<usize>| {
        let bytes = page.get(2 * words.start..2 * words.end).unwrap_or_default();
        // The first character of each word is in its upper byte.
        let characters = bytes.chunks_exact(2).flat_map(|pair| pair.iter().rev().copied());
        tidy(characters)
    };
    // Bit 15 clear and 14 set say that words 82 to 85 are valid; older disks have 0 or FFFFh there.
    let valid = word(83)? & 0xc000 == 0x4000;
    Some(Identity {
        serial: text(10..20),
        firmware: text(23..27),
        model: text(27..47),
        solid_state: word(217)? == 1,
        smart: !valid || word(82)? & 1 != 0 && word(85)? & 1 != 0,
    })
}

/// Printable text without spaces around it. What can't be printed is a question mark.
pub(super) fn tidy(characters: impl Iterator<Item = u8>) -> Text {
    let mut text = Text::new();
    for byte in characters.take_while(|byte| *byte != 0) {
        let shown = if matches!(byte, b' '..=b'~') { char::from(byte) } else { '?' };
        if !(text.is_empty() && shown == ' ') && text.push(shown).is_err() {
            break;
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its number.
    pub id: u8,
    /// Whether it foretells a failure, by its flags.
    pub prefailure: bool,
    /// Normalized by the disk: the less, the worse.
    pub value: u8,
    /// The worst that it ever was.
    pub worst: u8,
    /// What the value should not reach; none if there is none.
    pub threshold: Option<u8>,
    /// 48 bits, as the vendor likes.
    pub raw: u64,
}

impl Attribute {
    /// Whether the value has reached its threshold.
    pub fn is_failing(&self) -> bool {
        // 0 never fails, and FEh and FFh are for tests.
        self.threshold.is_some_and(|threshold| {
            (1..=0xfd).contains(&threshold)
                && (1..=0xfd).contains(&self.value)
                && self.value <= threshold
        })
    }
}

/// The attributes of a disk.
pub type Attributes = heapless::Vec<Attribute, MAX_ATTRIBUTES>;

/// A page that does not look as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It is too short.
    Short,
    /// Its bytes don't add up to 0.
    Checksum,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::Short => "it is shorter than 512 bytes",
            Malformed::Checksum => "its checksum is wrong",
        })
    }
}

impl std::error::Error for Malformed {}

fn checked(page: &[u8]) -> Result<&[u8], Malformed> {
    let page = page.get(..LENGTH).ok_or(Malformed::Short)?;
    let sum = page.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    if sum == 0 { Ok(page) } else { Err(Malformed::Checksum) }
}

fn entries(page: &[u8]) -> impl Iterator<Item = &[u8; ENTRY]> {
    let entries = page.get(ENTRIES..ENTRIES + MAX_ATTRIBUTES * ENTRY).unwrap_or_default();
    entries.chunks_exact(ENTRY).filter_map(|entry| entry.try_into().ok())
}

/// Decodes SMART READ DATA. Of attributes with one number the first is taken.
///
/// # Errors
/// See [`Malformed`].
pub fn attributes(page: &[u8]) -> Result<Attributes, Malformed> {
    let mut found = Attributes::new();
    for entry in entries(checked(page)?) {
        let [id, flags, _, value, worst, a, b, c, d, e, f, _] = *entry;
        if id != 0 && found.iter().all(|other| other.id != id) {
            let raw = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
            let prefailure = flags & 1 != 0;
            // There are as many places as entries.
            let _ = found.push(Attribute { id, prefailure, value, worst, threshold: None, raw });
        }
    }
    Ok(found)
}

/// Adds what SMART READ THRESHOLDS says.
///
/// # Errors
/// See [`Malformed`].
pub fn thresholds(page: &[u8], attributes: &mut Attributes) -> Result<(), Malformed> {
    for [id, threshold, ..] in entries(checked(page)?) {
        let same = attributes.iter_mut().find(|attribute| attribute.id == *id && *id != 0);
        if let Some(attribute) = same {
            attribute.threshold.get_or_insert(*threshold);
        }
    }
    Ok(())
}

/// The temperature in °C, of 194 or else of 190. Its lowest byte holds the present one wherever it holds
/// one at all; the others, the extremes.
pub fn temperature(attributes: &[Attribute]) -> Option<f64> {
    let of = |id: u8| {
        let raw = attributes.iter().find(|attribute| attribute.id == id)?.raw;
        let degrees = raw.to_le_bytes()[0] as i8;
        (raw != 0 && (-40..=110).contains(&degrees)).then(|| f64::from(degrees))
    };
    of(194).or_else(|| of(190))
}

/// How long the disk has been on, in hours. The upper bytes are milliseconds on some disks.
pub fn power_on_hours(attributes: &[Attribute]) -> Option<u32> {
    let hours = attributes.iter().find(|attribute| attribute.id == 9)?.raw & 0xff_ffff;
    u32::try_from(hours).ok()
}

/// How often the disk was switched on.
pub fn power_cycles(attributes: &[Attribute]) -> Option<u64> {
    attributes.iter().find(|attribute| attribute.id == 12).map(|attribute| attribute.raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_their_bytes() {
        #[rustfmt::skip]
        let expected: [(Command, [u8; 16]); 5] = [
            (ASK_POWER, [0x85, 0x06, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe5, 0]),
            (ASK_IDENTITY, [0x85, 0x08, 0x0e, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xec, 0]),
            (ASK_DATA, [0x85, 0x08, 0x0e, 0, 0xd0, 0, 1, 0, 0, 0, 0x4f, 0, 0xc2, 0, 0xb0, 0]),
            (ASK_THRESHOLDS, [0x85, 0x08, 0x0e, 0, 0xd1, 0, 1, 0, 0, 0, 0x4f, 0, 0xc2, 0, 0xb0, 0]),
            (ASK_STATUS, [0x85, 0x06, 0x20, 0, 0xda, 0, 0, 0, 0, 0, 0x4f, 0, 0xc2, 0, 0xb0, 0]),
        ];
        for (command, bytes) in expected {
            assert_eq!(command, bytes);
        }
    }

    /// Two descriptors, of which the second is ATA's.
    const DESCRIPTORS: [u8; 26] = [
        0x72, 0x01, 0x00, 0x1d, 0, 0, 0, 18, // recovered error, 18 bytes more
        0x02, 0x02, 0xaa, 0xaa, // another one
        0x09, 0x0c, 0x00, 0x00, 0x00, 0xff, 0x00, 0x11, 0x00, 0x4f, 0x00, 0xc2, 0xa0, 0x50,
    ];
    const FIXED: [u8; 18] =
        [0xf0, 0, 0x01, 0x00, 0x50, 0xa0, 0x80, 10, 0, 0x11, 0xf4, 0x2c, 0x00, 0x1d, 0, 0, 0, 0];

    #[test]
    fn registers_are_found_in_both_formats() {
        let found = registers(&DESCRIPTORS).unwrap();
        assert_eq!(found, Registers { status: 0x50, count: 0xff, lba: [0x4f, 0xc2] });
        assert!(!is_standby(found));
        assert_eq!(is_healthy(found), Some(true));
        let found = registers(&FIXED).unwrap();
        assert_eq!(found, Registers { status: 0x50, count: 0x80, lba: [0xf4, 0x2c] });
        assert_eq!(is_healthy(found), Some(false));
    }

    #[test]
    fn cut_and_foreign_sense_data_has_no_registers() {
        for length in 0..DESCRIPTORS.len() {
            assert_eq!(registers(&DESCRIPTORS[..length]), None, "{length}");
        }
        for length in 0..14 {
            assert_eq!(registers(&FIXED[..length]), None, "{length}");
        }
        let mut other = FIXED;
        other[13] = 0;
        assert_eq!(registers(&other), None);
        assert_eq!(registers(&[0xff; 64]), None);
        assert_eq!(registers(&[0x72; 64]), None);
    }

    #[test]
    fn only_a_disk_that_stands_still_is_standby() {
        let with = |status, count| Registers { status, count, lba: [0, 0] };
        for count in [0x00, 0x01, 0x40] {
            assert!(is_standby(with(0x50, count)));
        }
        for count in [0x41, 0x80, 0x81, 0x83, 0xff] {
            assert!(!is_standby(with(0x50, count)), "{count:#x}");
        }
        // Aborted: the count means nothing.
        assert!(!is_standby(with(0x51, 0x00)));
        assert_eq!(is_healthy(Registers { status: 0x51, count: 0, lba: GOOD }), None);
        assert_eq!(is_healthy(with(0x50, 0)), None);
    }

    fn sealed(mut page: [u8; LENGTH]) -> [u8; LENGTH] {
        page[511] = 0;
        page[511] = page.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
        page
    }

    fn data() -> [u8; LENGTH] {
        let mut page = [0; LENGTH];
        page[0] = 0x10;
        #[rustfmt::skip]
        let entries: [[u8; 12]; 6] = [
            [5, 0x33, 0x00, 100, 99, 8, 1, 0, 0, 0, 0, 0],
            [9, 0x32, 0x00, 62, 62, 0x39, 0x30, 0x00, 0xaa, 0xbb, 0xcc, 0],
            [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            [194, 0x22, 0x00, 31, 45, 31, 0, 0x0e, 0, 0x2d, 0, 0],
            [194, 0x22, 0x00, 1, 1, 99, 0, 0, 0, 0, 0, 0],
            [241, 0x00, 0x00, 100, 253, 1, 2, 3, 4, 5, 6, 0xff],
        ];
        for (place, entry) in page[2..].chunks_exact_mut(12).zip(entries) {
            place.copy_from_slice(&entry);
        }
        // Behind the attributes; of no meaning here.
        page[362..400].fill(0x5a);
        sealed(page)
    }

    #[test]
    fn attributes_and_thresholds_lie_where_they_should() {
        let mut found = attributes(&data()).unwrap();
        let mut page = [0; LENGTH];
        page[2..4].copy_from_slice(&[5, 36]);
        page[14..16].copy_from_slice(&[241, 0]);
        page[26..28].copy_from_slice(&[77, 50]);
        thresholds(&sealed(page), &mut found).unwrap();
        let attribute = |id, prefailure, value, worst, threshold, raw| Attribute {
            id,
            prefailure,
            value,
            worst,
            threshold,
            raw,
        };
        let expected = [
            attribute(5, true, 100, 99, Some(36), 264),
            attribute(9, false, 62, 62, None, 0xccbb_aa00_3039),
            attribute(194, false, 31, 45, None, 0x2d_000e_001f),
            attribute(241, false, 100, 253, Some(0), 0x0605_0403_0201),
        ];
        assert_eq!(found.as_slice(), expected);
        assert_eq!(temperature(&found), Some(31.0));
        assert_eq!(power_on_hours(&found), Some(12_345));
        assert_eq!(power_cycles(&found), None);
    }

    #[test]
    fn a_page_that_was_cut_or_changed_is_refused() {
        let good = data();
        for length in [0, 1, 2, 361, 511] {
            assert_eq!(attributes(&good[..length]), Err(Malformed::Short));
        }
        for at in 0..LENGTH {
            let mut bad = good;
            bad[at] ^= 0x40;
            assert_eq!(attributes(&bad), Err(Malformed::Checksum), "{at}");
            assert_eq!(thresholds(&bad, &mut Attributes::new()), Err(Malformed::Checksum));
        }
        assert_eq!(attributes(&[0; LENGTH]).unwrap().len(), 0);
        // A page full of them, all different.
        let mut full = [0; LENGTH];
        full.iter_mut().skip(2).step_by(12).enumerate().for_each(|(i, byte)| *byte = i as u8 + 1);
        assert_eq!(attributes(&sealed(full)).unwrap().len(), MAX_ATTRIBUTES);
    }

    #[test]
    fn a_value_at_its_threshold_fails() {
        let with = |value, threshold| Attribute {
            id: 5,
            prefailure: true,
            value,
            worst: 1,
            threshold,
            raw: 0,
        };
        assert!(with(36, Some(36)).is_failing() && with(1, Some(36)).is_failing());
        for (value, threshold) in
            [(37, Some(36)), (0, Some(36)), (1, Some(0)), (1, None), (100, Some(0xfe))]
        {
            assert!(!with(value, threshold).is_failing(), "{value} {threshold:?}");
        }
    }

    #[test]
    fn temperatures_that_can_not_be_are_none() {
        let with = |id, raw| {
            [Attribute { id, prefailure: false, value: 0, worst: 0, threshold: None, raw }]
        };
        assert_eq!(temperature(&with(194, 0xf6)), Some(-10.0));
        assert_eq!(temperature(&with(190, 0x1a2b_0025)), Some(37.0));
        for raw in [0, 0x7f, 0x80, 111] {
            assert_eq!(temperature(&with(194, raw)), None, "{raw:#x}");
        }
        assert_eq!(temperature(&with(231, 40)), None);
    }

    #[test]
    fn identity_is_text_with_its_bytes_swapped() {
        let mut page = [0; LENGTH];
        let mut put = |word: usize, words: usize, text: &str| {
            let mut bytes: Vec<u8> = text.bytes().collect();
            bytes.resize(2 * words, b' ');
            for (pair, to) in bytes.chunks_exact(2).zip(page[2 * word..].chunks_exact_mut(2)) {
                to.copy_from_slice(&[pair[1], pair[0]]);
            }
        };
        put(10, 10, "  WD-1234\u{7}");
        put(23, 4, "82.00A82");
        put(27, 20, "WDC WD40EFRX-68N32N0 with forty letters!");
        page[2 * 82] = 1;
        page[2 * 83 + 1] = 0x40;
        let found = identity(&page).unwrap();
        assert_eq!(found.serial, "WD-1234?");
        assert_eq!(found.firmware, "82.00A82");
        assert_eq!(found.model, "WDC WD40EFRX-68N32N0 with forty letters!");
        // SMART is there and switched off.
        assert!(!found.smart && !found.solid_state);
        page[2 * 85] = 1;
        page[2 * 217] = 1;
        let found = identity(&page).unwrap();
        assert!(found.smart && found.solid_state);
        // Words that are not valid are not believed.
        page[2 * 83 + 1] = 0;
        page[2 * 85] = 0;
        assert!(identity(&page).unwrap().smart);
        assert_eq!(identity(&page[..511]), None);
    }
}
