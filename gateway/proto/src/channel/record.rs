//! Records: what is sealed and opened in a channel (PROTOCOL.md §5).

use super::{
    ChannelError, ChannelId, Padding,
    replay::{REPLAY_WINDOW, ReplayWindow, Verdict},
};
use crate::{
    crypto::{Aead, AeadKey, Secret, TAG_LEN, hkdf_expand, label16},
    wire::Reader,
};

/// Bytes of plaintext in a record.
pub const PLAINTEXT_LEN_MAX: usize = 65_536;
/// Bytes of plaintext with which a record still fits a link that lies in channels (PROTOCOL.md §3.6).
pub const PLAINTEXT_CARRIED_MAX: usize = 65_280;
/// Bytes a record may take beyond its plaintext: header, channel, number of up to 8 bytes, tag.
pub const RECORD_OVERHEAD_MAX: usize = 1 + 4 + 8 + TAG_LEN;
/// Epochs a receiver derives ahead: 16 million lost records in a row do not end a channel.
pub const EPOCHS_AHEAD_MAX: u64 = 16;

/// Every number that is a multiple of this is sent in 4 bytes, so that a receiver finds its place again after
/// any loss that [`EPOCHS_AHEAD_MAX`] allows.
const WIDE_EVERY: u64 = 256;
/// Records per epoch, as a power of two.
const EPOCH_BITS: u32 = 20;
const KIND: u8 = 0x40;
const KIND_MASK: u8 = 0xf0;
const LABEL_KEY: [u8; 16] = label16("FG1 key v1");
const LABEL_NEXT: [u8; 16] = label16("FG1 next v1");
const BUCKETS: [usize; 7] = [
    64,
    256,
    1024,
    4096,
    16_384,
    PLAINTEXT_CARRIED_MAX,
    PLAINTEXT_LEN_MAX,
];

/// How many bytes of a record's number are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum NumberLen {
    /// 2 bytes: finds its place after up to 32,767 lost records.
    #[default]
    Two,
    /// 4 bytes.
    Four,
    /// 8 bytes: the whole number.
    Eight,
}

