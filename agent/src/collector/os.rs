//! node_exporter's `os`, from /etc/os-release, or /usr/lib/os-release where there is none (os-release(5)).
//! The file is read again when it changes. The end of support is a sample since node_exporter 1.6.0.
//!
//! Values are unquoted as a shell does it, which is what the format asks for.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::parse::{lines, malformed, text, unsigned};
use super::{CollectError, Collector};
use crate::host::{Host, Root};
use crate::model::{Desc, Samples};

const INFO: Desc = Desc::gauge(
    "node_os_info",
    "A metric with a constant '1' value labeled by build_id, id, id_like, image_id, \
     image_version, name, pretty_name, variant, variant_id, version, version_codename, version_id.",
);
const VERSION: Desc =
    Desc::gauge("node_os_version", "Metric containing the major.minor part of the OS version.");
const SUPPORT_END: Desc = Desc::gauge(
    "node_os_support_end_timestamp_seconds",
    "Metric containing the end-of-life date timestamp of the OS.",
);

const FILES: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];

/// The keys that are labels, which are the same in lower case.
const KEYS: [(&str, &str); 12] = [
    ("BUILD_ID", "build_id"),
    ("ID", "id"),
    ("ID_LIKE", "id_like"),
    ("IMAGE_ID", "image_id"),
    ("IMAGE_VERSION", "image_version"),
    ("NAME", "name"),
    ("PRETTY_NAME", "pretty_name"),
    ("VARIANT", "variant"),
    ("VARIANT_ID", "variant_id"),
    ("VERSION", "version"),
    ("VERSION_CODENAME", "version_codename"),
    ("VERSION_ID", "version_id"),
];

/// Tells a file's version: which of the files, device, inode, length, seconds and nanoseconds of its change.
type Version = (&'static str, u64, u64, u64, i64, i64);

/// What the distribution says of itself.
#[derive(Default)]
pub(super) struct Os {
    read: Option<Version>,
    /// In the order of [`KEYS`].
    values: [String; KEYS.len()],
    version: Option<f64>,
    support_end: Option<i64>,
}

impl Collector for Os {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let version = FILES.into_iter().find_map(|file| version(host, file));
        let mut result = Ok(());
        if version.is_none() || version != self.read {
            let file = version.map_or(FILES[0], |version| version.0);
            let bytes = host.root(file)?;
            result = self.parse(file, bytes);
            self.read = version;
        }
        let mut labels = [("", ""); KEYS.len()];
        for (label, ((_, name), value)) in labels.iter_mut().zip(KEYS.iter().zip(&self.values)) {
            *label = (name, value);
        }
        out.family(&INFO).add(&labels, 1.0);
        if let Some(version) = self.version {
            let [_, id, id_like, _, _, name, ..] = labels;
            out.family(&VERSION).add(&[id, id_like, name], version);
        }
        if let Some(seconds) = self.support_end {
            out.value(&SUPPORT_END, seconds as f64);
        }
        result
    }
}

