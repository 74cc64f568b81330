//! Whole networks, one seed each.

mod lanes;
mod malicious;
mod paths;
mod seeds;
mod trust;
