//! A number as Go's `strconv.ParseFloat` takes it in this format: decimal, `Inf`, `Infinity` and `NaN` in
//! any case; no hexadecimal, no underscores, nothing that is too large; and as Go writes one.

use std::fmt::Write as _;
use std::str;

/// Reads a number.
pub fn number(token: &[u8]) -> Option<f64> {
    let text = str::from_utf8(token).ok()?;
    let value: f64 = text.parse().ok()?;
    // Rust takes a NaN with a sign, and makes infinity of what is too large.
    let signed = matches!(token.first(), Some(b'+' | b'-'));
    let digits = token.iter().any(u8::is_ascii_digit);
    let wrong = value.is_nan() && signed || value.is_infinite() && digits;
    (!wrong).then_some(value)
}

/// Writes a number as Go's `strconv.FormatFloat(value, 'g', -1, 64)` does: the shortest digits that
/// read back as the same number, with an exponent from 1e+06 up and below 1e-04.
pub fn show(value: f64) -> heapless::String<32> {
    let mut text = heapless::String::<32>::new();
    // f64's shortest digits have at most 17 and its exponent 3: `-1.2345678901234567e-308`.
    let _ = match value {
        _ if value.is_nan() => text.write_str("NaN"),
        _ if value.is_infinite() => text.write_str(if value > 0.0 { "+Inf" } else { "-Inf" }),
        // Also for -0, as Go's client writes it.
        0.0 => text.write_str("0"),
        _ => write_finite(value, &mut text),
    };
    text
}

fn write_finite(value: f64, out: &mut heapless::String<32>) -> std::fmt::Result {
    let mut buffer = heapless::String::<32>::new();
    write!(buffer, "{value:e}")?;
    let (digits, exponent) = buffer.split_once('e').unwrap_or((&buffer, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return write!(out, "{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    write!(out, "{digits}e{sign}{:02}", exponent.unsigned_abs())
}
