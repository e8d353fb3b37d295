//! Two ioctls that ask a disk for something: a SCSI command (SG_IO, include/scsi/sg.h, since Linux 2.6 on
//! block devices) and NVMe's Get Log Page (NVME_IOCTL_ADMIN_CMD, include/uapi/linux/nvme_ioctl.h). Neither
//! can send data to a disk. It must not know what the answers mean.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

/// SG_IO
const SG_IO: u32 = 0x2285;
/// _IOWR('N', 0x41, struct nvme_admin_cmd), where the size takes bits 16 to 29.
const NVME_IOCTL_ADMIN_CMD: u32 = 0xc000_4e41 | (size_of::<AdminCommand>() as u32) << 16;

const NVME_GET_LOG_PAGE: u8 = 0x02;
const NVME_ALL_NAMESPACES: u32 = 0xffff_ffff;

const SG_DXFER_NONE: i32 = -1;
const SG_DXFER_FROM_DEV: i32 = -3;

/// The longest sense data that a [`ScsiAnswer`] has; the kernel cuts what is longer.
const SENSE: usize = 64;

/// `struct sg_io_hdr`.
#[repr(C)]
struct SgIoHeader {
    interface_id: i32,
    dxfer_direction: i32,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: u32,
    dxferp: *mut c_void,
    cmdp: *const u8,
    sbp: *mut u8,
    timeout: u32,
    flags: u32,
    pack_id: i32,
    usr_ptr: *mut c_void,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: i32,
    duration: u32,
    info: u32,
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<SgIoHeader>() == 88);
    assert!(std::mem::offset_of!(SgIoHeader, dxferp) == 16);
    assert!(std::mem::offset_of!(SgIoHeader, timeout) == 40);
    assert!(std::mem::offset_of!(SgIoHeader, status) == 64);
};
#[cfg(target_pointer_width = "32")]
const _: () = {
    assert!(size_of::<SgIoHeader>() == 64);
    assert!(std::mem::offset_of!(SgIoHeader, dxferp) == 16);
    assert!(std::mem::offset_of!(SgIoHeader, timeout) == 28);
    assert!(std::mem::offset_of!(SgIoHeader, status) == 44);
};

/// `struct nvme_passthru_cmd`, which is `nvme_admin_cmd`; the same on 32 and 64 bits.
#[derive(Default)]
#[repr(C)]
struct AdminCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    nsid: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    addr: u64,
    metadata_len: u32,
    data_len: u32,
    cdw10: u32,
    cdw11: u32,
    cdw12: u32,
    cdw13: u32,
    cdw14: u32,
    cdw15: u32,
    timeout_ms: u32,
    result: u32,
}

const _: () = {
    assert!(size_of::<AdminCommand>() == 72);
    assert!(std::mem::offset_of!(AdminCommand, addr) == 24);
    assert!(std::mem::offset_of!(AdminCommand, cdw10) == 40);
    assert!(std::mem::offset_of!(AdminCommand, timeout_ms) == 64);
};

/// What a device said to a SCSI command.
#[derive(Clone, Copy, Debug)]
pub struct ScsiAnswer {
    /// The SCSI status: 0 is good, 2 has sense data.
    pub status: u8,
    /// How much of the data was filled.
    pub read: usize,
    sense: [u8; SENSE],
    sense_len: usize,
}

impl ScsiAnswer {
    /// An answer, as a test makes it.
    pub fn new(status: u8, read: usize, sense: &[u8]) -> ScsiAnswer {
        let mut answer = ScsiAnswer { status, read, sense: [0; SENSE], sense_len: 0 };
        for (to, from) in answer.sense.iter_mut().zip(sense) {
            *to = *from;
            answer.sense_len += 1;
        }
        answer
    }

    /// The sense data; empty if there is none.
    pub fn sense(&self) -> &[u8] {
        self.sense.get(..self.sense_len).unwrap_or_default()
    }
}

