//! Streams and datagrams of syslog, of foreign bytes.

use mote::logs::syslog::{Frame, Framer, Listen, Message, Origin, Range, params};

use super::bytes::Input;

fn frames(stream: &[u8], piece: usize, max: usize) -> Vec<(Vec<u8>, bool)> {
    let mut framer = Framer::new(max);
    let mut all = Vec::new();
    let mut out = |frame: Frame<'_>| {
        assert!(!frame.bytes.is_empty() && frame.bytes.len() <= max.max(16));
        all.push((frame.bytes.to_vec(), frame.cut));
    };
    for piece in stream.chunks(piece) {
        framer.feed(piece, &mut out);
        assert!(framer.held() <= max.max(16));
    }
    framer.finish(&mut out);
    assert_eq!(framer.held(), 0);
    all
}

/// Whether a part is one of the whole's: nothing is made up.
fn lies_in(part: &[u8], whole: &[u8]) -> bool {
    let (part, whole) = (part.as_ptr_range(), whole.as_ptr_range());
    part.is_empty() || (whole.start <= part.start && part.end <= whole.end)
}

/// `[piece u8] [max u8] [stream]`: in pieces or whole, a stream has the same frames; each of them, and the stream
/// as one datagram, is a message of parts of its own bytes, the text its end.
pub fn syslog(data: &[u8]) {
    let mut input = Input(data);
    let piece = usize::from(input.u8()).max(1);
    let max = usize::from(input.u8());
    let stream = input.0;
    let all = frames(stream, piece, max);
    assert_eq!(all, frames(stream, stream.len().max(1), max));
    for bytes in all.iter().map(|(bytes, _)| bytes.as_slice()).chain([stream]) {
        for origin in [Origin::Local, Origin::Loopback, Origin::Remote] {
            let message = Message::parse(bytes, origin);
            assert!(message.priority.is_none_or(|priority| priority < 192));
            assert!(bytes.ends_with(message.text));
            for part in [
                message.host,
                message.tag,
                message.pid,
                message.msgid,
                message.structured,
                message.text,
            ] {
                assert!(lies_in(part, bytes));
            }
            assert!(origin != Origin::Local || message.host.is_empty() || bytes.contains(&b' '));
            let mut count = 0;
            for (id, name, value) in params(message.structured) {
                assert!(lies_in(id, bytes) && lies_in(name, bytes) && lies_in(value, bytes));
                count += 1;
            }
            assert!(count <= message.structured.len());
        }
    }
    if let Ok(text) = std::str::from_utf8(stream) {
        if let Ok(listen) = text.parse::<Listen>() {
            assert_eq!(listen.to_string().parse::<Listen>().as_ref(), Ok(&listen));
        }
        let _ = text.parse::<Range>();
    }
}
