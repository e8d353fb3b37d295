//! A memory cgroup with a limit, in which the kernel kills. Needs root.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A memory cgroup of its own with a limit, of whichever version this host has.
pub struct Group {
    pub path: PathBuf,
    is_v2: bool,
}

impl Group {
    pub fn new(name: &str, bytes: u64) -> Group {
        let is_v2 = !fs::exists("/sys/fs/cgroup/memory").unwrap();
        let root = if is_v2 { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/memory" };
        if is_v2 {
            // Already there where systemd has set it.
            let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
        }
        let path = PathBuf::from(root).join(format!("mote-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap_or_else(|error| {
            panic!("{}: {error}; this test makes a memory cgroup: run it as root", path.display())
        });
        let group = Group { path, is_v2 };
        fs::write(group.limit(), bytes.to_string()).unwrap_or_else(|error| {
            panic!("{}: {error}; is there a memory controller?", group.limit().display())
        });
        group
    }

    fn limit(&self) -> PathBuf {
        self.path.join(if self.is_v2 { "memory.max" } else { "memory.limit_in_bytes" })
    }

    pub fn name(&self) -> String {
        self.path.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// How many processes the kernel has killed in it, as the cgroup says.
    pub fn kills(&self) -> u64 {
        let file = if self.is_v2 { "memory.events" } else { "memory.oom_control" };
        self.key(file, "oom_kill")
    }

    /// Bytes of its processes' own memory, without the page cache.
    pub fn anonymous(&self) -> u64 {
        self.key("memory.stat", if self.is_v2 { "anon" } else { "rss" })
    }

    /// The most bytes that were ever charged to it, page cache included; none before kernel 5.19 with v2.
    pub fn peak(&self) -> Option<u64> {
        let file = if self.is_v2 { "memory.peak" } else { "memory.max_usage_in_bytes" };
        fs::read_to_string(self.path.join(file)).ok()?.trim().parse().ok()
    }

    fn key(&self, file: &str, key: &str) -> u64 {
        let text = fs::read_to_string(self.path.join(file)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {key} in {file}:\n{text}")).trim().parse().unwrap()
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
        let _ = fs::write(self.limit(), if self.is_v2 { "max" } else { "-1" });
        // Its processes have been waited for; the kernel lets go of the last one a moment later.
        let deadline = Instant::now() + Duration::from_secs(2);
        while fs::remove_dir(&self.path).is_err() && self.path.exists() && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
