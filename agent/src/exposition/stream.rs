//! A text that comes in pieces, line by line: no more of it is in memory than a line. It must not know where
//! the pieces come from.

use memchr::memchr;

use super::{Dialect, Error, Event, MAX_LINE, MAX_TOKEN, Wrong, read_line};

/// A line's buffer that is kept for the next one.
const KEPT: usize = 4 << 10;

/// The last line of an OpenMetrics text (OpenMetrics 1.0, "Overall Structure").
const END: &[u8] = b"# EOF";

/// Reads a text in pieces.
#[derive(Debug)]
pub struct Stream {
    dialect: Dialect,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    line: u32,
    /// OpenMetrics' mark of its end has come.
    ended: bool,
}

impl Stream {
    /// A text of which nothing has come.
    pub fn new(dialect: Dialect) -> Stream {
        Stream { dialect, begun: Vec::new(), line: 0, ended: false }
    }

    /// The number of the line that the last event came from.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// Takes a piece, and gives out the events of the lines that are whole with it.
    ///
    /// # Errors
    /// A line that is not well formed, or what `each` says; nothing more may be fed then.
    pub fn feed<E: From<Error>>(
        &mut self,
        mut piece: &[u8],
        each: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(end) = memchr(b'\n', piece) {
            let (line, rest) = piece.split_at_checked(end).unwrap_or_default();
            piece = rest.get(1..).unwrap_or_default();
            self.line = self.line.saturating_add(1);
            if self.begun.is_empty() {
                one(line, self.dialect, self.line, &mut self.ended, each)?;
            } else {
                self.keep(line)?;
                self.take(each)?;
            }
        }
        Ok(self.keep(piece)?)
    }

    /// The text has ended: what has come of a last line is all of it.
    ///
    /// # Errors
    /// As [`feed`](Stream::feed).
    pub fn finish<E: From<Error>>(
        &mut self,
        each: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.begun.is_empty() {
            self.line = self.line.saturating_add(1);
            self.take(each)?;
        }
        if self.dialect == Dialect::OpenMetrics && !self.ended {
            let wrong: Wrong<'_> = (b"", "`# EOF` at the end, without which it may be cut off");
            return Err(error(wrong, self.line.saturating_add(1)).into());
        }
        Ok(())
    }

    fn take<E: From<Error>>(
        &mut self,
        each: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let read = one(&self.begun, self.dialect, self.line, &mut self.ended, each);
        self.begun.clear();
        self.begun.shrink_to(KEPT);
        read
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), Error> {
        if self.begun.len() + part.len() > MAX_LINE {
            let wrong = (self.begun.as_slice(), "a line of at most 64 KiB");
            return Err(error(wrong, self.line.saturating_add(1)));
        }
        self.begun.extend_from_slice(part);
        Ok(())
    }
}

