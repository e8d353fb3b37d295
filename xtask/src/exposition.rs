//! Pages in the Prometheus text format, read and held against each other: which families and series only
//! one side has, which families are described otherwise. `cargo xtask parity` and the agent's test of
//! parity share it, the test by its path; it must not know either, nor where a page comes from, and uses
//! nothing but std.

use std::collections::BTreeMap;

/// What a page says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Exposition {
    /// Families by name.
    pub(crate) families: BTreeMap<String, Family>,
    /// Series, as they are written, to their values.
    pub(crate) series: BTreeMap<String, f64>,
}

/// How a family is described.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Family {
    pub(crate) help: String,
    /// Empty if the page does not say.
    pub(crate) kind: String,
}

/// What two pages don't have in common.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Differences {
    /// Families that ours lacks.
    pub(crate) missing_families: Vec<String>,
    /// Families that ours has alone.
    pub(crate) extra_families: Vec<String>,
    /// Families with another help or type: theirs, ours.
    pub(crate) described: Vec<(String, Family, Family)>,
    /// Series that ours lacks.
    pub(crate) missing: Vec<String>,
    /// Series that ours has alone.
    pub(crate) extra: Vec<String>,
}

impl Exposition {
    /// Reads a page. Comments other than HELP and TYPE, and timestamps, are passed over.
    ///
    /// # Errors
    /// The line that is no sample, or that gives a series for the second time.
    pub(crate) fn parse(text: &str) -> Result<Exposition, String> {
        let mut parsed = Exposition::default();
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix('#') {
                let mut words = comment.trim_start().splitn(3, ' ');
                let (what, name) = (words.next(), words.next().unwrap_or_default());
                let rest = words.next().unwrap_or_default().to_owned();
                match what {
                    Some("HELP") => parsed.families.entry(name.to_owned()).or_default().help = rest,
                    Some("TYPE") => parsed.families.entry(name.to_owned()).or_default().kind = rest,
                    _ => {}
                }
                continue;
            }
            let (series, rest) = split(line).ok_or_else(|| format!("no sample: {line}"))?;
            let number = rest.split_ascii_whitespace().next().unwrap_or_default();
            let value = number.parse().map_err(|_| format!("{number:?} is no number: {line}"))?;
            if parsed.series.insert(series.to_owned(), value).is_some() {
                return Err(format!("a second sample of {series}"));
            }
        }
        Ok(parsed)
    }

    /// Leaves out the families and series whose beginning is one of these.
    pub(crate) fn without<'a>(mut self, starts: impl Iterator<Item = &'a str> + Clone) -> Self {
        let meant = |name: &str| starts.clone().any(|start| name.starts_with(start));
        self.series.retain(|series, _| !meant(series));
        self.families.retain(|family, _| !meant(family));
        self
    }

    /// The family that a series belongs to: of its own name, or of the one that its `_bucket`, `_sum` or
    /// `_count` goes with.
    pub(crate) fn family_of<'a>(&self, series: &'a str) -> &'a str {
        let name = name(series);
        if self.families.contains_key(name) {
            return name;
        }
        let parts = ["_bucket", "_sum", "_count"].iter();
        let mut bases = parts.filter_map(|part| name.strip_suffix(part));
        bases.find(|base| self.families.contains_key(*base)).unwrap_or(name)
    }

    /// The type of a series' family; empty if the page does not say.
    pub(crate) fn kind(&self, series: &str) -> &str {
        self.families.get(self.family_of(series)).map_or("", |family| &family.kind)
    }

    /// The values that a label has in a family, such as `collector` in `node_scrape_collector_success`.
    pub(crate) fn label_values(&self, family: &str, label: &str) -> Vec<String> {
        let of_family = self.series.keys().filter(|series| name(series) == family);
        let value = |series: &String| {
            let (_, rest) = series.split_once(&format!("{label}=\""))?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        of_family.filter_map(value).collect()
    }

    /// What this one and `ours` don't have in common; values are not looked at.
    pub(crate) fn compare(&self, ours: &Exposition) -> Differences {
        let mut found = Differences::default();
        for (name, family) in &self.families {
            match ours.families.get(name) {
                None => found.missing_families.push(name.clone()),
                Some(other) if other == family => {}
                Some(other) => found.described.push((name.clone(), family.clone(), other.clone())),
            }
        }
        let alone = |name: &&String| !self.families.contains_key(*name);
        found.extra_families = ours.families.keys().filter(alone).cloned().collect();
        let lacks = |other: &Exposition, series: &String| !other.series.contains_key(series);
        found.missing = self.series.keys().filter(|s| lacks(ours, s)).cloned().collect();
        found.extra = ours.series.keys().filter(|s| lacks(self, s)).cloned().collect();
        found
    }
}

