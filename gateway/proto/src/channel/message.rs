//! Layouts of the handshake messages (PROTOCOL.md §4).

use super::{ChannelError, ChannelId, PRESENTATION_LEN_MAX, Suite};
use crate::{
    crypto::{CIPHERTEXT_LEN, ENCAPSULATION_KEY_LEN, MacKey, TAG_LEN, label16, sha256},
    identity::Identifier,
    wire::{self, Reader, WireError},
};

/// First bytes of the messages.
pub(super) const MESSAGE_1: u8 = 0x11;
pub(super) const MESSAGE_2: u8 = 0x12;
pub(super) const MESSAGE_3: u8 = 0x13;
pub(super) const COOKIE: u8 = 0x1c;

/// Bytes of the longest handshake message taken: message 3 with 16 changes and the longest presentation has 8,169.
pub(super) const MESSAGE_LEN_MAX: usize = 8192;
/// Bytes message 1 is filled to.
const MESSAGE_1_LEN_HYBRID: usize = 1900;
const MESSAGE_1_LEN_CLASSICAL: usize = 700;

const VERSION: u8 = 1;
const FLAG_HYBRID: u8 = 1;
const SUITES_MAX: u8 = 8;
const LABEL_MAC1: [u8; 16] = label16("FG1 mac1 v1");

/// Returns the key of `mac1` for messages to `responder`.
pub(super) fn mac1_key(responder: Identifier) -> MacKey {
    MacKey::new(&sha256(&[&LABEL_MAC1, responder.as_bytes()]))
}

/// Message 1, read but for its meaning.
#[derive(Clone, Debug)]
pub(super) struct Message1<'a> {
    pub(super) sender: ChannelId,
    suites: &'a [u8],
    pub(super) e: &'a [u8; 32],
    pub(super) e1: Option<&'a [u8; ENCAPSULATION_KEY_LEN]>,
    pub(super) cached: [u8; 16],
    pub(super) cookie: Option<[u8; 32]>,
    /// All but `mac1`: what enters the transcript.
    pub(super) covered: &'a [u8],
    pub(super) mac1: [u8; 16],
}

impl<'a> Message1<'a> {
    /// Reads a message whose first byte is [`MESSAGE_1`], after its `mac1` has verified under `key`.
    ///
    /// Nothing of the message is looked at before that: only who knows our identifier gets any further.
    pub(super) fn decode(message: &'a [u8], key: &MacKey) -> Result<Self, ChannelError> {
        if message.len() > MESSAGE_LEN_MAX {
            return Err(ChannelError::TooLong {
                len: message.len(),
                max: MESSAGE_LEN_MAX,
            });
        }
        let (covered, mac1) = message.split_last_chunk::<16>().ok_or(WireError::Truncated {
            field: "mac1",
            need: 16,
            have: message.len(),
        })?;
        if !key.verify16(&[covered], mac1) {
            return Err(ChannelError::Mac1);
        }
        let mut reader = Reader::new(covered);
        reader.u8("kind")?;
        let version = reader.u8("version")?;
        if version != VERSION {
            return Err(ChannelError::Version {
                got: version,
                want: VERSION,
            });
        }
        let sender = ChannelId::from_wire(reader.u32("sender's channel")?);
        let count = reader.u8("number of suites")?;
        if count == 0 || count > SUITES_MAX {
            return Err(WireError::Value {
                field: "number of suites",
                value: u64::from(count),
            }
            .into());
        }
        let suites = reader.bytes("suites", usize::from(count) * 2)?;
        let flags = reader.u8("flags")?;
        let hybrid = codes(suites).any(|code| code >> 8 == 1);
        if flags != u8::from(hybrid) * FLAG_HYBRID {
            return Err(WireError::Value {
                field: "flags",
                value: u64::from(flags),
            }
            .into());
        }
        let e = chunk(&mut reader, "e")?;
        let e1 = if hybrid {
            Some(chunk(&mut reader, "e1")?)
        } else {
            None
        };
        let cached = reader.array("cached")?;
        let cookie = match reader.bytes8("cookie")? {
            [] => None,
            cookie => Some(cookie.try_into().map_err(|_| WireError::Value {
                field: "length of cookie",
                value: cookie.len() as u64,
            })?),
        };
        if reader.bytes16("zeros")?.iter().any(|byte| *byte != 0) {
            return Err(WireError::Value {
                field: "zeros",
                value: 1,
            }
            .into());
        }
        reader.finish()?;
        Ok(Self {
            sender,
            suites,
            e,
            e1,
            cached,
            cookie,
            covered,
            mac1: *mac1,
        })
    }

