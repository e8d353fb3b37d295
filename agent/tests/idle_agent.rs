//! What the agent costs when nothing happens, and when what happens is what happened before: an idle one is
//! not woken, whatever is configured; a round, a request and a block take memory a stated number of times.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use support::{Agent, Dockerd, Port, StrictLoki, StrictMimir};

/// Voluntary context switches of all its threads: how often they have waited for something.
fn waits(agent: &Agent) -> u64 {
    let tasks = format!("/proc/{}/task", agent.pid().as_raw_nonzero());
    let of = |task: fs::DirEntry| -> u64 {
        let text = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.map_or(0, |count| count.trim().parse().unwrap())
    };
    fs::read_dir(tasks).unwrap().map(|task| of(task.unwrap())).sum()
}

/// Of UDP: a socket that holds it would have its messages.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Everything that can be configured and does not hear what other programs of this machine do: the probes
/// and the kernel's log do.
fn everything(
    agent: &Agent,
    mimir: &StrictMimir,
    loki: &StrictLoki,
    docker: &Dockerd,
    tcp: &Port,
) -> String {
    let dir = agent.dir_of(&["logs", "journal"]);
    fs::write(agent.path("logs/a.log"), "a line\n").unwrap();
    format!(
        "[probes]\ndefault = \"off\"\n\
         [[mimir]]\nurl = {:?}\n[[loki]]\nurl = {:?}\nbatch_wait = \"100ms\"\n\
         [[logs.file]]\npaths = [\"{dir}/logs/*.log\"]\n\
         [logs.journal]\ndirectories = [\"{dir}/journal\"]\n\
         [logs.docker]\nhost = [{:?}, \"unix://{dir}/nobody.sock\"]\nread = \"api\"\n\
         [[logs.syslog]]\nlisten = \"udp://127.0.0.1:{}\"\n\
         [[logs.syslog]]\nlisten = \"tcp://127.0.0.1:{}\"\n",
        mimir.url(),
        loki.url(),
        docker.host(),
        free_port(),
        tcp.number(),
    )
}

#[test]
fn an_idle_agent_with_everything_configured_sleeps() {
    let (mimir, loki, docker) = (StrictMimir::new(), StrictLoki::new(), Dockerd::new());
    docker.run("quiet");
    let mut agent = Agent::new("");
    let held = Port::new();
    let config = everything(&agent, &mimir, &loki, &docker, &held);
    agent.configure(&format!("interval = \"1h\"\n{config}"));
    agent.start();
    agent.wait("the first round and the line", Duration::from_secs(20), |_| {
        !mimir.find("up", &[]).is_empty() && loki.lines(&[]).len() == 1
    });
    // Until what the start has begun is over: daemons that are absent are asked again, less and less often.
    std::thread::sleep(Duration::from_secs(5));
    let woken = || {
        let before = waits(&agent);
        std::thread::sleep(Duration::from_secs(13));
        let woken = waits(&agent) - before;
        println!("{woken} times woken in 13 s");
        woken
    };
    // The absent daemon's one. What a busy machine had not done by then is over in the next 13 s.
    let idle = (0..3).any(|_| woken() <= 2);
    assert!(idle, "woken more than twice in 13 s by nothing; its log:\n{}", agent.log());
    assert!(agent.terminate().0.success());
}

#[test]
fn a_round_wakes_the_agent_a_few_times_and_not_between() {
    let (mimir, loki, docker) = (StrictMimir::new(), StrictLoki::new(), Dockerd::new());
    let mut agent = Agent::new("");
    let held = Port::new();
    let config = everything(&agent, &mimir, &loki, &docker, &held);
    let config = config.replace("[[loki]]", "send_interval = \"1s\"\n[[loki]]");
    agent.configure(&format!("interval = \"2s\"\n{config}"));
    agent.start();
    std::thread::sleep(Duration::from_secs(6));
    let (before, rounds) = (waits(&agent), agent.rounds().len());
    std::thread::sleep(Duration::from_secs(8));
    let (woken, rounds) = (waits(&agent) - before, agent.rounds().len() - rounds);
    println!("{woken} times woken in {rounds} rounds");
    assert!(woken as usize <= 20 * (rounds + 1), "woken {woken} times in {rounds} rounds");
}

