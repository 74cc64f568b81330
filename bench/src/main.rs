//! Load generators and side-by-side measurements of fieldgate.
fn main() {}
