//! `textfile` beside a real node_exporter (Debian's package, version 1.5.0) on the same directories of good
//! and bad files: the same series with the same values, help texts and types.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mote::collector::{Options, Set};
use mote::encode::write_text;
use mote::host::{Host, Roots};
use mote::model::Samples;

/// Name and text. Those in `b` come after those in `a`.
const FILES: &[(&str, &str)] = &[
    (
        "a/10.prom",
        "# HELP events_total A help.\n# TYPE events_total counter\nevents_total{file=\"a\"} 1\n",
    ),
    (
        "a/11.prom",
        "# HELP events_total A help.\n# TYPE events_total counter\nevents_total{file=\"b\",x=\"y\"} 1\nevents_total{file=\"c\"} 1e6\n",
    ),
    (
        "a/12.prom",
        "# HELP events_total Another help.\n# TYPE events_total counter\nevents_total{file=\"d\"} 1\n",
    ),
    ("a/13.prom", "events_total{file=\"e\"} 1\n"),
    ("a/20.prom", "no_help 3\nno_help{b=\"1\"} 4\ntyped 1\nlater 1\n"),
    (
        "a/21.prom",
        "no_help{c=\"1\"} 5\n# TYPE typed gauge\ntyped{x=\"a\"} 2\n# HELP later Too late.\nlater{z=\"1\"} 1\n",
    ),
    ("a/22.prom", "twice{a=\"1\"} 1\ntwice{a=\"1\"} 2\n"),
    ("a/23.prom", "twice{a=\"1\"} 3\ntwice{a=\"2\"} 4\n"),
    (
        "a/30.prom",
        "# TYPE h histogram\nh_bucket{le=\"0.50\"} 1\nh_bucket{le=\"1e7\"} 2.9\nh_sum 3\nh_count 4\nh_bucket{a=\"1\",le=\"+Inf\"} 5\nh_bucket{a=\"1\",le=\"1\"} 2\nh_bucket{a=\"1\",le=\"1.0\"} 3\n",
    ),
    (
        "a/31.prom",
        "# HELP s S.\n# TYPE s SUMMARY\ns{quantile=\"0.90\",l=\"1\"} 3\ns{l=\"1\",quantile=\"0.5\"} 1\ns_sum{l=\"1\"} 1.5\ns_count{m=\"2\"} 7\ns_bucket 1\n",
    ),
    ("a/32.prom", "# TYPE g gauge\ng_count 1\n# HELP g_sum Not of g.\ng_sum 2\ng 3\n"),
    (
        "a/40.prom",
        "values{n=\"1\"} NaN\nvalues{n=\"2\"} +inf\nvalues{n=\"3\"} -Infinity\nvalues{n=\"4\"} .5\nvalues{n=\"5\"} 5.\nvalues{n=\"6\"} -0\nvalues{n=\"7\"} 1E-7\nvalues{n=\"8\"} 1e-400\n",
    ),
    (
        "a/41.prom",
        " \t odd { a = \"1\" , } 1\nodd{a=\"q\\\"b\\\\n\\n\"}2\n\n  # HELP odd Back\\\\slash \\n.\n#\n# just text\n#HELP\n",
    ),
    ("a/42.prom", "# HELP alone No samples.\n# TYPE alone gauge\n"),
    ("a/43.prom", ""),
    ("a/44.prom", "\u{fc}n 1\n"),
    ("a/45.prom", "uml{a=\"\u{fc}\"} 1\n"),
    ("b/50.prom", "bad_a 1\nbad_a2 2 2 2\n"),
    ("b/51.prom", "bad_b 1 123\n"),
    ("b/52.prom", "bad_c 1"),
    ("b/53.prom", "bad_d 0x10\n"),
    ("b/54.prom", "bad_e 1 \n"),
    ("b/55.prom", "bad_f{a=\"1\",a=\"2\"} 1\n"),
    ("b/56.prom", "bad_g{a=\"\\t\"} 1\n"),
    ("b/57.prom", "# TYPE bad_h gouge\nbad_h 1\n"),
    ("b/58.prom", "bad_i 1\n# TYPE bad_i gauge\n"),
    ("b/59.prom", "# HELP bad_j A\nbad_j 1\n# HELP bad_j A\n"),
    ("b/60.prom", "bad_k{a=\"1\"\n"),
    ("b/61.prom", "bad_l 1e400\n"),
    ("b/62.prom", "bad_m 1_0\n"),
    ("b/63.prom", "bad_n 1\r\n"),
    ("b/64.prom", "# TYPE bad_o histogram\nbad_o_bucket{le=\"x\"} 1\n"),
    ("b/65.prom", "bad_p{__name__=\"x\"} 1\n"),
    ("b/66.prom", "{a=\"1\"} 1\n"),
    ("b/67.prom", "bad_q{,} 1\n"),
    ("b/68.prom", "good_again 1\n"),
    ("b/none.txt", "not_read 1\n"),
];

