//! A DNS server that knows one answer for every name, or none (RFC 1035). It answers over UDP, at a loopback
//! address of its own, which takes root.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Says {
    /// There is no such name.
    Gone,
    /// The server has failed.
    Failed,
    /// Nothing.
    Nothing,
    /// 127.0.0.1.
    V4,
    /// ::1, and nothing of the other kind.
    V6,
}

pub struct Nameserver {
    address: &'static str,
    says: Arc<AtomicU8>,
    asked: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Nameserver {
    /// At port 53 of a loopback address.
    pub fn at(address: &'static str) -> Nameserver {
        let socket =
            UdpSocket::bind((address, 53)).expect("port 53 of a loopback address, as root");
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let says = Arc::new(AtomicU8::new(Says::Gone as u8));
        let (asked, stopping) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (now, count, stop) = (Arc::clone(&says), Arc::clone(&asked), Arc::clone(&stopping));
        let thread = Some(std::thread::spawn(move || {
            let mut packet = [0; 512];
            while !stop.load(Ordering::SeqCst) {
                let Ok((length, client)) = socket.recv_from(&mut packet) else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                if let Some(answer) = answer(&packet[..length], now.load(Ordering::SeqCst)) {
                    let _ = socket.send_to(&answer, client);
                }
            }
        }));
        Nameserver { address, says, asked, stopping, thread }
    }

    pub fn say(&self, says: Says) {
        self.says.store(says as u8, Ordering::SeqCst);
    }

    /// Questions so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// For /etc/resolv.conf.
    pub fn resolv_conf(&self) -> String {
        format!("nameserver {}\noptions timeout:1 attempts:1\n", self.address)
    }
}

impl Drop for Nameserver {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(question: &[u8], says: u8) -> Option<Vec<u8>> {
    let is = |what: Says| says == what as u8;
    // A header of 12 bytes, labels up to an empty one, type and class.
    let name = question.get(12..)?.iter().position(|&byte| byte == 0)? + 1;
    let end = 12 + name + 4;
    let kind = u16::from_be_bytes([*question.get(end - 4)?, *question.get(end - 3)?]);
    if is(Says::Nothing) {
        return None;
    }
    let code = match () {
        () if is(Says::Gone) => 3,
        () if is(Says::Failed) => 2,
        () => 0,
    };
    let data: &[u8] = match kind {
        1 if is(Says::V4) => &[127, 0, 0, 1],
        28 if is(Says::V6) => &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        _ => &[],
    };
    let mut answer = question.get(..2)?.to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(!data.is_empty()), 0, 0, 0, 0]);
    answer.extend_from_slice(question.get(12..end)?);
    if !data.is_empty() {
        // The name of the question, for no time at all.
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 0, 0, data.len() as u8]);
        answer.extend_from_slice(data);
    }
    Some(answer)
}
