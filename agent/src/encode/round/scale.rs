//! What a series counts in: the unit of which its values are whole multiples, so that they are coded as
//! small numbers. It must not know series or their history.
//!
//! A unit is used only for values that it gives back bit for bit. Collectors divide or multiply what the
//! kernel counts in, which differ in the last bit, so each way is a unit of its own.

/// An index into [`UNITS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scale(u8);

#[derive(Clone, Copy, Debug)]
enum Unit {
    /// number × this, a power of two: pages, KiB, sectors, and all other whole numbers.
    Times(i64),
    /// number / this: hundredths, nanoseconds.
    Over(f64),
    /// number × 1 / this: the milliseconds of diskstats.
    Part(f64),
    /// number / 1000 / 1000: pressure stall times.
    Millionth,
    /// The value's own bits as a number: NaN, infinities, -0.0, and whatever fits nothing else.
    Bits,
}

/// In the order in which they are tried. The numbers are on disk: a change is a new version.
const UNITS: [Unit; 14] = [
    Unit::Times(4096),
    Unit::Times(1024),
    Unit::Times(512),
    Unit::Times(1),
    Unit::Over(1e1),
    Unit::Over(1e2),
    Unit::Over(1e3),
    Unit::Over(1e6),
    Unit::Over(1e9),
    Unit::Part(1e-3),
    Unit::Part(1e-6),
    Unit::Part(1e-9),
    Unit::Millionth,
    Unit::Bits,
];

/// Above it, not every whole number is a float.
const WHOLE: f64 = 9_007_199_254_740_992.0;

impl Scale {
    /// The value's own bits.
    pub(super) const BITS: Scale = Scale(UNITS.len() as u8 - 1);

    /// The scale of a number from a stream; numbers that stand for none are [`Scale::BITS`].
    pub(super) fn from_number(number: u8) -> Scale {
        Scale(number).min(Scale::BITS)
    }

    /// What stands for it in a stream: below 16.
    pub(super) fn number(self) -> u8 {
        self.0
    }

    fn min(self, other: Scale) -> Scale {
        Scale(self.0.min(other.0))
    }

    fn unit(self) -> Unit {
        UNITS.get(usize::from(self.0)).copied().unwrap_or(Unit::Bits)
    }

    /// How many units a value is; None if it is no whole number of them, bit for bit.
    pub(super) fn units(self, bits: u64) -> Option<i64> {
        let value = f64::from_bits(bits);
        let units = match self.unit() {
            Unit::Bits => return Some(bits as i64),
            // The conversion saturates, and makes 0 of NaN; both are found below.
            Unit::Times(1) => value as i64,
            Unit::Times(unit) => {
                let whole = value as i64;
                if whole & (unit - 1) != 0 {
                    return None;
                }
                whole / unit
            }
            Unit::Over(by) => nearest(value * by),
            Unit::Part(by) => nearest(value / by),
            Unit::Millionth => nearest(value * 1e6),
        };
        // The same test for all: beyond it, two numbers may be one value.
        ((units as f64).abs() < WHOLE && self.value(units) == bits).then_some(units)
    }

    /// The bits of a value of so many units.
    pub(super) fn value(self, units: i64) -> u64 {
        let value = match self.unit() {
            Unit::Bits => return units as u64,
            Unit::Times(unit) => units as f64 * unit as f64,
            Unit::Over(by) => units as f64 / by,
            Unit::Part(by) => units as f64 * by,
            Unit::Millionth => units as f64 / 1000.0 / 1000.0,
        };
        value.to_bits()
    }

    /// The first scale that gives back all of these values.
    pub(super) fn of(values: &[u64]) -> Scale {
        let all = (0..Scale::BITS.0).map(Scale);
        let fits = |scale: &Scale| values.iter().all(|&bits| scale.units(bits).is_some());
        all.into_iter().find(fits).unwrap_or(Scale::BITS)
    }
}

fn nearest(value: f64) -> i64 {
    (value + 0.5f64.copysign(value)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_collectors_write_gets_its_unit() {
        let number = |value: f64| Scale::of(&[value.to_bits()]).number();
        for (value, want) in [
            (8192.0, 0),
            (-3072.0, 1),
            (1536.0, 2),
            (7.0, 3),
            (94.2, 4),
            (3635.15, 5),
            (2125.308, 6),
            (94.571093, 7),
            (9.0342e-5, 8),
            (94.571_092_999_999_99, 10),
            (1.0 / 3.0, 13),
        ] {
            assert_eq!(number(value), want, "{value}");
        }
        // Milliseconds as diskstats has them, and microseconds as pressure has them.
        let parts = (1..9_999u32).filter(|&n| number(f64::from(n) * 1e-3) == 9).count();
        assert!(parts > 100, "{parts}");
        let thousands = (1..99_999u32).filter(|&n| number(f64::from(n) / 1e3 / 1e3) == 12).count();
        assert!(thousands > 100, "{thousands}");
    }

    #[test]
    fn what_no_number_can_be_is_its_bits() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, f64::MAX, 1e-300] {
            let bits = value.to_bits();
            assert_eq!(Scale::of(&[bits]), Scale::BITS, "{value}");
            assert_eq!(Scale::BITS.value(Scale::BITS.units(bits).unwrap()), bits);
        }
        assert_eq!(Scale::of(&[0]).number(), 0);
        assert_eq!(Scale::from_number(255), Scale::BITS);
    }

    proptest! {
        #[test]
        fn values_come_back_bit_for_bit(bits in any::<u64>(), whole in any::<i32>(), by in 0usize..14) {
            let close = Scale(by as u8).value(i64::from(whole));
            for bits in [bits, close] {
                for number in 0..14 {
                    let scale = Scale::from_number(number);
                    if let Some(units) = scale.units(bits) {
                        prop_assert_eq!(scale.value(units), bits);
                    }
                }
            }
            // A number that a scale was made for is found again.
            if close != (-0.0f64).to_bits() {
                prop_assert_eq!(Scale(by as u8).units(close), Some(i64::from(whole)));
            }
        }
    }
}
