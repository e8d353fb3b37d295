//! What a server says of itself, without what it quotes: servers repeat labels, whole series and streams in their
//! refusals, and a label's text says nothing of what a refusal means. It must not know what the words mean.
//!
//! Loki and Mimir write streams and series as `{name="value"}`, with the values quoted as Go quotes them, and
//! nothing else of theirs stands between braces or double quotes. Single quotes say nothing: Loki puts its own
//! reasons between them. Where it puts a label between those as it is, whatever follows may be the label's.
//!
//! A body that is JSON, as those of gateways, is what its strings say; its names of fields are no words.

use serde_json::Value;

/// Behind these a server repeats a label as it is, with whatever quotes it has. Whether Loki's begin with a capital
/// changed with 3.0.
const RAW: [&str; 7] = [
    // Loki's.
    "label name too long: '",
    "label value too long: '",
    "duplicate label name: '",
    "rror parsing labels '",
    // Mimir's.
    "label: '",
    ", value: '",
    "series: '",
];

/// What was said without what is quoted. The braces and quotes around it stay. Of what is quoted and has no end,
/// as where the answer was cut, nothing stays.
pub fn own_words(said: &str) -> String {
    let mut text = String::new();
    match serde_json::from_str(said) {
        Ok(value @ (Value::Object(_) | Value::String(_))) => strings(&value, &mut text),
        _ => text.push_str(said),
    }
    let mut words = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        words.push(c);
        let end = match c {
            '{' => skip_braces(&mut chars).then_some('}'),
            '"' => skip_string(&mut chars).then_some('"'),
            '\'' if RAW.iter().any(|raw| words.ends_with(raw)) => None,
            _ => continue,
        };
        match end {
            Some(end) => words.push(end),
            None => return words,
        }
    }
    words
}

/// All strings of a value, one a line.
fn strings(value: &Value, text: &mut String) {
    match value {
        Value::String(string) => {
            text.push_str(string);
            text.push('\n');
        }
        Value::Array(values) => values.iter().for_each(|value| strings(value, text)),
        Value::Object(fields) => fields.values().for_each(|value| strings(value, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Skips what is behind a `{` to its `}`; false if there is none.
fn skip_braces(chars: &mut std::str::Chars<'_>) -> bool {
    let mut open = 1_u32;
    while let Some(c) = chars.next() {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            '"' if !skip_string(chars) => return false,
            _ => {}
        }
        if open == 0 {
            return true;
        }
    }
    false
}

/// Skips what is behind a `"` to the next one that no backslash is before; false if there is none.
fn skip_string(chars: &mut std::str::Chars<'_>) -> bool {
    while let Some(c) = chars.next() {
        match c {
            '"' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_quoted_stays() {
        for (said, expected) in [
            ("", ""),
            ("out of order", "out of order"),
            (r#"stream '{a="b", c="d"}' has 16 label names"#, "stream '{}' has 16 label names"),
            (r#"{a="}"}x{b="{"}y"#, "{}x{}y"),
            (r#"{a="\"}"}x"#, "{}x"),
            (r#"{a="\\"}x"#, "{}x"),
            ("{a {b} c}x", "{}x"),
            (r#"label "per stream" is bad"#, r#"label "" is bad"#),
            (r#"a "b\"c" d"#, r#"a "" d"#),
            // Loki's own words stand between single quotes, too.
            ("reason: 'entry out of order',\n", "reason: 'entry out of order',\n"),
            ("user 'fake', total ignored", "user 'fake', total ignored"),
            ("}x", "}x"),
        ] {
            assert_eq!(own_words(said), expected, "{said}");
        }
    }

    #[test]
    fn what_has_no_end_is_quoted_to_the_end() {
        for said in [
            r#"stream '{a="b"#,
            r#"stream '{a="b\"#,
            r#"stream '{a="b""#,
            r#"stream '{a="b"; {"#,
            "stream '{x{y}z",
        ] {
            assert_eq!(own_words(said), "stream '{", "{said}");
        }
        assert_eq!(own_words("it said \"no"), "it said \"");
    }

    #[test]
    fn a_label_that_is_repeated_as_it_is_may_hold_quotes() {
        for (said, expected) in [
            (
                r#"stream '{a="b"}' has label value too long: 'x', total ignored: 1 out of 2'"#,
                "stream '{}' has label value too long: '",
            ),
            ("Error parsing labels 'x' with error: y", "Error parsing labels '"),
            ("exceeds the limit, label: 'a', value: 'too'", "exceeds the limit, label: '"),
        ] {
            assert_eq!(own_words(said), expected, "{said}");
        }
    }

    #[test]
    fn json_says_what_its_strings_say() {
        for (said, expected) in [
            (r#"{"message":"http: request body too large"}"#, "http: request body too large\n"),
            (r#"{"error":{"code":400,"causes":["a",null,"b"]}}"#, "a\nb\n"),
            (r#" "too large" "#, "too large\n"),
            (r#"{"error":"for stream '{a=\"too large\"}' no"}"#, "for stream '{}' no\n"),
            (r#"{"timestamp":1,"stream":true}"#, ""),
            // No JSON.
            (r#"{"error":"cut of"#, "{"),
            (r#"{"a"="too large"}"#, "{}"),
            ("17", "17"),
        ] {
            assert_eq!(own_words(said), expected, "{said}");
        }
        own_words(&"[".repeat(4096));
        own_words(&"{\"a\":".repeat(4096));
    }
}
