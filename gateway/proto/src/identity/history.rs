//! The chain of changes.

use super::{Change, Identifier, IdentityError, PublicKey};
use crate::{
    crypto::Signature,
    wire::{self, Reader, WireError},
};

/// Changes in one identity (PROTOCOL.md §14).
pub const CHANGES_MAX: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
struct SignedChange {
    change: Change,
    own: Signature,
    /// Made by the key of the change before; absent in the first.
    predecessor: Option<Signature>,
}

impl SignedChange {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        wire::put_bytes16(&mut out, &self.change.encode());
        out.extend_from_slice(&self.own);
        if let Some(predecessor) = &self.predecessor {
            out.extend_from_slice(predecessor);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let mut reader = Reader::new(bytes);
        let change = Change::decode(reader.bytes16("change")?)?;
        let own = reader.array("own signature")?;
        let predecessor = if change.sequence > 0 {
            Some(reader.array("predecessor's signature")?)
        } else {
            None
        };
        reader.finish()?;
        Ok(Self {
            change,
            own,
            predecessor,
        })
    }

    /// Verifies that this follows `before`, or begins an identity if there is none.
    fn verify(&self, before: Option<&Change>) -> Result<(), IdentityError> {
        let sequence = self.change.sequence;
        let want = before.map_or(0, |before| before.sequence.saturating_add(1));
        if sequence != want {
            return Err(IdentityError::Sequence { got: sequence, want });
        }
        if self.change.previous != before.map_or([0; 32], Change::hash) {
            return Err(IdentityError::Previous { sequence });
        }
        let message = self.change.message();
        let signed = |key: &PublicKey, signature: &Signature, signer: u32| {
            key.verify(&message, signature)
                .map_err(|source| IdentityError::Signature {
                    what: "change",
                    sequence: signer,
                    source,
                })
        };
        signed(&self.change.key, &self.own, sequence)?;
        match (before, &self.predecessor) {
            (None, None) => Ok(()),
            (Some(before), Some(signature)) => signed(&before.key, signature, before.sequence),
            (Some(_), None) | (None, Some(_)) => Err(IdentityError::Previous { sequence }),
        }
    }
}

/// A verified chain of 1 to 16 signing keys (PROTOCOL.md §2.1). The last one is current.
///
/// Encoding: `u8 n | n × bytes16 signed change`, as in the payload of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeHistory {
    /// Never empty, numbered from 0 without gaps, every signature verified.
    changes: Vec<SignedChange>,
    identifier: Identifier,
}

