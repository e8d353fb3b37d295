//! Debian's kernels: which there are, and their packages unpacked below `target/kernels`. apt is asked
//! with a state of our own, so that the machine's suites, lists and architectures are as they were, and
//! no root is needed; the archive and its key are those of the machine's own sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use super::boots::{Board, Pick};
use super::modules;
use crate::context::{Context, is_root};
use crate::{Result, process};

/// How long lists are good.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// A kernel, unpacked.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// Debian's version, such as `6.1.176-1`.
    pub(super) version: String,
    /// The image that QEMU starts.
    pub(super) image: PathBuf,
    /// The folder in which lib/modules/RELEASE lies.
    base: PathBuf,
    release: String,
    tree: PathBuf,
}

impl Kernel {
    /// The wanted modules: a name for each and its contents, in the order in which to insert them.
    ///
    /// # Errors
    /// One can't be read.
    pub(super) fn modules(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let (folder, text) = modules::dependencies(&self.base, &self.release)?;
        let files = modules::in_order(&text, modules::WANTED);
        let named = files.iter().map(|file| {
            let name = file.rsplit('/').next().unwrap_or(file).replace(".xz", "");
            Ok((name.replace(".zst", ""), modules::content(&folder.join(file))?))
        });
        named.collect()
    }

    /// A device tree of the package's.
    ///
    /// # Errors
    /// It has none of this name.
    pub(super) fn device_tree(&self, name: &str) -> Result<PathBuf> {
        let folder = self.tree.join("usr/lib").join(format!("linux-image-{}", self.release));
        let places = [folder.join(name), folder.join("broadcom").join(name)];
        let found = places.into_iter().find(|path| path.is_file());
        found.ok_or_else(|| format!("{} has no {name}", folder.display()))
    }
}

/// Debian's archive as seen from one architecture.
pub(super) struct Archive<'a> {
    context: &'a Context,
    board: &'static Board,
    state: PathBuf,
}

/// A kernel that Debian has: a stanza of `apt-cache show`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    version: String,
    /// The package that it depends on.
    image: String,
}

