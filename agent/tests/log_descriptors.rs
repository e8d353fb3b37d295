//! Log files where the process may have few descriptors. Alone in its file, because the limit is the
//! process' own.

use std::collections::BTreeMap;
use std::fs::File;
use std::rc::Rc;

use mote::host::ManualClock;
use mote::logs::Progress;
use mote::logs::file::{FileSource, Options};
use mote::model::Block;
use rustix::process::{Resource, getrlimit, setrlimit};

#[tokio::test]
async fn as_many_log_files_as_descriptors_leave_some_for_the_rest_of_the_agent() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(256);
    setrlimit(Resource::Nofile, limit).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for number in 0..300 {
        std::fs::write(folder.path().join(format!("{number}.log")), "a line\n").unwrap();
    }
    let options = Options {
        paths: vec![format!("{}/*.log", folder.path().display())],
        max_line: 1024,
        ..Options::default()
    };
    let clock = Rc::new(ManualClock::at(1));
    let mut source = FileSource::new(&[options], &BTreeMap::new(), clock).unwrap();
    let mut block = Block::default();
    while source.read(&mut block, 1 << 20) == Progress::More {}
    // Half of them is what is left of so few.
    assert_eq!((source.followed(), source.skipped()), (128, 172));
    assert_eq!(source.counters().errors, 0);
    let others: Vec<File> = (0..64).map(|_| File::open("/dev/null").unwrap()).collect();
    assert_eq!(others.len(), 64);
}
