//! The frames of delivery and their codecs.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::sealed::{BatchSeal, KeyTag, SEALED_BATCH};
use crate::{
    channel::{FrameMark, begin_frame, finish_frame},
    link::Class,
    seal::Seal,
    wire::{Reader, WireError},
};

/// Which lane of which journal: random, drawn when the lane was created.
pub type JournalId = [u8; 16];

/// Kind of [`Offer`].
pub const OFFER: u8 = 0x20;
/// Kind of [`Resume`].
pub const RESUME: u8 = 0x21;
/// Kind of [`Batch`].
pub const BATCH: u8 = 0x22;
/// Kind of [`Ack`].
pub const ACK: u8 = 0x23;
/// Kind of [`Lost`].
pub const LOST: u8 = 0x24;

/// Why a frame of delivery was refused. Always the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The body does not have the form of its kind.
    #[error("delivery frame is malformed")]
    Wire(#[from] WireError),
    /// A frame came that this side never gets, or before its time.
    #[error("delivery frame {kind:#04x} is out of place")]
    OutOfPlace {
        /// Its kind.
        kind: u8,
    },
    /// The frame is about another journal than the one offered.
    #[error("delivery frame is about another journal")]
    Journal,
    /// Numbers contradict each other.
    #[error("delivery frame has {what} {value}, outside {min}..={max}")]
    Range {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: u64,
        /// Smallest possible.
        min: u64,
        /// Largest possible.
        max: u64,
    },
}

impl DeliveryError {
    /// Returns what an operator can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Wire(_) | Self::OutOfPlace { .. } | Self::Journal | Self::Range { .. } => {
                "upgrade the older of gateway and collector"
            }
        }
    }
}

/// Returns the lane that the body of a frame is about.
///
/// # Errors
/// [`DeliveryError::Wire`] if it names none.
pub fn lane_of(body: &[u8]) -> Result<Class, DeliveryError> {
    Ok(read_lane(&mut Reader::new(body))?)
}

fn read_lane(reader: &mut Reader<'_>) -> Result<Class, WireError> {
    let bits = reader.u8("lane")?;
    Class::from_bits(bits).ok_or_else(|| WireError::Value {
        field: "lane",
        value: u64::from(bits),
    })
}

/// What a gateway has in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Which lane.
    pub lane: Class,
    /// Its journal.
    pub journal: JournalId,
    /// Where a collector begins that never had anything of it: the oldest sequence that some collector still has to hear of.
    pub first: u64,
    /// The sequence that the next reading will get.
    pub next: u64,
    /// The highest sequence that this collector has ever confirmed as far as the gateway knows, 0 if none.
    pub confirmed: u64,
    /// Since when the gateway uses the channel.
    pub term: Term,
}

/// Which of its channels a gateway uses: the one in which it said the highest term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Term {
    /// Drawn when the gateway started: terms of different runs say nothing about each other.
    pub run: u64,
    /// Grows each time that the gateway takes a channel into use.
    pub number: u32,
}

impl Offer {
    /// Reads the body of an Offer.
    ///
    /// # Errors
    /// [`DeliveryError::Wire`], or [`DeliveryError::Range`] if `first` is 0 or after `next`, or a number is too large.
    pub fn decode(body: &[u8]) -> Result<Self, DeliveryError> {
        let mut reader = Reader::new(body);
        let offer = Self {
            lane: read_lane(&mut reader)?,
            journal: reader.array("journal id")?,
            first: reader.u64("first available sequence")?,
            next: reader.u64("next sequence")?,
            confirmed: reader.u64("confirmed")?,
            term: Term {
                run: reader.u64("run")?,
                number: reader.u32("term")?,
            },
        };
        reader.finish()?;
        within("next sequence", offer.next, 1, SEQUENCE_MAX)?;
        within("first available sequence", offer.first, 1, offer.next)?;
        within("confirmed", offer.confirmed, 0, SEQUENCE_MAX)?;
        Ok(offer)
    }

