//! What a line costs in the logs WAL: bytes and instructions of blocks of one line and of full ones, of a
//! log that is generated (the same on every machine) and of this machine's own, and what the choice of
//! zstd's level, window and context rests on.

use std::hint::black_box;

use benches::allocator::{Tally, allocated};
use benches::table::{Table, thousands};
use benches::{Result, valgrind};
use mote::encode::{decode_block, encode_block};
use mote::model::{Block, Labels};
use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound};

#[global_allocator]
static ALLOCATOR: Tally = Tally;

/// Bytes of lines in a full block, and what each line counts beside them: the agent's own numbers
/// (pipeline/files.rs, logs/file/chain.rs).
const BLOCK_BYTES: usize = 64 << 10;
const ENTRY_COST: usize = 48;

/// Lines of the generated log, and of the part of it that blocks to work on are taken from.
const LINES: usize = 100_000;
const FEW_LINES: usize = 2_000;

/// Logs that a Debian machine may have.
const OWN: [&str; 6] = [
    "/var/log/syslog",
    "/var/log/auth.log",
    "/var/log/kern.log",
    "/var/log/dpkg.log",
    "/var/log/alternatives.log",
    "/var/log/apt/term.log",
];

/// The first argument of this program's own runs under valgrind.
const REPEAT: &str = "--repeat";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => report(),
        [REPEAT, what, size, count] => repeat(what, size, count.parse()?),
        _ => Err("blocks takes no arguments".into()),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What a small server writes into its syslog: cron, SSH, systemd, the kernel's firewall, DHCP, a web
/// application, with addresses, ports, process numbers and durations that differ from line to line.
fn generated(lines: usize) -> String {
    let mut numbers = Numbers(3);
    let mut n = move |bound| numbers.below(bound);
    let mut text = String::new();
    let mut second = 0;
    for _ in 0..lines {
        second += n(3);
        let (h, m, s) = (second / 3600 % 24, second / 60 % 60, second % 60);
        let head = format!("Nov {:2} {h:02}:{m:02}:{s:02} pi", 1 + second / 86_400 % 30);
        let pid = 300 + n(30_000);
        let ip = format!("{}.{}.{}.{}", 1 + n(223), n(256), n(256), 1 + n(254));
        let port = 1024 + n(64_000);
        let user = ["root", "admin", "pi", "test", "ubuntu", "oracle"][n(6) as usize];
        let line = match n(20) {
            0 => {
                format!("CRON[{pid}]: (root) CMD (   cd / && run-parts --report /etc/cron.hourly)")
            }
            1 => format!(
                "CRON[{pid}]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)"
            ),
            2..5 => format!(
                "sshd[{pid}]: Failed password for invalid user {user} from {ip} port {port} ssh2"
            ),
            5 => format!(
                "sshd[{pid}]: Connection closed by authenticating user {user} {ip} port {port} [preauth]"
            ),
            6 => format!("systemd[1]: session-{}.scope: Deactivated successfully.", n(90_000)),
            7 => "systemd[1]: Started Session of User pi.".to_owned(),
            8..11 => format!(
                "kernel: [{:5}.{:06}] [UFW BLOCK] IN=eth0 OUT= MAC=dc:a6:32:{:02x}:{:02x}:{:02x} SRC={ip} DST=192.168.1.{} LEN={} TTL={} ID={} PROTO=TCP SPT={port} DPT={} SYN",
                second,
                n(1_000_000),
                n(256),
                n(256),
                n(256),
                2 + n(20),
                40 + n(30),
                30 + n(200),
                n(65_536),
                n(10_000)
            ),
            11 => format!(
                "dhclient[{}]: DHCPACK of 192.168.1.{} from 192.168.1.1 (xid=0x{:08x})",
                700,
                2 + n(20),
                n(1 << 32)
            ),
            12..19 => format!(
                "app[812]: level=info method={} path=/api/v1/items/{} status={} duration={}.{:03}ms bytes={} request={:016x}",
                ["GET", "GET", "GET", "POST", "PUT"][n(5) as usize],
                n(5_000),
                [200, 200, 200, 304, 404, 500][n(6) as usize],
                n(200),
                n(1_000),
                n(20_000),
                n(u64::MAX)
            ),
            _ => format!(
                "app[812]: level=warn msg=\"slow query\" table=orders rows={} ms={}",
                n(1_000_000),
                n(9_000)
            ),
        };
        text.push_str(&format!("{head} {line}\n"));
    }
    text
}

