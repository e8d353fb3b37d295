//! What container runtimes answer over their sockets and leave in their files: HTTP, and JSON in it.

use mote::collector::fuzz_runtime;
use mote::host::http::answer;

/// The most bytes of an answer's body.
const MAX_BODY: usize = 1 << 20;

/// An answer of HTTP's with JSON, or JSON alone. The container that is looked for is called `ab`.
pub fn runtime(data: &[u8]) {
    json(data);
    let whole = answer(data);
    if let Ok(Some((code, body))) = &whole {
        assert!((200..1000).contains(code));
        assert!(body.len() <= data.len() && body.len() <= MAX_BODY);
        json(body);
    }
    // Nothing is said of a part that the whole takes back.
    for length in [data.len() / 4, data.len() / 2, data.len().saturating_sub(1)] {
        match answer(data.get(..length).unwrap_or_default()) {
            Ok(None) => {}
            said => assert_eq!(said, whole, "after {length} bytes"),
        }
    }
}

fn json(bytes: &[u8]) {
    for text in fuzz_runtime(bytes, "ab") {
        assert!(text.len() <= 256, "{text}");
    }
}
