//! One rule, from what the user has written to what can be applied.

use std::fmt;

use regex::Regex;

use super::template::Template;
use super::whole::Whole;
use super::{REGEX, REPLACEMENT, SEPARATOR};
use crate::model::is_label_name;

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sets the target to the replacement where the expression matches.
    Replace,
    /// Lets go what the expression does not match.
    Keep,
    /// Lets go what the expression matches.
    Drop,
    /// Lets go what does not equal the target.
    KeepEqual,
    /// Lets go what equals the target.
    DropEqual,
    /// Sets the target to a hash, modulo a number.
    HashMod,
    /// Copies labels whose names match to names that the replacement says.
    LabelMap,
    /// Removes labels whose names match.
    LabelDrop,
    /// Removes labels whose names don't match.
    LabelKeep,
    /// Sets the target to the source in lower case.
    Lowercase,
    /// Sets the target to the source in upper case.
    Uppercase,
}

impl Action {
    /// All of them by their names.
    pub const ALL: [(&'static str, Action); 11] = [
        ("replace", Action::Replace),
        ("keep", Action::Keep),
        ("drop", Action::Drop),
        ("keepequal", Action::KeepEqual),
        ("dropequal", Action::DropEqual),
        ("hashmod", Action::HashMod),
        ("labelmap", Action::LabelMap),
        ("labeldrop", Action::LabelDrop),
        ("labelkeep", Action::LabelKeep),
        ("lowercase", Action::Lowercase),
        ("uppercase", Action::Uppercase),
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        Action::ALL.iter().find(|(_, action)| *action == self).map_or("", |(name, _)| name)
    }
}

/// A rule as it is written; what is left out is None.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Names of the labels whose values are read.
    pub source_labels: Option<Vec<String>>,
    /// What stands between their values.
    pub separator: Option<String>,
    /// What their values have to match.
    pub regex: Option<String>,
    /// Of [`Action::HashMod`]; 0 if it is left out.
    pub modulus: u32,
    /// The label that is set or compared.
    pub target_label: Option<String>,
    /// What it is set to.
    pub replacement: Option<String>,
    /// What is done; [`Action::Replace`] if it is left out.
    pub action: Option<Action>,
}

/// Why a rule can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// The key that is to blame; None if it is one that is missing.
    pub key: Option<&'static str>,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for RuleError {}

/// A rule that can be applied.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(super) action: Action,
    pub(super) sources: Vec<String>,
    pub(super) separator: String,
    pub(super) whole: Whole,
    pub(super) modulus: u64,
    pub(super) target: Template,
    pub(super) replacement: Template,
    options: Options,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Rule) -> bool {
        self.options == other.options
    }
}

impl Rule {
    /// Checks and compiles a rule.
    ///
    /// # Errors
    /// What Prometheus refuses too, and label names that are not classic ones.
    pub fn new(options: Options) -> Result<Rule, RuleError> {
        let action = options.action.unwrap_or(Action::Replace);
        let text = |given: &Option<String>, default: &str| {
            given.clone().unwrap_or_else(|| default.to_owned())
        };
        let sources = options.source_labels.clone().unwrap_or_default();
        if let Some(bad) = sources.iter().find(|name| !is_label_name(name)) {
            return Err(blame("source_labels", format!("{bad:?} is no label name")));
        }
        check(action, &options)?;
        let regex = text(&options.regex, REGEX);
        let whole = Whole::new(&regex)
            .map_err(|error| blame("regex", format!("regex: {regex:?}: {error}")))?;
        let target = Template::new(&text(&options.target_label, ""), &whole);
        let replacement = Template::new(&text(&options.replacement, REPLACEMENT), &whole);
        let separator = text(&options.separator, SEPARATOR);
        let modulus = u64::from(options.modulus);
        Ok(Rule { action, sources, separator, whole, modulus, target, replacement, options })
    }
}

fn blame(key: &'static str, problem: String) -> RuleError {
    RuleError { key: Some(key), problem }
}

/// Checks that the keys go with the action.
fn check(action: Action, options: &Options) -> Result<(), RuleError> {
    let name = action.as_str();
    let target = options.target_label.as_deref().unwrap_or_default();
    let replacement = options.replacement.as_deref().unwrap_or(REPLACEMENT);
    let others = [
        ("separator", options.separator.as_deref().is_some_and(|given| given != SEPARATOR)),
        ("replacement", replacement != REPLACEMENT),
        ("modulus", options.modulus != 0),
    ];
    let only = |allowed: &str, more: &[(&'static str, bool)]| {
        let extra = others.iter().chain(more).find(|(_, given)| *given);
        extra.map_or(Ok(()), |(key, _)| {
            Err(blame(key, format!("action {name:?} takes {allowed} and no {key}")))
        })
    };
    match action {
        Action::Keep | Action::Drop => return Ok(()),
        Action::LabelDrop | Action::LabelKeep => {
            let source = ("source_labels", options.source_labels.is_some());
            return only("regex alone", &[source, ("target_label", !target.is_empty())]);
        }
        Action::LabelMap => {
            return if is_target_template(replacement) {
                Ok(())
            } else {
                let problem = format!("{replacement:?} makes no label names");
                Err(blame("replacement", problem))
            };
        }
        Action::HashMod if options.modulus == 0 => {
            let key = None;
            return Err(RuleError { key, problem: "action \"hashmod\" needs a modulus".into() });
        }
        _ => {}
    }
    if target.is_empty() {
        let problem = format!("action {name:?} needs a target_label");
        let key = options.target_label.as_ref().map(|_| "target_label");
        return Err(RuleError { key, problem });
    }
    let good = is_label_name(target)
        || (action == Action::Replace && target.contains('$') && is_target_template(target));
    if !good {
        return Err(blame("target_label", format!("{target:?} is no label name for {name:?}")));
    }
    match action {
        Action::KeepEqual | Action::DropEqual => {
            let regex = options.regex.as_deref().is_some_and(|given| given != REGEX);
            only("source_labels and target_label", &[("regex", regex)])
        }
        Action::Lowercase | Action::Uppercase if replacement != REPLACEMENT => {
            Err(blame("replacement", format!("action {name:?} takes no replacement")))
        }
        _ => Ok(()),
    }
}

/// Whether a text with groups in it can make label names.
pub(super) fn is_target_template(text: &str) -> bool {
    const VALID: &str = r"^(?:(?:[a-zA-Z_]|\$(?:\{[0-9A-Za-z_]+\}|[0-9A-Za-z_]+))+[0-9A-Za-z_]*)+$";
    // Far beyond any name, and matching takes time for each byte.
    text.len() <= 1_024
        && regex::RegexBuilder::new(VALID)
            .unicode(false)
            .build()
            .is_ok_and(|valid: Regex| valid.is_match(text))
}
