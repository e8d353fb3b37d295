//! Samples as the Prometheus text exposition format 0.0.4, in the order and with the spelling of Go's
//! client: families by name, samples by labels, numbers as `strconv` writes them.
//!
//! For people and tests (`mote run --once --stdout`, `/metrics?collect=node`); it allocates.

use std::io::{self, Write};

use crate::exposition;
use crate::model::{Kind, Sample, Samples, Suffix};
use crate::sort;

/// Writes all samples. A family that was opened several times is written once, with the help and type
/// of its first opening.
///
/// # Errors
/// Whatever writing gave.
pub fn write_text(samples: &Samples, out: &mut impl Write) -> io::Result<()> {
    let mut sorted: Vec<Sample<'_>> = samples.iter().map(of_its_name).collect();
    // Stable, so that what compares equal, the parts of a histogram or summary, keeps its order.
    sort::stable_by(&mut sorted, |a, b| {
        a.family.cmp(b.family).then_with(|| {
            let ordered = |kind| matches!(kind, Kind::Histogram | Kind::Summary);
            if ordered(a.kind) || ordered(b.kind) {
                std::cmp::Ordering::Equal
            } else {
                compare_labels(a, b)
            }
        })
    });
    for family in sorted.chunk_by(|a, b| a.family == b.family) {
        let Some(first) = family.first() else { continue };
        if !first.help.is_empty() {
            write!(out, "# HELP {} ", first.family)?;
            escape(first.help, false, out)?;
            out.write_all(b"\n")?;
        }
        writeln!(out, "# TYPE {} {}", first.family, first.kind.as_str())?;
        for sample in family {
            write_sample(sample, out)?;
        }
    }
    Ok(())
}

/// A sample that has another name than its family's, which a relabel rule may give it, is a family of its own.
fn of_its_name(sample: Sample<'_>) -> Sample<'_> {
    let name = sample.name();
    if name.strip_prefix(sample.family) == Some(sample.suffix.as_str()) {
        return sample;
    }
    Sample { family: name, help: "", kind: Kind::Untyped, suffix: Suffix::None, ..sample }
}

/// As Go's client: fewer labels first, then by values in the order of the labels' names.
fn compare_labels(a: &Sample<'_>, b: &Sample<'_>) -> std::cmp::Ordering {
    let by_values = || {
        let (a, b) = (a.labels().map(|label| label.1), b.labels().map(|label| label.1));
        a.cmp(b)
    };
    a.labels().count().cmp(&b.labels().count()).then_with(by_values)
}

fn write_sample(sample: &Sample<'_>, out: &mut impl Write) -> io::Result<()> {
    out.write_all(sample.name().as_bytes())?;
    // Go's client writes a bucket's bound after the other labels, whatever their names.
    let bucket = sample.suffix == Suffix::Bucket;
    let others = sample.labels().filter(|(name, _)| !(bucket && *name == "le"));
    let bound = sample.labels().filter(|(name, _)| bucket && *name == "le");
    let mut open = false;
    for (name, value) in others.chain(bound) {
        out.write_all(if open { b"," } else { b"{" })?;
        open = true;
        write!(out, "{name}=\"")?;
        escape(value, true, out)?;
        out.write_all(b"\"")?;
    }
    out.write_all(if open { b"} " } else { b" " })?;
    write_value(sample.value, out)?;
    out.write_all(b"\n")
}

/// Backslash and line break, and in a label's value the quote.
fn escape(text: &str, quote: bool, out: &mut impl Write) -> io::Result<()> {
    let special = |c: char| c == '\\' || c == '\n' || (quote && c == '"');
    let mut rest = text;
    while let Some(at) = rest.find(special) {
        let (before, from) = rest.split_at(at);
        out.write_all(before.as_bytes())?;
        out.write_all(match from.as_bytes().first() {
            Some(b'\\') => b"\\\\",
            Some(b'\n') => b"\\n",
            _ => b"\\\"",
        })?;
        rest = from.get(1..).unwrap_or_default();
    }
    out.write_all(rest.as_bytes())
}

/// Writes a number as Go does.
///
/// # Errors
/// Whatever writing gave.
fn write_value(value: f64, out: &mut impl Write) -> io::Result<()> {
    out.write_all(exposition::show(value).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Desc;

    fn written(samples: &Samples) -> String {
        let mut out = Vec::new();
        write_text(samples, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-1.0, "-1"),
            (0.1, "0.1"),
            (123456.0, "123456"),
            (123456.5, "123456.5"),
            (999999.9, "999999.9"),
            (1e6, "1e+06"),
            (1234567.0, "1.234567e+06"),
            (1.795251455e9, "1.795251455e+09"),
            (8.4148957184e10, "8.4148957184e+10"),
            (1e21, "1e+21"),
            (1e100, "1e+100"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (0.000012345, "1.2345e-05"),
            (11.740620000000002, "11.740620000000002"),
            (2.0879e-05, "2.0879e-05"),
            (f64::MAX, "1.7976931348623157e+308"),
            (-f64::MAX, "-1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (5e-324, "5e-324"),
            (18446744073709551615.0, "1.8446744073709552e+19"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            let mut out = Vec::new();
            write_value(value, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn families_are_sorted_and_written_once() {
        const B: Desc = Desc::counter("b_total", "Back\\slash and\nline \"break\".");
        const A: Desc = Desc::gauge("a", "A.");
        let mut samples = Samples::with_limit(10);
        samples.family(&B).add(&[("x", "10")], 1.0);
        samples.value(&A, 0.5);
        samples.family(&B).add(&[("x", "1")], 2.0).add(&[("x", "q\"b\\n\n")], 3.0);
        samples.family_named("c", "", Kind::Untyped).add(&[("z", ""), ("y", "ü")], 4e6);
        assert_eq!(
            written(&samples),
            "# HELP a A.\n\
             # TYPE a gauge\n\
             a 0.5\n\
             # HELP b_total Back\\\\slash and\\nline \"break\".\n\
             # TYPE b_total counter\n\
             b_total{x=\"1\"} 2\n\
             b_total{x=\"10\"} 1\n\
             b_total{x=\"q\\\"b\\\\n\\n\"} 3\n\
             # TYPE c untyped\n\
             c{y=\"ü\",z=\"\"} 4e+06\n"
        );
    }

    #[test]
    fn a_histogram_keeps_its_order_and_its_bound_comes_last() {
        const H: Desc = Desc::histogram("h_seconds", "H.");
        let mut samples = Samples::with_limit(10);
        samples.family(&H).histogram(&[("op", "r")], [("0.5", 1), ("10", 2)], 7.25, 3);
        assert_eq!(
            written(&samples),
            "# HELP h_seconds H.\n\
             # TYPE h_seconds histogram\n\
             h_seconds_bucket{op=\"r\",le=\"0.5\"} 1\n\
             h_seconds_bucket{op=\"r\",le=\"10\"} 2\n\
             h_seconds_bucket{op=\"r\",le=\"+Inf\"} 3\n\
             h_seconds_sum{op=\"r\"} 7.25\n\
             h_seconds_count{op=\"r\"} 3\n"
        );
    }

    #[test]
    fn nothing_is_written_for_no_samples() {
        assert_eq!(written(&Samples::with_limit(0)), "");
    }
}
