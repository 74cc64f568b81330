//! Entries of an authority's replication log (PROTOCOL.md §18): what does not open is refused, and what is read has one form.

use fieldgate_proto::{
    identity::Identifier,
    trust::{ReplicationBody, ReplicationKey, ReplicationPlace, ReplicationWrite},
};

use crate::world::Repeatable;

/// Reads the input as an entry, as a body, as writes; and a body once more out of an entry sealed here.
pub fn run(data: &[u8]) {
    let key = ReplicationKey::new(&[1; 32]).expect("it is long enough");
    let place = ReplicationPlace {
        authority: Identifier::from_bytes([2; 32]),
        sequence: 3,
        previous: [4; 32],
    };
    assert!(key.open(&place, data).is_err(), "nobody has sealed it");
    let mut rest = data;
    let mut read = Vec::new();
    while let Ok(Some(write)) = ReplicationWrite::decode_next(&mut rest) {
        write.encode(&mut read);
    }
    assert_eq!(read, data[..data.len() - rest.len()], "a write has two forms");
    if let Ok(body) = ReplicationBody::decode(data)
        && let Ok(entry) = key.seal(&place, &body, &mut Repeatable::new(5))
    {
        let opened = key.open(&place, &entry).expect("it was sealed for that place");
        assert_eq!(*opened, data, "a body has two forms");
    }
}
