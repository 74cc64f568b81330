//! How a channel goes from one generation of keys to the next (PROTOCOL.md §6).

use std::time::Duration;

use super::{Effects, Established, Opened, Previous};
use crate::{
    channel::{
        ChannelError, ChannelId, ChannelSettings, CloseReason, Opener, Role, Sealer, Suite,
        frame::{self, put_frame},
        rekey::{self, Offer, RekeyContext, generation_byte, generation_of},
        symmetric::Keys,
    },
    crypto::Secret,
    entropy::Entropy,
    time::Instant,
};

/// Time after which Rekey1, or the Ping that proves the new generation, is repeated.
const REKEY_REPEAT: Duration = Duration::from_secs(4);
/// Repetitions before the channel is given up.
const REKEY_REPEATS_MAX: u8 = 8;
/// How long the keys of the generation before open records after the new one was proven.
const WIPE_AFTER: Duration = Duration::from_secs(5);

/// Where a channel stands between two generations.
#[derive(Debug)]
pub(super) enum Rekey {
    Idle,
    Offered {
        offer: Box<Offer>,
        repeats: u8,
        at: Instant,
    },
    Confirming {
        repeats: u8,
        at: Instant,
    },
    Answered(Box<Answered>),
}

/// What a responder keeps until the initiator has gone over.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) body_1: Vec<u8>,
    pub(super) body_2: Vec<u8>,
    pub(super) next: Generation,
}

/// The state that a rekey replaces.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
    pub(super) root: Secret,
    pub(super) binding: [u8; 32],
}

impl Generation {
    pub(super) fn new(
        keys: Keys,
        role: Role,
        suite: Suite,
        peer_channel: ChannelId,
        generation: u64,
        settings: &ChannelSettings,
    ) -> Self {
        let Keys {
            initiator,
            responder,
            root,
            binding,
        } = keys;
        let (sending, receiving) = match role {
            Role::Initiator => (initiator, responder),
            Role::Responder => (responder, initiator),
        };
        Self {
            sealer: Sealer::new(peer_channel, generation, suite.aead(), &sending, settings.padding),
            opener: Opener::new(suite.aead(), &receiving),
            root,
            binding,
        }
    }
}

impl Established {
    /// Brings the rekey forward if the generation has carried its bytes; returns whether it did.
    pub(in crate::channel) fn notice_bytes(&mut self, now: Instant) -> bool {
        let due =
            !self.bytes_noticed && self.sealer.bytes() + self.opener.bytes() >= self.settings.rekey.bytes_max;
        if due {
            self.bytes_noticed = true;
            self.rekey_soon(now);
        }
        due
    }

    /// Brings the rekey forward as far as the least age of a generation allows.
    fn rekey_soon(&mut self, now: Instant) {
        let soonest = (self.since + self.settings.rekey.interval_min).max(now);
        self.rekey_at = self.rekey_at.min(soonest);
    }

    /// Begins, repeats or gives up a rekey, if it is time.
    pub(super) fn advance_rekey(&mut self, now: Instant, entropy: &mut dyn Entropy, effects: &mut Effects) {
        match &mut self.rekey {
            Rekey::Idle if self.rekey_at > now => {}
            Rekey::Idle if self.role == Role::Responder => {
                self.rekey_at =
                    now + (self.settings.rekey.interval / 4).max(self.settings.rekey.interval_min);
                put_frame(&mut effects.reply, frame::REKEY_PLEASE, &[]);
            }
            Rekey::Idle if self.previous.is_some() => {}
            Rekey::Idle => {
                let offer = Box::new(Offer::new(self.suite, self.generation + 1, entropy));
                put_frame(&mut effects.reply, frame::REKEY1, offer.body());
                self.rekey = Rekey::Offered {
                    offer,
                    repeats: 0,
                    at: now + REKEY_REPEAT,
                };
            }
            Rekey::Offered { repeats, at, .. } | Rekey::Confirming { repeats, at } if *at <= now => {
                if *repeats >= REKEY_REPEATS_MAX {
                    effects.close = Some(CloseReason::RekeyUnanswered);
                    return;
                }
                *repeats += 1;
                *at = now + REKEY_REPEAT;
                match &self.rekey {
                    Rekey::Offered { offer, .. } => {
                        put_frame(&mut effects.reply, frame::REKEY1, offer.body());
                    }
                    Rekey::Confirming { .. } | Rekey::Idle | Rekey::Answered(_) => {
                        put_frame(&mut effects.reply, frame::PING, &[0; 8]);
                    }
                }
            }
            Rekey::Offered { .. } | Rekey::Confirming { .. } | Rekey::Answered(_) => {}
        }
    }

