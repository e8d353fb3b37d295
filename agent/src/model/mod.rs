//! What flows through the agent: samples and rounds of them, entries and blocks of them, and the
//! labels of both. Plain data with bounds; this folder imports nothing of the crate.

mod block;
mod desc;
mod event;
mod labels;
mod metadata;
mod samples;
mod shape;

pub use block::{Block, EntryRef, PositionRef, StreamId};
pub use desc::{Desc, Kind};
pub use event::Event;
pub(crate) use labels::is_label_name;
pub use labels::{LabelError, Labels};
pub use metadata::{Metadata, Pairs};
pub use samples::{Family, STALE, Sample, Samples, Sections, Suffix};
pub use shape::Shape;
