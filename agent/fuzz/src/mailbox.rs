//! Answers of a Raspberry Pi's firmware.

use mote::host::mailbox::{Malformed, Message, SUCCESS};

/// The bytes of an answer; once as they are, and once with the length and code of one that was taken.
pub fn mailbox(data: &[u8]) {
    let message = Message::from_bytes(data);
    let bytes = message.to_bytes();
    assert_eq!(bytes, data[..data.len() / 4 * 4]);
    let _ = walk(&message);
    if bytes.len() < 8 {
        return;
    }
    let mut taken = bytes;
    let length = taken.len() as u32;
    taken[..4].copy_from_slice(&length.to_le_bytes());
    taken[4..8].copy_from_slice(&SUCCESS.to_le_bytes());
    walk(&Message::from_bytes(&taken)).expect("it has the header of an answer");
}

/// The answer's tags are parts of it, one behind the other, and end.
fn walk(message: &Message) -> Result<(), Malformed> {
    let words = message.to_bytes().len() / 4;
    let mut seen = 2;
    let mut answers = message.answers()?;
    while let Some(answer) = answers.next() {
        let Ok(answer) = answer else {
            assert!(answers.next().is_none(), "tags behind an error");
            break;
        };
        seen += 3 + answer.values.len();
        assert!(answer.tag != 0 && seen <= words, "more tags than there is room for");
    }
    let mut again = message.clone();
    again.clear();
    assert!(again.is_empty());
    again.ask(1, &[2, 3]);
    assert_eq!(again.to_bytes().len(), 12 + 12 + 8);
    Ok(())
}
