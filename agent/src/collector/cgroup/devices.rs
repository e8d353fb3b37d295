//! The names of the block devices of one round, by their numbers, from the links in /sys/dev/block. Asked
//! once a round for each device, because a number may be another device's in the next.

use crate::collector::options::excludes;
use crate::collector::parse::{Span, Texts, text};
use crate::collector::pattern::Pattern;
use crate::host::{Host, Root};

/// A device of this round, by its place among them.
pub(super) type Index = u16;

/// No machine of ours has so many that do I/O.
const MAX: usize = 1_024;

#[derive(Debug)]
struct Device {
    number: (u32, u32),
    name: Span,
    /// The user does not want it.
    hidden: bool,
}

/// The devices of one round.
#[derive(Debug)]
pub(super) struct Devices {
    exclude: Option<Pattern>,
    all: Vec<Device>,
    texts: Texts,
}

impl Devices {
    pub(super) fn new(exclude: Option<Pattern>) -> Devices {
        Devices { exclude, all: Vec::new(), texts: Texts::default() }
    }

    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.texts.clear();
    }

    /// A device by major and minor number; none if it is left out.
    pub(super) fn index(&mut self, host: &mut Host, number: (u32, u32)) -> Option<Index> {
        let known = self.all.iter().position(|device| device.number == number);
        let index = match known {
            Some(index) => index,
            None if self.all.len() >= MAX => return None,
            None => {
                self.add(host, number);
                self.all.len() - 1
            }
        };
        let device = self.all.get(index)?;
        if device.hidden { None } else { Index::try_from(index).ok() }
    }

    /// The device's name.
    pub(super) fn name(&self, index: Index) -> &str {
        self.all.get(usize::from(index)).map_or("", |device| self.texts.get(device.name))
    }

    fn add(&mut self, host: &mut Host, number: (u32, u32)) {
        let (major, minor) = number;
        let link = host.link(Root::Sys, format_args!("dev/block/{major}:{minor}")).ok();
        let name = link.and_then(|target| target.rsplit(|&byte| byte == b'/').next());
        let hidden = name.is_some_and(|name| excludes(self.exclude.as_ref(), name));
        let name = match name.filter(|name| !name.is_empty()) {
            Some(name) => self.texts.keep(&text(name)),
            // A device that has gone, of which the kernel still has counts.
            None => {
                let mut numbers = heapless::String::<24>::new();
                let _ = std::fmt::Write::write_fmt(&mut numbers, format_args!("{major}:{minor}"));
                self.texts.keep(&numbers)
            }
        };
        self.all.push(Device { number, name, hidden });
    }
}

/// The numbers of a device, such as `8:16`.
pub(super) fn numbers(token: &[u8]) -> Option<(u32, u32)> {
    let colon = token.iter().position(|&byte| byte == b':')?;
    let (major, minor) = (token.get(..colon)?, token.get(colon + 1..)?);
    let number = |digits| crate::host::text::unsigned(digits).and_then(|n| u32::try_from(n).ok());
    Some((number(major)?, number(minor)?))
}
