//! Tracefs' `events/<family>/<event>/format` files: where the fields of a tracepoint's record are on
//! the kernel that runs. Written by f_show in kernel/trace/trace_events.c. Knows bytes, not files.

use std::fmt;

/// The file of the largest event that kernels have is below 8 KiB.
const MAX_BYTES: usize = 64 << 10;
const MAX_FIELDS: usize = 256;
/// A record is at most a page, and pages are at most 64 KiB.
const MAX_OFFSET: u32 = 64 << 10;

/// A field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The field's name.
    pub name: String,
    /// Bytes from the start of the record.
    pub offset: u32,
    /// Bytes; of an array all of it, and 4 where the record only says where the data is.
    pub size: u32,
    /// Whether it is a signed number.
    pub signed: bool,
    /// Whether it is an array in the record itself.
    pub array: bool,
    /// Whether the record holds only offset and length of the data (`__data_loc`, `__rel_loc`).
    pub located: bool,
    /// Whether that offset is counted from the field's end (`__rel_loc`).
    pub relative: bool,
}

/// What a format file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// The event's name.
    pub name: String,
    /// The number that perf_event_open wants.
    pub id: u32,
    /// The fields in the file's order, those that all events share first.
    pub fields: Vec<Field>,
}

/// Why a format file is no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// Larger than any format file, in bytes.
    TooLarge(usize),
    /// A line that is not as f_show writes it.
    Line {
        /// Counted from 1.
        line: usize,
        /// What stands there, cut at 80 characters.
        token: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// The file ends before this part.
    Missing(&'static str),
    /// The event has no field of this name.
    NoField(String),
    /// The field is there with another size or shape than the programs read.
    Shape {
        /// The field's name.
        field: String,
        /// Its size in bytes.
        size: u32,
        /// What the programs read.
        expected: &'static str,
    },
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormatError::TooLarge(bytes) => write!(f, "{bytes} bytes is no format file"),
            FormatError::Line { line, token, expected } => {
                write!(f, "line {line}: {token:?} where {expected} should stand")
            }
            FormatError::Missing(part) => write!(f, "it ends before {part}"),
            FormatError::NoField(name) => write!(f, "it has no field {name:?}"),
            FormatError::Shape { field, size, expected } => {
                write!(f, "its field {field:?} has {size} bytes and is not {expected}")
            }
        }
    }
}

impl std::error::Error for FormatError {}

/// Reads a format file.
///
/// # Errors
/// The first thing that is not as the kernel writes it.
pub fn parse(bytes: &[u8]) -> Result<Format, FormatError> {
    if bytes.len() > MAX_BYTES {
        return Err(FormatError::TooLarge(bytes.len()));
    }
    let mut lines = bytes.split(|&byte| byte == b'\n').zip(1..);
    let mut next = |missing| lines.next().ok_or(FormatError::Missing(missing));

    let (bytes, line) = next("the name")?;
    let name = text(bytes, line)?
        .strip_prefix("name: ")
        .filter(|name| is_identifier(name))
        .ok_or_else(|| wrong(bytes, line, "\"name: \" and the event's name"))?
        .to_owned();
    let (bytes, line) = next("the ID")?;
    let id = text(bytes, line)?
        .strip_prefix("ID: ")
        .and_then(number)
        .ok_or_else(|| wrong(bytes, line, "\"ID: \" and a number"))?;
    let (bytes, line) = next("the fields")?;
    if bytes != b"format:" {
        return Err(wrong(bytes, line, "\"format:\""));
    }

    let mut fields: Vec<Field> = Vec::new();
    loop {
        let (bytes, line) = next("\"print fmt\"")?;
        if bytes.starts_with(b"print fmt:") {
            return Ok(Format { name, id, fields });
        }
        // An empty line parts the fields that all events share from the event's own, and ends them.
        if bytes.is_empty() {
            continue;
        }
        let field = field(text(bytes, line)?)
            .ok_or_else(|| wrong(bytes, line, "\"field:\" with offset, size and sign"))?;
        if fields.len() == MAX_FIELDS {
            return Err(wrong(bytes, line, "the end of the fields"));
        }
        if fields.iter().any(|have| have.name == field.name) {
            return Err(wrong(bytes, line, "a field that was not there before"));
        }
        fields.push(field);
    }
}

impl Format {
    /// The field that is a number of this many bytes.
    ///
    /// # Errors
    /// No such field, or one of another size.
    pub fn number(&self, name: &str, size: u32) -> Result<&Field, FormatError> {
        let expected = match size {
            2 => "a number of 2 bytes",
            4 => "a number of 4 bytes",
            8 => "a number of 8 bytes",
            _ => "a number",
        };
        self.shaped(name, expected, |field| field.size == size && !field.array && !field.located)
    }

