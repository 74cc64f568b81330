//! How a node asks to become a member, and the answer (PROTOCOL.md §10.4).

use crate::{
    crypto::{Secret, Signature, label16},
    identity::{ChangeHistory, Identifier, IdentityError},
    wire::{Reader, put_bytes8, put_bytes16},
};

use super::{
    NAME_LEN_MAX, PRESENTATION_LEN_MAX, Presentation, STATUS_LEN_MAX, SignedStatement, StatementKind, Ticket,
    TicketKey, TrustError, credential::check_text, presentation::join,
};

/// Longest signed request, in bytes (PROTOCOL.md §14).
pub const ENROL_LEN_MAX: usize = 4096;

/// Version of the encoding.
const VERSION: u8 = 1;
/// Stands in front of what is signed and authenticated.
const LABEL: [u8; 16] = label16("FG1 enrol v1");

/// A request that waits for the signature of the identity key, which a token holds.
#[derive(Debug)]
pub struct EnrolDraft {
    request: Vec<u8>,
    mac: Secret,
    history: ChangeHistory,
}

impl EnrolDraft {
    /// Asks with `ticket` for a credential of the owner of `history`. `created_at` in seconds since 1970, 0 if the
    /// clock is unknown; `nonce` is drawn at random; `name` is what the member would like to be called, at most 63
    /// bytes, may be empty.
    ///
    /// # Errors
    /// [`TrustError::Length`] or [`TrustError::Text`].
    pub fn new(
        ticket: &Ticket,
        history: &ChangeHistory,
        created_at: u64,
        nonce: [u8; 16],
        name: &str,
    ) -> Result<Self, TrustError> {
        check_text("name", name, 0, NAME_LEN_MAX)?;
        let mut request = vec![VERSION];
        request.extend_from_slice(ticket.id());
        request.extend_from_slice(ticket.authority().as_bytes());
        request.extend_from_slice(&created_at.to_be_bytes());
        request.extend_from_slice(&nonce);
        put_bytes8(&mut request, name.as_bytes());
        history.encode(&mut request);
        check_len(request.len().saturating_add(2 + 32 + 64))?;
        Ok(Self {
            mac: ticket.key().mac(&[&LABEL, &request]),
            request,
            history: history.clone(),
        })
    }

    /// Returns what the identity's current key signs.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        message(&self.request)
    }

    /// Takes the signature, gives the signed request.
    ///
    /// # Errors
    /// [`TrustError::Identity`] if the signature is not the current key's.
    pub fn finish(self, signature: &Signature) -> Result<Vec<u8>, TrustError> {
        verify_signature(&self.history, &self.request, signature)?;
        let mut out = Vec::with_capacity(self.request.len().saturating_add(2 + 32 + 64));
        put_bytes16(&mut out, &self.request);
        out.extend_from_slice(self.mac.as_bytes());
        out.extend_from_slice(signature);
        Ok(out)
    }
}

/// A request to become a member. Nothing of it is verified before [`EnrolRequest::verify`] says so.
///
/// ```text
/// request = u8 version (1) | 16 ticket id | 32 authority's identifier | u64 created_at | 16 nonce
///         | text8 name wanted | history
/// bytes16 request | 32 HMAC | 64 signature
/// ```
#[derive(Debug)]
pub struct EnrolRequest<'a> {
    /// The ticket it says it was made with.
    pub ticket: [u8; 16],
    /// Whom it is for.
    pub authority: Identifier,
    /// When it was made, seconds since 1970; 0 if the asker's clock was unknown.
    pub created_at: u64,
    /// Drawn by the asker.
    pub nonce: [u8; 16],
    /// What the asker would like to be called; may be empty.
    pub name: &'a str,
    history: &'a [u8],
    request: &'a [u8],
    mac: Secret,
    signature: Signature,
}

