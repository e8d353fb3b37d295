//! The program's own pages: what only the start has run, or nothing for long, is not kept resident. It must not know
//! when the start is over.

/// Lets go of the pages of code and constants, so that those come back that are used. They stay in the page cache
/// for as long as the system has room, so that coming back costs a fault and no reading; under pressure the
/// kernel can take what nobody has mapped at once.
///
/// Most of the program runs at a start or seldom: configuration, certificates, handshakes, recovery, the status page. It
/// is for after the start, and now and then: what is used comes back in pieces of 64 KiB (the kernel's fault-around),
/// and most of that stands together (agent/release.ld).
pub fn let_go_of_code() {
    // SAFETY: `release` is a callback as dl_iterate_phdr wants it, and makes no use of its last argument.
    #[allow(unsafe_code)]
    unsafe {
        libc::dl_iterate_phdr(Some(release), std::ptr::null_mut());
    }
}

/// Lets go of an object's read-only segments. The first object is the program; others are libraries, which more
/// programs have mapped, and the kernel's own.
#[allow(unsafe_code)]
unsafe extern "C" fn release(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    let page = rustix::param::page_size();
    // SAFETY: the caller passes a description that is valid until this returns, with as many program headers as
    // it says.
    let (base, headers) = unsafe {
        let info = &*info;
        if info.dlpi_phdr.is_null() {
            return 1;
        }
        (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)))
    };
    let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    for header in loaded.filter(|header| header.p_flags & libc::PF_W == 0) {
        let start = (base + header.p_vaddr) as usize;
        let end = start.saturating_add(header.p_filesz as usize);
        // Whole pages only: others may be shared with a segment that is written to.
        let (start, end) = (start.next_multiple_of(page), end / page * page);
        if start >= end {
            continue;
        }
        // SAFETY: a segment that is never written to is a private mapping of the file as it is there: dropped
        // pages come back with the same bytes. A position-independent program has no relocations in it; those
        // of constants are in segments with PF_W. A kernel that refuses has changed nothing.
        unsafe {
            libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED);
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_file_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn the_program_runs_on_with_less_of_itself_resident() {
        // Everything is touched that is there.
        let program = std::fs::read("/proc/self/exe").unwrap();
        assert!(!program.is_empty());
        let before = resident_file_kib();
        let_go_of_code();
        let after = resident_file_kib();
        assert!(after < before, "{before} KiB before, {after} KiB after");
        // Constants are as they were.
        assert_eq!(format!("{:?}", ["let", "go"]), r#"["let", "go"]"#);
    }
}
