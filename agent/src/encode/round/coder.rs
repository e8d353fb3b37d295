//! An adaptive binary range coder: yes-or-no decisions into bytes and back, each for about as many bits as
//! it is a surprise. It must not know what is decided.
//!
//! The coder's state is an interval of 32-bit numbers, at first all of them. A decision splits it in
//! proportion to its chance and keeps one half; leading bytes that both ends share are written. At the
//! end as few bytes are written as name a number in the interval, zeros taken to follow. Reading past the
//! end gives these zeros, and [`Reader::finish`] finds that there were too many.

/// The chance that a decision is a yes, learned from those before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chance {
    /// In 65536ths.
    yes: u16,
    /// How many decisions it has learned from, up to [`PATIENCE`].
    seen: u8,
}

/// A chance never learns more slowly than this: what was, is forgotten by and by.
const PATIENCE: u8 = 24;

/// What a decision moves a chance by after so many others, in 65536ths of the way: 1 / (seen + 1.6).
const RATES: [u32; PATIENCE as usize + 1] = {
    let mut rates = [0; PATIENCE as usize + 1];
    let mut seen = 0;
    while seen < rates.len() {
        rates[seen] = 655_360 / (10 * seen as u32 + 16);
        seen += 1;
    }
    rates
};

impl Chance {
    /// One of two.
    pub(super) const EVEN: Chance = Chance { yes: 1 << 15, seen: 0 };

    /// In 4096ths, never 0 and never all.
    #[inline]
    fn parts(self) -> u32 {
        u32::from(self.yes >> 4).clamp(1, 4095)
    }

    #[inline]
    fn learn(&mut self, yes: bool) {
        let rate = RATES[usize::from(self.seen.min(PATIENCE))];
        let now = u32::from(self.yes);
        // Both products are below 2^32, and the results below 2^16.
        self.yes = if yes {
            (now + (((0xffff - now) * rate) >> 16)) as u16
        } else {
            (now - ((now * rate) >> 16)) as u16
        };
        self.seen = (self.seen + 1).min(PATIENCE);
    }
}

/// The interval that both sides narrow in the same way.
#[derive(Clone, Copy, Debug)]
struct Interval {
    low: u32,
    high: u32,
}

impl Interval {
    const ALL: Interval = Interval { low: 0, high: u32::MAX };

    /// The last number of a yes, for a chance in 4096ths; at least `low` and below `high`.
    #[inline]
    fn middle(self, parts: u32) -> u32 {
        let range = self.high - self.low;
        self.low + (range >> 12) * parts + (((range & 0xfff) * parts) >> 12)
    }

    #[inline]
    fn keep(&mut self, middle: u32, yes: bool) {
        if yes {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
    }

    /// The leading byte that both ends share, taken away.
    #[inline]
    fn shift(&mut self) -> Option<u8> {
        if (self.low ^ self.high) >> 24 != 0 {
            return None;
        }
        let byte = (self.high >> 24) as u8;
        self.low <<= 8;
        self.high = self.high << 8 | 0xff;
        Some(byte)
    }

    /// The fewest bytes that name a number in the interval when zeros follow: 0 to 4 of the array.
    fn end(self) -> ([u8; 4], usize) {
        for count in 0..4 {
            let rest = u32::MAX.checked_shr(8 * count).unwrap_or(0);
            if let Some(sum) = self.low.checked_add(rest)
                && sum & !rest <= self.high
            {
                return ((sum & !rest).to_be_bytes(), count as usize);
            }
        }
        (self.low.to_be_bytes(), 4)
    }
}

/// One side of a stream of decisions. The same calls with the same chances on both sides give what was
/// written, so that a model is written once for both.
pub(super) trait Coder {
    /// A decision: the writer writes `yes`, the reader does not look at it. Both return what stands in
    /// the stream.
    fn decide(&mut self, chance: &mut Chance, yes: bool) -> bool;

    /// The low `count` bits of a number, of which nothing is known; at most 64.
    fn bits(&mut self, count: u32, number: u64) -> u64;

    /// Whether the stream was at its end before all of this.
    fn is_past_end(&self) -> bool;

    /// A number of `count` bits, each with a chance that depends on those before it: `chances` holds
    /// 2^`count` of them.
    fn symbol<const N: usize>(&mut self, chances: &mut [Chance; N], number: u8) -> u8 {
        let count = N.ilog2();
        let mut node = 1;
        for shift in (0..count).rev() {
            let yes = self.decide(&mut chances[node & (N - 1)], number >> shift & 1 != 0);
            node = node << 1 | usize::from(yes);
        }
        (node & (N - 1)) as u8
    }
}

/// Appends decisions to a vector.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    interval: Interval,
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { interval: Interval::ALL, out }
    }

    fn put(&mut self, parts: u32, yes: bool) {
        let middle = self.interval.middle(parts);
        self.interval.keep(middle, yes);
        while let Some(byte) = self.interval.shift() {
            self.out.push(byte);
        }
    }

    /// Writes what is still owed.
    pub(super) fn finish(self) {
        let (bytes, count) = self.interval.end();
        self.out.extend(bytes.iter().take(count));
    }
}

