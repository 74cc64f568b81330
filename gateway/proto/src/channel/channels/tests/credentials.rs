//! What nodes present to each other.
