//! What comes over D-Bus.

use mote::host::dbus::{Reader, read_header};

/// A message. What follows its header is read as each of the types that the agent asks for.
pub fn dbus(data: &[u8]) {
    let Ok((header, start)) = read_header(data) else { return };
    assert!(start <= data.len() && start % 8 == 0);
    assert!(!header.signature.contains('\0'));
    let big = data.first() == Some(&b'B');
    let body = data.get(start..).expect("checked above");
    let mut reader = Reader::new(body, big);
    let mut variant = reader.clone();
    if variant.variant().is_ok() {
        assert!(variant.position() <= body.len());
    }
    // Units: `a(ssssssouso)`.
    let mut units = || {
        let end = reader.array(8)?;
        while reader.position() < end {
            reader.align(8)?;
            for _ in 0..6 {
                assert!(!reader.string()?.contains('\0'));
            }
            assert!(reader.path()?.starts_with('/'));
            reader.u32()?;
            reader.string()?;
            reader.path()?;
        }
        reader.end()
    };
    if let Err(malformed) = units() {
        assert!(malformed.token.chars().count() <= 80 && !malformed.expected.is_empty());
    }
    assert!(reader.position() <= body.len());
}