    /// Appends the frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mark = begin_frame(out, OFFER);
        out.push(self.lane.bits());
        out.extend_from_slice(&self.journal);
        for number in [self.first, self.next, self.confirmed, self.term.run] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.term.number.to_be_bytes());
        finish_frame(out, mark);
    }
}

/// How far a collector has come with a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Which lane.
    pub lane: Class,
    /// The collector holds everything up to here.
    pub received: u64,
    /// Its sinks confirmed everything up to here.
    pub committed: u64,
    /// The gateway may send up to here.
    pub credit: u64,
}

impl Ack {
    /// Reads the body of an Ack.
    ///
    /// # Errors
    /// [`DeliveryError::Wire`], or [`DeliveryError::Range`] if `committed` is after `received`.
    pub fn decode(body: &[u8]) -> Result<Self, DeliveryError> {
        let mut reader = Reader::new(body);
        let lane = read_lane(&mut reader)?;
        let ack = Self::read(lane, &mut reader)?;
        reader.finish()?;
        Ok(ack)
    }

    fn read(lane: Class, reader: &mut Reader<'_>) -> Result<Self, DeliveryError> {
        let ack = Self {
            lane,
            received: reader.u64("received")?,
            committed: reader.u64("committed")?,
            credit: reader.u64("credit")?,
        };
        within("received", ack.received, 0, SEQUENCE_MAX)?;
        within("committed", ack.committed, 0, ack.received)?;
        Ok(ack)
    }

    fn put_numbers(&self, out: &mut Vec<u8>) {
        for number in [self.received, self.committed, self.credit] {
            out.extend_from_slice(&number.to_be_bytes());
        }
    }

    /// Appends the frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mark = begin_frame(out, ACK);
        out.push(self.lane.bits());
        self.put_numbers(out);
        finish_frame(out, mark);
    }
}

/// The answer to an [`Offer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Which journal.
    pub journal: JournalId,
    /// How far the collector has come with it.
    pub ack: Ack,
    /// The term of the Offer that it answers.
    pub term: u32,
}

impl Resume {
    /// Reads the body of a Resume.
    ///
    /// # Errors
    /// As for [`Ack::decode`].
    pub fn decode(body: &[u8]) -> Result<Self, DeliveryError> {
        let mut reader = Reader::new(body);
        let lane = read_lane(&mut reader)?;
        let resume = Self {
            journal: reader.array("journal id")?,
            ack: Ack::read(lane, &mut reader)?,
            term: reader.u32("term")?,
        };
        reader.finish()?;
        Ok(resume)
    }

    /// Appends the frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mark = begin_frame(out, RESUME);
        out.push(self.ack.lane.bits());
        out.extend_from_slice(&self.journal);
        self.ack.put_numbers(out);
        out.extend_from_slice(&self.term.to_be_bytes());
        finish_frame(out, mark);
    }
}

/// Why readings cannot be had any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LostReason {
    /// Their checksum is wrong.
    Corrupt = 1,
    /// The lane was full and its policy discarded them, oldest first.
    Discarded = 2,
    /// They were older than the lane's time to live.
    Expired = 3,
    /// The collector had confirmed them before, so the gateway has let go of them. A collector that was set back asks for them.
    Released = 4,
}

impl LostReason {
    /// Returns the reason with the number `code`, if there is one.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Corrupt),
            2 => Some(Self::Discarded),
            3 => Some(Self::Expired),
            4 => Some(Self::Released),
            _ => None,
        }
    }

    /// Returns the number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Returns the word for logs, metrics and gap records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Corrupt => "corrupt",
            Self::Discarded => "discarded",
            Self::Expired => "expired",
            Self::Released => "released",
        }
    }
}

/// Readings that cannot be had any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Of which lane.
    pub lane: Class,
    /// First sequence.
    pub first: u64,
    /// Last sequence.
    pub last: u64,
    /// Why.
    pub reason: LostReason,
    /// Their earliest and latest capture time in milliseconds since 1970, where that is known.
    pub captured: Option<(u64, u64)>,
}

