//! Proofs of made-up batches, whole and spoilt.

use coset::TaggedCborSerializable as _;
use fieldgate_proto::{
    crypto::{Ed25519Secret, Secret},
    entropy::Entropy,
    identity::{ChangeDraft, ChangeHistory, IdentityError, PublicKey},
    seal::{SealKey, SealKeyDraft, signed_bytes},
};
use proptest::prelude::*;

use super::{
    ledger::{Entries, Entry, SealedBatch},
    *,
};

const JOURNAL: [u8; 16] = [5; 16];
const FIRST: u64 = 1000;
const SEALED_AT: u64 = 1_800_000_100;

/// Gives the same bytes for ever.
struct Fixed(u8);

impl Entropy for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }
}

fn identity(seed: u8) -> (Ed25519Secret, ChangeHistory) {
    let secret = Ed25519Secret::new(&Secret::new([seed; 32]));
    let draft = ChangeDraft::first(PublicKey::Ed25519(*secret.public()), 1_700_000_000);
    let signature = secret.sign(&[&draft.message()]);
    (secret, draft.finish(signature, None).unwrap())
}

fn seal_key(secret: &Ed25519Secret, history: &ChangeHistory) -> SealKey {
    let draft = SealKeyDraft::new(&mut Fixed(9), history, 1_800_000_000, 86_400, 1).unwrap();
    let signature = secret.sign(&[&draft.message()]);
    draft.finish(signature, history).unwrap()
}

fn readings(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| format!("reading {number}").into_bytes())
        .collect()
}

/// Seals `count` readings and proves the one at `index`.
fn prove(count: usize, index: usize) -> Proof {
    let (secret, history) = identity(7);
    let key = seal_key(&secret, &history);
    let readings = readings(count);
    let mut leaves: Vec<Hash> = (FIRST..)
        .zip(&readings)
        .map(|(sequence, reading)| reading_leaf(&JOURNAL, sequence, reading))
        .collect();
    let root = merkle::root(&mut leaves).unwrap();
    let extent = Extent {
        journal: JOURNAL,
        first: FIRST,
        count: count as u64,
    };
    let batch = Batch {
        history: &history.to_bytes(),
        attestation: &key.attestation().encode(),
        extent,
        seal: key.seal(SEALED_AT, &extent, &root),
    };
    batch.prove(readings.iter().map(Vec::as_slice), index).unwrap()
}

#[test]
fn every_reading_of_a_batch_can_be_proved() {
    let gateway = identity(7).1.identifier();
    for count in [1, 2, 3, 17] {
        for index in 0..count {
            let proof = Proof::decode(&prove(count, index).encode()).unwrap();
            assert_eq!(proof.sequence(), FIRST + index as u64);
            let verified = proof.verify().unwrap();
            assert_eq!((verified.gateway, verified.sealed_at), (gateway, SEALED_AT));
        }
    }
}

#[test]
fn a_proof_with_any_bit_changed_does_not_hold() {
    let good = prove(5, 3).encode();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let result = Proof::decode(&bad).and_then(|proof| proof.verify());
        // A change that makes another identity shows in the identifier, nothing else may pass.
        assert!(
            result.is_err(),
            "bit {bit} of {} changed and accepted",
            good.len() * 8
        );
    }
}

#[test]
fn a_proof_that_was_cut_or_lengthened_does_not_hold() {
    let good = prove(5, 3).encode();
    for len in 0..good.len() {
        Proof::decode(&good[..len]).unwrap_err();
    }
    let mut longer = good;
    longer.push(0);
    Proof::decode(&longer).unwrap_err();
    assert!(matches!(
        Proof::decode(&vec![0; PROOF_LEN_MAX + 1]),
        Err(ProofError::Length { .. })
    ));
}

#[test]
fn other_readings_places_and_gateways_are_refused() {
    let good = prove(5, 3);
    let wrong = |change: &dyn Fn(&mut Proof)| {
        let mut proof = good.clone();
        change(&mut proof);
        proof.verify().unwrap_err()
    };
    assert!(matches!(
        wrong(&|proof| proof.reading = b"reading 4".to_vec()),
        ProofError::Signature(_)
    ));
    assert!(matches!(
        wrong(&|proof| proof.extent.first += 1),
        ProofError::Signature(_)
    ));
    assert!(matches!(
        wrong(&|proof| proof.extent.journal[0] ^= 1),
        ProofError::Signature(_)
    ));
    assert!(matches!(
        wrong(&|proof| proof.index = 5),
        ProofError::Place { .. }
    ));
    assert!(matches!(
        wrong(&|proof| proof.extent.count = 7),
        ProofError::Signature(_)
    ));
    assert!(matches!(
        wrong(&|proof| proof.extent.count = 3),
        ProofError::Place { .. }
    ));
    assert!(matches!(
        wrong(&|proof| proof.seal.sealed_at += 1),
        ProofError::Signature(_)
    ));
    assert!(matches!(
        wrong(&|proof| proof.seal.sealed_at += 86_400),
        ProofError::Time { .. }
    ));
    assert!(matches!(
        wrong(&|proof| proof.history = identity(8).1.to_bytes()),
        ProofError::Identity(IdentityError::Foreign { .. })
    ));
}

#[test]
fn a_key_for_something_else_seals_nothing() {
    let (secret, history) = identity(7);
    let draft = fieldgate_proto::identity::AttestationDraft::for_statements(
        &history,
        [1; 32],
        1_800_000_000,
        86_400,
        1,
    )
    .unwrap();
    let signature = secret.sign(&[&draft.message()]);
    let attestation = draft.finish(signature, &history).unwrap().encode();
    assert!(matches!(
        SealingKey::verify(&history.to_bytes(), &attestation),
        Err(ProofError::Identity(IdentityError::Purpose { .. }))
    ));
}

