//! An attack by containers: 10,000 that appear, say something and go, and others that stay, at a strict fake of
//! Docker's API; and as many control groups.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::{Attack, Field, Going, numbers, once_and_in_order, quoted};
use crate::support::Dockerd;
use crate::support::dockerd::{Container, Message};

/// How many are there at the start, more than are followed; and how many come and go.
const STAY: usize = 2_500;
const COME: usize = 7_500;
/// Lines of the one whose log has to arrive.
const STEADY: u32 = 2_000;

pub(crate) struct Containers {
    daemon: Arc<Dockerd>,
    sys: tempfile::TempDir,
    steady: String,
    going: Vec<Going<usize>>,
}

impl Containers {
    pub(crate) fn new() -> Containers {
        let daemon = Dockerd::new();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
        daemon.change(|state| state.now_ns = now - 3_600_000_000_000);
        let steady = daemon.run("steady");
        daemon.lines(&steady, 1, 0..STEADY / 2);
        for number in 0..STAY {
            // Most of them have ended and are still there, as on a machine that nobody tidies.
            let running = number % 20 == 0;
            let id = daemon.run_as(&format!("stays-{number}"), |c| c.running = running);
            daemon.write(&id, 1, "hello\n");
        }
        let sys = tempfile::tempdir().unwrap();
        let tree = sys.path().join("fs/cgroup");
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join("cgroup.controllers"), "cpu memory\n").unwrap();
        groups(&tree, 0, STAY);
        Containers { daemon: Arc::new(daemon), sys, steady, going: Vec::new() }
    }
}

/// So many groups of containers in a tree of version 2.
fn groups(tree: &Path, life: usize, count: usize) {
    for number in 0..count {
        let folder = tree.join(format!("system.slice/docker-{life:032x}{number:032x}.scope"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("cpu.stat"), "usage_usec 1000000\n").unwrap();
    }
}

/// Fifty at a time, so that all who wait for the fake are woken seldom.
fn come_and_go(daemon: &Dockerd, stop: &AtomicBool) -> usize {
    let mut come = 0;
    while come < COME && !stop.load(Ordering::SeqCst) {
        let ids: Vec<String> = (come..come + 50).map(|number| format!("{number:064x}")).collect();
        daemon.change(|state| {
            for id in &ids {
                state.now_ns += 1_000;
                let message = Message { output: 1, time_ns: state.now_ns, text: b"I was here\n".to_vec() };
                state.containers.push(Container {
                    id: id.clone(),
                    name: format!("comes-{}", &id[56..]),
                    image: "busybox:1".to_owned(),
                    labels: json!({ "a.label": "of no use", "com.docker.compose.project": "crowd" }),
                    tty: false,
                    driver: "json-file".to_owned(),
                    log_path: String::new(),
                    running: true,
                    status: "Up 1 second".to_owned(),
                    removed: false,
                    log: vec![message],
                });
                state.event("start", id);
            }
        });
        come += ids.len();
        std::thread::sleep(Duration::from_millis(10));
        daemon.change(|state| {
            for id in &ids {
                let container = state.container(id);
                (container.running, container.removed) = (false, true);
                state.event("die", id);
                state.event("destroy", id);
            }
        });
    }
    come
}

impl Attack for Containers {
    fn name(&self) -> &'static str {
        "10,000 containers"
    }

    fn host(&self) -> String {
        format!("sys = {}\n", quoted(self.sys.path()))
    }

    fn tables(&self) -> String {
        format!(
            "[logs.docker]\nhost = {:?}\nread = \"api\"\nlabels = {{ job = \"docker\" }}\n",
            self.daemon.host()
        )
    }

    fn begin(&mut self, _: &mut Field) {
        let daemon = Arc::clone(&self.daemon);
        self.going.push(Going::start(move |stop| come_and_go(&daemon, stop)));
        let tree = self.sys.path().join("fs/cgroup");
        self.going.push(Going::start(move |stop| {
            let mut life = 0;
            while !stop.load(Ordering::SeqCst) && life * 1_000 < COME {
                life += 1;
                groups(&tree, life, 1_000);
                for number in 0..1_000 {
                    let name = format!("system.slice/docker-{life:032x}{number:032x}.scope");
                    fs::remove_dir_all(tree.join(name)).unwrap();
                }
            }
            life * 1_000
        }));
    }

    fn end(&mut self, _: &mut Field) {
        let come: Vec<usize> = self.going.drain(..).map(Going::end).collect();
        println!("{} containers and {} groups came and went", come[0], come[1]);
        self.daemon.lines(&self.steady, 1, STEADY / 2..STEADY);
    }

    fn has_arrived(&self, field: &Field) -> bool {
        field.loki.lines(&[("container", "steady")]).len() >= STEADY as usize
    }

    fn check(&self, field: &Field) {
        self.daemon.assert_clean();
        let got = numbers(&field.loki.lines(&[("container", "steady")]));
        once_and_in_order("steady", &got, STEADY.into());
        let others = field.loki.lines(&[("job", "docker")]).len() - got.len();
        println!("{others} lines of others");
        assert!(others > 0, "{others}");
    }
}
