//! Every profile can be read and used; which host gets which; the user wins.

use super::*;
use crate::config::{Config, documentation, parse_for};

const MIB: u64 = 1 << 20;

fn host(model: &str, mebibytes: u64) -> Facts {
    let model = Some(model.to_owned()).filter(|model| !model.is_empty());
    Facts { model, memory: Some(mebibytes * MIB), root: "/no/such/root".into() }
}

fn found(facts: &Facts) -> (&'static str, String) {
    let found = find(facts).unwrap();
    (found.name, found.by)
}

fn config(text: &str, facts: &Facts) -> Config {
    parse_for(text, Path::new("mote.toml"), &[], &|_| facts.clone()).unwrap()
}

#[test]
fn a_file_that_is_no_profile_is_missed() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let mut names: Vec<_> = PROFILES.iter().map(|(name, _)| format!("{name}.toml")).collect();
    names.sort();
    assert_eq!(files, names);
}

#[test]
fn every_profile_is_a_valid_configuration_within_its_own_bounds() {
    for (name, _) in PROFILES {
        let board = Board::named(name).unwrap();
        let config = config(&format!("agent.board = {name:?}"), &Facts::default());
        assert_eq!((config.board.name, config.board.by.as_str()), (name, "agent.board"));
        assert!(!board.description.is_empty() && !board.targets.is_empty(), "{name}");
        assert!(board.targets.iter().all(|target| target.contains("-linux-")), "{name}");
        assert!(!board.oldest_kernel.is_empty(), "{name}");
        // Live bytes, the program's own pages, the loader for a moment, maps and some page cache.
        let limit = config.agent.memory_limit;
        assert!(board.memory_high >= limit + 24 * MIB, "{name}");
        assert!(board.memory_max >= board.memory_high + 8 * MIB, "{name}");
        assert!(!name.contains("pi") || board.models.len() > 1, "{name}");
        let text = format!("{} {:?}", board.text, board.defaults);
        assert!(!text.contains("${"), "{name}");
    }
}

/// The reference shows the program's own defaults as the generic board's.
#[test]
fn the_generic_profile_is_what_the_reference_says() {
    let rows = documentation();
    let check = |table: &str, key: &str, value: &str| {
        let row = rows.iter().find(|row| row.table == table && row.key == key);
        let row = row.unwrap_or_else(|| panic!("no key {table}.{key}"));
        assert_eq!(row.default.trim_matches('"'), value, "{table}.{key}");
    };
    let mut checked = 0;
    let board = Board::named(GENERIC).unwrap();
    let mut tables: Vec<_> = vec![(String::new(), board.defaults())];
    while let Some((name, table)) = tables.pop() {
        for (key, _, node) in &table.entries {
            let below = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            match &node.value {
                document::Value::Table(table) => tables.push((below, table)),
                document::Value::String(value) => {
                    check(&name, key, value);
                    checked += 1;
                }
                other => panic!("{below} is {}", other.type_name()),
            }
        }
    }
    assert!(checked >= 6, "{checked}");
}

/// The models are those of the device trees of Raspberry Pi's kernels.
#[test]
fn a_board_is_known_by_its_model_and_its_memory() {
    for (model, mebibytes, board) in [
        ("Raspberry Pi Zero Rev 1.3", 427, "raspberry-pi-zero"),
        ("Raspberry Pi Zero W Rev 1.1", 427, "raspberry-pi-zero"),
        ("Raspberry Pi Model A Rev 2", 180, "raspberry-pi-zero"),
        ("Raspberry Pi Model B Plus Rev 1.2", 427, "raspberry-pi-zero"),
        ("Raspberry Pi Compute Module Rev 1.0", 427, "raspberry-pi-zero"),
        ("Raspberry Pi Zero 2 W Rev 1.0", 415, "raspberry-pi-zero-2"),
        ("Raspberry Pi 3 Model A Plus Rev 1.0", 415, "raspberry-pi-zero-2"),
        ("Raspberry Pi 2 Model B Rev 1.1", 920, "raspberry-pi-3"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", 906, "raspberry-pi-3"),
        ("Raspberry Pi Compute Module 3 Plus Rev 1.0", 906, "raspberry-pi-3"),
        ("Raspberry Pi 4 Model B Rev 1.4", 7_800, "raspberry-pi-4"),
        ("Raspberry Pi 400 Rev 1.0", 3_800, "raspberry-pi-4"),
        ("Raspberry Pi Compute Module 4 Rev 1.0", 900, "raspberry-pi-4"),
        ("Raspberry Pi Compute Module 4S Rev 1.0", 900, "raspberry-pi-4"),
        ("Raspberry Pi 5 Model B Rev 1.0", 8_000, "raspberry-pi-5"),
        ("Raspberry Pi 500 Rev 1.0", 8_000, "raspberry-pi-5"),
        ("Raspberry Pi Compute Module 5 Lite Rev 1.0", 2_000, "raspberry-pi-5"),
        // With total_mem=512 in config.txt.
        ("Raspberry Pi 4 Model B Rev 1.4", 430, "small"),
        ("Raspberry Pi 6 Model B Rev 1.0", 16_000, "generic"),
        ("Hardkernel ODROID-N2", 3_700, "generic"),
        ("", 430, "small"),
        ("", 3_900, "generic"),
    ] {
        let (name, by) = found(&host(model, mebibytes));
        assert_eq!(name, board, "{model:?}: {by}");
        let told = ["generic", "small"].contains(&name) || by.contains(&format!("{model:?}"));
        assert!(told && !by.is_empty(), "{by}");
    }
    // Nothing is known.
    assert_eq!(found(&Facts::default()).0, "generic");
    let unknown = Facts { model: Some("Raspberry Pi 4 Model B".into()), ..Facts::default() };
    assert_eq!(found(&unknown).0, "raspberry-pi-4");
}

#[test]
fn a_nas_is_known_by_what_its_maker_leaves_there() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    std::fs::write(root.path().join("etc/synoinfo.conf"), "").unwrap();
    let facts = |model, mebibytes| Facts { root: root.path().into(), ..host(model, mebibytes) };
    let (name, by) = found(&facts("", 1_900));
    assert!(name == "nas" && by.ends_with("etc/synoinfo.conf is there"), "{name} {by}");
    assert_eq!(found(&facts("", 490)).0, "small");
    // openmediavault on a Raspberry Pi is a Raspberry Pi.
    assert_eq!(found(&facts("Raspberry Pi 5 Model B Rev 1.0", 8_000)).0, "raspberry-pi-5");
}

