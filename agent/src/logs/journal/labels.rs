//! What an entry's stream is called: the fields of the journal as the labels that users of Alloy and
//! Promtail know. It must not know how fields are stored or where entries go.
//!
//! | label | from |
//! |---|---|
//! | `unit` | `_SYSTEMD_USER_UNIT`, else `_SYSTEMD_UNIT`; but `SYSLOG_IDENTIFIER` where a message came by syslog and the unit is only a login session (`session-3.scope`) or a user's manager (`user@1000.service`) |
//! | `syslog_identifier` | `SYSLOG_IDENTIFIER` |
//! | `transport` | `_TRANSPORT` |
//! | `level` | `PRIORITY` as a word, those of Promtail's `__journal_priority_keyword` |
//!
//! A field that is absent or empty makes no label. Of a field that is there several times the first
//! counts, as in `journalctl -o cat`.

use std::borrow::Cow;

/// Loki refuses a label's value that is longer.
pub(super) const MAX_VALUE: usize = 2048;

/// The fields that make labels and tell parts, and how much of them is needed, in bytes.
pub(super) const NEEDED: [(&str, usize); 7] = [
    ("_SYSTEMD_UNIT", MAX_VALUE),
    ("_SYSTEMD_USER_UNIT", MAX_VALUE),
    ("SYSLOG_IDENTIFIER", MAX_VALUE),
    ("_TRANSPORT", MAX_VALUE),
    ("PRIORITY", MAX_VALUE),
    ("CONTAINER_PARTIAL_MESSAGE", 8),
    ("CONTAINER_PARTIAL_ID", 8),
];

/// What Docker's parts of a longer line have in bytes, at least (daemon/logger/copier.go).
pub(super) const PART: usize = 16 << 10;

/// The labels that are made of them, in the order of their values.
pub const LABELS: [&str; 4] = ["unit", "syslog_identifier", "transport", "level"];

/// The values of [`LABELS`] for an entry with these fields.
pub(super) fn values<'a>(get: impl Fn(&str) -> Option<&'a [u8]>) -> [Option<&'a [u8]>; 4] {
    let get = |name| get(name).filter(|value| !value.is_empty());
    let identifier = get("SYSLOG_IDENTIFIER");
    let transport = get("_TRANSPORT");
    let unit = match (get("_SYSTEMD_USER_UNIT"), get("_SYSTEMD_UNIT")) {
        (Some(own), _) => Some(own),
        (None, Some(unit)) if transport == Some(b"syslog") && is_login(unit) => {
            identifier.or(Some(unit))
        }
        (None, unit) => unit,
    };
    [unit, identifier, transport, get("PRIORITY").and_then(level)]
}

/// Whether a message goes on in the next entry. Docker says so of what a container ended with, too, if that had no
/// line end, which is not long; conmon, whose entries have no id for it, of parts alone, of any length.
pub(super) fn is_part<'a>(get: impl Fn(&str) -> Option<&'a [u8]>, is_long: bool) -> bool {
    get("CONTAINER_PARTIAL_MESSAGE") == Some(b"true")
        && (is_long || get("CONTAINER_PARTIAL_ID").is_none())
}

/// Whether a unit says no more than that somebody is logged in.
fn is_login(unit: &[u8]) -> bool {
    let within = |start: &[u8], end: &[u8]| unit.starts_with(start) && unit.ends_with(end);
    within(b"session-", b".scope") || within(b"user@", b".service")
}

/// syslog's severities.
fn level(priority: &[u8]) -> Option<&'static [u8]> {
    Some(match priority {
        b"0" => b"emerg",
        b"1" => b"alert",
        b"2" => b"crit",
        b"3" => b"error",
        b"4" => b"warning",
        b"5" => b"notice",
        b"6" => b"info",
        b"7" => b"debug",
        _ => return None,
    })
}

