//! x
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]
mod support;
use support::Journald;

#[test]
fn harness() {
    let j = Journald::volatile("");
    j.say(0..10);
    j.syslog("<11>Nov 21 22:00:00 sys[1]: hi");
    j.await_messages("test", 10);
    j.flush();
    j.say(10..20);
    j.await_messages("test", 20);
    j.rotate();
    j.say(20..30);
    j.await_messages("test", 30);
    j.rotate();
    println!(
        "{:?}",
        std::fs::read_dir(j.directory())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect::<Vec<_>>()
    );
    j.vacuum(1);
    println!("{:?}", j.messages("test"));
    println!("{:?}", j.entries(&[]).last());
}
