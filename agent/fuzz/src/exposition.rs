//! The text format that others write.

use mote::exposition::{Event, MAX_LABELS, Parser, number, show};

/// Text. What is read of a sample can be written, and read as the same.
pub fn exposition(data: &[u8]) {
    let mut parser = Parser::new(data);
    let mut ended = false;
    while let Some(event) = parser.next() {
        assert!(!ended, "an event behind an error");
        match event {
            Err(error) => {
                assert!(error.line >= 1 && error.line == parser.line());
                assert!(error.token.chars().count() <= 80, "{error}");
                ended = true;
            }
            Ok(Event::Help { name, text }) => {
                assert!(is_name(name) && text.is_none_or(|text| !text.is_empty()));
                let _ = text.map(|text| text.to_string());
            }
            Ok(Event::Type { name, .. }) => assert!(is_name(name)),
            Ok(Event::Sample { name, labels, value, timestamp }) => {
                assert!(is_name(name));
                let pairs: Vec<_> = labels.iter().map(|(n, v)| (n, v.to_string())).collect();
                assert!(pairs.len() <= MAX_LABELS);
                for (index, (name, _)) in pairs.iter().enumerate() {
                    assert!(is_name(name) && !name.contains(':'));
                    assert_eq!(pairs.iter().position(|pair| pair.0 == *name), Some(index));
                }
                let again = write(name, &pairs, value, timestamp);
                if again.len() > 32 << 10 {
                    continue;
                }
                let mut parser = Parser::new(again.as_bytes());
                let Some(Ok(Event::Sample { name: n, labels: l, value: v, timestamp: t })) =
                    parser.next()
                else {
                    panic!("{again:?} is not read");
                };
                assert_eq!((n, t), (name, timestamp));
                assert!(v == value || v.is_nan() && value.is_nan(), "{again:?}");
                let read: Vec<_> = l.iter().map(|(n, v)| (n, v.to_string())).collect();
                assert_eq!(read, pairs);
                assert!(parser.next().is_none());
            }
        }
    }
    if let Some(value) = number(data) {
        assert!(number(show(value).as_bytes()).is_some_and(|v| v == value || v.is_nan()));
    }
}

fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    name.chars().all(good) && name.starts_with(|c: char| !c.is_ascii_digit())
}

fn write(name: &str, labels: &[(&str, String)], value: f64, timestamp: Option<i64>) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
    let labels: Vec<_> = labels.iter().map(|(n, v)| format!("{n}=\"{}\"", escape(v))).collect();
    let time = timestamp.map_or(String::new(), |time| format!(" {time}"));
    format!("{name}{{{}}} {}{time}\n", labels.join(","), show(value))
}
