//! Loki's push as JSON, read byte by byte as RFC 8259 has it and as Loki wants it: no white space is expected,
//! nothing may stand there twice, and nothing else may stand there.

use super::strict_loki::{Entry, Stream};
use super::wire::is_label_name;

/// The streams of a request's body.
pub fn decode(body: &[u8]) -> Result<Vec<(Stream, Vec<Entry>)>, String> {
    let text = std::str::from_utf8(body).map_err(|error| format!("JSON: {error}"))?;
    let mut json = Json { rest: text };
    json.expect("{\"streams\":")?;
    let streams = json.list(Json::stream)?;
    json.expect("}")?;
    if !json.rest.is_empty() {
        return Err(format!("JSON: {:?} behind the end", json.rest));
    }
    Ok(streams)
}

struct Json<'a> {
    rest: &'a str,
}

impl Json<'_> {
    fn expect(&mut self, text: &str) -> Result<(), String> {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => {
                let found: String = self.rest.chars().take(20).collect();
                Err(format!("JSON: {found:?} instead of {text:?}"))
            }
        }
    }

    fn takes(&mut self, text: &str) -> bool {
        self.expect(text).is_ok()
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T, String>) -> Result<Vec<T>, String> {
        self.expect("[")?;
        let mut items = Vec::new();
        if self.takes("]") {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.takes("]") {
                return Ok(items);
            }
            self.expect(",")?;
        }
    }

    fn stream(&mut self) -> Result<(Stream, Vec<Entry>), String> {
        self.expect("{\"stream\":")?;
        let mut labels = Stream::new();
        for (name, value) in self.object()? {
            if !is_label_name(&name) {
                return Err(format!("{name:?} is not a label name"));
            }
            if labels.insert(name.clone(), value).is_some() {
                return Err(format!("{name} stands twice"));
            }
        }
        self.expect(",\"values\":")?;
        let entries = self.list(Json::entry)?;
        self.expect("}")?;
        Ok((labels, entries))
    }

    fn entry(&mut self) -> Result<Entry, String> {
        self.expect("[")?;
        let time = self.string()?;
        let timestamp_ns: i64 = time.parse().map_err(|_| format!("the time {time:?}"))?;
        if timestamp_ns.to_string() != time {
            return Err(format!("the time {time:?}"));
        }
        self.expect(",")?;
        let line = self.string()?;
        let metadata = if self.takes(",") { self.object()? } else { Vec::new() };
        self.expect("]")?;
        Ok(Entry { timestamp_ns: timestamp_ns.into(), line, metadata })
    }

    fn object(&mut self) -> Result<Vec<(String, String)>, String> {
        self.expect("{")?;
        let mut pairs = Vec::new();
        if self.takes("}") {
            return Ok(pairs);
        }
        loop {
            let name = self.string()?;
            self.expect(":")?;
            pairs.push((name, self.string()?));
            if self.takes("}") {
                return Ok(pairs);
            }
            self.expect(",")?;
        }
    }

    fn string(&mut self) -> Result<String, String> {
        self.expect("\"")?;
        let mut chars = self.rest.chars();
        let mut text = String::new();
        loop {
            match chars.next() {
                Some('"') => break,
                Some('\\') => text.push(match chars.next() {
                    Some(c @ ('"' | '\\' | '/')) => c,
                    Some('b') => '\x08',
                    Some('f') => '\x0c',
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some('u') => {
                        let digits: String = chars.by_ref().take(4).collect();
                        let code = u32::from_str_radix(&digits, 16).ok();
                        // Halves of pairs are not expected: what needs them needs no escape.
                        code.and_then(char::from_u32).ok_or(format!("JSON: \\u{digits}"))?
                    }
                    other => return Err(format!("JSON: {other:?} escaped")),
                }),
                Some(c) if c < ' ' => return Err(format!("JSON: {c:?} in a string")),
                Some(c) => text.push(c),
                None => return Err("JSON: a string without end".into()),
            }
        }
        self.rest = chars.as_str();
        Ok(text)
    }
}
