//! What a group is, by its name and that of the group above it: the names that Docker, Podman,
//! containerd, CRI-O, Kubernetes, LXC, LXD, Incus and systemd-nspawn give to the groups of their
//! containers. It must not read anything.

/// What a group is to somebody who looks for containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group<'a> {
    /// A container; its identity by the runtime, or its name where that is all there is.
    Container(Runtime, &'a str),
    /// Containers may be somewhere below.
    Above,
    /// A service that may have made a group for its container, as Podman's units do.
    Service,
    /// Not of interest, or no group but a file.
    Other,
}

/// Who runs a container, as far as its group tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runtime {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// Kubernetes, nerdctl, or Docker below a group of the user's choice.
    Other,
    /// LXC, LXD, Incus and systemd-nspawn, whose containers have names and no more.
    Named,
}

/// Says what the group `name` in the group `above` is. `above` is a path, with a slash before each name.
pub(super) fn group<'a>(above: &str, name: &'a str) -> Group<'a> {
    let parent = above.rsplit('/').next().unwrap_or_default();
    if let Some(scope) = name.strip_suffix(".scope") {
        return scope_of(parent, scope);
    }
    for prefix in ["libpod-payload-", "libpod-"] {
        if let Some(id) = name.strip_prefix(prefix).filter(|id| is_id(id)) {
            return Group::Container(Runtime::Podman, id);
        }
    }
    if let Some(name) = name.strip_prefix("lxc.payload.").filter(|name| !name.is_empty()) {
        return Group::Container(Runtime::Named, name);
    }
    if let Some(unit) = name.strip_suffix(".service") {
        return match unit.strip_prefix("systemd-nspawn@") {
            Some(machine) if !machine.is_empty() => Group::Container(Runtime::Named, machine),
            // The user's own manager has slices below it.
            _ if unit.starts_with("user@") => Group::Above,
            _ => Group::Service,
        };
    }
    if name.ends_with(".slice") || name == "lxc.payload" {
        return Group::Above;
    }
    // The files of a group are named after its controllers, but for these.
    if name.contains('.') || matches!(name, "tasks" | "notify_on_release" | "release_agent") {
        return Group::Other;
    }
    if is_id(name) {
        let runtime = if parent == "docker" { Runtime::Docker } else { Runtime::Other };
        return Group::Container(runtime, name);
    }
    match parent {
        "lxc" | "lxc.payload" => Group::Container(Runtime::Named, name),
        _ => Group::Above,
    }
}

fn scope_of<'a>(parent: &str, scope: &'a str) -> Group<'a> {
    const RUNTIMES: [(&str, Runtime); 5] = [
        ("docker-", Runtime::Docker),
        ("libpod-", Runtime::Podman),
        ("cri-containerd-", Runtime::Other),
        ("crio-", Runtime::Other),
        ("nerdctl-", Runtime::Other),
    ];
    for (prefix, runtime) in RUNTIMES {
        // Not `libpod-conmon-…` nor `crio-conmon-…`, the processes that watch a container.
        if let Some(id) = scope.strip_prefix(prefix).filter(|id| is_id(id)) {
            return Group::Container(runtime, id);
        }
    }
    match scope.strip_prefix("machine-") {
        Some(machine)
            if parent == "machine.slice"
                && !machine.is_empty()
                // A virtual machine of libvirt's.
                && !machine.starts_with("qemu") =>
        {
            Group::Container(Runtime::Named, machine)
        }
        _ => Group::Other,
    }
}

/// Whether this is the identity of a container: 64 hexadecimal digits.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The user in whose slice a group is.
pub(super) fn user(path: &str) -> Option<u32> {
    let slice = path.strip_prefix("/user.slice/user-")?;
    slice.split_once(".slice")?.0.parse().ok()
}

/// A name as systemd escapes it in the names of units (`\x2d` is a hyphen) in plain text.
pub(super) fn unescaped(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("\\x") {
        plain.push_str(before);
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (byte.filter(u8::is_ascii_graphic), after.get(2..)) {
            (Some(byte), Some(after)) => {
                plain.push(char::from(byte));
                rest = after;
            }
            _ => {
                plain.push_str("\\x");
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4e1a9c0b7d2e5f8a6b9c1d4e7f0a2b5c8d1e4f7a0b3c6d9e2f5a8b1c4d7e0f";

    #[test]
    fn every_runtimes_groups_are_recognised() {
        let cases = [
            ("/system.slice", "docker-ID.scope", Runtime::Docker),
            ("/docker", "ID", Runtime::Docker),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice",
                "docker-ID.scope",
                Runtime::Docker,
            ),
            ("/machine.slice", "libpod-ID.scope", Runtime::Podman),
            ("/libpod_parent", "libpod-ID", Runtime::Podman),
            ("/system.slice/web.service", "libpod-payload-ID", Runtime::Podman),
            ("/kubepods.slice/kubepods-pod1.slice", "cri-containerd-ID.scope", Runtime::Other),
            ("/kubepods.slice/kubepods-pod1.slice", "crio-ID.scope", Runtime::Other),
            ("/kubepods/burstable/pod0d5b", "ID", Runtime::Other),
            ("/system.slice", "nerdctl-ID.scope", Runtime::Other),
            ("/default", "ID", Runtime::Other),
        ];
        for (above, name, runtime) in cases {
            let name = name.replace("ID", ID);
            assert_eq!(group(above, &name), Group::Container(runtime, ID), "{above} {name}");
        }
        let named = [
            ("", "lxc.payload.web", "web"),
            ("/lxc", "101", "101"),
            ("/lxc.payload", "web", "web"),
            ("/machine.slice", "systemd-nspawn@web.service", "web"),
            ("/machine.slice", "machine-web\\x2d1.scope", "web\\x2d1"),
        ];
        for (above, name, id) in named {
            assert_eq!(group(above, name), Group::Container(Runtime::Named, id), "{name}");
        }
    }

    #[test]
    fn what_watches_a_container_and_what_looks_like_one_is_none() {
        for name in ["libpod-conmon-ID.scope", "crio-conmon-ID.scope", "docker-IDx.scope"] {
            assert_eq!(group("/system.slice", &name.replace("ID", ID)), Group::Other, "{name}");
        }
        for name in [
            "init.scope",
            "session-2.scope",
            "machine-qemu\\x2d1\\x2dvm.scope",
            "lxc.monitor.web",
            "cgroup.procs",
            "memory.max",
            "tasks",
            "notify_on_release",
            "release_agent",
            "docker-.scope",
        ] {
            assert_eq!(group("/machine.slice", name), Group::Other, "{name}");
        }
        assert_eq!(group("/system.slice", "machine-web.scope"), Group::Other);
        assert_eq!(group("/system.slice", "docker.service"), Group::Service);
        assert_eq!(group("/user.slice/user-1.slice", "user@1.service"), Group::Above);
        assert_eq!(group("", "kubepods"), Group::Above);
        assert_eq!(group("", "system.slice"), Group::Above);
    }

    #[test]
    fn users_and_escapes() {
        assert_eq!(user("/user.slice/user-1000.slice/user@1000.service/x"), Some(1000));
        assert_eq!(user("/system.slice/user-1000.slice"), None);
        assert_eq!(unescaped("web\\x2d1"), "web-1");
        assert_eq!(unescaped("a\\x2"), "a\\x2");
        assert_eq!(unescaped("a\\x0ab\\xzz\\x"), "a\\x0ab\\xzz\\x");
        assert_eq!(unescaped("é\\x2dé\\xé"), "é-é\\xé");
    }
}
