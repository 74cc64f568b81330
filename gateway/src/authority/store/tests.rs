use std::{
    fs,
    ops::Bound,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use fieldgate_proto::{crypto::sha256, time::WallTime};
use redb::BackendError;

use super::*;
use crate::authority::{
    log::{Action, Actor, Decision, Outcome},
    record::{Grant, Member, Revoked, Source, StoredKey, TicketRecord},
};

/// A file that can be told to fail, or to take the whole process with it.
#[derive(Debug)]
pub(super) struct Failing {
    inner: FileBackend,
    fails: Arc<AtomicBool>,
    /// Writes and syncs left before the process is killed, as [`KILL_AT`] says; never if that is not set.
    left: AtomicU64,
}

/// Variable that says at which write or sync a process is killed. Tests set it for processes that they start.
pub(in crate::authority) const KILL_AT: &str = "FIELDGATE_TEST_KILL_AT";

impl Failing {
    pub(super) fn new(inner: FileBackend) -> (Self, Arc<AtomicBool>) {
        let fails = Arc::new(AtomicBool::new(false));
        let left = std::env::var(KILL_AT).ok().and_then(|left| left.parse().ok());
        let backend = Self {
            inner,
            fails: Arc::clone(&fails),
            left: AtomicU64::new(left.unwrap_or(u64::MAX)),
        };
        (backend, fails)
    }

    /// Counts a write or a sync, and dies before the last one.
    fn count(&self) {
        use rustix::process::{Signal, getpid, kill_process};
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.fails.load(Ordering::Relaxed) {
            Err(io::Error::other("the disk has failed"))
        } else {
            Ok(())
        }
    }
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.check()?;
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check()?;
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.count();
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.count();
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

const AUTHORITY: Identifier = Identifier::from_bytes([1; 32]);

fn decision(reason: &str) -> Decision {
    Decision {
        actor: Actor::Authority,
        action: Action::Founded,
        outcome: Outcome::Done,
        subject: None,
        ticket: None,
        reason: reason.to_owned(),
    }
}

fn member(name: &str) -> Member {
    Member {
        grant: Grant {
            name: name.to_owned(),
            ..Grant::default()
        },
        source: Source::Added,
        since: 1,
        serial: 2,
        not_after: 3,
    }
}

fn identifier(number: u8) -> Identifier {
    Identifier::from_bytes([number; 32])
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("there is room for a directory")
}

/// Does a little of everything, as batch `number`.
fn work(batch: &mut Batch<'_>, number: u8) -> Result<(), StoreError> {
    batch.put_member(&identifier(number), &member(&format!("node-{number}")))?;
    let ticket = TicketRecord {
        key: StoredKey([number; 32]),
        revoked: false,
        issued_at: 1,
        not_after: 2,
        uses: 3,
        used: 1,
        issuer: Actor::User(7),
        grant: Grant::default(),
    };
    batch.put_ticket(&[number; 16], &ticket)?;
    batch.spend(&[number; 16], &identifier(number), 5)?;
    if number.is_multiple_of(3) {
        let was = batch.remove_member(&identifier(number - 1))?;
        let revoked = Revoked {
            at: 1,
            not_after: 2,
            reason: "lost".to_owned(),
            member: was,
        };
        batch.put_revoked(&identifier(number - 1), &revoked)?;
    }
    if number.is_multiple_of(4) {
        batch.drop_ticket(&[number - 1; 16])?;
    }
    batch.next_serial();
    batch.log(WallTime::default(), decision(&format!("batch {number}")))
}

/// Returns everything in the store.
fn contents(store: &mut Store) -> Vec<String> {
    let read = store.batch(|batch| {
        let members = batch.members_after(None, |_, _| true)?.items;
        let tickets = batch.tickets_after(None, |_, _| true)?.items;
        let revoked = batch.revoked_after(None, |_, _| true)?.items;
        let spent: Vec<bool> = (0..64)
            .map(|number| batch.is_spent_for(&[number; 16], &identifier(number)))
            .collect::<Result<_, _>>()?;
        let listed = batch.listed()?;
        Ok(vec![
            format!("{members:?}"),
            format!("{tickets:?}"),
            format!("{revoked:?}"),
            format!("{spent:?}"),
            format!("{listed:?}"),
            format!("{:?}", batch.log_head()),
        ])
    });
    read.expect("the store can be read")
}

#[test]
fn what_was_written_is_there_after_opening_again() {
    let directory = directory();
    let path = directory.path().join("store");
    let mut store = Store::open(&path, &AUTHORITY, None).expect("the store opens");
    for number in 1..20 {
        store
            .batch(|batch| work(batch, number))
            .expect("the batch is written");
    }
    let before = contents(&mut store);
    drop(store);
    let mut store = Store::open(&path, &AUTHORITY, None).expect("the store opens");
    assert_eq!(contents(&mut store), before);
    store
        .batch(|batch| {
            assert_eq!(batch.verify_log(0)?, Ok(()));
            assert_eq!(batch.next_serial(), 20);
            Ok(())
        })
        .expect("the store can be read");
}

#[test]
fn a_batch_that_fails_has_not_happened() {
    let directory = directory();
    let path = directory.path().join("store");
    let mut store = Store::open(&path, &AUTHORITY, None).expect("the store opens");
    store.batch(|batch| work(batch, 1)).expect("the batch is written");
    let before = contents(&mut store);
    let failed: Result<(), StoreError> = store.batch(|batch| {
        work(batch, 2)?;
        Err(StoreError::record("test"))
    });
    assert!(failed.is_err());
    assert_eq!(contents(&mut store), before);
    store.fails.store(true, Ordering::Relaxed);
    let failed = store.batch(|batch| work(batch, 3));
    assert!(matches!(failed, Err(StoreError::Disk { .. })), "{failed:?}");
}

#[test]
fn names_follow_their_members() {
    let directory = directory();
    let mut store = Store::open(&directory.path().join("store"), &AUTHORITY, None).expect("the store opens");
    let result = store.batch(|batch| {
        batch.put_member(&identifier(1), &member("one"))?;
        batch.put_member(&identifier(1), &member("uno"))?;
        assert_eq!(batch.holder("one")?, None);
        assert_eq!(batch.holder("uno")?, Some(identifier(1)));
        batch.remove_member(&identifier(1))?;
        assert_eq!(batch.holder("uno")?, None);
        assert_eq!(batch.remove_member(&identifier(1))?, None);
        Ok(())
    });
    result.expect("the batch is written");
}

#[test]
fn only_its_owner_can_open_the_file() {
    let directory = directory();
    let path = directory.path().join("store");
    let store = Store::open(&path, &AUTHORITY, None).expect("the store opens");
    let mode = fs::metadata(&path)
        .expect("the file is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = Store::open(&path, &AUTHORITY, None);
    assert!(matches!(second, Err(StoreError::InUse { .. })));
    drop(store);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("the mode is changed");
    let open = Store::open(&path, &AUTHORITY, None);
    assert!(matches!(open, Err(StoreError::Permissions { mode: 0o640, .. })));
}

fn refusal(path: &Path, authority: &Identifier) -> StoreError {
    match Store::open(path, authority, None) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

#[test]
fn what_is_no_store_of_this_authority_is_refused() {
    let directory = directory();
    let path = directory.path().join("store");
    drop(Store::open(&path, &AUTHORITY, None).expect("the store opens"));
    assert!(matches!(
        refusal(&path, &identifier(2)),
        StoreError::Foreign { got: AUTHORITY, .. }
    ));
    let store = Store::open(&path, &AUTHORITY, None).expect("the store opens");
    let transaction = store.begin().expect("the store can be written");
    {
        let mut meta = transaction.open_table(META).expect("the table is there");
        meta.insert(META_SCHEMA, 2_u32.to_be_bytes().as_slice())
            .expect("the table can be written");
    }
    transaction.commit().expect("the store can be written");
    drop(store);
    assert!(matches!(
        refusal(&path, &AUTHORITY),
        StoreError::Schema { got: 2, want: 1, .. }
    ));
    let other = directory.path().join("other");
    fs::write(&other, "this is not a store\n".repeat(1000)).expect("the file is written");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).expect("the mode is changed");
    assert!(matches!(refusal(&other, &AUTHORITY), StoreError::Damaged { .. }));
    assert!(matches!(
        refusal(&directory.path().join("no/such/directory"), &AUTHORITY),
        StoreError::File { .. }
    ));
    assert!(matches!(
        refusal(directory.path(), &AUTHORITY),
        StoreError::File { .. } | StoreError::NotAFile { .. }
    ));
}

/// Damage anywhere in what is used is found when the store is opened; where it does not matter, nothing is lost.
#[test]
fn a_damaged_store_is_refused_or_unharmed() {
    let directory = directory();
    let path = directory.path().join("store");
    let mut store = Store::open(&path, &AUTHORITY, None).expect("the store opens");
    for number in 1..20 {
        store
            .batch(|batch| work(batch, number))
            .expect("the batch is written");
    }
    let before = contents(&mut store);
    drop(store);
    let genuine = fs::read(&path).expect("the file can be read");
    let used: Vec<usize> = (0..genuine.len()).filter(|at| genuine[*at] != 0).collect();
    let (mut refused, step) = (0, used.len() / 150);
    let damaged_path = directory.path().join("damaged");
    for at in used.iter().step_by(step.max(1)) {
        let mut damaged = genuine.clone();
        damaged[*at] ^= 0x10;
        fs::write(&damaged_path, &damaged).expect("the file is written");
        fs::set_permissions(&damaged_path, fs::Permissions::from_mode(0o600)).expect("the mode is changed");
        match Store::open(&damaged_path, &AUTHORITY, None) {
            Ok(mut store) => assert_eq!(contents(&mut store), before, "byte {at}"),
            Err(error) => {
                refused += 1;
                assert!(
                    matches!(error, StoreError::Damaged { .. }),
                    "byte {at}: {error:?}"
                );
            }
        }
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn a_log_that_was_changed_is_refused() {
    let directory = directory();
    let path = directory.path().join("store");
    let mut store = Store::open(&path, &AUTHORITY, None).expect("the store opens");
    for number in 1..6 {
        store
            .batch(|batch| work(batch, number))
            .expect("the batch is written");
    }
    let transaction = store.begin().expect("the store can be written");
    {
        let mut log = transaction.open_table(LOG).expect("the table is there");
        let forged = crate::authority::log::Entry::new(3, WallTime::default(), decision("forged"), [0; 32]);
        log.insert(3, forged.encode().as_slice())
            .expect("the table can be written");
    }
    transaction.commit().expect("the store can be written");
    drop(store);
    let error = refusal(&path, &AUTHORITY);
    assert!(
        matches!(&error, StoreError::Damaged { detail, .. } if detail.contains("entry 3")),
        "{error:?}"
    );
}

/// A disk that remembers what was written to it, and when it promised to keep it.
#[derive(Clone, Debug, Default)]
struct Recorder {
    disk: Arc<Mutex<(Vec<u8>, Vec<Write>)>>,
}

#[derive(Clone, Debug)]
enum Write {
    Bytes { offset: usize, bytes: Vec<u8> },
    Len(usize),
    Sync,
}

impl Recorder {
    fn holding(bytes: Vec<u8>) -> Self {
        Self {
            disk: Arc::new(Mutex::new((bytes, Vec::new()))),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut (Vec<u8>, Vec<Write>)) -> T) -> T {
        work(&mut self.disk.lock().expect("nobody panics with the disk"))
    }

    fn writes(&self) -> Vec<Write> {
        self.with(|(_, writes)| writes.clone())
    }
}

fn apply(disk: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Bytes { offset, bytes } => {
            let end = offset + bytes.len();
            if disk.len() < end {
                disk.resize(end, 0);
            }
            disk[*offset..end].copy_from_slice(bytes);
        }
        Write::Len(len) => disk.resize(*len, 0),
        Write::Sync => {}
    }
}

impl StorageBackend for Recorder {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|(disk, _)| disk.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.with(|(disk, _)| {
            let bytes = disk
                .get(offset..offset + out.len())
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let write = Write::Len(usize::try_from(len).map_err(io::Error::other)?);
        self.with(|(disk, writes)| {
            apply(disk, &write);
            writes.push(write);
        });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|(_, writes)| writes.push(Write::Sync));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let write = Write::Bytes {
            offset: usize::try_from(offset).map_err(io::Error::other)?,
            bytes: data.to_vec(),
        };
        self.with(|(disk, writes)| {
            apply(disk, &write);
            writes.push(write);
        });
        Ok(())
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}

/// The power goes at any write. What the disk had promised to keep is there; of what it had not, any part, in any order. Then
/// the store is that of a batch that was finished, and not of an earlier one than the last whose end was reported.
#[test]
fn a_power_cut_leaves_whole_batches() {
    let recorder = Recorder::default();
    let path = Path::new("memory");
    let mut store = Store::open_on(path, recorder.clone(), &AUTHORITY).expect("the store opens");
    let mut states = vec![contents(&mut store)];
    // How many writes had been made when the batch with this index was reported.
    let mut reported = vec![recorder.writes().len()];
    for number in 1..14 {
        store
            .batch(|batch| work(batch, number))
            .expect("the batch is written");
        reported.push(recorder.writes().len());
        states.push(contents(&mut store));
    }
    let writes = recorder.writes();
    let mut cuts = 0;
    for cut in (reported[0]..writes.len()).step_by(3) {
        for seed in 0..2_u64 {
            let disk = cut_off(&writes[..cut], seed);
            let mut store = Store::open_on(path, Recorder::holding(disk), &AUTHORITY)
                .unwrap_or_else(|error| panic!("cut {cut} seed {seed}: {error:?}"));
            let found = contents(&mut store);
            let at = states.iter().position(|state| *state == found);
            let at = at.unwrap_or_else(|| panic!("cut {cut} seed {seed}: half a batch"));
            let least = reported.iter().filter(|reported| **reported <= cut).count() - 1;
            assert!(
                (least..=least + 1).contains(&at),
                "cut {cut} seed {seed}: batch {at}, reported {least}"
            );
            cuts += 1;
        }
    }
    assert!(cuts > 100, "{cuts}");
}

/// Returns the disk after a cut: everything up to the last promise, and a part of the rest.
fn cut_off(writes: &[Write], seed: u64) -> Vec<u8> {
    let promised = writes
        .iter()
        .rposition(|write| matches!(write, Write::Sync))
        .map_or(0, |at| at + 1);
    let mut disk = Vec::new();
    for write in &writes[..promised] {
        apply(&mut disk, write);
    }
    let draw = |index: usize| sha256(&[&seed.to_be_bytes(), &(writes.len() + index).to_be_bytes()])[0];
    for (index, write) in writes[promised..].iter().enumerate() {
        match write {
            // The length of a file is part of its journal: it does not go back.
            Write::Len(_) | Write::Sync => apply(&mut disk, write),
            Write::Bytes { offset, bytes } if draw(index) % 4 == 1 => {
                // Torn: a sector of it only.
                let bytes = bytes[..bytes.len().min(512)].to_vec();
                apply(
                    &mut disk,
                    &Write::Bytes {
                        offset: *offset,
                        bytes,
                    },
                );
            }
            Write::Bytes { .. } if draw(index) % 2 == 0 => apply(&mut disk, write),
            Write::Bytes { .. } => {}
        }
    }
    disk
}
