//! What users want out of their logs, found without an expression: each finds the next place in a text,
//! checks what it finds as far as it can be checked, and takes time in proportion to the text.

use std::net::Ipv6Addr;

use memchr::{memchr, memmem};

/// Something that has a form of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// `192.0.2.1`: four numbers up to 255, and no fifth.
    Ipv4,
    /// `2001:db8::1`, without zone and brackets.
    Ipv6,
    /// `name@example.org`: a domain with a dot and letters behind it.
    Email,
    /// 13 to 19 digits with a good check digit (Luhn) that begin as cards do, in one or in groups.
    CreditCard,
    /// The token behind `Bearer`, and what stands in an `Authorization` header.
    BearerToken,
    /// The password in `scheme://user:password@host`.
    UrlPassword,
    /// `eyJ….eyJ….…`: a JSON web token, signed or encrypted.
    Jwt,
    /// Escape sequences of terminals: colours and what else moves a cursor.
    Ansi,
}

/// The presets by the names that the configuration has for them.
pub const PRESETS: &[(&str, Preset)] = &[
    ("ipv4", Preset::Ipv4),
    ("ipv6", Preset::Ipv6),
    ("email", Preset::Email),
    ("credit_card", Preset::CreditCard),
    ("bearer_token", Preset::BearerToken),
    ("url_password", Preset::UrlPassword),
    ("jwt", Preset::Jwt),
    ("ansi", Preset::Ansi),
];

/// Names and hosts are not longer (RFC 5321, RFC 1035).
const MAX_LOCAL: usize = 64;
const MAX_DOMAIN: usize = 255;
/// The longest text of an IPv6 address, with an IPv4 address at its end.
const MAX_IPV6: usize = 45;

type Span = Option<(usize, usize)>;

impl Preset {
    /// The next place from `from` on, in bytes, which is never empty.
    pub fn next(self, text: &str, from: usize) -> Option<(usize, usize)> {
        let bytes = text.as_bytes();
        match self {
            Preset::Ipv4 => ipv4(bytes, from),
            Preset::Ipv6 => ipv6(text, from),
            Preset::Email => email(bytes, from),
            Preset::CreditCard => credit_card(bytes, from),
            Preset::BearerToken => bearer_token(bytes, from),
            Preset::UrlPassword => url_password(bytes, from),
            Preset::Jwt => jwt(bytes, from),
            Preset::Ansi => ansi(bytes, from),
        }
    }
}

fn at(bytes: &[u8], index: usize) -> u8 {
    bytes.get(index).copied().unwrap_or_default()
}

fn before(bytes: &[u8], index: usize) -> u8 {
    index.checked_sub(1).map_or(0, |index| at(bytes, index))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The end of the bytes from `from` on that are wanted.
fn run(bytes: &[u8], from: usize, wanted: impl Fn(u8) -> bool) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest.iter().position(|b| !wanted(*b)).unwrap_or(rest.len())
}

/// The start of the bytes up to `to` that are wanted, at most `max` of them.
fn run_back(bytes: &[u8], to: usize, max: usize, wanted: impl Fn(u8) -> bool) -> usize {
    let rest = bytes.get(to.saturating_sub(max)..to).unwrap_or_default();
    to - rest.iter().rev().position(|b| !wanted(*b)).unwrap_or(rest.len())
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    memmem::find(bytes.get(from..)?, what).map(|found| from + found)
}

fn digits(bytes: &[u8], from: usize) -> Span {
    let start = from + bytes.get(from..)?.iter().position(u8::is_ascii_digit)?;
    Some((start, run(bytes, start, |b| b.is_ascii_digit())))
}

fn ipv4(bytes: &[u8], mut from: usize) -> Span {
    loop {
        let (start, _) = digits(bytes, from)?;
        let end = run(bytes, start, |b| b.is_ascii_digit() || b == b'.');
        from = end;
        // A dot at the end is the sentence's.
        let stop = run_back(bytes, end, 1, |b| b == b'.');
        let mut numbers = 0;
        let good = bytes.get(start..stop)?.split(|b| *b == b'.').all(|number| {
            numbers += 1;
            let value = number
                .iter()
                .fold(0, |n: u32, b| n.saturating_mul(10).saturating_add(u32::from(b & 15)));
            (1..=3).contains(&number.len()) && value <= 255
        });
        let first = before(bytes, start);
        let alone = !is_word(first) && first != b'.' && (stop < end || !is_word(at(bytes, end)));
        if good && numbers == 4 && alone {
            return Some((start, stop));
        }
    }
}