impl Lost {
    /// Returns how many readings are lost.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    /// Returns the part from `first` on, `None` if nothing is left.
    #[must_use]
    pub fn from(self, first: u64) -> Option<Self> {
        (first <= self.last).then(|| Self {
            first: self.first.max(first),
            ..self
        })
    }

    /// Reads the body of a Lost.
    ///
    /// # Errors
    /// [`DeliveryError::Wire`], also for an unknown reason, or [`DeliveryError::Range`] for an empty range or times in the wrong
    /// order.
    pub fn decode(body: &[u8]) -> Result<Self, DeliveryError> {
        let mut reader = Reader::new(body);
        let lane = read_lane(&mut reader)?;
        let (first, last) = (
            reader.u64("first lost sequence")?,
            reader.u64("last lost sequence")?,
        );
        let code = reader.u8("reason")?;
        let reason = LostReason::from_code(code).ok_or_else(|| WireError::Value {
            field: "reason",
            value: u64::from(code),
        })?;
        let (earliest, latest) = (
            reader.u64("earliest capture time")?,
            reader.u64("latest capture time")?,
        );
        reader.finish()?;
        within("last lost sequence", last, 1, SEQUENCE_MAX)?;
        within("first lost sequence", first, 1, last)?;
        within("earliest capture time", earliest, 0, latest)?;
        Ok(Self {
            lane,
            first,
            last,
            reason,
            captured: (latest > 0).then_some((earliest, latest)),
        })
    }

    /// Appends the frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mark = begin_frame(out, LOST);
        out.push(self.lane.bits());
        out.extend_from_slice(&self.first.to_be_bytes());
        out.extend_from_slice(&self.last.to_be_bytes());
        out.push(self.reason.code());
        let (earliest, latest) = self.captured.unwrap_or((0, 0));
        out.extend_from_slice(&earliest.to_be_bytes());
        out.extend_from_slice(&latest.to_be_bytes());
        finish_frame(out, mark);
    }
}

/// Consecutive readings, as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// Of which lane.
    pub lane: Class,
    /// Sequence of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Each behind its variable-length length.
    pub readings: &'a [u8],
    /// The gateway's word for them, if it gives one.
    pub seal: Option<BatchSeal<'a>>,
}

impl<'a> Batch<'a> {
    /// Reads the body of a Batch and checks that it holds exactly `count` readings.
    ///
    /// # Errors
    /// [`DeliveryError::Wire`], or [`DeliveryError::Range`] for numbers that cannot be.
    pub fn decode(body: &'a [u8]) -> Result<Self, DeliveryError> {
        Self::read(body, false)
    }

    /// Reads the body of a Batch with a seal, as [`Batch::decode`] does.
    ///
    /// # Errors
    /// As there.
    pub fn decode_sealed(body: &'a [u8]) -> Result<Self, DeliveryError> {
        Self::read(body, true)
    }

    fn read(body: &'a [u8], sealed: bool) -> Result<Self, DeliveryError> {
        let mut reader = Reader::new(body);
        let lane = read_lane(&mut reader)?;
        let first = reader.u64("first sequence")?;
        let count = u64::from(reader.u16("number of readings")?);
        within("number of readings", count, 1, u64::from(u16::MAX))?;
        within("first sequence", first, 1, SEQUENCE_MAX)?;
        let seal = if sealed {
            Some(BatchSeal {
                key_tag: reader.array("key tag")?,
                seal: Seal {
                    sealed_at: reader.u64("sealed at")?,
                    signature: reader.array("signature")?,
                },
                first,
                skipped: &[],
            })
        } else {
            None
        };
        let readings = reader.rest();
        for _ in 0..count {
            reader.bytes_varint("reading")?;
        }
        reader.finish()?;
        Ok(Self {
            lane,
            first,
            count,
            readings,
            seal,
        })
    }

