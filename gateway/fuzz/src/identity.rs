//! Identities and attestations (PROTOCOL.md §2): what is taken is written back to the same bytes.

use fieldgate_proto::identity::{Change, ChangeHistory, Identifier, SignedAttestation};

use crate::world::members;

/// Reads the input as each of the encodings, and as a genuine one with bytes of the input in it.
pub fn run(data: &[u8]) {
    encodings(data);
    let [member, _] = members();
    encodings(&patched(member.history.to_bytes(), data));
    encodings(&patched(member.attestation(), data));
}

fn encodings(bytes: &[u8]) {
    if let Ok(change) = Change::decode(bytes) {
        assert_eq!(change.encode(), bytes);
    }
    if let Ok(history) = ChangeHistory::decode(bytes) {
        assert_eq!(history.to_bytes(), bytes);
    }
    if let Ok(attestation) = SignedAttestation::decode(bytes) {
        assert_eq!(attestation.encode(), bytes);
        let [member, _] = members();
        let genuine = bytes == member.attestation();
        assert_eq!(
            attestation.verify(&member.history).is_ok(),
            genuine,
            "a forged attestation was taken"
        );
    }
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(identifier) = text.parse::<Identifier>()
    {
        assert_eq!(identifier.to_string(), text.to_lowercase());
    }
}

/// Replaces single bytes: each pair of the input is a place and a value.
fn patched(mut bytes: Vec<u8>, patches: &[u8]) -> Vec<u8> {
    for patch in patches.chunks_exact(2).take(4) {
        let place = usize::from(patch[0]) % bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(place) {
            *byte = patch[1];
        }
    }
    bytes
}
