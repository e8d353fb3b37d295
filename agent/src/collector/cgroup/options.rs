//! What the user may set of containers and services. Patterns are compiled already.

use std::time::Duration;

use crate::collector::Pattern;
use crate::host::Endpoint;

/// Which containers are reported, and who is asked for their names.
#[derive(Clone, Debug)]
pub struct ContainersOptions {
    /// The most of them; those that are known longest stay.
    pub max: usize,
    /// Names that are left out.
    pub name_exclude: Option<Pattern>,
    /// If set, only names that match are reported.
    pub name_include: Option<Pattern>,
    /// Docker's API, where its files can't be read; none: it is not asked.
    pub docker_host: Option<Endpoint>,
    /// How long a round with new containers waits for their names.
    pub patience: Duration,
}

/// Which systemd services are reported.
#[derive(Clone, Debug)]
pub struct ServicesOptions {
    /// The most of them; those that are known longest stay.
    pub max: usize,
    /// Names that are left out.
    pub name_exclude: Option<Pattern>,
    /// If set, only names that match are reported.
    pub name_include: Option<Pattern>,
}

impl Default for ContainersOptions {
    fn default() -> ContainersOptions {
        ContainersOptions {
            max: 100,
            name_exclude: None,
            name_include: None,
            docker_host: Endpoint::parse(ContainersOptions::DOCKER_HOST),
            patience: Duration::from_millis(100),
        }
    }
}

impl ContainersOptions {
    /// The default of `docker_host`.
    pub const DOCKER_HOST: &str = "unix:///var/run/docker.sock";
}

impl Default for ServicesOptions {
    fn default() -> ServicesOptions {
        ServicesOptions { max: 200, name_exclude: None, name_include: None }
    }
}
