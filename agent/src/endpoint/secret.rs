//! A password, token or user name: given as a value or as a file, never shown. It must not know what it opens.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// No password or token is longer; a larger file is another file.
const MAX_FILE: u64 = 16 << 10;

#[derive(Clone, PartialEq, Eq)]
enum Source {
    Value(String),
    File(PathBuf),
}

/// A password or token, or a user name that is kept with it. `Debug` shows at most the path of its file.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Source);

/// What is wrong with a secret's file.
#[derive(Debug)]
pub enum SecretFault {
    /// It can't be read.
    Read(io::Error),
    /// It is empty but for a line break.
    Empty,
    /// It is larger than 16 KiB.
    TooLarge,
    /// It is not UTF-8, or has a control character before its end, such as a second line.
    NotText,
    /// It has a character that an HTTP header can't carry.
    NotToken,
    /// It is a user name with a colon (RFC 7617, section 2).
    NotUser,
}

/// A secret that can't be used.
#[derive(Debug)]
pub struct SecretError {
    /// Its file; none if it was given as a value.
    pub path: Option<PathBuf>,
    /// What is wrong with it.
    pub fault: SecretFault,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "the secret in {}: ", path.display())?,
            None => f.write_str("the secret: ")?,
        }
        match &self.fault {
            SecretFault::Read(source) => {
                write!(f, "{source}; it has to be a file that the agent's user may read")
            }
            SecretFault::Empty => f.write_str("it is empty"),
            SecretFault::TooLarge => f.write_str("it is larger than 16 KiB; is it the right file?"),
            SecretFault::NotText => {
                f.write_str("it has to be one line of text; one line break at its end is ignored")
            }
            SecretFault::NotUser => f.write_str("a user name can't have a ':'"),
            SecretFault::NotToken => {
                f.write_str("a bearer token has to be visible ASCII characters")
            }
        }
    }
}

impl std::error::Error for SecretError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            SecretFault::Read(source) => Some(source),
            _ => None,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Value(_) => f.write_str("Secret(redacted)"),
            Source::File(path) => write!(f, "Secret(file {})", path.display()),
        }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(redacted)")
    }
}

impl Secret {
    /// A secret that the configuration holds itself.
    pub fn value(value: impl Into<String>) -> Secret {
        Secret(Source::Value(value.into()))
    }

    /// A secret that a file holds. It is read again at each connection, so it may change.
    pub fn file(path: impl Into<PathBuf>) -> Secret {
        Secret(Source::File(path.into()))
    }

    /// Itself, if it is in no file.
    pub(super) fn given(&self) -> Option<&str> {
        match &self.0 {
            Source::Value(value) => Some(value),
            Source::File(_) => None,
        }
    }

    /// The file that holds it, if one does.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Source::Value(_) => None,
            Source::File(path) => Some(path),
        }
    }

    /// The secret itself, without the line break at its end.
    ///
    /// # Errors
    /// The file can't be read, or what it holds is not one line of text.
    pub(super) fn read(&self) -> Result<String, SecretError> {
        let fail = |fault| SecretError { path: self.path().map(Path::to_owned), fault };
        let text = match &self.0 {
            Source::Value(value) => value.clone(),
            Source::File(path) => {
                let mut bytes = Vec::new();
                File::open(path)
                    .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
                    .map_err(|source| fail(SecretFault::Read(source)))?;
                if bytes.len() as u64 > MAX_FILE {
                    return Err(fail(SecretFault::TooLarge));
                }
                String::from_utf8(bytes).map_err(|_| fail(SecretFault::NotText))?
            }
        };
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(fail(SecretFault::Empty));
        }
        if text.chars().any(char::is_control) {
            return Err(fail(SecretFault::NotText));
        }
        Ok(text.to_owned())
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Secret {
        Secret::value(value)
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Secret {
        Secret::value(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(contents: &[u8]) -> (tempfile::TempDir, Secret) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, contents).unwrap();
        (dir, Secret::file(path))
    }

    #[test]
    fn one_line_break_at_the_end_is_not_part_of_it() {
        for (contents, expected) in
            [(&b"hunter2"[..], "hunter2"), (b"hunter2\n", "hunter2"), (b" h \r\n", " h ")]
        {
            let (_dir, secret) = file(contents);
            assert_eq!(secret.read().unwrap(), expected);
        }
        assert_eq!(Secret::value("x").read().unwrap(), "x");
    }

    #[test]
    fn bad_files_are_told_apart_and_named() {
        type Case<'a> = (&'a [u8], fn(&SecretFault) -> bool);
        let cases: [Case<'_>; 6] = [
            (b"", |f| matches!(f, SecretFault::Empty)),
            (b"\n", |f| matches!(f, SecretFault::Empty)),
            (b"a\nb\n", |f| matches!(f, SecretFault::NotText)),
            (b"a\0", |f| matches!(f, SecretFault::NotText)),
            (b"\xff\xfe", |f| matches!(f, SecretFault::NotText)),
            (&[b'x'; 16385], |f| matches!(f, SecretFault::TooLarge)),
        ];
        for (contents, expected) in cases {
            let (_dir, secret) = file(contents);
            let error = secret.read().unwrap_err();
            assert!(expected(&error.fault), "{error}");
            assert_eq!(error.path.as_deref(), secret.path());
            assert!(error.to_string().contains("password"), "{error}");
        }
        let missing = Secret::file("/nonexistent/token").read().unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/token: No such file"), "{missing}");
        let directory = Secret::file("/").read().unwrap_err();
        assert!(matches!(directory.fault, SecretFault::Read(_)));
    }

    #[test]
    fn nothing_shows_it() {
        let secret = Secret::value("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "(redacted) Secret(redacted)");
        assert_eq!(format!("{:?}", Secret::file("/x")), "Secret(file /x)");
    }
}
