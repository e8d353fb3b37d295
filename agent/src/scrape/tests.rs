//! Pages as Prometheus has them, value by value, and pages that no target should have.

use std::cell::RefCell;

use super::*;
use crate::model::{FIRST_TARGET, Samples};
use crate::relabel::{Action, Options, Rule};

fn target(honor_labels: bool) -> Target {
    let labels = [("job", "j"), ("instance", "i:1"), ("site", "home")];
    Target { labels: Labels::from_pairs(labels).unwrap(), honor_labels, ..Target::default() }
}

type Read = Result<(Vec<String>, Counts), (ScrapeError, Counts)>;

fn read_as(target: &Target, content_type: &str, text: &[u8], size: usize) -> Read {
    let mut samples = Samples::with_limit(10_000);
    samples.begin(FIRST_TARGET);
    let mut page = Page::new(target, 10_000, &mut samples);
    for piece in text.chunks(size) {
        if !page.feed(content_type, piece) {
            break;
        }
    }
    let counts = page.finish()?;
    let show = |sample: crate::model::Sample<'_>| {
        let labels: Vec<_> = sample.labels().map(|(n, v)| format!("{n}={v}")).collect();
        format!("{} {} {} {:?}", sample.name(), labels.join(","), sample.value, sample.kind)
    };
    Ok((samples.iter().map(show).collect(), counts))
}

fn read(target: &Target, text: &str) -> Read {
    let whole = read_as(target, "", text.as_bytes(), text.len().max(1));
    for size in [1, 2, 3, 7, 64] {
        assert_eq!(read_as(target, "", text.as_bytes(), size), whole, "pieces of {size}");
    }
    whole
}

#[track_caller]
fn fails(target: &Target, text: &str, with: &str) {
    let (error, _) = read(target, text).unwrap_err();
    assert!(error.to_string().contains(with), "{text:?}: {error}");
}

#[test]
fn labels_of_the_target_win_unless_the_page_is_honoured() {
    let text = "a{job=\"x\",exported_job=\"y\",b=\"1\"} 1\nc{instance=\"\",site=\"\"} 2\n";
    let (samples, _) = read(&target(false), text).unwrap();
    assert_eq!(
        samples,
        [
            "a b=1,exported_exported_job=x,exported_job=y,instance=i:1,job=j,site=home 1 Untyped",
            "c instance=i:1,job=j,site=home 2 Untyped"
        ]
    );
    let (samples, _) = read(&target(true), text).unwrap();
    assert_eq!(
        samples,
        ["a b=1,exported_job=y,instance=i:1,job=x,site=home 1 Untyped", "c job=j 2 Untyped"]
    );
}

