//! How many entries of a push Loki has not taken, by what its 400 says. Loki keeps the good entries of a
//! push that it refuses, so to count all of them as lost would be a lie. It must not know how they were
//! sent. Loki's own words, of 2.8 to 3.7:
//!
//! | says | of |
//! |---|---|
//! | `user 'x', total ignored: 3 out of 5 for stream: {…}` | entries more than an hour older than their stream's newest |
//! | `7 errors like: entry for stream '{…}' has timestamp too old: …, oldest acceptable timestamp is: …; 1 errors like: …` | entries that it does not look at further; a single one without its number |
//! | anything else, such as labels that it does not take | whole streams, whose entries it does not count |
//!
//! Of the last kind, and of what is too long to be read to its end, nothing is known. Loki repeats labels, whose
//! text may say anything: only its own words count.

use std::time::UNIX_EPOCH;

use crate::endpoint::{MAX_SAID, own_words};

/// Complaints about one entry each. Whether they begin with a capital changed with 3.0.
const OF_ENTRIES: [&str; 4] =
    ["has timestamp too old", "has timestamp too new", "ax entry size", "structured metadata"];

/// Whether a request was refused for its size as a whole: by a proxy, by Loki (413 since 3.5, 400 before), or
/// by gRPC between its parts, which makes it a 500.
pub(super) fn is_too_large(code: u16, said: &str) -> bool {
    let words = ["message larger than max", "request body too large"];
    let said = own_words(said);
    code == 413 || words.iter().any(|words| said.contains(words))
}

/// Phrases of which each of Loki's refusals has one, so long that nobody in between says them.
const LOKIS: [&str; 14] = [
    "for stream '",
    "for stream: ",
    "for stream {",
    "stream '{",
    "required per stream",
    "valid stream is required",
    "rror parsing labels",
    "entry with timestamp",
    "entry too far behind",
    "entry out of order",
    "has timestamp too ",
    "ax entry size",
    "total ignored: ",
    " errors like: ",
];

/// Whether it is Loki that refused, by its words, which keeps what is good of a push; else it was somebody in
/// between.
pub(super) fn is_lokis(code: u16, said: &str) -> bool {
    let is_page = said.trim_start().starts_with('<');
    let said = own_words(said);
    matches!(code, 400 | 422) && !is_page && LOKIS.iter().any(|words| said.contains(words))
}

/// Whether Loki takes no structured metadata, and refuses all entries that have some.
pub(super) fn is_of_all_metadata(said: &str) -> bool {
    let said = own_words(said);
    said.contains("structured metadata") && said.contains("disallowed")
}

/// Whether entries were refused that are too far ahead.
pub(super) fn is_too_new(said: &str) -> bool {
    own_words(said).contains("has timestamp too new")
}

/// The time before which Loki takes nothing of the stream that it speaks of, in nanoseconds since the Unix
/// epoch.
pub(super) fn floor_ns(said: &str) -> Option<i64> {
    time_after(&own_words(said), "entry too far behind")
}

/// What stands between the number and the text of complaints that are alike.
const LIKE: &str = " errors like: ";

/// How many entries of a request are lost; None if Loki does not say. `times` are those of the request's
/// entries, in nanoseconds since the Unix epoch.
pub(super) fn lost(said: &str, times: impl Iterator<Item = i64>) -> Option<u64> {
    let is_cut = said.len() >= MAX_SAID;
    let said = own_words(said);
    if let Some((_, rest)) = said.split_once("total ignored: ") {
        let (number, rest) = rest.split_once(' ')?;
        return rest.starts_with("out of ").then(|| number.parse().ok())?;
    }
    let counted = if is_cut { None } else { complaints(&said) };
    // Each time makes a complaint of its own, and there may be too many for an answer.
    let old = oldest(&said).map(|oldest| times.filter(|time| *time < oldest).count() as u64);
    match (counted, old) {
        (Some(counted), Some(old)) => Some(counted.max(old)),
        (Some(counted), None) => Some(counted),
        (None, old) => old.filter(|_| is_cut),
    }
}