    /// The field that is an `unsigned long` or a pointer: of 4 bytes on 32-bit kernels, of 8 on others.
    ///
    /// # Errors
    /// No such field, or one of another size.
    pub fn word(&self, name: &str) -> Result<&Field, FormatError> {
        self.shaped(name, "a number of 4 or 8 bytes", |field| {
            matches!(field.size, 4 | 8) && !field.array && !field.located
        })
    }

    /// The field that is an array of at least this many bytes in the record itself.
    ///
    /// # Errors
    /// No such field, or no such array.
    pub fn array(&self, name: &str, at_least: u32) -> Result<&Field, FormatError> {
        self.shaped(name, "an array that is long enough", |field| {
            field.size >= at_least && field.array && !field.located
        })
    }

    /// The field that says where a string is, as offset and length.
    ///
    /// # Errors
    /// No such field, or none that is `__data_loc`: what `__rel_loc` says is counted from the field, and
    /// no tracepoint of the kernel's own has it.
    pub fn text(&self, name: &str) -> Result<&Field, FormatError> {
        self.shaped(name, "the place of a string", |field| {
            field.located && !field.relative && field.size == 4
        })
    }

    fn shaped(
        &self,
        name: &str,
        expected: &'static str,
        fits: impl Fn(&Field) -> bool,
    ) -> Result<&Field, FormatError> {
        let field = self.fields.iter().find(|field| field.name == name);
        let field = field.ok_or_else(|| FormatError::NoField(name.to_owned()))?;
        if fits(field) {
            return Ok(field);
        }
        Err(FormatError::Shape { field: name.to_owned(), size: field.size, expected })
    }
}

