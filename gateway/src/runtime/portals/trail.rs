//! The audit files: a line of JSON for each stream that is opened, ended or refused.
//!
//! A thread of its own writes them, so that a slow disk holds up no stream. What it cannot take is counted as lost.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use fieldgate_config::settings::portal::PortalAudit;
use serde_json::Value;

use crate::{runtime::StartError, status::PortalAuditStatus};

/// The way to the thread that writes; without files it does nothing.
#[derive(Clone, Default)]
pub(crate) struct Trail(Option<Arc<Shared>>);

struct Shared {
    lines: SyncSender<Vec<u8>>,
    state: Arc<State>,
}

/// What the thread says of itself.
#[derive(Default)]
struct State {
    file: PathBuf,
    written: AtomicU64,
    lost: AtomicU64,
    /// Why the last line was not written.
    failure: Mutex<Option<String>>,
}

impl Trail {
    /// Opens the file and starts the thread, which ends with the last of the trails.
    ///
    /// # Errors
    /// [`StartError`] for a file that cannot be written.
    pub(crate) fn open(settings: Option<&PortalAudit>) -> Result<(Self, Option<JoinHandle<()>>), StartError> {
        let Some(settings) = settings else {
            return Ok((Self::default(), None));
        };
        let refused = |error: io::Error| StartError::file(&settings.file, &error);
        let writer = Writer::open(settings).map_err(refused)?;
        let (lines, waiting) = sync_channel(LINES_MAX);
        let state = Arc::new(State {
            file: settings.file.clone(),
            ..State::default()
        });
        let of_thread = Arc::clone(&state);
        let thread = fieldgate_io::thread::spawn("fg-audit", None, move || writer.run(&waiting, &of_thread))
            .map_err(refused)?;
        Ok((Self(Some(Arc::new(Shared { lines, state }))), Some(thread)))
    }

    /// Writes one event down.
    pub(super) fn note(&self, record: &Value) {
        let Some(shared) = &self.0 else {
            return;
        };
        let mut line = record.to_string().into_bytes();
        line.push(b'\n');
        if shared.lines.try_send(line).is_err() {
            shared.state.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn status(&self) -> Option<PortalAuditStatus> {
        let state = &self.0.as_ref()?.state;
        let failure = state.failure.lock().unwrap_or_else(PoisonError::into_inner);
        Some(PortalAuditStatus {
            file: state.file.display().to_string(),
            written: state.written.load(Ordering::Relaxed),
            lost: state.lost.load(Ordering::Relaxed),
            failure: failure.clone(),
        })
    }
}

/// What the thread owns.
struct Writer {
    file: File,
    length: u64,
    settings: PortalAudit,
}

impl Writer {
    fn open(settings: &PortalAudit) -> io::Result<Self> {
        let (file, length) = open(&settings.file)?;
        Ok(Self {
            file,
            length,
            settings: settings.clone(),
        })
    }

    /// Writes until all trails are gone.
    fn run(mut self, waiting: &Receiver<Vec<u8>>, state: &State) {
        while let Ok(first) = waiting.recv() {
            let more = waiting.try_iter().take(LINES_MAX);
            let mut count = 0;
            let mut result = Ok(());
            for line in std::iter::once(first).chain(more) {
                count += 1;
                result = result.and_then(|()| self.append(&line));
            }
            let result = result.and_then(|()| self.file.sync_data());
            let mut failure = state.failure.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(()) => {
                    state.written.fetch_add(count, Ordering::Relaxed);
                    if failure.take().is_some() {
                        tracing::info!("the audit file of portals is written again");
                    }
                }
                Err(error) => {
                    // Some of them may be there all the same.
                    state.lost.fetch_add(count, Ordering::Relaxed);
                    let error = error.to_string();
                    if failure.as_ref() != Some(&error) {
                        tracing::error!(error, "the audit file of portals cannot be written");
                    }
                    *failure = Some(error);
                }
            }
        }
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        if self.length > 0 && self.length + length > self.settings.bytes_max {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.length += length;
        Ok(())
    }

    /// Begins the next file.
    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        let path = &self.settings.file;
        for number in (1..self.settings.files_max).rev() {
            let from = if number == 1 {
                path.clone()
            } else {
                numbered(path, number - 1)
            };
            match std::fs::rename(from, numbered(path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        (self.file, self.length) = open(path)?;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A child that is being started may hold a copy of the descriptor, and with it the lock, for a moment longer.
        let _ = self.file.unlock();
    }
}

/// The name of an older file.
fn numbered(path: &Path, number: u16) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// Opens a file to append to it, for this process alone; returns its length. A line that was torn is ended.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "another process uses this file",
            ));
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut length = file.metadata()?.len();
    if let Some(last) = length.checked_sub(1) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, last)?;
        if byte != *b"\n" {
            file.write_all(b"\n")?;
            length += 1;
        }
    }
    Ok((file, length))
}

/// Lines that wait to be written, at most a kilobyte or two each.
const LINES_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(dir: &Path) -> PortalAudit {
        PortalAudit {
            file: dir.join("audit.jsonl"),
            bytes_max: 20,
            files_max: 3,
        }
    }

    #[test]
    fn files_are_bounded_in_size_and_number() {
        let dir = tempfile::tempdir().expect("room for a directory");
        let settings = settings(dir.path());
        let mut writer = Writer::open(&settings).expect("the directory is ours");
        for number in 0..10 {
            writer
                .append(format!("{{\"n\":{number}}}\n").as_bytes())
                .expect("it is written");
        }
        let read = |path: &Path| std::fs::read_to_string(path).expect("it is there");
        assert_eq!(read(&settings.file), "{\"n\":8}\n{\"n\":9}\n");
        assert_eq!(read(&numbered(&settings.file, 1)), "{\"n\":6}\n{\"n\":7}\n");
        assert_eq!(read(&numbered(&settings.file, 2)), "{\"n\":4}\n{\"n\":5}\n");
        assert!(!numbered(&settings.file, 3).exists());
        assert!(Writer::open(&settings).is_err(), "another has it");
        // One that is longer than a file gets one for itself.
        writer.append(&[b'x'; 30]).expect("it is written");
        assert_eq!(read(&settings.file).len(), 30);
    }

    #[test]
    fn a_torn_line_is_ended() {
        let dir = tempfile::tempdir().expect("room for a directory");
        let settings = settings(dir.path());
        std::fs::write(&settings.file, "{\"n\":").expect("the directory is ours");
        let mut writer = Writer::open(&settings).expect("it is opened");
        writer.append(b"{}\n").expect("it is written");
        assert_eq!(
            std::fs::read_to_string(&settings.file).expect("it is there"),
            "{\"n\":\n{}\n"
        );
    }

    #[test]
    fn what_is_noted_is_written_before_the_thread_ends() {
        let dir = tempfile::tempdir().expect("room for a directory");
        let settings = PortalAudit {
            bytes_max: 1 << 20,
            ..settings(dir.path())
        };
        let (trail, thread) = Trail::open(Some(&settings)).expect("the directory is ours");
        for number in 0..100 {
            trail.clone().note(&serde_json::json!({ "n": number }));
        }
        drop(trail);
        thread.expect("there is one").join().expect("it ends");
        let text = std::fs::read_to_string(&settings.file).expect("it is there");
        assert_eq!(text.lines().count(), 100);
        assert_eq!(text.lines().last(), Some("{\"n\":99}"));
    }
}
