//! The logs of containers.

pub mod disk;
