//! What a Raspberry Pi's firmware is asked in a round and what its answer says: one message of several tags
//! (raspberrypi-firmware.h, vcmailbox(7)). It must not know the device, nor what becomes of the values.
//!
//! Firmwares differ in what they know. Some leave a tag that they don't know unanswered, others refuse the
//! whole message, and the kernel then logs a line. So everything is asked first; if that is refused, each
//! round tries one group more beside those that were answered, and what was refused is not asked again.

use crate::host::mailbox::{Malformed, Message};

const GET_CLOCK_RATE: u32 = 0x0003_0002;
const GET_VOLTAGE: u32 = 0x0003_0003;
const GET_TEMPERATURE: u32 = 0x0003_0006;
const GET_MAX_TEMPERATURE: u32 = 0x0003_000a;
/// Its value is a mask of history bits that the firmware then clears: always 0 here.
const GET_THROTTLED: u32 = 0x0003_0046;
/// Since 2018.
const GET_CLOCK_MEASURED: u32 = 0x0003_0047;

/// Clocks by number, from 1 on (enum rpi_firmware_clk_id), named as `vcgencmd measure_clock` does.
pub(super) const CLOCKS: [&str; 16] = [
    "emmc",
    "uart",
    "arm",
    "core",
    "v3d",
    "h264",
    "isp",
    "sdram",
    "pixel",
    "pwm",
    "hevc",
    "emmc2",
    "m2mc",
    "pixel_bvb",
    "vec",
    "disp",
];

/// Rails by number, from 1 on.
pub(super) const RAILS: [&str; 4] = ["core", "sdram_c", "sdram_p", "sdram_i"];

/// The voltage of a rail that there is not.
const NO_RAIL: u32 = 0x8000_0000;

/// Tags that are asked together or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Group {
    Throttled = 1,
    Temperatures = 2,
    Voltages = 4,
    /// As they run.
    MeasuredClocks = 8,
    /// As they were set, where they can't be measured.
    SetClocks = 16,
}

/// A set of groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Groups(u8);

impl Groups {
    /// What is asked first.
    pub(super) const FIRST: Groups = Groups(0b1111);

    pub(super) fn has(self, group: Group) -> bool {
        self.0 & group as u8 != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn with(self, other: Groups) -> Groups {
        Groups(self.0 | other.0)
    }

    fn without(self, other: Groups) -> Groups {
        Groups(self.0 & !other.0)
    }

    /// The first of them alone; throttling is the most important.
    fn first(self) -> Groups {
        Groups(self.0 & self.0.wrapping_neg())
    }
}

/// The tags of these groups with the number that each is about, in the order of the message.
fn tags(groups: Groups) -> impl Iterator<Item = (u32, Option<u32>)> {
    let of = move |group, tag: &'static [u32], first: u32, last: u32| {
        let numbers = (first..=last).filter(move |_| groups.has(group));
        numbers.flat_map(move |number| tag.iter().map(move |tag| (*tag, Some(number))))
    };
    groups
        .has(Group::Throttled)
        .then_some((GET_THROTTLED, None))
        .into_iter()
        .chain(of(Group::Temperatures, &[GET_TEMPERATURE, GET_MAX_TEMPERATURE], 0, 0))
        .chain(of(Group::Voltages, &[GET_VOLTAGE], 1, RAILS.len() as u32))
        .chain(of(Group::MeasuredClocks, &[GET_CLOCK_MEASURED], 1, CLOCKS.len() as u32))
        .chain(of(Group::SetClocks, &[GET_CLOCK_RATE], 1, CLOCKS.len() as u32))
}

/// Makes the message that asks for these groups.
pub(super) fn ask(groups: Groups, message: &mut Message) {
    message.clear();
    for (tag, number) in tags(groups) {
        match number {
            Some(number) => message.ask(tag, &[number, 0]),
            None => message.ask(tag, &[0]),
        }
    }
}

