//! Lines of /proc/net/rpc/nfs and /proc/net/rpc/nfsd (net/sunrpc/stats.c): a word and numbers, of which the
//! first may count the others. It must not know what the numbers mean.

use super::parse::{FirstError, fields, lines, malformed, unsigned, whole};

/// What is wanted of a line.
pub(super) struct Line {
    pub(super) key: &'static str,
    /// Whether the first number says how many follow.
    pub(super) counted: bool,
    /// How many numbers there must be at least.
    pub(super) least: usize,
    /// How many are wanted; those that an older kernel lacks are 0.
    pub(super) wanted: usize,
}

/// Fills in the numbers of the lines, one line's behind the other's: 0 where the file lacks the line, none
/// where it is malformed. Other lines are passed over.
pub(super) fn read(
    file: &str,
    bytes: &[u8],
    known: &[Line],
    values: &mut [Option<u64>],
    errors: &mut FirstError,
) {
    values.fill(Some(0));
    for line in lines(whole(file, bytes, errors)) {
        let key = fields(line).next().unwrap_or_default();
        let mut start = 0;
        for spec in known {
            let slots = values.get_mut(start..start + spec.wanted).unwrap_or_default();
            start += spec.wanted;
            if spec.key.as_bytes() != key {
                continue;
            }
            slots.fill(Some(0));
            if let Err((token, expected)) = fill(line, spec, slots) {
                slots.fill(None);
                errors.note(malformed(file, token, expected));
            }
        }
    }
}

fn fill<'a>(
    line: &'a [u8],
    spec: &Line,
    slots: &mut [Option<u64>],
) -> Result<(), (&'a [u8], &'static str)> {
    let mut numbers = fields(line).skip(1);
    if spec.counted {
        let count = numbers.next().and_then(unsigned);
        if count != Some(numbers.clone().count() as u64) {
            return Err((line, "how many numbers follow, and those"));
        }
    }
    if numbers.clone().count() < spec.least {
        return Err((line, "as many numbers as the line has"));
    }
    for (slot, token) in slots.iter_mut().zip(numbers) {
        *slot = Some(unsigned(token).ok_or((token, "a number"))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Line; 3] = [
        Line { key: "net", counted: false, least: 2, wanted: 2 },
        Line { key: "th", counted: false, least: 1, wanted: 1 },
        Line { key: "proc4", counted: true, least: 2, wanted: 4 },
    ];

    fn values(bytes: &str) -> (Vec<u64>, String) {
        let mut values = [None; 7];
        let mut errors = FirstError::default();
        read("nfs", bytes.as_bytes(), &KNOWN, &mut values, &mut errors);
        let error = errors.result().err().map(|error| error.to_string());
        (values.map(|value| value.unwrap_or(99)).to_vec(), error.unwrap_or_default())
    }

    #[test]
    fn what_a_kernel_lacks_is_zero_and_what_it_has_more_is_left_out() {
        assert_eq!(values("").0, [0; 7]);
        let (got, error) = values("th 8 0 0.000\nproc4 2 5 6\nnew x\nnet 1 2 3\n");
        assert_eq!((got, error.as_str()), (vec![1, 2, 8, 5, 6, 0, 0], ""));
        assert_eq!(values("proc4 5 1 2 3 4 5\n").0, [0, 0, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_malformed_line_costs_itself_and_is_named() {
        for (line, token) in [
            ("net 1", "net 1"),
            ("net 1 x", "\"x\""),
            ("net 1 99999999999999999999", "99999999999999999999"),
            ("proc4", "proc4"),
            ("proc4 1 5", "proc4 1 5"),
            ("proc4 18446744073709551615 5 6", "18446744073709551615"),
            ("proc4 3 5 6", "proc4 3"),
        ] {
            let (got, error) = values(&format!("th 8\n{line}\n"));
            assert_eq!(got[2], 8);
            assert!(got.contains(&99), "{line}");
            assert!(error.contains("nfs") && error.contains(token), "{error}");
        }
        let (got, error) = values("th 8\nnet 1 2");
        assert_eq!(got[..3], [0, 0, 8]);
        assert!(error.contains("net 1 2"), "{error}");
    }
}
