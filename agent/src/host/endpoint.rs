//! Where a container runtime answers: a socket in the host's file system, or host and port, as `DOCKER_HOST`
//! names them. It must not know what is asked.

use std::path::{Path, PathBuf};

/// Where a runtime answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket in the file system of the host.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String),
}

impl Endpoint {
    /// An endpoint as `DOCKER_HOST` has it: `unix:///var/run/docker.sock`, `tcp://127.0.0.1:2375`.
    pub fn parse(text: &str) -> Option<Endpoint> {
        if let Some(path) = text.strip_prefix("unix://") {
            let path = Path::new(path);
            return path.is_absolute().then(|| Endpoint::Unix(path.to_owned()));
        }
        let authority = text.strip_prefix("tcp://")?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = authority.rsplit_once(':')?;
        let fine = !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
            && port.parse::<u16>().is_ok_and(|port| port > 0);
        fine.then(|| Endpoint::Tcp(authority.to_owned()))
    }

    /// Where it may be on a host with this root, the likeliest first. /var/run is a link to /run, which from
    /// the host's root leads to the container's own; who runs the agent in one may also mount the socket
    /// where it always is.
    pub fn candidates(&self, root: &Path) -> Vec<Endpoint> {
        let Endpoint::Unix(path) = self else { return vec![self.clone()] };
        let below = path.strip_prefix("/").unwrap_or(path);
        let mut paths = vec![root.join(below)];
        if let Ok(rest) = below.strip_prefix("var/run") {
            paths.insert(0, root.join("run").join(rest));
        }
        if root != Path::new("/") {
            paths.push(path.to_owned());
        }
        paths.into_iter().map(Endpoint::Unix).collect()
    }
}

/// As [`Endpoint::parse`] takes it.
impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix://{}", path.display()),
            Endpoint::Tcp(authority) => write!(f, "tcp://{authority}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_as_docker_host_has_them() {
        let unix = |path: &str| Some(Endpoint::Unix(path.into()));
        let tcp = |authority: &str| Some(Endpoint::Tcp(authority.into()));
        assert_eq!(Endpoint::parse("unix:///var/run/docker.sock"), unix("/var/run/docker.sock"));
        assert_eq!(Endpoint::parse("tcp://127.0.0.1:2375"), tcp("127.0.0.1:2375"));
        assert_eq!(Endpoint::parse("tcp://docker-proxy:2375/"), tcp("docker-proxy:2375"));
        assert_eq!(Endpoint::parse("tcp://[::1]:2375"), tcp("[::1]:2375"));
        for bad in [
            "",
            "/var/run/docker.sock",
            "unix://docker.sock",
            "tcp://host",
            "tcp://:1",
            "tcp://host:0",
            "tcp://host:99999",
            "tcp://a@b:1",
            "tcp://host:1/x",
            "http://host:1",
            "ssh://host",
        ] {
            assert_eq!(Endpoint::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_socket_is_looked_for_below_the_host_s_root() {
        let docker = Endpoint::parse("unix:///var/run/docker.sock").unwrap();
        let at = |root: &str| {
            let all = docker.candidates(Path::new(root));
            all.iter().map(Endpoint::to_string).collect::<Vec<_>>()
        };
        assert_eq!(at("/"), ["unix:///run/docker.sock", "unix:///var/run/docker.sock"]);
        let mounted = ["unix:///host/run/docker.sock", "unix:///host/var/run/docker.sock"];
        assert_eq!(at("/host"), [&mounted[..], &["unix:///var/run/docker.sock"]].concat());
        let tcp = Endpoint::parse("tcp://proxy:2375").unwrap();
        assert_eq!(tcp.candidates(Path::new("/host")), [tcp]);
    }
}
