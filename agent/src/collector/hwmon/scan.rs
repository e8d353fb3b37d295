//! Looking through the chips of /sys/class/hwmon: which files hold values, what each becomes, and the
//! labels. It allocates, and runs when chips or files have come or gone.

use std::cmp::Ordering;
use std::io::ErrorKind;

use super::metric::{Metric, Unit, metric};
use super::names::{Attribute, clean};
use crate::collector::options::{HwmonOptions, excludes};
use crate::collector::parse::FirstError;
use crate::host::{Host, Names, Root};
use crate::model::Kind;
use crate::sort;

/// As much of a file as node_exporter reads.
const TEXT_MAX: usize = 128;

/// Where chips are, below the root of /sys.
pub(super) const CLASS: &str = "class/hwmon";

/// What is read in each round.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Sorted by name; each is followed by its values in `values`.
    pub(super) families: Vec<Family>,
    /// In the order of the families.
    pub(super) values: Vec<Value>,
    /// The name that is unique, and the one for people.
    pub(super) chips: Vec<(String, String)>,
    /// Chip, sensor and the sensor's label.
    pub(super) labels: Vec<(String, String, String)>,
}

/// A metric of any number of sensors.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) help: String,
    pub(super) kind: Kind,
    /// How many of the values are its own.
    pub(super) values: usize,
}

/// An attribute that is read.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) chip: String,
    pub(super) sensor: String,
    /// Below [`CLASS`].
    pub(super) path: String,
    pub(super) unit: Unit,
}

/// An attribute as it was found.
struct Found {
    kind: String,
    number: i64,
    element: String,
    path: String,
    /// None where it can't be read now, as that of a disk that sleeps.
    text: Option<Vec<u8>>,
}

impl Found {
    fn is_of(&self, other: &Found) -> bool {
        self.kind == other.kind && self.number == other.number
    }
}

/// What a file of hwmon says, without its line break.
pub(super) fn text(bytes: &[u8]) -> &[u8] {
    let mut text = bytes.get(..TEXT_MAX).unwrap_or(bytes);
    while let [b'\n', rest @ ..] | [rest @ .., b'\n'] = text {
        text = rest;
    }
    text
}

/// Looks through these chips.
pub(super) fn scan(
    host: &mut Host,
    names: &Names,
    options: &HwmonOptions,
    errors: &mut FirstError,
) -> Plan {
    let mut plan = Plan::default();
    let mut metrics: Vec<(Metric, Value)> = Vec::new();
    let mut files = Names::new();
    for directory in names.iter() {
        let Some(chip) = chip_name(host, directory) else { continue };
        let include = options.chip_include.as_ref();
        if excludes(options.chip_exclude.as_ref(), chip.as_bytes())
            || include.is_some_and(|include| !include.is_match(chip.as_bytes()))
        {
            continue;
        }
        if let Err(error) = host.list(Root::Sys, format_args!("{CLASS}/{directory}"), &mut files) {
            // Gone since, or no chip at all.
            if !error.is_absent() {
                errors.note(error.into());
            }
            continue;
        }
        let mut found = Vec::new();
        attributes(host, directory, &files, &mut found);
        // Where drivers that know no hwmon directory have all they have.
        let device = format!("{directory}/device");
        if host.list(Root::Sys, format_args!("{CLASS}/{device}"), &mut files).is_ok() {
            attributes(host, &device, &files, &mut found);
        }
        if let Some(name) = readable_name(host, directory) {
            plan.chips.push((chip.clone(), name));
        }
        add(&chip, &found, &mut plan, &mut metrics);
    }
    // Stable: within a family by chip and file.
    sort::stable_by(&mut metrics, |(a, _), (b, _)| a.name.cmp(&b.name));
    for (metric, value) in metrics {
        if plan.families.last().is_none_or(|last| last.name != metric.name) {
            let Metric { name, help, kind, .. } = metric;
            plan.families.push(Family { name, help, kind, values: 0 });
        }
        let Some(family) = plan.families.last_mut() else { continue };
        let own = plan.values.len().saturating_sub(family.values);
        let same = |other: &Value| other.chip == value.chip && other.sensor == value.sensor;
        // Two devices of one name, or two elements of which one name is made: one series.
        if !plan.values.iter().skip(own).any(same) {
            family.values += 1;
            plan.values.push(value);
        }
    }
    plan
}

