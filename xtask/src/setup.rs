//! What must be on the machine before the agent can be built or tested: looks for it, gets what it
//! may get, and says plainly what it may not. Everything else comes with Rust.
//!
//! The servers that the tests talk to are used where they are installed already; otherwise they are
//! unpacked below `target/tools`, so that nothing is installed and no service is started.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::context::{Context, is_root};
use crate::{Result, apt, process};

/// What the machine shall be ready for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Building the agent and running it.
    Run,
    /// Also all checks and tests.
    Test,
}

/// A program of the system that must be in PATH.
struct Program {
    name: &'static str,
    since: Purpose,
    why: &'static str,
    packages: Packages,
}

/// What the distributions call it; empty where they don't have it or we don't know.
struct Packages {
    apt: &'static [&'static str],
    dnf: &'static str,
    pacman: &'static str,
    apk: &'static str,
}

const PROGRAMS: &[Program] = &[
    Program {
        name: "cc",
        since: Purpose::Run,
        why: "Rust links with it, and the TLS library has parts in C",
        packages: Packages {
            apt: &["gcc", "libc6-dev"],
            dnf: "gcc",
            pacman: "gcc",
            apk: "gcc musl-dev",
        },
    },
    Program {
        name: "losetup",
        since: Purpose::Test,
        why: "tests make block devices with it",
        packages: Packages {
            apt: &["mount"],
            dnf: "util-linux",
            pacman: "util-linux",
            apk: "losetup",
        },
    },
    Program {
        name: "mkfs.ext4",
        since: Purpose::Test,
        why: "tests make file systems with it",
        packages: Packages {
            apt: &["e2fsprogs"],
            dnf: "e2fsprogs",
            pacman: "e2fsprogs",
            apk: "e2fsprogs",
        },
    },
    Program {
        name: "dbus-daemon",
        since: Purpose::Test,
        why: "tests ask services over it",
        packages: Packages {
            apt: &["dbus-daemon"],
            dnf: "dbus-daemon",
            pacman: "dbus",
            apk: "dbus",
        },
    },
    Program {
        name: "logger",
        since: Purpose::Test,
        why: "tests send syslog with it",
        packages: Packages {
            apt: &["bsdutils"],
            dnf: "util-linux",
            pacman: "util-linux",
            apk: "logger",
        },
    },
    Program {
        name: "busybox",
        since: Purpose::Test,
        why: "tests send syslog with its logger and syslogd too",
        packages: Packages { apt: &["busybox"], dnf: "busybox", pacman: "busybox", apk: "busybox" },
    },
    Program {
        name: "rsyslogd",
        since: Purpose::Test,
        why: "a test forwards syslog with it",
        packages: Packages {
            apt: &["rsyslog"],
            dnf: "rsyslog",
            pacman: "rsyslog (of the AUR)",
            apk: "rsyslog",
        },
    },
    Program {
        name: "systemctl",
        since: Purpose::Test,
        why: "a test asks a systemd of its own",
        packages: Packages {
            apt: &["systemd"],
            dnf: "systemd",
            pacman: "systemd",
            apk: "systemd (which Alpine has not)",
        },
    },
    Program {
        name: "/lib/systemd/systemd-journal-remote",
        since: Purpose::Test,
        why: "tests make journal files with it",
        packages: Packages {
            apt: &["systemd-journal-remote"],
            dnf: "systemd-journal-remote",
            pacman: "systemd",
            apk: "systemd (which Alpine has not)",
        },
    },
    Program {
        name: "nginx",
        since: Purpose::Test,
        why: "tests speak HTTP/2 with it",
        packages: Packages { apt: &["nginx"], dnf: "nginx", pacman: "nginx", apk: "nginx" },
    },
    Program {
        name: "openssl",
        since: Purpose::Test,
        why: "`cargo xtask footprint` makes a CA with it",
        packages: Packages { apt: &["openssl"], dnf: "openssl", pacman: "openssl", apk: "openssl" },
    },
    Program {
        name: "tinyproxy",
        since: Purpose::Test,
        why: "tests send through it",
        packages: Packages {
            apt: &["tinyproxy-bin"],
            dnf: "tinyproxy",
            pacman: "tinyproxy",
            apk: "tinyproxy",
        },
    },
    Program {
        name: "microsocks",
        since: Purpose::Test,
        why: "tests send through it",
        packages: Packages {
            apt: &["microsocks"],
            dnf: "microsocks",
            pacman: "microsocks (of the AUR)",
            apk: "microsocks",
        },
    },
    Program {
        name: "setpriv",
        since: Purpose::Test,
        why: "a test logs as several users",
        packages: Packages {
            apt: &["util-linux", "bsdutils"],
            dnf: "util-linux",
            pacman: "util-linux",
            apk: "setpriv logger",
        },
    },
    Program {
        name: "qemu-arm-static",
        since: Purpose::Test,
        why: "`cargo xtask dist --test` runs binaries for ARM on it",
        packages: Packages {
            apt: &["qemu-user-static"],
            dnf: "qemu-user-static",
            pacman: "qemu-user-static",
            apk: "qemu-arm (a link to it by this name)",
        },
    },
    Program {
        name: "xz",
        since: Purpose::Test,
        why: "a test compresses a journal as older systemds did",
        packages: Packages { apt: &["xz-utils"], dnf: "xz", pacman: "xz", apk: "xz" },
    },
];