impl NumberLen {
    const fn code(self) -> u8 {
        match self {
            Self::Two => 0,
            Self::Four => 1,
            Self::Eight => 2,
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}

/// The keys of one direction and generation, epoch by epoch.
///
/// Holds the current key and the secret of the epoch *after*: what is in memory opens nothing older.
#[derive(Debug)]
struct EpochKeys {
    aead: Aead,
    epoch: u64,
    key: AeadKey,
    next_secret: Secret,
}

impl EpochKeys {
    fn new(aead: Aead, secret: &Secret) -> Self {
        Self::derive(aead, 0, secret)
    }

    fn derive(aead: Aead, epoch: u64, secret: &Secret) -> Self {
        Self {
            aead,
            epoch,
            key: AeadKey::new(aead, &hkdf_expand(secret, &LABEL_KEY, &[])),
            next_secret: hkdf_expand(secret, &LABEL_NEXT, &[]),
        }
    }

    fn next(&self) -> Self {
        Self::derive(self.aead, self.epoch + 1, &self.next_secret)
    }

    /// Returns the keys of `epoch`, which is later than this, and the key of the epoch before it if that is
    /// not this one. Skipped epochs cost one HMAC each.
    fn ahead(&self, epoch: u64) -> (Self, Option<AeadKey>) {
        let mut secret = self.next_secret.duplicate();
        let mut before = None;
        for skipped in self.epoch + 1..epoch {
            if skipped + 1 == epoch {
                before = Some(AeadKey::new(self.aead, &hkdf_expand(&secret, &LABEL_KEY, &[])));
            }
            secret = hkdf_expand(&secret, &LABEL_NEXT, &[]);
        }
        (Self::derive(self.aead, epoch, &secret), before)
    }
}

/// A record being built at the end of a buffer. Give it back to `finish`, or cut the buffer at
/// [`RecordStart::offset`] to give the record up; no number is used before `finish`.
#[derive(Debug)]
#[must_use = "a record that is not finished is not sealed"]
pub struct RecordStart {
    offset: usize,
    len: NumberLen,
}

impl RecordStart {
    /// Returns where the record begins in the buffer.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// Returns where the plaintext begins in the buffer.
    #[must_use]
    pub const fn plaintext_offset(&self) -> usize {
        self.offset + 5 + self.len.bytes()
    }
}

/// Seals the records of one direction and generation.
#[derive(Debug)]
pub struct Sealer {
    receiver: ChannelId,
    header: u8,
    keys: EpochKeys,
    next: u64,
    bytes: u64,
    padding: Padding,
    number_len: NumberLen,
}

impl Sealer {
    /// Starts at number 0. `receiver` is the channel as its receiver calls it.
    #[must_use]
    pub fn new(receiver: ChannelId, generation: u64, aead: Aead, secret: &Secret, padding: Padding) -> Self {
        Self {
            receiver,
            header: KIND | (generation_code(generation) << 2),
            keys: EpochKeys::new(aead, secret),
            next: 0,
            bytes: 0,
            padding,
            number_len: NumberLen::Two,
        }
    }

    /// Sends at least `len` bytes of each number from now on.
    pub const fn set_number_len(&mut self, len: NumberLen) {
        self.number_len = len;
    }

    /// Returns how many records were sealed.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.next
    }

    /// Returns how many bytes of plaintext were sealed, padding included.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reserves room for the header at the end of `out`; the caller appends frames behind it.
    pub fn begin(&self, out: &mut Vec<u8>) -> RecordStart {
        let wide = if self.next.is_multiple_of(WIDE_EVERY) {
            NumberLen::Four
        } else {
            NumberLen::Two
        };
        let start = RecordStart {
            offset: out.len(),
            len: self.number_len.max(wide),
        };
        out.resize(start.plaintext_offset(), 0);
        start
    }

    /// Numbers the record, pads and seals it in place, and appends the tag.
    ///
    /// # Errors
    /// [`ChannelError::TooLong`] if more than [`PLAINTEXT_LEN_MAX`] bytes were appended; `out` is unchanged
    /// and no number is used.
    ///
    /// # Panics
    /// If `out` was cut below the start of the record.
    pub fn finish(&mut self, out: &mut Vec<u8>, start: RecordStart) -> Result<(), ChannelError> {
        let plaintext_at = start.plaintext_offset();
        let len = out
            .len()
            .checked_sub(plaintext_at)
            .expect("the caller only appends to a record it began");
        if len > PLAINTEXT_LEN_MAX {
            return Err(ChannelError::TooLong {
                len,
                max: PLAINTEXT_LEN_MAX,
            });
        }
        if self.padding == Padding::Buckets {
            let bucket = BUCKETS
                .into_iter()
                .find(|bucket| *bucket >= len)
                .unwrap_or(PLAINTEXT_LEN_MAX);
            out.resize(plaintext_at + bucket, 0);
        }
        let number = self.next;
        if number >> EPOCH_BITS != self.keys.epoch {
            self.keys = self.keys.next();
        }
        let header = self.header | start.len.code();
        let aad = aad(header, self.receiver, number);
        let (before, plaintext) = out.split_at_mut(plaintext_at);
        let head = before.get_mut(start.offset..).unwrap_or_default();
        let number_bytes = number.to_be_bytes();
        let (_, truncated) = number_bytes.split_at(8 - start.len.bytes());
        let bytes = aad.iter().take(5).chain(truncated);
        head.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        let tag = self.keys.key.seal(number, &aad, plaintext);
        self.bytes += plaintext.len() as u64;
        self.next += 1;
        out.extend_from_slice(&tag);
        Ok(())
    }

    /// Leaps to a number as if all before it had been sealed and lost.
    #[cfg(test)]
    pub(super) fn leap(&mut self, number: u64) {
        self.next = number;
        while self.keys.epoch < number >> EPOCH_BITS {
            self.keys = self.keys.next();
        }
    }
}

/// The part of a record that is not encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The whole first byte.
    header: u8,
    /// The channel, as the receiver calls it.
    pub channel: ChannelId,
    /// Generation modulo 4.
    pub generation: u8,
    /// The last bits of the number.
    truncated: u64,
    /// How many.
    bits: u32,
    /// Bytes the header takes.
    len: usize,
}

impl RecordHeader {
    /// Reads the header of a record.
    ///
    /// # Errors
    /// [`ChannelError::Kind`] if it is none, [`ChannelError::Wire`] if it is cut off or has a bad size code,
    /// [`ChannelError::TooLong`] if the record holds more than [`PLAINTEXT_LEN_MAX`] bytes.
    pub fn decode(record: &[u8]) -> Result<Self, ChannelError> {
        let mut reader = Reader::new(record);
        let header = reader.u8("record header")?;
        if !is_record(header) {
            return Err(ChannelError::Kind { got: header });
        }
        let channel = ChannelId::from_wire(reader.u32("channel")?);
        let (truncated, bits, len) = match header & 3 {
            0 => (u64::from(reader.u16("record number")?), 16, 7),
            1 => (u64::from(reader.u32("record number")?), 32, 9),
            2 => (reader.u64("record number")?, 64, 13),
            code => {
                return Err(crate::wire::WireError::Value {
                    field: "size code",
                    value: u64::from(code),
                }
                .into());
            }
        };
        let sealed = reader.rest().len();
        if sealed < TAG_LEN {
            return Err(crate::wire::WireError::Truncated {
                field: "record tag",
                need: TAG_LEN,
                have: sealed,
            }
            .into());
        }
        if sealed > PLAINTEXT_LEN_MAX + TAG_LEN {
            return Err(ChannelError::TooLong {
                len: sealed - TAG_LEN,
                max: PLAINTEXT_LEN_MAX,
            });
        }
        Ok(Self {
            header,
            channel,
            generation: (header >> 2) & 3,
            truncated,
            bits,
            len,
        })
    }

