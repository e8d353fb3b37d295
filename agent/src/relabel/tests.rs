//! What Prometheus' own tests of `model/relabel` say, in other words, and rules of any kind against a model
//! that knows nothing of buffers, spans and orders of insertion.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Pairs = &'static [(&'static str, &'static str)];

/// A rule of keys and values as a configuration has them; `from` are its source labels.
fn options(action: &str, from: &[&str], keys: Pairs) -> Options {
    let find = |key: &str| keys.iter().find(|(have, _)| *have == key).map(|(_, value)| *value);
    let own = |key: &str| find(key).map(str::to_owned);
    Options {
        source_labels: (!from.is_empty()).then(|| from.iter().map(|s| (*s).to_owned()).collect()),
        separator: own("separator"),
        regex: own("regex"),
        modulus: find("modulus").map_or(0, |modulus| modulus.parse().unwrap()),
        target_label: own("target"),
        replacement: own("replacement"),
        action: Action::ALL.iter().find(|(name, _)| *name == action).map(|(_, action)| *action),
    }
}

fn rule(action: &str, from: &[&str], keys: Pairs) -> Rule {
    Rule::new(options(action, from, keys)).unwrap()
}

/// The labels after the rules; None if they drop them.
fn relabel(rules: Vec<Rule>, labels: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
    let mut set = LabelSet::new();
    labels.iter().for_each(|(name, value)| set.add(name, value));
    set.sort();
    let rules: Rules = rules.into_iter().collect();
    match rules.apply(&mut set) {
        Verdict::Drop => None,
        Verdict::TooLarge => panic!("too large"),
        Verdict::Keep => {
            set.sort();
            Some(set.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect())
        }
    }
}

#[track_caller]
fn gives(labels: Pairs, rules: Vec<Rule>, after: Pairs) {
    let after = after.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    assert_eq!(relabel(rules, labels), Some(after));
}

#[track_caller]
fn drops(labels: Pairs, rules: Vec<Rule>) {
    assert_eq!(relabel(rules, labels), None);
}

const ABC: Pairs = &[("a", "foo"), ("b", "bar"), ("c", "baz")];

#[test]
fn replace_writes_groups_of_the_joined_sources() {
    gives(
        ABC,
        vec![rule(
            "replace",
            &["a"],
            &[("regex", "f(.*)"), ("target", "d"), ("replacement", "ch${1}-ch${1}")],
        )],
        &[("a", "foo"), ("b", "bar"), ("c", "baz"), ("d", "choo-choo")],
    );
    // Each rule sees what the one before has left.
    gives(
        ABC,
        vec![
            rule(
                "replace",
                &["a", "b"],
                &[("regex", "f(.*);(.*)r"), ("target", "a"), ("replacement", "b${1}${2}m")],
            ),
            rule(
                "replace",
                &["c", "a"],
                &[("regex", "(b).*b(.*)ba(.*)"), ("target", "d"), ("replacement", "$1$2$2$3")],
            ),
        ],
        &[("a", "boobam"), ("b", "bar"), ("c", "baz"), ("d", "boooom")],
    );
    gives(
        &[("a", "abc")],
        vec![rule("replace", &["a"], &[("regex", ".*(b).*"), ("target", "d")])],
        &[("a", "abc"), ("d", "b")],
    );
    // No match, no replacement.
    gives(
        &[("a", "boo")],
        vec![rule("replace", &["a"], &[("regex", "f"), ("target", "b"), ("replacement", "bar")])],
        &[("a", "boo")],
    );
}

#[test]
fn replace_without_sources_sets_and_an_empty_result_removes() {
    gives(
        &[("a", "1")],
        vec![rule("", &[], &[("target", "b"), ("replacement", "x")])],
        &[("a", "1"), ("b", "x")],
    );
    gives(
        ABC,
        vec![rule("", &[], &[("target", "b"), ("replacement", "")])],
        &[("a", "foo"), ("c", "baz")],
    );
    // The source is not there: its value is empty, and so is the first group.
    gives(ABC, vec![rule("", &["nope"], &[("target", "b")])], &[("a", "foo"), ("c", "baz")]);
    // Without a separator.
    gives(
        &[("a", "1"), ("b", "2")],
        vec![rule("", &["a", "b"], &[("separator", ""), ("target", "a")])],
        &[("a", "12"), ("b", "2")],
    );
}

