//! Texts that live as long as the program.
//!
//! Errors hold some of their words as `&'static str`. Both sides of the conversation are the same program, so the other
//! side can only send words that this one has too; their number is small and bounded.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::WireError;

/// Returns that text with the life of the program.
///
/// # Errors
/// [`WireError::Texts`] when it is longer than any such text, or when there are more than any program has.
pub(super) fn fixed(text: &str) -> Result<&'static str, WireError> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(text) = known.get(text) {
        return Ok(text);
    }
    if text.len() > TEXT_BYTES_MAX || known.len() >= TEXTS_MAX {
        return Err(WireError::Texts);
    }
    let text: &'static str = Box::leak(text.to_owned().into_boxed_str());
    known.insert(text);
    Ok(text)
}

static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// Longest text in bytes; the longest reason in an error has about 80.
const TEXT_BYTES_MAX: usize = 160;
/// Most texts; this crate has about 40.
const TEXTS_MAX: usize = 256;