struct Exporter(Child);

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn theirs(directory: &str) -> BTreeSet<String> {
    let mut child = Command::new("prometheus-node-exporter")
        .args(["--web.listen-address=127.0.0.1:0", "--collector.disable-defaults"])
        .args(["--web.disable-exporter-metrics", "--collector.textfile"])
        .arg(format!("--collector.textfile.directory={directory}"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("prometheus-node-exporter: {error}; `cargo xtask setup` installs it")
        });
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let exporter = Exporter(child);
    let address = loop {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "node_exporter ended");
        if let Some((_, address)) = line.split_once("msg=\"Listening on\" address=") {
            break address.trim().to_owned();
        }
    };
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    drop(exporter);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200"), "{answer}");
    lines(body)
}

fn ours(directory: &str) -> BTreeSet<String> {
    let mut options = Options::default();
    options.textfile.directories = vec![directory.to_owned()];
    let mut set = Set::new(|entry| entry.name == "textfile", &options);
    let mut samples = Samples::with_limit(10_000);
    set.collect(&mut Host::new(Roots::default()), &mut samples);
    let mut text = Vec::new();
    write_text(&samples, &mut text).unwrap();
    lines(&String::from_utf8(text).unwrap())
}

fn lines(text: &str) -> BTreeSet<String> {
    const NOT_COMPARED: [&str; 3] = ["node_scrape_", "node_exporter_", "promhttp_"];
    let other = |line: &&str| !NOT_COMPARED.iter().any(|not| line.contains(not));
    let lines: Vec<_> = text.lines().filter(other).map(str::to_owned).collect();
    let set: BTreeSet<_> = lines.iter().cloned().collect();
    assert_eq!(set.len(), lines.len(), "a line twice");
    set
}

#[track_caller]
fn same(directory: &str, least: usize) {
    let (theirs, ours) = (theirs(directory), ours(directory));
    let only_theirs: Vec<_> = theirs.difference(&ours).collect();
    let only_ours: Vec<_> = ours.difference(&theirs).collect();
    assert!(
        only_theirs.is_empty() && only_ours.is_empty(),
        "only node_exporter: {only_theirs:#?}\nonly mote: {only_ours:#?}"
    );
    assert!(ours.len() >= least, "{ours:#?}");
}

fn write(root: &Path, filter: impl Fn(&str) -> bool) {
    for (name, text) in FILES.iter().filter(|(name, _)| filter(name)) {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), text).unwrap();
    }
}

#[test]
fn good_and_bad_files_give_what_node_exporter_gives() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), |_| true);
    same(&format!("{}/a/", root.path().display()), 80);
    same(&format!("{}/[ab]", root.path().display()), 85);
    same(&format!("{}/none*", root.path().display()), 3);
    same("", 3);
}

#[test]
fn each_file_alone_gives_what_node_exporter_gives() {
    for (name, text) in FILES {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), |other| other == *name);
        let directory = root.path().join(name);
        println!("{name}: {text:?}");
        same(&directory.parent().unwrap().display().to_string(), 3);
    }
}
