//! Memory: how much the program has allocated. It must not know who allocates.

mod counting;

pub use counting::{Counting, live_bytes};
