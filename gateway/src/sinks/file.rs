//! The sink that appends records to a file, as JSON lines or as a CBOR sequence (RFC 8742), and begins a new file by size or age.
//!
//! The file commits its own position together with the data: every record begins with the reading's id, so what stands in the
//! files is what was taken. At the start the records behind the last checkpoint are read, and whatever a gateway sends again is
//! left out: each reading stands in the files exactly once.
//!
//! ```text
//!  readings.jsonl ──full or old──▶ readings-00000007-20261121T144500Z.jsonl ──keep_files──▶ deleted
//! ```
//!
//! A closed file never changes. Its number grows by one each time and is never given twice, also if closed files were moved
//! away: the checkpoint knows the last. So the checkpoint says which file its offset counts in, and every file behind it is
//! read again after a restart from an older checkpoint.
//!
//! | found at the start | what happens |
//! |---|---|
//! | records behind the checkpoint: crash, or an older checkpoint restored | they are read and count |
//! | closed files the checkpoint does not know: an older checkpoint restored | they are read and count |
//! | the open file ends before the checkpoint: it was replaced, or an older one restored | what was confirmed stays confirmed, as the gateways have forgotten it; a warning says how much is missing |
//! | a record that is not whole: power cut, disk full | cut off; the gateway sends it again |

use std::{io, sync::Arc, time::Duration};

use fieldgate_config::settings::sink::{FileSink, Format, Output};
use fieldgate_io::Backend;

use self::store::{Framing, Store};
use super::{
    Confirm, SinkHandle,
    item::Item,
    lines::{self, Target},
    output::body_into,
    positions::{Known, Positions},
    stats::{SinkStats, Subject},
    writers::Writing,
};

mod names;
mod scan;
mod store;

/// Opens the files, brings `positions` up to what stands in them, and starts the sink on a thread of its own.
///
/// # Errors
/// If a file cannot be opened, locked or read, or was not written by this program.
pub(crate) fn spawn(
    index: usize,
    settings: &FileSink,
    output: Output,
    backend: Backend,
    mut positions: Positions,
    confirm: Confirm,
    writing: Writing,
) -> io::Result<(SinkHandle, Known)> {
    let framing = match output.format {
        Format::Cbor => Framing::Sequence,
        Format::Raw | Format::Json | Format::CloudEvents => Framing::Lines,
    };
    let name = format!("file {}", settings.path.display());
    let stats = Arc::new(SinkStats::new());
    let (store, missing) = Store::open(settings, framing, backend, &mut positions)?;
    if missing > 0 {
        let text = format!(
            "{} is {missing} bytes shorter than what was confirmed: it was replaced or restored, and readings confirmed since \
             then are not in it",
            settings.path.display()
        );
        tracing::warn!(path = %settings.path.display(), bytes = missing, "the file is shorter than what was confirmed");
        stats.notice(Subject::SetBack, Some(text));
    }
    let known = positions.all().clone();
    let target = FileTarget {
        store,
        output,
        since_checkpoint: 0,
    };
    let handle = lines::spawn(index, name, target, positions, confirm, stats, writing)?;
    Ok((handle, known))
}

struct FileTarget {
    store: Store,
    output: Output,
    since_checkpoint: usize,
}

impl Target for FileTarget {
    fn write_item(&self, out: &mut Vec<u8>, item: &Item<'_>) {
        if matches!(item, Item::Undecodable { .. }) {
            return;
        }
        body_into(&self.output, out, item);
        if self.store.framing() == Framing::Lines {
            out.push(b'\n');
        }
    }

    fn put(&mut self, records: Vec<u8>) -> (Vec<u8>, Result<(), String>) {
        self.store.append(records)
    }

    fn tend(&mut self, positions: &mut Positions, written: usize) {
        self.store.account(positions);
        self.since_checkpoint += written;
        if self.store.is_due() {
            // Its own checkpoint comes first: a closed file is not read again.
            self.store.rotate(positions);
        } else if self.since_checkpoint >= CHECKPOINT_BYTES {
            self.since_checkpoint = 0;
            if let Err(error) = positions.save() {
                tracing::warn!(%error, "checkpoint of the file sink not saved; the next start reads more of the file");
            }
        }
    }

    fn due_in(&self) -> Option<Duration> {
        self.store.due_in()
    }
}

/// Bytes after which a checkpoint is written, so that a start never reads much more.
const CHECKPOINT_BYTES: usize = 16 << 20;
#[cfg(test)]
mod tests;