/// What an answer says. None for what was not asked, or is unknown to the firmware.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Readings {
    pub(super) throttled: Option<u32>,
    /// In thousandths of a degree Celsius.
    pub(super) temperature: Option<u32>,
    pub(super) temperature_limit: Option<u32>,
    /// In microvolts.
    pub(super) rails: [Option<u32>; RAILS.len()],
    /// In hertz; 0 for a clock that does not run, or that there is not.
    pub(super) clocks: [Option<u32>; CLOCKS.len()],
}

impl Readings {
    /// Reads the answer to [`ask`]. A malformed one gives nothing.
    pub(super) fn decode(groups: Groups, message: &Message) -> Result<Readings, Malformed> {
        let mut readings = Readings::default();
        let mut answers = message.answers()?;
        for (tag, number) in tags(groups) {
            let answer = answers.next().ok_or(Malformed("fewer tags than were asked"))??;
            if answer.tag != tag {
                return Err(Malformed("another tag than was asked"));
            }
            let value = match (number, answer.values) {
                (_, []) => None,
                (None, [value, ..]) => Some(*value),
                (Some(number), [echo, value, ..]) if *echo == number => Some(*value),
                (Some(_), [_, _, ..]) => return Err(Malformed("another number than was asked")),
                (Some(_), [_]) => return Err(Malformed("a tag without its value")),
            };
            let slot = |values: &mut [Option<u32>], value: Option<u32>| {
                let index = number.and_then(|number| number.checked_sub(1)).unwrap_or_default();
                if let Some(slot) = values.get_mut(index as usize) {
                    *slot = value;
                }
            };
            match tag {
                GET_THROTTLED => readings.throttled = value,
                GET_TEMPERATURE => readings.temperature = value,
                GET_MAX_TEMPERATURE => readings.temperature_limit = value,
                GET_VOLTAGE => {
                    let value = value.filter(|value| *value != NO_RAIL && *value != 0);
                    slot(&mut readings.rails, value);
                }
                _ => slot(&mut readings.clocks, value),
            }
        }
        Ok(readings)
    }
}

/// Which groups are asked: what was learned of this firmware.
#[derive(Debug)]
pub(super) struct Repertoire {
    known: Groups,
    /// Neither answered nor refused yet.
    open: Groups,
    /// Whether all was asked at once and refused.
    one_by_one: bool,
    /// Calls that failed since the last one that did not, and that timed out.
    failed: u8,
    timed_out: u8,
}

/// As often may fail what worked before, until nothing is asked any more.
const MAX_FAILED: u8 = 3;
/// Each one takes a second of the round.
const MAX_TIMED_OUT: u8 = 2;

impl Repertoire {
    pub(super) fn new() -> Repertoire {
        Repertoire {
            known: Groups::default(),
            open: Groups::FIRST,
            one_by_one: false,
            failed: 0,
            timed_out: 0,
        }
    }

    /// What to ask now; nothing if the firmware answers nothing.
    pub(super) fn next(&self) -> Groups {
        match self.one_by_one {
            true => self.known.with(self.open.first()),
            false => self.known.with(self.open),
        }
    }

    /// The groups were answered.
    pub(super) fn answered(&mut self, asked: Groups, readings: &Readings) {
        self.failed = 0;
        self.known = asked;
        self.open = self.open.without(asked);
        let measures = readings.clocks.iter().any(Option::is_some);
        if asked.has(Group::MeasuredClocks) && !measures {
            self.measures_no_clocks();
        }
    }

    /// The message was refused, or not answered in time. True if nothing will be asked any more.
    pub(super) fn refused(&mut self, asked: Groups, timed_out: bool) -> bool {
        let new = asked.without(self.known);
        self.timed_out += u8::from(timed_out);
        if self.timed_out >= MAX_TIMED_OUT {
            (self.known, self.open) = (Groups::default(), Groups::default());
        } else if new.is_empty() {
            self.failed += 1;
            if self.failed >= MAX_FAILED {
                self.known = Groups::default();
            }
        } else if self.one_by_one || new == new.first() {
            self.open = self.open.without(new);
            if new.has(Group::MeasuredClocks) {
                self.measures_no_clocks();
            }
        } else {
            self.one_by_one = true;
        }
        self.next().is_empty()
    }

