//! `cargo xtask kernel-test`: boots Debian's kernels in virtual machines, with the static agent and a
//! test program (`kernel-test/`) that causes what the probes watch, and judges what it says.
//!
//! [`boots`] is the table of machines and kernels, [`debian`] gets the kernels and [`modules`] their
//! modules, [`initramfs`] packs what they start with, [`machine`] runs one, [`report`] reads the
//! console. None of them knows how the agent works.

mod boots;
mod debian;
mod initramfs;
mod machine;
mod modules;
mod report;

use std::collections::VecDeque;
use std::fs;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

use boots::{BOOTS, Boot};
use debian::{Archive, Kernel};
use machine::Programs;
use report::{Booted, Console, Status};

use crate::context::Context;
use crate::process::Interrupt;
use crate::static_build::{Profile, Target, Toolchain};
use crate::{Result, apt, build, page, process};

/// What is asked for.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Only say what there is.
    pub(crate) list: bool,
    /// Only those that fit CI.
    pub(crate) quick: bool,
    /// Only these; all if it is empty.
    pub(crate) only: Vec<String>,
    /// What the agent does not know is no failure.
    pub(crate) allow_absent: bool,
    /// Cause also what the agent does not know, and show what a check would have said.
    pub(crate) rehearse: bool,
    /// The agent as users get it, without debug assertions.
    pub(crate) release: bool,
    /// Put the table into README.md.
    pub(crate) update: bool,
}

/// Boots, checks, and writes the table to `target/kernel-test.md`.
///
/// # Errors
/// There is no such boot, the agent could not be built, or nothing could be booted.
pub(crate) fn kernel_test(context: &Context, options: &Options) -> Result<ExitCode> {
    let chosen = choose(options)?;
    if options.list {
        for boot in &chosen {
            let about = [
                boot.pick.describe(),
                boot.board.arch,
                boot.special.describe(),
                if boot.quick { "--quick" } else { "" },
            ];
            let about: Vec<&str> = about.into_iter().filter(|part| !part.is_empty()).collect();
            println!("{:30} {}", boot.name, about.join(", "));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let interrupt = Interrupt::install()?;
    build::bpf_object(context)?;
    let (mut booted, mut skipped) = (Vec::new(), Vec::new());
    // One target after the other, so that no compiler disturbs the machines that run.
    let mut targets: Vec<Target> = chosen.iter().map(|boot| boot.board.target).collect();
    targets.dedup();
    for target in targets {
        let boots = chosen.iter().filter(|boot| boot.board.target == target);
        let lab = Lab { context, options, interrupt: &interrupt };
        booted.extend(lab.run(target, boots, &mut skipped));
        if interrupt.requested() {
            return Err("interrupted".to_owned());
        }
    }
    conclude(context, options, &booted, &skipped)
}

fn choose(options: &Options) -> Result<Vec<&'static Boot>> {
    let unknown = |name: &&String| BOOTS.iter().all(|boot| boot.name != name.as_str());
    if let Some(name) = options.only.iter().find(unknown) {
        return Err(format!("there is no boot {name}: `cargo xtask kernel-test --list`"));
    }
    let is_chosen = |boot: &&Boot| {
        (options.only.is_empty() || options.only.iter().any(|name| name == boot.name))
            && (!options.quick || boot.quick)
    };
    Ok(BOOTS.iter().filter(is_chosen).collect())
}

/// What boots share.
struct Lab<'a> {
    context: &'a Context,
    options: &'a Options,
    interrupt: &'a Interrupt,
}

