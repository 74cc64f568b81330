//! Sources, batches and settings for the tests of the sinks.

use std::{collections::BTreeMap, sync::Arc};

use fieldgate_adapters::{
    class::Class,
    reading::{Reading, UserProperties},
};
use fieldgate_config::settings::sink::{FieldName, Format, Output};
use fieldgate_proto::{
    identity::Identifier,
    time::{ClockQuality, WallTime},
    wire::put_bytes_varint,
};

use super::{
    Batch, Delivery, Source,
    gap::{Gap, GapReason},
};

/// A source called `plant-7`.
pub(crate) fn source() -> Arc<Source> {
    Arc::new(Source {
        index: 0,
        gateway: Identifier::from_bytes([5; 32]),
        name: "plant-7".to_owned(),
        journal: [6; 16],
        class: Class::Normal,
        path: vec!["plant-7".to_owned(), "hall".to_owned()],
    })
}

/// How readings look without anything in the settings.
pub(crate) fn output(format: Format) -> Output {
    Output {
        topic: "{gateway}/{path}".parse().expect("a template"),
        renames: Vec::new(),
        format,
        fields: FieldName::USUAL.to_vec(),
        set: BTreeMap::new(),
    }
}

/// The reading of device `press "1"` with this payload.
pub(crate) fn reading(payload: &[u8]) -> Reading<'_> {
    Reading {
        device: "press \"1\"",
        resource: "temp",
        content_type: None,
        user_properties: UserProperties::EMPTY,
        payload,
        captured_at: WallTime {
            unix_millis: 1_795_272_300_123,
            quality: ClockQuality::Synchronised,
        },
        class: Class::Normal,
    }
}

/// Readings `first` and `count - 1` more; the payload of each is its sequence.
pub(crate) fn batch(source: &Arc<Source>, first: u64, count: u64) -> Delivery {
    let mut readings = Vec::new();
    for number in first..first + count {
        let mut body = Vec::new();
        reading(number.to_string().as_bytes())
            .encode(&mut body)
            .expect("it is small");
        put_bytes_varint(&mut readings, &body);
    }
    Delivery::Readings(Arc::new(Batch {
        source: Arc::clone(source),
        first,
        count,
        readings,
        seal: None,
    }))
}

/// The news that `first` to `last` were discarded.
pub(crate) fn gap(source: &Arc<Source>, first: u64, last: u64) -> Delivery {
    Delivery::Gap(Arc::new(Gap {
        source: Arc::clone(source),
        first,
        last,
        reason: GapReason::Discarded,
        class: Class::Normal,
        captured: Some((0, 1_000)),
    }))
}
