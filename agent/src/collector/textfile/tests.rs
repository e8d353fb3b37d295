//! Files that come, change, go and break, and what is in them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;
use crate::host::Roots;

/// Where the directory of most tests lies below its root.
const DIRECTORY: &str = "/text";

struct Tree {
    root: tempfile::TempDir,
    host: Host,
    textfile: Textfile,
}

impl Tree {
    fn of(directories: &[&str]) -> Tree {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("text")).unwrap();
        let host = Host::new(Roots { root: root.path().into(), ..Roots::default() });
        let directories = directories.iter().map(|&path| path.to_owned()).collect();
        let textfile = Textfile::new(&TextfileOptions { directories });
        Tree { root, host, textfile }
    }

    fn new(files: &[(&str, &str)]) -> Tree {
        let tree = Tree::of(&[DIRECTORY]);
        files.iter().for_each(|(name, text)| tree.write(name, text));
        tree
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join("text").join(name)
    }

    /// Writes a file as if it had been there for a while.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn collect(&mut self) -> (Vec<String>, Option<String>) {
        let mut out = Samples::with_limit(100_000);
        let result = self.textfile.collect(&mut self.host, &mut out);
        assert_eq!(out.refused(), 0);
        let line = |s: crate::model::Sample<'_>| {
            let labels: Vec<_> = s.labels().map(|(n, v)| format!("{n}={v:?}")).collect();
            format!("{}{{{}}} {}", s.name(), labels.join(","), s.value)
        };
        let mut lines: Vec<_> = out.iter().map(line).collect();
        lines.sort();
        (lines, result.err().map(|error| error.to_string()))
    }

    /// The samples of the files, without the collector's own.
    fn samples(&mut self) -> (Vec<String>, Option<String>) {
        let (mut lines, error) = self.collect();
        lines.retain(|line| !line.starts_with("node_textfile_"));
        (lines, error)
    }
}

