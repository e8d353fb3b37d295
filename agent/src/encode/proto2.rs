//! The messages of remote write 2.0 as prost types, with the field numbers of the specification 2.0-rc.4
//! (prometheus/docs docs/specs/prw/remote_write_spec_2_0.md and prometheus/prometheus
//! prompb/io/prometheus/write/v2/types.proto). The reference that the encoder beside this file is tested
//! against. Exemplars are left out: Mote has none.

/// `io.prometheus.write.v2.Request`. Fields 1 to 3 are reserved, so that a receiver of 1.0 finds nothing.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// Each string once, the empty one first.
    #[prost(string, repeated, tag = "4")]
    pub symbols: Vec<String>,
    /// Series with their samples.
    #[prost(message, repeated, tag = "5")]
    pub timeseries: Vec<TimeSeries>,
}

/// `io.prometheus.write.v2.TimeSeries`. Field 6 is reserved: a series' start until rc.3, which is each
/// sample's now.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TimeSeries {
    /// Name and value in turn, in the order of the names, as numbers of symbols.
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    /// Samples in the order of their timestamps; or else histograms.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    /// Histograms in the order of their timestamps.
    #[prost(message, repeated, tag = "3")]
    pub histograms: Vec<Histogram>,
    /// What the series means.
    #[prost(message, optional, tag = "5")]
    pub metadata: Option<Metadata>,
}

/// `io.prometheus.write.v2.Sample`
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Sample {
    /// The value.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Milliseconds since the Unix epoch.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
    /// When it began to count, in milliseconds since the Unix epoch; 0 if that is not known.
    #[prost(int64, tag = "3")]
    pub start_timestamp: i64,
}

/// `io.prometheus.write.v2.Metadata`. There is no field 2.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Metadata {
    /// `MetricType` as in 1.0: 1 counter, 2 gauge, 3 histogram, 5 summary.
    #[prost(int32, tag = "1")]
    pub r#type: i32,
    /// The symbol of the help text.
    #[prost(uint32, tag = "3")]
    pub help_ref: u32,
    /// The symbol of the unit.
    #[prost(uint32, tag = "4")]
    pub unit_ref: u32,
}

/// `io.prometheus.write.v2.Histogram`, of whole counts; the fields of negative observations, of floats
/// and of custom bounds are left out.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Histogram {
    /// All observations.
    #[prost(oneof = "Count", tags = "1")]
    pub count: Option<Count>,
    /// Their sum.
    #[prost(double, tag = "3")]
    pub sum: f64,
    /// Bounds are powers of 2^(2^-schema).
    #[prost(sint32, tag = "4")]
    pub schema: i32,
    /// The bucket of zero goes up to here.
    #[prost(double, tag = "5")]
    pub zero_threshold: f64,
    /// What is in the bucket of zero.
    #[prost(oneof = "ZeroCount", tags = "6")]
    pub zero_count: Option<ZeroCount>,
    /// Where there are buckets.
    #[prost(message, repeated, tag = "11")]
    pub positive_spans: Vec<BucketSpan>,
    /// Each bucket's count less that of the one before.
    #[prost(sint64, repeated, tag = "12")]
    pub positive_deltas: Vec<i64>,
    /// 0: the receiver finds out whether counting began anew.
    #[prost(int32, tag = "14")]
    pub reset_hint: i32,
    /// Milliseconds since the Unix epoch.
    #[prost(int64, tag = "15")]
    pub timestamp: i64,
    /// As a sample's.
    #[prost(int64, tag = "17")]
    pub start_timestamp: i64,
}

/// A histogram's count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Oneof)]
pub enum Count {
    /// As a whole number.
    #[prost(uint64, tag = "1")]
    Int(u64),
}

/// What is in the bucket of zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Oneof)]
pub enum ZeroCount {
    /// As a whole number.
    #[prost(uint64, tag = "6")]
    Int(u64),
}

/// `io.prometheus.write.v2.BucketSpan`
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct BucketSpan {
    /// From the end of the span before; the first one's is its bucket's own number.
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    /// Buckets.
    #[prost(uint32, tag = "2")]
    pub length: u32,
}