/// A server that tests and the demo talk to.
pub(crate) struct Server {
    /// What its `--version` begins with, and how messages call it.
    name: &'static str,
    /// The variable that names its binary: the user's for us, and ours for the tests.
    pub(crate) variable: &'static str,
    /// What the binary may be called; first as in Debian's package.
    programs: &'static [&'static str],
    /// The argument that it is known by, and how its answer begins.
    known: (&'static str, &'static str),
    /// What the project wants it for.
    why: &'static str,
    packages: Packages,
}

/// Prometheus, whose remote-write receiver the agent is tested against.
pub(crate) const PROMETHEUS: Server = Server {
    name: "prometheus",
    variable: "MOTE_PROMETHEUS",
    programs: &["prometheus"],
    known: ("--version", "prometheus, version"),
    why: "tests and the demo talk to a real one",
    packages: Packages { apt: &["prometheus"], dnf: "", pacman: "prometheus", apk: "prometheus" },
};

/// node_exporter, whose series the agent's are compared with.
pub(crate) const NODE_EXPORTER: Server = Server {
    name: "node_exporter",
    variable: "MOTE_NODE_EXPORTER",
    programs: &["prometheus-node-exporter", "node_exporter"],
    known: ("--version", "node_exporter, version"),
    why: "tests and the demo talk to a real one",
    packages: Packages {
        apt: &["prometheus-node-exporter"],
        dnf: "",
        pacman: "prometheus-node-exporter",
        apk: "prometheus-node-exporter",
    },
};

/// vmagent, which the footprint is measured beside. Debian's says no version.
pub(crate) const VMAGENT: Server = Server {
    name: "vmagent",
    variable: "MOTE_VMAGENT",
    programs: &["vmagent"],
    known: ("--help", "vmagent collects metrics"),
    why: "the agent's footprint is measured beside a real one",
    packages: Packages { apt: &["victoria-metrics"], dnf: "", pacman: "vmagent", apk: "" },
};

/// Makes the machine ready.
///
/// # Errors
/// Something is missing and could not be got: what, why it is needed, and how to get it.
pub(crate) fn setup(context: &Context, purpose: Purpose) -> Result<()> {
    let missing = prepare(context, purpose)?.missing;
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("not everything that is needed could be got.\n{}", missing.join("\n")))
}

