//! Seals on batches: at the gateway the key in use, at the collector the way of a key to the sinks (PROTOCOL.md §9.1).

use super::{Node, ReadingSink, Wire};
use crate::{
    channel::ChannelId,
    delivery::{JournalId, KeySeen, KeyTag, ShownKey, key_tag},
    identity::ChangeHistory,
    link::Class,
    seal::{
        Extent, Seal, SealKey,
        merkle::{self, Hash},
        reading_leaf,
    },
    time::{Instant, Now},
    wire::Reader,
};

/// The key with which a gateway seals batches.
#[derive(Debug, Default)]
pub(super) struct Proving {
    key: Option<SealKey>,
    /// When it was given. Seals count their time from the beginning of the key's validity, so that a clock that is set
    /// meanwhile does not take them out of it.
    since: Instant,
    /// The frame that shows it.
    shown: Vec<u8>,
    /// Working space; kept for its capacity.
    leaves: Vec<Hash>,
}

impl Proving {
    /// Returns whether there is a key that is vouched for at `now`.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        self.key
            .as_ref()
            .is_some_and(|key| self.time(key, now) <= key.attestation().attestation().not_after)
    }

    /// Returns the time that a seal of `key` made at `now` bears, in seconds since 1970.
    fn time(&self, key: &SealKey, now: Instant) -> u64 {
        let begun = key.attestation().attestation().not_before;
        begun.saturating_add((now - self.since).as_secs())
    }

    /// Returns the frame that shows the key.
    pub(super) fn shown(&self) -> &[u8] {
        &self.shown
    }

    /// Seals the `count` readings in `readings`, each behind its variable-length length; `None` without a key.
    pub(super) fn seal(
        &mut self,
        now: Instant,
        journal: JournalId,
        (first, count): (u64, u64),
        readings: &[u8],
    ) -> Option<(KeyTag, Seal)> {
        let key = self.key.as_ref()?;
        let mut reader = Reader::new(readings);
        self.leaves.clear();
        for sequence in first..first.saturating_add(count) {
            let reading = reader.bytes_varint("reading").ok()?;
            self.leaves.push(reading_leaf(&journal, sequence, reading));
        }
        let root = merkle::root(&mut self.leaves)?;
        let extent = Extent {
            journal,
            first,
            count,
        };
        Some((
            key_tag(key.key_id()),
            key.seal(self.time(key, now), &extent, &root),
        ))
    }
}

impl Node {
    /// Seals batches of uplinks that are to be verifiable with `key` from now on; its validity has just begun. `history` is that
    /// of this node's identity, which vouches for it.
    pub fn set_seal_key(&mut self, now: Now, key: SealKey, history: &ChangeHistory) {
        self.proving.since = now.instant;
        self.proving.shown.clear();
        ShownKey {
            history: &history.to_bytes(),
            attestation: &key.attestation().encode(),
        }
        .put(&mut self.proving.shown);
        self.proving.key = Some(key);
        for uplink in &mut self.uplinks {
            uplink.key_seen = false;
        }
    }

    /// Takes the collector's word that it has a key; false if the frame is bad.
    pub(super) fn key_seen(&mut self, index: usize, body: &[u8]) -> bool {
        let Ok(seen) = KeySeen::decode(body) else {
            return false;
        };
        // A word about the key before does not count.
        if self
            .proving
            .key
            .as_ref()
            .is_some_and(|key| *key.key_id() == seen.key_id)
        {
            self.uplinks[index].key_seen = true;
        }
        true
    }

    /// Takes a key that a gateway shows, hands it to the sinks and says so; false if the frame is bad.
    pub(super) fn gateway_key(
        &mut self,
        now: Now,
        channel: ChannelId,
        body: &[u8],
        sink: &mut dyn ReadingSink,
        wire: &mut dyn Wire,
    ) -> bool {
        let (Ok(shown), Some(gateway)) = (ShownKey::decode(body), self.channels.peer(channel)) else {
            return false;
        };
        sink.seal_key(&gateway, shown);
        let mut frames = Vec::new();
        KeySeen {
            key_id: crate::crypto::sha256(&[shown.attestation]),
        }
        .put(&mut frames);
        self.send_frames_of(now, (channel, Class::Normal), &frames, wire);
        true
    }
}