#[test]
fn types_are_those_of_the_newest_type_line() {
    let text = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 2\nh_count 3\nhx 4\n# TYPE s summary\n\
                s{quantile=\"0.5\"} 5\ns_bucket 6\n# HELP c \\d\n# TYPE c counter\nc 7\n# TYPE g gauge\ng 8 12345\nu 9";
    let (samples, counts) = read(&target(true), text).unwrap();
    let kinds: Vec<_> = samples
        .iter()
        .map(|s| (s.split(' ').next().unwrap(), s.rsplit(' ').next().unwrap()))
        .collect();
    assert_eq!(
        kinds,
        [
            ("h_bucket", "Histogram"),
            ("h_sum", "Histogram"),
            ("h_count", "Histogram"),
            ("hx", "Untyped"),
            ("s", "Summary"),
            ("s_bucket", "Untyped"),
            ("c", "Counter"),
            ("g", "Gauge"),
            ("u", "Untyped"),
        ]
    );
    assert_eq!(counts, Counts { scraped: 9, kept: 9, timestamps: 1 });
}

#[test]
fn a_nan_of_a_page_is_a_value_and_never_a_marker() {
    let mut samples = Samples::with_limit(10);
    let target = target(false);
    let mut page = Page::new(&target, 10, &mut samples);
    assert!(page.feed("text/plain", b"a NaN\nb nan\nc +Inf\nd -Inf\ne -0\n"));
    page.finish().unwrap();
    let bits: Vec<_> = samples.iter().map(|sample| sample.value.to_bits()).collect();
    let inf = f64::INFINITY.to_bits();
    let neg = f64::NEG_INFINITY.to_bits();
    assert_eq!(bits, [super::page::NAN, super::page::NAN, inf, neg, (-0.0f64).to_bits()]);
}

#[test]
fn a_malformed_page_fails_as_a_whole() {
    let target = target(false);
    for text in [
        "a 1\nb",
        "a{b=\"1\",b=\"2\"} 1\n",
        "a{b=\"1\"",
        "a{b=1} 1\n",
        "1a 1\n",
        "a 1 2 3\n",
        "a 0x1\n",
        "a 1e999\n",
        "a{__name__=\"b\"} 1\n",
        "a{b=\"\u{0}\"} \u{0}\n",
        "# TYPE a foo\n",
        "<html>\n",
        "{\"a\": 1}\n",
        "a 1\r\n",
    ] {
        let (error, _) = read(&target, text).unwrap_err();
        assert!(matches!(error, ScrapeError::Page(_)), "{text:?}: {error}");
    }
    fails(&target, "a 1\nb x\n", "line 2");
    let text = b"a{b=\"\xff\"} 1\n";
    assert!(read_as(&target, "", text, 3).is_err());
    assert_eq!(read(&target, "").unwrap(), (Vec::new(), Counts::default()));
    let html = read_as(&target, "text/html; charset=utf-8", b"a 1\n", 9).unwrap_err().0;
    assert!(html.to_string().contains("metrics_path"), "{html}");
}

#[test]
fn a_limit_fails_the_scrape_and_says_which() {
    let mut target = target(false);
    target.limits = Limits { samples: 2, body: 0, labels: 6, name: 10, value: 8 };
    assert!(read(&target, "a 1\nb 2\n").is_ok());
    let (error, counts) = read(&target, "a 1\nb 2\nc 3\nd 4\n").unwrap_err();
    assert_eq!(error.to_string(), "the page has more than sample_limit = 2");
    assert_eq!((counts.scraped, counts.kept), (4, 4), "the rest is counted");
    fails(
        &target,
        "a 1\na{b=\"1\",c=\"2\",d=\"3\"} 1\n",
        "line 2: \"a\" is more than label_limit = 6",
    );
    fails(&target, "a{bbbbbbbbbbb=\"1\"} 1\n", "label_name_length_limit = 10");
    fails(&target, "a{b=\"123456789\"} 1\n", "label_value_length_limit = 8");
    // As the rest of the agent counts.
    let mut samples = Samples::with_limit(10);
    let mut page = Page::new(&target, 1, &mut samples);
    assert!(page.feed("", b"a 1\nb 2\n"));
    let error = page.finish().unwrap_err().0.to_string();
    assert_eq!(error, "the page has more than metrics.max_series = 1");
}

#[test]
fn rules_see_the_whole_series_and_what_they_drop_counts_no_more() {
    let rule = |options| Rule::new(options).unwrap();
    let drop = Options {
        source_labels: Some(vec!["__name__".into()]),
        regex: Some("go_.*".into()),
        action: Some(Action::Drop),
        ..Options::default()
    };
    let rename = Options {
        source_labels: Some(vec!["instance".into()]),
        target_label: Some("__name__".into()),
        regex: Some("i:1".into()),
        replacement: Some("renamed".into()),
        ..Options::default()
    };
    let mut target = target(false);
    target.limits.samples = 1;
    target.relabel = [rule(drop), rule(rename)].into_iter().collect();
    let (samples, counts) = read(&target, "go_a 1\ngo_b 2\nc 3\n").unwrap();
    assert_eq!(samples, ["renamed instance=i:1,job=j,site=home 3 Untyped"]);
    assert_eq!((counts.scraped, counts.kept), (3, 1));
}

#[test]
fn a_scrape_is_reported_under_the_targets_labels() {
    let mut samples = Samples::with_limit(10);
    let report = Report { up: true, seconds: 0.5, scraped: 3, kept: 2, added: 1 };
    report.write(&target(true), &mut samples);
    let got: Vec<_> = samples.iter().map(|s| (s.name().to_owned(), s.value)).collect();
    assert_eq!(got.len(), REPORTED);
    assert_eq!(got[0], ("up".to_owned(), 1.0));
    assert_eq!(got[4], ("scrape_series_added".to_owned(), 1.0));
    assert!(samples.iter().all(|s| s.labels().count() == 3));
}

#[test]
fn help_texts_are_those_of_the_families_as_they_are_sent() {
    let rename = Rule::new(Options {
        source_labels: Some(vec!["__name__".into()]),
        regex: Some("renamed_(.*)".into()),
        target_label: Some("__name__".into()),
        replacement: Some("other_$1".into()),
        ..Options::default()
    });
    let target = Target { relabel: [rename.unwrap()].into_iter().collect(), ..target(false) };
    let text = "# HELP c Counts.\n# TYPE c counter\nc_total 1\n\
        # HELP h Takes\\nlong.\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n\
        # TYPE s summary\n# HELP s Sums.\ns_count 1\n\
        # HELP plain \u{1f680} a\\\\b\nplain 1\n\
        # HELP renamed_a A.\nrenamed_a 1\n\
        # HELP stranger Not of it.\nnone 1\n# HELP empty\nempty 1\n# HELP gone Gone.\n";
    let long = format!("# HELP long {}\nlong 1\n", "\u{e9}".repeat(1_000));
    let (mut samples, texts) = (Samples::with_limit(99), RefCell::new(Texts::default()));
    texts.borrow_mut().want();
    samples.begin(FIRST_TARGET);
    let mut page = Page::new(&target, 99, &mut samples).telling(&texts);
    assert!(page.feed("application/openmetrics-text", format!("{text}{long}# EOF\n").as_bytes()));
    page.finish().unwrap();
    let texts = texts.borrow();
    for (family, expected) in [
        ("c_total", "Counts."),
        ("h", "Takes\nlong."),
        ("s", "Sums."),
        ("plain", "\u{1f680} a\\b"),
        ("other_a", "A."),
    ] {
        assert_eq!(texts.get(family), expected, "{family}");
    }
    for none in ["c", "h_sum", "stranger", "none", "renamed_a", "empty", "gone"] {
        assert_eq!(texts.get(none), "", "{none}");
    }
    assert_eq!(texts.get("long"), "\u{e9}".repeat(250));
}
