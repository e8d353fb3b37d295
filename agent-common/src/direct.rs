//! Fields that a program reads straight from its context, without a helper's call: the load instruction
//! has a number of a field where its offset will be, and the agent puts the offset there before it loads
//! the program. For programs that run often.
//!
//! The number is above every offset that a tracepoint's record can have (PERF_MAX_TRACE_SIZE, 8,192 bytes
//! since 5.18 and 2,048 before), so that it can't be taken for one.

/// The number of the first field.
pub const FIRST: i16 = 0x4000;

/// The numbers of a field's bytes: a load may begin at any byte of the first 32.
pub const STEP: i16 = 32;

/// The fields; each is a number.
macro_rules! fields {
    ($($name:ident = $index:literal),+ $(,)?) => {$(
        #[allow(missing_docs, reason = "tracepoint and field")]
        pub const $name: i16 = FIRST + STEP * $index;
    )+};
}

fields! {
    ISSUE_DEV = 0,
    ISSUE_SECTOR = 1,
    ISSUE_NR_SECTOR = 2,
    ISSUE_RWBS = 3,
    COMPLETE_DEV = 4,
    COMPLETE_SECTOR = 5,
    COMPLETE_NR_SECTOR = 6,
    COMPLETE_RWBS = 7,
}

/// The field of a load's offset and the bytes from the field's beginning; None for a real offset.
pub const fn parse(offset: i16) -> Option<(i16, u16)> {
    if offset < FIRST {
        return None;
    }
    let from_first = offset - FIRST;
    let into = from_first % STEP;
    Some((offset - into, into as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_field_and_the_bytes_into_it() {
        assert_eq!(parse(ISSUE_DEV), Some((ISSUE_DEV, 0)));
        assert_eq!(parse(COMPLETE_RWBS + 3), Some((COMPLETE_RWBS, 3)));
        assert_eq!((parse(0), parse(8_191), parse(-8)), (None, None, None));
    }
}
