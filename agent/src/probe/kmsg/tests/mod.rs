//! Lines that kernels have written, lines that look like them, and what several lines are together.

mod lines;
mod oom;
mod rules;
mod words;

use super::*;

/// A record of the kernel's.
fn record(usec: u64, text: &str) -> Record<'_> {
    Record { level: 3, facility: 0, seq: usec, usec, fragment: false, text }
}

/// What one message says by itself.
fn one(text: &str) -> Option<Finding> {
    Recognizer::new().look(&record(1_000_000, text))
}

/// What messages say that come one after the other, 10 µs apart.
fn all(texts: &[&str]) -> Vec<Finding> {
    let mut recognizer = Recognizer::new();
    let records = texts.iter().zip((1_000_000..).step_by(10));
    records.filter_map(|(text, usec)| recognizer.look(&record(usec, text))).collect()
}

/// A notice in one word: its kind, then its labels; a file system's kind after its device.
fn short(notice: &Notice) -> String {
    let labels = notice.labels();
    let mut labels: Vec<_> = labels.iter().map(|(_, value)| *value).collect();
    if let Notice::FilesystemError(error) = notice {
        labels.insert(1, error.filesystem);
    }
    format!("{} {}", notice.kind(), labels.join(" "))
}

fn field(event: &Event, name: &str) -> Option<String> {
    event.fields.iter().find(|(have, _)| *have == name).map(|(_, value)| value.clone())
}
