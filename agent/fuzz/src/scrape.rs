//! The pages of scraped targets, in pieces.

use mote::model::{Labels, Samples};
use mote::scrape::{Counts, Limits, Page, ScrapeError, Target};

const TYPES: [&str; 4] = ["", "text/plain", "application/openmetrics-text", "text/html"];

type Read = (Result<Counts, (ScrapeError, Counts)>, Vec<(String, u64)>);

fn read(target: &Target, kind: &str, text: &[u8], size: usize) -> Read {
    let mut samples = Samples::with_limit(1_000);
    let mut page = Page::new(target, 1_000, &mut samples);
    for piece in text.chunks(size.max(1)) {
        if !page.feed(kind, piece) {
            break;
        }
    }
    let result = page.finish();
    let all = samples
        .iter()
        .map(|sample| (String::from_utf8_lossy(sample.key).into_owned(), sample.value.to_bits()));
    (result, all.collect())
}

/// A page: its first byte says how it is read. However it is cut into pieces, it is read alike; what is
/// taken stays within its limits and has the target's labels.
pub fn scrape(data: &[u8]) {
    let Some((first, text)) = data.split_first() else { return };
    let labels = Labels::from_pairs([("job", "j"), ("instance", "i")]).unwrap();
    let honor_labels = first & 4 != 0;
    let limits = Limits { samples: 50, body: 0, labels: 8, name: 40, value: 60 };
    let target = Target { labels, honor_labels, limits, ..Target::default() };
    let kind = TYPES[usize::from(first & 3)];
    let (result, samples) = read(&target, kind, text, text.len());
    assert_eq!(
        read(&target, kind, text, 1 + usize::from(first >> 3)),
        (result.clone(), samples.clone())
    );
    assert!(samples.len() <= 50);
    match result {
        Ok(counts) => {
            assert_eq!((counts.kept, counts.scraped), (samples.len() as u64, samples.len() as u64));
            if !honor_labels {
                assert!(samples.iter().all(|(key, _)| key.contains("job\u{fffd}j\u{fffd}")));
            }
        }
        Err((error, _)) => assert!(error.to_string().len() < 2_000, "{error}"),
    }
    // No page can say that a series is gone.
    assert!(samples.iter().all(|(_, bits)| *bits != 0x7ff0_0000_0000_0002));
}
