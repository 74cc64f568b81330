//! Codecs, and both sides together under crashes, losses and storage that fails.

mod codecs;
mod crashes;
mod world;