impl Lab<'_> {
    /// Runs the boots of one target. What can't be had here is a reason to skip one; an agent that can't
    /// be compiled is a failure of all.
    fn run<'b>(
        &self,
        target: Target,
        boots: impl Iterator<Item = &'b &'static Boot>,
        skipped: &mut Vec<String>,
    ) -> Vec<Booted> {
        let mut prepared = VecDeque::new();
        let mut toolchain = None;
        for boot in boots.copied() {
            let mut prepare = || {
                let kernel = self.kernel(boot)?;
                if toolchain.is_none() {
                    toolchain = Some(self.toolchain(target)?);
                }
                Ok(kernel)
            };
            match prepare() {
                Ok(kernel) => prepared.push_back((boot, kernel)),
                Err::<_, String>(why) => {
                    self.context.say(&format!("{}: skipped: {why}", boot.name));
                    skipped.push(format!("{}: {why}", boot.name));
                }
            }
        }
        let Some(toolchain) = toolchain else { return Vec::new() };
        let packages = ["agent", "kernel-test"];
        let profile = if self.options.release { Profile::Release } else { Profile::Test };
        let built = toolchain.build(self.context, &packages, profile);
        match built.and_then(|folder| Programs::read(&folder)) {
            Ok(programs) => self.boot_all(prepared, &programs),
            Err(why) => {
                let failed = |(boot, kernel): (_, Kernel)| Booted {
                    boot,
                    version: kernel.version,
                    console: Err(why.clone()),
                };
                prepared.into_iter().map(failed).collect()
            }
        }
    }

    /// As users get it, or whatever is quickest.
    fn toolchain(&self, target: Target) -> Result<Toolchain> {
        if self.options.release {
            Toolchain::get(self.context, target)
        } else {
            Toolchain::for_tests(self.context, target)
        }
    }

    fn kernel(&self, boot: &Boot) -> Result<Kernel> {
        let board = boot.board;
        for (program, package) in [
            (board.qemu, board.qemu_package),
            ("depmod", "kmod"),
            ("xz", "xz-utils"),
            ("mkfs.ext4", "e2fsprogs"),
        ] {
            self.need(program, package)?;
        }
        Archive::open(self.context, board)?.kernel(boot.pick)
    }

    fn need(&self, program: &str, package: &str) -> Result<()> {
        if process::find(program).is_some() {
            return Ok(());
        }
        if apt::can_install() {
            return apt::install(self.context, &[package]);
        }
        Err(format!("there is no {program} (Debian: {package}; as root this command installs it)"))
    }

    /// Boots them, as many at a time as there are processors: most of a boot is waiting.
    fn boot_all(
        &self,
        prepared: VecDeque<(&'static Boot, Kernel)>,
        programs: &Programs,
    ) -> Vec<Booted> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let (queue, booted) = (Mutex::new(prepared), Mutex::new(Vec::new()));
        let work = || {
            loop {
                let next = lock(&queue).pop_front();
                let Some((boot, kernel)) = next.filter(|_| !self.interrupt.requested()) else {
                    return;
                };
                let done = self.boot(boot, &kernel, programs);
                let mut booted = lock(&booted);
                self.show(&done);
                booted.push(done);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(work);
            }
        });
        let mut booted = std::mem::take(&mut *lock(&booted));
        let place = |booted: &Booted| BOOTS.iter().position(|boot| boot.name == booted.boot.name);
        booted.sort_by_key(place);
        booted
    }

    fn boot(&self, boot: &'static Boot, kernel: &Kernel, programs: &Programs) -> Booted {
        self.context.say(&format!("{}: booting {}", boot.name, kernel.version));
        let rehearse = self.options.rehearse;
        let console = machine::run(self.context, self.interrupt, boot, kernel, programs, rehearse);
        let console = console.map(|text| Console::parse(&text));
        Booted { boot, version: kernel.version.clone(), console }
    }

    fn show(&self, booted: &Booted) {
        println!("\n{}, {}:", booted.boot.name, booted.version);
        if let Ok(console) = &booted.console {
            for note in &console.notes {
                println!("    note: {note}");
            }
            for (probe, mode) in &console.modes {
                println!("    probe {probe}: {mode}");
            }
            for check in &console.checks {
                let status = match check.status {
                    Status::Good => "ok",
                    Status::Failed => "FAILED",
                    Status::Skipped => "skipped",
                    Status::Absent => "absent",
                };
                println!("    {:18} {status:8} {}", check.name, check.detail);
            }
        }
        let failures = booted.failures(self.options.allow_absent);
        for failure in &failures {
            println!("    failure: {failure}");
        }
        if !failures.is_empty() {
            let folder = self.context.target.join("kernel-test").join(booted.boot.name);
            println!("    the agent's log and more: {}", folder.join("console.log").display());
        }
    }
}

/// No thread leaves half a change behind when it panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn conclude(
    context: &Context,
    options: &Options,
    booted: &[Booted],
    skipped: &[String],
) -> Result<ExitCode> {
    if booted.is_empty() {
        return Err(format!("nothing could be booted:\n{}", skipped.join("\n")));
    }
    let table = report::table(booted);
    let path = context.target.join("kernel-test.md");
    let fail = |error| format!("{}: {error}", path.display());
    fs::write(&path, format!("{table}\n")).map_err(fail)?;
    println!("\n{table}\n");
    if let Some(memory) = report::memory(booted) {
        let built = if options.release { "as users get it" } else { "with debug assertions" };
        println!("the agent's memory, {built}, at the end of each boot:\n\n{memory}\n");
    }
    for why in skipped {
        println!("skipped: {why}");
    }
    let failed = booted.iter().filter(|booted| !booted.failures(options.allow_absent).is_empty());
    let failed: Vec<&str> = failed.map(|booted| booted.boot.name).collect();
    let all = options.only.is_empty() && !options.quick;
    let never = report::never_made(booted);
    for check in &never {
        println!("checked on no kernel: {check}");
    }
    println!(
        "{} of {} boots ran; failed: {}",
        booted.len(),
        booted.len() + skipped.len(),
        if failed.is_empty() { "none".to_owned() } else { failed.join(", ") }
    );
    if options.update {
        let readme = context.root.join("README.md");
        let fail = |error| format!("{}: {error}", readme.display());
        let page = fs::read_to_string(&readme).map_err(fail)?;
        fs::write(&readme, page::insert(&page, report::MARKS, &table)?).map_err(fail)?;
        context.say("README.md has the new table");
    }
    let unmade = all && !never.is_empty() && !options.allow_absent;
    if failed.is_empty() && !unmade { Ok(ExitCode::SUCCESS) } else { Ok(ExitCode::FAILURE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boots_are_chosen_by_name_and_a_wrong_name_is_an_error() {
        let only = |name: &str| Options { only: vec![name.to_owned()], ..Options::default() };
        assert_eq!(choose(&Options::default()).map(|all| all.len()), Ok(BOOTS.len()));
        assert_eq!(choose(&only("armv7-6.1-jit")).map(|chosen| chosen.len()), Ok(1));
        assert!(choose(&only("vax-oldest")).is_err());
        let quick = choose(&Options { quick: true, ..Options::default() });
        assert_eq!(quick.map(|chosen| chosen.len()), Ok(2));
    }
}
