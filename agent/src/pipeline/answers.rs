//! Requests by the code of their answer. A server may say any code; what is beyond a table of fixed size is
//! counted together. It must not know what the codes mean.

/// Different codes that are counted one by one: more than a server and the proxies before it have.
const CODES: usize = 16;

/// Counts of answers, and of requests that had none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    codes: heapless::LinearMap<Option<u16>, u64, CODES>,
    /// Of further codes.
    others: u64,
}

impl Answers {
    /// Counts a request by its answer's code; none if there was no answer.
    pub(super) fn count(&mut self, code: Option<u16>) {
        if let Some(count) = self.codes.get_mut(&code) {
            *count += 1;
        } else if self.codes.insert(code, 1).is_err() {
            self.others += 1;
        }
    }

    /// Each code with its count, in the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Option<u16>, u64)> {
        self.codes.iter().map(|(code, count)| (*code, *count))
    }

    /// Answers with codes that the table has no room for.
    pub(super) fn others(&self) -> u64 {
        self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_beyond_the_table_are_counted_together_and_known_ones_go_on() {
        let mut answers = Answers::default();
        answers.count(None);
        (200..200 + CODES as u16 - 1).for_each(|code| answers.count(Some(code)));
        assert_eq!((answers.iter().count(), answers.others()), (CODES, 0));
        answers.count(Some(999));
        answers.count(Some(998));
        answers.count(Some(200));
        answers.count(None);
        assert_eq!((answers.iter().count(), answers.others()), (CODES, 2));
        let of = |code| answers.iter().find(|(have, _)| *have == code).map(|(_, count)| count);
        assert_eq!(
            (of(None), of(Some(200)), of(Some(201)), of(Some(999))),
            (Some(2), Some(2), Some(1), None)
        );
    }
}