fn ipv6(text: &str, mut from: usize) -> Span {
    let bytes = text.as_bytes();
    // What stands before it was replaced, and is no word that this belongs to.
    let replaced = from;
    let inside = |b: u8| b.is_ascii_hexdigit() || b == b':' || b == b'.';
    loop {
        let colon = from + memchr(b':', bytes.get(from..)?)?;
        let start = run_back(bytes, colon, colon - from, inside);
        let end = run(bytes, colon, inside);
        if let Some(found) = ipv6_in(text, start, end, replaced) {
            return Some(found);
        }
        from = end;
    }
}

/// An address in a run of its characters, to which words, a port or a full stop may stick.
fn ipv6_in(text: &str, start: usize, end: usize, replaced: usize) -> Span {
    let bytes = text.as_bytes();
    // A colon of an address that is written in full can't be told from one that isn't its own: of more
    // than eight groups, such as a fingerprint, none is taken.
    let tries = if memmem::find(bytes.get(start..end)?, b"::").is_some() { 4 } else { 1 };
    let mut left = start;
    for _ in 0..=tries {
        let mut right = end;
        for _ in 0..=tries {
            let candidate = text.get(left..right)?;
            let begins = left == replaced || !is_word(before(bytes, left));
            let whole = begins && !is_word(at(bytes, right));
            if whole && candidate.len() <= MAX_IPV6 && is_ipv6(candidate) {
                return Some((left, right));
            }
            let Some(shorter) = candidate.rfind([':', '.']) else { break };
            right = left + shorter;
        }
        left += text.get(left..end)?.find(':')? + 1;
    }
    None
}

/// An address, and not a piece of code: `::` alone, or `a::b`.
fn is_ipv6(text: &str) -> bool {
    let telling = text.bytes().any(|b| b.is_ascii_digit()) || text.matches(':').count() > 2;
    telling && text.parse::<Ipv6Addr>().is_ok()
}

