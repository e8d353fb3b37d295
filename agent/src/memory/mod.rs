//! Memory: how much the program has allocated, for which part, and which parts give back when it is too
//! much. It must not know what the parts are made of.
//!
//! The limit is a soft one on live bytes, as Go's `GOMEMLIMIT`: nothing fails to allocate. Instead each part
//! that can grow asks before it does ([`Budget::take`]), and looks at the [`Pressure`] where it grows all the
//! same. Steps of giving back begin below the limit, in the order of what is missed least:
//!
//! | live bytes, of the limit | step | what is given back |
//! |---|---|---|
//! | 70 % | `caches` | buffers that are kept for the next time; freed memory goes back to the system |
//! | 80 % | `batches` | batches have one record, requests 64 KiB |
//! | 85 % | `logs` | log sources are read no further: the lines stay where they are |
//! | 90 % | `scrapes` | targets are not scraped, and a page that is being read is given up |
//! | 95 % | `collectors` | collectors that rest or are slow are passed over |
//!
//! Rounds of the host's metrics go on. A step ends 5 % below where it began. A cgroup's limit lowers the limit to
//! what it leaves for live bytes, and what its tasks wait for memory (PSI) begins steps as well.

mod budget;
mod code;
mod counting;
mod heap;
mod measured;
mod outside;

pub use budget::{Budget, Lease, PARTS, Part, PartUse, Pressure};
pub use code::let_go_of_code;
pub use counting::{Counting, allocations, live_bytes, peak_bytes};
pub use heap::{keep_little, trim};
pub use measured::Measured;
pub use outside::{Outside, Seen};