/// What [`prepare`] has found and not found.
#[derive(Default)]
pub(crate) struct Prepared {
    /// Prometheus, for [`Purpose::Test`].
    pub(crate) prometheus: Option<PathBuf>,
    /// node_exporter, for [`Purpose::Test`].
    pub(crate) node_exporter: Option<PathBuf>,
    /// What is missing, a sentence each; none of it keeps the agent from being built.
    pub(crate) missing: Vec<String>,
}

impl Prepared {
    /// Tells a command, and so the tests it starts, where the servers are: each by its variable, and
    /// by its Debian name in PATH.
    pub(crate) fn export(&self, context: &Context, command: &mut Command) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = [tools(context)].into_iter().chain(std::env::split_paths(&path));
        // A folder with a colon in its name can't be in PATH; the variables serve there.
        if let Ok(path) = std::env::join_paths(folders) {
            command.env("PATH", path);
        }
        for (server, path) in [(PROMETHEUS, &self.prometheus), (NODE_EXPORTER, &self.node_exporter)]
        {
            if let Some(path) = path {
                command.env(server.variable, path);
            }
        }
    }
}

/// Makes the machine as ready as it can.
///
/// # Errors
/// Without what is missing the agent can't even be built, or a variable names a binary that is no
/// good.
pub(crate) fn prepare(context: &Context, purpose: Purpose) -> Result<Prepared> {
    let mut prepared = Prepared::default();
    for program in PROGRAMS.iter().filter(|program| program.since <= purpose) {
        if let Err(message) = ensure_program(context, program) {
            match program.since {
                Purpose::Run => return Err(message),
                Purpose::Test => prepared.missing.push(message),
            }
        }
    }
    if purpose == Purpose::Test {
        prepared.missing.extend(ensure_components(context).err());
        for (server, slot) in
            [(PROMETHEUS, &mut prepared.prometheus), (NODE_EXPORTER, &mut prepared.node_exporter)]
        {
            match locate(context, &server)? {
                Some(path) => *slot = Some(path),
                None => match unpack(context, &server) {
                    Ok(path) => *slot = Some(path),
                    Err(message) => prepared.missing.push(message),
                },
            }
            if let Some(path) = slot {
                context.say(&format!("{}: {}", server.name, path.display()));
            }
        }
    }
    Ok(prepared)
}

/// Where a server's binary is, if there is one: what its variable says, else in `target/tools`, else
/// in PATH.
///
/// # Errors
/// The variable is set to something that is not that server.
pub(crate) fn locate(context: &Context, server: &Server) -> Result<Option<PathBuf>> {
    if let Some(path) = std::env::var_os(server.variable).map(PathBuf::from) {
        return match probe(&path, server) {
            Ok(()) => Ok(Some(path)),
            Err(why) => Err(format!(
                "{} is set to {}, which is not {}: {why}",
                server.variable,
                path.display(),
                server.name
            )),
        };
    }
    let unpacked = Some(unpacked(context, server)).filter(|path| process::is_executable(path));
    let installed = server.programs.iter().filter_map(|name| process::find(name));
    Ok(unpacked.into_iter().chain(installed).find(|path| probe(path, server).is_ok()))
}

fn unpacked(context: &Context, server: &Server) -> PathBuf {
    tools(context).join(server.programs.first().unwrap_or(&server.name))
}

fn tools(context: &Context) -> PathBuf {
    context.target.join("tools/bin")
}

/// As [`locate`], and got if it is not there and can be.
///
/// # Errors
/// It is not there and can't be got, or as [`locate`].
pub(crate) fn obtain(context: &Context, server: &Server) -> Result<PathBuf> {
    match locate(context, server)? {
        Some(path) => Ok(path),
        None => unpack(context, server),
    }
}

/// Asks a binary who it is, so that another program of the same name is not taken.
fn probe(path: &Path, server: &Server) -> Result<()> {
    let output = Command::new(path)
        .arg(server.known.0)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    if output.status.success() && text.trim_start().starts_with(server.known.1) {
        return Ok(());
    }
    let first = text.lines().next().unwrap_or_default();
    Err(format!("{} said {first:?}", server.known.0))
}

