//! Messages as the RFCs' examples, as senders in the wild write them, and broken ones.

use super::Origin::{Local, Loopback, Remote};
use super::*;

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Priority, whether it has a time, host, tag, pid, text.
type Parts<'a> = (Option<u8>, bool, &'a str, &'a str, &'a str, &'a str);

fn parts(message: &str, origin: Origin) -> Parts<'_> {
    let m = Message::parse(message.as_bytes(), origin);
    assert_eq!((m.msgid, m.structured, m.malformed), (&b""[..], &b""[..], false), "{message}");
    (m.priority, m.stamp.is_some(), text(m.host), text(m.tag), text(m.pid), text(m.text))
}

#[test]
fn messages_of_the_wild_are_taken_apart() {
    let wild: &[(&str, Origin, Parts<'_>)] = &[
        // RFC 3164's own examples.
        (
            "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
            Loopback,
            (Some(34), true, "mymachine", "su", "", "'su root' failed for lonvick on /dev/pts/8"),
        ),
        ("Use the BFG!", Remote, (None, false, "", "", "", "Use the BFG!")),
        (
            "<13>Feb  5 17:32:18 10.0.0.99 Use the BFG!",
            Remote,
            (Some(13), true, "10.0.0.99", "", "", "Use the BFG!"),
        ),
        // glibc's and musl's syslog(), busybox' and Go's local form.
        (
            "<86>Nov 21 08:00:01 CRON[1234]: pam_unix(cron:session): opened",
            Local,
            (Some(86), true, "", "CRON", "1234", "pam_unix(cron:session): opened"),
        ),
        (
            "<13>Nov 21 08:00:01 root: hello there",
            Local,
            (Some(13), true, "", "root", "", "hello there"),
        ),
        ("<13>Nov 21 08:00:01 hello there", Local, (Some(13), true, "", "", "", "hello there")),
        // A relay on the same host, and a program without a tag.
        ("<13>Nov 21 08:00:01 nas smbd[7]: x", Loopback, (Some(13), true, "nas", "smbd", "7", "x")),
        ("<13>Nov 21 08:00:01 two words", Loopback, (Some(13), true, "", "", "", "two words")),
        ("<13>Nov 21 08:00:01 two words", Remote, (Some(13), true, "two", "", "", "words")),
        // Go's log/syslog over the network, rsyslog's RSYSLOG_ForwardFormat.
        (
            "<14>2024-01-02T03:04:05+01:00 nas prog[77]: text",
            Remote,
            (Some(14), true, "nas", "prog", "77", "text"),
        ),
        (
            "<14>2024-01-02T03:04:05.123456+01:00 nas kernel: x",
            Remote,
            (Some(14), true, "nas", "kernel", "", "x"),
        ),
        // Python's SysLogHandler has neither time nor tag.
        ("<14>just text", Loopback, (Some(14), false, "", "", "", "just text")),
        ("<14>prog: text", Loopback, (Some(14), false, "", "prog", "", "text")),
        ("<14>prog[5]: text", Loopback, (Some(14), false, "", "prog", "5", "text")),
        // Cisco: a counter, a clock that is not set, its host, the zone.
        (
            "<189>45: *Mar  1 18:46:11: %SYS-5-CONFIG_I: Configured from console",
            Remote,
            (Some(189), true, "", "", "", "%SYS-5-CONFIG_I: Configured from console"),
        ),
        (
            "<189>29: foo: .Apr 23 13:50:02.144 UTC: %SYS-5-CONFIG_I: x",
            Remote,
            (Some(189), true, "foo", "", "", "%SYS-5-CONFIG_I: x"),
        ),
        (
            "<166>Mar 01 2024 18:46:11: %ASA-6-302013: Built",
            Remote,
            (Some(166), true, "", "", "", "%ASA-6-302013: Built"),
        ),
        // AIX, and what daemons say of repetitions.
        (
            "<13>Nov 21 08:00:01 Message forwarded from aix7: sshd[9]: x",
            Remote,
            (Some(13), true, "aix7", "sshd", "9", "x"),
        ),
        (
            "<13>Nov 21 08:00:01 last message repeated 3 times",
            Remote,
            (Some(13), true, "", "", "", "last message repeated 3 times"),
        ),
        // Without a priority, with a time: a line of a log file.
        ("Nov 21 08:00:01 nas sshd[9]: x", Remote, (None, true, "nas", "sshd", "9", "x")),
        ("error: foo", Loopback, (None, false, "", "", "", "error: foo")),
        // Tags of all kinds, and what is none.
        (
            "<22>Nov 21 08:00:01 mx postfix/smtpd[12]: connect",
            Remote,
            (Some(22), true, "mx", "postfix/smtpd", "12", "connect"),
        ),
        ("<30>Nov 21 08:00:01 (systemd)[1]: x", Local, (Some(30), true, "", "(systemd)", "1", "x")),
        (
            "<30>Nov 21 08:00:01 a.b@c.service[1] x",
            Local,
            (Some(30), true, "", "a.b@c.service", "1", "x"),
        ),
        ("<30>Nov 21 08:00:01 app[1]:x", Local, (Some(30), true, "", "app", "1", "x")),
        ("<30>Nov 21 08:00:01 app:", Local, (Some(30), true, "", "app", "", "")),
        ("<30>Nov 21 08:00:01 http://x y", Local, (Some(30), true, "", "", "", "http://x y")),
        ("<30>Nov 21 08:00:01 a=b: c", Local, (Some(30), true, "", "", "", "a=b: c")),
        ("<30>Nov 21 08:00:01 12: c", Local, (Some(30), true, "", "", "", "12: c")),
        ("<30>Nov 21 08:00:01", Local, (Some(30), true, "", "", "", "")),
        // The space behind the tag is one, what follows is the text's own.
        ("<30>Nov 21 08:00:01 app:   x", Local, (Some(30), true, "", "app", "", "  x")),
    ];
    for (message, origin, expected) in wild {
        assert_eq!(parts(message, *origin), *expected, "{message}");
    }
}

#[test]
fn what_is_no_header_is_text_byte_by_byte() {
    for message in [
        "",
        "<",
        "<>",
        "<>x",
        "<192>x",
        "<1234>x",
        "<-1>x",
        "<1x>y",
        "< 13>x",
        "13>x",
        "<13",
        "\u{feff}<13>x",
        "\u{fc}\u{fc}",
        "<13><13",
    ] {
        for origin in [Local, Loopback, Remote] {
            let m = Message::parse(message.as_bytes(), origin);
            let text = message.strip_prefix("<13>").unwrap_or(message);
            assert_eq!(m.text, text.as_bytes(), "{message}");
            assert!(m.host.is_empty() && m.tag.is_empty());
        }
    }
    assert_eq!(Message::parse(b"<191>\xff\0", Remote).text, b"\xff\0");
}

#[test]
fn rfc_5424_with_its_examples() {
    let m = Message::parse(
        b"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \xef\xbb\xbf'su root' failed",
        Remote,
    );
    assert_eq!((m.priority, m.stamp), (Some(34), Some(Stamp::Exact(1_065_910_455_003_000_000))));
    assert_eq!((text(m.host), text(m.tag), text(m.pid)), ("mymachine.example.com", "su", ""));
    assert_eq!((text(m.msgid), text(m.text), m.malformed), ("ID47", "'su root' failed", false));

    let m = Message::parse(
        br#"<165>1 2003-10-11T22:14:15.003Z host evntslog 8710 ID47 [exampleSDID@32473 iut="3" eventSource="Application"][examplePriority@32473 class="high"] An event"#,
        Remote,
    );
    let got: Vec<_> = params(m.structured).map(|(i, n, v)| (text(i), text(n), text(v))).collect();
    assert_eq!(
        got,
        [
            ("exampleSDID@32473", "iut", "3"),
            ("exampleSDID@32473", "eventSource", "Application"),
            ("examplePriority@32473", "class", "high")
        ]
    );
    assert_eq!((text(m.pid), text(m.text)), ("8710", "An event"));

    // All nil, without a text; a higher version.
    let m = Message::parse(b"<0>1 - - - - - -", Local);
    assert_eq!(m, Message { priority: Some(0), ..Message::default() });
    let m = Message::parse(b"<0>12 - - a - - - b", Local);
    assert_eq!((text(m.tag), text(m.text)), ("a", "b"));
}

#[test]
fn structured_data_may_hold_brackets_and_escapes() {
    let m = Message::parse(br#"<0>1 - - - - - [a b="]\"\\\]\x" c=""][d] [x] y"#, Local);
    let values: Vec<_> = params(m.structured)
        .map(|(_, name, value)| {
            let mut out = Vec::new();
            unescape(value, &mut out);
            (text(name), String::from_utf8(out).unwrap())
        })
        .collect();
    assert_eq!(values, [("b", r#"]"\]\x"#.to_owned()), ("c", String::new())]);
    assert_eq!((text(m.text), m.malformed), ("[x] y", false));
}

#[test]
fn broken_structured_data_stays_in_the_text() {
    for rest in [r#"[a b="c] text"#, "[a", "text without any", r#"[a b="c"]text"#, "-text"] {
        let message = format!("<0>1 - h a p m {rest}");
        let m = Message::parse(message.as_bytes(), Local);
        assert_eq!((text(m.text), m.malformed), (rest, true));
        assert_eq!((text(m.tag), text(m.msgid), m.structured), ("a", "m", &b""[..]));
    }
    // Parameters without their form end the list, and nothing else.
    for (structured, count) in [
        ("[a b]", 0),
        ("[a b=c]", 0),
        (r#"[a b="c" d]"#, 1),
        ("[]", 0),
        ("[", 0),
        (r#"[a b=""c="d"]"#, 2),
    ] {
        assert_eq!(params(structured.as_bytes()).count(), count, "{structured}");
    }
}

#[test]
fn a_number_without_the_fields_behind_it_is_no_version() {
    for (message, expected) in [
        ("<13>1 2 3", "1 2 3"),
        ("<13>1 -", "1 -"),
        ("<13>0 - - - - - -", "0 - - - - - -"),
        ("<13>1000 - - - - - -", "1000 - - - - - -"),
        ("<13>1 yesterday h a p m - x", "1 yesterday h a p m - x"),
    ] {
        let m = Message::parse(message.as_bytes(), Remote);
        assert_eq!((text(m.text), m.malformed, m.tag), (expected, false, &b""[..]));
    }
}
