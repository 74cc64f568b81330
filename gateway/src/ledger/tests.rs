//! A ledger on a real disk.

use fieldgate_proto::{
    crypto::{Ed25519Secret, Secret},
    identity::{ChangeDraft, ChangeHistory, PublicKey},
    seal::{Extent, SealKey, SealKeyDraft, merkle, reading_leaf},
    wire::put_bytes_varint,
};

use super::*;
use crate::runtime::entropy::SystemEntropy;

const JOURNAL: [u8; 16] = [5; 16];

struct Gateway {
    history: ChangeHistory,
    key: SealKey,
}

impl Gateway {
    fn new(seed: u8) -> Self {
        let secret = Ed25519Secret::new(&Secret::new([seed; 32]));
        let draft = ChangeDraft::first(PublicKey::Ed25519(*secret.public()), 1_700_000_000);
        let signature = secret.sign(&[&draft.message()]);
        let history = draft.finish(signature, None).unwrap();
        let draft = SealKeyDraft::new(&mut SystemEntropy, &history, 1_800_000_000, 86_400, 1).unwrap();
        let signature = secret.sign(&[&draft.message()]);
        let key = draft.finish(signature, &history).unwrap();
        Self { history, key }
    }

    /// Appends `count` readings of `len` bytes from sequence `first` on.
    fn append(&self, ledger: &mut Ledger, first: u64, count: u64, len: usize) {
        let mut readings = Vec::new();
        let mut leaves = Vec::new();
        for sequence in first..first + count {
            let reading = vec![sequence.to_be_bytes()[7]; len];
            leaves.push(reading_leaf(&JOURNAL, sequence, &reading));
            put_bytes_varint(&mut readings, &reading);
        }
        let extent = Extent {
            journal: JOURNAL,
            first,
            count,
        };
        let root = merkle::root(&mut leaves).unwrap();
        let batch = SealedBatch {
            gateway: self.history.identifier(),
            key_id: *self.key.key_id(),
            extent,
            seal: self.key.seal(1_800_000_000, &extent, &root),
            skipped: Vec::new(),
            readings: &readings,
        };
        ledger
            .append(batch, &self.history.to_bytes(), &self.key.attestation().encode())
            .unwrap();
    }

    fn find(&self, dir: &Path, sequence: u64) -> Found {
        find(dir, self.history.identifier(), JOURNAL, sequence).unwrap()
    }

    fn proves(&self, dir: &Path, sequence: u64) -> bool {
        match self.find(dir, sequence) {
            Found::Proof(proof) => {
                assert_eq!(proof.sequence(), sequence);
                assert_eq!(proof.verify().unwrap().gateway, self.history.identifier());
                true
            }
            Found::Nothing { .. } => false,
        }
    }
}

#[test]
fn what_was_committed_is_found_after_a_restart_and_what_was_not_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (Gateway::new(1), Gateway::new(2));
    let mut ledger = Ledger::open(dir.path(), u64::MAX).unwrap();
    one.append(&mut ledger, 1, 10, 20);
    other.append(&mut ledger, 1, 3, 20);
    ledger.commit().unwrap();
    one.append(&mut ledger, 11, 5, 20);
    drop(ledger);
    let mut ledger = Ledger::open(dir.path(), u64::MAX).unwrap();
    one.append(&mut ledger, 11, 2, 20);
    ledger.commit().unwrap();
    assert!((1..=12).all(|sequence| one.proves(dir.path(), sequence)));
    assert!((1..=3).all(|sequence| other.proves(dir.path(), sequence)));
    assert!(!one.proves(dir.path(), 13));
    assert!(matches!(
        other.find(dir.path(), 4),
        Found::Nothing {
            held: Some((1, 3)),
            damaged: 0
        }
    ));
    assert!(matches!(
        Gateway::new(3).find(dir.path(), 1),
        Found::Nothing { held: None, .. }
    ));
}

#[test]
fn a_torn_end_costs_what_was_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::new(1);
    let mut ledger = Ledger::open(dir.path(), u64::MAX).unwrap();
    gateway.append(&mut ledger, 1, 4, 20);
    ledger.commit().unwrap();
    gateway.append(&mut ledger, 5, 4, 20);
    ledger.commit().unwrap();
    drop(ledger);
    let file = path_of(dir.path(), 1);
    let length = fs::metadata(&file).unwrap().len();
    OpenOptions::new()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(length - 30)
        .unwrap();
    let mut ledger = Ledger::open(dir.path(), u64::MAX).unwrap();
    gateway.append(&mut ledger, 5, 4, 20);
    ledger.commit().unwrap();
    assert!((1..=8).all(|sequence| gateway.proves(dir.path(), sequence)));
    assert!(matches!(
        gateway.find(dir.path(), 9),
        Found::Nothing { damaged: 1, .. }
    ));
}

#[test]
fn the_oldest_go_when_the_bound_is_reached() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::new(1);
    let mut ledger = Ledger::open(dir.path(), 0).unwrap();
    let mut first = 1;
    // Each batch 1 MiB, four files' worth.
    while first <= 4 * 32 * 16 {
        gateway.append(&mut ledger, first, 16, 64 << 10);
        ledger.commit().unwrap();
        assert!(ledger.bytes() <= BYTES_MAX_MIN + (2 << 20), "{}", ledger.bytes());
        first += 16;
    }
    let on_disk: u64 = numbers(dir.path())
        .unwrap()
        .into_iter()
        .map(|number| fs::metadata(path_of(dir.path(), number)).unwrap().len())
        .sum();
    assert_eq!(on_disk, ledger.bytes());
    assert!(gateway.proves(dir.path(), first - 1));
    let Found::Nothing {
        held: Some((oldest, newest)),
        ..
    } = gateway.find(dir.path(), 1)
    else {
        panic!("the first was deleted");
    };
    assert!(oldest > 1 && newest == first - 1);
    assert!(gateway.proves(dir.path(), oldest));
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(&dir.path().join("ledger"), u64::MAX).unwrap();
    fs::remove_dir(dir.path().join("ledger")).unwrap();
    let gateway = Gateway::new(1);
    let extent = Extent {
        journal: JOURNAL,
        first: 1,
        count: 1,
    };
    let batch = SealedBatch {
        gateway: gateway.history.identifier(),
        key_id: *gateway.key.key_id(),
        extent,
        seal: gateway.key.seal(1_800_000_000, &extent, &[0; 32]),
        skipped: Vec::new(),
        readings: &[],
    };
    let result = ledger.append(
        batch,
        &gateway.history.to_bytes(),
        &gateway.key.attestation().encode(),
    );
    assert!(matches!(result, Err(LedgerError::Io(_))));
}
