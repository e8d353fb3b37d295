//! What disks answer: the pages of ATA, NVMe and SCSI, sense data, and a disk that answers anything.

use std::io;

use mote::collector::smart::device::{Access, Report, Transport, read};
use mote::collector::smart::{ata, nvme, scsi};
use mote::host::ioctl::ScsiAnswer;

/// `[what u8] [bytes]`
pub fn smart(data: &[u8]) {
    let Some((&what, bytes)) = data.split_first() else { return };
    match what % 6 {
        0 => {
            let log = nvme::decode(bytes);
            assert_eq!(log.is_some(), bytes.len() >= 512);
            if let Some(log) = log {
                assert!(log.read_bytes.is_finite() && log.error_log_entries >= 0.0);
                assert!(log.temperature.is_none_or(|degrees| degrees >= -273.0));
            }
        }
        1 => {
            let health = scsi::exceptions(bytes);
            let both = [health.temperature, scsi::temperature(bytes)];
            assert!(both.into_iter().flatten().all(|degrees| (0.0..255.0).contains(&degrees)));
        }
        2 => {
            let sense = scsi::sense(bytes);
            assert!(sense.is_none_or(|sense| sense.key < 16));
            if let Some(registers) = ata::registers(bytes) {
                assert!(sense.is_some());
                let failed = registers.status & 1 != 0;
                assert!(!(failed && ata::is_standby(registers)));
                assert!(!(failed && ata::is_healthy(registers).is_some()));
            }
        }
        3 => pages(bytes),
        4 => {
            let identity = ata::identity(bytes);
            assert_eq!(identity.is_some(), bytes.len() >= 512);
            if let Some(identity) = identity {
                for text in [&identity.model, &identity.serial, &identity.firmware] {
                    assert!(text.trim() == text.as_str() && text.is_ascii());
                    assert!(!text.contains(|c: char| c.is_ascii_control()));
                }
            }
        }
        _ => {
            for access in [Access::Nvme, Access::Ata, Access::Bridge, Access::Scsi] {
                let mut disk = Disk { bytes, commands: 0 };
                let report = read(&mut disk, access, false);
                assert!(disk.commands <= 10, "{} commands", disk.commands);
                if let Ok(Report::Standby) = report {
                    assert!(disk.commands <= 2, "it was asked more");
                }
            }
        }
    }
}

/// Two pages, as they are and with checksums that are right.
fn pages(bytes: &[u8]) {
    let (data, limits) = bytes.split_at(bytes.len().min(512));
    let _ = ata::attributes(data);
    let mut attributes = ata::attributes(&sealed(data)).expect("its checksum is right");
    assert!(attributes.len() <= ata::MAX_ATTRIBUTES);
    ata::thresholds(&sealed(limits), &mut attributes).expect("its checksum is right");
    for (at, attribute) in attributes.iter().enumerate() {
        assert!(attribute.id != 0 && attribute.raw < 1 << 48);
        assert!(attributes.iter().skip(at + 1).all(|other| other.id != attribute.id));
        assert!(!attribute.is_failing() || attribute.threshold.is_some());
    }
    assert!(ata::temperature(&attributes).is_none_or(|degrees| (-40.0..=110.0).contains(&degrees)));
    assert!(ata::power_on_hours(&attributes).is_none_or(|hours| hours < 1 << 24));
    let _ = ata::power_cycles(&attributes);
}

fn sealed(bytes: &[u8]) -> [u8; 512] {
    let mut page = [0; 512];
    page.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let sum = page.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    page[511] = page[511].wrapping_sub(sum);
    page
}

/// Takes its answers from bytes: whether it fails, status, how much it reads, sense data, data.
struct Disk<'a> {
    bytes: &'a [u8],
    commands: usize,
}

impl Disk<'_> {
    fn take(&mut self, length: usize) -> &[u8] {
        let (taken, rest) = self.bytes.split_at(self.bytes.len().min(length));
        self.bytes = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn fill(&mut self, data: &mut [u8]) {
        let length = data.len();
        data.iter_mut().zip(self.take(length)).for_each(|(to, from)| *to = *from);
    }
}

impl Transport for Disk<'_> {
    fn scsi(&mut self, command: &[u8], data: &mut [u8]) -> io::Result<ScsiAnswer> {
        self.commands += 1;
        assert!(matches!(command.first(), Some(0x85 | 0x4d)), "a command that may write");
        if self.byte() == 0xff {
            return Err(io::Error::from_raw_os_error(5));
        }
        let (status, length) = (self.byte() & 0x7f, usize::from(self.byte()) % 33);
        let sense = self.take(length).to_vec();
        let read = data.len().min(usize::from(self.byte()) * 4);
        self.fill(data);
        Ok(ScsiAnswer::new(status, read, &sense))
    }

    fn log_page(&mut self, _: u8, data: &mut [u8]) -> io::Result<u16> {
        self.commands += 1;
        let status = u16::from_le_bytes([self.byte(), self.byte()]);
        self.fill(data);
        Ok(status)
    }
}
