//! How values are foretold: what is remembered of each series, and the chances that all series share.
//! Writer and reader run the same code, [`Model::round`], over their side of a stream, so what one
//! remembers the other does. It must not know labels, records or where the stream is kept.

use super::coder::{Chance, Coder};
use super::scale::Scale;

/// What is remembered of a series: 48 bytes.
#[derive(Clone, Copy, Debug)]
struct State {
    /// The last value's bits, and how many units of `scale` it is.
    bits: u64,
    last: i64,
    /// The last difference that was not 0.
    step: i64,
    /// The difference in the round that is being coded, if it has one yet.
    moved: i64,
    /// A series before this one that moved by the same, or [`NO_LINK`].
    link: u32,
    /// How far off the guesses were: bits × 16, a mean that forgets.
    misses: [u16; 2],
    /// How long a residual is to be expected: bits × 4.
    length: u8,
    /// Whether the value changed, the last round in the lowest bit; 4 of them count.
    history: u8,
    /// Whether the link was wrong, likewise; 3 of them count.
    broken: u8,
    scale: Option<Scale>,
    /// Whether the series had a value in the round before. One that is new counts as if.
    present: bool,
    has_moved: bool,
}

#[cfg(test)]
pub(super) const STATE_BYTES: usize = size_of::<State>();

const NO_LINK: u32 = u32::MAX;

impl State {
    const NEW: State = State {
        bits: 0,
        last: 0,
        step: 0,
        moved: 0,
        link: NO_LINK,
        misses: [0; 2],
        length: 12,
        history: 0,
        broken: 0,
        scale: None,
        present: true,
        has_moved: false,
    };
}

/// The longest residual that has a chance of its own for being just as long as expected.
const LONG: usize = 20;

/// The chances, all even at first. Few, and shared by all series, because they are to be worth something
/// after a round or two.
#[derive(Clone, Debug)]
struct Chances {
    /// Present, by whether it was before and whether the series before this one is as it was.
    present: [Chance; 4],
    /// The first value's scale, by that of the series before.
    first_scale: [[Chance; 16]; 16],
    /// It is 0, by whether that of the series before was.
    first_zero: [Chance; 2],
    first_negative: Chance,
    first_length: [Chance; 64],
    /// Moved as the link did, by when that was wrong, and whether it moved or whether this one did before.
    linked: [Chance; 24],
    /// Changed, by when it did before, whether the series before did, and whether there is a link.
    changed: [Chance; 64],
    /// Out of scale, and what the new one is.
    rescaled: Chance,
    scale: [Chance; 16],
    /// The guess is right, by the expected length.
    exact: [Chance; 6],
    /// By the guess and the sign of the last difference.
    negative: [Chance; 4],
    /// As long as expected; if not, longer; both by the expected length.
    length: [Chance; LONG + 1],
    longer: [Chance; LONG + 1],
    /// By one more, and by one less, and on.
    up: [Chance; 9],
    down: [Chance; 9],
    /// The bit below the highest, by length and whether it was longer than expected.
    second: [[Chance; 13]; 2],
}

impl Chances {
    const EVEN: Chances = Chances {
        present: [Chance::EVEN; 4],
        first_scale: [[Chance::EVEN; 16]; 16],
        first_zero: [Chance::EVEN; 2],
        first_negative: Chance::EVEN,
        first_length: [Chance::EVEN; 64],
        linked: [Chance::EVEN; 24],
        changed: [Chance::EVEN; 64],
        rescaled: Chance::EVEN,
        scale: [Chance::EVEN; 16],
        exact: [Chance::EVEN; 6],
        negative: [Chance::EVEN; 4],
        length: [Chance::EVEN; LONG + 1],
        longer: [Chance::EVEN; LONG + 1],
        up: [Chance::EVEN; 9],
        down: [Chance::EVEN; 9],
        second: [[Chance::EVEN; 13]; 2],
    };
}

/// The stream was at its end before the round was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PastEnd;

/// Which series of a table have a value in a round, and which. A reader fills it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Values {
    present: Vec<u8>,
    bits: Vec<u64>,
}

impl Values {
    /// So many series, none of which has a value.
    pub(super) fn reset(&mut self, series: usize) {
        self.present.clear();
        self.bits.clear();
        self.grow(series);
    }

