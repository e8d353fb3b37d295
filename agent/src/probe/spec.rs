//! What a probe needs of the kernel, said in one place that the loader and the probe's own file share.

use agent_common::{ABSENT, field_place};

use super::channel::Report;
use super::fallback::Fallback;
use super::format::{Field, Format, FormatError};
use super::{Probe, Source};

/// A probe's programs, maps and fields.
pub(super) struct Spec {
    /// The probe's name, as configuration and labels have it.
    pub(super) name: &'static str,
    /// What it is about, for the configuration reference.
    pub(super) about: &'static str,
    /// Its tracepoints, in the order in which they are attached; none for a probe of other sources.
    pub(super) tracepoints: &'static [Tracepoint],
    /// The maps that the agent reads, by the names that they have in the object.
    pub(super) maps: &'static [&'static str],
    /// The maps whose size depends on the host.
    pub(super) sized: &'static [Sized],
    /// The kinds of event that its programs hand over.
    pub(super) events: &'static [agent_common::event::Kind],
    /// Makes the probe of what the loader handed over.
    pub(super) start: fn(Report) -> Result<Box<dyn Probe>, String>,
    /// What it uses where that can't be.
    pub(super) fallback: Fallback,
}

impl Spec {
    /// The source that is wanted.
    pub(super) fn best(&self) -> Source {
        if self.tracepoints.is_empty() { Source::Kmsg } else { Source::Tracepoint }
    }

    /// A probe that has no tracepoint anywhere.
    pub(super) const fn of_log(name: &'static str, about: &'static str) -> Spec {
        Spec {
            name,
            about,
            tracepoints: &[],
            maps: &[],
            sized: &[],
            events: &[],
            start: |_| Err("it has no programs".to_owned()),
            fallback: Fallback::Kmsg,
        }
    }
}

/// A tracepoint and the program that runs there, which has the event's name.
pub(super) struct Tracepoint {
    /// The folder below tracefs' `events`.
    pub(super) family: &'static str,
    /// The event in it.
    pub(super) event: &'static str,
    /// Whether the probe is of use without it.
    pub(super) optional: bool,
    /// The fields that the program reads.
    pub(super) fields: &'static [Needed],
}

/// A field and where the object takes its place.
pub(super) struct Needed {
    pub(super) field: &'static str,
    pub(super) target: Target,
    pub(super) shape: Shape,
    pub(super) presence: Presence,
}

/// Where the object takes a field's place.
#[derive(Clone, Copy)]
pub(super) enum Target {
    /// In a global of this name.
    Global(&'static str),
    /// In the load instructions themselves, which have this number of `agent_common::direct`.
    Direct(i16),
}

/// What the program takes the field for.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// A number of this many bytes.
    Number(u32),
    /// An `unsigned long` or a pointer, of 4 or 8 bytes.
    Word,
    /// An array of at least this many bytes.
    Array(u32),
    /// A string behind the fields (`__data_loc`).
    Text,
}

/// Whether the program can do without the field.
#[derive(Clone, Copy)]
pub(super) enum Presence {
    Required,
    /// Without it a label or a detail is missing.
    Optional,
    /// It stands in for another tracepoint of the probe's, and is not looked at where that one is used.
    Without(&'static str),
}

/// How many entries a map has.
pub(super) struct Sized {
    pub(super) map: &'static str,
    /// Entries on any host.
    pub(super) base: u32,
    /// Entries more for each block device.
    pub(super) each_device: u32,
    /// The most.
    pub(super) most: u32,
    /// The global that holds the number of entries less one, which is then a power of two.
    pub(super) mask: Option<&'static str>,
}

impl Sized {
    /// The entries on a host with so many block devices.
    pub(super) fn entries(&self, devices: u32) -> u32 {
        let wanted = self.base.saturating_add(self.each_device.saturating_mul(devices));
        let entries = wanted.min(self.most);
        if self.mask.is_some() { entries.next_power_of_two() } else { entries }
    }
}

/// A field that the program can't do without.
pub(super) const fn needed(field: &'static str, global: &'static str, shape: Shape) -> Needed {
    Needed { field, target: Target::Global(global), shape, presence: Presence::Required }
}

/// A field that the program uses where it is there.
pub(super) const fn optional(field: &'static str, global: &'static str, shape: Shape) -> Needed {
    Needed { field, target: Target::Global(global), shape, presence: Presence::Optional }
}

/// A field that the program can't do without, and reads without a helper's call.
pub(super) const fn direct(field: &'static str, number: i16, shape: Shape) -> Needed {
    Needed { field, target: Target::Direct(number), shape, presence: Presence::Required }
}

impl Needed {
    /// The field on this kernel; `usable` says which of the probe's tracepoints are used. None where the
    /// program does without it.
    ///
    /// # Errors
    /// A field that is required is not there or has another shape.
    pub(super) fn resolve<'f>(
        &self,
        format: &'f Format,
        usable: impl Fn(&str) -> bool,
    ) -> Result<Option<&'f Field>, FormatError> {
        if let Presence::Without(event) = self.presence
            && usable(event)
        {
            return Ok(None);
        }
        let found = match self.shape {
            Shape::Number(size) => format.number(self.field, size),
            Shape::Word => format.word(self.field),
            Shape::Array(at_least) => format.array(self.field, at_least),
            Shape::Text => format.text(self.field),
        };
        match (found, self.presence) {
            (Ok(field), _) => Ok(Some(field)),
            (Err(_), Presence::Optional) => Ok(None),
            (Err(error), _) => Err(error),
        }
    }
}

/// What a global holds for a field. Offsets are below 64 KiB, and a size matters only where it may be 4
/// or 8.
pub(super) fn place(field: Option<&Field>) -> u32 {
    let Some(field) = field else { return ABSENT };
    let offset = u16::try_from(field.offset).unwrap_or(u16::MAX);
    field_place(offset, u8::try_from(field.size).unwrap_or(u8::MAX))
}
