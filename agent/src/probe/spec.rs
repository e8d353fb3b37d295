//! What a probe needs of the kernel, said in one place that the loader and the probe's own file share.

use super::format::{Format, FormatError};

/// A probe's programs, maps and fields.
pub(super) struct Spec {
    /// The probe's name, as configuration and labels have it.
    pub(super) name: &'static str,
    /// Its tracepoints, in the order in which they are attached.
    pub(super) tracepoints: &'static [Tracepoint],
    /// The maps that the agent reads, by the names that they have in the object.
    pub(super) maps: &'static [&'static str],
    /// A map whose size depends on the number of CPUs: its name, entries, and entries more a CPU.
    pub(super) sized: Option<(&'static str, u32, u32)>,
}

/// A tracepoint and the program that runs there, which has the event's name.
pub(super) struct Tracepoint {
    /// The folder below tracefs' `events`.
    pub(super) family: &'static str,
    /// The event in it.
    pub(super) event: &'static str,
    /// The fields that the program reads.
    pub(super) fields: &'static [Needed],
}

/// A field and the global of the object that takes its offset.
pub(super) struct Needed {
    pub(super) field: &'static str,
    pub(super) global: &'static str,
    pub(super) shape: Shape,
}

/// What the program takes the field for.
pub(super) enum Shape {
    /// A number of this many bytes.
    Number(u32),
    /// An array of at least this many bytes.
    Array(u32),
}

impl Needed {
    /// Where this kernel has the field.
    pub(super) fn resolve(&self, format: &Format) -> Result<u32, FormatError> {
        match self.shape {
            Shape::Number(size) => format.number(self.field, size),
            Shape::Array(at_least) => format.array(self.field, at_least),
        }
    }
}
