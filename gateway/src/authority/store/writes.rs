//! What a transaction writes, in the form in which the other processes of a clustered authority write it, too.

use fieldgate_proto::{
    identity::Identifier,
    trust::{ReplicationOperation, ReplicationWrite},
};
use redb::{Key, Table, Value};
use zeroize::Zeroizing;

use super::{StoreError, batch::Batch};

/// A table, by the number that the replication log has for it (PROTOCOL.md §18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kept {
    Members = 1,
    Names = 2,
    Tickets = 3,
    Spent = 4,
    Revoked = 5,
    Listed = 6,
    Prefixes = 7,
    Log = 8,
    Meta = 9,
}

/// The writes of a transaction, in order. An authority that is alone keeps none.
///
/// Keys of tickets are among them, so they are wiped.
#[derive(Default)]
pub(super) struct Writes(Option<Zeroizing<Vec<u8>>>);

/// What others have written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Members and revoked identities.
    pub(crate) identities: Vec<Identifier>,
    /// Whether anything was written.
    pub(crate) any: bool,
}

impl Writes {
    /// Keeps what is written from now on.
    pub(super) fn kept() -> Self {
        Self(Some(Zeroizing::default()))
    }

    /// Returns them encoded.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |bytes| bytes)
    }

    pub(super) fn put(&mut self, table: Kept, key: &[u8], value: &[u8]) {
        self.add(table, key, ReplicationOperation::Put(value));
    }

    pub(super) fn remove(&mut self, table: Kept, key: &[u8]) {
        self.add(table, key, ReplicationOperation::Remove);
    }

    pub(super) fn remove_up_to(&mut self, table: Kept, key: &[u8], last: &[u8]) {
        self.add(table, key, ReplicationOperation::RemoveUpTo(last));
    }

    fn add(&mut self, table: Kept, key: &[u8], operation: ReplicationOperation<'_>) {
        if let Some(bytes) = &mut self.0 {
            let table = table as u8;
            ReplicationWrite {
                table,
                key,
                operation,
            }
            .encode(bytes);
        }
    }
}

impl Batch<'_> {
    /// Writes what another process of this authority has written.
    ///
    /// # Errors
    /// [`StoreError::Record`] if a table, key or value is none that this version knows.
    pub(super) fn apply(&mut self, mut bytes: &[u8], touched: &mut Touched) -> Result<(), StoreError> {
        let unknown = || StoreError::record("write of another process");
        while let Some(write) = ReplicationWrite::decode_next(&mut bytes).map_err(|_| unknown())? {
            touched.any = true;
            let (key, operation) = (write.key, write.operation);
            const MEMBERS: u8 = Kept::Members as u8;
            const NAMES: u8 = Kept::Names as u8;
            const TICKETS: u8 = Kept::Tickets as u8;
            const SPENT: u8 = Kept::Spent as u8;
            const REVOKED: u8 = Kept::Revoked as u8;
            const LISTED: u8 = Kept::Listed as u8;
            const PREFIXES: u8 = Kept::Prefixes as u8;
            const LOG: u8 = Kept::Log as u8;
            const META: u8 = Kept::Meta as u8;
            match write.table {
                table @ (MEMBERS | REVOKED) => {
                    let identifier: &[u8; 32] = array(key)?;
                    touched.identities.push(Identifier::from_bytes(*identifier));
                    let to = if table == MEMBERS {
                        &mut self.members
                    } else {
                        &mut self.revoked
                    };
                    change(to, key, operation, array, Ok)?;
                }
                NAMES => {
                    let name = |bytes| str::from_utf8(bytes).map_err(|_| unknown());
                    change(&mut self.names, key, operation, name, array)?;
                }
                TICKETS => change(&mut self.tickets, key, operation, array, Ok)?,
                SPENT => change(&mut self.spent, key, operation, array, number)?,
                LISTED => change(&mut self.listed, key, operation, array, number)?,
                PREFIXES => change(&mut self.prefixes, key, operation, array, number)?,
                LOG => change(&mut self.log, key, operation, number, Ok)?,
                META => {
                    let word = |bytes| str::from_utf8(bytes).map_err(|_| unknown());
                    change(&mut self.meta, key, operation, word, Ok)?;
                }
                _ => return Err(unknown()),
            }
        }
        Ok(())
    }
}

/// Does one operation on a table, whose keys and values are read so.
fn change<'b, K: Key + 'static, V: Value + 'static>(
    table: &mut Table<'_, K, V>,
    key: &'b [u8],
    operation: ReplicationOperation<'b>,
    read_key: impl Fn(&'b [u8]) -> Result<K::SelfType<'b>, StoreError>,
    read_value: impl Fn(&'b [u8]) -> Result<V::SelfType<'b>, StoreError>,
) -> Result<(), StoreError> {
    let key = read_key(key)?;
    match operation {
        ReplicationOperation::Put(value) => {
            let value = read_value(value)?;
            table.insert(key, value).map(drop).map_err(StoreError::disk)
        }
        ReplicationOperation::Remove => table.remove(key).map(drop).map_err(StoreError::disk),
        ReplicationOperation::RemoveUpTo(last) => {
            let last = read_key(last)?;
            table
                .retain_in::<K::SelfType<'b>, _>(key..=last, |_, _| false)
                .map_err(StoreError::disk)
        }
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Result<&[u8; N], StoreError> {
    bytes
        .try_into()
        .map_err(|_| StoreError::record("write of another process"))
}

fn number(bytes: &[u8]) -> Result<u64, StoreError> {
    Ok(u64::from_be_bytes(*array(bytes)?))
}