/// Sends a SCSI command that reads, or moves no data at all if `data` is empty.
///
/// # Errors
/// What the kernel said: no such ioctl, no right to this command (EPERM), a command that is longer than 255
/// bytes; and a command that did not reach the device or was not answered in time.
#[expect(unsafe_code, reason = "this request has no wrapper")]
pub fn scsi_read(
    device: BorrowedFd<'_>,
    command: &[u8],
    data: &mut [u8],
    timeout: Duration,
) -> io::Result<ScsiAnswer> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut sense = [0u8; SENSE];
    let direction = if data.is_empty() { SG_DXFER_NONE } else { SG_DXFER_FROM_DEV };
    let mut header = SgIoHeader {
        interface_id: i32::from(b'S'),
        dxfer_direction: direction,
        cmd_len: u8::try_from(command.len()).map_err(invalid)?,
        mx_sb_len: SENSE as u8,
        iovec_count: 0,
        dxfer_len: u32::try_from(data.len()).map_err(invalid)?,
        dxferp: if data.is_empty() { ptr::null_mut() } else { data.as_mut_ptr().cast() },
        cmdp: command.as_ptr(),
        sbp: sense.as_mut_ptr(),
        timeout: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        flags: 0,
        pack_id: 0,
        usr_ptr: ptr::null_mut(),
        status: 0,
        masked_status: 0,
        msg_status: 0,
        sb_len_wr: 0,
        host_status: 0,
        driver_status: 0,
        resid: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: `header` has the layout that SG_IO takes, checked above; it and what its pointers lead to
    // (the command, which is only read, `data` and `sense`, each with its own length) are borrowed until
    // the call returns, and the kernel writes nothing behind these lengths nor after the call, which waits
    // until the request has ended. A descriptor of something else answers with an error.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), SG_IO as _, &raw mut header) };
    outcome(result)?;
    if header.host_status != 0 {
        // DID_NO_CONNECT, DID_BUS_BUSY, DID_TIME_OUT and others (include/scsi/scsi_status.h).
        let kind =
            if header.host_status == 3 { io::ErrorKind::TimedOut } else { io::ErrorKind::Other };
        let text = format!("the command did not get through (host status {})", header.host_status);
        return Err(io::Error::new(kind, text));
    }
    let missing = usize::try_from(header.resid).unwrap_or(0);
    let read = data.len().saturating_sub(missing);
    let sense = sense.get(..usize::from(header.sb_len_wr)).unwrap_or(&sense);
    Ok(ScsiAnswer::new(header.status, read, sense))
}

/// Reads a log page of an NVMe controller, through its own device or one of its namespaces. Gives the
/// command's status, of which 0 is success.
///
/// # Errors
/// What the kernel said: no such ioctl, no right (EACCES), no answer in time; and a length that is not a
/// multiple of four.
#[expect(unsafe_code, reason = "this request has no wrapper")]
pub fn nvme_log_page(
    device: BorrowedFd<'_>,
    page: u8,
    data: &mut [u8],
    timeout: Duration,
) -> io::Result<u16> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let words = u16::try_from(data.len() / 4).map_err(|_| invalid())?;
    let last_word =
        words.checked_sub(1).filter(|_| data.len().is_multiple_of(4)).ok_or_else(invalid)?;
    let mut command = AdminCommand {
        opcode: NVME_GET_LOG_PAGE,
        nsid: NVME_ALL_NAMESPACES,
        addr: data.as_mut_ptr() as usize as u64,
        data_len: u32::from(words) * 4,
        cdw10: u32::from(last_word) << 16 | u32::from(page),
        timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        ..AdminCommand::default()
    };
    // SAFETY: `command` has the layout that the request takes, checked above; it and the `data_len` bytes at
    // `addr`, which are all of `data`, are borrowed until the call returns, and the kernel writes nothing
    // else nor after the call, which waits until the command has ended. The opcode reads. A descriptor of
    // something else answers with an error.
    let status =
        unsafe { libc::ioctl(device.as_raw_fd(), NVME_IOCTL_ADMIN_CMD as _, &raw mut command) };
    Ok(outcome(status)? as u16)
}

fn outcome(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    const SHORT: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_no_disk_refuses_and_nothing_is_written() {
        let mut data = [7u8; 512];
        for path in ["/dev/null", "/proc/self/status", "/"] {
            let file = File::open(path).unwrap();
            assert!(scsi_read(file.as_fd(), &[0; 6], &mut data, SHORT).is_err(), "{path}");
            assert!(scsi_read(file.as_fd(), &[0; 6], &mut [], SHORT).is_err(), "{path}");
            assert!(nvme_log_page(file.as_fd(), 2, &mut data, SHORT).is_err(), "{path}");
        }
        assert_eq!(data, [7; 512]);
    }

    #[test]
    fn lengths_that_no_request_can_have_are_refused() {
        let file = File::open("/dev/null").unwrap();
        let kind = |result: io::Result<()>| result.unwrap_err().kind();
        let scsi = scsi_read(file.as_fd(), &[0; 256], &mut [], SHORT).map(drop);
        assert_eq!(kind(scsi), io::ErrorKind::InvalidInput);
        for length in [0, 3, 510, 4 << 16] {
            let nvme = nvme_log_page(file.as_fd(), 2, &mut vec![0; length], SHORT).map(drop);
            assert_eq!(kind(nvme), io::ErrorKind::InvalidInput, "{length}");
        }
    }

    #[test]
    fn sense_data_is_as_long_as_it_is() {
        assert_eq!(ScsiAnswer::new(2, 0, &[1, 2]).sense(), [1, 2]);
        assert_eq!(ScsiAnswer::new(2, 0, &[9; 300]).sense(), [9; SENSE]);
        assert!(ScsiAnswer::new(0, 0, &[]).sense().is_empty());
    }

    #[test]
    fn the_request_of_nvme_has_the_kernels_number() {
        assert_eq!(NVME_IOCTL_ADMIN_CMD, 0xc048_4e41);
    }
}
