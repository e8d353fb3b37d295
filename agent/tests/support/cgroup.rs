//! A memory cgroup with a limit, in which the kernel kills. Needs root.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A memory cgroup of its own with a limit, of whichever version this host has.
pub struct Group {
    pub path: PathBuf,
    limit: &'static str,
    kills: &'static str,
}

impl Group {
    pub fn new(name: &str, bytes: u64) -> Group {
        let (root, limit, kills) = match fs::exists("/sys/fs/cgroup/memory").unwrap() {
            true => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control"),
            false => ("/sys/fs/cgroup", "memory.max", "memory.events"),
        };
        if limit == "memory.max" {
            // Already there where systemd has set it.
            let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
        }
        let path = PathBuf::from(root).join(format!("mote-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::write(path.join(limit), bytes.to_string()).unwrap();
        Group { path, limit, kills }
    }

    pub fn name(&self) -> String {
        self.path.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// How many processes the kernel has killed in it, as the cgroup says.
    pub fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.path.join(self.kills)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap();
        line.trim().parse().unwrap()
    }

    /// A shell in the cgroup that asks for more and more memory.
    pub fn hog(&self) -> Child {
        let procs = self.path.join("cgroup.procs");
        let script = "echo $$ > \"$0\"; x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&procs).arg0("sh").stderr(Stdio::null());
        command.spawn().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join(self.limit), "-1");
        // Its processes have been waited for.
        let _ = fs::remove_dir(&self.path);
    }
}
