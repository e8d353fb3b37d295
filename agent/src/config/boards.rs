//! Boards: hardware profiles whose values are the configuration's defaults. Each is a TOML file in
//! `boards/`, part of the program; `boards/generic.toml` says what such a file has. A profile knows the keys
//! of the configuration only as text: it is laid under the user's document before anything reads that.
//!
//! Sources of facts: Documentation/devicetree (`model` of the root node), proc_meminfo(5), the models of
//! Raspberry Pi's device trees (arch/arm/boot/dts/broadcom/bcm27*.dts and arch/arm64).

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::document::{self, Table};
use super::error::{ConfigError, Place, nearest};
use super::expand::ProcessEnvironment;
use super::reader::Reader;
use super::{sections, units};
use crate::host::{Host, Root, Roots};

/// The name that means: look what this is.
pub(super) const AUTO: &str = "auto";

/// The board of a machine that is no other.
const GENERIC: &str = "generic";

/// More than any board's model has.
const MODEL_MAX: usize = 256;

/// The profiles, by name; the generic one first.
const PROFILES: [(&str, &str); 8] = [
    (GENERIC, include_str!("../../../boards/generic.toml")),
    ("nas", include_str!("../../../boards/nas.toml")),
    ("raspberry-pi-3", include_str!("../../../boards/raspberry-pi-3.toml")),
    ("raspberry-pi-4", include_str!("../../../boards/raspberry-pi-4.toml")),
    ("raspberry-pi-5", include_str!("../../../boards/raspberry-pi-5.toml")),
    ("raspberry-pi-zero", include_str!("../../../boards/raspberry-pi-zero.toml")),
    ("raspberry-pi-zero-2", include_str!("../../../boards/raspberry-pi-zero-2.toml")),
    ("small", include_str!("../../../boards/small.toml")),
];

/// A profile.
#[derive(Clone, Debug)]
pub struct Board {
    /// Its name, as in `agent.board`.
    pub name: &'static str,
    /// Its file's text.
    pub text: &'static str,
    /// What it is.
    pub description: String,
    /// The targets that the agent is built for there.
    pub targets: Vec<String>,
    /// systemd's `MemoryHigh` in bytes.
    pub memory_high: u64,
    /// systemd's `MemoryMax` in bytes.
    pub memory_max: u64,
    /// The oldest kernel that is to be reckoned with.
    pub oldest_kernel: String,
    /// What its kernels have and lack.
    pub kernel_notes: Vec<String>,
    models: Vec<String>,
    files: Vec<String>,
    at_least: Option<u64>,
    at_most: Option<u64>,
    /// Defaults of the configuration.
    defaults: Table,
}

/// What a profile is matched against.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// /proc/device-tree/model
    pub model: Option<String>,
    /// MemTotal of /proc/meminfo, in bytes.
    pub memory: Option<u64>,
    root: PathBuf,
}

/// The board of this host, and by what it was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The profile's name.
    pub name: &'static str,
    /// Why it is this one.
    pub by: String,
    /// Its values, until they are laid under a document.
    defaults: Table,
}

/// Whether a profile fits a host, and why.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The profile.
    pub board: Board,
    /// Of those that fit the highest is taken; None: it does not fit.
    rank: Option<usize>,
    /// Why.
    pub why: String,
}

impl Verdict {
    /// Whether the profile fits, if not as well as another.
    pub fn fits(&self) -> bool {
        self.rank.is_some()
    }
}

impl Facts {
    /// Those of the host with these roots.
    pub fn of(roots: &Roots) -> Facts {
        let mut host = Host::new(roots.clone());
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let text = text.trim_end_matches(['\0', '\n']).trim();
            (!text.is_empty() && text.len() <= MODEL_MAX).then(|| text.to_owned())
        };
        let model = host.find(Root::Proc, "device-tree/model").and_then(text);
        // In a container the host's /proc may be mounted, whose link leads to the container's /sys.
        let model =
            model.or_else(|| host.find(Root::Sys, "firmware/devicetree/base/model").and_then(text));
        let memory = host.find(Root::Proc, "meminfo").and_then(|bytes| {
            let line = std::str::from_utf8(bytes).ok()?.lines().find_map(|line| {
                line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok()
            });
            line.and_then(|kibibytes: u64| kibibytes.checked_mul(1024))
        });
        Facts { model, memory, root: roots.root.clone() }
    }
}

