//! Signers against a real PKCS#11 module, SoftHSM2, each test with a token directory of its own.
//!
//! `C_Initialize` and the path of the token directory are of the whole process, so every test runs itself again as
//! a process of its own; see [`softhsm::scenario`].

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod create;
mod faulty;
mod keys;
#[cfg(feature = "kryoptic")]
mod kryoptic;
mod pin;
mod probing;
mod process;
mod recovery;
mod softhsm;
mod spy;
mod suite;
mod tokens;
mod tpm;
mod worker;
