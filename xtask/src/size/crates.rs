//! To which crate a symbol belongs, by its name alone: the first crate that a Rust path names, and for C
//! the library by its prefix. Code of one crate that was made for a type of another (a `Vec` of ours)
//! counts where its path begins. It must not know what else is in a binary.

/// Prefixes of C and assembler, longest first where one begins with another.
const LIBRARIES: &[(&str, &str)] = &[
    ("ring_core_", "ring, C and assembler"),
    ("ZSTD", "zstd, C"),
    ("HUF_", "zstd, C"),
    ("FSE_", "zstd, C"),
    ("HIST_", "zstd, C"),
    ("ERR_", "zstd, C"),
    ("POOL_", "zstd, C"),
    ("XXH", "zstd, C"),
];

/// Everything else that Rust did not name.
const C_LIBRARY: &str = "C library and compiler";

/// The name of the crate or library.
pub(super) fn owner(symbol: &str) -> String {
    if let Ok(name) = rustc_demangle::try_demangle(symbol)
        && let Some(found) = first_crate(&format!("{name:#}"))
    {
        return found.to_owned();
    }
    let bare = symbol.trim_start_matches('_');
    let found = LIBRARIES.iter().find(|(prefix, _)| bare.starts_with(prefix));
    found.map_or(C_LIBRARY, |(_, library)| library).to_owned()
}

/// The first name of a path of which that is a crate: `mote` of `<mote::wal::Wal as Drop>::drop`, and
/// `core` of `<&str as core::fmt::Debug>::fmt`, since a type without a path is the language's own.
fn first_crate(path: &str) -> Option<&str> {
    let mut rest = path;
    while !rest.is_empty() {
        let start = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_')?;
        rest = rest.get(start..)?;
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, behind) = rest.split_at_checked(end)?;
        if behind.starts_with("::") || behind.starts_with('[') && behind.contains("]::") {
            return Some(name);
        }
        rest = behind;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_the_crate_that_it_names_first() {
        for (path, name) in [
            ("mote::wal::Wal::open", "mote"),
            ("<mote::wal::Wal as core::ops::drop::Drop>::drop", "mote"),
            ("<&mut [hyper::Body] as core::fmt::Debug>::fmt", "hyper"),
            ("<&str as core::fmt::Debug>::fmt", "core"),
            ("<dyn tokio::io::AsyncRead + core::marker::Send>::poll", "tokio"),
            ("core::ptr::drop_in_place::<mote::wal::Wal>", "core"),
            (
                "<fn(u8) -> regex_automata::Input as alloc::string::ToString>::to_string",
                "regex_automata",
            ),
        ] {
            assert_eq!(first_crate(path), Some(name), "{path}");
        }
        for path in ["", "::", "<>", "main", "é", "[]"] {
            assert_eq!(first_crate(path), None, "{path}");
        }
    }

    #[test]
    fn both_manglings_and_c_have_an_owner() {
        for (symbol, name) in [
            ("_ZN4mote3wal4open17h0123456789abcdefE", "mote"),
            ("_RNvNtCs1234_4mote3wal4open", "mote"),
            ("ring_core_0_17_14__aes_hw_encrypt", "ring, C and assembler"),
            ("ZSTD_compressStream2", "zstd, C"),
            ("memcpy", C_LIBRARY),
            ("_start", C_LIBRARY),
            ("_ZN", C_LIBRARY),
            ("_R", C_LIBRARY),
            ("", C_LIBRARY),
        ] {
            assert_eq!(owner(symbol), name, "{symbol}");
        }
    }
}
