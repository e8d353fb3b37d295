//! The probe `thermal`: zones that are at or above a trip point, where the kernel switches a fan on, slows
//! the CPU down or turns the machine off. The program is agent-ebpf/src/thermal.rs.

use agent_common::event::Kind;
use agent_common::thermal::{ThermalKey, ZONE, trip_type};
use aya::maps::MapError;

use super::errors::{Attached, Devices, Family, LOST_MAP};
use super::fallback::Fallback;
use super::record::Record;
use super::spec::{Shape, Sized, Spec, Tracepoint, needed};
use super::{Moment, Probe, Round};
use crate::host::Host;
use crate::model::{Desc, Event};

/// What the loader has to find for it.
pub(super) static SPEC: Spec = Spec {
    name: "thermal",
    about: "thermal zones at or above a trip point",
    tracepoints: &[Tracepoint {
        family: "thermal",
        event: "thermal_zone_trip",
        optional: false,
        fields: &[
            needed("thermal_zone", "THERMAL_NAME", Shape::Text),
            needed("id", "THERMAL_ZONE", Shape::Number(4)),
            needed("trip", "THERMAL_TRIP", Shape::Number(4)),
            needed("trip_type", "THERMAL_TYPE", Shape::Number(4)),
        ],
    }],
    maps: &["THERMAL_TRIPS", LOST_MAP],
    sized: &[
        Sized { map: "THERMAL_TRIPS", base: 64, each_device: 0, most: 64, mask: None },
        Sized { map: "THERMAL_LAST", base: 64, each_device: 0, most: 64, mask: None },
    ],
    events: &[Kind::Thermal],
    start: |report| Ok(Box::new(Thermal(Attached::new(SPEC.name, FAMILY, report)?))),
    fallback: Fallback::Kmsg,
};

pub(super) const TRIPS: Desc = Desc::counter(
    "mote_thermal_trips_total",
    "Times that a thermal zone was found at or above a trip point, by the point's type. The zone is \
     the number in thermal_zoneN.",
);
const FAMILY: Family<2> = Family { desc: &TRIPS, labels: ["type", "zone"], kind: Kind::Thermal };

/// The attached probe. Dropped, it detaches.
struct Thermal(Attached<ThermalKey, 2>);

impl Probe for Thermal {
    fn collect(&mut self, round: &mut Round<'_>) -> Result<(), MapError> {
        self.0.collect(round.out, Zones(round.host))
    }

    fn event(&mut self, moment: &mut Moment<'_>, event: Record<'_>) -> Option<Event> {
        describe(moment.host, moment.at_ns, event)
    }
}

/// What the keys mean on this host.
struct Zones<'a>(&'a Host);

impl Devices<ThermalKey, 2> for Zones<'_> {
    fn name(&mut self, key: &ThermalKey) -> [String; 2] {
        [trip_type(key.trip_type).to_owned(), key.zone.to_string()]
    }

    fn is_gone(&mut self, key: &ThermalKey) -> bool {
        !self.0.roots().sys.join(format!("class/thermal/thermal_zone{}", key.zone)).exists()
    }
}

fn describe(host: &mut Host, at_ns: i64, mut event: Record<'_>) -> Option<Event> {
    let (zone, kind, trip) = (event.u32()?, event.u32()?, event.u32()?);
    let _padding = event.u32()?;
    let name = event.text::<ZONE>()?;
    let kind = trip_type(kind);
    let celsius = celsius(host, zone);
    let at = celsius.as_ref().map(|celsius| format!(" at {celsius} °C")).unwrap_or_default();
    let message = format!("thermal zone {zone} ({name}) has reached its {kind} trip point{at}");
    let event = Event::new("thermal_trip", at_ns, message)
        .with("zone", zone.to_string())
        .with("name", name)
        .with("trip", trip.to_string())
        .with("type", kind);
    Some(match celsius {
        Some(celsius) => event.with("celsius", celsius),
        None => event,
    })
}

/// The zone's temperature at this moment, of which the kernel says thousandths.
fn celsius(host: &mut Host, zone: u32) -> Option<String> {
    let bytes = host.sys(format_args!("class/thermal/thermal_zone{zone}/temp")).ok()?;
    let thousandths: i64 = std::str::from_utf8(bytes).ok()?.trim().parse().ok()?;
    Some((thousandths as f64 / 1000.0).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Roots;

    fn bytes() -> Vec<u8> {
        let mut bytes: Vec<u8> = [3, 1, 2, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        bytes.extend(*b"cpu-thermal\0\0\0\0\0\0\0\0\0\0\0\0\0");
        bytes
    }

    #[test]
    fn an_event_has_the_temperature_where_it_can_be_read() {
        let sys = tempfile::tempdir().unwrap();
        let mut host = Host::new(Roots { sys: sys.path().into(), ..Roots::default() });
        let event = describe(&mut host, 7, Record::new(&bytes())).unwrap();
        let without = "thermal zone 3 (cpu-thermal) has reached its passive trip point";
        assert_eq!((event.message.as_str(), event.fields.len()), (without, 4));
        let folder = sys.path().join("class/thermal/thermal_zone3");
        std::fs::create_dir_all(&folder).unwrap();
        for (temp, told) in [("81500\n", Some("81.5")), ("-4000\n", Some("-4")), ("hot\n", None)] {
            std::fs::write(folder.join("temp"), temp).unwrap();
            let event = describe(&mut host, 7, Record::new(&bytes())).unwrap();
            let celsius = event.fields.iter().find(|(name, _)| *name == "celsius");
            assert_eq!(celsius.map(|(_, value)| value.as_str()), told);
        }
    }

    #[test]
    fn an_event_that_is_cut_is_none() {
        let mut host = Host::new(Roots { sys: "/nonexistent".into(), ..Roots::default() });
        let whole = bytes();
        for len in 0..whole.len() {
            assert_eq!(describe(&mut host, 7, Record::new(&whole[..len])), None, "{len}");
        }
    }
}