fn modify(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn without_directories_there_is_only_no_error() {
    let mut tree = Tree::of(&[]);
    assert_eq!(tree.collect(), (vec!["node_textfile_scrape_error{} 0".into()], None));
    assert_eq!(Tree::of(&[""]).collect().0, ["node_textfile_scrape_error{} 0"]);
}

#[test]
fn a_directory_that_is_missing_is_an_error() {
    let (lines, error) = Tree::of(&["/nowhere"]).collect();
    assert_eq!(lines, ["node_textfile_scrape_error{} 1"]);
    assert!(error.unwrap().contains("/nowhere"));
}

#[test]
fn a_malformed_file_gives_nothing_and_is_named_and_the_others_go_on() {
    let mut tree = Tree::new(&[
        ("a.prom", "a 1\n"),
        ("b.prom", "b 1\n# TYPE bb gauge\nbb 2 x\n"),
        ("c.prom", "c 1 1234\n"),
        ("d.prom", "d 1"),
        ("e.prom", "e{x=\"1\"} 1\n"),
        ("f.txt", "f 1\n"),
    ]);
    modify(&tree.path("a.prom"), 1_700_000_000);
    modify(&tree.path("e.prom"), 1_700_000_001);
    for _ in 0..3 {
        let (lines, error) = tree.collect();
        let expected = [
            "a{} 1",
            "e{x=\"1\"} 1",
            "node_textfile_mtime_seconds{file=\"/text/a.prom\"} 1700000000",
            "node_textfile_mtime_seconds{file=\"/text/e.prom\"} 1700000001",
            "node_textfile_scrape_error{} 1",
        ];
        assert_eq!(lines, expected);
        let error = error.unwrap();
        assert!(error.contains("/text/b.prom, line 3") && error.contains("\"x\""), "{error}");
    }
    for name in ["b.prom", "c.prom", "d.prom"] {
        fs::remove_file(tree.path(name)).unwrap();
    }
    let (lines, error) = tree.collect();
    assert_eq!((lines.len(), error), (5, None));
    assert!(lines.contains(&"node_textfile_scrape_error{} 0".to_owned()));
}

#[test]
fn what_is_no_file_stops_no_other() {
    let mut tree = Tree::new(&[("z.prom", "z 1\n")]);
    fs::create_dir(tree.path("a.prom")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        tree.path("b.prom"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    symlink("/nowhere/at/all", tree.path("c.prom")).unwrap();
    symlink("/dev/zero", tree.path("d.prom")).unwrap();
    fs::write(tree.path("e.prom"), vec![b'\n'; (4 << 20) + 1]).unwrap();
    let (lines, error) = tree.samples();
    assert_eq!(lines, ["z{} 1"]);
    assert!(error.unwrap().contains("c.prom"));
    fs::remove_file(tree.path("c.prom")).unwrap();
    assert!(tree.collect().1.unwrap().contains("a.prom: it is no regular file"));
    for name in ["b.prom", "d.prom"] {
        fs::remove_file(tree.path(name)).unwrap();
    }
    fs::remove_dir(tree.path("a.prom")).unwrap();
    assert!(tree.collect().1.unwrap().contains("4 MiB"));
    fs::remove_file(tree.path("e.prom")).unwrap();
    assert_eq!(tree.samples(), (vec!["z{} 1".into()], None));
}

#[test]
fn files_are_read_again_when_they_change_and_only_then() {
    let mut tree = Tree::new(&[("a.prom", "a 1\n")]);
    assert_eq!(tree.samples().0, ["a{} 1"]);
    // Just written: it may change within a tick of the clock.
    assert!(tree.textfile.again);
    tree.write("a.prom", "a 2\n");
    assert_eq!(tree.samples().0, ["a{} 2"]);
    tree.textfile.again = false;
    tree.textfile.store.rows[0].value = 3.0;
    assert_eq!(tree.samples().0, ["a{} 3"], "it is kept");
    // Replaced by a file of the same size and time.
    let modified = fs::metadata(tree.path("a.prom")).unwrap().modified().unwrap();
    tree.write("new", "a 4\n");
    fs::File::options().write(true).open(tree.path("new")).unwrap().set_modified(modified).unwrap();
    fs::rename(tree.path("new"), tree.path("a.prom")).unwrap();
    assert_eq!(tree.samples().0, ["a{} 4"]);
    tree.textfile.again = false;
    tree.write("b.prom", "b 1\n");
    assert_eq!(tree.samples().0, ["a{} 4", "b{} 1"]);
    tree.textfile.again = false;
    fs::remove_file(tree.path("a.prom")).unwrap();
    assert_eq!(tree.samples().0, ["b{} 1"]);
}

#[test]
fn series_of_a_family_get_the_labels_of_the_others_of_their_file() {
    let mut tree = Tree::new(&[
        ("a.prom", "a{x=\"1\"} 1\na{y=\"2\"} 2\na 3\nb 1\n"),
        ("b.prom", "a{z=\"1\"} 4\n"),
    ]);
    let (lines, error) = tree.samples();
    let expected = [
        "a{x=\"\",y=\"\"} 3",
        "a{x=\"\",y=\"2\"} 2",
        "a{x=\"1\",y=\"\"} 1",
        "a{z=\"1\"} 4",
        "b{} 1",
    ];
    assert_eq!((lines, error), (expected.map(String::from).to_vec(), None));
}

#[test]
fn of_a_series_that_comes_twice_the_first_counts() {
    let mut tree = Tree::new(&[
        ("a.prom", "a{x=\"1\"} 1\na{x=\"1\"} 2\na{x=\"\"} 3\na 4\n"),
        ("b.prom", "a{x=\"1\"} 5\n"),
    ]);
    let (lines, error) = tree.collect();
    assert_eq!(&lines[..2], ["a{x=\"\"} 3", "a{x=\"1\"} 1"]);
    assert!(lines.contains(&"node_textfile_scrape_error{} 0".to_owned()), "{lines:?}");
    assert!(error.unwrap().contains(".prom, line "));
}

#[test]
fn what_a_later_file_says_otherwise_of_a_family_costs_its_samples() {
    let mut tree = Tree::new(&[
        ("a.prom", "# HELP h One.\nh 1\n# TYPE t counter\nt 1\nm 1\n# HELP s Same.\ns 1\n"),
        (
            "b.prom",
            "# HELP h Two.\nh{b=\"\"} 1\n# TYPE t gauge\nt{b=\"\"} 1\n# HELP m M.\nm{b=\"\"} 1\n",
        ),
        ("c.prom", "h{c=\"\"} 1\nt{c=\"\"} 1\nm{c=\"\"} 1\n# HELP s Same.\ns{c=\"\"} 1\n"),
    ]);
    let (lines, error) = tree.samples();
    assert_eq!(lines, ["h{} 1", "m{c=\"\"} 1", "m{} 1", "s{c=\"\"} 1", "s{} 1", "t{} 1"]);
    let error = error.unwrap();
    assert!(error.contains("b.prom, line 2") && error.contains("\"h\""), "{error}");
    let mut out = Samples::with_limit(100);
    let _ = tree.textfile.collect(&mut tree.host, &mut out);
    let m = out.iter().find(|sample| sample.family == "m").unwrap();
    assert_eq!(m.help, "Metric read from /text/a.prom, /text/b.prom, /text/c.prom");
}

#[test]
fn histograms_and_summaries_are_put_together() {
    let mut tree = Tree::new(&[(
        "a.prom",
        "# TYPE h histogram\nh_bucket{le=\"1e1\",a=\"x\"} 2\nh_bucket{a=\"x\",le=\"0.50\"} 1.9\nh_sum{a=\"x\"} 7\n\
         h_count{a=\"x\"} 3\nh_bucket{le=\"+Inf\"} 9\n# TYPE s summary\ns{quantile=\"0.90\"} 4\ns_count 2\n\
         # TYPE g gauge\ng_sum 1\nh_max 5\n",
    )]);
    let (lines, error) = tree.samples();
    let expected = [
        "g_sum{} 1",
        "h_bucket{a=\"\",le=\"+Inf\"} 9",
        "h_bucket{a=\"x\",le=\"+Inf\"} 3",
        "h_bucket{a=\"x\",le=\"0.5\"} 1",
        "h_bucket{a=\"x\",le=\"10\"} 2",
        "h_count{a=\"\"} 0",
        "h_count{a=\"x\"} 3",
        "h_max{} 5",
        "h_sum{a=\"\"} 0",
        "h_sum{a=\"x\"} 7",
        "s_count{} 2",
        "s_sum{} 0",
        "s{quantile=\"0.9\"} 4",
    ];
    assert_eq!((lines, error), (expected.map(String::from).to_vec(), None));
}

#[test]
fn what_the_family_can_not_have_is_malformed() {
    for (text, line, token) in [
        ("# TYPE h histogram\nh_bucket 1\n", 2, "h_bucket"),
        ("# TYPE h histogram\nh 1\n", 2, "h"),
        ("# TYPE h histogram\nh_bucket{le=\"x\"} 1\n", 2, "x"),
        ("# TYPE h histogram\nh_bucket{le=\"NaN\"} 1\n", 2, "NaN"),
        ("# TYPE s summary\ns{quantile=\"\"} 1\n", 2, ""),
        ("# TYPE a gauge\n# TYPE a gauge\n", 2, "a"),
        ("a 1\n# TYPE a gauge\n", 2, "a"),
        ("# HELP a A\na 1\n# HELP a A\n", 3, "a"),
        ("a 1\na 2 3\n", 2, "a"),
    ] {
        let (lines, error) = Tree::new(&[("a.prom", text)]).samples();
        assert_eq!(lines, [""; 0], "{text}");
        let error = error.unwrap();
        let names = format!("/text/a.prom, line {line}: {token:?}");
        assert!(error.contains(&names), "{text}: {error} lacks {names}");
    }
}

#[test]
fn too_many_labels_samples_and_files_are_refused() {
    let label = |n: usize| format!("a{{l{n}=\"\"}} 1\n");
    let text: String = (0..40).map(label).collect();
    let (lines, error) = Tree::new(&[("a.prom", &text), ("b.prom", "b 1\n")]).samples();
    assert_eq!(lines, ["b{} 1"]);
    assert!(error.unwrap().contains("32 labels in a family"));
    let text: String = (0..=MAX_SAMPLES).map(|n| format!("a{{l=\"{n}\"}} 1\n")).collect();
    let (lines, error) = Tree::new(&[("a.prom", &text), ("b.prom", "b 1\n")]).samples();
    assert_eq!(lines, ["b{} 1"]);
    assert!(error.unwrap().contains("60000 samples"));
    let mut tree = Tree::new(&[]);
    (0..=MAX_FILES).for_each(|n| tree.write(&format!("{n:04}.prom"), &format!("a{n} 1\n")));
    let (lines, error) = tree.samples();
    assert_eq!(lines.len(), MAX_FILES);
    assert!(error.unwrap().contains("1000 files"));
}

#[test]
fn directories_may_be_patterns_and_come_once() {
    let mut tree = Tree::of(&["/*/[ab]*", "/text/b/", "/text/none*"]);
    for name in ["a", "b", "c", ".a"] {
        fs::create_dir(tree.path(name)).unwrap();
        tree.write(&format!("{name}/x.prom"), &format!("from_{} 1\n", name.trim_matches('.')));
    }
    tree.write("a_file", "");
    for _ in 0..2 {
        let (lines, error) = tree.samples();
        assert_eq!(lines, ["from_a{} 1", "from_b{} 1"]);
        assert!(error.unwrap().contains("/text/none*"));
    }
}

#[test]
fn a_file_of_anything_never_panics() {
    let good =
        "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1\na{x=\"y\"} 1\na 2\n";
    let mut tree = Tree::new(&[]);
    for at in 0..good.len() {
        for byte in [b'\n', b'"', 0, 0xff, b'{', b'_'] {
            let mut bytes = good.as_bytes().to_vec();
            bytes[at] = byte;
            fs::write(tree.path("a.prom"), &bytes).unwrap();
            fs::write(tree.path("b.prom"), &bytes[..at]).unwrap();
            tree.textfile.again = true;
            let (lines, _) = tree.collect();
            assert!(lines.iter().any(|line| line.starts_with("node_textfile_scrape_error")));
        }
    }
}
