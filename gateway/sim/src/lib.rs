//! Deterministic simulator of fieldgate networks with fault injection.