fn email(bytes: &[u8], from: usize) -> Span {
    let mut next = from;
    loop {
        let sign = next + memchr(b'@', bytes.get(next..)?)?;
        next = sign + 1;
        let room = MAX_LOCAL.min(sign - from);
        let mut local = run_back(bytes, sign, room, |b| is_word(b) || b".%+-".contains(&b));
        // Not into the middle of a character.
        while matches!(at(bytes, local), 0x80..=0xbf) {
            local += 1;
        }
        let domain = run(bytes, next, |b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
        let end = run_back(bytes, domain, domain - next, |b| b == b'.' || b == b'-');
        let host = bytes.get(next..end)?;
        let top = host.rsplit(|b| *b == b'.').next().unwrap_or_default();
        let named =
            top.len() >= 2 && top.len() < host.len() && top.iter().any(|b| !b.is_ascii_digit());
        if local < sign && named && host.len() <= MAX_DOMAIN && at(bytes, next) != b'.' {
            return Some((local, end));
        }
    }
}

fn credit_card(bytes: &[u8], mut from: usize) -> Span {
    loop {
        let (start, end) = digits(bytes, from)?;
        from = end;
        let first = before(bytes, start);
        if is_word(first) || first == b'.' || !matches!(at(bytes, start), b'2'..=b'6') {
            continue;
        }
        if let Some(end) = card_end(bytes, start, end)
            && !is_word(at(bytes, end))
            && luhn(bytes.get(start..end)?)
        {
            return Some((start, end));
        }
    }
}

/// The end of digits that are as many as a card has, in one or in groups as cards show them.
fn card_end(bytes: &[u8], start: usize, end: usize) -> Option<usize> {
    if (13..=19).contains(&(end - start)) {
        return Some(end);
    }
    let mark = at(bytes, end);
    if end - start != 4 || !matches!(mark, b' ' | b'-') {
        return None;
    }
    let group = |end: usize, len: usize| {
        let stop = run(bytes, end + 1, |b| b.is_ascii_digit());
        (at(bytes, end) == mark && stop - (end + 1) == len).then_some(stop)
    };
    if let Some(second) = group(end, 6) {
        // American Express and Diners Club.
        return group(second, 5).or_else(|| group(second, 4));
    }
    let fourth = group(group(group(end, 4)?, 4)?, 4)?;
    // Some have up to 19 digits.
    let longer = (1..=3).find_map(|len| group(fourth, len));
    Some(longer.filter(|end| bytes.get(start..*end).is_some_and(luhn)).unwrap_or(fourth))
}

fn luhn(bytes: &[u8]) -> bool {
    let digits = bytes.iter().rev().filter(|b| b.is_ascii_digit()).map(|b| u32::from(b & 15));
    let weighed = digits.enumerate().map(|(index, digit)| match index % 2 {
        0 => digit,
        _ => digit * 2 / 10 + digit * 2 % 10,
    });
    weighed.sum::<u32>() % 10 == 0
}

fn bearer_token(bytes: &[u8], mut from: usize) -> Span {
    loop {
        let rest = bytes.get(from..)?;
        let start = from + rest.iter().position(|b| matches!(b | 0x20, b'a' | b'b'))?;
        from = start + 1;
        if is_word(before(bytes, start)) {
            continue;
        }
        let found = if is_here(bytes, start, b"bearer") {
            behind_bearer(bytes, start + 6)
        } else if is_here(bytes, start, b"authorization") {
            in_header(bytes, start + 13)
        } else {
            None
        };
        if found.is_some() {
            return found;
        }
    }
}

fn is_here(bytes: &[u8], at: usize, word: &[u8]) -> bool {
    bytes.get(at..at + word.len()).is_some_and(|have| have.eq_ignore_ascii_case(word))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._~+/=-".contains(&byte)
}

fn is_between(byte: u8) -> bool {
    b" \t:=\"'[\\".contains(&byte)
}

fn behind_bearer(bytes: &[u8], at: usize) -> Span {
    let start = run(bytes, at, is_between);
    let end = run(bytes, start, is_token);
    let token = bytes.get(start..end)?;
    // In prose words follow: "the bearer certificates".
    let telling = token.iter().any(u8::is_ascii_digit) || token.len() >= 20;
    (start > at && token.len() >= 8 && telling).then_some((start, end))
}

fn in_header(bytes: &[u8], at: usize) -> Span {
    let scheme = run(bytes, at, is_between);
    let end_of_scheme = run(bytes, scheme, |b| b.is_ascii_alphabetic());
    let start = run(bytes, end_of_scheme, |b| b == b' ');
    let end = run(bytes, start, is_token);
    let known = [&b"basic"[..], b"bearer", b"token", b"negotiate", b"apikey"];
    let is_known = known
        .iter()
        .any(|known| end_of_scheme - scheme == known.len() && is_here(bytes, scheme, known));
    (is_known && start > end_of_scheme && end > start).then_some((start, end))
}

fn url_password(bytes: &[u8], mut from: usize) -> Span {
    let is_in_url = |b: u8| b > b' ' && !b"\"'<>`".contains(&b);
    loop {
        let start = find(bytes, from, b"://")? + 3;
        from = start;
        if !before(bytes, start - 3).is_ascii_alphanumeric() || at(bytes, start) == b'[' {
            continue;
        }
        let authority = run(bytes, start, |b| is_in_url(b) && !b"/?#".contains(&b));
        let text = bytes.get(start..authority)?;
        let Some(colon) = memchr(b':', text) else { continue };
        let mut sign = text.iter().rposition(|b| *b == b'@');
        let is_port = text.get(colon + 1..)?.iter().all(u8::is_ascii_digit);
        if sign.is_none() && !is_port {
            // A password with a slash in it, which should not be, and is.
            let whole = run(bytes, authority, is_in_url);
            sign = memchr(b'@', bytes.get(authority..whole)?).map(|sign| authority - start + sign);
            from = whole;
        }
        if let Some(sign) = sign
            && colon + 1 < sign
        {
            return Some((start + colon + 1, start + sign));
        }
    }
}

fn jwt(bytes: &[u8], mut from: usize) -> Span {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    loop {
        let start = find(bytes, from, b"eyJ")?;
        let header = run(bytes, start, inside);
        from = header;
        if inside(before(bytes, start)) || header - start < 10 || at(bytes, header) != b'.' {
            continue;
        }
        let mut end = run(bytes, header + 1, inside);
        if end == header + 1 && at(bytes, end) != b'.' {
            continue;
        }
        // A signature, or the three parts that an encrypted one has instead.
        for _ in 0..3 {
            let behind = at(bytes, end + 1);
            if at(bytes, end) == b'.' && (inside(behind) || behind == b'.') {
                end = run(bytes, end + 1, inside);
            }
        }
        return Some((start, end));
    }
}

/// ECMA-48: CSI and OSC sequences, and the escapes of two characters.
fn ansi(bytes: &[u8], from: usize) -> Span {
    let start = from + memchr(0x1b, bytes.get(from..)?)?;
    let end = match at(bytes, start + 1) {
        b'[' => {
            let end = run(bytes, start + 2, |b| (0x20..=0x3f).contains(&b));
            end + usize::from((0x40..=0x7e).contains(&at(bytes, end)))
        }
        b']' => {
            let end = run(bytes, start + 2, |b| b != 0x07 && b != 0x1b);
            match (at(bytes, end), at(bytes, end + 1)) {
                (0x07, _) => end + 1,
                (0x1b, b'\\') => end + 2,
                _ => end,
            }
        }
        0x40..=0x7e => start + 2,
        _ => start + 1,
    };
    Some((start, end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text with `‹…›` around everything that is found.
    fn marked(preset: Preset, text: &str) -> String {
        let (mut out, mut done) = (String::new(), 0);
        while let Some((start, end)) = preset.next(text, done) {
            out.push_str(&format!("{}‹{}›", &text[done..start], &text[start..end]));
            done = end;
        }
        out + &text[done..]
    }

    fn check(preset: Preset, cases: &[&str]) {
        for case in cases {
            assert_eq!(marked(preset, &case.replace(['‹', '›'], "")), *case);
        }
    }

    #[test]
    fn ipv4_addresses_are_found_and_versions_are_not() {
        check(
            Preset::Ipv4,
            &[
                "‹192.0.2.1›",
                "from ‹10.0.0.1›:8080, ‹10.0.0.2›/24; (‹8.8.8.8›). And ‹127.0.0.1›.",
                "::ffff:‹192.0.2.1› a=‹1.2.3.4› \"‹255.255.255.255›\" ‹010.001.000.1›",
                "v1.2.3.4 1.2.3 1.2.3.4.5 256.1.1.1 1.2.3.1000 1..2.3 1.2.3.4a .1.2.3.4 ü1.2.3.4",
                "",
                "1.2.3.",
                "....",
            ],
        );
    }

    #[test]
    fn ipv6_addresses_are_found_and_times_and_fingerprints_are_not() {
        check(
            Preset::Ipv6,
            &[
                "‹2001:db8::1›",
                "[‹2001:db8::1›]:443 from ‹fe80::1›%eth0, ‹::1›",
                "‹2001:db8:0:0:0:0:0:1›/64 ‹::ffff:192.0.2.1› ‹fe80::›",
                "client=‹fe80::1›: failed. It was ‹fe80::2›. src:‹fe80::1› addr:‹2001:db8::1›",
                "12:34:56 00:11:22:33:44:55 std::string a::b x::y() :: ::",
                "MD5:16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48",
                "1:2:3:4:5:6:7 2026-11-21T22:00:00 12345::1 g::1g",
            ],
        );
    }

    #[test]
    fn mail_addresses_are_found_and_hosts_of_a_shell_are_not() {
        check(
            Preset::Email,
            &[
                "‹a@example.org›",
                "to=<‹first.last+tag@mail.example.co.uk›>, ‹jörg@example.de›. '‹x@y.zz›'",
                "user=‹a@b.cd› mailto:‹a@b.cd›?x ‹git@github.com›:x/y.git",
                "root@nas a@1.2.3.4 @example.org a@ a@b a@.de @ a@b.1",
            ],
        );
    }

    #[test]
    fn cards_are_found_and_other_numbers_are_not() {
        check(
            Preset::CreditCard,
            &[
                "‹4111111111111111›",
                "card ‹4111 1111 1111 1111›, ‹5500-0000-0000-0004› (‹340000000000009›)",
                "‹3400 000000 00009› ‹4111 1111 1111 1111› 12 ‹6011000000000004›.",
                // The check digit is wrong.
                "4111111111111112 4111 1111 1111 1112",
                // Times, numbers that go on, words, other groups.
                "1795298398000 1795298398250000001 0.4111111111111111 x4111111111111111",
                "4111111111111111x 41111111111111111111 41 11 11 11 11 11 11 11 4111-1111 1111-1111",
            ],
        );
    }

    #[test]
    fn tokens_are_found_behind_their_words_and_prose_is_not() {
        check(
            Preset::BearerToken,
            &[
                "Authorization: Bearer ‹abc123-._~+/=›",
                "bearer ‹0123456789abcdef›, BEARER=‹abcdefg8›",
                "\"Authorization\":\"Bearer ‹abcdefgh1›\" Authorization: Bearer ‹x›",
                "authorization: [\"Basic ‹dXNlcjpwYXNz›\"] Authorization=token ‹x›",
                "-H 'Authorization: Basic ‹dTpw›' bearer ‹abcdefghijklmnopqrstuvwxyz›",
                "the bearer certificates of bad news, bearer abc, Bearer, forbearer 0123456789",
                "authorization failed for user, authorization: none, Authorization: Basic",
            ],
        );
    }

    #[test]
    fn passwords_of_urls_are_found_and_ports_are_not() {
        check(
            Preset::UrlPassword,
            &[
                "postgres://user:‹secret›@db:5432/x?y=z",
                "GET http://u:‹p@ss:w›@h/ and redis://:‹x›@h,redis://:‹y›@h",
                "amqp://u:‹pa/ss#?›@h",
                "http://host:8080/path@x http://host/a:b@c http://user@host http://u:@h x://y",
                "http://[::1]:80/@ at https://x.y/z:1 mail a@b.cd ://u:p@h",
            ],
        );
    }

    #[test]
    fn web_tokens_are_found_and_other_base64_is_not() {
        check(
            Preset::Jwt,
            &[
                "‹eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_123›",
                "t=‹eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0›.",
                "‹eyJhbGciOiJSU0EtT0FFUCJ9.key.iv.text.tag›.x ‹eyJhbGciOiJkaXIifQ..iv.text.tag›",
                "eyJhbGciOiJIUzI1NiJ9 eyJ.eyJ xeyJhbGciOiJIUzI1NiJ9.x eyJhbGciOiJIUzI1NiJ9.",
            ],
        );
    }

    #[test]
    fn escape_sequences_are_found_whole() {
        check(
            Preset::Ansi,
            &[
                "‹\u{1b}[1;31m›red‹\u{1b}[0m› ‹\u{1b}[2K›‹\u{1b}]0;title\u{7}›x",
                "‹\u{1b}]8;;u\u{1b}\\›y‹\u{1b}M› ‹\u{1b}›ü‹\u{1b}[›ü",
                "‹\u{1b}›",
                "‹\u{1b}[›",
                "‹\u{1b}[31›",
                "‹\u{1b}]0;›",
            ],
        );
    }

    proptest! {
        #[test]
        fn places_are_whole_characters_in_order(text in "(\\PC|[0-9a-f:.@ /eyJ\u{1b}\\[-]){0,64}") {
            for (_, preset) in PRESETS {
                let mut done = 0;
                while let Some((start, end)) = preset.next(&text, done) {
                    prop_assert!(done <= start && start < end, "{preset:?}");
                    prop_assert!(text.get(start..end).is_some(), "{preset:?}");
                    done = end;
                }
            }
        }
    }

    #[test]
    fn long_texts_of_nearly_nothing_take_time_in_proportion() {
        let began = std::time::Instant::now();
        let pieces = [
            "1:",
            "1.",
            "a@",
            "4111 ",
            "bearer ",
            "authorization:",
            "://u:",
            "a://u:x/",
            "eyJ",
            "eyJabcdefgh.",
            "\u{1b}]",
            "::",
            "@",
            "1",
            "a:::",
            "a",
        ];
        for piece in pieces {
            let text = piece.repeat((256 << 10) / piece.len());
            for (name, preset) in PRESETS {
                let mut done = 0;
                while let Some((_, end)) = preset.next(&text, done) {
                    done = end;
                }
                assert!(began.elapsed().as_secs() < 30, "{name} {piece}");
            }
        }
    }
}