    /// Returns the suites that we know, in the initiator's order.
    pub(super) fn suites(&self) -> impl Iterator<Item = Suite> + Clone + use<'a> {
        codes(self.suites).filter_map(Suite::from_code)
    }
}

fn codes(suites: &[u8]) -> impl Iterator<Item = u16> + Clone + use<'_> {
    suites
        .chunks_exact(2)
        .map(|code| code.iter().fold(0, |value, byte| value << 8 | u16::from(*byte)))
}

/// Takes a reference to an array, so that a large key is not copied.
fn chunk<'a, const N: usize>(reader: &mut Reader<'a>, field: &'static str) -> Result<&'a [u8; N], WireError> {
    let bytes = reader.bytes(field, N)?;
    bytes.first_chunk().ok_or(WireError::Truncated {
        field,
        need: N,
        have: bytes.len(),
    })
}

/// What stands in message 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message1Fields<'a> {
    pub(super) sender: ChannelId,
    pub(super) suites: &'a [Suite],
    pub(super) e: &'a [u8; 32],
    pub(super) e1: Option<&'a [u8; ENCAPSULATION_KEY_LEN]>,
    pub(super) cached: [u8; 16],
    pub(super) cookie: Option<&'a [u8; 32]>,
}

impl Message1Fields<'_> {
    /// Writes message 1 for the responder whose `mac1` key this is.
    pub(super) fn encode(&self, key: &MacKey) -> Vec<u8> {
        let len_min = if self.e1.is_some() {
            MESSAGE_1_LEN_HYBRID
        } else {
            MESSAGE_1_LEN_CLASSICAL
        };
        let mut out = Vec::with_capacity(len_min);
        out.extend_from_slice(&[MESSAGE_1, VERSION]);
        out.extend_from_slice(&self.sender.to_wire().to_be_bytes());
        out.push(u8::try_from(self.suites.len()).expect("there are four suites"));
        for suite in self.suites {
            out.extend_from_slice(&suite.code().to_be_bytes());
        }
        out.push(if self.e1.is_some() { FLAG_HYBRID } else { 0 });
        out.extend_from_slice(self.e);
        if let Some(e1) = self.e1 {
            out.extend_from_slice(e1);
        }
        out.extend_from_slice(&self.cached);
        wire::put_bytes8(&mut out, self.cookie.map_or(&[], |cookie| cookie.as_slice()));
        let zeros = len_min.saturating_sub(out.len() + 2 + 16);
        wire::put_bytes16(&mut out, &vec![0; zeros]);
        let mac1 = key.mac16(&[&out]);
        out.extend_from_slice(&mac1);
        out
    }
}

/// Message 2, taken apart but not decrypted.
#[derive(Clone, Debug)]
pub(super) struct Message2<'a> {
    /// Kind, both channels, suite: what is hashed first.
    pub(super) head: &'a [u8],
    pub(super) sender: ChannelId,
    pub(super) suite: Suite,
    pub(super) e: &'a [u8; 32],
    pub(super) ciphertext: Option<&'a [u8]>,
    pub(super) s: &'a [u8],
    pub(super) payload: &'a [u8],
}

/// Bytes of message 2 without its payload.
const fn message_2_len(hybrid: bool) -> usize {
    let kem = if hybrid { CIPHERTEXT_LEN + TAG_LEN } else { 0 };
    HEAD_2_LEN + 32 + kem + 32 + TAG_LEN + TAG_LEN
}

/// Bytes of message 2 before `e`.
const HEAD_2_LEN: usize = 1 + 4 + 4 + 2;

/// Returns how long message 2 is with a payload of `payload_len` bytes.
pub(super) const fn message_2_len_with(suite: Suite, payload_len: usize) -> usize {
    message_2_len(suite.is_hybrid()) + payload_len
}

impl<'a> Message2<'a> {
    /// Reads a message whose first byte is [`MESSAGE_2`].
    pub(super) fn decode(message: &'a [u8]) -> Result<Self, ChannelError> {
        if message.len() > MESSAGE_LEN_MAX {
            return Err(ChannelError::TooLong {
                len: message.len(),
                max: MESSAGE_LEN_MAX,
            });
        }
        let mut reader = Reader::new(message);
        let head = reader.bytes("head of message 2", HEAD_2_LEN)?;
        let mut fields = Reader::new(head);
        fields.bytes("kind and receiver", 5)?;
        let sender = ChannelId::from_wire(fields.u32("sender's channel")?);
        let suite = Suite::from_code(fields.u16("suite")?).ok_or(ChannelError::Suite)?;
        let e = chunk(&mut reader, "e")?;
        let ciphertext = if suite.is_hybrid() {
            Some(reader.bytes("ciphertext", CIPHERTEXT_LEN + TAG_LEN)?)
        } else {
            None
        };
        let s = reader.bytes("s", 32 + TAG_LEN)?;
        Ok(Self {
            head,
            sender,
            suite,
            e,
            ciphertext,
            s,
            payload: reader.rest(),
        })
    }
}