impl Board {
    /// The profile of this name.
    ///
    /// # Errors
    /// There is none; the hint names the nearest.
    pub fn named(name: &str) -> Result<Board, ConfigError> {
        let place = Place::Whole(PathBuf::from("mote boards"));
        Board::at(name, &place)
    }

    fn at(name: &str, place: &Place) -> Result<Board, ConfigError> {
        if let Some((name, text)) = PROFILES.iter().find(|(have, _)| *have == name) {
            return Board::parse(name, text);
        }
        let hint = match nearest(name, PROFILES.iter().map(|(name, _)| *name)) {
            Some(near) => format!("did you mean {near:?}? `mote boards` lists them"),
            None => "\"auto\", or one that `mote boards` lists".to_owned(),
        };
        Err(ConfigError::new(place, format!("there is no board {name:?}"), hint))
    }

    fn parse(name: &'static str, text: &'static str) -> Result<Board, ConfigError> {
        let path = Path::new("boards").join(format!("{name}.toml"));
        let mut table = document::parse(text, &path, &[], &ProcessEnvironment)?;
        let docs = RefCell::default();
        let top = Reader::new(&table, Place::Whole(path), &docs);
        let word =
            |given: Option<super::reader::At<String>>| given.map_or(String::new(), |at| at.value);
        let words = |given: Option<Vec<super::reader::At<String>>>| {
            given.unwrap_or_default().into_iter().map(|at| at.value).collect::<Vec<_>>()
        };
        let rules = top.section("match")?;
        let unit = top.section("unit")?;
        let kernel = top.section("kernel")?;
        let board = Board {
            name,
            text,
            description: word(top.string("description", "", "")?),
            targets: words(top.strings("targets", "")?),
            memory_high: unit.size("memory_high", 0, 1..=u64::MAX, "")?,
            memory_max: unit.size("memory_max", 0, 1..=u64::MAX, "")?,
            oldest_kernel: word(kernel.string("oldest", "", "")?),
            kernel_notes: words(kernel.strings("notes", "")?),
            models: words(rules.strings("models", "")?),
            files: words(rules.strings("files", "")?),
            at_least: rules.optional_size("at_least", 0..=u64::MAX, "")?,
            at_most: rules.optional_size("at_most", 0..=u64::MAX, "")?,
            defaults: Table::default(),
        };
        rules.finish()?;
        unit.finish()?;
        kernel.finish()?;
        const OWN: [&str; 5] = ["description", "targets", "match", "unit", "kernel"];
        table.entries.retain(|(key, _, _)| !OWN.contains(&key.as_str()));
        Ok(Board { defaults: table, ..board })
    }

