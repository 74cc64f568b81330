//! Topic filters and password hashes: text from configuration and devices.

use fieldgate_adapters::password::PasswordHash;
use fieldgate_adapters::topic::{TopicFilter, filter_matches};

/// Reads the input as `filter, line break, topic`, and as a password hash.
pub fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(hash) = text.parse::<PasswordHash>() {
        assert!(text.starts_with("pbkdf2-sha256$") || !text.is_empty());
        drop(hash);
    }
    let Some((filter, topic)) = text.split_once('\n') else {
        return;
    };
    let Ok(parsed) = TopicFilter::new(filter) else {
        return;
    };
    assert_eq!(parsed.matches(topic), filter_matches(filter, topic));
    if filter == topic && !topic.starts_with('$') {
        assert!(parsed.matches(topic), "a filter does not match itself");
    }
    if filter == "#" && !topic.is_empty() {
        assert_eq!(parsed.matches(topic), !topic.starts_with('$'));
    }
}