/// Writes what of message 2 is hashed first.
pub(super) fn head_2(receiver: ChannelId, sender: ChannelId, suite: Suite) -> Vec<u8> {
    let mut out = vec![MESSAGE_2];
    out.extend_from_slice(&receiver.to_wire().to_be_bytes());
    out.extend_from_slice(&sender.to_wire().to_be_bytes());
    out.extend_from_slice(&suite.code().to_be_bytes());
    out
}

/// Bytes of message 3 before `s`.
const HEAD_3_LEN: usize = 1 + 4;

/// Message 3, taken apart but not decrypted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message3<'a> {
    /// Kind and receiver: what is hashed first.
    pub(super) head: &'a [u8],
    pub(super) s: &'a [u8],
    pub(super) payload: &'a [u8],
}

/// Reads a message whose first byte is [`MESSAGE_3`].
pub(super) fn decode_message_3(message: &[u8]) -> Result<Message3<'_>, ChannelError> {
    if message.len() > MESSAGE_LEN_MAX {
        return Err(ChannelError::TooLong {
            len: message.len(),
            max: MESSAGE_LEN_MAX,
        });
    }
    let mut reader = Reader::new(message);
    let head = reader.bytes("head of message 3", HEAD_3_LEN)?;
    let s = reader.bytes("s", 32 + TAG_LEN)?;
    Ok(Message3 {
        head,
        s,
        payload: reader.rest(),
    })
}

/// Writes a cookie answer.
pub(super) fn encode_cookie(receiver: ChannelId, mac1: &[u8; 16], cookie: &[u8; 32]) -> Vec<u8> {
    let mut out = vec![COOKIE];
    out.extend_from_slice(&receiver.to_wire().to_be_bytes());
    out.extend_from_slice(mac1);
    out.extend_from_slice(cookie);
    out
}

/// Reads a cookie answer whose first byte is [`COOKIE`]: `mac1` of the message it answers, and the cookie.
pub(super) fn decode_cookie(message: &[u8]) -> Result<([u8; 16], [u8; 32]), ChannelError> {
    let mut reader = Reader::new(message);
    reader.bytes("kind and receiver", 5)?;
    let mac1 = reader.array("mac1")?;
    let cookie = reader.array("cookie")?;
    reader.finish()?;
    Ok((mac1, cookie))
}

/// Returns the channel a message other than message 1 is for: the four bytes behind the kind.
pub(super) fn receiver(message: &[u8]) -> Result<ChannelId, WireError> {
    let mut reader = Reader::new(message);
    reader.u8("kind")?;
    Ok(ChannelId::from_wire(reader.u32("receiver's channel")?))
}

/// The payload of messages 2 and 3, before anything in it is verified (PROTOCOL.md §4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload<'a> {
    /// Who the sender is.
    Full {
        /// Encoded history.
        history: &'a [u8],
        /// Encoded signed attestation.
        attestation: &'a [u8],
        /// At most [`PRESENTATION_LEN_MAX`] bytes; not looked into here.
        presentation: &'a [u8],
    },
    /// The initiator knows the attestation.
    Cached,
}

/// First byte of a payload.
pub(super) const FORM_FULL: u8 = 1;
pub(super) const FORM_CACHED: u8 = 2;

impl<'a> Payload<'a> {
    /// Reads a payload.
    pub(super) fn decode(payload: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let decoded = match reader.u8("form of payload")? {
            FORM_FULL => Self::Full {
                history: crate::identity::ChangeHistory::take_encoded(&mut reader)?,
                attestation: reader.bytes16("signed attestation")?,
                presentation: match reader.bytes16("presentation")? {
                    long if long.len() > PRESENTATION_LEN_MAX => return Err(presentation_len(long)),
                    presentation => presentation,
                },
            },
            FORM_CACHED => Self::Cached,
            form => {
                return Err(WireError::Value {
                    field: "form of payload",
                    value: u64::from(form),
                });
            }
        };
        reader.finish()?;
        Ok(decoded)
    }
}

/// Returns why `presentation` is refused: its length.
pub(super) const fn presentation_len(presentation: &[u8]) -> WireError {
    WireError::Value {
        field: "length of presentation",
        value: presentation.len() as u64,
    }
}

#[cfg(test)]
mod tests;
