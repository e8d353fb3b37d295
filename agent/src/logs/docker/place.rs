//! Where a container's log lies, as far as that can be believed: the daemon's word for a path has the agent read
//! it, so the daemon must be root's own, and the path one that such a daemon has for this container. It opens
//! nothing.

use std::path::Path;

use super::disk::{CRI, JSON_FILE, LOCAL, local_path};
use super::options::{Options, Read};
use super::said::Container;
use crate::logs::file::Format;

/// The file and its format; none: there is none that may be read.
pub(super) fn place(
    options: &Options,
    root: &Path,
    container: &Container,
    roots: bool,
) -> Option<(String, &'static dyn Format)> {
    if options.read == Read::Api || !(roots || options.read == Read::Disk) {
        return None;
    }
    let id = &container.id;
    let path = container.log_path.as_str();
    // Podman calls its own format json-file where Docker's clients ask.
    let (path, format): (String, &'static dyn Format) = match container.driver.as_str() {
        _ if path.ends_with(&format!("/{id}/userdata/ctr.log")) => (path.to_owned(), CRI),
        "json-file" if path.ends_with(&format!("/containers/{id}/{id}-json.log")) => {
            (path.to_owned(), JSON_FILE)
        }
        "local" => {
            let end = format!("/containers/{id}/hostname");
            let data = container.hostname_path.strip_suffix(&end).unwrap_or("/var/lib/docker");
            (local_path(data, id), LOCAL)
        }
        _ => return None,
    };
    let plain = path.strip_prefix('/')?;
    let strange = |part: &str| part.is_empty() || part == "." || part == "..";
    if plain.split('/').any(strange) || plain.bytes().any(|byte| byte < b' ') {
        return None;
    }
    Some((root.join(plain).to_str()?.to_owned(), format))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "9026a5de05048f5afabddf90a4f1c83e41a3aa51869ff35df1ae90774027fc76";

    fn of(driver: &str, path: &str, roots: bool) -> Option<(String, &'static str)> {
        let container = Container {
            id: ID.to_owned(),
            driver: driver.to_owned(),
            log_path: path.replace("ID", ID),
            hostname_path: format!("/srv/docker/containers/{ID}/hostname"),
            ..Container::default()
        };
        let found = place(&Options::default(), Path::new("/host"), &container, roots);
        found.map(|(path, format)| (path.replace(ID, "ID"), format.name()))
    }

    #[test]
    fn logs_are_where_the_daemon_says() {
        let json = "/var/lib/docker/containers/ID/ID-json.log";
        assert_eq!(of("json-file", json, true), Some((format!("/host{json}"), "docker")));
        let podman = "/var/lib/containers/storage/overlay-containers/ID/userdata/ctr.log";
        assert_eq!(of("json-file", podman, true).unwrap().0, format!("/host{podman}"));
        let local = of("local", "", true).unwrap().0;
        assert_eq!(local, "/host/srv/docker/containers/ID/local-logs/container.log");
    }

    #[test]
    fn only_root_is_believed_and_only_what_is_likely() {
        let json = "/var/lib/docker/containers/ID/ID-json.log";
        assert_eq!(of("json-file", json, false), None);
        for path in [
            "",
            "/etc/shadow",
            "/home/a/../../x/containers/ID/ID-json.log",
            "containers/ID/ID-json.log",
            "//containers/ID/ID-json.log",
            "/a\n/containers/ID/ID-json.log",
        ] {
            assert_eq!(of("json-file", path, true), None, "{path:?}");
        }
        assert_eq!(of("syslog", json, true), None);
        assert_eq!(of("journald", "", true), None);
    }
}