fn unpack(context: &Context, server: &Server) -> Result<PathBuf> {
    let to = unpacked(context, server);
    let attempt = match (server.packages.apt, server.programs) {
        ([package], [program, ..]) if apt::can_unpack() => {
            apt::unpack(context, package, &format!("usr/bin/{program}"), &to)
        }
        _ => Err("its package can't be unpacked here, for want of apt-get".to_owned()),
    };
    attempt.and_then(|()| probe(&to, server)).map(|()| to).map_err(|why| {
        format!(
            "{} is missing: {} ({why}). {} Or take a binary of its project's and let {} name it.",
            server.name,
            server.why,
            advice(&server.packages),
            server.variable
        )
    })
}

fn ensure_program(context: &Context, program: &Program) -> Result<()> {
    if process::find(program.name).is_some() {
        return Ok(());
    }
    let mut why = String::new();
    if apt::can_install() {
        match apt::install(context, program.packages.apt) {
            Ok(()) if process::find(program.name).is_some() => return Ok(()),
            Ok(()) => why = " (its package was installed and does not bring it)".to_owned(),
            Err(message) => why = format!(" ({message})"),
        }
    }
    Err(format!(
        "`{}` is missing: {}{why}. {}",
        program.name,
        program.why,
        advice(&program.packages)
    ))
}

/// rustfmt and clippy, which a minimal toolchain lacks.
fn ensure_components(context: &Context) -> Result<()> {
    let works = |command: &str| {
        let mut cargo = context.cargo();
        cargo.args([command, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
        process::status(&mut cargo).is_ok_and(|status| status.success())
    };
    let complete = || works("fmt") && works("clippy");
    if complete() {
        return Ok(());
    }
    if process::find("rustup").is_some() {
        context.step("adding rustfmt and clippy to the toolchain", || {
            let mut rustup = Command::new("rustup");
            rustup.args(["component", "add", "rustfmt", "clippy"]).current_dir(&context.root);
            process::run(&mut rustup)
        })?;
        if complete() {
            return Ok(());
        }
    }
    Err("`cargo fmt` or `cargo clippy` is missing: the checks need them. With rustup: \
         `rustup component add rustfmt clippy`; otherwise install the distribution's packages, \
         such as Debian's `rustfmt` and `rust-clippy`."
        .to_owned())
}

/// How to install something here, or, where the distribution is not known, on those that we know.
fn advice(packages: &Packages) -> String {
    let apt = packages.apt.join(" ");
    let known = [
        ("apt-get", "apt-get install -y --no-install-recommends", apt.as_str()),
        ("dnf", "dnf install -y", packages.dnf),
        ("pacman", "pacman -S --needed", packages.pacman),
        ("apk", "apk add", packages.apk),
    ];
    let sudo = if is_root() { "" } else { "sudo " };
    let commands = |only_here: bool| -> Vec<String> {
        known
            .iter()
            .filter(|(manager, _, names)| {
                !names.is_empty() && (!only_here || process::find(manager).is_some())
            })
            .map(|(_, command, names)| format!("`{sudo}{command} {names}`"))
            .collect()
    };
    let here = commands(true);
    let commands = if here.is_empty() { commands(false) } else { here };
    format!("Install it with {}.", commands.join(", or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_that_is_something_else_is_not_taken() {
        let cat = process::find("cat").expect("cat");
        let error = probe(&cat, &PROMETHEUS).expect_err("cat is not prometheus");
        assert!(error.contains("cat"), "{error}");
        assert!(probe(Path::new("/nonexistent/prometheus"), &PROMETHEUS).is_err());
    }

    #[test]
    fn advice_names_a_command() {
        for program in PROGRAMS {
            let advice = advice(&program.packages);
            assert!(advice.contains('`'), "{}: {advice}", program.name);
        }
    }
}
