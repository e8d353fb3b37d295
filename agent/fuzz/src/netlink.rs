//! Answers of the kernel's that are not text: netlink's messages, and a driver's names and numbers.

use mote::collector::fuzz_netlink;
use mote::host::netlink::{attributes, messages, u32_at};
use mote::model::Samples;

/// A piece of an answer, to a request with the number that its first message has; and as one message's body.
pub fn netlink(data: &[u8]) {
    let mut out = Samples::with_limit(100_000);
    let sequence = u32_at(data, 8).unwrap_or_default();
    let mut length = 0;
    let ended = messages(data, sequence, &mut |kind, body| {
        assert!(kind >= 16);
        length += 16 + body.len();
        let all: usize = attributes(body).map(|(_, value)| 4 + value.len()).sum();
        assert!(all <= body.len());
        fuzz_netlink(body, &mut out);
    });
    assert!(length <= data.len());
    if let Err(error) = ended {
        assert!(!error.to_string().is_empty());
    }
    fuzz_netlink(data, &mut out);
    for sample in out.iter() {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(sample.name().starts_with("node_") && sample.name().chars().all(is_name));
        assert!(sample.labels().is_sorted_by(|a, b| a.0 < b.0) && sample.value >= 0.0);
    }
}
