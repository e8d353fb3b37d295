//! What every command knows: where the checkout is, where cargo puts what it builds, and how progress
//! is shown: a line when a step begins and one with its time when it ends, on standard error.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::Result;

/// The checkout and the clock of the command.
pub(crate) struct Context {
    /// The root of the checkout.
    pub(crate) root: PathBuf,
    /// Cargo's target directory.
    pub(crate) target: PathBuf,
    started: Instant,
}

impl Context {
    /// Finds the checkout and asks cargo for its target directory.
    ///
    /// # Errors
    /// Not in a checkout; no working cargo.
    pub(crate) fn new() -> Result<Context> {
        let root = find_root()?;
        let target = target_directory(&root)?;
        Ok(Context { root, target, started: Instant::now() })
    }

    /// A cargo command in the checkout. What the cargo that started us has put into the environment
    /// is taken out: build scripts that watch it (ring's) would run again with each command.
    pub(crate) fn cargo(&self) -> Command {
        cargo(&self.root)
    }

    /// Says what begins, does it, and says how long it took.
    ///
    /// # Errors
    /// What `work` returned.
    pub(crate) fn step<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.say(&format!("{what} ..."));
        let began = Instant::now();
        let result = work();
        let took = began.elapsed().as_secs_f64();
        match &result {
            Ok(_) => self.say(&format!("{what}: done in {took:.1} s")),
            Err(_) => self.say(&format!("{what}: failed after {took:.1} s")),
        }
        result
    }

    /// One line of progress, with the seconds since the command began.
    pub(crate) fn say(&self, line: &str) {
        eprintln!("[{:6.1} s] {line}", self.started.elapsed().as_secs_f64());
    }
}

/// Whether this is root, who may load BPF programs and install packages.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn find_root() -> Result<PathBuf> {
    let here = std::env::current_dir()
        .map_err(|error| format!("the current directory can't be read: {error}"))?;
    let given = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let given = given.filter(|folder| folder.is_absolute());
    given
        .iter()
        .flat_map(|start| start.ancestors())
        .chain(here.ancestors())
        .find(|folder| folder.join("xtask/Cargo.toml").is_file())
        .map(Path::to_path_buf)
        .ok_or_else(|| {
            format!("{} is not inside a checkout of Mote: change into one", here.display())
        })
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    for (name, _) in std::env::vars_os() {
        let set_by_cargo = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
        if name.to_str().is_some_and(|name| set_by_cargo.iter().any(|set| name.starts_with(set))) {
            command.env_remove(name);
        }
    }
    command
}

fn target_directory(root: &Path) -> Result<PathBuf> {
    let output = cargo(root)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .map_err(|error| format!("cargo could not be started: {error}. Is it in PATH?"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo metadata printed something that is not JSON: {error}"))?;
    match metadata.get("target_directory").and_then(|value| value.as_str()) {
        Some(path) => Ok(path.into()),
        None => Err("cargo metadata did not name a target directory".to_owned()),
    }
}
