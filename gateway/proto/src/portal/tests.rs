//! Codecs, and two sessions with a bad way between them.

mod codecs;
mod world;
