//! Records rounds of this machine's default collectors for the other programs: `record FILE ROUNDS
//! SECONDS` collects so many rounds, so many seconds apart, and writes them as [`benches::recording`]
//! reads them. Each round is in the file when it has been collected.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use benches::rounds::Recorder;
use benches::{Result, recording};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, rounds, seconds] = arguments.as_slice() else {
        return Err("record FILE ROUNDS SECONDS".into());
    };
    let (rounds, seconds): (u32, f64) = (rounds.parse()?, seconds.parse()?);
    let apart = Duration::try_from_secs_f64(seconds)?;
    let mut recorder = Recorder::new(None);
    let mut file = File::create(path)?;
    let mut bytes = Vec::new();
    let start = Instant::now();
    for index in 0..rounds {
        recorder.collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        bytes.clear();
        recording::put(i64::try_from(now.as_millis())?, &recorder.samples, &mut bytes)?;
        file.write_all(&bytes)?;
        if index + 1 < rounds {
            let next = start + apart * (index + 1);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
    Ok(())
}
