//! What the records of a WAL hold, segment by segment: the one place here that knows how rounds and
//! blocks are decoded.

use crate::clock::{Book, Stamp};
use crate::encode::{
    BLOCK, DecodeError, Positions, ROUND, Round, RoundDecoder, RoundError, Series, decode_block,
    decode_positions,
};
use crate::model::Block;
use crate::wal::{Inspection, Record, UNTIMED};

/// The decoder of one WAL, with what it decoded last.
#[derive(Default)]
pub(super) struct Contents {
    rounds: RoundDecoder,
    round: Round,
    block: Block,
    segment: Option<u64>,
    /// The boots whose time is known.
    book: Book,
}

/// The time of a record.
#[derive(Clone, Copy)]
pub(super) struct Told {
    /// In milliseconds since the Unix epoch: the real one, or that of a wrong clock.
    pub(super) ms: i64,
    /// Of a held record.
    pub(super) held: Option<Known>,
}

/// What is known of the time of a held record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It is the real one.
    Exact,
    /// Its boot never learned the time.
    Estimated,
    /// Its clock was wrong, or may have been.
    No,
}

impl Known {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Known::Exact => "known",
            Known::Estimated => "estimated",
            Known::No => "unknown",
        }
    }
}

impl Told {
    /// Its time, if that is known.
    pub(super) fn time(&self) -> Option<i64> {
        (self.held != Some(Known::No)).then_some(self.ms)
    }
}

/// What was decoded.
#[derive(Clone, Copy)]
pub(super) enum Held {
    /// See [`Contents::samples`].
    Round { timestamp_ms: i64 },
    /// See [`Contents::block`].
    Block,
}

/// Why a record says nothing.
pub(super) enum Undecodable {
    /// A record before it is damaged that it builds on.
    Missing,
    /// It is no round and no block.
    Malformed(DecodeError),
    /// No kind that this version knows.
    Kind,
}

impl std::fmt::Display for Undecodable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Undecodable::Missing => {
                f.write_str("can't be decoded: a damaged record before it is missing")
            }
            Undecodable::Malformed(error) => write!(f, "can't be decoded: {error}"),
            Undecodable::Kind => f.write_str("can't be decoded: its kind is unknown"),
        }
    }
}

impl Contents {
    /// The contents of a WAL, with what the agent's state directory around it says of its boots.
    pub(super) fn of(wal: &Inspection) -> Contents {
        let book = wal.path().parent().and_then(std::path::Path::parent);
        let book = book.and_then(|state| Book::load(&state.join("clock")).ok());
        Contents { book: book.unwrap_or_default(), ..Contents::default() }
    }

    /// A record's time, as far as it is known.
    pub(super) fn told(&self, record: &Record, payload: &[u8]) -> Told {
        let plain = Told { ms: record.time_ms, held: None };
        if record.kind & UNTIMED == 0 {
            return plain;
        }
        let unknown = Told { held: Some(Known::No), ..plain };
        let Some((stamp, _)) = Stamp::split(payload) else { return unknown };
        let Some(boot) = self.book.get(&stamp.boot) else { return unknown };
        let held = if boot.estimated { Known::Estimated } else { Known::Exact };
        Told { ms: stamp.real_ms(record.time_ms, boot.true_ms), held: Some(held) }
    }

    /// Decodes a record, the one behind the last that was decoded. A round needs those before it in its
    /// segment.
    pub(super) fn decode(&mut self, record: &Record, payload: &[u8]) -> Result<Held, Undecodable> {
        if self.segment != Some(record.segment) {
            self.rounds = RoundDecoder::new();
            self.segment = Some(record.segment);
        }
        let told = self.told(record, payload);
        let stamp = told.held.and_then(|_| Stamp::split(payload));
        let payload = stamp.map_or(payload, |(_, rest)| rest);
        match record.kind & !UNTIMED {
            ROUND => match self.rounds.decode(payload, told.ms, &mut self.round) {
                Ok(()) => Ok(Held::Round { timestamp_ms: self.round.timestamp_ms }),
                Err(RoundError::Gap) => Err(Undecodable::Missing),
                Err(RoundError::Malformed(error)) => Err(Undecodable::Malformed(error)),
            },
            BLOCK => {
                self.block.clear();
                let decoded = decode_block(payload, &mut self.block)
                    .and_then(|()| decode_positions(payload, &mut Positions::new()));
                if let (Some((stamp, _)), Some(_)) = (stamp, told.time()) {
                    let true_ms = told.ms.saturating_sub(stamp.boot_ms(record.time_ms));
                    let real = |at_ns| stamp.real_ns(at_ns, record.time_ms, true_ms);
                    self.block.retime(0, real);
                }
                decoded.map(|()| Held::Block).map_err(Undecodable::Malformed)
            }
            _ => Err(Undecodable::Kind),
        }
    }

    /// The samples of the round that was decoded last.
    pub(super) fn samples(&self) -> impl Iterator<Item = (Series<'_>, f64)> {
        let table = self.rounds.table().iter().enumerate();
        table.filter_map(|(index, series)| Some((series, self.round.value(index)?)))
    }

    /// The block that was decoded last.
    pub(super) fn block(&self) -> &Block {
        &self.block
    }

    /// How many items the record has that was decoded last.
    pub(super) fn items(&self, held: Held) -> u64 {
        match held {
            Held::Round { .. } => self.samples().count() as u64,
            Held::Block => self.block.len() as u64,
        }
    }
}

/// A kind's name.
pub(super) fn kind_name(kind: u8) -> String {
    if kind & UNTIMED != 0 {
        return format!("held-{}", kind_name(kind & !UNTIMED));
    }
    match kind {
        ROUND => "round".to_owned(),
        BLOCK => "block".to_owned(),
        other => format!("kind-{other}"),
    }
}
