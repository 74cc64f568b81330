//! Live proofs: the identity key itself signs the channel's binding (PROTOCOL.md §5.2).
//!
//! ```text
//! verifier: Unasked ──demand──▶ Pending ──Proof that verifies──▶ Proven
//!              │                   ├──Proof that does not──▶ closed
//!              └──Proof──▶ closed  └──30 s──▶ closed
//! prover:   Unasked ──ProofPlease──▶ Signing ──signature──▶ Answered
//! ```
//!
//! ProofPlease and Proof may come twice, because they are repeated until acknowledged; the second changes
//! nothing.

use std::{sync::Arc, time::Duration};

use super::{Effects, Established};
use crate::{
    channel::{CloseCode, CloseReason, Role, frame},
    crypto::{Signature, label16},
    time::Instant,
};

const LABEL_LIVE: [u8; 16] = label16("FG1 live v1");
/// How long a proof may take, the token's work included.
const PROOF_WITHIN: Duration = Duration::from_secs(30);
/// ProofPlease frames in one channel: one, and its repetitions.
const PROOF_PLEASE_MAX: u8 = 8;
/// Bytes of the body of Proof.
pub(super) const PROOF_LEN: usize = 4 + 64;

/// How far the live proofs of a channel are, in both directions.
#[derive(Debug, Default)]
pub(super) struct LiveProof {
    demand: Demand,
    answer: Answer,
    /// How often the peer asked.
    asked: u8,
}

/// The peer's proof.
#[derive(Debug, Default)]
enum Demand {
    #[default]
    Unasked,
    Pending {
        deadline: Instant,
    },
    Proven(Proof),
}

/// This node's proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Answer {
    #[default]
    Unasked,
    Signing,
    Answered,
}

/// The body of a Proof frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::channel) struct Proof(Box<[u8; PROOF_LEN]>);

impl Proof {
    /// Returns the change whose key is said to have signed, and the signature.
    pub(in crate::channel) fn parts(&self) -> (u32, &Signature) {
        let (sequence, signature) = self.0.split_first_chunk::<4>().expect("a proof has 68 bytes");
        let signature = signature.first_chunk().expect("a proof has 68 bytes");
        (u32::from_be_bytes(*sequence), signature)
    }
}

impl Established {
    /// Demands a proof, the first time it is called. Call [`Established::put_assured`] then.
    pub(in crate::channel) fn demand_proof(&mut self, now: Instant) {
        if matches!(self.live.demand, Demand::Unasked) {
            self.live.demand = Demand::Pending {
                deadline: now + PROOF_WITHIN,
            };
            self.assure(frame::PROOF_PLEASE, Arc::from([]), now);
        }
    }

    /// Returns whether the peer's identity key has signed in this channel.
    pub(in crate::channel) const fn is_proven(&self) -> bool {
        matches!(self.live.demand, Demand::Proven(_))
    }

    /// Notes that `proof`, handed out by [`Established::handle_proof`], verified.
    pub(in crate::channel) fn accept_proof(&mut self, proof: Proof) {
        self.live.demand = Demand::Proven(proof);
        self.give_up(frame::PROOF_PLEASE);
    }

    /// Gives the proof that was asked for. Call [`Established::put_assured`] then.
    pub(in crate::channel) fn answer_proof(
        &mut self,
        now: Instant,
        key_sequence: u32,
        signature: &Signature,
    ) {
        self.live.answer = Answer::Answered;
        let body = [&key_sequence.to_be_bytes(), signature.as_slice()].concat();
        self.assure(frame::PROOF, body.into(), now);
    }

    /// Returns what the identity key of the side with `prover`'s role signs.
    pub(in crate::channel) fn live_message(&self, prover: Role) -> Vec<u8> {
        let role = match prover {
            Role::Initiator => 0,
            Role::Responder => 1,
        };
        [LABEL_LIVE.as_slice(), &[role], &self.first_binding].concat()
    }

    /// Returns when a proof that has not come closes the channel.
    pub(super) const fn proof_deadline(&self) -> Option<Instant> {
        match self.live.demand {
            Demand::Pending { deadline } => Some(deadline),
            Demand::Unasked | Demand::Proven(_) => None,
        }
    }

    /// Ends a channel whose peer did not prove itself in time.
    pub(super) fn expire_proof(&self, now: Instant, effects: &mut Effects) {
        if self.proof_deadline().is_some_and(|deadline| deadline <= now) {
            effects.close = Some(CloseReason::Unproven);
        }
    }

    /// Follows ProofPlease.
    pub(super) fn handle_proof_please(&mut self, effects: &mut Effects) {
        self.live.asked = self.live.asked.saturating_add(1);
        if self.live.asked > PROOF_PLEASE_MAX {
            effects.close = Some(CloseReason::Local(CloseCode::LIMIT));
        } else if self.live.answer == Answer::Unasked {
            self.live.answer = Answer::Signing;
            effects.proof_wanted = true;
        }
    }

    /// Follows Proof, as far as that goes without knowing the peer's newest key: what is to be verified
    /// comes back in `effects`.
    pub(super) fn handle_proof(&self, now: Instant, body: &[u8], effects: &mut Effects) {
        let expected = match (&self.live.demand, &effects.proof) {
            // The timer may be late; the proof must not be.
            (Demand::Pending { deadline }, None) => now < *deadline,
            (Demand::Pending { .. }, Some(before)) | (Demand::Proven(before), _) => {
                before.0.as_slice() == body
            }
            (Demand::Unasked, _) => false,
        };
        match body.try_into() {
            Ok(body) if expected => {
                if !self.is_proven() {
                    effects.proof = Some(Proof(Box::new(body)));
                }
            }
            _ => effects.close = Some(CloseReason::Unproven),
        }
    }
}
