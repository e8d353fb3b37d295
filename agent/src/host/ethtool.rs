//! What a network device's driver says of itself, by SIOCETHTOOL (net/ethtool/ioctl.c): link modes, the
//! driver's names and versions, and its statistics. It only asks, and needs no rights. It must not know what
//! the answers mean.
//!
//! The kernel writes as many strings and statistics as the driver has at that moment, however many the caller
//! has made room for. The buffer is therefore a mapping of its own with a page behind it that can't be
//! written: there the kernel's copying ends, with EFAULT.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::netlink::u32_at;

const SIOCETHTOOL: u32 = 0x8946;
const ETHTOOL_GSET: u32 = 0x1;
const ETHTOOL_GDRVINFO: u32 = 0x3;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSTATS: u32 = 0x1d;
const ETH_SS_STATS: u32 = 1;

/// `struct ethtool_drvinfo`
const DRVINFO: usize = 196;
/// ETH_GSTRING_LEN
const STRING: usize = 32;
/// IFNAMSIZ, with the NUL byte.
const NAME: usize = 16;
/// A device with more statistics is left alone; those with 64 queues have some 1500.
const MAX_STATISTICS: u32 = 4_096;
/// Room for the strings, rounded up to the largest pages that there are.
const ROOM: usize = 192 << 10;

/// `struct ifreq`
#[repr(C)]
struct Request {
    name: [u8; NAME],
    data: *mut c_void,
    /// The union is as large as its largest member, `struct ifmap`.
    rest: [usize; 2],
    #[cfg(target_pointer_width = "32")]
    more: usize,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Request>() == 40);
#[cfg(target_pointer_width = "32")]
const _: () = assert!(size_of::<Request>() == 32);

/// A socket to ask through, and the memory that answers come into.
#[derive(Debug)]
pub struct Ethtool {
    socket: OwnedFd,
    /// `ROOM` bytes that can be read and written, and a page that can't.
    room: *mut c_void,
    length: usize,
}

/// What a device can do, and what it offers to its peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Link modes, by their numbers in include/uapi/linux/ethtool.h, up to 31.
    pub supported: u32,
    /// As above.
    pub advertised: u32,
    /// Whether they are negotiated.
    pub autonegotiates: bool,
}

/// A driver; texts as the kernel gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Driver<'a> {
    /// Its name.
    pub driver: &'a [u8],
    /// The kernel's version, for drivers of the kernel.
    pub version: &'a [u8],
    /// Of the device.
    pub firmware_version: &'a [u8],
    /// Where the device is.
    pub bus_info: &'a [u8],
    /// Of the device.
    pub expansion_rom_version: &'a [u8],
    /// How many statistics it has at this moment.
    pub statistics: u32,
}

impl Ethtool {
    /// Opens a socket and maps memory.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn new() -> io::Result<Ethtool> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        let guard = rustix::param::page_size();
        let length = ROOM + guard;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        #[allow(unsafe_code, reason = "memory that ends where no one can write")]
        // SAFETY: A new mapping at a place of the kernel's choice touches no other memory. `ROOM` is a
        // multiple of every page size (4, 16 and 64 KiB), and so the guard is a whole page of this mapping.
        let room = unsafe {
            let room =
                rustix::mm::mmap_anonymous(ptr::null_mut(), length, prot, MapFlags::PRIVATE)?;
            // From here on it is unmapped by `drop`.
            let made = Ethtool { socket, room, length };
            rustix::mm::mprotect(room.byte_add(ROOM), guard, MprotectFlags::empty())?;
            made
        };
        Ok(room)
    }

    /// The link modes of a device.
    ///
    /// # Errors
    /// EOPNOTSUPP for a device without any, and whatever else the driver says.
    pub fn link(&mut self, device: &str) -> io::Result<Link> {
        let answer = self.ask(device, [ETHTOOL_GSET, 0, 0])?;
        let (_, rest) = answer.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        let autonegotiates = rest.get(14).is_some_and(|&byte| byte != 0);
        let supported = u32_at(rest, 0).unwrap_or_default();
        Ok(Link { supported, advertised: u32_at(rest, 4).unwrap_or_default(), autonegotiates })
    }

    /// The driver of a device.
    ///
    /// # Errors
    /// As [`link`](Ethtool::link).
    pub fn driver(&mut self, device: &str) -> io::Result<Driver<'_>> {
        let answer = self.ask(device, [ETHTOOL_GDRVINFO, 0, 0])?;
        Ok(driver(answer.get(..DRVINFO).unwrap_or_default()))
    }

    /// The names of a device's statistics, of which [`driver`](Ethtool::driver) has told the number.
    ///
    /// # Errors
    /// As [`link`](Ethtool::link), and if there are more than 4096.
    pub fn names(&mut self, device: &str, count: u32) -> io::Result<impl Iterator<Item = &[u8]>> {
        bounded(count)?;
        let answer = self.ask(device, [ETHTOOL_GSTRINGS, ETH_SS_STATS, count])?;
        let count = u32_at(answer, 8).unwrap_or_default();
        Ok(names(answer.get(12..).unwrap_or_default(), bounded(count)?))
    }

    /// The values of a device's statistics, in the order of their names.
    ///
    /// # Errors
    /// As [`names`](Ethtool::names).
    pub fn values(&mut self, device: &str, count: u32) -> io::Result<impl Iterator<Item = u64>> {
        bounded(count)?;
        let answer = self.ask(device, [ETHTOOL_GSTATS, count, 0])?;
        let count = u32_at(answer, 4).unwrap_or_default();
        Ok(values(answer.get(8..).unwrap_or_default(), bounded(count)?))
    }

    /// The memory after the answer to a request that begins with these words.
    fn ask(&mut self, device: &str, words: [u32; 3]) -> io::Result<&[u8]> {
        let mut name = [0; NAME];
        match name.get_mut(..device.len()).filter(|room| room.len() < NAME) {
            Some(room) => room.copy_from_slice(device.as_bytes()),
            None => return Err(io::ErrorKind::InvalidInput.into()),
        }
        let mut request = Request {
            name,
            data: self.room,
            rest: [0; 2],
            #[cfg(target_pointer_width = "32")]
            more: 0,
        };
        #[allow(unsafe_code, reason = "no wrapper of this ioctl exists")]
        // SAFETY: `room` is at least `ROOM` bytes, aligned to a page, and no slice of it lives, because this
        // borrows `self` mutably. The kernel reads and writes `request`, which is a `struct ifreq`, and from
        // `room` on upwards; at the guard behind it copying ends. None of the four commands changes a device.
        // What is read afterwards has been written by the kernel or is zero from the mapping's beginning.
        unsafe {
            self.room.cast::<[u32; 3]>().write(words);
            let request = &raw mut request;
            if libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL as _, request) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(std::slice::from_raw_parts(self.room.cast_const().cast(), ROOM))
        }
    }
}

