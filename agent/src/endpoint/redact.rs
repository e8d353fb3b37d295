//! Secrets in what a server says: some servers repeat what they were sent, whole or cut. It must not know where
//! secrets come from.

/// Stands for a secret.
const REDACTED: &str = "(redacted)";

/// So many bytes at the end of a text are taken for the beginning of a secret, of one that has more; of a shorter one
/// half as many.
const BEGINNING: usize = 8;

/// What was said, without secrets: neither whole nor, at its end, begun. Where `broke_off`, each byte at the end with
/// which a secret begins is one of it.
pub(super) fn redact<'a>(
    said: &[u8],
    secrets: impl Iterator<Item = &'a str>,
    broke_off: bool,
) -> String {
    let mut secrets: Vec<&str> = secrets.filter(|secret| !secret.is_empty()).collect();
    // A shorter one may be a part of a longer one, of which the rest would stay.
    secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
    let mut text = String::from_utf8_lossy(said).into_owned();
    for secret in &secrets {
        if text.contains(secret) {
            text = text.replace(secret, REDACTED);
        }
    }
    // A character that was cut in two.
    let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
    let begun = secrets.iter().map(|secret| begun(whole, secret, broke_off)).max().unwrap_or(0);
    if begun > 0 {
        text.truncate(whole.len() - begun);
        if begun >= BEGINNING / 2 {
            text.push_str(REDACTED);
        }
    }
    text
}

/// With how many bytes of a secret a text ends.
fn begun(text: &str, secret: &str, broke_off: bool) -> usize {
    let least = match secret.len() {
        _ if broke_off => 1,
        len if len > BEGINNING => BEGINNING,
        _ => BEGINNING / 2,
    };
    let lens = (least..secret.len().min(text.len() + 1)).rev();
    let is_end = |len: &usize| secret.get(..*len).is_some_and(|start| text.ends_with(start));
    lens.into_iter().find(is_end).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(said: &str, secrets: &[&str]) -> String {
        redact(said.as_bytes(), secrets.iter().copied(), false)
    }

    #[test]
    fn neither_a_secret_nor_its_beginning_is_said() {
        let secret = "hunter2-password";
        for (said, expected) in [
            ("", ""),
            ("no", "no"),
            ("you sent hunter2-password twice", "you sent (redacted) twice"),
            ("hunter2-passwordhunter2-password", "(redacted)(redacted)"),
            ("you sent hunter2-passwor", "you sent (redacted)"),
            ("you sent hunter2-", "you sent (redacted)"),
            ("the hunter", "the hunter"),
            ("hunter2-passwor is it", "hunter2-passwor is it"),
        ] {
            assert_eq!(of(said, &[secret]), expected, "{said}");
        }
        assert_eq!(of("it was pass", &["passwd"]), "it was (redacted)");
        assert_eq!(of("it was pas", &["passwd"]), "it was pas");
        assert_eq!(of("abc", &["", "abc"]), "(redacted)");
        // The longer one first.
        assert_eq!(of("hunter2-password", &["hunter2", secret]), "(redacted)");
    }

    #[test]
    fn what_broke_off_says_no_byte_of_a_secret_at_its_end() {
        let of = |said: &[u8], secret| redact(said, [secret].into_iter(), true);
        assert_eq!(of(b"it was hunter2", "hunter2-password"), "it was (redacted)");
        assert_eq!(of(b"it was hu", "hunter2-password"), "it was ");
        assert_eq!(of("pässwört".as_bytes(), "pässwört-lang"), "(redacted)");
        // Cut within a character.
        assert_eq!(of(&"pässwört".as_bytes()[..8], "pässwört-lang"), "(redacted)");
    }
}
