//! Recipes of the fieldgate workspace.
fn main() {}
