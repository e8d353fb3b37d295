//! `cargo xtask dist`: the binaries as users get them, in `target/dist`, each checked, with the sums of
//! all that are there.
//!
//! [`elf`] says what a binary is, [`rules`] whether that is what its machine needs, [`emulated`] runs it.

mod elf;
mod emulated;
mod rules;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::context::Context;
use crate::static_build::{Profile, Target, Toolchain};
use crate::{Result, build};

/// What is asked for.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// For these; for this machine if it is empty.
    pub(crate) targets: Vec<Target>,
    /// Also run the tests, on emulated processors where they are not this machine's.
    pub(crate) test: bool,
    /// With debug assertions and overflow checks, and in a fraction of the time. That is no release.
    pub(crate) debug: bool,
}

/// The whole binary on disk, DESIGN.md's target.
pub(crate) const TARGET_BYTES: u64 = 4 << 20;

const SUMS: &str = "SHA256SUMS";

/// Builds, checks, and puts binaries and their sums into `target/dist`.
///
/// # Errors
/// Something is missing and could not be got, the agent could not be built, or a binary is not what it
/// should be.
pub(crate) fn dist(context: &Context, options: &Options) -> Result<ExitCode> {
    let mut targets = options.targets.clone();
    if targets.is_empty() {
        targets.push(Target::host()?);
    }
    targets.sort();
    targets.dedup();
    // What is missing is said before anything is compiled.
    let machines = if options.test {
        targets
            .iter()
            .map(|target| emulated::Machine::get(context, *target))
            .collect::<Result<_>>()?
    } else {
        Vec::new()
    };
    let toolchains: Vec<(Target, Toolchain)> = targets
        .into_iter()
        .map(|target| Ok((target, Toolchain::get(context, target)?)))
        .collect::<Result<_>>()?;
    let objects = build::bpf_object(context)?;
    let folder = context.target.join("dist");
    let profile = if options.debug { Profile::Test } else { Profile::Release };
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut made = Vec::new();
    for (target, toolchain) in toolchains {
        let built = toolchain.build(context, &["agent"], profile)?.join("mote");
        let path = if options.debug {
            check(target, &built, &objects, profile)?;
            built
        } else {
            release(target, &built, &objects, &folder)?
        };
        made.push((target, path));
    }
    if !options.debug {
        sums(&folder)?;
    }
    for machine in machines {
        let path = made.iter().find(|(target, _)| *target == machine.target).map(|(_, path)| path);
        machine.test(context, path.ok_or("a binary is missing")?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The release for this machine, as users get it.
///
/// # Errors
/// As [`dist`].
pub(crate) fn host(context: &Context) -> Result<PathBuf> {
    let target = Target::host()?;
    dist(context, &Options { targets: vec![target], ..Options::default() })?;
    Ok(context.target.join("dist").join(name(target)))
}

/// Says what a binary is, and returns its bytes.
///
/// # Errors
/// It would not do for the target.
fn check(target: Target, built: &Path, objects: &Path, profile: Profile) -> Result<Vec<u8>> {
    let read = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let bytes = read(built)?;
    let mut binary = elf::read(&bytes).map_err(|error| format!("{}: {error}", built.display()))?;
    // Only a release is without.
    binary.symbols &= profile == Profile::Release;
    let mut problems = rules::problems(target, &binary);
    for name in ["mote.o", "mote-perf.o"] {
        if !contains(&bytes, &read(&objects.join(name))?) {
            problems.push(format!("it has not the BPF object {name}, or an older one"));
        }
    }
    println!("{}", built.display());
    println!("    {}", rules::describe(&binary));
    if let Some(spread) = rules::is_spread(&binary).filter(|_| profile == Profile::Release) {
        println!("    {spread}");
    }
    if problems.is_empty() {
        return Ok(bytes);
    }
    Err(format!("{} does not do:\n  {}", built.display(), problems.join("\n  ")))
}

/// Checks a binary and puts it among the releases.
fn release(target: Target, built: &Path, objects: &Path, folder: &Path) -> Result<PathBuf> {
    let path = folder.join(name(target));
    let fail = |error| format!("{}: {error}", path.display());
    let bytes = check(target, built, objects, Profile::Release).inspect_err(|_| {
        // No release of an earlier day is to be taken for this one.
        let _ = fs::remove_file(&path);
    })?;
    let partial = folder.join("partial");
    fs::write(&partial, &bytes).map_err(fail)?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o755)).map_err(fail)?;
    fs::rename(&partial, &path).map_err(fail)?;
    println!("{}", path.display());
    println!("    {}", size_in_words(bytes.len() as u64));
    Ok(path)
}

/// `mote-VERSION-TRIPLE`.
fn name(target: Target) -> String {
    format!("mote-{}-{}", env!("CARGO_PKG_VERSION"), target.triple())
}

/// Also of another version.
fn is_release(name: &str, target: Target) -> bool {
    let version = name.strip_prefix("mote-").and_then(|rest| rest.strip_suffix(target.triple()));
    version.and_then(|rest| rest.strip_suffix('-')).is_some_and(|version| version.contains('.'))
}

/// A size beside its target.
pub(crate) fn size_in_words(bytes: u64) -> String {
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let against = if bytes <= TARGET_BYTES { "within" } else { "beyond" };
    format!(
        "{bytes} bytes, {:.2} MiB: {against} the target of {} MiB",
        mib(bytes),
        TARGET_BYTES >> 20
    )
}

/// Whether `haystack` has `needle` in it.
fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some((first, rest)) = needle.split_first() else { return false };
    let mut haystack = haystack;
    while let Some(at) = haystack.iter().position(|byte| byte == first) {
        haystack = haystack.get(at + 1..).unwrap_or_default();
        if haystack.starts_with(rest) {
            return true;
        }
    }
    false
}

