//! File systems: what the programs on `ext4:ext4_error` and `filemap:filemap_set_wb_err` count and hand
//! over.

use crate::event::Header;
use crate::plain::plain;

plain!(FilesystemErrorKey);

/// The error of a structure on the disk that ext4 found to be wrong; no error's number.
pub const EXT4: u32 = 0;

/// The error's number in an `errseq_t` (lib/errseq.c: below ERRSEQ_SHIFT), positive as in errno.h; 0 for
/// none.
#[inline(always)]
pub const fn error(errseq: u32) -> u32 {
    errseq & 0xfff
}

/// What errors are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct FilesystemErrorKey {
    /// The file system's dev_t in the kernel's form: major << 20 | minor.
    pub device: u32,
    /// Why written data was lost, as a number of errno.h; or [`EXT4`].
    pub error: u32,
}

/// An error of a file system's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct FilesystemEvent {
    /// The kind is [`Kind::Filesystem`](crate::event::Kind::Filesystem).
    pub header: Header,
    /// Where, and which.
    pub key: FilesystemErrorKey,
    /// The inode whose data was lost; 0 for an error of ext4's.
    pub inode: u64,
    /// The line of ext4's source that found the error; 0 for lost data.
    pub line: u32,
    /// Always 0.
    pub padding: u32,
}

const _: () = {
    assert!(size_of::<FilesystemErrorKey>() == 8);
    assert!(size_of::<FilesystemEvent>() == 40);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errseq_is_an_error_a_flag_and_a_count() {
        assert_eq!((error(0), error(0x1000), error(0x7005), error(0x2fff)), (0, 0, 5, 0xfff));
    }
}