    /// Frees the memory, and forgets what is in it, if it is far more than so many series need.
    pub(super) fn shrink(&mut self, expected: usize) {
        if self.bits.capacity() > 4 * expected + 1024 {
            *self = Values::default();
        }
    }

    /// At least so many series.
    pub(super) fn grow(&mut self, series: usize) {
        if self.bits.len() < series {
            self.bits.resize(series, 0);
            self.present.resize(series.div_ceil(8), 0);
        }
    }

    /// Sets a value; the series is one of those that there are.
    #[inline]
    pub(super) fn set(&mut self, series: usize, bits: u64) {
        if let (Some(value), Some(byte)) =
            (self.bits.get_mut(series), self.present.get_mut(series / 8))
        {
            *value = bits;
            *byte |= 1 << (series % 8);
        }
    }

    pub(super) fn unset(&mut self, series: usize) {
        if let Some(byte) = self.present.get_mut(series / 8) {
            *byte &= !(1 << (series % 8));
        }
    }

    #[inline]
    pub(super) fn has(&self, series: usize) -> bool {
        self.present.get(series / 8).is_some_and(|byte| byte & (1 << (series % 8)) != 0)
    }

    #[inline]
    pub(super) fn get(&self, series: usize) -> Option<u64> {
        if self.has(series) { self.bits.get(series).copied() } else { None }
    }

    pub(super) fn len(&self) -> usize {
        self.bits.len()
    }

    pub(super) fn memory(&self) -> usize {
        self.present.capacity() + self.bits.capacity() * 8
    }
}

/// What both sides remember between the rounds of a segment.
#[derive(Debug)]
pub(super) struct Model {
    states: Vec<State>,
    chances: Chances,
    /// The last series that moved by a difference, by a hash of it.
    movers: [u32; MOVERS],
}

const MOVERS: usize = 256;

/// What is carried from one series of a round to the next.
struct Before {
    changed: bool,
    zero: bool,
    scale: Scale,
    presence_same: bool,
}

impl Model {
    pub(super) fn new() -> Model {
        Model { states: Vec::new(), chances: Chances::EVEN, movers: [0; MOVERS] }
    }

    /// Forgets everything and keeps the memory.
    pub(super) fn reset(&mut self) {
        self.states.clear();
        self.chances = Chances::EVEN;
        self.movers = [0; MOVERS];
    }