    /// Whether it fits a host with these facts.
    fn judge(&self, facts: &Facts) -> (Option<usize>, String) {
        let shown = |bytes: u64| format!("{} MiB", bytes >> 20);
        let (mut rank, mut why) = (0, "it is for any machine".to_owned());
        if !self.models.is_empty() {
            let Some(model) = &facts.model else {
                return (None, "this host has no /proc/device-tree/model".into());
            };
            let longest =
                self.models.iter().filter(|prefix| begins(model, prefix)).map(String::len);
            let Some(longest) = longest.max() else {
                return (None, format!("the model of this host is {model:?}"));
            };
            (rank, why) = (1_000 + longest, format!("/proc/device-tree/model is {model:?}"));
        }
        if !self.files.is_empty() {
            let Some(file) = self.files.iter().find(|file| facts.root.join(file).exists()) else {
                return (None, format!("none of {} is there", self.files.join(", ")));
            };
            (rank, why) = (500, format!("{} is there", facts.root.join(file).display()));
        }
        match (facts.memory, self.at_least, self.at_most) {
            (Some(memory), Some(least), _) if memory < least => {
                let (memory, least) = (shown(memory), shown(least));
                (None, format!("MemTotal is {memory}, and it is for {least} and more"))
            }
            (Some(memory), _, Some(most)) if memory > most => {
                let (memory, most) = (shown(memory), shown(most));
                (None, format!("MemTotal is {memory}, and it is for {most} and less"))
            }
            (None, _, Some(_)) => (None, "this host says no MemTotal".into()),
            (Some(memory), _, Some(_)) if rank == 0 => {
                (Some(1), format!("MemTotal is {}", shown(memory)))
            }
            _ => (Some(rank), why),
        }
    }

    /// Its values.
    #[cfg(test)]
    pub(super) fn defaults(&self) -> &Table {
        &self.defaults
    }
}

/// Whether a model begins with these words: "Raspberry Pi 4" is not the beginning of a Raspberry Pi 400's.
fn begins(model: &str, words: &str) -> bool {
    model.strip_prefix(words).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// All profiles, each with whether it fits a host with these facts.
///
/// # Errors
/// A profile of the program's can't be read, which a test rules out.
pub fn judge(facts: &Facts) -> Result<Vec<Verdict>, ConfigError> {
    verdicts(facts).collect()
}

fn verdicts(facts: &Facts) -> impl Iterator<Item = Result<Verdict, ConfigError>> {
    PROFILES.iter().map(|(name, text)| {
        let board = Board::parse(name, text)?;
        let (rank, why) = board.judge(facts);
        Ok(Verdict { board, rank, why })
    })
}

/// The board of a host with these facts.
///
/// # Errors
/// As [`judge`].
pub fn find(facts: &Facts) -> Result<Found, ConfigError> {
    let mut best: Option<Verdict> = None;
    for verdict in verdicts(facts) {
        let verdict = verdict?;
        if verdict.rank > best.as_ref().map_or(Some(0), |best| best.rank) {
            best = Some(verdict);
        }
    }
    match best {
        Some(Verdict { board, why, .. }) => Ok(Found::new(board, why)),
        None => Ok(Found::new(Board::named(GENERIC)?, "no other profile matches".into())),
    }
}

/// The board of a document: the one it names, or the one that this host is.
pub(super) fn choose(
    document: &Table,
    path: &Path,
    look: &dyn Fn(&Roots) -> Facts,
) -> Result<Found, ConfigError> {
    let docs = RefCell::default();
    let top = Reader::new(document, Place::Whole(path.to_owned()), &docs);
    let given = top.section("agent")?.string("board", AUTO, "")?;
    match given.filter(|given| given.value != AUTO) {
        Some(named) => {
            let board = Board::at(&named.value, &named.place)?;
            Ok(Found::new(board, "agent.board".into()))
        }
        None => find(&look(&sections::host(&top)?)),
    }
}

impl Found {
    fn new(board: Board, by: String) -> Found {
        Found { name: board.name, by, defaults: board.defaults }
    }

    /// Puts the board's values where the document has none.
    pub(super) fn underlay(&mut self, document: &mut Table) {
        document.underlay(std::mem::take(&mut self.defaults));
    }

    /// The board and why it is this one, as a person reads it.
    pub fn describe(&self) -> String {
        format!("{} ({})", self.name, self.by)
    }
}

/// A size as systemd writes it, whose units are powers of 1024.
pub fn systemd_size(bytes: u64) -> String {
    let shown = units::show_size(bytes);
    shown.strip_suffix("iB").map_or(bytes.to_string(), str::to_owned)
}

#[cfg(test)]
#[path = "boards_tests.rs"]
mod tests;
