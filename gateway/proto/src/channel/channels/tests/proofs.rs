//! Live proofs.