/// Adds a directory's attributes; one that is known already is replaced if this one can be read.
fn attributes(host: &mut Host, directory: &str, files: &Names, found: &mut Vec<Found>) {
    for file in files.iter() {
        let Some(Attribute { kind, number, element }) = Attribute::parse(file) else { continue };
        let path = format!("{directory}/{file}");
        let text = match host.sys(format_args!("{CLASS}/{path}")) {
            Ok(bytes) => Some(text(bytes).to_owned()),
            // `power`, of every device's.
            Err(error) if error.source.kind() == ErrorKind::IsADirectory => continue,
            Err(_) => None,
        };
        let new = Found { kind: kind.to_owned(), number, element: element.to_owned(), path, text };
        match found.iter_mut().find(|old| old.is_of(&new) && old.element == new.element) {
            Some(old) if new.text.is_some() => *old = new,
            Some(_) => {}
            None => found.push(new),
        }
    }
    sort::stable_by(found, |a, b| match a.kind.cmp(&b.kind) {
        Ordering::Equal => a.number.cmp(&b.number),
        other => other,
    });
}

/// Adds a chip's attributes to the plan.
fn add(chip: &str, found: &[Found], plan: &mut Plan, metrics: &mut Vec<(Metric, Value)>) {
    for sensor in found.chunk_by(Found::is_of) {
        let Some(first) = sensor.first() else { continue };
        let name = format!("{}{}", first.kind, first.number);
        let text = |element| {
            sensor.iter().find(|part| part.element == element).and_then(|part| part.text.as_deref())
        };
        let label = text("label");
        if let Some(label) = label {
            let label = String::from_utf8_lossy(label).into_owned();
            plan.labels.push((chip.to_owned(), name.clone(), label));
        }
        for part in sensor {
            let has_plain = text("").is_some();
            let Some(metric) = metric(&first.kind, &part.element, has_plain) else { continue };
            let sensor = match (metric.named_by_label, label) {
                (false, _) => name.clone(),
                (true, Some(label)) => clean(label),
                (true, None) => continue,
            };
            let (chip, path, unit) = (chip.to_owned(), part.path.clone(), metric.unit);
            metrics.push((metric, Value { chip, sensor, path, unit }));
        }
    }
}

/// The name that does not change with the order in which drivers are loaded: that of the device with its
/// parent's, else the chip's own, else the directory's.
fn chip_name(host: &mut Host, directory: &str) -> Option<String> {
    let last_two = |path: &std::path::Path| {
        let part =
            |path: &std::path::Path| clean(path.file_name().unwrap_or_default().as_encoded_bytes());
        (path.parent().map(part).unwrap_or_default(), part(path))
    };
    let device = host.path(Root::Sys, format_args!("{CLASS}/{directory}/device"));
    if let Ok(device) = device.canonicalize() {
        match last_two(&device) {
            (_, device) if device.is_empty() => {}
            (parent, device) if parent.is_empty() => return Some(device),
            (parent, device) => return Some(format!("{parent}_{device}")),
        }
    }
    if let Some(name) = readable_name(host, directory) {
        return Some(name);
    }
    let real = host.path(Root::Sys, format_args!("{CLASS}/{directory}")).canonicalize().ok()?;
    let (_, name) = last_two(&real);
    (!name.is_empty()).then_some(name)
}

/// The chip's own name; several chips may have one.
fn readable_name(host: &mut Host, directory: &str) -> Option<String> {
    let name = clean(host.find(Root::Sys, format_args!("{CLASS}/{directory}/name"))?);
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn line_breaks_at_both_ends_and_what_is_too_long_are_cut() {
        assert_eq!(text(b"\n\n1 \n\n"), b"1 ");
        assert_eq!(text(b"\n"), b"");
        assert_eq!(text(&[b'1'; 200]).len(), 128);
    }
}