    /// Returns the batch without its first `skipped` readings, `None` if none would be left.
    #[must_use]
    pub fn without_first(self, skipped: u64) -> Option<Self> {
        let count = self.count.checked_sub(skipped).filter(|count| *count > 0)?;
        let mut reader = Reader::new(self.readings);
        for _ in 0..skipped {
            reader.bytes_varint("reading").ok()?;
        }
        let readings = reader.rest();
        let seal = self.seal.map(|seal| BatchSeal {
            // Nothing is taken off twice.
            skipped: self
                .readings
                .get(..self.readings.len().saturating_sub(readings.len()))
                .unwrap_or_default(),
            ..seal
        });
        Some(Self {
            lane: self.lane,
            first: self.first.saturating_add(skipped),
            count,
            readings,
            seal,
        })
    }
}

/// Writes a Batch frame whose readings somebody else appends.
#[derive(Debug)]
#[must_use = "the frame has no length until it is finished"]
pub struct BatchWriter {
    mark: FrameMark,
    count_at: usize,
    readings_at: usize,
}

impl BatchWriter {
    /// Bytes that the frame takes beside its readings.
    pub const OVERHEAD: usize = 3 + 1 + 8 + 2;
    /// The same with a seal.
    pub const OVERHEAD_SEALED: usize = Self::OVERHEAD + SEAL_LEN;

    /// Begins the frame; the caller appends readings, each behind its variable-length length.
    pub fn begin(out: &mut Vec<u8>, lane: Class, first: u64) -> Self {
        let mark = begin_frame(out, BATCH);
        out.push(lane.bits());
        out.extend_from_slice(&first.to_be_bytes());
        let count_at = out.len();
        out.extend_from_slice(&[0, 0]);
        Self {
            mark,
            count_at,
            readings_at: out.len(),
        }
    }

    /// Begins a frame with a seal, which [`BatchWriter::finish_sealed`] writes.
    pub fn begin_sealed(out: &mut Vec<u8>, lane: Class, first: u64) -> Self {
        let mark = begin_frame(out, SEALED_BATCH);
        out.push(lane.bits());
        out.extend_from_slice(&first.to_be_bytes());
        let count_at = out.len();
        out.extend_from_slice(&[0; 2 + SEAL_LEN]);
        Self {
            mark,
            count_at,
            readings_at: out.len(),
        }
    }

    /// Returns the readings appended so far.
    #[must_use]
    pub fn readings<'a>(&self, out: &'a [u8]) -> &'a [u8] {
        out.get(self.readings_at..).unwrap_or_default()
    }

    /// Ends a frame that was begun with [`BatchWriter::begin_sealed`].
    ///
    /// # Panics
    /// If `out` was shortened since.
    pub fn finish_sealed(self, out: &mut [u8], count: u16, key_tag: KeyTag, seal: &Seal) {
        let place = out
            .get_mut(self.count_at.saturating_add(2)..)
            .and_then(|rest| rest.first_chunk_mut::<SEAL_LEN>());
        let place = place.expect("the buffer only grows while a frame is written");
        let fields = key_tag
            .into_iter()
            .chain(seal.sealed_at.to_be_bytes())
            .chain(seal.signature);
        place
            .iter_mut()
            .zip(fields)
            .for_each(|(place, byte)| *place = byte);
        self.finish(out, count);
    }

    /// Ends the frame with the number of readings appended.
    ///
    /// # Panics
    /// If `out` was shortened since.
    pub fn finish(self, out: &mut [u8], count: u16) {
        let place = out
            .get_mut(self.count_at..)
            .and_then(|rest| rest.first_chunk_mut());
        *place.expect("the buffer only grows while a frame is written") = count.to_be_bytes();
        finish_frame(out, self.mark);
    }
}

fn within(what: &'static str, value: u64, min: u64, max: u64) -> Result<(), DeliveryError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(DeliveryError::Range {
            what,
            value,
            min,
            max,
        })
    }
}

/// Bytes of a seal in a frame: key tag, time, signature.
const SEAL_LEN: usize = 4 + 8 + 64;
/// Largest sequence: far beyond what any journal reaches, and far from overflow.
const SEQUENCE_MAX: u64 = 1 << 62;