#[test]
fn a_target_may_come_from_groups_and_is_skipped_where_it_is_no_name() {
    const SOME: &str = "some-([^-]+)-([^,]+)";
    let to = |target, replacement| {
        let keys = [("regex", SOME), ("target", target), ("replacement", replacement)];
        rule("replace", &["a"], Box::leak(Box::new(keys)))
    };
    gives(
        &[("a", "some-name-value")],
        vec![to("${1}", "${2}")],
        &[("a", "some-name-value"), ("name", "value")],
    );
    gives(&[("a", "some-name-value")], vec![to("${1}", "${3}")], &[("a", "some-name-value")]);
    gives(
        &[("a", "some-name-0")],
        vec![to("${3}", "${1}"), to("${3}", "${1}")],
        &[("a", "some-name-0")],
    );
    // A digit in front is no name.
    gives(&[("a", "some-1x-0")], vec![to("${1}", "y")], &[("a", "some-1x-0")]);
    const TAGS: &str = "path:/secret,job:some-job,label:foo=bar";
    gives(
        &[("__meta_sd_tags", TAGS)],
        vec![
            rule(
                "",
                &["__meta_sd_tags"],
                &[
                    ("regex", "(?:.+,|^)path:(/[^,]+).*"),
                    ("replacement", "${1}"),
                    ("target", "__metrics_path__"),
                ],
            ),
            rule(
                "",
                &["__meta_sd_tags"],
                &[("regex", "(?:.+,|^)job:([^,]+).*"), ("replacement", "${1}"), ("target", "job")],
            ),
            rule(
                "",
                &["__meta_sd_tags"],
                &[
                    ("regex", "(?:.+,|^)label:([^=]+)=([^,]+).*"),
                    ("replacement", "${2}"),
                    ("target", "${1}"),
                ],
            ),
        ],
        &[
            ("__meta_sd_tags", TAGS),
            ("__metrics_path__", "/secret"),
            ("foo", "bar"),
            ("job", "some-job"),
        ],
    );
}

#[test]
fn drop_and_keep_take_the_whole_value_and_end_the_rules() {
    let later =
        || rule("", &["a"], &[("regex", "f(.*)"), ("target", "d"), ("replacement", "ch$1-ch$1")]);
    drops(&[("a", "foo")], vec![rule("drop", &["a"], &[("regex", ".*o.*")]), later()]);
    drops(&[("a", "foo"), ("b", "bar")], vec![rule("drop", &["a"], &[("regex", ".*o.*")])]);
    gives(&[("a", "foo")], vec![rule("drop", &["a"], &[("regex", "no-match")])], &[("a", "foo")]);
    gives(&[("a", "foo")], vec![rule("drop", &["a"], &[("regex", "f|o")])], &[("a", "foo")]);
    drops(&[("a", "foo")], vec![rule("keep", &["a"], &[("regex", "no-match")])]);
    gives(&[("a", "foo")], vec![rule("keep", &["a"], &[("regex", "f.*")])], &[("a", "foo")]);
    drops(&[("a", "foo")], vec![rule("drop", &["x"], &[])]);
    drops(&[("a", "foo")], vec![rule("keep", &["x"], &[("regex", ".+")])]);
}

#[test]
fn a_label_that_was_removed_may_be_set_again() {
    const PORT: &str = "__meta_kubernetes_pod_container_port_name";
    const NUMBER: &str = "__meta_kubernetes_pod_annotation_main_metrics_port";
    gives(
        &[(PORT, "foo"), (NUMBER, "9091")],
        vec![
            rule("labeldrop", &[], &[("regex", "^__meta_kubernetes_pod_container_port_name$")]),
            rule("", &[NUMBER], &[("regex", "(.+)"), ("replacement", "metrics"), ("target", PORT)]),
            rule("keep", &[PORT], &[("regex", "^metrics$")]),
        ],
        &[(NUMBER, "9091"), (PORT, "metrics")],
    );
}