fn version(host: &mut Host, file: &'static str) -> Option<Version> {
    let meta = fs::metadata(host.path(Root::Root, file)).ok()?;
    Some((file, meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

impl Os {
    /// Takes the file over. A malformed end of support is an error once; what else is strange is no key.
    fn parse(&mut self, file: &str, bytes: &[u8]) -> Result<(), CollectError> {
        self.values.iter_mut().for_each(String::clear);
        let mut support_end = None;
        for line in lines(bytes) {
            let line = line.trim_ascii();
            let Some(at) = line.iter().position(|&byte| byte == b'=') else { continue };
            let (key, value) = line.split_at(at);
            let value = value.get(1..).unwrap_or_default();
            let places = KEYS.iter().zip(&mut self.values);
            if let Some((_, place)) = places.into_iter().find(|((k, _), _)| k.as_bytes() == key) {
                place.clear();
                place.push_str(&text(&unquoted(value)));
            } else if key == b"SUPPORT_END" {
                support_end = Some(unquoted(value)).filter(|value| !value.is_empty());
            }
        }
        self.version = self.values.last().and_then(|id| major_minor(id)).filter(|&v| v > 0.0);
        self.support_end = support_end.as_deref().and_then(day);
        match support_end {
            Some(end) if self.support_end.is_none() => {
                Err(malformed(file, &end, "a day such as 2028-06-30"))
            }
            _ => Ok(()),
        }
    }
}

/// A value without quotes and backslashes; a comment behind an unquoted one is left out.
fn unquoted(value: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(value.len());
    let mut quote = None;
    let mut bytes = value.trim_ascii().iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            (None, b'#') if plain.last().is_none_or(u8::is_ascii_whitespace) => break,
            (None, b'\\') => plain.extend(bytes.next()),
            (Some(b'"'), b'\\') => match bytes.next_if(|next| b"\"\\$`".contains(next)) {
                Some(escaped) => plain.push(escaped),
                None => plain.push(byte),
            },
            (_, byte) => plain.push(byte),
        }
    }
    if quote.is_none() {
        plain.truncate(plain.trim_ascii_end().len());
    }
    plain
}

/// The number that a version begins with, such as 24.1 of `24.1-rc2`.
fn major_minor(version: &str) -> Option<f64> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let major = digits(version);
    let minor = version.get(major..).and_then(|rest| rest.strip_prefix('.')).map(digits);
    let length = minor.map_or(major, |minor| major + 1 + minor);
    let number = version.get(..length).filter(|_| major > 0)?;
    number.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Seconds since 1970 of a day such as `2028-06-30`.
fn day(text: &[u8]) -> Option<i64> {
    let &[a, b, c, d, b'-', e, f, b'-', g, h] = text else { return None };
    let number = |digits: &[u8]| unsigned(digits).and_then(|n| i64::try_from(n).ok());
    let (year, month, day) = (number(&[a, b, c, d])?, number(&[e, f])?, number(&[g, h])?);
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let length = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // The year begins in March, so that its odd day is its last; days from 0000-03-01 to 1970-01-01.
    const TO_1970: i64 = 719_468;
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1;
    Some((days - TO_1970) * 86_400)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    fn labels(text: &[String]) -> Vec<&str> {
        let inside = text[0].split_once('{').unwrap().1.strip_suffix("} 1").unwrap();
        inside.split(',').filter(|label| !label.ends_with("=\"\"")).collect()
    }

    #[test]
    fn quotes_comments_and_garbage() {
        let tree = Tree::new(&[(
            "root/etc/os-release",
            "# NAME=no\nNAME='It''s \"one\"'\n ID = \nID=debian # not this\nVERSION=\"a\\\"b\\$c\\n\"\n\
             VERSION_ID=\nno key\n=\nPRETTY_NAME=Half\\ open\nVARIANT=\"cut",
        )]);
        let (text, result) = tree.collect(&mut Os::default());
        assert!(result.is_ok());
        assert_eq!(
            labels(&text),
            [
                "id=\"debian\"",
                "name=\"Its \\\"one\\\"\"",
                "pretty_name=\"Half open\"",
                "variant=\"cut\"",
                "version=\"a\\\"b$c\\\\n\"",
            ]
        );
        assert_eq!(text.len(), 1);
    }

    #[test]
    fn the_second_file_serves_and_a_change_is_seen() {
        let tree = Tree::new(&[("root/usr/lib/os-release", "ID=arch\nVERSION_ID=20.10.1\n")]);
        let mut os = Os::default();
        let (text, _) = tree.collect(&mut os);
        assert_eq!(text[1], "node_os_version{id=\"arch\",id_like=\"\",name=\"\"} 20.1");
        assert_eq!(tree.collect(&mut os).0, text);
        tree.write("root/etc/os-release", b"ID=debian\nSUPPORT_END=2028-06-30\n");
        let (text, result) = tree.collect(&mut os);
        assert!(result.is_ok());
        assert_eq!(labels(&text), ["id=\"debian\""]);
        assert_eq!(text[1], "node_os_support_end_timestamp_seconds 1845936000");
        let (text, result) = Tree::new(&[]).collect(&mut os);
        assert!(text.is_empty() && matches!(result, Err(CollectError::NoData(_))));
    }

    #[test]
    fn a_malformed_end_of_support_costs_itself() {
        for bad in ["soon", "2028-13-01", "2028-02-30", "2100-02-29", "2028-6-30", "2028-06-30T"] {
            let file = format!("ID=x\nSUPPORT_END={bad}\n");
            let tree = Tree::new(&[("root/etc/os-release", &file)]);
            let (text, result) = tree.collect(&mut Os::default());
            assert_eq!(labels(&text), ["id=\"x\""]);
            assert!(result.unwrap_err().to_string().contains(bad));
        }
        assert_eq!(day(b"1970-01-01"), Some(0));
        assert_eq!(day(b"2000-02-29"), Some(951_782_400));
        assert_eq!(day(b"1969-12-31"), Some(-86_400));
    }

    #[test]
    fn numbers_that_versions_begin_with() {
        let long = "9".repeat(400);
        for (text, number) in [
            ("12", Some(12.0)),
            ("24.04", Some(24.04)),
            ("7.", Some(7.0)),
            ("3.19.1", Some(3.19)),
            ("", None),
            ("rolling", None),
            (".5", None),
            (long.as_str(), None),
        ] {
            assert_eq!(major_minor(text), number, "{text}");
        }
    }
}