impl<'a> EnrolRequest<'a> {
    /// Reads a signed request without verifying it.
    ///
    /// # Errors
    /// [`TrustError::Wire`], [`TrustError::Version`], [`TrustError::Length`] or [`TrustError::Text`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, TrustError> {
        check_len(bytes.len())?;
        let mut outer = Reader::new(bytes);
        let request = outer.bytes16("request")?;
        let mac = Secret::new(outer.array("authentication code")?);
        let signature = outer.array("signature")?;
        outer.finish()?;
        let mut reader = Reader::new(request);
        let version = reader.u8("request version")?;
        if version != VERSION {
            return Err(TrustError::Version {
                what: "request",
                got: version,
                want: VERSION,
            });
        }
        let ticket = reader.array("ticket id")?;
        let authority = Identifier::from_bytes(reader.array("authority")?);
        let created_at = reader.u64("created_at")?;
        let nonce = reader.array("nonce")?;
        let name = reader.text8("name")?;
        check_text("name", name, 0, NAME_LEN_MAX)?;
        let history = ChangeHistory::take_encoded(&mut reader)?;
        reader.finish()?;
        Ok(Self {
            ticket,
            authority,
            created_at,
            nonce,
            name,
            history,
            request,
            mac,
            signature,
        })
    }

    /// Verifies that whoever made the request had the ticket (before anything else: without one, nobody costs an
    /// authority a signature), that its history is genuine, and that its identity key signed. Returns the history,
    /// whose identifier is the subject.
    ///
    /// Whether the request is for this authority, and whether the ticket still counts, is the caller's to judge.
    ///
    /// # Errors
    /// [`TrustError::TicketKey`] or [`TrustError::Identity`].
    pub fn verify(&self, key: &TicketKey) -> Result<ChangeHistory, TrustError> {
        if key.mac(&[&LABEL, self.request]) != self.mac {
            return Err(TrustError::TicketKey);
        }
        let history = ChangeHistory::decode(self.history)?;
        verify_signature(&history, self.request, &self.signature)?;
        Ok(history)
    }
}

fn message(request: &[u8]) -> Vec<u8> {
    [LABEL.as_slice(), request].concat()
}

fn verify_signature(
    history: &ChangeHistory,
    request: &[u8],
    signature: &Signature,
) -> Result<(), TrustError> {
    history
        .current_key()
        .verify(&message(request), signature)
        .map_err(|source| {
            TrustError::Identity(IdentityError::Signature {
                what: "request of enrolment",
                sequence: history.current().sequence,
                source,
            })
        })
}

const fn check_len(len: usize) -> Result<(), TrustError> {
    if len > ENROL_LEN_MAX {
        return Err(TrustError::Length {
            what: "request of enrolment",
            len,
            min: 0,
            max: ENROL_LEN_MAX,
        });
    }
    Ok(())
}

/// The answer to a request that was carried by hand: the presentation, and the newest status list.
///
/// ```text
/// bytes16 presentation | u32 length, signed statement of kind 2 (length 0: none)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnrolResponse<'a> {
    /// For [`Trust::set_own`](super::Trust::set_own).
    pub presentation: &'a [u8],
    /// The list, which stands without the history: that is the presentation's.
    status: Option<&'a [u8]>,
}

impl<'a> EnrolResponse<'a> {
    /// Puts an answer together from a presentation and, if there is one, a signed status list.
    ///
    /// # Errors
    /// As [`Presentation::decode`] and [`SignedStatement::decode`]: what a reader would not take is not written.
    pub fn encode(presentation: &[u8], status: Option<&[u8]>) -> Result<Vec<u8>, TrustError> {
        let status = status.unwrap_or_default();
        let mut out = Vec::with_capacity(presentation.len().saturating_add(status.len()).saturating_add(6));
        check_presentation_len(presentation.len())?;
        put_bytes16(&mut out, presentation);
        let len = u32::try_from(status.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(status);
        EnrolResponse::decode(&out)?;
        Ok(out)
    }

    /// Reads an answer without verifying it.
    ///
    /// # Errors
    /// As [`Presentation::decode`] and [`SignedStatement::decode`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, TrustError> {
        let mut reader = Reader::new(bytes);
        let presentation = reader.bytes16("presentation")?;
        let len = usize::try_from(reader.u32("length of the status list")?).unwrap_or(usize::MAX);
        let status = reader.bytes("status list", len)?;
        reader.finish()?;
        check_presentation_len(presentation.len())?;
        Presentation::decode(StatementKind::Credential, presentation)?;
        if len > STATUS_LEN_MAX {
            return Err(TrustError::Length {
                what: "status list",
                len,
                min: 0,
                max: STATUS_LEN_MAX,
            });
        }
        if len > 0 {
            SignedStatement::decode(StatementKind::StatusList, status)?;
        }
        Ok(Self {
            presentation,
            status: (len > 0).then_some(status),
        })
    }

    /// Returns the status list for [`Trust::take_status`](super::Trust::take_status), if there is one.
    ///
    /// # Errors
    /// [`TrustError::Length`] if list and history together are too long.
    pub fn status(&self) -> Result<Option<Vec<u8>>, TrustError> {
        let presented = Presentation::decode(StatementKind::Credential, self.presentation)?;
        self.status
            .map(|signed| join(StatementKind::StatusList, presented.history(), signed))
            .transpose()
    }
}

const fn check_presentation_len(len: usize) -> Result<(), TrustError> {
    if len > PRESENTATION_LEN_MAX {
        return Err(TrustError::Length {
            what: "presentation",
            len,
            min: 0,
            max: PRESENTATION_LEN_MAX,
        });
    }
    Ok(())
}