/// Writes SHA256SUMS of all releases that are there, as `sha256sum --check` reads it.
fn sums(folder: &Path) -> Result<()> {
    let fail = |error| format!("{}: {error}", folder.display());
    let mut names: Vec<String> = fs::read_dir(folder)
        .map_err(fail)?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| Target::ALL.iter().any(|target| is_release(name, *target)))
        .collect();
    names.sort();
    let mut command = Command::new("sha256sum");
    let output = command.arg("--").args(&names).current_dir(folder).output();
    let output = output.map_err(|error| format!("sha256sum (Debian: coreutils): {error}"))?;
    if !output.status.success() {
        return Err(format!("sha256sum: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let path = folder.join(SUMS);
    fs::write(&path, &output.stdout).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut text = format!("{}\n", path.display());
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let _ = writeln!(text, "    {line}");
    }
    print!("{text}");
    Ok(())
}

/// A sound program without symbols, for tests.
#[cfg(test)]
pub(crate) fn small_binary() -> Vec<u8> {
    elf::tests::small()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp::TempDir;

    #[test]
    fn what_is_no_release_is_not_left_among_the_releases() {
        let dir = TempDir::new("dist-test").unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut good = elf::tests::small();
        good.extend(b"object one, object two");
        fs::write(at("mote.o"), "object one").unwrap();
        fs::write(at("mote-perf.o"), "object two").unwrap();
        fs::write(at("built"), &good).unwrap();
        let built = at("built");
        let path = release(Target::Armv6, &built, dir.path(), dir.path()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), good);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        sums(dir.path()).unwrap();
        let text = fs::read_to_string(at(SUMS)).unwrap();
        let name = name(Target::Armv6);
        assert!(text.len() == 64 + 2 + name.len() + 1, "{text}");
        assert!(text.ends_with(&format!("  {name}\n")), "{text}");

        fs::write(at("mote-perf.o"), "object three").unwrap();
        let error = release(Target::Armv6, &built, dir.path(), dir.path()).unwrap_err();
        assert!(error.contains("mote-perf.o") && !path.exists(), "{error}");
        assert!(release(Target::Aarch64, &built, dir.path(), dir.path()).is_err());
        fs::write(at("built"), "no program").unwrap();
        assert!(release(Target::Armv6, &built, dir.path(), dir.path()).is_err());
    }

    #[test]
    fn a_size_is_told_beside_the_target() {
        assert_eq!(size_in_words(4 << 20), "4194304 bytes, 4.00 MiB: within the target of 4 MiB");
        assert!(size_in_words((4 << 20) + 1).contains("beyond"));
        assert!(contains(b"xxab", b"xab") && !contains(b"xx", b"") && !contains(b"", b"x"));
    }
}
