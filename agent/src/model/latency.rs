//! The bounds of the agent's own histograms of latencies: powers of two of a second, which are those of a
//! native histogram of schema 0 (<https://prometheus.io/docs/specs/native_histograms/>). It must not know
//! who counts, nor who makes native histograms of them.

/// What the first bound is a power of two of: everything up to 2^-16 s is in one bucket.
pub const LATENCY_FIRST: i32 = -16;

/// The buckets' upper bounds in seconds, 2^-16 to 2^6, each written exactly and as Prometheus' clients
/// write numbers.
pub const LATENCY_BOUNDS: [&str; 23] = [
    "1.52587890625e-05",
    "3.0517578125e-05",
    "6.103515625e-05",
    "0.0001220703125",
    "0.000244140625",
    "0.00048828125",
    "0.0009765625",
    "0.001953125",
    "0.00390625",
    "0.0078125",
    "0.015625",
    "0.03125",
    "0.0625",
    "0.125",
    "0.25",
    "0.5",
    "1",
    "2",
    "4",
    "8",
    "16",
    "32",
    "64",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_the_powers_of_two_of_a_second() {
        for (exponent, bound) in (LATENCY_FIRST..).zip(LATENCY_BOUNDS) {
            let seconds = 2f64.powi(exponent);
            assert_eq!(bound.parse::<f64>().unwrap(), seconds, "{bound}");
            // The canonical form of Prometheus' clients: an exponent of two digits below 0.0001.
            let short = if seconds < 1e-4 { format!("{seconds:e}") } else { seconds.to_string() };
            assert_eq!(short, bound.replace("e-0", "e-"));
        }
    }
}
