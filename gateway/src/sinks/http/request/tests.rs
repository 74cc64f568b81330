use proptest::prelude::*;

use super::*;
use crate::sinks::testing::{batch, gap, output, source};

const WIDE: Bounds = Bounds {
    count_max: usize::MAX,
    bytes_max: usize::MAX,
    last_max: u64::MAX,
};

fn cut(deliveries: &[Delivery], known: u64, bounds: &Bounds) -> Option<(u64, u64, usize)> {
    let output = output(Format::Json);
    let request = Request::cut(&output, deliveries.iter(), known, bounds)?;
    let body: serde_json::Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!(body.as_array().map(Vec::len), Some(request.records));
    Some((request.first, request.last, request.records))
}

#[test]
fn a_request_reaches_as_far_as_it_may() {
    let source = source();
    let deliveries = [batch(&source, 1, 10), batch(&source, 11, 10)];
    assert_eq!(cut(&deliveries, 0, &WIDE), Some((1, 20, 20)));
    assert_eq!(cut(&deliveries, 4, &WIDE), Some((5, 20, 16)));
    assert_eq!(cut(&deliveries, 20, &WIDE), None);
    let few = Bounds {
        count_max: 12,
        ..WIDE
    };
    assert_eq!(cut(&deliveries, 4, &few), Some((5, 16, 12)));
    let short = Bounds { last_max: 7, ..WIDE };
    assert_eq!(cut(&deliveries, 4, &short), Some((5, 7, 3)));
    let small = Bounds { bytes_max: 1, ..WIDE };
    assert_eq!(
        cut(&deliveries, 4, &small),
        Some((5, 5, 1)),
        "one goes, however long it is"
    );
}

#[test]
fn a_gap_goes_by_itself() {
    let source = source();
    let deliveries = [batch(&source, 1, 3), gap(&source, 4, 90), batch(&source, 91, 3)];
    assert_eq!(cut(&deliveries, 0, &WIDE), Some((1, 3, 3)));
    assert_eq!(cut(&deliveries, 3, &WIDE), Some((4, 90, 1)));
    assert_eq!(cut(&deliveries, 50, &WIDE), Some((51, 90, 1)));
    assert_eq!(cut(&deliveries, 90, &WIDE), Some((91, 93, 3)));
}

#[test]
fn key_and_content_follow_from_the_range_alone() {
    let source = source();
    let output = output(Format::CloudEvents);
    let bounds = Bounds { last_max: 14, ..WIDE };
    let one = [batch(&source, 1, 20)];
    let many: Vec<_> = (1..=20).map(|first| batch(&source, first, 1)).collect();
    let first = Request::cut(&output, one.iter(), 4, &bounds).unwrap();
    let second = Request::cut(&output, many.iter(), 4, &bounds).unwrap();
    assert_eq!(first.body, second.body);
    assert_eq!(first.key(&source), second.key(&source));
    assert_eq!(first.key(&source), format!("\"{}\"", source.gap_id(5, 14)));
}

#[test]
fn a_range_without_anything_readable_has_no_body() {
    let source = source();
    let batch = crate::sinks::Batch {
        source,
        first: 1,
        count: 2,
        readings: Vec::new(),
        seal: None,
    };
    let deliveries = [Delivery::Readings(std::sync::Arc::new(batch))];
    let request = Request::cut(&output(Format::Json), deliveries.iter(), 0, &WIDE).unwrap();
    assert_eq!((request.first, request.last, request.records), (1, 2, 0));
    assert!(request.body.is_empty());
}

proptest! {
    #[test]
    fn requests_one_after_the_other_hold_everything_once(
        counts in prop::collection::vec((1_u64..9, any::<bool>()), 1..9), count_max in 1_usize..9, bytes_max in 1_usize..2000,
    ) {
        let source = source();
        let mut next = 1;
        let mut deliveries = Vec::new();
        for (count, is_gap) in counts {
            deliveries.push(if is_gap { gap(&source, next, next + count - 1) } else { batch(&source, next, count) });
            next += count;
        }
        let bounds = Bounds { count_max, bytes_max, last_max: u64::MAX };
        let mut known = 0;
        while let Some((first, last, records)) = cut(&deliveries, known, &bounds) {
            prop_assert_eq!(first, known + 1);
            prop_assert!(last >= first && records <= count_max);
            known = last;
        }
        prop_assert_eq!(known, next - 1);
    }
}
