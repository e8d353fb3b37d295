//! What a daemon may send: a log in frames or raw, a position, and descriptions of containers.

use mote::logs::docker::{Frames, Mark, Output, fuzz_said};

use super::bytes::Input;

type Message = (Output, Option<i64>, Vec<u8>, bool, bool);

fn read(bytes: &[u8], size: usize, max: usize) -> (Vec<Message>, bool) {
    let mut frames = Frames::new(max);
    let mut all = Vec::new();
    for part in bytes.chunks(size.max(1)) {
        let fed = frames.feed(part, false, &mut |m| {
            all.push((m.output, m.timestamp_ns, m.text.to_vec(), m.partial, m.cut));
        });
        assert!(frames.held() <= 4 * (max + 100), "{} bytes are held", frames.held());
        if fed.is_err() {
            return (all, false);
        }
    }
    frames.finish(&mut |m| {
        all.push((m.output, m.timestamp_ns, m.text.to_vec(), m.partial, m.cut));
    });
    (all, true)
}

/// `[size u8] [max u8] [bytes]`: in whatever pieces they come, the messages are the same, within the bound.
pub fn docker_frames(data: &[u8]) {
    let mut input = Input(data);
    let size = usize::from(input.u8());
    let max = usize::from(input.u8()) * 129;
    let whole = read(input.0, input.0.len(), max);
    assert_eq!(read(input.0, size, max), whole);
    for (.., text, _, cut) in whole.0.iter().map(|(o, t, x, p, c)| (o, t, x, p, c)) {
        assert!(text.len() <= max && (*cut || text.len() <= input.0.len()));
    }
    if let Ok(mark) = Mark::decode(input.0) {
        assert_eq!(mark.encode(), input.0);
    }
    for text in fuzz_said(input.0) {
        assert!(text.len() <= 3 * 256 && !text.chars().any(char::is_control), "{text:?}");
    }
}
