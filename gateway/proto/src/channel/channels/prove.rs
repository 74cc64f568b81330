//! Live proofs, of peers and of this node (PROTOCOL.md §5.2).

use super::Channels;
use crate::{
    channel::{
        ChannelError, ChannelId, CloseCode, CloseReason, Output, PROOFS_WAITING_MAX, Role, established::Proof,
    },
    crypto::Signature,
    time::Now,
};

impl Channels {
    /// Demands of the peer that its identity key signs in this channel. [`Output::Proven`] says that it did;
    /// otherwise the channel closes after 30 s. Until then serve the peer nothing. Only the first call in a
    /// channel does anything.
    ///
    /// # Errors
    /// [`ChannelError::Channel`] if the channel is not established.
    pub fn demand_proof(&mut self, now: Now, channel: ChannelId) -> Result<(), ChannelError> {
        self.table.open_mut(channel)?.demand_proof(now.instant);
        self.send_assured(now.instant, channel);
        Ok(())
    }

    /// Returns whether the peer's identity key has signed in `channel`.
    #[must_use]
    pub fn is_proven(&self, channel: ChannelId) -> bool {
        self.table.open(channel).is_ok_and(|open| open.is_proven())
    }

    /// Takes what [`Output::Sign`] asked for, or that it could not be had, which closes the channel. Every
    /// [`Output::Sign`] is answered by one call, or its place of [`PROOFS_WAITING_MAX`] stays taken.
    ///
    /// If [`Channels::set_local`] brought a newer key meanwhile, the caller is asked again.
    ///
    /// # Errors
    /// [`ChannelError::Channel`] if nothing was asked for.
    pub fn handle_signature(
        &mut self,
        now: Now,
        channel: ChannelId,
        signature: Result<Signature, ()>,
    ) -> Result<(), ChannelError> {
        let asked_of = self
            .signing
            .remove(&channel)
            .ok_or(ChannelError::Channel(channel))?;
        // Closed meanwhile: nobody is left to prove anything to.
        let Ok(open) = self.table.open_mut(channel) else {
            return Ok(());
        };
        let key_sequence = self.local.key_sequence;
        if asked_of != key_sequence {
            self.ask_for_signature(channel);
            return Ok(());
        }
        let message = open.live_message(open.role());
        // A token that signs something else must not look like an impostor to the peer.
        let signed = signature.ok().filter(|signature| {
            let verified = self.local.key.verify(&message, signature);
            verified.is_ok()
        });
        let Some(signature) = signed else {
            self.end(channel, CloseReason::Unsigned, Some(CloseCode::BROKEN));
            return Ok(());
        };
        open.answer_proof(now.instant, key_sequence, &signature);
        self.stats.proofs_given += 1;
        self.send_assured(now.instant, channel);
        Ok(())
    }

    /// Asks the owner for the signature that the peer wants, if not too many are asked for already.
    pub(super) fn ask_for_signature(&mut self, channel: ChannelId) {
        let Ok(open) = self.table.open(channel) else {
            return;
        };
        // A place is taken until the owner answers, not until the channel closes: the token works that long.
        if self.signing.len() >= PROOFS_WAITING_MAX || self.signing.contains_key(&channel) {
            self.stats.full += 1;
            let code = CloseCode::LIMIT;
            self.end(channel, CloseReason::Local(code), Some(code));
            return;
        }
        let message = open.live_message(open.role());
        self.signing.insert(channel, self.local.key_sequence);
        self.outputs.push_back(Output::Sign { channel, message });
    }

    /// Verifies the proof that the peer was asked for.
    pub(super) fn check_proof(&mut self, channel: ChannelId, proof: Proof) {
        let Ok(open) = self.table.open_mut(channel) else {
            return;
        };
        // The peer may have rotated its key since the handshake, and shown that in another channel. The key
        // before is worth nothing then.
        let at_handshake = (open.attestation().key_sequence, *open.peer_key());
        let (sequence, key) = self
            .peers
            .history(open.peer)
            .map(|history| (history.current().sequence, *history.current_key()))
            .filter(|(sequence, _)| *sequence > at_handshake.0)
            .unwrap_or(at_handshake);
        let prover = match open.role() {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        };
        let (claimed, signature) = proof.parts();
        let message = open.live_message(prover);
        if claimed != sequence || key.verify(&message, signature).is_err() {
            self.end_unproven(channel);
            return;
        }
        open.accept_proof(proof);
        self.table.rearm(channel);
        self.stats.proofs_verified += 1;
        self.outputs.push_back(Output::Proven { channel });
    }

    /// Closes a channel whose peer did not prove itself.
    pub(super) fn end_unproven(&mut self, channel: ChannelId) {
        self.stats.proofs_refused += 1;
        self.end(channel, CloseReason::Unproven, Some(CloseCode::NOT_AUTHORISED));
    }
}