    /// After a reset, frees the memory if it is far more than so many series need.
    pub(super) fn shrink(&mut self, expected: usize) {
        if self.states.capacity() > 4 * expected + 1024 {
            self.states = Vec::new();
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.states.capacity() * size_of::<State>()
    }

    /// Whether just those series of `values` are present that were in the round before, or are new.
    pub(super) fn is_as_before(&self, values: &Values) -> bool {
        let new = self.states.len()..values.len();
        self.states.iter().enumerate().all(|(at, state)| state.present == values.has(at))
            && new.into_iter().all(|at| values.has(at))
    }

    /// Codes a round of as many series as `values` has: a writer writes it, a reader sets it. With
    /// `sparse`, which series are present is coded too; else it is [as before](Model::is_as_before).
    ///
    /// # Errors
    /// The reader's stream was at its end. `values` and what is remembered are of no use then.
    pub(super) fn round<C: Coder>(
        &mut self,
        coder: &mut C,
        sparse: bool,
        values: &mut Values,
    ) -> Result<(), PastEnd> {
        if self.states.len() < values.len() {
            self.states.resize(values.len(), State::NEW);
        }
        let Model { states, chances, movers } = self;
        let mut before =
            Before { changed: true, zero: false, scale: Scale::BITS, presence_same: true };
        for series in 0..values.len() {
            if coder.is_past_end() {
                return Err(PastEnd);
            }
            let (earlier, rest) = states.split_at_mut(series);
            let Some(state) = rest.first_mut() else { break };
            let value = values.get(series);
            if sparse {
                let index = usize::from(state.present) << 1 | usize::from(before.presence_same);
                let present = coder.decide(&mut chances.present[index], value.is_some());
                before.presence_same = present == state.present;
                state.present = present;
            }
            state.has_moved = false;
            if state.present {
                let bits = value.unwrap_or(0);
                match state.scale {
                    None => first(coder, chances, state, bits, &mut before),
                    Some(scale) => {
                        let mut next = Next { earlier, movers, chances, state };
                        let moved = next.moved(coder, scale, bits, before.changed);
                        before.changed = moved != 0;
                    }
                }
                // A writer has it already.
                if value != Some(state.bits) {
                    values.set(series, state.bits);
                }
            }
        }
        Ok(())
    }
}

/// A value of which nothing is known.
fn first<C: Coder>(
    coder: &mut C,
    chances: &mut Chances,
    state: &mut State,
    bits: u64,
    before: &mut Before,
) {
    // 0 fits any scale; its neighbour's is likely to be its own later.
    let scale = if bits == 0 { before.scale } else { Scale::of(&[bits]) };
    let mut number = scale.units(bits).unwrap_or(0);
    let near = &mut chances.first_scale[usize::from(before.scale.number() & 15)];
    let scale = Scale::from_number(coder.symbol(near, scale.number()));
    before.scale = scale;
    before.zero = coder.decide(&mut chances.first_zero[usize::from(before.zero)], number == 0);
    if before.zero {
        number = 0;
    } else {
        let negative = coder.decide(&mut chances.first_negative, number < 0);
        let magnitude = number.unsigned_abs().max(1);
        let below = coder.symbol(&mut chances.first_length, magnitude.ilog2() as u8);
        let rest = coder.bits(u32::from(below), magnitude);
        number = signed(1 << below | rest & ((1 << below) - 1), negative);
    }
    *state = State { bits: scale.value(number), last: number, scale: Some(scale), ..State::NEW };
}

/// A value after others of its series.
struct Next<'a> {
    /// The states of the series before it: where links are.
    earlier: &'a [State],
    movers: &'a mut [u32; MOVERS],
    chances: &'a mut Chances,
    state: &'a mut State,
}

impl Next<'_> {
    /// Codes it and returns by how much the series has moved.
    fn moved<C: Coder>(&mut self, coder: &mut C, scale: Scale, bits: u64, changed: bool) -> i64 {
        let Next { earlier, chances, state, .. } = self;
        let wanted = if bits == state.bits {
            Some(0)
        } else {
            scale.units(bits).map(|number| number.wrapping_sub(state.last))
        };
        let link = earlier.get(state.link as usize);
        let link = link.filter(|link| link.has_moved).map(|link| link.moved);
        let mut moved = None;
        if let Some(by) = link {
            let quiet = if by == 0 { 1 + usize::from(state.history & 1) } else { 0 };
            let chance = &mut chances.linked[usize::from(state.broken & 7) * 3 + quiet];
            let holds = coder.decide(chance, wanted == Some(by));
            state.broken = state.broken << 1 | u8::from(!holds);
            moved = holds.then_some(by);
        }
        if moved.is_none() && link != Some(0) {
            let index = usize::from(state.history & 15)
                | usize::from(changed) << 4
                | usize::from(link.is_some()) << 5;
            if !coder.decide(&mut chances.changed[index], wanted != Some(0)) {
                moved = Some(0);
            }
        }
        let moved = match moved {
            Some(moved) => moved,
            None => self.guess(coder, scale, wanted.is_none(), bits),
        };
        let state = &mut *self.state;
        state.moved = moved;
        state.has_moved = true;
        state.history = state.history << 1 | u8::from(moved != 0);
        if moved != 0 {
            state.step = moved;
            state.last = state.last.wrapping_add(moved);
            state.bits = state.scale.unwrap_or(scale).value(state.last);
            self.movers[bucket(moved)] = self.earlier.len() as u32;
        }
        moved
    }

    /// A difference that is neither 0 nor the link's, for which another link is looked for then.
    fn guess<C: Coder>(&mut self, coder: &mut C, scale: Scale, unscaled: bool, bits: u64) -> i64 {
        let Next { earlier, movers, chances, state } = self;
        let mut scale = scale;
        let rescaled = coder.decide(&mut chances.rescaled, unscaled);
        if rescaled {
            let wanted = rescale(state.bits, bits);
            scale = Scale::from_number(coder.symbol(&mut chances.scale, wanted.number()));
            state.scale = Some(scale);
            state.last = scale.units(state.bits).unwrap_or(0);
            state.bits = scale.value(state.last);
            state.step = 0;
            state.misses = [0; 2];
        }
        let number = scale.units(bits).unwrap_or(0);
        let guesses = [state.last, state.last.wrapping_add(state.step)];
        let best = usize::from(state.misses[1] < state.misses[0]);
        let guess = guesses[best];
        let wanted = number.wrapping_sub(guess);
        let mut residual = 0;
        // The last value itself is never right here: that would be no change.
        let mut exact = false;
        if rescaled || best == 1 {
            let index = if rescaled { 5 } else { usize::from(state.length / 4).min(4) };
            exact = coder.decide(&mut chances.exact[index], wanted == 0);
        }
        let mut bits = 0;
        if !exact {
            let sign = if best == 1 { 3 } else { (state.step.signum() + 1) as usize };
            let negative = coder.decide(&mut chances.negative[sign], wanted < 0);
            let magnitude = magnitude(coder, chances, state.length, wanted.unsigned_abs());
            bits = length(magnitude);
            residual = signed(magnitude, negative);
        }
        let number = guess.wrapping_add(residual);
        let want = (bits * 4).min(255) as i32;
        let have = i32::from(state.length);
        state.length = (have + ((want - have + i32::from(want > have)) >> 1)) as u8;
        for (miss, guess) in state.misses.iter_mut().zip(guesses) {
            let off = length(number.wrapping_sub(guess).unsigned_abs()) * 16;
            let was = i32::from(*miss);
            *miss = (was + ((off as i32 - was) >> 2)) as u16;
        }
        let moved = number.wrapping_sub(state.last);
        if moved != 0 && (state.link == NO_LINK || state.broken & 3 == 3) {
            let candidate = movers[bucket(moved)];
            let other = earlier.get(candidate as usize);
            if other.is_some_and(|other| other.has_moved && other.moved == moved) {
                state.link = candidate;
                state.broken = 0;
            }
        }
        moved
    }
}

