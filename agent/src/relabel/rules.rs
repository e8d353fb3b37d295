//! Rules one after the other, each on what the one before it has left.

use std::fmt::Write as _;

use super::rule::{Action, Rule};
use super::set::LabelSet;
use crate::model::is_label_name;

/// What rules have said of a set of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, with the labels that are in the set now.
    Keep,
    /// It goes. The labels are of no use any more.
    Drop,
    /// Its labels had no room, see [`LabelSet`]: they are not what they should be.
    TooLarge,
}

/// Rules in order; a copy costs next to nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules(std::sync::Arc<[Rule]>);

impl FromIterator<Rule> for Rules {
    fn from_iter<T: IntoIterator<Item = Rule>>(rules: T) -> Rules {
        Rules(rules.into_iter().collect())
    }
}

impl Rules {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Changes a set, which is in the order of its labels' names before; afterwards it need not be.
    pub fn apply(&self, set: &mut LabelSet) -> Verdict {
        let mut work = Work::default();
        for rule in self.0.iter() {
            if !work.apply(rule, set) {
                return Verdict::Drop;
            }
            if set.is_overfull() {
                return Verdict::TooLarge;
            }
        }
        if set.is_overfull() { Verdict::TooLarge } else { Verdict::Keep }
    }

    /// Whether rules remove this label from everything that stays, but where a later one sets it again.
    pub fn always_remove(&self, name: &str) -> bool {
        self.0.iter().any(|rule| match rule.action {
            Action::LabelDrop => rule.whole.is_match(name),
            Action::LabelKeep => !rule.whole.is_match(name),
            _ => false,
        })
    }

    /// Whether a rule may remove this label from one set and not from another.
    pub fn may_remove(&self, name: &str) -> bool {
        self.0.iter().any(|rule| {
            let targets = rule.target.fixed().is_none_or(|target| target == name);
            match rule.action {
                Action::Replace => {
                    targets && rule.replacement.fixed().is_none_or(|text| text.is_empty())
                }
                Action::Lowercase | Action::Uppercase => targets,
                _ => false,
            }
        })
    }
}

/// Buffers of one application.
#[derive(Default)]
struct Work {
    value: String,
    target: String,
    result: String,
    copies: Vec<(String, String)>,
}

impl Work {
    /// False: it goes.
    fn apply(&mut self, rule: &Rule, set: &mut LabelSet) -> bool {
        let value = &mut self.value;
        value.clear();
        for (index, name) in rule.sources.iter().enumerate() {
            if index > 0 {
                value.push_str(&rule.separator);
            }
            value.push_str(set.get(name));
        }
        match rule.action {
            Action::Drop => return !rule.whole.is_match(value),
            Action::Keep => return rule.whole.is_match(value),
            Action::DropEqual => return set.get(target(rule)) != value,
            Action::KeepEqual => return set.get(target(rule)) == value,
            Action::Replace => self.replace(rule, set),
            Action::HashMod => {
                let hash = md5::compute(value.as_bytes()).0;
                // The last eight bytes, big-endian.
                let number = hash[8..].iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
                self.result.clear();
                let _ = write!(self.result, "{}", number.checked_rem(rule.modulus).unwrap_or(0));
                set.set(target(rule), &self.result);
            }
            Action::Lowercase => {
                self.result.clear();
                // Character by character, as Go does: the first of several is the letter itself.
                self.result.extend(value.chars().filter_map(|c| c.to_lowercase().next()));
                set.set(target(rule), &self.result);
            }
            Action::Uppercase => {
                self.result.clear();
                // One that becomes several has no upper case of its own.
                self.result.extend(value.chars().map(|c| {
                    let mut upper = c.to_uppercase();
                    upper.next().filter(|_| upper.next().is_none()).unwrap_or(c)
                }));
                set.set(target(rule), &self.result);
            }
            Action::LabelMap => self.map(rule, set),
            Action::LabelDrop => set.retain(|name| !rule.whole.is_match(name)),
            Action::LabelKeep => set.retain(|name| rule.whole.is_match(name)),
        }
        true
    }

    fn replace(&mut self, rule: &Rule, set: &mut LabelSet) {
        let Some(found) = rule.whole.find(&self.value) else { return };
        self.target.clear();
        rule.target.expand(&found, &mut self.target);
        if is_label_name(&self.target) {
            self.result.clear();
            rule.replacement.expand(&found, &mut self.result);
            set.set(&self.target, &self.result);
        }
    }

    /// Names that are copied are those of before.
    fn map(&mut self, rule: &Rule, set: &mut LabelSet) {
        self.copies.clear();
        for (name, value) in set.iter() {
            let Some(found) = rule.whole.find(name) else { continue };
            let mut to = String::new();
            rule.replacement.expand(&found, &mut to);
            if is_label_name(&to) {
                self.copies.push((to, value.to_owned()));
            }
        }
        for (name, value) in &self.copies {
            set.set(name, value);
        }
    }
}

/// The target of an action whose target has no groups.
fn target(rule: &Rule) -> &str {
    rule.target.fixed().unwrap_or_default()
}