#[test]
fn hashmod_is_prometheus_own() {
    let hash = |from: &'static str, target| {
        rule("hashmod", &[from], Box::leak(Box::new([("target", target), ("modulus", "1000")])))
    };
    gives(ABC, vec![hash("c", "d")], &[("a", "foo"), ("b", "bar"), ("c", "baz"), ("d", "976")]);
    gives(&[("a", "foo\nbar")], vec![hash("a", "b")], &[("a", "foo\nbar"), ("b", "734")]);
}

#[test]
fn labelmap_copies_and_labeldrop_and_labelkeep_remove_by_name() {
    let labels: Pairs = &[("a", "foo"), ("b1", "bar"), ("b2", "baz")];
    gives(
        labels,
        vec![rule("labelmap", &[], &[("regex", "(b.*)"), ("replacement", "bar_${1}")])],
        &[("a", "foo"), ("b1", "bar"), ("b2", "baz"), ("bar_b1", "bar"), ("bar_b2", "baz")],
    );
    gives(
        &[
            ("a", "foo"),
            ("__meta_my_bar", "aaa"),
            ("__meta_my_baz", "bbb"),
            ("__meta_other", "ccc"),
        ],
        vec![rule("labelmap", &[], &[("regex", "__meta_(my.*)"), ("replacement", "${1}")])],
        &[
            ("__meta_my_bar", "aaa"),
            ("__meta_my_baz", "bbb"),
            ("__meta_other", "ccc"),
            ("a", "foo"),
            ("my_bar", "aaa"),
            ("my_baz", "bbb"),
        ],
    );
    gives(
        labels,
        vec![rule("labelkeep", &[], &[("regex", "(b.*)")])],
        &[("b1", "bar"), ("b2", "baz")],
    );
    gives(labels, vec![rule("labeldrop", &[], &[("regex", "(b.*)")])], &[("a", "foo")]);
    // What makes no name is skipped, and of two that make one the last counts, those that were set after
    // those that came.
    gives(labels, vec![rule("labelmap", &[], &[("regex", "b(.*)")])], labels);
    gives(
        labels,
        vec![
            rule("", &[], &[("target", "a"), ("replacement", "new")]),
            rule("labelmap", &[], &[("regex", ".*"), ("replacement", "x")]),
        ],
        &[("a", "new"), ("b1", "bar"), ("b2", "baz"), ("x", "new")],
    );
}

#[test]
fn case_changes_letter_by_letter() {
    gives(
        &[("foo", "bAr123Foo")],
        vec![
            rule("uppercase", &["foo"], &[("target", "foo_uppercase")]),
            rule("lowercase", &["foo"], &[("target", "foo_lowercase")]),
        ],
        &[("foo", "bAr123Foo"), ("foo_lowercase", "bar123foo"), ("foo_uppercase", "BAR123FOO")],
    );
    gives(
        &[("a", "straße İ")],
        vec![rule("uppercase", &["a"], &[("target", "a")])],
        &[("a", "STRAßE İ")],
    );
    gives(&[("a", "ÄİΣ")], vec![rule("lowercase", &["a"], &[("target", "a")])], &[("a", "äiσ")]);
    gives(
        ABC,
        vec![rule("lowercase", &["nope"], &[("target", "a")])],
        &[("b", "bar"), ("c", "baz")],
    );
}

#[test]
fn keepequal_and_dropequal_compare_with_the_target() {
    const PORTS: Pairs = &[("__port1", "1234"), ("__port2", "5678"), ("__tmp_port", "1234")];
    gives(PORTS, vec![rule("keepequal", &["__tmp_port"], &[("target", "__port1")])], PORTS);
    drops(PORTS, vec![rule("dropequal", &["__tmp_port"], &[("target", "__port1")])]);
    gives(PORTS, vec![rule("dropequal", &["__tmp_port"], &[("target", "__port2")])], PORTS);
    drops(PORTS, vec![rule("keepequal", &["__tmp_port"], &[("target", "__port2")])]);
}

#[track_caller]
fn refused(action: &str, from: &[&str], keys: Pairs, key: Option<&str>, why: &str) {
    let error = Rule::new(options(action, from, keys)).unwrap_err();
    assert_eq!(error.key, key, "{error}");
    assert!(error.to_string().contains(why), "{error}");
}

