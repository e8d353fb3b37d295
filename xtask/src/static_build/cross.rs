//! `cross`: compilers for other machines in containers. Cross.toml says what goes into them. It must not
//! know what is built.

use std::process::{Command, Stdio};

use crate::Result;
use crate::context::Context;
use crate::process;

/// How to get it.
pub(super) const ADVICE: &str = "`cargo install --locked cross` and run this command again";

/// The engines that cross takes, in its order.
const ENGINES: [&str; 2] = ["docker", "podman"];

/// That it can be used here.
///
/// # Errors
/// It is not there, or no container engine answers.
pub(super) fn works() -> Result<()> {
    if process::find("cross").is_none() {
        return Err("there is no cross".to_owned());
    }
    let named = std::env::var("CROSS_CONTAINER_ENGINE").ok();
    let engines: Vec<&str> = named.as_deref().map_or(ENGINES.to_vec(), |engine| vec![engine]);
    // cross takes the first that is there, also if that one does not answer.
    let there = engines.iter().find(|engine| process::find(engine).is_some());
    let Some(engine) = there else {
        return Err(format!("cross needs a container engine: no {}", engines.join(" and no ")));
    };
    let mut info = Command::new(engine);
    info.arg("info").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if process::status(&mut info)?.success() {
        return Ok(());
    }
    Err(format!("cross needs a container engine, and `{engine} info` failed"))
}

/// `cross build`, but for target and packages.
pub(super) fn command(context: &Context) -> Command {
    let mut command = Command::new("cross");
    command.arg("build").current_dir(&context.root);
    // The path is seen from the package, which is the same wherever a container has the checkout.
    command.env("MOTE_BPF_OBJECTS", "../target/bpf");
    // cross chooses the toolchain itself.
    for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"] {
        command.env_remove(name);
    }
    command
}