/// A value as text of at most so many bytes; what is not UTF-8 is replaced.
pub(super) fn text(value: &[u8], max: usize) -> Cow<'_, str> {
    // A character more than may stay, so that the cut makes no bad one of a good one.
    let near = value.get(..max.saturating_add(4)).unwrap_or(value);
    match String::from_utf8_lossy(near) {
        Cow::Borrowed(text) => {
            Cow::Borrowed(text.get(..text.floor_char_boundary(max)).unwrap_or(text))
        }
        Cow::Owned(mut text) => {
            text.truncate(text.floor_char_boundary(max));
            Cow::Owned(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(fields: &[(&str, &str)]) -> Vec<String> {
        let get = |name: &str| {
            let found = fields.iter().find(|(have, _)| *have == name);
            found.map(|(_, value)| value.as_bytes())
        };
        let named = LABELS.iter().zip(values(get));
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        named.filter_map(|(name, v)| v.map(|v| format!("{name}={}", text(v)))).collect()
    }

    #[test]
    fn services_have_their_unit_and_users_services_their_own() {
        assert_eq!(
            labels(&[
                ("_SYSTEMD_UNIT", "ssh.service"),
                ("SYSLOG_IDENTIFIER", "sshd"),
                ("_TRANSPORT", "syslog"),
                ("PRIORITY", "6"),
            ]),
            ["unit=ssh.service", "syslog_identifier=sshd", "transport=syslog", "level=info"]
        );
        assert_eq!(
            labels(&[
                ("_SYSTEMD_UNIT", "user@1000.service"),
                ("_SYSTEMD_USER_UNIT", "syncthing.service"),
                ("_TRANSPORT", "syslog"),
                ("SYSLOG_IDENTIFIER", "x"),
            ]),
            ["unit=syncthing.service", "syslog_identifier=x", "transport=syslog"]
        );
        assert_eq!(labels(&[("_SYSTEMD_UNIT", "init.scope")]), ["unit=init.scope"]);
    }

    #[test]
    fn a_login_session_is_called_by_its_program_where_that_spoke_syslog() {
        let session = |unit, transport, identifier| {
            labels(&[
                ("_SYSTEMD_UNIT", unit),
                ("_TRANSPORT", transport),
                ("SYSLOG_IDENTIFIER", identifier),
            ])
            .swap_remove(0)
        };
        assert_eq!(session("session-3.scope", "syslog", "sudo"), "unit=sudo");
        assert_eq!(session("session-c12.scope", "syslog", "su"), "unit=su");
        assert_eq!(session("user@1000.service", "syslog", "gnome"), "unit=gnome");
        assert_eq!(session("session-3.scope", "journal", "x"), "unit=session-3.scope");
        assert_eq!(session("session-3.scope", "syslog", ""), "unit=session-3.scope");
        assert_eq!(session("session.service", "syslog", "x"), "unit=session.service");
    }

    #[test]
    fn the_kernel_has_no_unit_and_odd_priorities_no_level() {
        assert_eq!(
            labels(&[("_TRANSPORT", "kernel"), ("PRIORITY", "3"), ("SYSLOG_IDENTIFIER", "kernel")]),
            ["syslog_identifier=kernel", "transport=kernel", "level=error"]
        );
        for odd in ["", "8", "-1", "06", "info", "66"] {
            assert_eq!(labels(&[("PRIORITY", odd)]), [""; 0], "{odd}");
        }
    }

    #[test]
    fn the_levels_are_the_words_that_dashboards_know() {
        let words = ["emerg", "alert", "crit", "error", "warning", "notice", "info", "debug"];
        for (priority, word) in words.iter().enumerate() {
            assert_eq!(labels(&[("PRIORITY", &priority.to_string())]), [format!("level={word}")]);
        }
    }

    #[test]
    fn values_are_cut_between_characters_and_made_text() {
        assert_eq!(text("aüb".as_bytes(), 2), "a");
        assert_eq!(text("aüb".as_bytes(), 3), "aü");
        assert_eq!(text(b"a\xffb", 9), "a\u{fffd}b");
        assert_eq!(text(b"\xff\xff", 4), "\u{fffd}");
        assert_eq!(text("ü".repeat(3000).as_bytes(), 2047).len(), 2046);
    }
}