fn one<E: From<Error>>(
    line: &[u8],
    dialect: Dialect,
    number: u32,
    ended: &mut bool,
    each: &mut impl FnMut(Event<'_>) -> Result<(), E>,
) -> Result<(), E> {
    if dialect == Dialect::OpenMetrics {
        if *ended {
            return Err(error((line, "nothing behind `# EOF`"), number).into());
        }
        *ended = line == END;
    }
    match read_line(line, dialect) {
        Ok(None) => Ok(()),
        Ok(Some(event)) => each(event),
        Err(wrong) => Err(error(wrong, number).into()),
    }
}

fn error((token, expected): Wrong<'_>, line: u32) -> Error {
    let token = String::from_utf8_lossy(token.get(..MAX_TOKEN * 4).unwrap_or(token));
    Error { line, token: token.chars().take(MAX_TOKEN).collect(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The samples of a text that comes in pieces of so many bytes, or what is wrong with it.
    fn read(text: &[u8], size: usize, dialect: Dialect) -> Result<Vec<String>, Error> {
        let mut stream = Stream::new(dialect);
        let mut out = Vec::new();
        let mut each = |event: Event<'_>| {
            if let Event::Sample { name, labels, value, timestamp } = event {
                let labels: Vec<_> = labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
                out.push(format!("{name} {} {value} {timestamp:?}", labels.join(",")));
            }
            Ok::<(), Error>(())
        };
        for piece in text.chunks(size) {
            stream.feed(piece, &mut each)?;
        }
        stream.finish(&mut each)?;
        Ok(out)
    }

    #[test]
    fn pieces_of_any_size_are_the_same_text() {
        let text = b"# HELP a \\d\n# TYPE a gauge\n\na{x=\"\\d\\\\\\n\\\"\"} 1 5\n  b\t2 7 \nc 3";
        let whole = read(text, text.len(), Dialect::Scrape).unwrap();
        assert_eq!(whole, ["a x=\\d\\\n\" 1 Some(5)", "b  2 Some(7)", "c  3 None"]);
        for size in 1..text.len() {
            assert_eq!(read(text, size, Dialect::Scrape).unwrap(), whole, "{size}");
        }
    }

    #[test]
    fn an_error_has_its_line_and_token_wherever_the_pieces_end() {
        let text = b"a 1\n\nb x\nc 2\n";
        for size in 1..text.len() {
            let error = read(text, size, Dialect::Scrape).unwrap_err();
            assert_eq!((error.line, error.token.as_str()), (3, "x"), "{size}");
        }
        for bad in
            ["a{b=\"1\",b=\"2\"} 1", "a{b=\"\\", "{} 1", "a 1 x", "a", "a\0 1", "# TYPE a foo"]
        {
            assert!(read(bad.as_bytes(), 3, Dialect::Scrape).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused_with_bounded_memory() {
        let mut stream = Stream::new(Dialect::Scrape);
        let piece = [b'a'; 1_000];
        let mut each = |_: Event<'_>| Ok::<(), Error>(());
        let error = (0..1_000).find_map(|_| stream.feed(&piece, &mut each).err()).unwrap();
        assert_eq!((error.line, error.token.len()), (1, 80));
        assert!(stream.begun.capacity() <= 2 * MAX_LINE);
    }

    #[test]
    fn openmetrics_has_timestamps_in_seconds_and_exemplars() {
        let text = b"# TYPE a counter\n# UNIT a bytes\n# TYPE i info\na_total{x=\"1\"} 2.0 1520879607.789 # {trace=\"y\"} 1 5.5\n\
                     b 1 # {} 1\nc 3\n# EOF\n";
        let got = read(text, 7, Dialect::OpenMetrics).unwrap();
        assert_eq!(got, ["a_total x=1 2 Some(1520879607789)", "b  1 None", "c  3 None"]);
        assert!(read(b"a 1 2 3\n# EOF\n", 9, Dialect::OpenMetrics).is_err());
        assert!(read(b"# TYPE i info\n", 9, Dialect::Scrape).is_err());
    }

    #[test]
    fn openmetrics_without_its_end_is_cut_off_and_nothing_follows_it() {
        let expected = |text: &[u8], size| {
            let error = read(text, size, Dialect::OpenMetrics).unwrap_err();
            (error.line, error.expected)
        };
        for size in 1..9 {
            for whole in ["a 1\n# EOF\n", "a 1\n# EOF", "# EOF\n"] {
                assert!(read(whole.as_bytes(), size, Dialect::OpenMetrics).is_ok(), "{whole:?}");
            }
            for cut in ["a 1\n", "a 1", "a 1\n# EO", "a 1\n# EOF x\n", "\n\n"] {
                let (_, expected) = expected(cut.as_bytes(), size);
                assert!(expected.contains("at the end"), "{cut:?}");
            }
            assert_eq!(expected(b"a 1\n# EOF\nb 2\n", size), (3, "nothing behind `# EOF`"));
        }
        // It says nothing in the other format.
        let got = read(b"a 1\n# EOF\nb 2\n", 9, Dialect::Scrape).unwrap();
        assert_eq!(got.len(), 2);
    }
}
