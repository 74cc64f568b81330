//! What an authority says about others, and who believes it (PROTOCOL.md §10, §11).
//!
//! An authority signs [`Statement`]s with a [`StatementKey`], for which its identity key vouches once a day:
//! [`Credential`]s, [`StatusList`]s of the revoked, the time, the head of its log. A node keeps what it believes in a
//! [`Trust`], the only machine here; everything else is codecs.
//!
//! ```text
//!  authority                                        node
//!  Ticket ── by hand ──────────────────────────▶ Ticket, EnrolDraft
//!  EnrolRequest::verify ◀── Enrol ─────────────── finish: the identity key signed
//!  Credential::sign ─────── Issued ─────────────▶ Trust::set_own
//!                                                 Trust::verify ◀── presentations of peers
//!  StatusList::sign ─────── StatusPart ─────────▶ Assembler ─▶ Trust::take_status
//!  SignedTime::sign ─────── Time ───────────────▶ Trust::take_time
//! ```
//!
//! What was only decoded proves nothing: [`SignedStatement::verify`] and [`Presentation::verify_alone`] hand out
//! verified statements, [`Trust::verify`] verified credentials.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod assembler;
mod credential;
mod enrol;
mod error;
mod frame;
mod log_head;
mod presentation;
mod recent;
mod replication;
mod signed_time;
mod standing;
mod statement;
mod status_list;
mod store;
mod ticket;

pub use assembler::{ASSEMBLIES_MAX, Assembler, PartError};
pub use credential::{ATTRIBUTES_MAX, Credential, NAME_LEN_MAX, PATTERNS_MAX, Rights};
pub use enrol::{ENROL_LEN_MAX, EnrolDraft, EnrolRequest, EnrolResponse};
pub use error::TrustError;
pub use frame::{FIRST_KIND, LAST_KIND, PART_LEN_MAX, StatusPart, TrustFrame, status_parts};
pub use log_head::LogHead;
pub use presentation::{PRESENTATION_LEN_MAX, Presentation};
pub use replication::{
    REPLICATION_ENTRY_LEN_MAX, REPLICATION_PART_LEN_MAX, REPLICATION_SECRET_LEN_MIN, ReplicationBody,
    ReplicationError, ReplicationKey, ReplicationOperation, ReplicationPlace, ReplicationWrite,
    replication_hash,
};
pub use signed_time::SignedTime;
pub use standing::{AfterGrace, Freshness, Standing, TrustSettings};
pub use statement::{
    SignedStatement, Statement, StatementKey, StatementKeyDraft, StatementKind, VALIDITY_SECS_MAX,
};
pub use status_list::{
    NUMBER_AHEAD_MAX, REVOKED_MAX, STATUS_LEN_MAX, StatusList, SubjectPrefix, subject_prefix,
};
pub use store::{
    Own, REMEMBERED_MAX, Saved, SavedError, SavedPart, StatusTaken, Trust, TrustOutput, TrustStats,
};
pub use ticket::{TICKET_TEXT_LEN_MAX, Ticket, TicketError, TicketKey, WAYS_MAX, Way};

#[cfg(test)]
mod tests;