/// The scale of a value that the last one's does not fit: one that fits both if there is one.
fn rescale(last: u64, bits: u64) -> Scale {
    match Scale::of(&[last, bits]) {
        Scale::BITS => Scale::of(&[bits]),
        both => both,
    }
}

/// A number that is not 0: its length as a difference to what is expected (bits × 4), then its bits below
/// the highest.
fn magnitude<C: Coder>(coder: &mut C, chances: &mut Chances, expected: u8, number: u64) -> u64 {
    let wanted = length(number);
    let expected = (u32::from(expected) + 2).div_euclid(4).max(1);
    let index = (expected as usize).min(LONG);
    let mut bits = expected;
    let mut longer = false;
    if !coder.decide(&mut chances.length[index], wanted == expected) {
        longer = expected == 1 || coder.decide(&mut chances.longer[index], wanted > expected);
        if longer {
            bits += 1;
            while bits < 64 {
                let far = (bits - expected - 1).min(8) as usize;
                if !coder.decide(&mut chances.up[far], wanted > bits) {
                    break;
                }
                bits += 1;
            }
        } else {
            bits -= 1;
            while bits > 1 {
                let far = (expected - bits - 1).min(8) as usize;
                if !coder.decide(&mut chances.down[far], wanted < bits) {
                    break;
                }
                bits -= 1;
            }
        }
    }
    let bits = bits.min(64);
    if bits < 2 {
        return 1;
    }
    let chance = &mut chances.second[usize::from(longer)][(bits as usize).min(12)];
    let second = coder.decide(chance, number >> (bits - 2) & 1 != 0);
    let rest = coder.bits(bits - 2, number) & ((1 << (bits - 2)) - 1);
    1 << (bits - 1) | u64::from(second) << (bits - 2) | rest
}

/// The bits of a number from its highest 1 on: 0 to 64.
fn length(number: u64) -> u32 {
    64 - number.leading_zeros()
}

/// 2^63 is its own negative.
fn signed(magnitude: u64, negative: bool) -> i64 {
    if negative { (magnitude as i64).wrapping_neg() } else { magnitude as i64 }
}

/// Where in [`Model::movers`] a difference stands.
fn bucket(moved: i64) -> usize {
    ((moved as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize
}
