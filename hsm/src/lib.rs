//! Signers of fieldgate: the identity key in a PKCS#11 token, or sealed in a file.
//!
//! ```text
//!  Settings ──open──▶ Box<dyn Signer> ◀──owns── Worker ◀──submit── the rest of the node
//!                     │ Pkcs11Signer            │ one thread for the signer, one for deadlines
//!                     │ FileSigner              └──Completion──▶ the caller's function
//!                     │ SoftwareSigner
//!                     └ ProcessSigner ══ worker process: Pkcs11Signer or FileSigner, in a sandbox
//! ```
//!
//! The identity key signs and does nothing else; what else a token is to keep for a node, a second key wraps. Every signature is over the SHA-256 of the message, made
//! on the host: ECDSA P-256 signs that digest, Ed25519 signs its 32 bytes as the message (`PROTOCOL.md` §2.1).
//! A token may need half a second for a signature or hang for ever, so nothing but a [`Worker`]'s own
//! thread calls a [`Signer`]. A node has the key in a worker [`process`]: a vendor's module may crash, and is not to be trusted
//! with the node's files.
#![forbid(unsafe_code)]

mod clock;
mod error;
mod file;
mod guarded;
mod pkcs11;
pub mod process;
mod secret;
mod settings;
mod signer;
mod software;
pub mod tpm;
mod uri;
mod worker;

pub use error::{CallError, Error, ErrorKind, KeyProblem, OsError, PinState, Stage, WorkerEnd};
pub use file::{Argon2Cost, Derivation, FileSigner, SealError};
pub use pkcs11::{
    CreatedKey, KeyOrigin, KeySummary, Library, LowCount, Pkcs11Signer, Probe, ProbeReport, Recoveries,
    Serials, SignLatency, SlotSummary, TokenState, TokenSummary, TokenTrials, Trial, TrialOutcome, TrialRow,
    WRAPPED_SECRET_BYTES, WRAPPING_LABEL, WrappedSecret, create_pkcs11, probe, probe_report,
};
pub use secret::{Secret, SecretSource};
pub use settings::{SandboxSettings, Settings};
pub use signer::{Algorithm, PublicKey, Signature, Signer};
pub use software::SoftwareSigner;
pub use uri::{ObjectType, Pkcs11Uri, UriError};
pub use worker::{Completion, Deliver, Limits, Priority, Request, Statistics, Worker};
