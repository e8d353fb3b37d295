//! The stages that edit labels and structured metadata: `labels` and `metadata` set them, `rename`,
//! `remove` and `keep_labels` do what they say.

use super::super::{Action, Verdict, Work};
use super::take::{Destination, MAX_METADATA_VALUE, cut, put};
use super::template::Template;

/// What is done.
#[derive(Clone, Debug, PartialEq)]
pub enum Options {
    /// Sets labels or structured metadata, one after the other.
    Set(Vec<(Destination, Template)>),
    /// Gives labels, or else structured metadata, other names; what had those goes.
    Rename(Vec<(String, String)>),
    /// Removes labels and structured metadata.
    Remove(Vec<String>),
    /// Removes all labels but these and internal ones.
    KeepLabels(Vec<String>),
    /// Makes structured metadata of labels.
    ToMetadata(Vec<String>),
}

/// The stage.
#[derive(Debug)]
pub struct Edit {
    options: Options,
    value: String,
}

impl Edit {
    /// The stage.
    pub fn new(options: &Options) -> Edit {
        Edit { options: options.clone(), value: String::new() }
    }
}

impl Action for Edit {
    fn apply(&mut self, entry: &mut Work, _now_ns: i64) -> Verdict {
        match &self.options {
            Options::Set(all) => {
                for (to, template) in all {
                    self.value.clear();
                    template.fill(entry, &mut self.value);
                    put(entry, to, &mut self.value);
                }
            }
            Options::Rename(all) => {
                for (from, to) in all.iter().filter(|(from, to)| from != to) {
                    if let Some(value) = entry.remove_label(from) {
                        entry.set_label(to, &value);
                    } else {
                        entry.metadata.rename(from, to);
                    }
                }
            }
            Options::Remove(names) => {
                for name in names {
                    entry.remove_label(name);
                    entry.metadata.remove(name);
                }
            }
            Options::KeepLabels(names) => {
                while other_label(entry, names, &mut self.value) {
                    entry.remove_label(&self.value);
                }
            }
            Options::ToMetadata(names) => {
                for name in names {
                    if let Some(value) = entry.remove_label(name) {
                        entry.metadata.set(name, cut(&value, MAX_METADATA_VALUE));
                    }
                }
            }
        }
        Verdict::Keep
    }
}

/// Puts the name of the first label that is none of these and not internal into `name`, if there is one.
fn other_label(entry: &Work, names: &[String], name: &mut String) -> bool {
    let labels = entry.labels().iter().map(|(name, _)| name);
    let mut others =
        labels.filter(|name| !name.starts_with("__") && names.iter().all(|keep| keep != name));
    name.clear();
    name.push_str(others.next().unwrap_or_default());
    !name.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(options: Options) -> (String, Vec<(String, String)>) {
        let mut work = Work::default();
        for (name, value) in [("__source__", "file"), ("a", "1"), ("b", "2")] {
            work.set_label(name, value);
        }
        work.metadata.set("m", "3");
        work.metadata.set("n", "4");
        Edit::new(&options).apply(&mut work, 0);
        let pairs = work.metadata.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        (work.labels().to_string(), pairs.collect())
    }

    fn check(options: Options, labels: &str, metadata: &[(&str, &str)]) {
        let (have, pairs) = edited(options.clone());
        assert_eq!(have, format!("{{__source__=\"file\"{labels}}}"), "{options:?}");
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(pairs, metadata, "{options:?}");
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn labels_and_metadata_are_set_from_what_is_there() {
        let template = |text: &str| Template::parse(text).unwrap();
        let label = |name: &str| Destination::Label(name.into());
        let all = vec![
            (label("a"), template("{b}-{m}")),
            (label("c"), template("{a}{none}")),
            (label("d"), template("{none}")),
            (Destination::Metadata("x".into()), template("{c}")),
        ];
        let labels = ", a=\"2-3\", b=\"2\", c=\"2-3\"";
        check(Options::Set(all), labels, &[("m", "3"), ("n", "4"), ("x", "2-3")]);
    }

    #[test]
    fn names_change_go_and_move() {
        let kept = &[("m", "3"), ("n", "4")][..];
        let pairs = |pairs: &[(&str, &str)]| {
            Options::Rename(pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect())
        };
        check(pairs(&[("a", "b"), ("none", "x"), ("b", "b")]), ", b=\"1\"", kept);
        check(pairs(&[("m", "n")]), ", a=\"1\", b=\"2\"", &[("n", "3")]);
        check(Options::Remove(names(&["a", "n", "none"])), ", b=\"2\"", &[("m", "3")]);
        check(Options::KeepLabels(names(&["b", "m"])), ", b=\"2\"", kept);
        check(Options::KeepLabels(Vec::new()), "", kept);
        let moved = Options::ToMetadata(names(&["a", "none", "m"]));
        check(moved, ", b=\"2\"", &[("m", "3"), ("n", "4"), ("a", "1")]);
    }
}