fn labels() -> Labels {
    let pairs = [("filename", "/var/log/syslog"), ("instance", "pi"), ("job", "file-logs")];
    // The names are valid and differ.
    Labels::from_pairs(pairs).unwrap_or_default()
}

/// Blocks as the agent's log follower fills them: to the bound, or of so many lines.
fn blocks(text: &str, most: usize) -> Vec<Block> {
    let labels = labels();
    let mut all = Vec::new();
    let mut block = Block::new();
    let mut now_ns = 1_795_000_000_123_456_789;
    for line in text.lines() {
        let size = block.text_len() + block.len() * ENTRY_COST;
        let full = size > 0 && size + line.len() + ENTRY_COST > BLOCK_BYTES;
        if full || block.len() == most {
            all.push(std::mem::take(&mut block));
            now_ns += 1_000_000_000;
        }
        if let Some(stream) = block.stream(&labels) {
            block.push(stream, now_ns, line);
            now_ns += 1;
        }
        block.set_position("file:/var/log/syslog", &position(now_ns as u64));
    }
    all.push(block);
    all
}

/// One file's position, as the log follower writes it; the offset rises.
fn position(offset: u64) -> Vec<u8> {
    let mut position = vec![1];
    position.extend_from_slice(&0xb302_u64.to_le_bytes());
    position.extend_from_slice(&131_842_u64.to_le_bytes());
    position.extend_from_slice(&(offset & 0xff_ffff).to_le_bytes());
    position.extend_from_slice(&[0x83, 0x92, 0x06, 0xe3, 0, 1, 0, 0]);
    position
}

fn encode(block: &Block, out: &mut Vec<u8>) {
    encode_block(block, block.positions().map(|p| (p.key, p.position)), out);
}

/// What the record would be with every number in fixed width and nothing compressed: counts of 2 and 4
/// bytes, lengths of 2, of lines 4, timestamps of 8.
fn fixed_width(block: &Block) -> usize {
    let pairs = |labels: &Labels| labels.iter().map(|(n, v)| 4 + n.len() + v.len()).sum::<usize>();
    let streams: usize = block.streams().iter().map(|labels| 2 + pairs(labels)).sum();
    let positions: usize = block.positions().map(|p| 4 + p.key.len() + p.position.len()).sum();
    let entries: usize = block.entries().map(|entry| 16 + entry.line.len()).sum();
    1 + 2 + streams + 4 + positions + 4 + entries
}

/// What is done again and again under valgrind, or timed.
enum Work {
    Encode,
    Decode,
    /// zstd alone on the lines, with the level and window given.
    Compress {
        level: i32,
        window_log: u32,
        kept: bool,
    },
    Decompress {
        kept: bool,
    },
}

impl Work {
    fn parse(what: &str) -> Result<Work> {
        let parts: Vec<&str> = what.split(',').collect();
        Ok(match parts.as_slice() {
            ["encode"] => Work::Encode,
            ["decode"] => Work::Decode,
            ["compress", level, window_log, kept] => Work::Compress {
                level: level.parse()?,
                window_log: window_log.parse()?,
                kept: *kept == "kept",
            },
            ["decompress", kept] => Work::Decompress { kept: *kept == "kept" },
            _ => return Err(format!("{what}: no such work").into()),
        })
    }

