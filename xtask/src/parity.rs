//! `cargo xtask parity FILE`: the page of any node_exporter, of whatever version, held against what this
//! tree's agent gives on this machine for the same collectors. It must not know what a collector reads:
//! which ones there are it asks the agent.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::context::Context;
use crate::exposition::{Exposition, name};
use crate::{Result, build, process};

/// About the run, the exporter and its server, not about the host.
const NOT_COMPARED: [&str; 6] =
    ["node_scrape_collector_", "node_exporter_", "promhttp_", "mote_", "process_", "go_"];

/// Which collectors ran, by either side's own word.
const SUCCESS: &str = "node_scrape_collector_success";

/// Prints what the page in `file` (`-` is standard input) and the agent don't have in common; `more` goes
/// to `mote run`. The exit code is 1 if one has series that the other has not.
///
/// # Errors
/// The page can't be read, or the agent can't be built or does not collect.
pub(crate) fn parity(context: &Context, file: &OsStr, more: &[OsString]) -> Result<ExitCode> {
    let page = read(file)?;
    let theirs = Exposition::parse(&page).map_err(|e| format!("{}: {e}", file.display()))?;
    let ran = theirs.label_values(SUCCESS, "collector");
    if ran.is_empty() {
        return Err(format!(
            "{}: no {SUCCESS}, so it does not say which collectors it is of",
            file.display()
        ));
    }
    let mote = build::agent_for_tests(context)?;
    let mut both = Vec::new();
    for collector in &ran {
        if has(&mote, collector)? {
            both.push(collector.as_str());
        } else {
            println!("no such collector: {collector}");
        }
    }
    let ours = collect(&mote, &both, more)?;
    let theirs = theirs.without(NOT_COMPARED.into_iter());
    let ours = ours.without(NOT_COMPARED.into_iter());
    print!("{}", report(&theirs, &ours));
    Ok(if theirs.compare(&ours).in_series() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn read(file: &OsStr) -> Result<String> {
    let mut page = String::new();
    let read = if file == "-" {
        std::io::stdin().read_to_string(&mut page).map(drop)
    } else {
        fs::read_to_string(file).map(|text| page = text)
    };
    read.map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(page)
}

/// Whether the agent knows a collector of this name.
fn has(mote: &Path, collector: &str) -> Result<bool> {
    let mut check = Command::new(mote);
    check.args(["check", "--set", &only(&[collector])]);
    let output = check.output().map_err(|e| format!("`{}`: {e}", process::describe(&check)))?;
    Ok(output.status.success())
}

fn only(collectors: &[&str]) -> String {
    let quoted: Vec<String> = collectors.iter().map(|name| format!("{name:?}")).collect();
    format!("metrics.collectors.only=[{}]", quoted.join(","))
}

fn collect(mote: &Path, collectors: &[&str], more: &[OsString]) -> Result<Exposition> {
    let mut run = Command::new(mote);
    run.args(["run", "--once", "--stdout", "--set", &only(collectors)]);
    run.args(["--set", "probes.default=\"off\"", "--set", "metrics.max_series=60000"]).args(more);
    let output = run.output().map_err(|e| format!("`{}`: {e}", process::describe(&run)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`{}`: {}: {said}", process::describe(&run), output.status));
    }
    let page = String::from_utf8_lossy(&output.stdout);
    Exposition::parse(&page).map_err(|error| format!("the agent's page: {error}"))
}

/// The differences, series below the name of their family; then the gauges that are not equal.
fn report(theirs: &Exposition, ours: &Exposition) -> String {
    let found = theirs.compare(ours);
    let mut text = String::new();
    let mut section = |title: &str, lines: Vec<String>| {
        text.push_str(&format!("{title}: {}\n", lines.len()));
        lines.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
    };
    section("families that mote lacks", found.missing_families.clone());
    section("families that mote has alone", found.extra_families.clone());
    let described = found.described.iter().flat_map(|(name, theirs, ours)| {
        let sides = [("help", &theirs.help, &ours.help), ("type", &theirs.kind, &ours.kind)];
        let differ = sides.into_iter().filter(|(_, theirs, ours)| theirs != ours);
        differ.map(move |(what, a, b)| format!("{name}: {what} {a:?}, mote {b:?}"))
    });
    section("families with another help or type", described.collect());
    let unlike: Vec<String> = theirs
        .series
        .iter()
        .filter(|(series, _)| theirs.kind(series) == "gauge")
        .filter_map(|(series, value)| {
            let mote = ours.series.get(series)?;
            let same = mote == value || (mote.is_nan() && value.is_nan());
            (!same).then(|| format!("{series} {value}, mote {mote}"))
        })
        .collect();
    section("gauges that differ", unlike);
    for (title, series) in
        [("series that mote lacks", &found.missing), ("series that mote has alone", &found.extra)]
    {
        text.push_str(&format!("{title}: {}\n", series.len()));
        let mut families: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for series in series {
            families.entry(name(series)).or_default().push(series);
        }
        for (family, series) in families {
            text.push_str(&format!("    {family}: {}\n", series.len()));
            series.iter().for_each(|series| text.push_str(&format!("        {series}\n")));
        }
    }
    let common = ours.series.keys().filter(|series| theirs.series.contains_key(*series)).count();
    text.push_str(&format!("series that both have: {common}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_every_difference_and_its_count() {
        let read = |page: &str| Exposition::parse(page).expect("a page");
        let theirs = read(
            "# HELP a A.\n# TYPE a gauge\na{x=\"1\"} 1\na{x=\"2\"} NaN\n# TYPE b counter\nb 1\nb{x=\"1\"} 1\n",
        );
        let ours = read(
            "# HELP a An A.\n# TYPE a gauge\na{x=\"1\"} 2\na{x=\"2\"} NaN\n# TYPE c untyped\nc 1\n",
        );
        assert_eq!(
            report(&theirs, &ours),
            "families that mote lacks: 1\n    b\nfamilies that mote has alone: 1\n    c\n\
             families with another help or type: 1\n    a: help \"A.\", mote \"An A.\"\n\
             gauges that differ: 1\n    a{x=\"1\"} 1, mote 2\n\
             series that mote lacks: 2\n    b: 2\n        b\n        b{x=\"1\"}\n\
             series that mote has alone: 1\n    c: 1\n        c\nseries that both have: 2\n"
        );
        assert_eq!(only(&["cpu", "os"]), "metrics.collectors.only=[\"cpu\",\"os\"]");
    }
}
