//! What datagram sockets have given and nobody has read yet: bounded, and full is a count. Nothing else of the
//! agent holds entries that are in no file: until they are in the WAL they are here alone.
//!
//! Senders of datagrams can't be told to wait: over UDP what nobody takes is dropped by the kernel, and a Unix
//! socket that nobody empties hangs every program of the host in syslog(). So the sockets are always emptied, and
//! what has no room is dropped here, where it can be counted.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::IpAddr;

use tokio::sync::Notify;

use super::Origin;

/// Bytes of messages that may wait, each with what it costs beside its text.
const MAX_BYTES: usize = 256 << 10;
/// What a message costs beside its text.
const COST: usize = std::mem::size_of::<Item>();
/// Memory that is kept while nothing waits.
const KEPT: usize = 8 << 10;

/// Where a message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sender {
    /// Which socket it came through, see [`Sockets::open`](super::Sockets).
    pub(super) socket: u16,
    pub(super) origin: Origin,
    /// Another machine's address.
    pub(super) ip: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    length: usize,
    received_ns: i64,
    sender: Sender,
    cut: bool,
}

/// A message that has waited.
#[derive(Debug)]
pub(super) struct Received<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) received_ns: i64,
    pub(super) sender: Sender,
    /// The datagram was larger than anything that is read at once.
    pub(super) cut: bool,
}

/// What was not kept.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    /// Messages without room.
    pub(super) lost: u64,
    /// Messages of senders that are not allowed.
    pub(super) refused: u64,
    /// Receptions that failed.
    pub(super) errors: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    text: Vec<u8>,
    /// Bytes of `text` that have been taken.
    taken: usize,
    items: VecDeque<Item>,
    losses: Losses,
}

impl Waiting {
    fn size(&self) -> usize {
        self.text.len() + COST * self.items.len()
    }
}

/// Messages in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: RefCell<Waiting>,
    filled: Notify,
    crowded: Notify,
}

impl Drop for Inbox {
    /// The agent ends.
    fn drop(&mut self) {
        let left = self.waiting.get_mut().items.len();
        if left > 0 {
            log::warn!("{left} syslog messages came while the agent ended, and are lost");
        }
    }
}

impl Inbox {
    /// Puts a message behind the others, or drops it.
    pub(super) fn put(&self, bytes: &[u8], received_ns: i64, sender: Sender, cut: bool) {
        let mut waiting = self.waiting.borrow_mut();
        let have = waiting.size();
        if have + bytes.len() + COST > MAX_BYTES && !waiting.items.is_empty() {
            waiting.losses.lost += 1;
            return;
        }
        waiting.text.extend_from_slice(bytes);
        waiting.items.push_back(Item { length: bytes.len(), received_ns, sender, cut });
        self.filled.notify_one();
        if have >= MAX_BYTES / 4 {
            self.crowded.notify_one();
        }
    }

    /// Hands the oldest message over. False if there is none.
    pub(super) fn take(&self, hand_over: impl FnOnce(Received<'_>)) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let Some(item) = waiting.items.pop_front() else { return false };
        let from = waiting.taken;
        waiting.taken += item.length;
        let bytes = waiting.text.get(from..waiting.taken).unwrap_or_default();
        let Item { received_ns, sender, cut, .. } = item;
        hand_over(Received { bytes, received_ns, sender, cut });
        if waiting.items.is_empty() {
            waiting.text.clear();
            waiting.taken = 0;
            if waiting.text.capacity() > KEPT {
                waiting.text = Vec::new();
                waiting.items = VecDeque::new();
            }
        } else if waiting.taken > MAX_BYTES / 4 {
            // While it never empties, what is taken gives way.
            let taken = std::mem::take(&mut waiting.taken);
            waiting.text.drain(..taken);
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.borrow().items.is_empty()
    }

    /// Ends when something may have come. Dropping it loses nothing: whoever waits looks first.
    pub(super) async fn filled(&self) {
        while self.is_empty() {
            self.filled.notified().await;
        }
    }

    /// Ends when so much has come that it has to be read. Dropping it loses nothing.
    pub(super) async fn crowded(&self) {
        while self.waiting.borrow().size() < MAX_BYTES / 4 {
            self.crowded.notified().await;
        }
    }

    /// Changes what is counted.
    pub(super) fn count(&self, change: impl FnOnce(&mut Losses)) {
        change(&mut self.waiting.borrow_mut().losses);
    }

    pub(super) fn losses(&self) -> Losses {
        self.waiting.borrow().losses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: Sender = Sender { socket: 0, origin: Origin::Local, ip: None };

    #[test]
    fn what_has_no_room_is_counted_and_the_rest_comes_in_order() {
        let inbox = Inbox::default();
        let mut put = 0u32;
        let mut took = 0u32;
        let mut take = |inbox: &Inbox| {
            inbox.take(|message| {
                assert_eq!(message.bytes[..4], took.to_le_bytes());
                took += 1;
            })
        };
        // Taking and putting in turn never fills it, however much goes through.
        for _ in 0..10_000 {
            inbox.put(&[&put.to_le_bytes()[..], &[0; 96]].concat(), 0, SENDER, false);
            put += 1;
            if put > 100 {
                assert!(take(&inbox));
            }
        }
        assert_eq!(inbox.losses().lost, 0);
        assert!(inbox.waiting.borrow().text.capacity() <= 2 * MAX_BYTES);
        while take(&inbox) {}
        assert_eq!(took, put);
        assert_eq!(inbox.waiting.borrow().text.capacity(), 0);

        for _ in 0..10_000 {
            inbox.put(&[7; 100], 0, SENDER, false);
        }
        let kept = std::iter::repeat_with(|| inbox.take(|_| ())).take_while(|more| *more).count();
        assert!(kept * (100 + COST) <= MAX_BYTES && kept > MAX_BYTES / 250);
        assert_eq!(inbox.losses().lost, 10_000 - kept as u64);
        // A single one always has room.
        inbox.put(&vec![0; 2 * MAX_BYTES], 0, SENDER, false);
        assert!(inbox.take(|message| assert_eq!(message.bytes.len(), 2 * MAX_BYTES)));
    }
}
