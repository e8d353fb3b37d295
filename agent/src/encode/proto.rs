//! The messages of remote write 1.0 and of Loki's push, as prost types with the field numbers of the
//! published .proto files (prometheus/prometheus prompb/remote.proto and types.proto, grafana/loki
//! pkg/push/push.proto, google/protobuf/timestamp.proto).
//!
//! The encoders beside this file write the same bytes without building these trees; the types are the
//! reference that they are tested against. Exemplars and native histograms are left out: Mote has none.

/// For tests elsewhere that read what was written.
#[cfg(test)]
pub(crate) use prost::Message;

/// Remote write's request (`prometheus.WriteRequest`). Field 2 is reserved.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteRequest {
    /// Series with their samples.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
    /// Types and help texts of metric families.
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<MetricMetadata>,
}

/// A series and samples of it (`prometheus.TimeSeries`).
#[derive(Clone, PartialEq, prost::Message)]
pub struct TimeSeries {
    /// Labels in the order of their names, `__name__` among them.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// Samples in the order of their timestamps.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
}

/// `prometheus.Label`
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Label {
    /// `[a-zA-Z_][a-zA-Z0-9_]*`
    #[prost(string, tag = "1")]
    pub name: String,
    /// Any UTF-8; a label with an empty value is one that the series does not have.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `prometheus.Sample`
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Sample {
    /// The value.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Milliseconds since the Unix epoch.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

/// `prometheus.MetricMetadata`
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct MetricMetadata {
    /// The family's type.
    #[prost(enumeration = "MetricType", tag = "1")]
    pub r#type: i32,
    /// The family's name.
    #[prost(string, tag = "2")]
    pub metric_family_name: String,
    /// One sentence.
    #[prost(string, tag = "4")]
    pub help: String,
    /// The unit, without which Prometheus does very well.
    #[prost(string, tag = "5")]
    pub unit: String,
}

/// `prometheus.MetricMetadata.MetricType`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
#[allow(missing_docs, reason = "the names say it")]
pub enum MetricType {
    Unknown = 0,
    Counter = 1,
    Gauge = 2,
    Histogram = 3,
    GaugeHistogram = 4,
    Summary = 5,
    Info = 6,
    Stateset = 7,
}

/// Loki's push (`logproto.PushRequest`).
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct PushRequest {
    /// Streams with their entries.
    #[prost(message, repeated, tag = "1")]
    pub streams: Vec<StreamAdapter>,
}

/// `logproto.StreamAdapter`. Field 3 is a hash that only Loki itself fills.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct StreamAdapter {
    /// The labels as a LogQL selector: `{a="1", b="2"}`.
    #[prost(string, tag = "1")]
    pub labels: String,
    /// Entries in the order of their timestamps.
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<EntryAdapter>,
}

/// `logproto.EntryAdapter`. Field 4 is only in Loki's answers.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct EntryAdapter {
    /// When; always there.
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    /// The line, without its line break.
    #[prost(string, tag = "2")]
    pub line: String,
    /// Pairs that are stored with the entry and don't make a stream.
    #[prost(message, repeated, tag = "3")]
    pub structured_metadata: Vec<LabelPairAdapter>,
}

/// `logproto.LabelPairAdapter`
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct LabelPairAdapter {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `google.protobuf.Timestamp`
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Timestamp {
    /// Whole seconds since the Unix epoch, rounded down; negative before 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds from there on, 0 to 999,999,999 also before 1970.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}
