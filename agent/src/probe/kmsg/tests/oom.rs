//! OOM kills: several lines and one victim.

use super::*;

#[track_caller]
fn victims(texts: &[&str]) -> Vec<OomKill> {
    let of = |finding: Finding| match finding.notice {
        Notice::OomKill(oom) => oom,
        other => panic!("{other:?}"),
    };
    all(texts).into_iter().map(of).collect()
}

/// As Linux 6.18 wrote them on a machine of the tests.
const MODERN: [&str; 5] = [
    "python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
    "[  14475]     0 14475    55342     9713     8128     1585         0   135168        0             0 python3",
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0-1,3,oom_memcg=/a,task_memcg=/a/cron.service,task=python3,pid=14475,uid=7",
    "Memory cgroup out of memory: Killed process 14475 (python3) total-vm:221368kB, anon-rss:32512kB, file-rss:6340kB, shmem-rss:4kB, UID:7 pgtables:132kB oom_score_adj:-17",
    "oom_reaper: reaped process 14475 (python3), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",
];

#[test]
fn the_lines_of_a_kill_in_a_cgroup_are_one_victim_with_all_facts() {
    let victims = victims(&MODERN);
    let expected = OomKill {
        pid: 14_475,
        comm: "python3".into(),
        uid: Some(7),
        memory_kb: [Some(221_368), Some(32_512), Some(6_340), Some(4), Some(132)],
        oom_score_adj: Some(-17),
        cgroup: Some("/a/cron.service".into()),
        unit: "cron.service".into(),
        limited: Some("/a".into()),
        in_cgroup: true,
    };
    assert_eq!(victims, [expected]);
    let event = all(&MODERN)[0].event(9).unwrap();
    assert_eq!(
        event.line(),
        "msg=\"the cgroup /a is out of memory: python3 (PID 14475, 37 MiB resident) of cron.service was \
         killed\" unit=cron.service pid=14475 comm=python3 scope=cgroup uid=7 \
         cgroup=/a/cron.service limited_cgroup=/a total_vm_kb=221368 anon_rss_kb=32512 \
         file_rss_kb=6340 shmem_rss_kb=4 pgtables_kb=132 oom_score_adj=-17"
    );
}

#[test]
fn a_host_without_memory_is_no_cgroup_without_memory() {
    let victims = victims(&[
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/user.slice/user-1000.slice/session-2.scope,task=node,pid=5678,uid=1000",
        "Out of memory: Killed process 5678 (node) total-vm:8kB, anon-rss:4kB, file-rss:0kB, shmem-rss:0kB, UID:1000 pgtables:44kB oom_score_adj:0",
    ]);
    assert_eq!((victims[0].in_cgroup, victims[0].limited.as_deref()), (false, None));
    assert_eq!(victims[0].unit, "user-1000.slice");
    let without_cgroups = self::victims(&[
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,task=node,pid=5,uid=1",
        "Out of memory: Killed process 5 (node) total-vm:8kB, anon-rss:4kB, file-rss:0kB",
    ]);
    assert_eq!((&without_cgroups[0].cgroup, without_cgroups[0].uid), (&None, Some(1)));
    assert_eq!(without_cgroups[0].unit, "unknown");
}

#[test]
fn kernels_before_5_0_say_it_in_other_words() {
    let victims = victims(&[
        "Task in /system.slice/x.service killed as a result of limit of /system.slice",
        "memory: usage 32768kB, limit 32768kB, failcnt 30",
        "Memory cgroup out of memory: Kill process 14294 (idle-priority) score 876 or sacrifice child",
        "Killed process 14458 (normal) total-vm:4176kB, anon-rss:88kB, file-rss:0kB, shmem-rss:0kB",
        // The next one, of the host's memory, without the lines that are left out after ten.
        "Out of memory: Kill process 1 (a b) score 9 or sacrifice child",
        "Killed process 1 (a b) total-vm:1kB, anon-rss:2kB, file-rss:3kB",
        // RHEL 7.
        "Killed process 2 (c), UID 48, total-vm:1kB, anon-rss:2kB, file-rss:3kB, shmem-rss:0kB",
    ]);
    assert_eq!(victims.len(), 3);
    assert_eq!((victims[0].pid, victims[0].comm.as_str()), (14_458, "normal"));
    assert_eq!(victims[0].cgroup.as_deref(), Some("/system.slice/x.service"));
    assert_eq!(victims[0].limited.as_deref(), Some("/system.slice"));
    assert!(victims[0].in_cgroup && !victims[1].in_cgroup);
    assert_eq!((victims[1].comm.as_str(), &victims[1].cgroup), ("a b", &None));
    assert_eq!(victims[1].memory_kb, [Some(1), Some(2), Some(3), None, None]);
    assert_eq!((victims[2].comm.as_str(), victims[2].uid), ("c", Some(48)));
}

#[test]
fn a_kill_whose_header_was_left_out_does_not_inherit_another_ones_cgroup() {
    let mut texts = MODERN.to_vec();
    texts.push("Memory cgroup out of memory: Killed process 20 (b) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:4kB oom_score_adj:0");
    let victims = victims(&texts);
    assert_eq!((victims[1].pid, &victims[1].cgroup, victims[1].in_cgroup), (20, &None, true));
}

