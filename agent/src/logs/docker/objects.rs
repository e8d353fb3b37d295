//! JSON objects out of a stream of bytes: the items of an array, or one behind the other, as the API's lists
//! and events come. Only where an object ends is found out here; one that is too long is passed over. It must
//! not know what is in them.

/// Finds objects.
#[derive(Debug, Default)]
pub(super) struct Objects {
    object: Vec<u8>,
    depth: u32,
    in_string: bool,
    escaped: bool,
    max: usize,
    /// Objects that were longer than they may be.
    pub(super) too_long: u64,
}

impl Objects {
    /// For objects of at most so many bytes.
    pub(super) fn new(max: usize) -> Objects {
        Objects { max, ..Objects::default() }
    }

    /// Takes bytes from the front of the input up to the end of an object, and gives it. None: all input is
    /// used up.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Option<&[u8]> {
        if self.depth == 0 {
            self.object.clear();
        }
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            if self.depth == 0 && byte != b'{' {
                continue;
            }
            if self.object.len() <= self.max {
                self.object.push(byte);
            }
            if self.escaped {
                self.escaped = false;
            } else if self.in_string {
                self.escaped = byte == b'\\';
                self.in_string = byte != b'"';
            } else {
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                    b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
            }
            if self.depth == 0 {
                if self.object.len() <= self.max {
                    return Some(&self.object);
                }
                self.too_long += 1;
                self.object.clear();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, size: usize, max: usize) -> (Vec<String>, u64) {
        let mut objects = Objects::new(max);
        let mut found = Vec::new();
        for mut part in text.as_bytes().chunks(size) {
            while let Some(object) = objects.next(&mut part) {
                found.push(String::from_utf8(object.to_vec()).unwrap());
            }
        }
        (found, objects.too_long)
    }

    #[test]
    fn items_and_lines_are_found_in_pieces_of_any_size() {
        let one = r#"{"a":"}]\"{","b":[{},[1]]}"#;
        for text in [format!("[{one},{{}} , {one}]\n"), format!("{one}\n{{}}\n{one}")] {
            for size in 1..=text.len() {
                assert_eq!(all(&text, size, 100).0, [one, "{}", one], "by {size}");
            }
        }
        assert_eq!(all(one.get(..20).unwrap(), 3, 100).0, Vec::<String>::new());
        assert_eq!(all("null [] 1 \"x\"", 3, 100).0, Vec::<String>::new());
    }

    #[test]
    fn a_long_one_is_passed_over() {
        let text = format!(r#"{{"a":1}}{{"b":"{}"}}{{"c":3}}"#, "x".repeat(1000));
        assert_eq!(all(&text, 7, 50), (vec![r#"{"a":1}"#.into(), r#"{"c":3}"#.into()], 1));
    }
}
