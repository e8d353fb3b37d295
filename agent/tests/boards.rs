//! `mote boards` by its output, on hosts that are made of a few files, and what `mote check` says of the board.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// A host of which these files are known.
fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn pi_zero() -> tempfile::TempDir {
    host(&[
        ("proc/device-tree/model", "Raspberry Pi Zero W Rev 1.1\0"),
        ("proc/meminfo", "MemTotal:         438768 kB\n"),
        ("proc/cmdline", "coherent_pool=1M cgroup_disable=memory root=/dev/mmcblk0p2\n"),
        ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n"),
    ])
}

/// `mote ARGUMENTS` on that host: exit code, standard output, standard error.
fn mote(host: &Path, arguments: &[&str], config: &str) -> (i32, String, String) {
    let file = host.join("mote.toml");
    let roots = ["proc", "sys"].map(|name| format!("{name} = {:?}\n", host.join(name))).concat();
    fs::write(&file, format!("[host]\n{roots}root = {host:?}\n{config}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mote"));
    let output = command.args(arguments).arg("--config").arg(&file).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_list_says_which_board_this_host_is_and_why() {
    let pi = pi_zero();
    let (code, text, errors) = mote(pi.path(), &["boards"], "");
    assert_eq!((code, errors.as_str()), (0, ""), "{text}");
    let why = "raspberry-pi-zero (/proc/device-tree/model is \"Raspberry Pi Zero W Rev 1.1\")";
    assert!(text.starts_with(&format!("this host is {why}\n")), "{text}");
    assert!(text.contains("\n* raspberry-pi-zero ") && text.matches("\n* ").count() == 1, "{text}");
    assert!(text.contains("would do: MemTotal is 428 MiB"), "{text}");
    assert!(text.contains("cgroup_enable=memory in /boot/firmware/cmdline.txt"), "{text}");
    let (code, text, _) = mote(pi.path(), &["boards", "--json"], "");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &value["board"]), (0, &"raspberry-pi-zero".into()));
    assert_eq!(value["memory_bytes"], 438_768 << 10);
    let boards = value["boards"].as_array().unwrap();
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards")).unwrap();
    assert_eq!(boards.len(), files.count());
    let matching: Vec<_> = boards.iter().filter(|board| board["matches"] == true).collect();
    assert!(matches!(matching[..], [board] if board["name"] == "raspberry-pi-zero"), "{text}");
    assert!(boards.iter().all(|board| board["memory_max_bytes"].as_u64().unwrap() > 0), "{text}");
}

#[test]
fn the_board_that_is_named_wins_and_check_says_so() {
    let pi = pi_zero();
    let (code, text, _) = mote(pi.path(), &["check"], "");
    assert!(
        code == 0 && text.contains("board: raspberry-pi-zero (/proc/device-tree/model"),
        "{text}"
    );
    let named = "[agent]\nboard = \"nas\"\n";
    let (code, text, _) = mote(pi.path(), &["check"], named);
    assert!(code == 0 && text.contains("board: nas (agent.board)\n"), "{text}");
    let (_, text, _) = mote(pi.path(), &["boards"], named);
    assert!(text.starts_with("this host is nas (agent.board)\n"), "{text}");
    let other = host(&[("proc/meminfo", "MemTotal: 8000000 kB\n")]);
    let (_, text, _) = mote(other.path(), &["check"], "");
    assert!(text.contains("board: generic (no other profile matches)\n"), "{text}");
}

#[test]
fn a_board_that_there_is_not_is_an_error_with_its_nearest_neighbour() {
    let pi = pi_zero();
    let wrong = "[agent]\nboard = \"raspbery-pi-5\"\n";
    let (code, _, errors) = mote(pi.path(), &["check"], wrong);
    assert_eq!(code, 2);
    assert!(errors.contains(":6:9: there is no board \"raspbery-pi-5\""), "{errors}");
    assert!(errors.contains("did you mean \"raspberry-pi-5\"?"), "{errors}");
    // It is where one looks for the right name.
    let (code, text, errors) = mote(pi.path(), &["boards"], wrong);
    assert!(code == 0 && text.contains("raspberry-pi-5 "), "{text}");
    assert!(errors.contains("there is no board"), "{errors}");
    for (words, part) in [
        (&["boards", "show"][..], "needs a board's name"),
        (&["boards", "show", "raspberry-pi4"], "did you mean \"raspberry-pi-4\"?"),
        (&["boards", "unit", "vax"], "`mote boards` lists"),
        (&["boards", "shwo"], "no such use"),
        (&["boards", "unit", "nas", "--json"], "--json goes with the list"),
    ] {
        let (code, text, errors) = mote(pi.path(), words, "");
        assert_eq!((code, text.as_str()), (2, ""), "{words:?}");
        assert!(errors.contains(part), "{words:?} {errors}");
    }
}

#[test]
fn a_profile_is_shown_whole_and_its_drop_in_is_systemds() {
    let pi = pi_zero();
    let (code, text, _) = mote(pi.path(), &["boards", "show", "nas"], "");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards/nas.toml");
    assert_eq!((code, text), (0, fs::read_to_string(file).unwrap()));
    let (code, text, _) = mote(pi.path(), &["boards", "unit"], "");
    assert!(code == 0 && text.contains("\n[Service]\n"), "{text}");
    assert!(text.contains("\nMemoryHigh=36M\n") && text.contains("\nMemoryMax=48M\n"), "{text}");
    assert!(text.contains("# They do nothing here as it is: "), "{text}");
    let (_, text, _) = mote(pi.path(), &["boards", "unit", "nas"], "");
    assert!(text.contains("\nMemoryMax=96M\n") && !text.contains("do nothing here"), "{text}");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    assert!(lines.skip(1).all(|line| line.split_once('=').is_some()), "{text}");
}
