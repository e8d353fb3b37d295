//! Thermal zones: `thermal:thermal_zone_trip` (handle_critical_trips in drivers/thermal/thermal_core.c, and
//! the governors) comes not once when a zone reaches a trip point, but each time that the zone is found at
//! or above it. All are counted; only the first of a stay is an event.

use agent_common::ABSENT;
use agent_common::event::Kind;
use agent_common::thermal::{LEFT_NS, ThermalEvent, ThermalKey, ThermalPoint, ZONE};
use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::macros::{map, tracepoint};
use aya_ebpf::maps::{HashMap, PerCpuHashMap};
use aya_ebpf::programs::TracePointContext;

use crate::errors;
use crate::event::{emit, header};
use crate::fields::{field, text};
use crate::say::say;

#[unsafe(no_mangle)]
static THERMAL_NAME: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static THERMAL_ZONE: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static THERMAL_TRIP: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static THERMAL_TYPE: Global<u32> = Global::new(ABSENT);

/// Trips: some zones, each with four types at most.
#[map]
static THERMAL_TRIPS: PerCpuHashMap<ThermalKey, u64> = PerCpuHashMap::with_max_entries(64, 0);

/// When each trip point was last heard of, in nanoseconds of CLOCK_MONOTONIC. One that finds no room is
/// an event each time.
#[map]
static THERMAL_LAST: HashMap<ThermalPoint, u64> = HashMap::with_max_entries(64, 0);

#[tracepoint]
fn thermal_zone_trip(ctx: TracePointContext) -> u32 {
    let Some(zone) = field(&ctx, &THERMAL_ZONE) else { return 0 };
    let Some(trip) = field(&ctx, &THERMAL_TRIP) else { return 0 };
    let Some(trip_type) = field(&ctx, &THERMAL_TYPE) else { return 0 };
    let key = ThermalKey { zone, trip_type };
    errors::count(&THERMAL_TRIPS, &key, Kind::Thermal);
    let header = header(Kind::Thermal);
    let point = ThermalPoint { zone, trip };
    // SAFETY: entries are preallocated and never removed; a zone is looked at under its lock.
    let last = unsafe { THERMAL_LAST.get(point) }.copied();
    let _ = THERMAL_LAST.insert(point, header.at_ns, BPF_ANY as u64);
    if last.is_some_and(|last| header.at_ns.wrapping_sub(last) < LEFT_NS) {
        return 0;
    }
    say!(&ctx, "thermal_zone_trip: zone {} trip {} type {}", zone, trip, trip_type);
    let mut event = ThermalEvent { header, key, trip, padding: 0, name: [0; ZONE] };
    text(&ctx, &THERMAL_NAME, &mut event.name);
    emit(&ctx, Kind::Thermal, &header, &event);
    0
}
