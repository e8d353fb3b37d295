//! An event: something rare that has happened on the host, on its way to Loki as an entry of its own.

use std::fmt::Write as _;

use super::{Block, Labels};

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is, the label `event`: `oom_kill`, `io_error`, ….
    pub kind: &'static str,
    /// When it happened, in nanoseconds since the Unix epoch.
    pub timestamp_ns: i64,
    /// One sentence for people, without a line break.
    pub message: String,
    /// The details: names as in logfmt, any values.
    pub fields: Vec<(&'static str, String)>,
}

impl Event {
    /// An event without details.
    pub fn new(kind: &'static str, timestamp_ns: i64, message: impl Into<String>) -> Event {
        Event { kind, timestamp_ns, message: message.into(), fields: Vec::new() }
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Event {
        self.fields.push((name, value.into()));
        self
    }

    /// The labels of its stream: the agent's, `job="mote/events"` and `event`.
    pub fn labels(&self, agent: &Labels) -> Labels {
        let mut labels = agent.clone();
        labels.set("job", "mote/events");
        labels.set("event", self.kind);
        labels
    }

    /// The whole of it as one line of logfmt.
    pub fn line(&self) -> String {
        let mut line = String::new();
        write_pair(&mut line, "msg", &self.message);
        for (name, value) in &self.fields {
            line.push(' ');
            write_pair(&mut line, name, value);
        }
        line
    }

    /// Adds it to a block as an entry of the stream of [`labels`](Event::labels), the details also as
    /// structured metadata. False if the block has no room for another stream.
    pub fn write(&self, agent: &Labels, block: &mut Block) -> bool {
        let Some(stream) = block.stream(&self.labels(agent)) else { return false };
        let details = self.fields.iter().map(|(name, value)| (*name, value));
        block.push_with(stream, self.timestamp_ns, &self.line(), details);
        true
    }
}

/// `name=value`, the value in quotes where logfmt needs them.
fn write_pair(out: &mut String, name: &str, value: &str) {
    let plain = |c: char| c > ' ' && c != '=' && c != '"' && c != '\\' && c != '\u{7f}';
    if !value.is_empty() && value.chars().all(plain) {
        let _ = write!(out, "{name}={value}");
        return;
    }
    let _ = write!(out, "{name}=\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_logfmt_whatever_the_values_hold() {
        let event = Event::new("oom_kill", 7, "a \"b\" was killed")
            .with("pid", "12")
            .with("comm", "a b=c\\d")
            .with("empty", "")
            .with("odd", "x\ny\tz\u{1}");
        assert_eq!(
            event.line(),
            "msg=\"a \\\"b\\\" was killed\" pid=12 comm=\"a b=c\\\\d\" empty=\"\" odd=\"x\\ny\\tz\\u{1}\""
        );
    }

    #[test]
    fn entry_has_the_agents_labels_and_its_details_as_metadata() {
        let agent =
            Labels::from_pairs([("site", "home"), ("instance", "pi"), ("job", "x")]).unwrap();
        let mut block = Block::new();
        assert!(Event::new("io_error", 5, "bad").with("device", "sda").write(&agent, &mut block));
        let text = block.streams()[0].to_string();
        let wanted = "{event=\"io_error\", instance=\"pi\", job=\"mote/events\", site=\"home\"}";
        assert_eq!(text, wanted);
        let entry = block.entries().next().unwrap();
        assert_eq!((entry.timestamp_ns, entry.line), (5, "msg=bad device=sda"));
        assert!(entry.metadata.iter().eq([("device", "sda")]));
    }
}
