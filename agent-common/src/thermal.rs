//! Thermal zones: what the program on `thermal:thermal_zone_trip` counts and hands over.

use crate::event::Header;
use crate::plain::plain;

plain!(ThermalKey);

/// Bytes of a zone's name with its NUL (THERMAL_NAME_LENGTH of include/uapi/linux/thermal.h is 20).
pub const ZONE: usize = 24;

/// A trip point is left when nothing was heard of it for so long, in nanoseconds; the next time is another
/// event. Zones above a passive trip point are looked at every second or more often.
pub const LEFT_NS: u64 = 60_000_000_000;

/// What a zone does at a trip point (include/uapi/linux/thermal.h, enum thermal_trip_type).
pub const fn trip_type(number: u32) -> &'static str {
    match number {
        0 => "active",
        1 => "passive",
        2 => "hot",
        3 => "critical",
        _ => "other",
    }
}

/// What trips are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct ThermalKey {
    /// The number of the zone, as in /sys/class/thermal/thermal_zoneN.
    pub zone: u32,
    /// The trip point's type; see [`trip_type`].
    pub trip_type: u32,
}

/// A trip point of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct ThermalPoint {
    /// The number of the zone.
    pub zone: u32,
    /// The number of the trip point in it.
    pub trip: u32,
}

/// A zone that has reached a trip point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct ThermalEvent {
    /// The kind is [`Kind::Thermal`](crate::event::Kind::Thermal).
    pub header: Header,
    /// The zone, and the type of its trip point.
    pub key: ThermalKey,
    /// The number of the trip point.
    pub trip: u32,
    /// Always 0.
    pub padding: u32,
    /// The zone's name, which is its type: `cpu-thermal`.
    pub name: [u8; ZONE],
}

const _: () = {
    assert!(size_of::<ThermalKey>() == 8);
    assert!(size_of::<ThermalPoint>() == 8);
    assert!(size_of::<ThermalEvent>() == 56);
};
