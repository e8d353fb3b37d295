//! Prometheus' relabel rules: what becomes of the labels of a series or a stream, and whether it goes at all.
//!
//! The semantics are those of Prometheus 3's `model/relabel`, with classic names (`[a-zA-Z_][a-zA-Z0-9_]*`)
//! only and these bounds: a set of labels takes at most 256 KiB of text in all its states and 255 labels, and
//! a compiled expression 256 KiB. What passes the first is [`Verdict::TooLarge`], never cut.
//!
//! [`Rules`] change a [`LabelSet`]; [`Shaper`] does it to the samples of rounds and remembers what came out.
//! Neither knows where labels come from, where they go, or who counts.

mod keys;
mod rule;
mod rules;
mod set;
mod shaper;
mod template;
#[cfg(test)]
mod tests;
mod whole;

pub use keys::Keys;
pub use rule::{Action, Options, Rule, RuleError};
pub use rules::{Rules, Verdict};
pub use set::LabelSet;
pub use shaper::{Counts, Shaper};

/// Whether a series may have this name: `[a-zA-Z_:][a-zA-Z0-9_:]*`.
pub fn is_metric_name(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_' || b == b':';
    let mut bytes = name.bytes();
    bytes.next().is_some_and(letter) && bytes.all(|b| letter(b) || b.is_ascii_digit())
}

/// The label that holds a series' name.
pub const NAME: &str = "__name__";

/// The separator between source labels unless a rule says another.
pub const SEPARATOR: &str = ";";
/// The expression unless a rule says another.
pub const REGEX: &str = "(.*)";
/// The replacement unless a rule says another.
pub const REPLACEMENT: &str = "$1";
