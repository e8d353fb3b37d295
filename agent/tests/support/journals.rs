//! Real journal files, made by Debian's `systemd-journal-remote` out of the export format, and what
//! `journalctl` says of them.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const REMOTE: &str = "/lib/systemd/systemd-journal-remote";

/// Entries in systemd's export format.
#[derive(Default)]
pub(crate) struct Export {
    pub(crate) bytes: Vec<u8>,
}

impl Export {
    /// Begins an entry: microseconds since 1970 and since the boot, and the boot.
    pub(crate) fn entry(&mut self, realtime: u64, monotonic: u64, boot: u128) -> &mut Export {
        if !self.bytes.is_empty() {
            self.bytes.push(b'\n');
        }
        let head = format!(
            "__REALTIME_TIMESTAMP={realtime}\n__MONOTONIC_TIMESTAMP={monotonic}\n_BOOT_ID={boot:032x}\n"
        );
        self.bytes.extend(head.bytes());
        self
    }

    /// A field of the entry, whatever its bytes.
    pub(crate) fn field(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Export {
        let value = value.as_ref();
        self.bytes.extend(name.bytes());
        if value.iter().any(|byte| *byte < b' ') {
            self.bytes.push(b'\n');
            self.bytes.extend((value.len() as u64).to_le_bytes());
        } else {
            self.bytes.push(b'=');
        }
        self.bytes.extend(value);
        self.bytes.push(b'\n');
        self
    }

    /// Makes a journal of it, or adds to one that is there.
    pub(crate) fn write(&self, path: &Path, compact: bool, keyed: bool, compress: bool) {
        let mut child = Command::new(REMOTE)
            .arg(format!("--compress={}", if compress { "yes" } else { "no" }))
            .arg("--output")
            .arg(path)
            .arg("-")
            .env("SYSTEMD_JOURNAL_COMPACT", if compact { "1" } else { "0" })
            .env("SYSTEMD_JOURNAL_KEYED_HASH", if keyed { "1" } else { "0" })
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{REMOTE}: {error}; run `cargo xtask setup`"));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&self.bytes).unwrap();
        stdin.write_all(b"\n").unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// An entry as both readers tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) seqnum_id: String,
    pub(crate) seqnum: u64,
    pub(crate) boot_id: String,
    pub(crate) monotonic: u64,
    pub(crate) realtime: u64,
    pub(crate) fields: BTreeMap<String, Vec<Vec<u8>>>,
}

/// What journalctl says of files or directories, by these arguments.
pub(crate) fn journalctl<S: AsRef<std::ffi::OsStr>>(
    arguments: impl IntoIterator<Item = S>,
) -> Vec<Told> {
    let output = Command::new("journalctl")
        .args(["--quiet", "--all", "--no-pager", "--output=json"])
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("journalctl: {error}; run `cargo xtask setup`"));
    let mut told = Vec::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let json: serde_json::Value = serde_json::from_slice(line).unwrap();
        told.push(entry(json.as_object().unwrap()));
    }
    told
}

fn entry(json: &serde_json::Map<String, serde_json::Value>) -> Told {
    let text = |name: &str| json.get(name).and_then(|value| value.as_str()).unwrap();
    let mut cursor = BTreeMap::new();
    for part in text("__CURSOR").split(';') {
        let (key, value) = part.split_once('=').unwrap();
        cursor.insert(key, value);
    }
    let mut fields = BTreeMap::new();
    for (name, value) in json.iter().filter(|(name, _)| !name.starts_with("__")) {
        let mut values = match value {
            serde_json::Value::Array(all) if all.iter().any(|one| !one.is_number()) => {
                all.iter().map(bytes).collect()
            }
            one => vec![bytes(one)],
        };
        values.sort();
        fields.insert(name.clone(), values);
    }
    Told {
        seqnum_id: cursor["s"].to_owned(),
        seqnum: u64::from_str_radix(cursor["i"], 16).unwrap(),
        boot_id: cursor["b"].to_owned(),
        monotonic: text("__MONOTONIC_TIMESTAMP").parse().unwrap(),
        realtime: text("__REALTIME_TIMESTAMP").parse().unwrap(),
        fields,
    }
}

/// Text, or numbers where it is none.
fn bytes(value: &serde_json::Value) -> Vec<u8> {
    match value {
        serde_json::Value::String(text) => text.as_bytes().to_vec(),
        serde_json::Value::Array(bytes) => {
            bytes.iter().map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap()).collect()
        }
        other => panic!("{other}"),
    }
}
