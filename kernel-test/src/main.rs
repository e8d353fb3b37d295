//! The first process of a virtual machine that `cargo xtask kernel-test` has booted: it prepares the
//! machine, starts the agent, causes what the probes watch, compares what the agent says with the
//! kernel's own account, and prints a line for each check on the console. `DONE` is its last word; the
//! harness ends the machine then.
//!
//! What to do stands in `/plan`, which the harness writes ([`plan`]). It knows the agent by its
//! command line, its page and its WAL alone.

mod agent;
mod checks;
mod events;
mod guest;
mod page;
mod plan;

use std::process::ExitCode;

use agent::Agent;
use plan::Plan;

/// What attempts return: a sentence that says what was attempted and what came of it.
type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    // The program starts itself for what a process of its own must do.
    let done = match arguments.split_first() {
        Some((first, _)) if first == events::oom::EAT => events::oom::eat(),
        Some((first, rest)) if first == guest::CONFINE => guest::confine(rest),
        _ if rustix::process::getpid().is_init() => first_process(),
        _ => Err("this program is the first process of a virtual machine".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say("CHECK", &format!("machine FAIL {error}"));
            say("DONE", "");
            ExitCode::FAILURE
        }
    }
}

fn first_process() -> Result<()> {
    guest::mount_basics()?;
    let plan = Plan::read("/plan")?;
    guest::prepare(&plan)?;
    say("KERNEL", &rustix::system::uname().release().to_string_lossy());
    let agent = Agent::start(&plan)?;
    checks::run(&plan, agent);
    say("DONE", "");
    // The harness ends the machine; if the first process ended, the kernel would panic before.
    loop {
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}

/// A line for the harness. What it says is put on that one line.
fn say(what: &str, text: &str) {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    println!("{what} {text}");
}
