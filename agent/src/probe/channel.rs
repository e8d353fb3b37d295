//! What the loader's child tells the agent: one packet for each probe, with the file descriptors of its
//! maps, programs and perf events. Unix sockets of type SEQPACKET keep the packets apart.
//!
//! A packet: version, probe, mode, maps, programs, events (one byte each), what the descriptors are for
//! beside a probe, a zero byte, then the reason as UTF-8. The descriptors come in the order maps,
//! programs, events.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::Transport;
use super::perf::Attachment;

const VERSION: u8 = 2;
const HEADER: usize = 8;
/// A verifier's last lines are a few hundred bytes.
const MAX_REASON: usize = 2048;
/// A probe has a few maps, and a program and an event for each tracepoint.
const MAX_FDS: usize = 24;

/// What became of a probe in the child.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The way of the events, whose map and rations this report brings; it is about no probe then.
    pub(super) transport: Option<Transport>,
    /// The probe's place in the table.
    pub(super) probe: u8,
    /// Whether its programs run.
    pub(super) attached: bool,
    /// Why not; or, for a probe that runs, what is missing. May be empty.
    pub(super) reason: String,
    /// Its maps in the order of its specification.
    pub(super) maps: Vec<OwnedFd>,
    /// Its programs in the order of its specification.
    pub(super) programs: Vec<OwnedFd>,
    /// The perf events that keep the programs attached.
    pub(super) events: Attachment,
}

/// Sends a report with its descriptors, which stay the caller's.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    report: &Report,
    maps: &[BorrowedFd<'_>],
    programs: &[BorrowedFd<'_>],
    events: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let fds = [maps, programs, events].concat();
    if fds.len() > MAX_FDS {
        return Err(io::Error::other("more descriptors than a packet takes"));
    }
    let count = |fds: &[BorrowedFd<'_>]| fds.len() as u8;
    let header = [
        VERSION,
        report.probe,
        u8::from(report.attached),
        count(maps),
        count(programs),
        count(events),
        report.transport.map_or(0, |transport| match transport {
            Transport::Ring => 1,
            Transport::Perf => 2,
        }),
        0,
    ];
    let mut end = report.reason.len().min(MAX_REASON);
    while !report.reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = report.reason.as_bytes().get(..end).unwrap_or_default();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("more descriptors than a packet takes"));
    }
    sendmsg(
        socket,
        &[IoSlice::new(&header), IoSlice::new(reason)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Receives the next report; None when the child has closed its end.
pub(super) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Report>> {
    let mut bytes = [0; HEADER + MAX_REASON];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message =
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds: Vec<OwnedFd> = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    if message.bytes == 0 {
        return Ok(None);
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::other("a packet of the loader's was cut off"));
    }
    match bytes.get(..message.bytes).and_then(|bytes| decode(bytes, fds)) {
        Some(report) => Ok(Some(report)),
        None => Err(io::Error::other("a packet of the loader's that makes no sense")),
    }
}

fn decode(bytes: &[u8], fds: Vec<OwnedFd>) -> Option<Report> {
    let (header, reason) = bytes.split_at_checked(HEADER)?;
    let &[VERSION, probe, attached @ (0 | 1), maps, programs, events, transport, 0] = header else {
        return None;
    };
    let transport = match transport {
        0 => None,
        1 => Some(Transport::Ring),
        2 => Some(Transport::Perf),
        _ => return None,
    };
    let [maps, programs, events] = [maps, programs, events].map(usize::from);
    if fds.len() != maps + programs + events {
        return None;
    }
    let mut fds = fds.into_iter();
    Some(Report {
        transport,
        probe,
        attached: attached == 1,
        reason: std::str::from_utf8(reason).ok()?.to_owned(),
        maps: fds.by_ref().take(maps).collect(),
        programs: fds.by_ref().take(programs).collect(),
        events: Attachment::new(fds.collect()),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let kind = SocketType::SEQPACKET;
        socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_report_arrives_with_its_descriptors_and_then_the_end() {
        let (ours, theirs) = pair();
        let file = File::open("/dev/null").unwrap();
        let report = Report { probe: 3, attached: true, reason: "ü".into(), ..Report::default() };
        let fd = file.as_fd();
        send(theirs.as_fd(), &report, &[fd, fd], &[fd], &[]).unwrap();
        drop(theirs);
        let got = receive(ours.as_fd()).unwrap().unwrap();
        assert_eq!((got.probe, got.attached, got.reason.as_str()), (3, true, "ü"));
        assert_eq!((got.maps.len(), got.programs.len(), got.events.len()), (2, 1, 0));
        assert!(receive(ours.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_long_reason_is_cut_between_two_characters() {
        let (ours, theirs) = pair();
        let report = Report { reason: "ü".repeat(MAX_REASON), ..Report::default() };
        let odd = Report { reason: format!("x{}", report.reason), ..Report::default() };
        for report in [report, odd] {
            send(theirs.as_fd(), &report, &[], &[], &[]).unwrap();
            let got = receive(ours.as_fd()).unwrap().unwrap();
            assert!(report.reason.starts_with(&got.reason) && got.reason.len() >= MAX_REASON - 1);
        }
    }

    #[test]
    fn packets_that_make_no_sense_are_refused() {
        for bytes in [
            &[VERSION, 0, 1, 0, 0, 0, 0][..],
            &[VERSION + 1, 0, 1, 0, 0, 0, 0, 0],
            &[VERSION, 0, 2, 0, 0, 0, 0, 0],
            &[VERSION, 0, 1, 1, 0, 0, 0, 0],
            &[VERSION, 0, 1, 0, 0, 0, 3, 0],
            &[VERSION, 0, 1, 0, 0, 0, 0, 0, 0xff],
            &[],
        ] {
            assert!(decode(bytes, Vec::new()).is_none(), "{bytes:?}");
        }
    }
}
