//! The public API of fieldgate-proto.

mod power_cuts;