#[test]
fn what_prometheus_refuses_is_refused_with_the_key() {
    refused("", &[], &[], None, "needs a target_label");
    refused("lowercase", &["a"], &[], None, "needs a target_label");
    refused("keepequal", &["a"], &[("target", "")], Some("target_label"), "needs a target_label");
    for action in ["lowercase", "uppercase", "hashmod", "keepequal", "dropequal"] {
        let keys: Pairs = &[("target", "${3}"), ("modulus", "1")];
        let key = Some("target_label");
        refused(action, &["a"], keys, key, "is no label name");
    }
    refused("hashmod", &["a"], &[("target", "b")], None, "modulus");
    refused("", &["a"], &[("target", "0${3}")], Some("target_label"), "\"0${3}\"");
    refused("", &["a"], &[("target", "-${3}")], Some("target_label"), "\"-${3}\"");
    refused("", &["a"], &[("target", "a-b")], Some("target_label"), "\"a-b\"");
    refused("", &["a-b"], &[("target", "a")], Some("source_labels"), "\"a-b\"");
    refused("", &["a"], &[("target", "a"), ("regex", "(")], Some("regex"), "unclosed group");
    refused("lowercase", &["a"], &[("target", "a"), ("replacement", "x")], Some("replacement"), "");
    refused("labelmap", &[], &[("replacement", "-$1")], Some("replacement"), "no label names");
    for action in ["labeldrop", "labelkeep"] {
        refused(action, &["a"], &[("regex", "a")], Some("source_labels"), "regex alone");
        refused(action, &[], &[("target", "a")], Some("target_label"), "regex alone");
        refused(action, &[], &[("modulus", "2")], Some("modulus"), "regex alone");
        refused(action, &[], &[("separator", ",")], Some("separator"), "regex alone");
        refused(action, &[], &[("replacement", "a")], Some("replacement"), "regex alone");
    }
    for action in ["keepequal", "dropequal"] {
        refused(action, &["a"], &[("target", "b"), ("regex", "a")], Some("regex"), "target_label");
        let keys: Pairs = &[("target", "b"), ("separator", ",")];
        refused(action, &["a"], keys, Some("separator"), "target_label");
        let keys: Pairs = &[("target", "b"), ("replacement", ",")];
        refused(action, &["a"], keys, Some("replacement"), "target_label");
    }
    // Said again as it would be anyway.
    rule("labelkeep", &[], &[("replacement", "$1"), ("separator", ";"), ("target", "")]);
    rule("keepequal", &["a"], &[("target", "b"), ("regex", "(.*)")]);
    rule("drop", &[], &[("target", "a-b"), ("replacement", "-")]);
}

#[test]
fn targets_with_groups_in_them_are_those_of_prometheus() {
    for good in
        ["label", "label${1}", "${1}label", "${1}", "$1", "asd$2asd", "_${1}_", "foo${bar}foo"]
    {
        assert!(rule::is_target_template(good), "{good}");
    }
    for bad in ["-label", "${", "$", "${}", "foo${", "-foo${1}bar-", ""] {
        assert!(!rule::is_target_template(bad), "{bad}");
    }
}

#[test]
fn labels_that_grow_without_end_are_too_large() {
    let mut set = LabelSet::new();
    set.add("a", "xxxxxxxxxxxxxxxx");
    let keys: Pairs = &[("regex", "(.*)()"), ("target", "a"), ("replacement", "$1$1$1$1")];
    let rules: Rules = (0..40).map(|_| rule("", &["a"], keys)).collect();
    assert_eq!(rules.apply(&mut set), Verdict::TooLarge);
    set.clear();
    (0..100).for_each(|n| set.add(&format!("a{n}"), "1"));
    let keys: Pairs = &[("regex", "(.*)"), ("replacement", "x_$1")];
    let rules: Rules = (0..40).map(|_| rule("labelmap", &[], keys)).collect();
    assert_eq!(rules.apply(&mut set), Verdict::TooLarge);
}

