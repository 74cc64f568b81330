//! Whole networks, one seed each.

mod malicious;
mod seeds;