/// `<tab>field:dev_t dev;<tab>offset:8;<tab>size:4;<tab>signed:0;`
fn field(line: &str) -> Option<Field> {
    let mut parts = line.strip_prefix('\t')?.split('\t');
    let mut part = |key| parts.next()?.strip_prefix(key)?.strip_suffix(';');
    let declaration: &str = part("field:")?;
    let offset = number(part("offset:")?)?;
    let size = number(part("size:")?)?;
    let signed = match part("signed:")? {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    if parts.next().is_some() || offset.checked_add(size)? > MAX_OFFSET {
        return None;
    }
    let relative = declaration.starts_with("__rel_loc ");
    let located = relative || declaration.starts_with("__data_loc ");
    let (declaration, array) = match declaration.strip_suffix(']') {
        Some(array) => (array.rsplit_once('[')?.0, true),
        None => (declaration, false),
    };
    // The type may be anything, `const void *` or `struct request *`; the name is its last word.
    let (kind, name) = declaration.rsplit_once([' ', '*'])?;
    if kind.trim().is_empty() || !is_identifier(name) {
        return None;
    }
    Some(Field { name: name.to_owned(), offset, size, signed, array, located, relative })
}

/// Digits only: `parse` alone would take a plus sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn is_identifier(name: &str) -> bool {
    name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn text(bytes: &[u8], line: usize) -> Result<&str, FormatError> {
    std::str::from_utf8(bytes).map_err(|_| wrong(bytes, line, "text"))
}

fn wrong(bytes: &[u8], line: usize, expected: &'static str) -> FormatError {
    let token = String::from_utf8_lossy(bytes).chars().take(80).collect();
    FormatError::Line { line, token, expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON: &str = "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
        \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n";

    /// block_rq_issue of 5.10 and 6.1, which have no ioprio.
    fn of_6_1() -> String {
        format!(
            "name: block_rq_issue\nID: 1150\nformat:\n{COMMON}\
             \tfield:dev_t dev;\toffset:8;\tsize:4;\tsigned:0;\n\
             \tfield:sector_t sector;\toffset:16;\tsize:8;\tsigned:0;\n\
             \tfield:unsigned int nr_sector;\toffset:24;\tsize:4;\tsigned:0;\n\
             \tfield:unsigned int bytes;\toffset:28;\tsize:4;\tsigned:0;\n\
             \tfield:char rwbs[8];\toffset:32;\tsize:8;\tsigned:0;\n\
             \tfield:char comm[16];\toffset:40;\tsize:16;\tsigned:0;\n\
             \tfield:__data_loc char[] cmd;\toffset:56;\tsize:4;\tsigned:0;\n\n\
             print fmt: \"%d,%d %s %u (%s)\", REC->rwbs\n"
        )
    }

    /// block_rq_complete of 6.12 and later: ioprio has moved rwbs, which grew to 10 bytes in 6.18.
    fn of_6_18() -> String {
        format!(
            "name: block_rq_complete\nID: 2107\nformat:\n{COMMON}\
             \tfield:dev_t dev;\toffset:8;\tsize:4;\tsigned:0;\n\
             \tfield:sector_t sector;\toffset:16;\tsize:8;\tsigned:0;\n\
             \tfield:unsigned int nr_sector;\toffset:24;\tsize:4;\tsigned:0;\n\
             \tfield:int error;\toffset:28;\tsize:4;\tsigned:1;\n\
             \tfield:unsigned short ioprio;\toffset:32;\tsize:2;\tsigned:0;\n\
             \tfield:char rwbs[10];\toffset:34;\tsize:10;\tsigned:0;\n\
             \tfield:__data_loc char[] cmd;\toffset:44;\tsize:4;\tsigned:0;\n\n\
             print fmt: \"%d,%d %s\", REC->rwbs\n"
        )
    }

    fn at(field: Result<&Field, FormatError>) -> Result<u32, FormatError> {
        field.map(|field| field.offset)
    }

    #[test]
    fn the_fields_of_two_kernels_are_where_each_says() {
        let old = parse(of_6_1().as_bytes()).unwrap();
        assert_eq!((old.name.as_str(), old.id, old.fields.len()), ("block_rq_issue", 1150, 11));
        assert_eq!(at(old.array("rwbs", 4)), Ok(32));
        let new = parse(of_6_18().as_bytes()).unwrap();
        assert_eq!(at(new.array("rwbs", 4)), Ok(34));
        for format in [&old, &new] {
            assert_eq!(at(format.number("dev", 4)), Ok(8));
            assert_eq!(at(format.number("sector", 8)), Ok(16));
            assert_eq!(at(format.number("nr_sector", 4)), Ok(24));
        }
        let common_pid = &new.fields[3];
        assert!(common_pid.signed && !common_pid.array && !common_pid.located);
        let cmd = new.fields.last().unwrap();
        assert_eq!((cmd.name.as_str(), cmd.located), ("cmd", true));
    }

    #[test]
    fn a_field_of_another_shape_is_refused() {
        let format = parse(of_6_1().as_bytes()).unwrap();
        assert_eq!(format.number("ioprio", 2), Err(FormatError::NoField("ioprio".into())));
        for result in [
            format.number("sector", 4),
            format.number("rwbs", 8),
            format.number("cmd", 4),
            format.array("rwbs", 9),
            format.array("dev", 4),
            format.array("cmd", 4),
            format.word("rwbs"),
            format.word("cmd"),
            format.text("sector"),
        ] {
            assert!(matches!(result, Err(FormatError::Shape { .. })), "{result:?}");
        }
        assert_eq!(at(format.word("sector")), Ok(16));
        assert_eq!(at(format.word("dev")), Ok(8));
        assert_eq!(at(format.text("cmd")), Ok(56));
        let relative = of_6_1().replace("__data_loc", "__rel_loc");
        assert!(parse(relative.as_bytes()).unwrap().text("cmd").is_err());
    }

    #[test]
    fn pointers_and_words_in_a_type_are_no_part_of_the_name() {
        for (declaration, name) in [
            ("const void * skbaddr", "skbaddr"),
            ("const void *skbaddr", "skbaddr"),
            ("struct mmc_request * mrq", "mrq"),
            ("enum sk_rst_reason reason", "reason"),
            ("__u8 saddr[sizeof(struct sockaddr_in6)]", "saddr"),
            ("__rel_loc char[] comm", "comm"),
        ] {
            let line = format!("\tfield:{declaration};\toffset:8;\tsize:8;\tsigned:0;");
            assert_eq!(field(&line).unwrap().name, name, "{declaration}");
        }
    }

    #[test]
    fn every_truncation_and_every_bent_line_is_an_error_and_no_panic() {
        let good = of_6_18();
        let end = good.find("print fmt:").unwrap() + "print fmt:".len();
        for at in 0..end {
            assert!(parse(&good.as_bytes()[..at]).is_err(), "cut at {at}");
        }
        for (from, to) in [
            ("name: ", "name "),
            ("ID: 2107", "ID: -1"),
            ("ID: 2107", "ID: 4294967296"),
            ("ID: 2107", "ID: +7"),
            ("format:", "formats:"),
            ("offset:16", "offset:x"),
            ("offset:16", "offset:"),
            ("offset:16", "offset:4294967295"),
            ("size:8", "size:70000"),
            ("signed:1", "signed:2"),
            ("\tfield:dev_t dev", "field:dev_t dev"),
            ("field:dev_t dev", "field:dev"),
            ("field:dev_t dev", "field: dev"),
            ("field:dev_t dev", "field:dev_t 7dev"),
            ("rwbs[10]", "rwbs]"),
            ("signed:0;\n\tfield:int error", "signed:0;\textra:1;\n\tfield:int error"),
            ("field:int error", "field:int sector"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            assert!(parse(bad.as_bytes()).is_err(), "{from} -> {to}");
        }
        assert_eq!(parse(&[b'x'; MAX_BYTES + 1]), Err(FormatError::TooLarge(MAX_BYTES + 1)));
        assert!(parse(b"name: a\xff\n").is_err());
        let error = parse(b"name: a\nID: x\n").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
