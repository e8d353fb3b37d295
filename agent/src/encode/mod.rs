//! Bytes from samples and entries, and back: rounds and blocks as the WAL keeps them, remote write and
//! Loki's push as the servers take them, the Prometheus text format.

pub mod text;