#[test]
fn what_the_user_writes_wins_over_the_board() {
    let pi = host("Raspberry Pi Zero W Rev 1.1", 427);
    let default = config("", &pi);
    assert_eq!(default.board.describe().split(' ').next(), Some("raspberry-pi-zero"));
    assert_eq!((default.agent.memory_limit, default.wal.memory), (10 * MIB, 128 << 10));
    assert_eq!(default.wal.metrics_max_bytes, 32 * MIB);
    let text = "[agent]\nmemory_limit = \"20MiB\"\n[wal]\nmin_free = \"1MiB\"\n";
    let own = config(text, &pi);
    assert_eq!((own.agent.memory_limit, own.wal.min_free), (20 * MIB, MIB));
    // What the user's table leaves out is still the board's.
    assert_eq!(own.wal.memory, 128 << 10);
    let other = config("agent.board = \"nas\"\nwal.logs.max_bytes = \"8MiB\"", &pi);
    assert_eq!((other.wal.metrics_max_bytes, other.wal.logs_max_bytes), (128 * MIB, 8 * MIB));
    assert_eq!(other.agent.memory_limit, 24 * MIB);
    assert_eq!(config("agent.board = \"generic\"", &pi).agent.memory_limit, 16 * MIB);
}

#[test]
fn facts_come_from_the_hosts_own_files_and_nonsense_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let roots = Roots {
        proc: dir.path().join("proc"),
        sys: dir.path().join("sys"),
        root: dir.path().into(),
    };
    let write = |path: &str, bytes: &[u8]| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let facts = Facts::of(&roots);
    assert_eq!((facts.model, facts.memory), (None, None));
    write("sys/firmware/devicetree/base/model", b"Raspberry Pi 4 Model B Rev 1.4\0");
    write("proc/meminfo", b"MemTotal:        3884352 kB\nMemFree:  1 kB\n");
    let facts = Facts::of(&roots);
    assert_eq!(facts.model.as_deref(), Some("Raspberry Pi 4 Model B Rev 1.4"));
    assert_eq!(facts.memory, Some(3_884_352 << 10));
    write("proc/device-tree/model", b"Raspberry Pi Zero W Rev 1.1\0");
    assert_eq!(found(&Facts::of(&roots)).0, "raspberry-pi-zero");
    for (model, meminfo) in [
        (&b"\0\0"[..], &b"MemTotal: -1 kB\n"[..]),
        (&[0xff; 300], b"MemTotal:\n"),
        (&[b'x'; 257], b"MemTotal: 99999999999999999999 kB"),
        (b"", b"\xff\xfeMemTotal: 1 kB"),
        (b"\n", b"MemTotal: 18014398509481984 kB\n"),
    ] {
        write("proc/device-tree/model", model);
        write("sys/firmware/devicetree/base/model", model);
        write("proc/meminfo", meminfo);
        let facts = Facts::of(&roots);
        assert_eq!((facts.model, facts.memory), (None, None), "{model:?}");
    }
}

#[test]
fn sizes_are_written_as_systemd_reads_them() {
    for (bytes, text) in [(48 * MIB, "48M"), (1 << 30, "1G"), (1536, "1536"), (512 << 10, "512K")] {
        assert_eq!(systemd_size(bytes), text);
    }
}
