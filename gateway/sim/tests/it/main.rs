//! Whole networks, one seed each.

mod malicious;
mod paths;
mod seeds;
mod trust;
