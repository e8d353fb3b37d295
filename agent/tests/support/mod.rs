//! What the integration tests share: strict servers that decode every byte, a real Prometheus, and
//! certificates made on the spot. Nothing here uses the agent's own encoders, decoders or HTTP client.
//!
//! A test file that uses it opens with the second of the `allow`s below: clippy knows test code only by
//! its `#[test]`.

#![allow(
    dead_code,
    unused_imports,
    missing_docs,
    unreachable_pub,
    reason = "shared by several test programs"
)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

pub mod agent;
pub mod certificates;
pub mod cgroup;
pub mod dice;
pub mod dockerd;
pub mod fault;
pub mod gate;
pub mod http;
pub mod http2;
pub mod ledger;
pub mod machine;
pub mod message;
pub mod nameserver;
pub mod nginx;
pub mod pages;
pub mod port;
pub mod probed;
pub mod prometheus;
pub mod proxies;
pub mod slow_link;
pub mod small_disk;
pub mod strict_json;
pub mod strict_loki;
pub mod strict_mimir;
pub mod strict_receiver;
pub mod volume;
pub mod watch;
pub mod wire;

pub use agent::Agent;
pub use cgroup::Group;
pub use dice::Dice;
pub use dockerd::Dockerd;
pub use fault::Fault;
pub use gate::{Gate, Wire};
pub use http::Server;
pub use http2::Http2Server;
pub use machine::Journald;
pub use nginx::Nginx;
pub use pages::{Page, Pages};
pub use port::Port;
pub use prometheus::Prometheus;
pub use proxies::Proxy;
pub use slow_link::SlowLink;
pub use strict_loki::StrictLoki;
pub use strict_mimir::StrictMimir;
pub use volume::Volume;
pub use watch::Watch;
