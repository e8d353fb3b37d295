//! What may change a sample's series on its way into [`Samples`](super::Samples), or keep it out.

/// Something that samples pass; it lives as long as they are collected.
pub trait Shape: std::fmt::Debug {
    /// Decides on a series whose key is what stands in `keys` from `start` on: false lets it go, and `keys`
    /// is cut off there then; else another key may stand there. `own` says that the sample is one that
    /// the agent adds by itself, such as `up`, which no rule of the user's is for.
    fn shape(&mut self, keys: &mut Vec<u8>, start: usize, own: bool) -> bool;
}