#[test]
fn a_cgroup_that_is_killed_as_a_whole_names_each_process_once() {
    let kill = |pid| {
        format!(
            "Memory cgroup out of memory: Killed process {pid} (w) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:4kB oom_score_adj:0"
        )
    };
    let (one, two, three) = (kill(1), kill(2), kill(3));
    let victims = victims(&[
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/w.service,task_memcg=/w.service/a,task=w,pid=2,uid=0",
        &two,
        "Tasks in /w.service are going to be killed due to memory.oom.group set",
        &one,
        &two,
        &three,
    ]);
    let told: Vec<_> = victims.iter().map(|v| (v.pid, v.cgroup.as_deref().unwrap())).collect();
    assert_eq!(told, [(2, "/w.service/a"), (1, "/w.service"), (3, "/w.service")]);
    assert!(victims.iter().all(|v| v.limited.as_deref() == Some("/w.service")));
}

#[test]
fn names_of_processes_and_cgroups_can_not_forge_facts() {
    for comm in [
        "a) total-vm:9kB",
        "(x)",
        ",pid=1,uid=0",
        ",task=a,pid=1,u",
        "a b, c",
        ")",
        "",
        "x), UID 0",
    ] {
        let summary = format!(
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/l,task_memcg=/l/,task=z,pid=3,task={comm},pid=77,uid=5"
        );
        let killed = format!(
            "Memory cgroup out of memory: Killed process 77 ({comm}) total-vm:1kB, anon-rss:2kB, file-rss:3kB, shmem-rss:4kB, UID:5 pgtables:6kB oom_score_adj:7"
        );
        let victims = victims(&[&summary, &killed]);
        assert_eq!((victims[0].pid, victims[0].comm.as_str()), (77, comm));
        assert_eq!(victims[0].memory_kb, [Some(1), Some(2), Some(3), Some(4), Some(6)]);
        assert_eq!(victims[0].cgroup.as_deref(), Some("/l/,task=z,pid=3"), "{comm}");
        assert_eq!((victims[0].uid, victims[0].oom_score_adj), (Some(5), Some(7)));
    }
    // A crash of a program with such a name.
    assert_eq!(one("Killed process [123]: segfault at 0 ip 00007f sp 00007f error 4"), None);
    assert_eq!(one("Out of memory[5]: segfault at 0"), None);
}

#[test]
fn pieces_of_a_header_are_put_together_and_a_cut_one_loses_only_the_cgroup() {
    let mut recognizer = Recognizer::new();
    let [_, _, summary, killed, _] = MODERN;
    let (first, second) = summary.split_at(60);
    assert_eq!(recognizer.look(&record(1, first)), None);
    assert_eq!(recognizer.look(&record(2, "wlan0: associated")), None);
    assert_eq!(recognizer.look(&Record { fragment: true, ..record(3, second) }), None);
    // What another CPU says later in pieces is none of it.
    assert_eq!(recognizer.look(&Record { fragment: true, ..record(4, "more") }), None);
    let Some(Notice::OomKill(victim)) = recognizer.look(&record(5, killed)).map(|f| f.notice)
    else {
        panic!("no victim");
    };
    assert_eq!(victim.cgroup.as_deref(), Some("/a/cron.service"));
    let victims = victims(&[first, killed]);
    assert_eq!((victims[0].pid, &victims[0].cgroup), (14_475, &None));
}

#[test]
fn fragments_without_end_do_not_grow_the_memory() {
    let mut recognizer = Recognizer::new();
    recognizer.look(&record(1, "oom-kill:constraint=CONSTRAINT_MEMCG"));
    let long = "x".repeat(1000);
    for usec in 2..10_000 {
        recognizer.look(&Record { fragment: true, ..record(usec, &long) });
    }
    assert!(format!("{recognizer:?}").len() < 8 << 10);
}

#[test]
fn malformed_victims_are_none_and_missing_figures_are_missing() {
    for bad in [
        "Killed process",
        "Killed process ",
        "Killed process x (a) total-vm:1kB",
        "Killed process 4294967296 (a) total-vm:1kB",
        "Killed process 9",
        "Killed process 9 (",
        "Killed process 9 (a",
        "Out of memory: Killed process",
        "Out of memory: Kill process 9 (a)",
        "Killed process -1 (a) total-vm:1kB",
    ] {
        assert_eq!(one(bad), None, "{bad:?}");
    }
    let victims = victims(&[
        "Killed process 9 (a) total-vm:xkB, anon-rss:99999999999999999999999kB, oom_score_adj:99999",
    ]);
    assert_eq!((victims[0].memory_kb, victims[0].oom_score_adj), ([None; 5], None));
}

#[test]
fn the_cgroup_of_a_victim_is_known_before_it_is_named_with_or_without_its_name() {
    let mut recognizer = Recognizer::new();
    let line = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,\
                oom_memcg=/a,task_memcg=/a/b,task=x,pid=9,uid=0";
    assert_eq!(recognizer.look(&record(1_000_000, line)), None);
    for comm in ["x", ""] {
        assert_eq!(recognizer.cgroup_of(9, comm).as_deref(), Some("/a/b"), "{comm:?}");
    }
    assert_eq!(recognizer.cgroup_of(9, "y"), None);
    assert_eq!(recognizer.cgroup_of(8, ""), None);
    // Another kill has been told of since.
    let next = line.replace("pid=9", "pid=10");
    recognizer.look(&record(1_000_100, &next));
    assert_eq!(recognizer.cgroup_of(9, "").as_deref(), Some("/a/b"));
}