#[test]
fn any_cose_library_computes_what_was_signed() {
    let proof = prove(5, 3);
    let sign1 = coset::CoseSign1::from_tagged_slice(&proof.encode()).unwrap();
    let leaf = reading_leaf(&JOURNAL, proof.sequence(), &proof.reading);
    let root = merkle::root_from_path(leaf, proof.index, proof.extent.count, &proof.path).unwrap();
    let ours = signed_bytes(
        &proof.extent,
        &sha256(&[&proof.attestation]),
        proof.seal.sealed_at,
        &root,
    );
    assert_eq!(sign1.tbs_detached_data(&root, &[]), ours);
}

#[test]
fn a_batch_without_that_reading_proves_nothing() {
    let proof = prove(5, 3);
    let batch = Batch {
        history: &proof.history,
        attestation: &proof.attestation,
        extent: proof.extent,
        seal: proof.seal,
    };
    for (count, index) in [(5, 5), (4, 3), (6, 3)] {
        assert_eq!(
            batch.prove(readings(count).iter().map(Vec::as_slice), index),
            Err(ProofError::Place {
                index: index as u64,
                count: 5
            })
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Proof::decode(&bytes);
    }

    #[test]
    fn any_bytes_in_the_place_of_others_are_refused(
        at in any::<prop::sample::Index>(), with in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let good = prove(3, 1).encode();
        let at = at.index(good.len());
        let mut bad = good.clone();
        bad.splice(at..(at + with.len()).min(good.len()), with);
        if bad != good {
            prop_assert!(Proof::decode(&bad).and_then(|proof| proof.verify()).is_err());
        }
    }
}

/// Entries of a ledger: the key, and three batches of 1, 3 and 5 readings; the last with two leaves in place of readings.
fn ledger() -> Vec<u8> {
    let (secret, history) = identity(7);
    let key = seal_key(&secret, &history);
    let mut out = Vec::new();
    Entry::Key {
        history: &history.to_bytes(),
        attestation: &key.attestation().encode(),
    }
    .put(&mut out)
    .unwrap();
    for (first, count, skip) in [(1, 1, 0), (2, 3, 0), (3, 5, 2)] {
        let extent = Extent {
            journal: JOURNAL,
            first,
            count,
        };
        let readings = readings(usize::try_from(count).unwrap());
        let leaves: Vec<Hash> = (first..)
            .zip(&readings)
            .map(|(sequence, reading)| reading_leaf(&JOURNAL, sequence, reading))
            .collect();
        let root = merkle::root(&mut leaves.clone()).unwrap();
        let mut bytes = Vec::new();
        for reading in &readings[skip..] {
            fieldgate_proto::wire::put_bytes_varint(&mut bytes, reading);
        }
        Entry::Batch(SealedBatch {
            gateway: history.identifier(),
            key_id: *key.key_id(),
            extent,
            seal: key.seal(SEALED_AT, &extent, &root),
            skipped: leaves[..skip].to_vec(),
            readings: &bytes,
        })
        .put(&mut out)
        .unwrap();
    }
    out
}

#[test]
fn a_ledger_proves_what_it_holds() {
    let bytes = ledger();
    let mut entries = Entries::new(&bytes);
    let Some(Entry::Key { history, attestation }) = entries.next() else {
        panic!("the key comes first");
    };
    let key = SealingKey::verify(history, attestation).unwrap();
    let mut proved = Vec::new();
    for entry in &mut entries {
        let Entry::Batch(batch) = entry else {
            panic!("batches behind the key");
        };
        batch.verify(&key).unwrap();
        for sequence in 0..10 {
            if let Ok(proof) = batch.prove(history, attestation, sequence) {
                assert_eq!(
                    Proof::decode(&proof.encode()).unwrap().verify().unwrap().gateway,
                    key.gateway
                );
                assert_eq!(proof.sequence(), sequence);
                proved.push(sequence);
            } else {
                assert!(!batch.holds(sequence));
            }
        }
    }
    assert_eq!(proved, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!((entries.intact(), entries.damaged()), (bytes.len(), 0));
}

#[test]
fn a_damaged_entry_costs_itself_alone() {
    let bytes = ledger();
    let whole = Entries::new(&bytes).count();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        let mut entries = Entries::new(&bad);
        assert_eq!(entries.by_ref().count(), whole - 1, "byte {at}");
        assert_eq!(entries.damaged(), 1);
    }
    for len in 0..bytes.len() {
        let mut entries = Entries::new(&bytes[..len]);
        let read = entries.by_ref().count();
        assert!(read < whole);
        assert!(entries.intact() <= len);
        assert_eq!(Entries::new(&bytes[..entries.intact()]).count(), read);
    }
}

#[test]
fn an_entry_that_is_too_long_is_not_written() {
    let mut out = vec![1];
    let readings = vec![0; ledger::CONTENT_LEN_MAX];
    let entry = Entry::Batch(SealedBatch {
        gateway: identity(7).1.identifier(),
        key_id: [0; 32],
        extent: Extent {
            journal: JOURNAL,
            first: 1,
            count: 1,
        },
        seal: Seal {
            sealed_at: 0,
            signature: [0; 64],
        },
        skipped: Vec::new(),
        readings: &readings,
    });
    assert!(matches!(entry.put(&mut out), Err(ProofError::Length { .. })));
    assert_eq!(out, [1]);
}

proptest! {
    #[test]
    fn any_bytes_are_walked_through(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut entries = Entries::new(&bytes);
        entries.by_ref().for_each(drop);
        prop_assert!(entries.intact() <= bytes.len());
    }
}