impl Coder for Writer<'_> {
    #[inline]
    fn decide(&mut self, chance: &mut Chance, yes: bool) -> bool {
        self.put(chance.parts(), yes);
        chance.learn(yes);
        yes
    }

    fn bits(&mut self, count: u32, number: u64) -> u64 {
        for shift in (0..count).rev() {
            self.put(1 << 11, number >> shift & 1 != 0);
        }
        number
    }

    fn is_past_end(&self) -> bool {
        false
    }
}

/// Reads decisions back.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    interval: Interval,
    /// The number of which `interval` is narrowed down to.
    code: u32,
    all: &'a [u8],
    /// Bytes that went into `code`, those past the end too.
    taken: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(all: &'a [u8]) -> Reader<'a> {
        let mut reader = Reader { interval: Interval::ALL, code: 0, all, taken: 0 };
        for _ in 0..4 {
            reader.take();
        }
        reader
    }

    fn take(&mut self) {
        let byte = self.all.get(self.taken).copied().unwrap_or(0);
        self.code = self.code << 8 | u32::from(byte);
        self.taken += 1;
    }

    fn get(&mut self, parts: u32) -> bool {
        let middle = self.interval.middle(parts);
        let yes = self.code <= middle;
        self.interval.keep(middle, yes);
        while self.interval.shift().is_some() {
            self.take();
        }
        yes
    }

    /// Whether the bytes are exactly those that a writer of the same decisions had written.
    pub(super) fn finish(self) -> bool {
        let (bytes, count) = self.interval.end();
        let shifted = self.taken - 4;
        self.all.get(shifted..) == bytes.get(..count)
    }
}

impl Coder for Reader<'_> {
    fn decide(&mut self, chance: &mut Chance, _: bool) -> bool {
        let yes = self.get(chance.parts());
        chance.learn(yes);
        yes
    }

    fn bits(&mut self, count: u32, _: u64) -> u64 {
        (0..count).fold(0, |number, _| number << 1 | u64::from(self.get(1 << 11)))
    }

    fn is_past_end(&self) -> bool {
        self.taken > self.all.len() + 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(decisions: &[(u8, bool, u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut chances = [Chance::EVEN; 4];
        let mut writer = Writer::new(&mut out);
        for &(which, yes, number) in decisions {
            writer.decide(&mut chances[usize::from(which)], yes);
            writer.bits(u32::from(which) * 20, number);
        }
        writer.finish();
        out
    }

    proptest! {
        #[test]
        fn decisions_come_back(decisions in prop::collection::vec((0u8..4, prop::bool::weighted(0.1), any::<u64>()), 0..300)) {
            let bytes = write(&decisions);
            let mut chances = [Chance::EVEN; 4];
            let mut reader = Reader::new(&bytes);
            for &(which, yes, number) in &decisions {
                prop_assert_eq!(reader.decide(&mut chances[usize::from(which)], false), yes);
                let count = u32::from(which) * 20;
                prop_assert_eq!(reader.bits(count, 0), number & ((1u64 << count) - 1));
            }
            prop_assert!(!reader.is_past_end());
            prop_assert!(reader.finish());
        }

        /// Bytes that a reader takes whole are those that a writer makes of what it has read.
        #[test]
        fn bytes_that_no_writer_writes_are_found(bytes in prop::collection::vec(any::<u8>(), 0..12), which in prop::collection::vec(0u8..4, 0..40)) {
            let mut chances = [Chance::EVEN; 4];
            let mut reader = Reader::new(&bytes);
            let decisions: Vec<_> = which
                .into_iter()
                .map(|which| {
                    let yes = reader.decide(&mut chances[usize::from(which)], false);
                    (which, yes, reader.bits(u32::from(which) * 20, 0))
                })
                .collect();
            prop_assert_eq!(reader.finish(), write(&decisions) == bytes);
        }
    }

    #[test]
    fn what_is_expected_costs_next_to_nothing() {
        let bytes = write(&[(0, false, 0); 10_000]);
        assert!(bytes.len() < 10, "{}", bytes.len());
    }

    #[test]
    fn an_empty_stream_is_no_bytes_and_zeros_without_end_are_noticed() {
        assert!(write(&[]).is_empty());
        let mut reader = Reader::new(&[]);
        assert!(!reader.is_past_end());
        reader.bits(64, 0);
        assert!(reader.is_past_end());
    }
}