impl ChangeHistory {
    /// Reads and verifies a history.
    ///
    /// # Errors
    /// [`IdentityError`] for anything that PROTOCOL.md §2.1 does not allow.
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let mut reader = Reader::new(bytes);
        let changes = Self::parse(&mut reader)?;
        reader.finish()?;
        Self::verify(changes, None)
    }

    /// Reads a history of an identity of which `known` was verified before; verifies only what is new.
    ///
    /// # Errors
    /// [`IdentityError`] as [`ChangeHistory::decode`]; [`IdentityError::Fork`] if it departs from `known`,
    /// [`IdentityError::OldHistory`] if it ends before it.
    pub fn decode_onto(known: &Self, bytes: &[u8]) -> Result<Self, IdentityError> {
        let mut reader = Reader::new(bytes);
        let changes = Self::parse(&mut reader)?;
        reader.finish()?;
        Self::verify(changes, Some(known))
    }

    /// Reads the changes without verifying them, and leaves `reader` behind them.
    fn parse(reader: &mut Reader<'_>) -> Result<Vec<SignedChange>, IdentityError> {
        let count = usize::from(reader.u8("number of changes")?);
        if count == 0 || count > CHANGES_MAX {
            return Err(IdentityError::ChangeCount {
                got: count,
                max: CHANGES_MAX,
            });
        }
        let mut changes = Vec::with_capacity(count);
        for _ in 0..count {
            changes.push(SignedChange::decode(reader.bytes16("signed change")?)?);
        }
        Ok(changes)
    }

    fn verify(changes: Vec<SignedChange>, known: Option<&Self>) -> Result<Self, IdentityError> {
        let identifier =
            changes
                .first()
                .map(|first| first.change.identifier())
                .ok_or(IdentityError::ChangeCount {
                    got: 0,
                    max: CHANGES_MAX,
                })?;
        let known = known.map_or(&[][..], |known| known.changes.as_slice());
        let mut verified: Vec<SignedChange> = Vec::with_capacity(changes.len());
        for (index, new) in changes.into_iter().enumerate() {
            match known.get(index) {
                // Only the change counts: signatures are malleable, and ours was verified.
                Some(old) if old.change == new.change => verified.push(old.clone()),
                Some(old) => {
                    return Err(IdentityError::Fork {
                        sequence: old.change.sequence,
                    });
                }
                None => {
                    new.verify(verified.last().map(|before| &before.change))?;
                    verified.push(new);
                }
            }
        }
        match (verified.last(), known.last()) {
            (Some(got), Some(old)) if got.change.sequence < old.change.sequence => {
                Err(IdentityError::OldHistory {
                    got: got.change.sequence,
                    known: old.change.sequence,
                })
            }
            _ => Ok(Self {
                changes: verified,
                identifier,
            }),
        }
    }

    /// Reads the first change's hash without verifying anything, to find what is known about its owner.
    pub(super) fn peek_identifier(bytes: &[u8]) -> Result<Identifier, IdentityError> {
        let mut reader = Reader::new(bytes);
        reader.u8("number of changes")?;
        let first = SignedChange::decode(reader.bytes16("signed change")?)?;
        Ok(first.change.identifier())
    }

    /// Takes the encoding of a history off `reader`, without verifying it.
    ///
    /// # Errors
    /// [`WireError`] if `reader` ends before.
    pub(crate) fn take_encoded<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
        let before = reader.rest();
        for _ in 0..reader.u8("number of changes")? {
            reader.bytes16("signed change")?;
        }
        let len = before.len().saturating_sub(reader.rest().len());
        Reader::new(before).bytes("history", len)
    }

    /// Appends the encoding to `out`.
    ///
    /// # Panics
    /// Never: a history has at most 16 changes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::try_from(self.changes.len()).expect("a history has at most 16 changes"));
        for change in &self.changes {
            wire::put_bytes16(out, &change.encode());
        }
    }

    /// Returns the encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// Returns the name of the identity.
    #[must_use]
    pub const fn identifier(&self) -> Identifier {
        self.identifier
    }

    /// Returns the last change.
    ///
    /// # Panics
    /// Never: a history is not empty.
    #[must_use]
    pub fn current(&self) -> &Change {
        &self.changes.last().expect("a history is not empty").change
    }

    /// Returns the key that signs now.
    #[must_use]
    pub fn current_key(&self) -> &PublicKey {
        &self.current().key
    }

    /// Iterates over the changes, oldest first.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().map(|signed| &signed.change)
    }
}

/// A change that waits for its signatures.
#[derive(Clone, Debug)]
pub struct ChangeDraft {
    change: Change,
    before: Option<ChangeHistory>,
}

impl ChangeDraft {
    /// Begins an identity with `key`. `created_at` in seconds since 1970, 0 if the clock is unknown.
    #[must_use]
    pub const fn first(key: PublicKey, created_at: u64) -> Self {
        Self {
            change: Change {
                sequence: 0,
                created_at,
                previous: [0; 32],
                key,
            },
            before: None,
        }
    }

    /// Replaces the key of `history` by `key`.
    ///
    /// # Errors
    /// [`IdentityError::ChangeCount`] if `history` is full.
    pub fn next(history: ChangeHistory, key: PublicKey, created_at: u64) -> Result<Self, IdentityError> {
        if history.changes.len() >= CHANGES_MAX {
            return Err(IdentityError::ChangeCount {
                got: CHANGES_MAX + 1,
                max: CHANGES_MAX,
            });
        }
        let current = history.current();
        let change = Change {
            sequence: current.sequence.saturating_add(1),
            created_at,
            previous: current.hash(),
            key,
        };
        Ok(Self {
            change,
            before: Some(history),
        })
    }

    /// Returns what the new key signs, and the key before it too if there is one.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        self.change.message()
    }

    /// Takes the signatures: the new key's own, and that of the key before it unless this is the first.
    ///
    /// # Errors
    /// [`IdentityError::Signature`] if one does not verify, [`IdentityError::Previous`] if the predecessor's
    /// is missing or there is one too many.
    pub fn finish(
        self,
        own: Signature,
        predecessor: Option<Signature>,
    ) -> Result<ChangeHistory, IdentityError> {
        let signed = SignedChange {
            change: self.change,
            own,
            predecessor,
        };
        match self.before {
            None => {
                signed.verify(None)?;
                Ok(ChangeHistory {
                    identifier: signed.change.identifier(),
                    changes: vec![signed],
                })
            }
            Some(mut history) => {
                signed.verify(Some(history.current()))?;
                history.changes.push(signed);
                Ok(history)
            }
        }
    }
}
