//! What the records of a WAL hold, segment by segment: the one place here that knows how rounds and
//! blocks are decoded.

use crate::encode::{
    BLOCK, DecodeError, Positions, ROUND, Round, RoundDecoder, RoundError, Series, decode_block,
    decode_positions,
};
use crate::model::Block;
use crate::wal::Record;

/// The decoder of one WAL, with what it decoded last.
#[derive(Default)]
pub(super) struct Contents {
    rounds: RoundDecoder,
    round: Round,
    block: Block,
    segment: Option<u64>,
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
    /// Decodes a record, the one behind the last that was decoded. A round needs those before it in its
    /// segment.
    pub(super) fn decode(&mut self, record: &Record, payload: &[u8]) -> Result<Held, Undecodable> {
        if self.segment != Some(record.segment) {
            self.rounds = RoundDecoder::new();
            self.segment = Some(record.segment);
        }
        match record.kind {
            ROUND => match self.rounds.decode(payload, record.time_ms, &mut self.round) {
                Ok(()) => Ok(Held::Round { timestamp_ms: self.round.timestamp_ms }),
                Err(RoundError::Gap) => Err(Undecodable::Missing),
                Err(RoundError::Malformed(error)) => Err(Undecodable::Malformed(error)),
            },
            BLOCK => {
                self.block.clear();
                let decoded = decode_block(payload, &mut self.block)
                    .and_then(|()| decode_positions(payload, &mut Positions::new()));
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
    match kind {
        ROUND => "round".to_owned(),
        BLOCK => "block".to_owned(),
        other => format!("kind-{other}"),
    }
}
