//! node_exporter's `bonding`, from /sys/class/net/bonding_masters and what each bond has below it
//! (drivers/net/bonding/bond_sysfs.c): how many devices a bond has, and how many of them have a link.

use super::parse::{FirstError, Span, Texts, fields, text};
use super::{CollectError, Collector};
use crate::host::{Host, Root};
use crate::model::{Desc, Samples};

const SLAVES: Desc =
    Desc::gauge("node_bonding_slaves", "Number of configured slaves per bonding interface.");
const ACTIVE: Desc =
    Desc::gauge("node_bonding_active", "Number of active slaves per bonding interface.");

struct Bond {
    name: Span,
    slaves: u32,
    active: u32,
}

/// The devices of each bond.
#[derive(Default)]
pub(super) struct Bonding {
    bonds: Vec<Bond>,
    slaves: Vec<Span>,
    texts: Texts,
}

impl Collector for Bonding {
    fn collect(&mut self, host: &mut Host, out: &mut Samples) -> Result<(), CollectError> {
        let mut errors = FirstError::default();
        self.bonds.clear();
        self.texts.clear();
        for name in fields(host.sys("class/net/bonding_masters")?).filter(|name| is_name(name)) {
            let name = self.texts.keep(&text(name));
            self.bonds.push(Bond { name, slaves: 0, active: 0 });
        }
        for index in 0..self.bonds.len() {
            self.count(index, host).unwrap_or_else(|error| errors.note(error));
        }
        for (desc, value) in
            [(&SLAVES, (|bond| bond.slaves) as fn(&Bond) -> u32), (&ACTIVE, |bond| bond.active)]
        {
            let mut family = out.family(desc);
            for bond in &self.bonds {
                family.add(&[("master", self.texts.get(bond.name))], f64::from(value(bond)));
            }
        }
        errors.result()
    }
}

impl Bonding {
    fn count(&mut self, index: usize, host: &mut Host) -> Result<(), CollectError> {
        let Some(bond) = self.bonds.get_mut(index) else { return Ok(()) };
        let master = self.texts.get(bond.name);
        let slaves = host.sys(format_args!("class/net/{master}/bonding/slaves"))?;
        self.slaves.clear();
        for slave in fields(slaves).filter(|name| is_name(name)) {
            self.slaves.push(self.texts.keep(&text(slave)));
        }
        for slave in &self.slaves {
            let (master, slave) = (self.texts.get(bond.name), self.texts.get(*slave));
            bond.slaves += 1;
            // Before Linux 3.9 the link to the device had the other name.
            let up = ["lower", "slave"].iter().any(|link| {
                let path =
                    format_args!("class/net/{master}/{link}_{slave}/bonding_slave/mii_status");
                host.find(Root::Sys, path).is_some_and(|state| state.trim_ascii() == b"up")
            });
            bond.active += u32::from(up);
        }
        Ok(())
    }
}

/// Whether the word can be a device's name, and no way out of the directory.
fn is_name(word: &[u8]) -> bool {
    word.len() <= 15 && !word.contains(&b'/') && word != b".."
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn a_name_is_no_path() {
        assert!(is_name(b"bond0") && is_name(b"lan.4"));
        assert!(
            !is_name(b"../../../etc")
                && !is_name(b"..")
                && !is_name(b"a-name-of-16-by"[..].repeat(2).as_slice())
        );
    }
}
