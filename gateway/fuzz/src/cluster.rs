//! Entries of a cluster's store (PROTOCOL.md §16): keys and values that are taken have one form, and a relay that hears anything keeps its
//! bounds.

use std::time::Duration;

use fieldgate_proto::identity::Identifier;
use fieldgate_proto::relay::{
    Cluster, ClusterSettings, EntryKey, LeaseEntry, NameEntry, StoreEvent, StoreWrite, WriteFailed,
};
use fieldgate_proto::time::Instant;

use crate::world::Repeatable;

/// Reads the input as events, each of a kind, a length and that many bytes; an entry's key ends at the first line feed.
pub fn run(data: &[u8]) {
    let own = Identifier::from_bytes([1; 32]);
    let other = Identifier::from_bytes([2; 32]);
    let settings = ClusterSettings {
        names_per_relay_max: NAMES_MAX,
        names_max: NAMES_MAX,
        ..ClusterSettings::new(own, [other].into())
    };
    let mut now = Instant::START;
    let mut cluster = Cluster::new(now, &mut Repeatable::new(1), settings);
    let mut revision = 0;
    let mut rest = data;
    while let [kind, len, more @ ..] = rest {
        let (bytes, after) = more.split_at(usize::from(*len).min(more.len()));
        rest = after;
        let event = match kind % 8 {
            0 => StoreEvent::Begin,
            1 => StoreEvent::Current,
            2 => StoreEvent::Away,
            3 => {
                now = now + Duration::from_secs(u64::from(*len));
                cluster.handle_timeout(now);
                continue;
            }
            4 => {
                let name = format!("n{}", len % 12);
                let since = (kind & 8 != 0).then_some(now);
                cluster.handle_local(now, &name, since);
                continue;
            }
            _ => entry(kind / 8, bytes, [own, other]),
        };
        cluster.handle_event(now, &event);
        let mut writes = 0;
        // Numbers of changes grow.
        revision += 1_000;
        while let Some(write) = cluster.poll_write(now) {
            writes += 1;
            assert!(writes <= 2 * NAMES_MAX + 300, "it writes for ever");
            if let StoreWrite::Put { ticket, key, .. } | StoreWrite::Delete { ticket, key } = write {
                assert!(EntryKey::decode(&key).is_ok());
                let result = if kind & 16 == 0 {
                    Ok(revision + writes as u64)
                } else {
                    Err(WriteFailed)
                };
                cluster.handle_event(now, &StoreEvent::Written { ticket, result });
            }
        }
        assert!(cluster.directory().len() <= NAMES_MAX);
        assert!(cluster.publisher().wanted() <= NAMES_MAX);
    }
}

/// Makes an entry of a chosen or of any key; checks what is read of it.
fn entry(choice: u8, bytes: &[u8], relays: [Identifier; 2]) -> StoreEvent {
    let cut = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(bytes.len());
    let (text, value) = (
        String::from_utf8_lossy(&bytes[..cut]),
        bytes.get(cut + 1..).unwrap_or_default(),
    );
    let relay = relays[usize::from(choice & 1)];
    let key = match (choice >> 1) & 3 {
        0 => EntryKey::Lease(relay).encode(),
        1 => EntryKey::Name { relay, name: text }.encode(),
        _ => text.into_owned(),
    };
    if let Ok(known) = EntryKey::decode(&key) {
        assert_eq!(known.encode(), key);
    }
    if let Ok(name) = NameEntry::decode(value) {
        assert_eq!(name.encode(), value);
    }
    if let Ok(lease) = LeaseEntry::decode(value) {
        assert_eq!(LeaseEntry::decode(&lease.encode()), Ok(lease));
    }
    StoreEvent::Entry {
        key,
        revision: u64::from(choice) + 1,
        value: (choice & 8 == 0).then(|| value.to_vec()),
    }
}

const NAMES_MAX: usize = 8;
