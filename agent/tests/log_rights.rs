//! Log files that the agent may not read for a while. Alone in its file, because rights are a thread's.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod log_bench;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use log_bench::*;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use tokio::time::advance;

/// Root reads everything unless it gives that up.
fn give_up_rights() {
    let mut sets = capabilities(None).unwrap();
    sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
    set_capabilities(None, sets).unwrap();
}

fn set_mode(bench: &Bench, name: &str, mode: u32) {
    fs::set_permissions(bench.path(name), Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_position_outlives_a_start_that_may_not_read_the_file() {
    give_up_rights();
    for (of, mode) in [("logs/app.log", 0o600), ("logs", 0o700)] {
        let mut bench = Bench::new(&["logs/app.log"]);
        fs::create_dir(bench.path("logs")).unwrap();
        bench.append("logs/app.log", "1\n");
        assert_eq!(bench.read(), ["logs/app.log: 1"]);
        bench.append("logs/app.log", "2\n");
        set_mode(&bench, of, 0);
        for _ in 0..2 {
            bench.restart();
            assert_eq!(bench.read(), NOTHING, "{of}");
            advance(std::time::Duration::from_secs(61)).await;
            assert_eq!(bench.read(), NOTHING, "{of}");
        }
        set_mode(&bench, of, mode);
        advance(std::time::Duration::from_secs(61)).await;
        assert_eq!(bench.read(), ["logs/app.log: 2"], "{of}");
        assert_eq!(bench.source.counters().lost_files, 0, "{of}");
    }
}
