//! Rust's words without its comments, and with every literal reduced to one token: as much of the
//! grammar as the house rules need. On source that does not compile it may be wrong, never stuck.

/// A word of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// An identifier or a keyword; a raw one without its `r#`.
    Ident(&'a str),
    /// A single character of punctuation; `::` is two.
    Punct(char),
    /// A string, a character, a number or a lifetime.
    Literal,
}

/// The tokens, each with its line from 1.
pub(super) fn tokens(source: &str) -> Vec<(usize, Token<'_>)> {
    let mut lexer = Lexer { rest: source, line: 1 };
    let mut tokens = Vec::new();
    while let Some(first) = lexer.rest.chars().next() {
        let line = lexer.line;
        match lexer.next(first) {
            Some(token) => tokens.push((line, token)),
            None => continue,
        }
    }
    tokens
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Lexer<'a> {
    /// Takes at least one character; None for what is no token.
    fn next(&mut self, first: char) -> Option<Token<'a>> {
        if first.is_whitespace() {
            self.take(first.len_utf8());
            return None;
        }
        if self.rest.starts_with("//") {
            self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
            return None;
        }
        if self.rest.starts_with("/*") {
            self.block_comment();
            return None;
        }
        if let Some(literal) = self.prefixed_literal() {
            return Some(literal);
        }
        match first {
            '"' => {
                self.take(1);
                self.until_unescaped('"');
                Some(Token::Literal)
            }
            '\'' => {
                self.character_or_lifetime();
                Some(Token::Literal)
            }
            _ if first.is_ascii_digit() => {
                self.word();
                Some(Token::Literal)
            }
            _ if first == '_' || first.is_alphabetic() => Some(Token::Ident(self.word())),
            _ => {
                self.take(first.len_utf8());
                Some(Token::Punct(first))
            }
        }
    }

    /// `r"…"`, `br#"…"#`, `b"…"`, `c"…"`, `b'…'`; a raw identifier loses its prefix.
    fn prefixed_literal(&mut self) -> Option<Token<'a>> {
        let letters = self.rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(0);
        let (prefix, after) = self.rest.split_at(letters);
        match prefix {
            "r" | "br" | "cr" => {
                let hashes = after.len() - after.trim_start_matches('#').len();
                let after = after.get(hashes..)?;
                if after.starts_with('"') {
                    self.take(letters + hashes + 1);
                    let end = format!("\"{}", "#".repeat(hashes));
                    let length = self.rest.find(&end).map_or(self.rest.len(), |at| at + end.len());
                    self.take(length);
                    return Some(Token::Literal);
                }
                if prefix == "r" && hashes == 1 {
                    self.take(2);
                    return Some(Token::Ident(self.word()));
                }
                None
            }
            "b" | "c" if after.starts_with('"') => {
                self.take(2);
                self.until_unescaped('"');
                Some(Token::Literal)
            }
            "b" if after.starts_with('\'') => {
                self.take(2);
                self.until_unescaped('\'');
                Some(Token::Literal)
            }
            _ => None,
        }
    }

    fn character_or_lifetime(&mut self) {
        let mut after = self.rest.chars().skip(1);
        let (first, second) = (after.next(), after.next());
        self.take(1);
        if first == Some('\\') || second == Some('\'') {
            self.until_unescaped('\'');
        } else {
            self.word();
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while !self.rest.is_empty() {
            if self.rest.starts_with("/*") {
                depth += 1;
                self.take(2);
            } else if self.rest.starts_with("*/") {
                depth -= 1;
                self.take(2);
                if depth == 0 {
                    return;
                }
            } else {
                self.take(self.rest.chars().next().map_or(0, char::len_utf8));
            }
        }
    }

    fn until_unescaped(&mut self, end: char) {
        let mut escaped = false;
        let at = self.rest.char_indices().find(|(_, c)| {
            let found = *c == end && !escaped;
            escaped = *c == '\\' && !escaped;
            found
        });
        self.take(at.map_or(self.rest.len(), |(at, c)| at + c.len_utf8()));
    }

    fn word(&mut self) -> &'a str {
        let length =
            self.rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(self.rest.len());
        self.take(length)
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<(usize, &str)> {
        tokens(source)
            .into_iter()
            .filter_map(|(line, token)| match token {
                Token::Ident(word) => Some((line, word)),
                Token::Punct(_) | Token::Literal => None,
            })
            .collect()
    }

    #[test]
    fn comments_and_literals_have_no_words() {
        let source = concat!(
            "a // b\n",
            "/* c /* d */ e */ f \"g \\\" h\" i\n",
            "r#\"j \" k\"# l b\"m\" br\"n\\\" o 'p' q '\\'' r '\"' s\n",
            "&'t u 1.0e5_u8 v 'w: loop {} r#type b'\\'' x \"\n y"
        );
        let expected =
            [(1, "a"), (2, "f"), (2, "i"), (3, "l"), (3, "o"), (3, "q"), (3, "r"), (3, "s")];
        let (first, rest) = {
            let words = words(source);
            let (first, rest) = words.split_at(expected.len());
            (first.to_vec(), rest.to_vec())
        };
        assert_eq!(first, expected);
        // The string that nobody closes takes the rest, line break included.
        assert_eq!(rest, [(4, "u"), (4, "v"), (4, "loop"), (4, "type"), (4, "x")]);
    }

    #[test]
    fn it_ends_on_anything() {
        for source in
            ["'", "\"", "r#", "r#\"", "/*", "b'", "'\\", "ä'ö", "//", "r", "'a", "'\u{1F600}'"]
        {
            tokens(source);
        }
    }
}
