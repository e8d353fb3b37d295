//! The answer of a running agent, as `mote status` reads it.

use mote::encode::write_text;
use mote::model::Samples;
use mote::status::{parse, render};

/// An HTTP answer.
pub fn status(data: &[u8]) {
    match parse(data) {
        Ok(report) => {
            assert!(render(&report).starts_with("mote "));
            let mut samples = Samples::with_limit(10_000);
            report.write_samples(&mut samples);
            let mut text = Vec::new();
            write_text(&samples, &mut text).expect("writing to memory");
            assert!(std::str::from_utf8(&text).is_ok());
        }
        Err(error) => {
            assert!(error.chars().count() <= 200 && !error.contains(char::is_control), "{error:?}");
        }
    }
}