    fn run(&self, block: &Block, count: usize) -> Result<()> {
        let mut out = Vec::new();
        let raw = block.text(block.len()).as_bytes();
        match *self {
            Work::Encode => {
                for _ in 0..count {
                    out.clear();
                    encode(black_box(block), &mut out);
                    black_box(&out);
                }
            }
            Work::Decode => {
                encode(block, &mut out);
                let mut back = Block::new();
                for _ in 0..count {
                    back.clear();
                    decode_block(black_box(&out), &mut back)?;
                    black_box(&back);
                }
            }
            Work::Compress { level, window_log, kept } => {
                let mut context = None;
                for _ in 0..count {
                    let used = context.get_or_insert_with(|| compressor(level, window_log));
                    compress(used, black_box(raw), &mut out)?;
                    black_box(&out);
                    if !kept {
                        context = None;
                    }
                }
            }
            Work::Decompress { kept } => {
                compress(&mut compressor(1, 16), raw, &mut out)?;
                let mut back = Vec::with_capacity(raw.len());
                let mut context = None;
                for _ in 0..count {
                    let used = context.get_or_insert_with(DCtx::create);
                    used.decompress(&mut back, black_box(&out)).map_err(zstd_error)?;
                    black_box(&back);
                    if !kept {
                        context = None;
                    }
                }
            }
        }
        Ok(())
    }
}

fn compressor(level: i32, window_log: u32) -> CCtx<'static> {
    let mut context = CCtx::create();
    // Both are within what any zstd takes.
    let _ = context.set_parameter(CParameter::CompressionLevel(level));
    let _ = context.set_parameter(CParameter::WindowLog(window_log));
    context
}

fn compress(context: &mut CCtx<'_>, raw: &[u8], out: &mut Vec<u8>) -> Result<()> {
    out.clear();
    out.reserve(compress_bound(raw.len()));
    context.compress2(out, raw).map_err(zstd_error)?;
    Ok(())
}

fn zstd_error(code: usize) -> String {
    format!("zstd: {}", zstd::zstd_safe::get_error_name(code))
}

/// A block of one line, of ten, or a full one, from the middle of the generated log.
fn one(size: &str) -> Result<Block> {
    let most = match size {
        "full" => usize::MAX,
        lines => lines.parse()?,
    };
    let mut all = blocks(&generated(FEW_LINES), most);
    Ok(all.swap_remove(all.len() / 2))
}

fn repeat(what: &str, size: &str, count: usize) -> Result<()> {
    Work::parse(what)?.run(&one(size)?, count)
}

fn report() -> Result<()> {
    let generated = generated(LINES);
    let mut table = Table::new();
    sizes(&mut table, "generated", &generated)?;
    for path in OWN {
        if let Ok(text) =
            std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            && text.lines().count() >= 100
        {
            sizes(&mut table, path, &text)?;
        }
    }
    table.print("Bytes in the logs WAL, without the WAL's own 16 a record");

    let mut table = Table::new();
    for size in ["1", "10", "full"] {
        let block = one(size)?;
        let lines = block.len() as u64;
        let name =
            if size == "full" { format!("full, {lines} lines") } else { format!("{size} lines") };
        for what in ["encode", "decode"] {
            cost(&mut table, &name, what, size, &block, Some(lines))?;
        }
    }
    table.print("Work, generated log");

    let mut table = Table::new();
    for (level, window_log) in
        [(-1, 14), (1, 12), (1, 14), (1, 16), (2, 14), (2, 16), (3, 14), (3, 16)]
    {
        let name = format!("level {level}, window 2^{window_log}");
        let mut context = compressor(level, window_log);
        let (mut raw, mut packed, mut out) = (0, 0, Vec::new());
        for block in blocks(&generated, usize::MAX) {
            let text = block.text(block.len()).as_bytes();
            compress(&mut context, text, &mut out)?;
            raw += text.len();
            packed += out.len();
        }
        table.row(
            format!("{name}: ratio"),
            format!("{:.2}", raw as f64 / packed as f64),
            "lines of all full blocks alone",
        );
        table.row(
            format!("{name}: context"),
            thousands(context.sizeof() as u64),
            "bytes, ZSTD_sizeof_CCtx after them",
        );
        let what = format!("compress,{level},{window_log},fresh");
        cost(&mut table, &name, &what, "full", &one("full")?, None)?;
    }
    table.print("zstd's level and window");

    let mut table = Table::new();
    for size in ["1", "10", "full"] {
        let block = one(size)?;
        let raw = block.text(block.len()).as_bytes();
        let (mut packed, mut context, mut other) = (Vec::new(), compressor(1, 16), DCtx::create());
        compress(&mut context, raw, &mut packed)?;
        other.decompress(&mut Vec::with_capacity(raw.len()), &packed).map_err(zstd_error)?;
        let name = format!("{size}: {} bytes", thousands(raw.len() as u64));
        table.row(
            format!("{name}: compression context"),
            thousands(context.sizeof() as u64),
            "bytes, ZSTD_sizeof_CCtx",
        );
        table.row(
            format!("{name}: decompression context"),
            thousands(other.sizeof() as u64),
            "bytes, ZSTD_sizeof_DCtx",
        );
        for what in
            ["compress,1,16,fresh", "compress,1,16,kept", "decompress,fresh", "decompress,kept"]
        {
            cost(&mut table, &name, what, size, &block, None)?;
        }
    }
    table.print("A context for each block, or one that is kept");
    Ok(())
}

