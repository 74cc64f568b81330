//! What a node believes, and on whose word.

mod output;
mod questions;

use std::sync::Arc;

pub use output::{Own, Saved, SavedError, SavedPart, StatusTaken, TrustOutput, TrustStats};
use questions::Questions;

use crate::{
    crypto::sha256,
    entropy::Entropy,
    identity::{ChangeHistory, Identifier, IdentityError},
    time::{ClockQuality, Instant, WallTime},
};

use super::{
    Credential, Freshness, PRESENTATION_LEN_MAX, Presentation, SignedTime, Standing, Statement,
    StatementKind, StatusList, TrustError, TrustFrame, TrustSettings, recent::Recent, standing,
};

/// Verified credentials that a node can remember (PROTOCOL.md §14).
pub const REMEMBERED_MAX: usize = 65_536;

/// Verified attestations of statement keys. An authority makes one or two a day, so this is a credential's life.
const STATEMENT_KEYS_MAX: usize = 512;

/// The list held.
#[derive(Debug)]
struct HeldStatus {
    list: StatusList,
    encoded: Arc<[u8]>,
    /// The change of the authority whose key vouched for it.
    key_sequence: u32,
}

/// What one node believes: its authority's history, the newest status list, the credentials of its peers, its own.
///
/// A credential seen before costs one hash and a look-up; the time and the list are judged at each use. Peers cannot
/// set anything back: neither the history, nor the list, nor the list's key.
///
/// Methods that return `Err` have changed nothing. After each that takes `&mut self` the caller drains
/// [`Trust::poll_output`].
#[derive(Debug)]
pub struct Trust {
    node: Identifier,
    settings: TrustSettings,
    history: Option<KnownHistory>,
    status: Option<HeldStatus>,
    own: Option<Own>,
    /// By the hash of the presentation.
    credentials: Recent<Arc<Credential>>,
    /// Attestations of statement keys that verified, by their hash.
    statement_keys: Recent<()>,
    questions: Questions,
    /// Highest `issued_at` verified.
    latest: u64,
    /// What is to be saved, each part at most once.
    unsaved: [Option<Arc<[u8]>>; 3],
    stats: TrustStats,
}

/// The authority's history as far as it is known.
#[derive(Debug)]
struct KnownHistory {
    history: ChangeHistory,
    /// Its encoding, which most presentations begin with.
    encoded: Vec<u8>,
}

impl Trust {
    /// Begins with what was saved. Without an authority in `settings` nothing is believed, and `saved` is not read.
    ///
    /// # Errors
    /// [`SavedError`] if a part of `saved` is damaged or another authority's. To go on without the status list would
    /// let those back in whom it names.
    pub fn new(node: Identifier, settings: TrustSettings, saved: &Saved) -> Result<Self, SavedError> {
        let mut trust = Self {
            node,
            settings,
            history: None,
            status: None,
            own: None,
            credentials: Recent::new(settings.remembered_max.min(REMEMBERED_MAX)),
            statement_keys: Recent::new(STATEMENT_KEYS_MAX),
            questions: Questions::default(),
            latest: 0,
            unsaved: [None, None, None],
            stats: TrustStats::default(),
        };
        let Some(authority) = settings.authority else {
            return Ok(trust);
        };
        let failed = |what| move |source| SavedError { what, source };
        if let Some(bytes) = &saved.history {
            let history = ChangeHistory::decode(bytes)
                .map_err(TrustError::from)
                .and_then(|history| own_history(authority, history))
                .map_err(failed(SavedPart::History))?;
            trust.history = Some(KnownHistory {
                history,
                encoded: bytes.clone(),
            });
        }
        // An unknown clock judges nothing: what has ended is kept, and judged when it is used.
        let unknown = WallTime::default();
        if let Some(bytes) = &saved.status {
            trust
                .take_status(unknown, bytes)
                .map_err(failed(SavedPart::Status))?;
        }
        if let Some(bytes) = &saved.own {
            let credential = trust
                .authenticate(node, bytes, |_, _| Ok(()))
                .map_err(failed(SavedPart::Own))?;
            trust.own = Some(Own {
                presentation: bytes.as_slice().into(),
                credential,
            });
        }
        // Only a history that grew while loading is news to the disk.
        for part in [SavedPart::Status, SavedPart::Own] {
            trust.unsave(part);
        }
        trust.stats = TrustStats::default();
        Ok(trust)
    }

    /// Returns the authority that is trusted.
    #[must_use]
    pub const fn authority(&self) -> Option<Identifier> {
        self.settings.authority
    }

