//! The programs' maps as the probes read them. What a value means is the probe's.

use std::io;
use std::os::fd::OwnedFd;

use agent_common::plain::Plain;
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap};

/// A key or a value.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Value<T>(pub(super) T);

#[expect(unsafe_code, reason = "aya reads and writes keys and values as plain bytes")]
// SAFETY: transparent, and `Plain` promises that every pattern of bytes is a value and that every byte of
// a value is initialised.
unsafe impl<T: Plain> aya::Pod for Value<T> {}

pub(super) type PerCpu<T> = PerCpuArray<MapData, Value<T>>;
pub(super) type PerCpuTable<K, V> = PerCpuHashMap<MapData, Value<K>, Value<V>>;
pub(super) type Table<K, V> = HashMap<MapData, Value<K>, Value<V>>;

/// The maps of a report: as many as the probe asks for, in the order of its specification.
pub(super) fn all<const N: usize>(maps: Vec<OwnedFd>) -> Result<[OwnedFd; N], String> {
    <[OwnedFd; N]>::try_from(maps)
        .map_err(|maps| format!("the loader gave {} maps instead of {N}", maps.len()))
}

pub(super) fn per_cpu<T: Plain>(map: OwnedFd) -> Result<PerCpu<T>, String> {
    open(map, Map::PerCpuArray)
}

pub(super) fn per_cpu_table<K: Plain, V: Plain>(map: OwnedFd) -> Result<PerCpuTable<K, V>, String> {
    open(map, Map::PerCpuHashMap)
}

pub(super) fn table<K: Plain, V: Plain>(map: OwnedFd) -> Result<Table<K, V>, String> {
    open(map, Map::HashMap)
}

/// As [`table`], of a map in which the least recently used entries give way.
pub(super) fn lru_table<K: Plain, V: Plain>(map: OwnedFd) -> Result<Table<K, V>, String> {
    open(map, Map::LruHashMap)
}

fn open<T: TryFrom<Map, Error = MapError>>(
    map: OwnedFd,
    kind: impl Fn(MapData) -> Map,
) -> Result<T, String> {
    let unusable = |error: MapError| format!("the loader's map: {error}");
    T::try_from(kind(MapData::from_fd(map).map_err(unusable)?)).map_err(unusable)
}

/// The sum of a map's one value over the CPUs.
pub(super) fn sum<T: Plain>(
    map: &PerCpu<T>,
    index: u32,
    mut add: impl FnMut(T),
) -> Result<(), MapError> {
    for Value(cpu) in map.get(&index, 0)?.iter() {
        add(*cpu);
    }
    Ok(())
}

/// An error of a map's with what the system said.
pub(super) fn explain(error: &MapError) -> String {
    let source = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .map(|error| format!(": {error}"))
        .unwrap_or_default();
    format!("reading the probe's maps: {error}{source}")
}