    pub(super) fn handle_rekey_please(&mut self, now: Instant) {
        if self.role == Role::Initiator && matches!(self.rekey, Rekey::Idle) {
            self.rekey_soon(now);
        }
    }

    /// Answers an offer of the next generation, once; the same offer again gets the same answer.
    pub(super) fn handle_rekey_1(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        body_1: &[u8],
    ) -> Result<(), ChannelError> {
        let refused = ChannelError::Rekey {
            got: generation_of(body_1),
            current: self.generation,
        };
        let generation = self.generation + 1;
        if self.role != Role::Responder || generation_of(body_1) != generation_byte(generation) {
            return Err(refused);
        }
        match &self.rekey {
            Rekey::Answered(answered) if answered.body_1 == body_1 => Ok(()),
            // Bounds the asymmetric work that an authenticated peer can cause.
            Rekey::Idle if now - self.since < self.settings.rekey.interval_min => Err(refused),
            Rekey::Idle => {
                let (body_2, keys) = rekey::answer(&self.context(), body_1, entropy)?;
                let next = self.generation(keys, generation);
                self.rekey = Rekey::Answered(Box::new(Answered {
                    body_1: body_1.to_vec(),
                    body_2,
                    next,
                }));
                Ok(())
            }
            Rekey::Answered(_) | Rekey::Offered { .. } | Rekey::Confirming { .. } => Err(refused),
        }
    }

    /// Takes the answer to the offer, and goes over to the new generation.
    pub(super) fn handle_rekey_2(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        body_2: &[u8],
    ) -> Result<(), ChannelError> {
        let generation = self.generation + 1;
        let Rekey::Offered { offer, .. } = &self.rekey else {
            return Err(ChannelError::Rekey {
                got: generation_of(body_2),
                current: self.generation,
            });
        };
        if generation_of(body_2) != generation_byte(generation) {
            return Err(ChannelError::Rekey {
                got: generation_of(body_2),
                current: self.generation,
            });
        }
        let keys = offer.finish(&self.context(), body_2)?;
        let next = self.generation(keys, generation);
        self.adopt(now, entropy, next, None);
        self.rekey = Rekey::Confirming {
            repeats: 0,
            at: now + REKEY_REPEAT,
        };
        Ok(())
    }

    /// Follows what a record in the generation proves about the peer; returns whether a rekey ended.
    pub(super) fn prove_generation(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        opened: Opened,
    ) -> bool {
        match (opened, std::mem::replace(&mut self.rekey, Rekey::Idle)) {
            // The initiator has the new keys: go over to them.
            (Opened::Next, Rekey::Answered(answered)) => {
                self.adopt(now, entropy, answered.next, Some(now + WIPE_AFTER));
                true
            }
            // The responder has gone over too: what it sent before is all there will be.
            (Opened::Current, Rekey::Confirming { .. }) => {
                if let Some(previous) = &mut self.previous {
                    previous.wipe_at = Some(now + WIPE_AFTER);
                }
                true
            }
            (Opened::Current | Opened::Previous | Opened::Next, rekey) => {
                self.rekey = rekey;
                false
            }
        }
    }

    /// Makes `next` current and the current generation previous.
    fn adopt(&mut self, now: Instant, entropy: &mut dyn Entropy, next: Generation, wipe_at: Option<Instant>) {
        let opener = std::mem::replace(&mut self.opener, next.opener);
        self.previous = Some(Box::new(Previous { opener, wipe_at }));
        self.sealer = next.sealer;
        self.root = next.root;
        self.binding = next.binding;
        self.generation += 1;
        self.since = now;
        self.rekey_at = rekey_time(&self.settings, self.role, now, entropy);
        self.bytes_noticed = false;
    }

    fn context(&self) -> RekeyContext<'_> {
        RekeyContext {
            suite: self.suite,
            root: &self.root,
            binding: &self.binding,
            local_static: &self.local_static,
            peer_static: &self.peer_static,
        }
    }

    fn generation(&self, keys: Keys, generation: u64) -> Generation {
        Generation::new(
            keys,
            self.role,
            self.suite,
            self.peer_channel,
            generation,
            &self.settings,
        )
    }
}

/// Draws when a generation that begins at `now` is replaced: the interval ± 20 % at the initiator. The
/// responder only asks, and only if the initiator is late.
pub(super) fn rekey_time(
    settings: &ChannelSettings,
    role: Role,
    now: Instant,
    entropy: &mut dyn Entropy,
) -> Instant {
    let interval = settings.rekey.interval;
    match role {
        Role::Initiator => {
            now + interval * 4 / 5 + interval.mul_f64(0.4 * f64::from(entropy.u32()) / f64::from(u32::MAX))
        }
        Role::Responder => now + interval * 3 / 2,
    }
}
