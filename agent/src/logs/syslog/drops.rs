//! Datagrams that the kernel dropped because a socket's buffer was full: /proc/net/udp's last column
//! (net/ipv4/udp.c, udp4_format_sock). The agent's own network is asked, whichever host it looks at.

use std::fs::File;
use std::io::{BufRead as _, BufReader};

/// What was dropped at the sockets with these inodes.
pub(super) fn drops(inodes: &[u64]) -> u64 {
    if inodes.is_empty() {
        return 0;
    }
    let files = ["/proc/self/net/udp", "/proc/self/net/udp6"];
    files.iter().filter_map(|path| File::open(path).ok()).map(|file| of_file(file, inodes)).sum()
}

fn of_file(file: impl std::io::Read, inodes: &[u64]) -> u64 {
    let mut reader = BufReader::with_capacity(4 << 10, file);
    let mut line = Vec::new();
    let mut sum = 0;
    while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
        sum += of_line(&line)
            .filter(|(inode, _)| inodes.contains(inode))
            .map_or(0, |(_, drops)| drops);
        line.clear();
    }
    sum
}

/// Inode and drops of a socket's line.
fn of_line(line: &[u8]) -> Option<(u64, u64)> {
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace().skip(9);
    Some((fields.next()?.parse().ok()?, fields.nth(2)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_sockets_count_and_headers_and_foreign_lines_do_not() {
        let text = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            \x20 511: 0100007F:0202 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 12\n\
            \x20 512: 0100007F:0203 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 30\n\
            short line\n";
        assert_eq!(of_file(text.as_bytes(), &[4711]), 12);
        assert_eq!(of_file(text.as_bytes(), &[4712, 4711]), 42);
        assert_eq!(of_file(&b"\xff\n"[..], &[4711]), 0);
    }
}
