//! Whole networks, one seed each.

mod chains;
mod drains;
mod lanes;
mod malicious;
mod paths;
mod seeds;
mod trust;
