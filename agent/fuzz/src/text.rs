//! Texts that people and the kernel write: the configuration, a tracepoint's format, mounts.

use std::path::Path;

use mote::config::{Place, parse};
use mote::probe::{format, mountinfo};

/// The configuration's text; after a NUL byte each, arguments of `--set`.
pub fn config(data: &[u8]) {
    let all = String::from_utf8_lossy(data);
    let mut parts = all.split('\0').map(str::to_owned);
    let text = parts.next().unwrap_or_default();
    let sets: Vec<String> = parts.collect();
    let path = Path::new("fuzzed.toml");
    match parse(&text, path, &sets) {
        Ok(config) => {
            assert!(!config.agent.interval.is_zero());
            assert!(config.logs.files.iter().all(|file| !file.paths.is_empty()));
        }
        Err(error) => {
            assert!(!error.problem.is_empty());
            match &error.place {
                Place::File { path: at, line, column } => {
                    assert_eq!(at, path);
                    let line = text.split('\n').nth(line - 1);
                    let line = line.expect("a line of the text");
                    assert!((1..=line.chars().count() + 1).contains(column), "{error}");
                }
                Place::Set(set) => assert!(sets.iter().any(|s| s.starts_with(set)), "{error}"),
                Place::Whole(at) => assert_eq!(at, path),
            }
        }
    }
}

/// A `format` file of tracefs.
pub fn tracepoint_format(data: &[u8]) {
    match format::parse(data) {
        Ok(format) => {
            assert!(format.fields.len() <= 256);
            for (index, field) in format.fields.iter().enumerate() {
                assert!(u64::from(field.offset) + u64::from(field.size) <= 64 << 10);
                assert!(format.fields.iter().position(|f| f.name == field.name) == Some(index));
                assert_eq!(
                    format.number(&field.name, field.size).is_ok(),
                    !field.array && !field.located
                );
                assert_eq!(
                    format.array(&field.name, field.size).is_ok(),
                    field.array && !field.located
                );
            }
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && text.len() < 1 << 10, "{text}");
            if let format::FormatError::Line { line, .. } = error {
                assert!(data.split(|&byte| byte == b'\n').nth(line - 1).is_some(), "{text}");
            }
        }
    }
}

/// A `mountinfo` of procfs, behind the number of the device that is looked for.
pub fn mounts(data: &[u8]) {
    let Some((device, text)) = data.split_first_chunk() else { return };
    let found = mountinfo::find(text, u32::from_le_bytes(*device));
    assert!(found.places.len() <= 4);
    assert!(!found.places.is_empty() || found.source.is_empty());
    // No name is longer than what stands there, but for bytes that are no text.
    let longest = text.len() * 3;
    assert!(found.places.iter().chain([&found.source]).all(|name| name.len() <= longest));
}
