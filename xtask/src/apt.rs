//! Debian's packages, in two ways: one program out of a package, unpacked below the target directory
//! (nothing is installed, no service is started, an ordinary user may do it), and an installation by
//! root. It must not know what the packages are for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::context::{Context, is_root};
use crate::{Result, process};

/// Whether packages can be fetched and unpacked here.
pub(crate) fn can_unpack() -> bool {
    process::find("apt-get").is_some() && process::find("dpkg-deb").is_some()
}

/// Whether packages can be installed here.
pub(crate) fn can_install() -> bool {
    process::find("apt-get").is_some() && is_root()
}

/// Puts the file `member` of a package (such as `usr/bin/prometheus`) at `to`.
///
/// The machine's package lists are used; where they are missing or too old, lists of our own are
/// fetched into the working folder, which is removed afterwards.
///
/// # Errors
/// The package could not be fetched or unpacked, or has no such file.
pub(crate) fn unpack(context: &Context, package: &str, member: &str, to: &Path) -> Result<()> {
    let work = context.target.join(format!("tools/apt-{}", std::process::id()));
    let result = context.step(&format!("fetching Debian's package {package}"), || {
        unpack_in(&work, package, member, to)
    });
    if let Err(error) = fs::remove_dir_all(&work) {
        eprintln!("the folder {} could not be removed: {error}", work.display());
    }
    result
}

fn unpack_in(work: &Path, package: &str, member: &str, to: &Path) -> Result<()> {
    let download = work.join("download");
    create(&download)?;
    let from_lists_of_the_machine =
        process::run(apt_get().arg("download").arg(package).current_dir(&download));
    if from_lists_of_the_machine.is_err() {
        eprintln!("the machine's package lists don't help; fetching fresh ones for this only");
        let lists = work.join("lists");
        let cache = work.join("cache");
        create(&lists.join("partial"))?;
        create(&cache.join("archives/partial"))?;
        let private = |command: &mut Command| {
            command.arg("-o").arg(format!("Dir::State::lists={}", lists.display()));
            command.arg("-o").arg(format!("Dir::Cache={}", cache.display()));
            command.args(["-o", "Debug::NoLocking=1"]);
        };
        let mut update = apt_get();
        private(&mut update);
        process::run(update.arg("update"))?;
        let mut again = apt_get();
        private(&mut again);
        process::run(again.arg("download").arg(package).current_dir(&download))?;
    }
    let tree = work.join("tree");
    process::run(Command::new("dpkg-deb").arg("-x").arg(the_package_in(&download)?).arg(&tree))?;
    if let Some(folder) = to.parent() {
        create(folder)?;
    }
    fs::rename(tree.join(member), to).map_err(|error| {
        format!("the package {package} has no {member} that could become {}: {error}", to.display())
    })
}

/// Installs packages; only root may.
///
/// # Errors
/// apt-get failed, also after a fresh `apt-get update`.
pub(crate) fn install(context: &Context, packages: &[&str]) -> Result<()> {
    context.step(&format!("installing {}", packages.join(" ")), || {
        let install = || {
            let mut command = apt_get();
            command.args(["install", "-y", "--no-install-recommends"]).args(packages);
            command.env("DEBIAN_FRONTEND", "noninteractive");
            process::run(&mut command)
        };
        if install().is_ok() {
            return Ok(());
        }
        process::run(apt_get().arg("update"))?;
        install()
    })
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-q");
    if is_root() {
        // apt's own user can't write into the target directory; apt would warn.
        command.args(["-o", "APT::Sandbox::User=root"]);
    }
    command
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)
        .map_err(|error| format!("the folder {} can't be created: {error}", folder.display()))
}

fn the_package_in(folder: &Path) -> Result<PathBuf> {
    let fail = |error| format!("the folder {} can't be read: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            return Ok(path);
        }
    }
    Err(format!("apt-get download succeeded and left no package in {}", folder.display()))
}
