//! What is well formed, what is not and how it is named, and what holds for any bytes.

use proptest::prelude::*;

use super::*;

fn events(text: &str) -> Vec<Event<'_>> {
    Parser::new(text.as_bytes()).map(|event| event.unwrap()).collect()
}

#[track_caller]
fn refused(text: &[u8], line: u32, token: &str, expected: &str) {
    let mut parser = Parser::new(text);
    let error = parser.find_map(Result::err).unwrap_or_else(|| panic!("taken: {text:?}"));
    assert_eq!(error.line, line, "{error}");
    assert!(error.token.contains(token) && error.expected.contains(expected), "{error}");
    assert_eq!(parser.next(), None, "an error is the end");
}

#[test]
fn help_type_samples_and_comments() {
    let text = "# HELP a_total Back\\\\slash, line\\nbreak \\\"quote\\\"  two\n\n#TYPE a_total Counter\n\
                # anything else, even HELP\n#\n# TYPE\n# HELP b\n \ta_total 1\n\
                a_total {x = \"1\\\"\\n\\\\\" , y=\"ü\" ,} +Inf -5\nb:c{}\t1e3\nd{}2\n";
    let events = events(text);
    assert_eq!(events.len(), 7);
    let Event::Help { name: "a_total", text: Some(help) } = events[0] else { panic!("{events:?}") };
    assert_eq!(help.to_string(), "Back\\slash, line\nbreak \"quote\"  two");
    assert_eq!(events[1], Event::Type { name: "a_total", kind: Some(Type::Counter) });
    assert_eq!(events[2], Event::Help { name: "b", text: None });
    assert!(matches!(events[3], Event::Sample { name: "a_total", value: 1.0, .. }));
    let Event::Sample { labels, value, timestamp, .. } = events[4] else { panic!("{events:?}") };
    let labels: Vec<_> = labels.iter().map(|(name, value)| (name, value.to_string())).collect();
    assert_eq!(labels, [("x", "1\"\n\\".to_owned()), ("y", "ü".to_owned())]);
    assert_eq!((value, timestamp), (f64::INFINITY, Some(-5)));
    assert!(matches!(events[5], Event::Sample { name: "b:c", value: 1e3, timestamp: None, .. }));
    assert!(matches!(events[6], Event::Sample { name: "d", value: 2.0, .. }));
}

#[test]
fn malformed_lines_are_named_with_line_and_token() {
    refused(b"a 1\nb 0x10\n", 2, "0x10", "a number");
    refused(b"a 1", 1, "a 1", "line break");
    refused(b"\na\n", 2, "a", "labels or a value");
    refused(b"a \n", 1, "", "a number");
    refused(b"a 1 \n", 1, "", "timestamp");
    refused(b"a 1 2 \n", 1, " ", "end of the line");
    refused(b"a 1 2.5\n", 1, "2.5", "timestamp");
    refused(b"a-b 1\n", 1, "a-b", "a name");
    refused(b"1a 1\n", 1, "1a", "name of a metric");
    refused(b"{a=\"1\"} 1\n", 1, "{a", "name of a metric");
    refused(b"a{ 1\n", 1, "1", "name of a label");
    refused(b"a{b} 1\n", 1, "} 1", "equals");
    refused(b"a{b=1} 1\n", 1, "1} 1", "quote before");
    refused(b"a{b=\"1} 1\n", 1, "1} 1", "quote behind");
    refused(b"a{b=\"1\"\n", 1, "", "comma or a brace");
    refused(b"a{b=\"1\" c=\"2\"} 1\n", 1, "c=", "comma or a brace");
    refused(b"a{b=\"1\",b=\"2\"} 1\n", 1, "b", "doesn't have yet");
    refused(b"a{__name__=\"b\"} 1\n", 1, "__name__", "doesn't have yet");
    refused(b"a{,} 1\n", 1, ",", "name of a label");
    refused(b"a{b:c=\"1\"} 1\n", 1, ":c", "equals");
    refused(b"a{b=\"\\t\"} 1\n", 1, "\\t", "backslash");
    refused(b"a{b=\"\xff\"} 1\n", 1, "\u{fffd}", "UTF-8");
    refused(b"# HELP a \xff\n", 1, "\u{fffd}", "UTF-8");
    refused(b"# HELP a ends with \\\n", 1, "ends with", "backslash");
    refused(b"# TYPE a counters\n", 1, "counters", "counter, gauge");
    refused(b"# TYPE a counter \n", 1, "counter ", "counter, gauge");
    refused(b"# TYPE a-b counter\n", 1, "a-b", "name of a metric");
    refused(b"a 1\r\n", 1, "1\r", "a number");
    refused(b"a\0 1\n", 1, "a", "a name");
    let long = [b"# HELP a ".as_slice(), &[b'x'; MAX_LINE], b"\n"].concat();
    refused(&long, 1, "# HELP a xxx", "64 KiB");
    let labels: String = (0..=MAX_LABELS).map(|n| format!("l{n}=\"\",")).collect();
    refused(format!("a{{{labels}}} 1\n").as_bytes(), 1, "l32", "at most 32");
}

#[test]
fn numbers_are_those_of_go() {
    for (token, value) in [
        ("1", 1.0),
        ("-0", -0.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1E+5", 1e5),
        ("+inf", f64::INFINITY),
        ("-Infinity", f64::NEG_INFINITY),
        ("1e-400", 0.0),
        ("18446744073709551615", u64::MAX as f64),
    ] {
        assert_eq!(number(token.as_bytes()).map(f64::to_bits), Some(value.to_bits()), "{token}");
    }
    assert!(number(b"nAn").unwrap().is_nan());
    for bad in
        ["", "-", ".", "e5", "1e", "1_000", "0x1p3", "0x10", "1e400", "-nan", "1f", "in", "١"]
    {
        assert_eq!(number(bad.as_bytes()), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn any_bytes_end(bytes: Vec<u8>) {
        let _ = Parser::new(&bytes).count();
    }

    #[test]
    fn what_is_written_is_read(
        name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,8}",
        labels in proptest::collection::btree_map("[a-zA-Z][a-zA-Z0-9_]{0,6}", "\\PC{0,8}|[\\\\\n\"]{0,4}", 0..6),
        value: f64,
        time: Option<i64>,
    ) {
        let escape = |text: &str| text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
        let inside: Vec<_> = labels.iter().map(|(n, v)| format!("{n}=\"{}\"", escape(v))).collect();
        let time_text = time.map_or(String::new(), |time| format!(" {time}"));
        let text = format!("{name}{{{}}} {value:?}{time_text}\n", inside.join(","));
        let mut parser = Parser::new(text.as_bytes());
        let event = parser.next().unwrap();
        let Ok(Event::Sample { name: n, labels: l, value: v, timestamp }) = event else {
            panic!("{event:?} of {text:?}");
        };
        prop_assert_eq!(n, name);
        let read: Vec<_> = l.iter().map(|(n, v)| (n.to_owned(), v.to_string())).collect();
        prop_assert_eq!(read, labels.into_iter().collect::<Vec<_>>());
        prop_assert!(v.to_bits() == value.to_bits() || v.is_nan() && value.is_nan());
        prop_assert_eq!(timestamp, time);
        prop_assert!(parser.next().is_none());
    }
}