    /// Returns the settings.
    #[must_use]
    pub const fn settings(&self) -> &TrustSettings {
        &self.settings
    }

    /// Returns the authority's history, once it is known.
    #[must_use]
    pub fn history(&self) -> Option<&ChangeHistory> {
        self.history.as_ref().map(|known| &known.history)
    }

    /// Verifies that the authority says in `presentation` that `subject` is a member, and that this counts at `wall`;
    /// in the grace time too, which [`Trust::check`] tells.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn verify(
        &mut self,
        wall: WallTime,
        subject: Identifier,
        presentation: &[u8],
    ) -> Result<Arc<Credential>, TrustError> {
        self.authenticate(subject, presentation, |trust, credential| {
            trust.judge(wall, credential)
        })
    }

    /// Says how good a verified credential is at `wall`. Costs no signature: for channels that stay open.
    #[must_use]
    pub fn check(&self, wall: WallTime, credential: &Credential) -> Standing {
        standing::standing(&self.settings, wall, credential, self.status())
    }

    /// Returns whether the newest list names `subject`.
    #[must_use]
    pub fn is_revoked(&self, subject: &Identifier) -> bool {
        self.status().is_some_and(|list| list.is_revoked(subject))
    }

    /// Says how fresh the status list is at `wall`.
    #[must_use]
    pub fn freshness(&self, wall: WallTime) -> Freshness {
        standing::freshness(&self.settings, wall, self.status())
    }

    /// Returns the status list held.
    #[must_use]
    pub fn status(&self) -> Option<&StatusList> {
        self.status.as_ref().map(|held| &held.list)
    }

    /// Returns the status list held with its history, to pass it on with [`status_parts`](super::status_parts).
    #[must_use]
    pub fn status_encoded(&self) -> Option<Arc<[u8]>> {
        self.status.as_ref().map(|held| Arc::clone(&held.encoded))
    }

    /// Returns the frame that tells a peer which list is held; `None` without an authority.
    #[must_use]
    pub fn status_have(&self) -> Option<TrustFrame<'static>> {
        self.settings.authority.map(|authority| TrustFrame::StatusHave {
            authority,
            number: self.status().map_or(0, StatusList::number),
        })
    }

    /// Judges the head of a list before it is gathered: returns whether it is newer than the one held.
    ///
    /// # Errors
    /// [`TrustError::NoAuthority`], [`TrustError::Foreign`], [`TrustError::NoNumber`] or [`TrustError::RolledBack`].
    pub fn check_offer(&self, authority: Identifier, number: u64) -> Result<bool, TrustError> {
        let want = self.settings.authority.ok_or(TrustError::NoAuthority)?;
        if authority != want {
            return Err(TrustError::Foreign { got: authority, want });
        }
        if number == 0 {
            return Err(TrustError::NoNumber { what: "status list" });
        }
        let have = self.status().map_or(0, StatusList::number);
        if number < have {
            return Err(TrustError::RolledBack { have, got: number });
        }
        Ok(number > have)
    }

    /// Takes a status list with its history, as an [`Assembler`](super::Assembler) or a file gives it. The end of the
    /// list is not judged: an old list that is newer than the one held is better than that.
    ///
    /// # Errors
    /// [`TrustError`]; [`TrustError::RolledBack`] for a list with a lower number than the one held.
    pub fn take_status(&mut self, wall: WallTime, bytes: &[u8]) -> Result<StatusTaken, TrustError> {
        let presented = Presentation::decode(StatementKind::StatusList, bytes)?;
        let statement = presented.signed().statement();
        if !self.check_offer(statement.authority, statement.number)? {
            return Ok(StatusTaken {
                newer: false,
                number: statement.number,
                revoked: Vec::new(),
            });
        }
        statement.check_begun(wall)?;
        let got = presented.signed().attestation().attestation().key_sequence;
        if let Some(held) = &self.status
            && got < held.key_sequence
        {
            return Err(TrustError::OldKey {
                have: held.key_sequence,
                got,
            });
        }
        let list = StatusList::decode(statement)?;
        self.believe(&presented)?;
        let taken = StatusTaken {
            newer: true,
            number: list.number(),
            revoked: list.revoked_since(self.status()),
        };
        let encoded: Arc<[u8]> = bytes.into();
        self.save(SavedPart::Status, Arc::clone(&encoded));
        self.status = Some(HeldStatus {
            list,
            encoded,
            key_sequence: got,
        });
        Ok(taken)
    }

    /// Verifies that the authority has signed a list, and when that was; whether it is newer than the one held does not matter, and
    /// that one stays. For an authority that has forgotten what it signed.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn verify_status(&mut self, wall: WallTime, bytes: &[u8]) -> Result<StatusList, TrustError> {
        let presented = Presentation::decode(StatementKind::StatusList, bytes)?;
        let statement = presented.signed().statement();
        statement.check_begun(wall)?;
        let list = StatusList::decode(statement)?;
        self.believe(&presented)?;
        Ok(list)
    }

    /// Returns this node's own credential, as good or bad as it may be by now.
    #[must_use]
    pub const fn own(&self) -> Option<&Own> {
        self.own.as_ref()
    }

    /// Takes this node's own credential, in the place of the one before.
    ///
    /// # Errors
    /// [`TrustError`], as [`Trust::verify`] would refuse it.
    pub fn set_own(&mut self, wall: WallTime, presentation: &[u8]) -> Result<Arc<Credential>, TrustError> {
        let credential = self.verify(wall, self.node, presentation)?;
        if self
            .own
            .as_ref()
            .is_none_or(|own| *own.presentation != *presentation)
        {
            let presentation: Arc<[u8]> = presentation.into();
            self.save(SavedPart::Own, Arc::clone(&presentation));
            self.own = Some(Own {
                presentation,
                credential: Arc::clone(&credential),
            });
        }
        Ok(credential)
    }

    /// Returns when to renew the own credential, in seconds since 1970; `None` if there is none.
    #[must_use]
    pub fn renew_at(&self) -> Option<u64> {
        self.own.as_ref().map(|own| own.credential.renew_at())
    }

    /// Asks for the time: the nonce for a TimePlease frame. Of more than 16 questions without an answer the oldest is
    /// forgotten.
    pub fn ask_time(&mut self, now: Instant, entropy: &mut dyn Entropy) -> [u8; 16] {
        self.questions.ask(now, entropy)
    }

    /// Takes the authority's answer: history and signed statement. Returns the time at `now`, which is the one signed
    /// and half of what the answer took. No clock is needed to judge it: the nonce is fresh.
    ///
    /// # Errors
    /// [`TrustError`]; [`TrustError::NotAsked`] if it answers no question of the last 30 s.
    pub fn take_time(&mut self, now: Instant, bytes: &[u8]) -> Result<WallTime, TrustError> {
        let want = self.settings.authority.ok_or(TrustError::NoAuthority)?;
        let presented = Presentation::decode(StatementKind::Time, bytes)?;
        let statement = presented.signed().statement();
        if statement.authority != want {
            return Err(TrustError::Foreign {
                got: statement.authority,
                want,
            });
        }
        let time = SignedTime::decode(statement)?;
        let took = self
            .questions
            .waiting_for(now, &time.nonce)
            .ok_or(TrustError::NotAsked)?;
        self.believe(&presented)?;
        self.questions.answered(&time.nonce);
        let half = u64::try_from(took.as_millis() / 2).unwrap_or(u64::MAX);
        Ok(WallTime {
            unix_millis: time.unix_millis.saturating_add(half),
            quality: ClockQuality::Authority,
        })
    }

    /// Returns the latest time at which the authority is known to have said something, in seconds since 1970, 0 if
    /// nothing is known: it is later than that now. What a clock is believed to be must not be less, unless the
    /// authority itself just said so ([`Trust::take_time`]).
    #[must_use]
    pub const fn latest_statement_time(&self) -> u64 {
        self.latest
    }

    /// Returns what this did so far.
    #[must_use]
    pub fn stats(&self) -> TrustStats {
        TrustStats {
            remembered: self.credentials.len(),
            ..self.stats
        }
    }

    /// Returns the next thing to save.
    pub fn poll_output(&mut self) -> Option<TrustOutput> {
        SavedPart::ALL
            .into_iter()
            .find_map(|what| Some((what, self.unsave(what)?)))
            .map(|(what, bytes)| TrustOutput::Save { what, bytes })
    }

    /// Verifies a credential or finds it verified; `judge` says whether it counts.
    fn authenticate(
        &mut self,
        subject: Identifier,
        presentation: &[u8],
        judge: impl FnOnce(&Self, &Credential) -> Result<(), TrustError>,
    ) -> Result<Arc<Credential>, TrustError> {
        let authority = self.settings.authority.ok_or(TrustError::NoAuthority)?;
        if presentation.len() > PRESENTATION_LEN_MAX {
            return Err(TrustError::Length {
                what: "presentation",
                len: presentation.len(),
                min: 0,
                max: PRESENTATION_LEN_MAX,
            });
        }
        let hash = sha256(&[presentation]);
        if let Some(credential) = self.credentials.get(&hash).cloned() {
            check_subject(&credential, subject)?;
            judge(self, &credential)?;
            self.stats.hits = self.stats.hits.saturating_add(1);
            return Ok(credential);
        }
        let presented = Presentation::decode(StatementKind::Credential, presentation)?;
        // All comparisons come before all signatures: they cost nothing.
        presented.signed().check_author(authority)?;
        let credential = Credential::decode(presented.signed().statement())?;
        check_subject(&credential, subject)?;
        judge(self, &credential)?;
        self.believe(&presented)?;
        self.stats.misses = self.stats.misses.saturating_add(1);
        let credential = Arc::new(credential);
        if self.credentials.insert(hash, Arc::clone(&credential)) {
            self.stats.evictions = self.stats.evictions.saturating_add(1);
        }
        Ok(credential)
    }

    fn judge(&self, wall: WallTime, credential: &Credential) -> Result<(), TrustError> {
        match self.check(wall, credential) {
            Standing::Good | Standing::Grace { .. } => Ok(()),
            Standing::NotYetValid => Err(TrustError::NotYetValid {
                issued_at: credential.issued_at,
                now: wall.unix_secs(),
            }),
            Standing::Expired => Err(TrustError::Expired {
                not_after: credential.not_after,
                now: wall.unix_secs(),
            }),
            Standing::Revoked => Err(TrustError::Revoked {
                number: self.status().map_or(0, StatusList::number),
            }),
            Standing::Lapsed { since } => Err(TrustError::Lapsed { since }),
        }
    }

    /// Verifies the signatures of a presentation, and remembers what it tells about the authority. Call it last: an
    /// error leaves all as it was, and what comes after must not fail.
    fn believe<'a>(&mut self, presented: &Presentation<'a>) -> Result<Statement<'a>, TrustError> {
        let authority = self.settings.authority.ok_or(TrustError::NoAuthority)?;
        let signed = presented.signed();
        signed.check_author(authority)?;
        let longer = self.longer_history(authority, presented.history())?;
        let key = signed.attestation().hash();
        // A longer history may have replaced the key that vouched.
        let is_known = longer.is_none() && self.statement_keys.get(&key).is_some();
        if !is_known {
            let history = longer.as_ref().or_else(|| self.history());
            let history = history.expect("without a known history, the presented one is longer");
            signed.attestation().verify_statement_key(history)?;
        }
        let statement = signed.verify_signature()?;
        if let Some(history) = longer {
            self.credentials.clear();
            self.statement_keys.clear();
            let encoded = history.to_bytes();
            self.save(SavedPart::History, encoded.as_slice().into());
            self.history = Some(KnownHistory { history, encoded });
        }
        if !is_known {
            self.stats.attestations = self.stats.attestations.saturating_add(1);
            self.statement_keys.insert(key, ());
        }
        self.latest = self.latest.max(statement.issued_at);
        Ok(statement)
    }

    /// Returns the history in `bytes` if it is more than what is known.
    ///
    /// One that ends before the known one is no harm: a member that was away while the authority rotated its key
    /// presents what it has, and the statement is judged by the known one.
    fn longer_history(
        &self,
        authority: Identifier,
        bytes: &[u8],
    ) -> Result<Option<ChangeHistory>, TrustError> {
        let Some(known) = &self.history else {
            return own_history(authority, ChangeHistory::decode(bytes)?).map(Some);
        };
        if known.encoded == bytes {
            return Ok(None);
        }
        match ChangeHistory::decode_onto(&known.history, bytes) {
            Ok(history) if history == known.history => Ok(None),
            Ok(history) => Ok(Some(history)),
            Err(IdentityError::OldHistory { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn save(&mut self, what: SavedPart, bytes: Arc<[u8]>) {
        if let Some(slot) = self.unsaved.get_mut(what.place()) {
            *slot = Some(bytes);
        }
    }

    fn unsave(&mut self, what: SavedPart) -> Option<Arc<[u8]>> {
        self.unsaved.get_mut(what.place())?.take()
    }
}

fn own_history(authority: Identifier, history: ChangeHistory) -> Result<ChangeHistory, TrustError> {
    if history.identifier() != authority {
        return Err(TrustError::Foreign {
            got: history.identifier(),
            want: authority,
        });
    }
    Ok(history)
}

fn check_subject(credential: &Credential, subject: Identifier) -> Result<(), TrustError> {
    if credential.subject != subject {
        return Err(TrustError::Subject {
            got: credential.subject,
            want: subject,
        });
    }
    Ok(())
}