/// How often the agent has taken memory.
fn allocations(agent: &Agent) -> u64 {
    let (_, metrics) = agent.get("/metrics").unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("mote_memory_allocations_total "));
    line.unwrap().parse().unwrap()
}

/// How often it takes memory in so many seconds, in the one of several that is in their middle, less what asking for
/// it takes. A running machine's lists grow, and so do buffers, now and then.
fn within(seconds: u64, agent: &Agent, mut each: impl FnMut()) -> u64 {
    let ask = (0..8).map(|_| {
        let before = allocations(agent);
        allocations(agent) - before
    });
    let ask = ask.min().unwrap();
    let mut counts: Vec<u64> = (0..5)
        .map(|_| {
            let (before, end) = (allocations(agent), Instant::now() + Duration::from_secs(seconds));
            each();
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
            (allocations(agent) - before).saturating_sub(ask)
        })
        .collect();
    counts.sort_unstable();
    println!("{counts:?}");
    counts[counts.len() / 2]
}

#[test]
fn a_steady_round_request_and_block_take_memory_as_often_as_is_stated() {
    let (mimir, loki) = (StrictMimir::new(), StrictLoki::new());
    let base = "interval = \"1s\"\n[probes]\ndefault = \"off\"\n";
    let to_mimir = format!("[[mimir]]\nurl = {:?}\nsend_interval = \"1s\"\n", mimir.url());
    let to_loki = format!("[[loki]]\nurl = {:?}\nbatch_wait = \"10ms\"\n", loki.url());

    let mut rounds = Agent::new(base);
    let mut requests = Agent::new(&format!("{base}{to_mimir}"));
    let mut blocks = Agent::new(base);
    let dir = blocks.dir_of(&["logs"]);
    let files = format!("[[logs.file]]\npaths = [\"{dir}/logs/*.log\"]\n");
    blocks.configure(&format!("{base}{files}"));
    let mut pushes = Agent::new(base);
    let dir = pushes.dir_of(&["logs"]);
    let files = format!("[[logs.file]]\npaths = [\"{dir}/logs/*.log\"]\n");
    pushes.configure(&format!("{base}{files}{to_loki}"));
    let agents = [&mut rounds, &mut requests, &mut blocks, &mut pushes];
    agents.into_iter().for_each(Agent::start);
    std::thread::sleep(Duration::from_secs(5));

    let nothing = || {};
    let write = |agent: &Agent| {
        let path = agent.path("logs/a.log");
        move || {
            let mut file = fs::File::options().create(true).append(true).open(&path).unwrap();
            file.write_all("a line as those before\n".repeat(20).as_bytes()).unwrap();
        }
    };
    let counts = std::thread::scope(|scope| {
        let of = [
            scope.spawn(|| within(1, &rounds, nothing)),
            scope.spawn(|| within(1, &requests, nothing)),
            scope.spawn(|| within(7, &blocks, write(&blocks))),
            scope.spawn(|| within(3, &pushes, write(&pushes))),
        ];
        of.map(|count| count.join().unwrap())
    });
    let [round, request, block, push] = counts;
    // A round: what its sync takes on another thread.
    assert!(round <= 1, "a round: {round}");
    assert!(request <= round + 20, "a request: {}", request - round);
    // 20 lines of one file, read and written once in seven rounds; with a server that waits for nothing, in three.
    let block = block.saturating_sub(7 * round);
    let push = push.saturating_sub(3 * round + block);
    println!("a round {round}, a request {}, a block {block}, a push {push}", request - round);
    assert!(block <= 60, "a block: {block}");
    assert!(push <= 60, "a push: {push}");
}