/// The sum of the complaints, if each is about one entry.
fn complaints(said: &str) -> Option<u64> {
    let is_of_entry = |text: &str| OF_ENTRIES.iter().any(|kind| text.contains(kind));
    let Some((first, rest)) = said.split_once(LIKE) else {
        return is_of_entry(said).then_some(1);
    };
    let (mut number, mut sum) = (first, 0u64);
    for text in rest.split(LIKE) {
        let digits = number.len() - number.bytes().rev().take_while(u8::is_ascii_digit).count();
        sum = sum.saturating_add(number.get(digits..)?.parse().ok()?);
        if !is_of_entry(text) {
            return None;
        }
        number = text;
    }
    Some(sum)
}

/// The time before which Loki takes nothing, in nanoseconds since the Unix epoch.
fn oldest(said: &str) -> Option<i64> {
    time_after(said, "has timestamp too old")
}

fn time_after(said: &str, words: &str) -> Option<i64> {
    let (_, rest) = said.split_once(words)?;
    let (_, rest) = rest.split_once("oldest acceptable timestamp is: ")?;
    let time = humantime::parse_rfc3339(rest.get(..20)?).ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(said: &str) -> Option<u64> {
        lost(said, [0, 1_794_600_000_000_000_000, i64::MAX].into_iter())
    }

    const OLD: &str = "entry for stream '{a=\"b\"}' has timestamp too old: 2026-11-01T00:00:00Z, \
                       oldest acceptable timestamp is: 2026-11-14T21:20:00Z";

    #[test]
    fn only_what_loki_says_it_ignored_is_lost() {
        let behind = "entry with timestamp 2026-11-21 10:00:00 +0000 UTC ignored, reason: 'entry too far \
                      behind, entry timestamp is: 2026-11-21T10:00:00Z, oldest acceptable timestamp is: \
                      2026-11-21T11:00:00Z',\n";
        let total = "user 'fake', total ignored: 3 out of 5 for stream: {a=\"b\"}";
        assert_eq!(of(&format!("{}{total}", behind.repeat(3))), Some(3));
        // Before 2.9.
        assert_eq!(of("total ignored: 12 out of 12"), Some(12));
        let long = "max entry size '262144' bytes exceeded for stream '{a=\"b\"}' while adding an entry with length '262145' bytes";
        let new = "entry for stream '{a=\"b\"}' has timestamp too new: 2026-11-22T00:00:00Z";
        for (said, expected) in [
            (long.to_owned(), Some(1)),
            (new.to_owned(), Some(1)),
            (format!("100 errors like: {long}"), Some(100)),
            (format!("10 errors like: {long}; 2 errors like: {new}\n"), Some(12)),
            // Two of the three entries are older than that.
            (OLD.to_owned(), Some(2)),
            (format!("9 errors like: {OLD}; 1 errors like: {new}"), Some(10)),
            (format!("1 errors like: {OLD}{}", "; 1 errors like: x".repeat(300)), Some(2)),
        ] {
            assert_eq!(of(&said), expected, "{said}");
        }
    }

    #[test]
    fn a_labels_text_is_none_of_lokis_words() {
        let with = |text: &str| format!("{{msg={text:?}, a=\"b\"}}");
        let hostile = with("total ignored: 0 out of 9");
        assert_eq!(of(&format!("total ignored: 3 out of 5 for stream: {hostile}")), Some(3));
        let behind = format!(
            "entry with timestamp x ignored, reason: 'Per stream rate limit exceeded (limit: 3MB/sec) while \
             attempting to ingest for stream '{hostile}' totaling 1MB',\nuser 'fake', total ignored: 3 out of 5 \
             for stream: {hostile}"
        );
        assert_eq!(of(&behind), Some(3));
        let like = with("7 errors like: max entry size; 0 errors like: max entry size");
        assert_eq!(of(&format!("stream '{like}' has 16 label names; limit 15")), None);
        let new = with("has timestamp too new, structured metadata is disallowed");
        for said in [
            format!("stream '{new}' has 16 label names; limit 15"),
            "stream '{a=\"b\"}' has label value too long: 'has timestamp too new, structured metadata is \
             disallowed, http: request body too large'"
                .to_owned(),
        ] {
            assert!(!is_too_new(&said) && !is_of_all_metadata(&said), "{said}");
            assert!(!is_too_large(400, &said) && is_lokis(400, &said), "{said}");
        }
        let floor =
            with("entry too far behind, oldest acceptable timestamp is: 2099-11-21T10:00:00Z");
        assert_eq!(floor_ns(&format!("stream '{floor}' has 16 label names; limit 15")), None);
        let large = with("http: request body too large");
        assert!(!is_too_large(400, &format!("stream '{large}' has 16 label names; limit 15")));
        let disallowed =
            "stream '{a=\"b\"}' includes structured metadata, but this feature is disallowed.";
        assert!(is_of_all_metadata(disallowed));
        for large in
            ["http: request body too large", "{\"message\":\"http: request body too large\"}"]
        {
            assert!(is_too_large(400, large), "{large}");
        }
    }

    #[test]
    fn who_has_refused_is_known_by_the_words() {
        for lokis in [
            "entry for stream '{a=\"b\"}' has timestamp too old",
            "error at least one label pair is required per stream",
            "Max entry size '262144' bytes exceeded for stream",
            "max entry size '262144' bytes exceeded for stream '{a=\"b\"}' while adding an entry",
            "stream '{a=\"b\"}' has 16 label names; limit 15",
            "entry for stream '{a=\"b\"}' has 16 label names; limit 15",
            "stream '{a=\"b\"}' has label value too long: 'b'",
            "stream '{a=\"b\"}' includes structured metadata, but this feature is disallowed.",
            "stream '{a=\"b\"}' has structured metadata too large: '70000' bytes, limit: '65536' bytes.",
            "Error parsing labels '{a=\"b\"}' with error: 1:2: parse error",
            "error parsing labels {a=\"b\"} with error: 1:2: parse error",
            "missing required labels env for user fake for stream {a=\"b\"}",
            "entry with timestamp x ignored, reason: 'entry out of order',",
            "user 'fake', total ignored: 3 out of 5 for stream: {a=\"b\"}",
            "total ignored: 12 out of 12",
            "error at least one valid stream is required for ingestion",
        ] {
            assert!(is_lokis(400, lokis) && is_lokis(422, lokis) && !is_lokis(406, lokis));
        }
        let spring = "{\"timestamp\":\"2026-11-22T10:00:00Z\",\"status\":400,\"error\":\"Bad Request\",\"path\":\"/loki/api/v1/push\"}";
        for other in [
            "",
            "Bad Request",
            "{\"message\":\"no\"}",
            "<html>a stream</html>",
            "<html>error for stream '{a=\"b\"}'</html>",
            spring,
            "no healthy upstream",
            "reset for upstream 7: entry point, timestamp of the label",
            "Request Entity Too Large",
            "{\"error\":\"the entry was refused\",\"stream\":\"label\"}",
        ] {
            assert!(!is_lokis(400, other), "{other}");
        }
        // A gateway may wrap what Loki says.
        assert!(is_lokis(
            400,
            "{\"message\":\"stream '{a=\\\"b\\\"}' has 16 label names; limit 15\"}"
        ));
    }

    #[test]
    fn what_is_said_of_whole_streams_or_not_at_all_is_no_number() {
        let labels = "stream '{a=\"b\"}' has 16 label names; limit 15";
        for said in [
            "",
            "out of order",
            labels,
            "total ignored: ",
            "total ignored: many out of 5",
            "total ignored: 5",
            "total ignored: 99999999999999999999 out of 5",
            " errors like: max entry size",
            "x errors like: max entry size",
            "99999999999999999999 errors like: max entry size",
            "ü errors like: max entry size",
        ] {
            assert_eq!(of(said), None, "{said}");
        }
        assert_eq!(of(&format!("1 errors like: {labels}; 3 errors like: {OLD}")), None);
        assert_eq!(of(&format!("1 errors like: max entry size{}", "x".repeat(MAX_SAID))), None);
    }
}