    fn measures_no_clocks(&mut self) {
        self.known = self.known.without(Groups(Group::MeasuredClocks as u8));
        self.open = self.open.with(Groups(Group::SetClocks as u8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(groups: &[Group]) -> Groups {
        Groups(groups.iter().map(|group| *group as u8).sum())
    }

    /// Answers as a firmware would: each tag's value from a function; none leaves it unanswered.
    fn answer(groups: Groups, value: impl Fn(u32, Option<u32>) -> Option<u32>) -> Vec<u8> {
        let mut message = Message::new();
        ask(groups, &mut message);
        let mut bytes = message.to_bytes();
        bytes[7] = 0x80;
        let mut at = 8;
        for (tag, number) in tags(groups) {
            let length = if number.is_some() { 8 } else { 4 };
            if let Some(value) = value(tag, number) {
                bytes[at + 8..at + 12].copy_from_slice(&(0x8000_0000u32 | length).to_le_bytes());
                let end = at + 12 + length as usize;
                bytes[end - 4..end].copy_from_slice(&value.to_le_bytes());
            }
            at += 12 + length as usize;
        }
        assert_eq!(at + 4, bytes.len());
        bytes
    }

    fn decode(groups: Groups, bytes: &[u8]) -> Result<Readings, Malformed> {
        Readings::decode(groups, &Message::from_bytes(bytes))
    }

    fn value(tag: u32, number: Option<u32>) -> Option<u32> {
        Some(match (tag, number) {
            (GET_THROTTLED, _) => 0x0005_0001,
            (GET_TEMPERATURE, _) => 48_312,
            (GET_MAX_TEMPERATURE, _) => 85_000,
            (GET_VOLTAGE, Some(1)) => 1_350_000,
            (GET_VOLTAGE, _) => NO_RAIL,
            (_, Some(number)) => number * 1_000_000,
            _ => return None,
        })
    }

    #[test]
    fn each_tag_has_the_length_that_the_firmware_wants() {
        let mut message = Message::new();
        ask(of(&[Group::Throttled, Group::Temperatures]), &mut message);
        #[rustfmt::skip]
        assert_eq!(message.to_bytes(), [
            68, 0, 0, 0,            0, 0, 0, 0,
            0x46, 0x00, 0x03, 0x00, 4, 0, 0, 0,     0, 0, 0, 0,     0, 0, 0, 0,
            0x06, 0x00, 0x03, 0x00, 8, 0, 0, 0,     0, 0, 0, 0,     0, 0, 0, 0,     0, 0, 0, 0,
            0x0a, 0x00, 0x03, 0x00, 8, 0, 0, 0,     0, 0, 0, 0,     0, 0, 0, 0,     0, 0, 0, 0,
            0, 0, 0, 0,
        ]);
        ask(of(&[Group::Voltages]), &mut message);
        let bytes = message.to_bytes();
        assert_eq!(bytes.len(), 12 + 4 * 20);
        assert_eq!(bytes[8..28], [3, 0, 3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[68..88], [3, 0, 3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        ask(of(&[Group::SetClocks]), &mut message);
        let bytes = message.to_bytes();
        assert_eq!(bytes.len(), 12 + 16 * 20);
        assert_eq!(bytes[308..328], [2, 0, 3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0]);
        ask(Groups::default(), &mut message);
        assert!(message.is_empty());
    }

    #[test]
    fn a_whole_answer() {
        let readings = decode(Groups::FIRST, &answer(Groups::FIRST, value)).unwrap();
        assert_eq!(readings.throttled, Some(0x0005_0001));
        assert_eq!(readings.temperature, Some(48_312));
        assert_eq!(readings.temperature_limit, Some(85_000));
        assert_eq!(readings.rails, [Some(1_350_000), None, None, None]);
        assert_eq!(readings.clocks[2], Some(3_000_000));
        assert_eq!(readings.clocks[15], Some(16_000_000));
    }

    #[test]
    fn what_the_firmware_does_not_know_is_missing_alone() {
        let only = |tag, number| if tag == GET_THROTTLED { value(tag, number) } else { None };
        let readings = decode(Groups::FIRST, &answer(Groups::FIRST, only)).unwrap();
        let expected = Readings { throttled: Some(0x0005_0001), ..Readings::default() };
        assert_eq!(readings, expected);
    }

    #[test]
    fn an_answer_to_another_question_is_an_error() {
        let groups = of(&[Group::Throttled, Group::Voltages]);
        let good = answer(groups, value);
        let altered = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            decode(groups, &bytes).unwrap_err().0
        };
        assert_eq!(altered(8, 0x47), "another tag than was asked");
        // The second tag's number, 1, and its code.
        assert_eq!(altered(36, 2), "another number than was asked");
        assert_eq!(altered(32, 4), "a tag without its value");
        let fewer = answer(of(&[Group::Throttled]), value);
        assert_eq!(decode(groups, &fewer).unwrap_err().0, "fewer tags than were asked");
        for length in 0..good.len() {
            assert!(decode(groups, &good[..length]).is_err(), "{length} bytes");
        }
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                let _ = decode(groups, &bytes);
            }
        }
    }

    #[test]
    fn a_firmware_that_answers_all_is_asked_all() {
        let mut repertoire = Repertoire::new();
        let readings = decode(Groups::FIRST, &answer(Groups::FIRST, value)).unwrap();
        for _ in 0..3 {
            assert_eq!(repertoire.next(), Groups::FIRST);
            repertoire.answered(Groups::FIRST, &readings);
        }
    }

    #[test]
    fn a_firmware_that_refuses_a_group_is_asked_the_others() {
        let mut repertoire = Repertoire::new();
        let refuses = [Group::Voltages, Group::MeasuredClocks];
        let mut calls = 0;
        let mut refused = 0;
        for _ in 0..20 {
            let asked = repertoire.next();
            calls += 1;
            if refuses.iter().any(|group| asked.has(*group)) {
                refused += 1;
                assert!(!repertoire.refused(asked, false));
            } else {
                let readings = decode(asked, &answer(asked, value)).unwrap();
                repertoire.answered(asked, &readings);
            }
        }
        let expected = of(&[Group::Throttled, Group::Temperatures, Group::SetClocks]);
        assert_eq!((repertoire.next(), calls, refused), (expected, 20, 3));
    }

    #[test]
    fn clocks_that_are_not_measured_are_asked_as_they_were_set() {
        let mut repertoire = Repertoire::new();
        let old = |tag, number| value(tag, number).filter(|_| tag != GET_CLOCK_MEASURED);
        for _ in 0..2 {
            let asked = repertoire.next();
            let readings = decode(asked, &answer(asked, old)).unwrap();
            repertoire.answered(asked, &readings);
        }
        let asked = repertoire.next();
        assert!(asked.has(Group::SetClocks) && !asked.has(Group::MeasuredClocks));
    }

    #[test]
    fn a_firmware_that_refuses_all_is_left_alone() {
        let mut repertoire = Repertoire::new();
        let calls = (0..20).find(|_| repertoire.refused(repertoire.next(), false)).unwrap();
        assert_eq!(calls, 5);
        assert!(repertoire.next().is_empty());
    }

    #[test]
    fn a_firmware_that_does_not_answer_in_time_is_left_alone() {
        let mut repertoire = Repertoire::new();
        assert!(!repertoire.refused(repertoire.next(), true));
        assert!(repertoire.refused(repertoire.next(), true));
        assert!(repertoire.next().is_empty());
    }

    #[test]
    fn a_firmware_that_stops_to_answer_is_left_alone() {
        let mut repertoire = Repertoire::new();
        repertoire
            .answered(Groups::FIRST, &Readings { clocks: [Some(1); 16], ..Readings::default() });
        assert!(!repertoire.refused(Groups::FIRST, false));
        assert!(!repertoire.refused(Groups::FIRST, false));
        assert!(repertoire.refused(Groups::FIRST, false));
    }
}