/// Rules as their documentation says it, on a map. Two labels that are mapped to one name are left out.
fn model(
    rules: &[Options],
    mut labels: BTreeMap<String, String>,
) -> Option<BTreeMap<String, String>> {
    for rule in rules {
        let value = |name: &String| labels.get(name).cloned().unwrap_or_default();
        let sources: Vec<String> = rule.source_labels.iter().flatten().map(value).collect();
        let joined = sources.join(rule.separator.as_deref().unwrap_or(";"));
        let regex =
            regex::Regex::new(&format!("^(?:{})$", rule.regex.as_deref().unwrap_or("(.*)")));
        let regex = regex.unwrap();
        let target = rule.target_label.clone().unwrap_or_default();
        let template = rule.replacement.as_deref().unwrap_or("$1");
        let now = labels.get(&target).cloned().unwrap_or_default();
        let mut set = |name: String, value: String| match value.is_empty() {
            true => labels.remove(&name),
            false => labels.insert(name, value),
        };
        let stays = match rule.action.unwrap_or(Action::Replace) {
            Action::Replace => {
                if let Some(found) = regex.captures(&joined) {
                    let mut result = String::new();
                    found.expand(template, &mut result);
                    set(target, result);
                }
                true
            }
            Action::Keep => regex.is_match(&joined),
            Action::Drop => !regex.is_match(&joined),
            Action::KeepEqual => now == joined,
            Action::DropEqual => now != joined,
            Action::Lowercase => {
                set(target, joined.to_ascii_lowercase());
                true
            }
            Action::Uppercase => {
                set(target, joined.to_ascii_uppercase());
                true
            }
            Action::HashMod => {
                let hash = u128::from_be_bytes(md5::compute(&joined).0) as u64;
                set(target, (hash % u64::from(rule.modulus)).to_string());
                true
            }
            Action::LabelMap => {
                for (name, value) in labels.clone() {
                    if let Some(found) = regex.captures(&name) {
                        let mut to = String::new();
                        found.expand(template, &mut to);
                        labels.insert(to, value);
                    }
                }
                true
            }
            Action::LabelDrop => {
                labels.retain(|name, _| !regex.is_match(name));
                true
            }
            Action::LabelKeep => {
                labels.retain(|name, _| regex.is_match(name));
                true
            }
        };
        if !stays {
            return None;
        }
    }
    Some(labels)
}

fn any_rule() -> impl Strategy<Value = Options> {
    let name = || prop::sample::select(vec!["a", "b", "c", "d", "nope"]).prop_map(str::to_owned);
    let regex =
        prop::sample::select(vec!["(.*)", "([a-c]+)(.*)", "x?(a|b)", "(.)(.*)", "", ".+;.*"]);
    let replacement = prop::sample::select(vec!["$1", "", "y", "${2}-$1", "A$1$1"]);
    let action = prop::sample::select(Action::ALL.to_vec());
    let sources = prop::collection::vec(name(), 0..3);
    (action, sources, name(), regex, replacement, any::<bool>(), 1u32..50).prop_map(
        |((_, action), sources, target, regex, replacement, comma, modulus)| {
            let by_name = matches!(action, Action::LabelDrop | Action::LabelKeep);
            let equal = matches!(action, Action::KeepEqual | Action::DropEqual);
            let cased = matches!(action, Action::Lowercase | Action::Uppercase);
            let replacement = match action {
                // One name of each, so that no two become the same.
                Action::LabelMap => Some("m_${1}".to_owned()),
                _ => (!by_name && !equal && !cased).then(|| replacement.to_owned()),
            };
            let regex = if action == Action::LabelMap { "(a|b|m_.)" } else { regex };
            Options {
                source_labels: (!by_name).then_some(sources),
                separator: (comma && !by_name && !equal).then(|| ",".to_owned()),
                regex: (!equal).then(|| regex.to_owned()),
                modulus: if action == Action::HashMod { modulus } else { 0 },
                target_label: (!by_name).then_some(target),
                replacement,
                action: Some(action),
            }
        },
    )
}

proptest! {
    #[test]
    fn rules_of_any_kind_do_what_they_say(
        rules in prop::collection::vec(any_rule(), 0..6),
        labels in prop::collection::btree_map("[abcd]", "[abcxAB;日]{1,4}", 0..5),
    ) {
        let expected = model(&rules, labels.clone());
        let rules = rules.into_iter().map(|options| Rule::new(options).unwrap()).collect();
        let labels: Vec<_> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let got = relabel(rules, &labels);
        prop_assert_eq!(got, expected.map(|labels| labels.into_iter().collect::<Vec<_>>()));
    }
}
