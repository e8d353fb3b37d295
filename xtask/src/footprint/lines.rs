//! The log file of the measurement: 100 lines a second of 134 bytes each, as programs write them, each with
//! its number, so that a receiver can tell whether every one came, and came once.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::Result;

/// Bytes of a line, its line feed included.
pub(crate) const LENGTH: usize = 134;
/// From one line to the next.
const PAUSE: Duration = Duration::from_millis(10);
const MARK: &str = " request ";

/// One line, no two alike.
pub(crate) fn line(number: u64) -> String {
    let (user, took) = (number.wrapping_mul(2_654_435_761) % 10_007, number % 997);
    let mut text = format!(
        "2026-11-22T12:{:02}:{:02}.{:03}Z INFO gateway:{MARK}{number:08} of user {user:05} took {took:03} ms, \
         status 200, GET /api/v1/items/{:04} from backend-1",
        number / 6_000 % 60,
        number / 100 % 60,
        number % 100 * 10,
        user * 31 % 4_096
    );
    while text.len() < LENGTH - 1 {
        text.push('.');
    }
    text.push('\n');
    text
}

/// The number of such a line.
pub(crate) fn number(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(MARK)?;
    let number = rest.split_once(' ')?.0.parse().ok()?;
    // Whatever was lost or changed on the way is not the line.
    (self::line(number).trim_end() == line).then_some(number)
}

/// Writes lines until it is stopped.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Writer {
    /// Begins, each line by a write of its own.
    ///
    /// # Errors
    /// There can be no such file.
    pub(crate) fn start(path: &Path) -> Result<Writer> {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = thread::spawn(move || {
            let mut next = Instant::now();
            while !stopped.load(Ordering::SeqCst) {
                let number = count.load(Ordering::SeqCst);
                file.write_all(line(number as u64).as_bytes())?;
                count.store(number + 1, Ordering::SeqCst);
                next += PAUSE;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            Ok(())
        });
        Ok(Writer { stop, written, thread: Some(thread) })
    }

    /// Lines so far.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst) as u64
    }

    /// Ends it; how many lines there are.
    ///
    /// # Errors
    /// A write failed.
    pub(crate) fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::SeqCst);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => Err(format!("the log file could not be written: {error}")),
            Some(Err(_)) => Err("the writer of the log file has ended by itself".to_owned()),
            Some(Ok(Ok(()))) | None => Ok(self.written()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_length_and_tells_its_number_and_a_cut_one_does_not() {
        for of in [0, 1, 99, 100, 123_456, 99_999_999] {
            let text = line(of);
            assert_eq!(text.len(), LENGTH, "{text}");
            assert_eq!(number(text.trim_end()), Some(of));
            assert_eq!(number(&text[..100]), None);
        }
        assert_eq!(number("something else"), None);
        assert_eq!(number(" request x "), None);
    }
}
