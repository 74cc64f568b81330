//! What somebody may have meant.

/// Returns the known name nearest to `typed`, if it is near enough to be a slip of the fingers.
pub(crate) fn nearest<'k>(typed: &str, known: &[&'k str]) -> Option<&'k str> {
    if typed.chars().count() > TYPED_CHARS_MAX {
        return None;
    }
    let folded = fold(typed);
    known
        .iter()
        .map(|name| (distance(&folded, &fold(name)), *name))
        .filter(|(distance, name)| {
            // One slip in three characters; and what one typed as the beginning or end of a longer name.
            *distance <= name.len().max(typed.len()) / 3 || (typed.len() >= 4 && name.contains(typed))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Makes names equal that differ in case and separators only.
fn fold(name: &str) -> Vec<char> {
    name.to_lowercase()
        .chars()
        .map(|c| if c == '-' || c == ' ' { '_' } else { c })
        .collect()
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b` (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let width = b.len() + 1;
    // Rows i-2, i-1 and i of the usual matrix.
    let mut before_last = vec![0; width];
    let mut last: Vec<usize> = (0..width).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(width);
        row.push(i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(from != to);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *to && b[j - 1] == *from {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[width - 1]
}

/// Longer names are no slips of ours.
const TYPED_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: [&str; 6] = [
        "listen",
        "latency_ms",
        "bytes_max",
        "segment_bytes",
        "keep_alive_max_secs",
        "pq",
    ];

    #[test]
    fn slips_are_recognised() {
        for (typed, meant) in [
            ("lisen", Some("listen")),
            ("lsiten", Some("listen")),
            ("Listen", Some("listen")),
            ("latency-ms", Some("latency_ms")),
            ("latency", Some("latency_ms")),
            ("keep_alive_secs", Some("keep_alive_max_secs")),
            ("byte_max", Some("bytes_max")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, &KNOWN), meant, "{typed}");
        }
    }

    proptest! {
        #[test]
        fn distance_is_symmetric_and_bounded(a in "[ab_]{0,8}", b in "[ab_]{0,8}") {
            let (left, right): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
            let there = distance(&left, &right);
            prop_assert_eq!(there, distance(&right, &left));
            prop_assert_eq!(there == 0, a == b);
            prop_assert!(there <= a.len().max(b.len()));
        }
    }
}