impl Drop for Ethtool {
    fn drop(&mut self) {
        #[allow(unsafe_code, reason = "the mapping is ours")]
        // SAFETY: `new` has made this mapping, nobody else has its address, and slices of it borrow `self`.
        let _ = unsafe { rustix::mm::munmap(self.room, self.length) };
    }
}

fn bounded(count: u32) -> io::Result<u32> {
    match count {
        0..=MAX_STATISTICS => Ok(count),
        _ => Err(io::Error::other("more than 4096 statistics")),
    }
}

/// Reads a `struct ethtool_drvinfo`.
pub fn driver(bytes: &[u8]) -> Driver<'_> {
    let at = |start: usize| until_nul(bytes.get(start..start + STRING).unwrap_or_default());
    Driver {
        driver: at(4),
        version: at(36),
        firmware_version: at(68),
        bus_info: at(100),
        expansion_rom_version: at(132),
        statistics: u32_at(bytes, 180).unwrap_or_default(),
    }
}

/// Reads strings of 32 bytes each.
pub fn names(bytes: &[u8], count: u32) -> impl Iterator<Item = &[u8]> {
    bytes.chunks_exact(STRING).take(count as usize).map(until_nul)
}

/// Reads numbers of 64 bits each.
pub fn values(bytes: &[u8], count: u32) -> impl Iterator<Item = u64> {
    let (numbers, _) = bytes.as_chunks::<8>();
    numbers.iter().take(count as usize).map(|number| u64::from_ne_bytes(*number))
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_answer_is_empty_and_no_panic() {
        let mut bytes = [0; DRVINFO];
        bytes[4..8].copy_from_slice(b"veth");
        bytes[36..68].copy_from_slice(&[b'v'; 32]);
        bytes[180..184].copy_from_slice(&7u32.to_ne_bytes());
        let whole = driver(&bytes);
        assert_eq!(
            (whole.driver, whole.version, whole.statistics),
            (&b"veth"[..], &[b'v'; 32][..], 7)
        );
        for length in 0..DRVINFO {
            assert!(driver(&bytes[..length]).driver.len() <= 4);
        }
        assert_eq!(names(&bytes[..63], 4).count(), 1);
        assert_eq!(values(&bytes[..63], 9).count(), 7);
        assert_eq!(values(&bytes[..63], 2).count(), 2);
    }

    #[test]
    fn the_kernel_answers_or_refuses() {
        let mut ethtool = Ethtool::new().unwrap();
        // The loopback device has a number of no statistics, or no such operation.
        if let Ok(driver) = ethtool.driver("lo") {
            assert_eq!(driver.statistics, 0);
        }
        let error = ethtool.driver("no-such-device").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(ethtool.driver("a-name-of-sixteen").is_err());
        assert!(ethtool.names("lo", MAX_STATISTICS + 1).is_err());
    }

    #[test]
    fn the_kernel_stops_at_the_guard() {
        let ethtool = Ethtool::new().unwrap();
        let file = std::fs::File::open("/dev/zero").unwrap();
        #[allow(unsafe_code, reason = "the kernel shall write too much")]
        // SAFETY: What lies behind the mapping's memory is its guard, which can't be written.
        let count = unsafe { libc::read(file.as_raw_fd(), ethtool.room, ROOM + 1) };
        assert!(count <= ROOM as isize, "{count}");
    }
}
