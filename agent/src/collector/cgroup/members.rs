//! The groups that are reported, by a name that is theirs alone, with what is known of each. Their number
//! has a bound, and who is known longest stays: series don't change hands when another group appears.

use std::collections::BTreeMap;

use crate::collector::parse::{Span, Texts};

/// Groups that don't count, because the user has excluded them, but are remembered.
const MAX_HIDDEN: usize = 256;

/// A group that is reported.
#[derive(Debug)]
pub(super) struct Member<T> {
    /// Where it is, below the tree's root.
    pub(super) path: String,
    /// What is known of it.
    pub(super) data: T,
    seen: bool,
    /// The user does not want it.
    pub(super) hidden: bool,
}

/// A bounded set of groups.
#[derive(Debug)]
pub(super) struct Members<T> {
    max: usize,
    by_name: BTreeMap<String, Member<T>>,
    /// Names of this round that nobody has yet, the path above and the name there; at most as many as there
    /// can be places.
    new: Vec<(Span, Span, Span)>,
    texts: Texts,
    beyond: u64,
}

impl<T> Members<T> {
    pub(super) fn new(max: usize) -> Members<T> {
        Members {
            max,
            by_name: BTreeMap::new(),
            new: Vec::new(),
            texts: Texts::default(),
            beyond: 0,
        }
    }

    /// Begins a round, in which nobody has been seen.
    pub(super) fn begin(&mut self) {
        self.by_name.values_mut().for_each(|member| member.seen = false);
        self.new.clear();
        self.texts.clear();
        self.beyond = 0;
    }

    /// Notes a group: its name, the path of the group above, and its name there.
    pub(super) fn see(&mut self, name: &str, above: &str, base: &str) {
        if let Some(member) = self.by_name.get_mut(name) {
            // The first group of a name is the one; a second is left over from an earlier life.
            if !member.seen {
                member.seen = true;
                if !is_path(&member.path, above, base) {
                    member.path.clear();
                    member.path.extend([above, "/", base]);
                }
            }
        } else if self.new.len() < self.max + MAX_HIDDEN {
            let texts = &mut self.texts;
            self.new.push((texts.keep(name), texts.keep(above), texts.keep(base)));
        } else {
            self.beyond += 1;
        }
    }

    /// Ends a round: forgets who is gone, and takes in who is new as far as there is room. Gives how many
    /// are left out.
    pub(super) fn end(&mut self, mut make: impl FnMut(&str, &str) -> T) -> u64 {
        self.by_name.retain(|_, member| member.seen);
        let mut left_out = self.beyond;
        let hidden = self.by_name.values().filter(|member| member.hidden).count();
        let mut shown = self.by_name.len() - hidden;
        for (name, above, base) in &self.new {
            let name = self.texts.get(*name);
            if self.by_name.contains_key(name) {
                continue;
            }
            if shown >= self.max || self.by_name.len() >= self.max + MAX_HIDDEN {
                left_out += 1;
                continue;
            }
            shown += 1;
            let path = [self.texts.get(*above), "/", self.texts.get(*base)].concat();
            let data = make(name, &path);
            let member = Member { path, data, seen: true, hidden: false };
            self.by_name.insert(name.to_owned(), member);
        }
        left_out
    }

    /// The groups in the order of their names.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Member<T>)> {
        self.by_name.iter_mut().map(|(name, member)| (name.as_str(), member))
    }

    /// Those that the user wants.
    pub(super) fn shown(&self) -> impl Iterator<Item = (&str, &Member<T>)> {
        self.by_name
            .iter()
            .filter(|(_, member)| !member.hidden)
            .map(|(name, member)| (name.as_str(), member))
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Member<T>> {
        self.by_name.get_mut(name)
    }
}

fn is_path(path: &str, above: &str, base: &str) -> bool {
    path.strip_prefix(above).and_then(|rest| rest.strip_prefix('/')) == Some(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(members: &mut Members<()>, names: &[&str]) -> (Vec<String>, u64) {
        members.begin();
        names.iter().for_each(|name| members.see(name, "/above", name));
        let left_out = members.end(|_, _| ());
        (members.shown().map(|(name, _)| name.to_owned()).collect(), left_out)
    }

    #[test]
    fn the_ones_known_longest_stay_and_what_is_left_out_is_counted() {
        let mut members = Members::new(2);
        assert_eq!(round(&mut members, &["m", "n"]), (vec!["m".into(), "n".into()], 0));
        assert_eq!(round(&mut members, &["a", "m", "n", "z"]), (vec!["m".into(), "n".into()], 2));
        assert_eq!(round(&mut members, &["a", "n", "z"]), (vec!["a".into(), "n".into()], 1));
        assert_eq!(round(&mut members, &[]), (vec![], 0));
    }

    #[test]
    fn thousands_that_come_and_go_leave_nothing() {
        let mut members = Members::new(100);
        for round in 0..20 {
            members.begin();
            for number in 0..10_000 {
                let name = format!("{round}-{number}");
                members.see(&name, "/a", &name);
            }
            assert_eq!(members.end(|_, _| ()), 9_900);
            assert_eq!(members.by_name.len(), 100);
            assert!(members.new.capacity() <= 1_024);
        }
    }

    #[test]
    fn a_second_group_of_a_name_is_none_and_a_moved_one_is_followed() {
        let mut members = Members::new(9);
        members.begin();
        members.see("x", "/a", "x.service");
        members.see("x", "/b", "x.service");
        assert_eq!(members.end(|_, _| ()), 0);
        assert_eq!(members.get_mut("x").unwrap().path, "/a/x.service");
        members.begin();
        members.see("x", "/b", "x.service");
        members.end(|_, _| ());
        assert_eq!(members.get_mut("x").unwrap().path, "/b/x.service");
    }

    #[test]
    fn what_the_user_hides_takes_no_place() {
        let mut members = Members::new(1);
        round(&mut members, &["a"]);
        members.get_mut("a").unwrap().hidden = true;
        assert_eq!(round(&mut members, &["a", "b", "c"]), (vec!["b".into()], 1));
    }
}