impl Differences {
    /// Whether one side has series that the other has not.
    pub(crate) fn in_series(&self) -> bool {
        !self.missing.is_empty() || !self.extra.is_empty()
    }
}

/// A series' name, without its labels.
pub(crate) fn name(series: &str) -> &str {
    series.split('{').next().unwrap_or_default()
}

/// A line's series, and its value with what follows. A label's value may hold anything, also a brace.
fn split(line: &str) -> Option<(&str, &str)> {
    let (mut quoted, mut escaped, mut braces) = (false, false, false);
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' if !quoted => braces = true,
            b'}' if !quoted => braces = false,
            b' ' | b'\t' if !quoted && !braces => return Some((line.get(..at)?, line.get(at..)?)),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_with_all_that_labels_may_hold() {
        let page = "# HELP a Some help.\n# TYPE a gauge\na 1e+06\n\
                    a{x=\"} \\\" { 7\",y=\"\\\\\"} -0.5 1700000000000\n\
                    # a comment\n# EOF\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 3\nb NaN\n";
        let read = Exposition::parse(page).expect("a page");
        assert_eq!(read.series.len(), 4);
        assert_eq!(read.series.get("a"), Some(&1e6));
        assert_eq!(read.series.get("a{x=\"} \\\" { 7\",y=\"\\\\\"}"), Some(&-0.5));
        let kinds = ["a", "a{x=\"1\"}", "h_bucket{le=\"1\"}", "b"].map(|series| read.kind(series));
        assert_eq!(kinds, ["gauge", "gauge", "histogram", ""]);
        let page = "s{collector=\"cpu\"} 1\ns{collector=\"os\"} 0\nt{collector=\"x\"} 1\n";
        let read = Exposition::parse(page).expect("a page");
        assert_eq!(read.label_values("s", "collector"), ["cpu", "os"]);
    }

    #[test]
    fn what_is_no_page_is_told_by_its_line() {
        for (page, said) in [
            ("a\n", "no sample: a"),
            ("a{x=\"1} 2\n", "no sample"),
            ("a one\n", "\"one\" is no number"),
            ("a 1\na 2\n", "a second sample of a"),
        ] {
            let error = Exposition::parse(page).expect_err(page);
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn every_difference_is_found_in_both_directions() {
        let read = |page: &str| Exposition::parse(page).expect("a page");
        let theirs = read("# HELP a A.\n# TYPE a gauge\na 1\n# TYPE b counter\nb{x=\"1\"} 1\n");
        let ours = read("# HELP a A!\n# TYPE a gauge\na 2\n# TYPE c counter\nc 1\n");
        let found = theirs.compare(&ours);
        assert_eq!((found.missing_families.len(), found.extra_families.len()), (1, 1));
        assert_eq!((found.missing[0].as_str(), found.extra[0].as_str()), ("b{x=\"1\"}", "c"));
        let (name, they, we) = &found.described[0];
        assert_eq!((name.as_str(), they.help.as_str(), we.help.as_str()), ("a", "A.", "A!"));
        assert!(found.in_series());
        let left = |page: Exposition| page.without(["b", "c"].into_iter());
        let found = left(theirs.clone()).compare(&left(ours));
        assert!(!found.in_series() && found.described.len() == 1);
        assert_eq!(theirs.compare(&theirs), Differences::default());
    }
}
