//! The names of the error numbers that devices and networks give, as labels and for people.

/// The name of a positive error number as errno.h has it (asm-generic/errno-base.h and errno.h, which all
/// architectures that Mote is built for share); the number itself where it is none of these.
pub(super) fn name(error: u32) -> String {
    let name = match error {
        1 => "EPERM",
        2 => "ENOENT",
        5 => "EIO",
        6 => "ENXIO",
        11 => "EAGAIN",
        12 => "ENOMEM",
        16 => "EBUSY",
        19 => "ENODEV",
        22 => "EINVAL",
        28 => "ENOSPC",
        30 => "EROFS",
        52 => "EBADE",
        61 => "ENODATA",
        62 => "ETIME",
        67 => "ENOLINK",
        71 => "EPROTO",
        75 => "EOVERFLOW",
        78 => "EREMCHG",
        74 => "EBADMSG",
        84 => "EILSEQ",
        85 => "ERESTART",
        95 => "EOPNOTSUPP",
        109 => "ETOOMANYREFS",
        110 => "ETIMEDOUT",
        111 => "ECONNREFUSED",
        113 => "EHOSTUNREACH",
        117 => "EUCLEAN",
        121 => "EREMOTEIO",
        122 => "EDQUOT",
        123 => "ENOMEDIUM",
        125 => "ECANCELED",
        other => return other.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_those_of_this_machines_headers() {
        for (number, name) in [
            (libc::EIO, "EIO"),
            (libc::EOVERFLOW, "EOVERFLOW"),
            (libc::EREMCHG, "EREMCHG"),
            (libc::ETOOMANYREFS, "ETOOMANYREFS"),
            (libc::ENODATA, "ENODATA"),
            (libc::EILSEQ, "EILSEQ"),
            (libc::ETIMEDOUT, "ETIMEDOUT"),
            (libc::EREMOTEIO, "EREMOTEIO"),
            (libc::ENOMEDIUM, "ENOMEDIUM"),
            (libc::EBADE, "EBADE"),
            (libc::EUCLEAN, "EUCLEAN"),
            (libc::ENOLINK, "ENOLINK"),
        ] {
            assert_eq!(super::name(number as u32), name);
        }
        assert_eq!(super::name(4_000), "4000");
    }
}
