//! `[[….relabel]]`: relabel rules, the same wherever they stand.

use super::error::{ConfigError, nearest};
use super::reader::{At, Reader};
use crate::relabel::{Action, Options, Rule, Rules};

/// Far more than anybody needs; each costs a look for each new series.
const MAX_RULES: usize = 200;

/// Reads a list of rules.
pub(super) fn rules(t: &Reader<'_>, key: &'static str) -> Result<Rules, ConfigError> {
    let mut rules = Vec::new();
    for rule in t.list(key)? {
        let given = Given::read(&rule)?;
        let (present, place) = (rule.is_present(), rule.place().clone());
        rule.finish()?;
        if !present {
            continue;
        }
        if rules.len() == MAX_RULES {
            let problem = format!("there are more than {MAX_RULES} rules");
            return Err(ConfigError::new(&place, problem, "a regular expression takes many words"));
        }
        rules.push(given.rule(&place)?);
    }
    Ok(rules.into_iter().collect())
}

/// The keys of a rule with their places.
struct Given {
    source_labels: Option<Vec<At<String>>>,
    texts: Vec<(&'static str, At<String>)>,
    options: Options,
}

impl Given {
    fn read(t: &Reader<'_>) -> Result<Given, ConfigError> {
        let mut texts = Vec::new();
        let mut keep = |key, given: Option<At<String>>| {
            given.map(|given| {
                let value = given.value.clone();
                texts.push((key, given));
                value
            })
        };
        let source_labels = t.strings(
            "source_labels",
            "labels whose values, joined, are what the rule looks at; one that is not there is empty",
        )?;
        let separator = keep(
            "separator",
            t.string("separator", crate::relabel::SEPARATOR, "what joins their values")?,
        );
        let regex = keep(
            "regex",
            t.string(
                "regex",
                crate::relabel::REGEX,
                "what the whole of the joined value, or of a label's name, has to match; RE2's syntax",
            )?,
        );
        let modulus =
            t.integer("modulus", 0, 0..=u32::MAX, "of `hashmod`, which needs one: the hash's")?;
        let target_label = keep(
            "target_label",
            t.string(
                "target_label",
                "",
                "the label that is set or compared; with `replace` it may have groups in it, as `${1}_name`",
            )?,
        );
        let replacement = keep(
            "replacement",
            t.string(
                "replacement",
                crate::relabel::REPLACEMENT,
                "what the label is set to: `$1` or `${1}` is a group of `regex`, `$${name}` one with a name, `$$` a dollar; nothing removes the label",
            )?,
        );
        let words: Vec<&str> = Action::ALL.iter().map(|(name, _)| *name).collect();
        let action = t.string(
            "action",
            "replace",
            "`replace`, `keep`, `drop`, `keepequal`, `dropequal`, `hashmod`, `labelmap`, `labeldrop`, `labelkeep`, `lowercase` or `uppercase`: docs/relabel.md has an example of each",
        )?;
        let action = action.map(|given| {
            let word = given.value.to_ascii_lowercase();
            let found = Action::ALL.iter().find(|(name, _)| *name == word);
            found.map(|(_, action)| *action).ok_or_else(|| {
                let hint = match nearest(&word, words.iter().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("one of {}", words.join(", ")),
                };
                given.error(format!("action: {:?} is no action", given.value), hint)
            })
        });
        let names = |names: &Vec<At<String>>| names.iter().map(|name| name.value.clone()).collect();
        let options = Options {
            source_labels: source_labels.as_ref().map(names),
            separator,
            regex,
            modulus,
            target_label,
            replacement,
            action: action.transpose()?,
        };
        Ok(Given { source_labels, texts, options })
    }

    fn rule(self, place: &super::error::Place) -> Result<Rule, ConfigError> {
        let Given { source_labels, texts, options } = self;
        let action = options.action.unwrap_or(Action::Replace);
        Rule::new(options).map_err(|error| {
            let hint = hint(action, error.key);
            let at = match error.key {
                Some("source_labels") => source_labels
                    .iter()
                    .flatten()
                    // The one that it names, where it names one.
                    .find(|name| error.problem.contains(&format!("{:?}", name.value)))
                    .or_else(|| source_labels.iter().flatten().next())
                    .map(|name| &name.place),
                Some(key) => {
                    texts.iter().find(|(have, _)| *have == key).map(|(_, given)| &given.place)
                }
                None => None,
            };
            ConfigError::new(at.unwrap_or(place), error.to_string(), hint)
        })
    }
}

fn hint(action: Action, key: Option<&str>) -> &'static str {
    match (action, key) {
        (_, Some("regex")) => {
            "the syntax is RE2's; in single quotes a backslash is a backslash: '\\d+'"
        }
        (Action::HashMod, None) => "modulus = 8, target_label = \"__tmp_shard\"",
        (Action::LabelDrop | Action::LabelKeep, _) => {
            "it goes by the labels' names: regex = \"id|name\""
        }
        (Action::KeepEqual | Action::DropEqual, Some(_)) => {
            "it compares the joined source_labels with target_label as they are"
        }
        (Action::LabelMap, Some("replacement")) => {
            "letters, digits, '_' and groups: replacement = \"meta_$1\""
        }
        (_, Some("target_label" | "source_labels")) | (_, None) => {
            "letters, digits and '_', no digit first; the name of a metric is __name__"
        }
        _ => "",
    }
}
