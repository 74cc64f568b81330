//! Proofs of single readings, and the ledger they are taken from (PROTOCOL.md §9.1).

use std::sync::OnceLock;

use fieldgate_proof::{
    Batch, Proof, SealingKey,
    ledger::{Entries, Entry, SealedBatch},
};
use fieldgate_proto::{
    crypto::{Ed25519Secret, Secret},
    entropy::Entropy,
    identity::{ChangeDraft, PublicKey},
    seal::{Extent, SealKeyDraft, merkle, reading_leaf},
    wire::put_bytes_varint,
};

use crate::authority::patched;

const JOURNAL: [u8; 16] = [5; 16];
const FIRST: u64 = 100;

/// A proof that holds, and a ledger with the batch it came from.
struct Genuine {
    proof: Vec<u8>,
    ledger: Vec<u8>,
}

/// Gives the same bytes for ever.
struct Fixed(u8);

impl Entropy for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }
}

fn genuine() -> &'static Genuine {
    static GENUINE: OnceLock<Genuine> = OnceLock::new();
    GENUINE.get_or_init(make)
}

fn make() -> Genuine {
    let secret = Ed25519Secret::new(&Secret::new([7; 32]));
    let draft = ChangeDraft::first(PublicKey::Ed25519(*secret.public()), 1_700_000_000);
    let signature = secret.sign(&[&draft.message()]);
    let history = draft.finish(signature, None).expect("the key signed");
    let draft = SealKeyDraft::new(&mut Fixed(9), &history, 1_800_000_000, 86_400, 1).expect("a day");
    let signature = secret.sign(&[&draft.message()]);
    let key = draft.finish(signature, &history).expect("the key signed");
    let readings: Vec<Vec<u8>> = (0..5_u8).map(|number| vec![number; 7]).collect();
    let mut leaves: Vec<merkle::Hash> = (FIRST..)
        .zip(&readings)
        .map(|(sequence, reading)| reading_leaf(&JOURNAL, sequence, reading))
        .collect();
    let skipped = vec![leaves[0]];
    let root = merkle::root(&mut leaves).expect("five leaves have a root");
    let extent = Extent {
        journal: JOURNAL,
        first: FIRST,
        count: readings.len() as u64,
    };
    let seal = key.seal(1_800_000_100, &extent, &root);
    let (history_bytes, attestation) = (history.to_bytes(), key.attestation().encode());
    let batch = Batch {
        history: &history_bytes,
        attestation: &attestation,
        extent,
        seal,
    };
    let proof = batch
        .prove(readings.iter().map(Vec::as_slice), 3)
        .expect("there are five");
    let mut bytes = Vec::new();
    for reading in &readings[1..] {
        put_bytes_varint(&mut bytes, reading);
    }
    let mut ledger = Vec::new();
    let entries = [
        Entry::Key {
            history: &history_bytes,
            attestation: &attestation,
        },
        Entry::Batch(SealedBatch {
            gateway: history.identifier(),
            key_id: *key.key_id(),
            extent,
            seal,
            skipped,
            readings: &bytes,
        }),
    ];
    for entry in entries {
        entry.put(&mut ledger).expect("entries are short");
    }
    Genuine {
        proof: proof.encode(),
        ledger,
    }
}

/// Reads the input as a proof, and as a change to one that holds.
pub fn run(data: &[u8]) {
    check(data);
    check(&patched(&genuine().proof, data));
}

fn check(bytes: &[u8]) {
    let Ok(proof) = Proof::decode(bytes) else {
        return;
    };
    assert_eq!(proof.encode(), bytes, "a proof has one form");
    assert_eq!(
        proof.verify().is_ok(),
        bytes == genuine().proof,
        "a forged proof was taken"
    );
}

/// Reads the input as a ledger, and as a change to one.
pub fn run_ledger(data: &[u8]) {
    walk(data);
    walk(&patched(&genuine().ledger, data));
}

fn walk(bytes: &[u8]) {
    let mut entries = Entries::new(bytes);
    let mut key = None;
    let mut rest = Vec::new();
    for entry in entries.by_ref() {
        entry.put(&mut rest).expect("what was read can be written");
        match entry {
            Entry::Key { history, attestation } => {
                key = SealingKey::verify(history, attestation)
                    .ok()
                    .map(|key| (key, history, attestation));
            }
            Entry::Batch(batch) => {
                let Some((key, history, attestation)) = &key else {
                    continue;
                };
                let holds = batch.verify(key).is_ok();
                for sequence in FIRST - 1..FIRST + 6 {
                    if let Ok(proof) = batch.prove(history, attestation, sequence) {
                        assert!(batch.holds(sequence));
                        assert_eq!(proof.verify().is_ok(), holds);
                    }
                }
            }
        }
    }
    assert!(entries.intact() <= bytes.len());
    if entries.damaged() == 0 {
        assert_eq!(rest, bytes, "an entry has one form");
    }
}