    /// Returns the full number: of those that end in the truncated bits the one nearest to `expected`
    /// (RFC 9000 §A.3).
    fn number(&self, expected: u64) -> u64 {
        if self.bits == 64 {
            return self.truncated;
        }
        let window = 1_u64 << self.bits;
        let half = window / 2;
        let candidate = (expected & !(window - 1)) | self.truncated;
        if candidate.saturating_add(half) <= expected {
            candidate.saturating_add(window)
        } else if candidate > expected.saturating_add(half) && candidate >= window {
            candidate - window
        } else {
            candidate
        }
    }
}

/// Returns whether a message that begins with `kind` is a record.
pub(super) const fn is_record(kind: u8) -> bool {
    kind & KIND_MASK == KIND
}

/// Returns `generation` modulo 4, as in a record's header.
pub(super) const fn generation_code(generation: u64) -> u8 {
    let [.., last] = generation.to_be_bytes();
    last & 3
}

fn aad(header: u8, receiver: ChannelId, number: u64) -> [u8; 13] {
    let [a, b, c, d] = receiver.to_wire().to_be_bytes();
    let [e, f, g, h, i, j, k, l] = number.to_be_bytes();
    [header, a, b, c, d, e, f, g, h, i, j, k, l]
}

/// Opens the records of one direction and generation.
#[derive(Debug)]
pub struct Opener {
    keys: EpochKeys,
    /// The key of the epoch before.
    previous: Option<AeadKey>,
    window: ReplayWindow,
    bytes: u64,
    records: u64,
}

impl Opener {
    /// Starts at number 0.
    #[must_use]
    pub fn new(aead: Aead, secret: &Secret) -> Self {
        Self {
            keys: EpochKeys::new(aead, secret),
            previous: None,
            window: ReplayWindow::new(),
            bytes: 0,
            records: 0,
        }
    }

    /// Returns how many records were opened.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Returns how many bytes of plaintext were opened.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Opens `record`, of which `header` was decoded, in place, and returns the plaintext.
    ///
    /// # Errors
    /// [`ChannelError::Replayed`], [`ChannelError::TooOld`], [`ChannelError::TooFar`] or
    /// [`ChannelError::Crypto`]. An error changes nothing but what is in `record`.
    pub fn open<'m>(
        &mut self,
        header: &RecordHeader,
        record: &'m mut [u8],
    ) -> Result<&'m [u8], ChannelError> {
        let expected = self.window.next_expected();
        let number = header.number(expected);
        let highest = expected.saturating_sub(1);
        match self.window.check(number) {
            Verdict::Fresh => {}
            Verdict::Replayed => return Err(ChannelError::Replayed { number }),
            Verdict::TooOld => return Err(ChannelError::TooOld { number, highest }),
        }
        let aad = aad(header.header, header.channel, number);
        let sealed = record.get_mut(header.len..).unwrap_or_default();
        let epoch = number >> EPOCH_BITS;
        let current = self.keys.epoch;
        let plaintext = if epoch == current {
            self.keys.key.open(number, &aad, sealed)?
        } else if epoch + 1 == current {
            let key = self
                .previous
                .as_ref()
                .ok_or(ChannelError::TooOld { number, highest })?;
            key.open(number, &aad, sealed)?
        } else if epoch > current {
            let ahead = epoch - current;
            if ahead > EPOCHS_AHEAD_MAX {
                return Err(ChannelError::TooFar {
                    number,
                    ahead,
                    max: EPOCHS_AHEAD_MAX,
                });
            }
            // In scratch: a forged number must not cost the keys in use.
            let (keys, before) = self.keys.ahead(epoch);
            let plaintext = keys.key.open(number, &aad, sealed)?;
            let replaced = std::mem::replace(&mut self.keys, keys);
            self.previous = Some(before.unwrap_or(replaced.key));
            plaintext
        } else {
            return Err(ChannelError::TooOld { number, highest });
        };
        // A key two epochs back is useless once the window has left the epoch before.
        if self.previous.is_some()
            && self.window.next_expected() > (self.keys.epoch << EPOCH_BITS) + REPLAY_WINDOW
        {
            self.previous = None;
        }
        self.window.mark(number);
        self.records += 1;
        self.bytes += plaintext.len() as u64;
        Ok(plaintext)
    }
}

#[cfg(test)]
mod tests;