impl<'a> Archive<'a> {
    /// Fetches the lists if there are none of today.
    ///
    /// # Errors
    /// There is no apt, no Debian archive among the machine's sources, or no list could be fetched.
    pub(super) fn open(context: &'a Context, board: &'static Board) -> Result<Archive<'a>> {
        for program in ["apt-get", "apt-cache", "dpkg-deb"] {
            if process::find(program).is_none() {
                return Err(format!("there is no {program}: kernels come from Debian's packages"));
            }
        }
        let state = context.target.join("kernels/apt").join(board.debian);
        let archive = Archive { context, board, state };
        let stamp = archive.state.join("fetched");
        let age = fs::metadata(&stamp).and_then(|meta| meta.modified());
        let age = age.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_none_or(|age| age > FRESH) {
            archive.update()?;
            fs::write(&stamp, "").map_err(|error| format!("{}: {error}", stamp.display()))?;
        }
        Ok(archive)
    }

    fn update(&self) -> Result<()> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = self.state.join(folder);
            fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        let write = |name: &str, text: &str| {
            let path = self.state.join(name);
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
        };
        write("status", "")?;
        write("sources.list", &sources(&machine_sources(), self.board.suites)?)?;
        let what = format!("fetching Debian's lists of {} packages", self.board.debian);
        let done = self.context.step(&what, || {
            process::run(self.apt("apt-get").args(["-q", "update"]).stdout(Stdio::null()))
        });
        self.forget_candidates();
        // A suite that has left the archive is no reason to do without the others.
        match done {
            Err(error) if self.candidates()?.is_empty() => Err(error),
            Err(_) => {
                self.context.say("some list could not be fetched; going on with the others");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = |name: &str| self.state.join(name).display().to_string();
        for option in [
            format!("Dir::Etc::sourcelist={}", path("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={}", path("lists")),
            format!("Dir::State::status={}", path("status")),
            format!("Dir::Cache={}", path("cache")),
            format!("APT::Architecture={}", self.board.debian),
            format!("APT::Architectures={}", self.board.debian),
            "Acquire::Languages=none".to_owned(),
            "Debug::NoLocking=1".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        if is_root() {
            command.args(["-o", "APT::Sandbox::User=root"]);
        }
        command
    }

    fn show(&self, package: &str) -> Result<String> {
        let mut command = self.apt("apt-cache");
        let output = command
            .args(["show", package])
            .output()
            .map_err(|error| format!("`apt-cache show {package}`: {error}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What there is by the lists; apt takes seconds to find out, so it is written down.
    fn candidates(&self) -> Result<Vec<Candidate>> {
        let known = self.state.join(format!("{}.txt", self.board.package));
        if let Ok(text) = fs::read_to_string(&known) {
            return Ok(candidates(&text));
        }
        let text = self.show(self.board.package)?;
        fs::write(&known, &text).map_err(|error| format!("{}: {error}", known.display()))?;
        Ok(candidates(&text))
    }

    fn forget_candidates(&self) {
        for entry in fs::read_dir(&self.state).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "txt") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The kernel that is asked for, from `target/kernels` or the archive.
    ///
    /// # Errors
    /// Debian has no such kernel, or its packages can't be fetched or unpacked.
    pub(super) fn kernel(&self, wanted: Pick) -> Result<Kernel> {
        let candidates = self.candidates()?;
        let found = pick(&candidates, wanted).ok_or_else(|| {
            let versions: Vec<_> = candidates.iter().map(|known| known.version.as_str()).collect();
            format!("Debian has no such {}, only {}", self.board.package, versions.join(", "))
        })?;
        let folder = self.context.target.join("kernels").join(self.board.debian);
        let tree = folder.join(format!("{}_{}", found.image, found.version));
        if !tree.is_dir() {
            let what = format!("fetching Debian's {} {}", found.image, found.version);
            self.context.step(&what, || self.fetch(found, &tree))?;
        }
        unpacked(&tree, found)
    }

    fn fetch(&self, found: &Candidate, tree: &Path) -> Result<()> {
        // Since 6.17 the image is in packages that this one depends on.
        let mut packages = vec![format!("{}={}", found.image, found.version)];
        let depends = depends_of(&self.show(&packages.concat())?);
        let parts = ["linux-binary-", "linux-modules-"];
        let part = |name: &String| parts.iter().any(|part| name.starts_with(part));
        packages.extend(depends.into_iter().filter(part));
        let partial = tree.with_extension("partial");
        let debs = partial.join("debs");
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&debs).map_err(|error| format!("{}: {error}", debs.display()))?;
        process::run(
            self.apt("apt-get").args(["-q", "download"]).args(&packages).current_dir(&debs),
        )?;
        let entries = fs::read_dir(&debs).map_err(|e| format!("{}: {e}", debs.display()))?;
        for deb in entries.flatten() {
            process::run(Command::new("dpkg-deb").arg("-x").arg(deb.path()).arg(&partial))?;
        }
        fs::remove_dir_all(&debs).map_err(|error| format!("{}: {error}", debs.display()))?;
        let kernel = unpacked(&partial, found)?;
        modules::index(&kernel.base, &kernel.release)?;
        fs::rename(&partial, tree).map_err(|error| format!("{}: {error}", tree.display()))
    }
}

/// Where the parts are: below the root in older packages, below /usr in newer ones.
fn unpacked(tree: &Path, found: &Candidate) -> Result<Kernel> {
    let release = found.image.trim_start_matches("linux-image-").to_owned();
    let images = [
        tree.join("boot").join(format!("vmlinuz-{release}")),
        tree.join("usr/lib/modules").join(&release).join("vmlinuz"),
    ];
    let image = images.into_iter().find(|image| image.is_file());
    let image = image.ok_or_else(|| format!("{} has no vmlinuz", tree.display()))?;
    let bases = [tree.join("usr"), tree.to_owned()];
    let base = bases.into_iter().find(|base| base.join("lib/modules").join(&release).is_dir());
    let base = base.ok_or_else(|| format!("{} has no modules", tree.display()))?;
    Ok(Kernel { version: found.version.clone(), image, base, release, tree: tree.to_owned() })
}

/// The stanzas of `apt-cache show` of a package that only depends on the current kernel.
fn candidates(text: &str) -> Vec<Candidate> {
    let stanzas = text.split("\n\n").filter_map(|stanza| {
        let version = stanza.lines().find_map(|line| line.strip_prefix("Version: "))?;
        let image = depends_of(stanza).into_iter().find(|name| name.starts_with("linux-image-"))?;
        Some(Candidate { version: version.trim().to_owned(), image })
    });
    stanzas.collect()
}

/// The names that the first `Depends:` lists, without versions, alternatives apart.
fn depends_of(text: &str) -> Vec<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
    let names = line.split([',', '|']).filter_map(|part| part.split_ascii_whitespace().next());
    names.map(str::to_owned).collect()
}

fn pick(candidates: &[Candidate], wanted: Pick) -> Option<&Candidate> {
    let number = |candidate: &&Candidate| numbers(&candidate.version);
    match wanted {
        Pick::Oldest => candidates.iter().min_by_key(number),
        Pick::Newest => candidates.iter().max_by_key(number),
        Pick::Line(line) => {
            let line = numbers(line);
            let in_line = |candidate: &&Candidate| number(candidate).starts_with(&line);
            candidates.iter().filter(in_line).max_by_key(number)
        }
    }
}

/// `6.1.176-1` as 6, 1, 176, 1.
fn numbers(version: &str) -> Vec<u32> {
    let parts = version.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().unwrap_or(u32::MAX)).collect()
}

/// The files in which the machine says where its packages come from.
fn machine_sources() -> String {
    let mut text = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    let mut files: Vec<PathBuf> = fs::read_dir("/etc/apt/sources.list.d")
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.sort();
    for file in files {
        text.push_str("\n\n");
        text.push_str(&fs::read_to_string(file).unwrap_or_default());
    }
    text
}

/// A list of the wanted suites, from the machine's own sources in either of apt's formats.
fn sources(machine: &str, suites: &[&str]) -> Result<String> {
    let is_archive = |uri: &str| uri.trim_end_matches('/').ends_with("/debian");
    let one_line = || {
        machine.lines().find_map(|line| {
            let rest = line.strip_prefix("deb ")?.trim_start();
            let (options, rest) = match rest.strip_prefix('[') {
                Some(options) => options.split_once(']')?,
                None => ("", rest),
            };
            let uri = rest.split_ascii_whitespace().next().filter(|uri| is_archive(uri))?;
            let key = options.split_ascii_whitespace().find_map(|o| o.strip_prefix("signed-by="));
            Some((uri, key))
        })
    };
    let stanza = || {
        machine.split("\n\n").find_map(|stanza| {
            let value = |key: &str| stanza.lines().find_map(|line| line.strip_prefix(key));
            let uri = value("URIs:")?.split_ascii_whitespace().find(|uri| is_archive(uri))?;
            Some((uri, value("Signed-By:").map(str::trim).filter(|key| key.starts_with('/'))))
        })
    };
    let (uri, key) = one_line().or_else(stanza).ok_or(
        "this machine's apt has no Debian archive among its sources (an address that ends with \
         /debian): kernels come from there",
    )?;
    let key = key.map(|key| format!(" signed-by={key}")).unwrap_or_default();
    let lines =
        suites.iter().map(|suite| format!("deb [target=Packages{key}] {uri} {suite} main\n"));
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOW: &str = "\
Package: linux-image-cloud-amd64
Source: linux
Version: 7.2.13-1
Depends: linux-base-cloud-amd64 (= 7.2.13-1), linux-image-7.2.13+deb14-cloud-amd64 (= 7.2.13-1)
Description: Linux for cloud

Package: linux-image-cloud-amd64
Version: 6.12.107-1
Depends: linux-image-6.12.107+deb13-cloud-amd64 (= 6.12.107-1)

Package: linux-image-cloud-amd64
Version: 6.1.176-1
Depends: linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)

Package: linux-image-cloud-amd64
Version: 6.1.9-1
Depends: linux-image-6.1.0-2-cloud-amd64 (= 6.1.9-1)

Package: linux-image-cloud-amd64
Version: 5.10.223-1
Depends: linux-image-5.10.0-32-cloud-amd64 (= 5.10.223-1)
";

    #[test]
    fn kernels_are_picked_by_number_and_a_line_is_no_prefix_of_another() {
        let candidates = candidates(SHOW);
        assert_eq!(candidates.len(), 5);
        let picked = |wanted| pick(&candidates, wanted).map(|found| found.image.as_str());
        assert_eq!(picked(Pick::Oldest), Some("linux-image-5.10.0-32-cloud-amd64"));
        assert_eq!(picked(Pick::Newest), Some("linux-image-7.2.13+deb14-cloud-amd64"));
        assert_eq!(picked(Pick::Line("6.1")), Some("linux-image-6.1.0-50-cloud-amd64"));
        assert_eq!(picked(Pick::Line("6.12")), Some("linux-image-6.12.107+deb13-cloud-amd64"));
        assert_eq!(picked(Pick::Line("4.19")), None);
        assert_eq!(pick(&[], Pick::Oldest), None);
    }

    #[test]
    fn what_apt_says_in_vain_is_no_kernel() {
        for text in
            ["", "N: Unable to locate package", "Version: 1\n\n\n", "Depends: linux-image-1\n"]
        {
            assert_eq!(candidates(text), [], "{text:?}");
        }
        let depends = "Depends: a | b (>= 1), linux-modules-7 (= 2), c\n";
        assert_eq!(depends_of(depends), ["a", "b", "linux-modules-7", "c"]);
    }

    #[test]
    fn the_machines_sources_give_the_address_and_the_key() {
        let stanzas = "# c\nTypes: deb\nURIs: http://example.org/debian-security\nSuites: x\n\n\
            Types: deb\nURIs: http://example.org/debian/\nSuites: bookworm\nSigned-By: /k.gpg\n";
        assert_eq!(
            sources(stanzas, &["trixie", "unstable"]).as_deref(),
            Ok("deb [target=Packages signed-by=/k.gpg] http://example.org/debian/ trixie main\n\
                deb [target=Packages signed-by=/k.gpg] http://example.org/debian/ unstable main\n")
        );
        let line = "deb [arch=amd64 signed-by=/l.gpg] http://example.org/debian bookworm main\n";
        assert_eq!(
            sources(line, &["trixie"]).as_deref(),
            Ok("deb [target=Packages signed-by=/l.gpg] http://example.org/debian trixie main\n")
        );
        let plain = "deb-src http://a.org/debian x main\ndeb http://b.org/debian x main\n";
        assert_eq!(
            sources(plain, &["x"]).as_deref(),
            Ok("deb [target=Packages] http://b.org/debian x main\n")
        );
        assert!(sources("deb http://archive.ubuntu.com/ubuntu noble main\n", &["x"]).is_err());
        assert!(sources("", &["x"]).is_err());
    }
}
