//! Events on their way from the programs: a ring buffer, or a perf buffer on kernels before 5.8. An
//! empty one wakes nobody. Knows bytes, not what they mean.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use agent_common::event::{KINDS, Ration};
use aya::maps::perf::{PerfEvent, PerfEventArrayBuffer};
use aya::maps::{Map, MapData, MapError, PerCpuArray, PerfEventArray, RingBuf};
use rustix::event::epoll;

use super::channel::Report;

/// How events come to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A ring buffer that all CPUs share.
    Ring,
    /// A perf buffer for each CPU.
    Perf,
}

impl Transport {
    pub(super) fn name(self) -> &'static str {
        match self {
            Transport::Ring => "ring",
            Transport::Perf => "perf",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Transport> {
        [Transport::Ring, Transport::Perf].into_iter().find(|way| way.name() == name)
    }
}

/// Pages of data in a CPU's perf buffer, a power of two: some 30 OOM kills.
const PERF_PAGES: usize = 1;

#[derive(Clone, Copy)]
#[repr(transparent)]
struct RationValue(Ration);

#[expect(unsafe_code, reason = "aya reads map values as plain bytes")]
// SAFETY: a repr(C) struct of integers without padding, which agent-common asserts by its size: every
// pattern of bytes is a value.
unsafe impl aya::Pod for RationValue {}

enum Buffers {
    Ring(RingBuf<MapData>),
    Perf {
        buffers: Vec<PerfEventArrayBuffer<MapData>>,
        /// Readable when one of them is.
        epoll: OwnedFd,
        /// Keeps the map and with it the programs' way into the buffers.
        _array: PerfEventArray<MapData>,
    },
}

/// What did not come through since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Missed {
    /// By the programs' own ration.
    pub(super) withheld: u64,
    /// For want of room in the buffer.
    pub(super) lost: u64,
}

/// The agent's end of the events.
pub(super) struct Events {
    buffers: Buffers,
    rations: PerCpuArray<MapData, RationValue>,
}

impl Events {
    /// From what the loader handed over.
    pub(super) fn new(report: Report, transport: Transport) -> Result<Events, String> {
        let [events, rations] = <[OwnedFd; 2]>::try_from(report.maps).map_err(|maps| {
            format!("the loader gave {} maps for events instead of 2", maps.len())
        })?;
        let unusable = |error: MapError| format!("the map of events: {error}");
        let events = MapData::from_fd(events).map_err(unusable)?;
        let rations = MapData::from_fd(rations).map_err(unusable)?;
        let buffers = match transport {
            Transport::Ring => Buffers::Ring(Map::RingBuf(events).try_into().map_err(unusable)?),
            Transport::Perf => {
                let array = Map::PerfEventArray(events).try_into().map_err(unusable)?;
                open_perf(array).map_err(|error| format!("opening perf buffers: {error}"))?
            }
        };
        let rations = Map::PerCpuArray(rations).try_into().map_err(unusable)?;
        Ok(Events { buffers, rations })
    }

    /// A descriptor that is readable while there are events.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        match &self.buffers {
            Buffers::Ring(ring) => ring_fd(ring).try_clone_to_owned(),
            Buffers::Perf { epoll, .. } => epoll.try_clone(),
        }
    }

    /// Takes up to `most` events out; true if there may be more.
    pub(super) fn take(&mut self, most: usize, mut event: impl FnMut(&[u8])) -> bool {
        match &mut self.buffers {
            Buffers::Ring(ring) => {
                for _ in 0..most {
                    let Some(item) = ring.next() else { return false };
                    event(&item);
                }
                true
            }
            Buffers::Perf { buffers, .. } => {
                // All of a buffer of a page at once.
                for buffer in buffers {
                    buffer.for_each(|found| {
                        if let PerfEvent::Sample { head, tail } = found {
                            match tail {
                                [] => event(head),
                                // It goes round the buffer's end.
                                tail => event(&[head, tail].concat()),
                            }
                        }
                    });
                }
                false
            }
        }
    }

    /// What did not come through, by kind.
    pub(super) fn missed(&self) -> Result<[Missed; KINDS], MapError> {
        let mut missed = [Missed::default(); KINDS];
        for (kind, sum) in (0..).zip(&mut missed) {
            for RationValue(cpu) in self.rations.get(&kind, 0)?.iter() {
                sum.withheld += cpu.withheld;
                sum.lost += cpu.lost;
            }
        }
        Ok(missed)
    }
}

fn ring_fd(ring: &RingBuf<MapData>) -> BorrowedFd<'_> {
    ring.as_fd()
}

fn open_perf(mut array: PerfEventArray<MapData>) -> Result<Buffers, String> {
    let cpus = aya::util::online_cpus().map_err(|(path, error)| format!("{path}: {error}"))?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| error.to_string())?;
    let mut buffers = Vec::new();
    for cpu in cpus {
        let buffer =
            array.open(cpu, Some(PERF_PAGES)).map_err(|error| format!("for CPU {cpu}: {error}"))?;
        let data = epoll::EventData::new_u64(u64::from(cpu));
        epoll::add(&epoll, &buffer, data, epoll::EventFlags::IN)
            .map_err(|error| format!("for CPU {cpu}, fd {}: {error}", buffer.as_raw_fd()))?;
        buffers.push(buffer);
    }
    Ok(Buffers::Perf { buffers, epoll, _array: array })
}
