//! The description of a metric family: name, help and type.

/// The type of a metric family, as the Prometheus text format names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The source does not say; node_exporter's `untyped`.
    Untyped = 0,
    /// Only rises, except at a restart of its source.
    Counter = 1,
    /// Goes up and down.
    Gauge = 2,
    /// Cumulative buckets, a sum and a count.
    Histogram = 3,
    /// Quantiles, a sum and a count; only from outside, as in the text that `textfile` reads.
    Summary = 4,
}

impl Kind {
    /// The word of the text exposition format.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Untyped => "untyped",
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        }
    }

    /// The name of the family of a histogram's or a summary's series; of others, their own.
    pub fn family(self, name: &str) -> &str {
        let suffixes = match self {
            Kind::Histogram => &["_bucket", "_sum", "_count"][..],
            Kind::Summary => &["_sum", "_count"],
            _ => &[],
        };
        suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
    }

    /// The inverse of `kind as u8`, for what is read back from disk.
    pub fn from_u8(byte: u8) -> Option<Kind> {
        Some(match byte {
            0 => Kind::Untyped,
            1 => Kind::Counter,
            2 => Kind::Gauge,
            3 => Kind::Histogram,
            4 => Kind::Summary,
            _ => return None,
        })
    }
}

/// A metric family whose name is known when the program is compiled.
#[derive(Clone, Copy, Debug)]
pub struct Desc {
    /// The family's name, in base units and with the `_total` of a counter.
    pub name: &'static str,
    /// One sentence, as node_exporter writes it where the family is node_exporter's.
    pub help: &'static str,
    /// The type.
    pub kind: Kind,
}

impl Desc {
    /// A family that only rises.
    pub const fn counter(name: &'static str, help: &'static str) -> Desc {
        Desc { name, help, kind: Kind::Counter }
    }

    /// A family that goes up and down.
    pub const fn gauge(name: &'static str, help: &'static str) -> Desc {
        Desc { name, help, kind: Kind::Gauge }
    }

    /// A family of cumulative buckets; `name` is without `_bucket`, `_sum` and `_count`.
    pub const fn histogram(name: &'static str, help: &'static str) -> Desc {
        Desc { name, help, kind: Kind::Histogram }
    }

    /// A family whose source gives no type.
    pub const fn untyped(name: &'static str, help: &'static str) -> Desc {
        Desc { name, help, kind: Kind::Untyped }
    }
}