/// Bytes a line in blocks of one line, of ten and full ones.
fn sizes(table: &mut Table, name: &str, text: &str) -> Result<()> {
    for most in [1, 10, usize::MAX] {
        let (mut lines, mut bytes, mut fixed, mut records, mut out) = (0, 0, 0, 0, Vec::new());
        let mut largest = 0;
        for block in blocks(text, most) {
            out.clear();
            encode(&block, &mut out);
            lines += block.len();
            bytes += out.len();
            fixed += fixed_width(&block);
            records += 1;
            largest = largest.max(out.len());
        }
        let size = match most {
            usize::MAX => "full blocks".to_owned(),
            most => format!("blocks of {most}"),
        };
        let per = |total: usize| format!("{:.1}", total as f64 / lines as f64);
        let how = format!(
            "{lines} lines of {} bytes, {records} records, the largest {}; {} a line in fixed width",
            per(text.len()),
            thousands(largest as u64),
            per(fixed)
        );
        table.row(format!("{name}, {size}: bytes a line"), per(bytes), how);
        let ratio = format!("{:.2}", fixed as f64 / bytes as f64);
        table.row(format!("{name}, {size}: ratio"), ratio, "fixed width / record");
    }
    Ok(())
}

/// Rows for instructions, CPU time and allocations of one block; `lines` for a row a line.
fn cost(
    table: &mut Table,
    name: &str,
    what: &str,
    size: &str,
    block: &Block,
    lines: Option<u64>,
) -> Result<()> {
    const TIMES: usize = 200;
    let work = Work::parse(what)?;
    work.run(block, 20)?;
    let before = benches::cpu::own()?;
    let sum = allocated(|| work.run(block, TIMES).unwrap_or_default());
    let time = benches::cpu::own()?.saturating_sub(before);
    let micros = format!("{:.1} µs", time.as_secs_f64() * 1e6 / TIMES as f64);
    table.row(format!("{name}: {what}: CPU"), micros, format!("user + system, mean of {TIMES}"));
    let calls = format!("{:.1}", sum.calls as f64 / TIMES as f64);
    table.row(format!("{name}: {what}: allocations"), calls, "of Rust's, without zstd's own");
    if !valgrind::is_there() {
        table.row(format!("{name}: {what}: instructions"), "-", valgrind::MISSING);
        return Ok(());
    }
    let instructions = valgrind::instructions(&[REPEAT, what, size])?;
    table.row(format!("{name}: {what}: instructions"), thousands(instructions), valgrind::HOW);
    if let Some(lines) = lines {
        table.row(
            format!("{name}: {what}: instructions a line"),
            thousands(instructions / lines),
            "of the above",
        );
    }
    Ok(())
}
