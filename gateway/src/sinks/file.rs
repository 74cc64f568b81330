//! The sink that appends JSON lines to a file, and the one that prints them.
//!
//! The file commits its own position together with the data: every line begins with the reading's id, so what stands in the
//! file is what was taken. At the start the lines behind the last checkpoint are read, and whatever a gateway sends again is
//! left out. Each reading stands in the file exactly once.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use fieldgate_io::{
    Backend, Waker,
    files::{Appended, LineFile},
    mailbox::MailReceiver,
    thread,
};
use tokio::sync::mpsc;

use super::{
    Confirm, Confirmation, Delivery, QUEUE_DELIVERIES, SinkHandle, SinkStats, Source, gap::Gap, json,
    positions::Positions,
};

/// How a printed reading looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// As in a file.
    Lines,
    /// As an event, with the path.
    Events,
    /// For people.
    Pretty,
}

/// Opens the file, brings `positions` up to what stands in it, and starts the sink on a thread of its own.
///
/// # Errors
/// If the file cannot be opened, locked or read.
pub(crate) fn spawn_file(
    index: usize,
    path: &Path,
    backend: Backend,
    mut positions: Positions,
    confirm: Confirm,
) -> io::Result<(
    SinkHandle,
    std::collections::BTreeMap<super::positions::SourceKey, u64>,
)> {
    let (lines, answers, opened) =
        LineFile::open(path, backend, Waker::none(), 1).map_err(io::Error::other)?;
    if opened.torn > 0 {
        tracing::info!(path = %path.display(), bytes = opened.torn, "the rest of an unfinished line was cut off");
    }
    catch_up(path, opened.length, &mut positions)?;
    let known = positions.all().clone();
    let handle = spawn(
        index,
        format!("file {}", path.display()),
        Target::File {
            path: path.to_owned(),
            lines,
            answers,
        },
        positions,
        confirm,
    )?;
    Ok((handle, known))
}

/// Starts a sink that prints to standard output on a thread of its own.
///
/// # Errors
/// If the system gives no thread.
pub(crate) fn spawn_stdout(index: usize, style: Style, confirm: Confirm) -> io::Result<SinkHandle> {
    spawn(
        index,
        "standard output".to_owned(),
        Target::Stdout { style },
        Positions::forgetful(),
        confirm,
    )
}

fn spawn(
    index: usize,
    name: String,
    target: Target,
    positions: Positions,
    confirm: Confirm,
) -> io::Result<SinkHandle> {
    let (queue, deliveries) = mpsc::channel(QUEUE_DELIVERIES);
    let stats = Arc::new(SinkStats::default());
    stats.reachable.store(true, Ordering::Relaxed);
    let sink = LineSink {
        index,
        target,
        positions,
        confirm,
        deliveries,
        stats: Arc::clone(&stats),
        text: Vec::new(),
        since_checkpoint: 0,
    };
    // The thread ends when the trunk drops the queue; what it wrote by then is on stable storage.
    drop(thread::spawn("fg-sink", None, move || sink.run())?);
    Ok(SinkHandle { name, stats, queue })
}

enum Target {
    File {
        path: PathBuf,
        lines: LineFile,
        answers: MailReceiver<Appended>,
    },
    Stdout {
        style: Style,
    },
}

struct LineSink {
    index: usize,
    target: Target,
    positions: Positions,
    confirm: Confirm,
    deliveries: mpsc::Receiver<Delivery>,
    stats: Arc<SinkStats>,
    text: Vec<u8>,
    since_checkpoint: usize,
}

impl LineSink {
    fn run(mut self) {
        let mut taken: Vec<Delivery> = Vec::new();
        while let Some(delivery) = self.deliveries.blocking_recv() {
            taken.push(delivery);
            // Whatever waits goes into one write and one sync.
            while self.text_estimate(&taken) < WRITE_BYTES
                && let Ok(delivery) = self.deliveries.try_recv()
            {
                taken.push(delivery);
            }
            self.write(&taken);
            taken.clear();
        }
        self.checkpoint();
    }

    fn text_estimate(&self, taken: &[Delivery]) -> usize {
        taken.iter().map(|delivery| delivery.bytes() * 3).sum()
    }

    /// Writes deliveries and confirms them; repeats until that went well.
    fn write(&mut self, deliveries: &[Delivery]) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let (mut count, mut missing) = (0_u64, 0_u64);
        for delivery in deliveries {
            let position = self.positions.of(delivery.source());
            let batch = match delivery {
                Delivery::Readings(batch) => batch,
                Delivery::Gap(gap) => {
                    if gap.last > position {
                        let first = gap.first.max(position + 1);
                        self.write_gap(&mut text, gap, first);
                        missing += gap.last - first + 1;
                        self.positions.advance(&gap.source, gap.last);
                    }
                    continue;
                }
            };
            for (sequence, reading) in batch.iter(&self.stats) {
                if sequence <= position {
                    self.stats.duplicates.fetch_add(1, Ordering::Relaxed);
                } else if let Some(reading) = reading {
                    count += 1;
                    match self.target {
                        Target::File { .. } | Target::Stdout { style: Style::Lines } => {
                            json::line(&mut text, &batch.source, sequence, &reading);
                        }
                        Target::Stdout { style: Style::Events } => {
                            json::event(&mut text, &batch.source, sequence, &reading);
                        }
                        Target::Stdout { style: Style::Pretty } => pretty(&mut text, &batch.source, &reading),
                    }
                }
            }
            // Later batches of the same source in this write are compared with what this one brings.
            self.positions.advance(&batch.source, batch.last());
        }
        let len = text.len();
        self.text = self.put(text);
        self.stats.confirmed.fetch_add(count, Ordering::Relaxed);
        self.stats.missing.fetch_add(missing, Ordering::Relaxed);
        self.positions.offset += len as u64;
        self.since_checkpoint += len;
        for delivery in deliveries {
            let up_to = self.positions.of(delivery.source());
            (self.confirm)(Confirmation {
                sink: self.index,
                source: delivery.source().index,
                up_to,
            });
        }
        if self.since_checkpoint >= CHECKPOINT_BYTES {
            self.checkpoint();
        }
    }

    fn write_gap(&self, text: &mut Vec<u8>, gap: &Gap, first: u64) {
        match self.target {
            Target::File { .. }
            | Target::Stdout {
                style: Style::Lines | Style::Events,
            } => json::gap_line(text, gap, first),
            Target::Stdout { style: Style::Pretty } => pretty_gap(text, gap, first),
        }
    }

    /// Puts `text` where it belongs, however long that takes, and returns its buffer.
    fn put(&mut self, mut text: Vec<u8>) -> Vec<u8> {
        while !text.is_empty() {
            let result = match &mut self.target {
                Target::Stdout { .. } => {
                    let mut out = io::stdout().lock();
                    out.write_all(&text)
                        .and_then(|()| out.flush())
                        .map_err(|error| error.to_string())
                }
                Target::File { path, lines, answers } => match lines.append(0, text) {
                    Ok(()) => {
                        let Some(answer) = answers.receive() else {
                            return Vec::new();
                        };
                        text = answer.bytes;
                        answer
                            .result
                            .map_err(|error| format!("{error}: {}; {}", error.source, error.hint()))
                    }
                    Err(back) => {
                        text = back;
                        Err(format!("{}: its writer has ended", path.display()))
                    }
                },
            };
            match result {
                Ok(()) => {
                    if !self.stats.reachable.swap(true, Ordering::Relaxed) {
                        tracing::info!("the sink takes readings again");
                    }
                    return text;
                }
                Err(error) => {
                    self.stats.errors.fetch_add(1, Ordering::Relaxed);
                    if self.stats.reachable.swap(false, Ordering::Relaxed) {
                        tracing::warn!(
                            error,
                            "the sink does not take readings; they stay with their gateways"
                        );
                    }
                    self.wait();
                }
            }
        }
        text
    }

    /// Lets a moment pass before the next attempt.
    fn wait(&self) {
        match &self.target {
            // No answer is outstanding, so this is only the passing of time.
            Target::File { answers, .. } => drop(answers.receive_timeout(RETRY_AFTER)),
            Target::Stdout { .. } => std::thread::park_timeout(RETRY_AFTER),
        }
    }

    fn checkpoint(&mut self) {
        self.since_checkpoint = 0;
        if let Err(error) = self.positions.save() {
            tracing::warn!(%error, "checkpoint of the file sink not saved; the next start reads more of the file");
        }
    }
}

/// Reads the lines behind the checkpoint and takes their ids for what was made safe.
fn catch_up(path: &Path, len: u64, positions: &mut Positions) -> io::Result<()> {
    if positions.offset > len {
        // The file was rotated or replaced: what is in it now is all that counts.
        tracing::info!(path = %path.display(), "the file is shorter than at the last checkpoint; it is read from its start");
        positions.offset = 0;
    }
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(positions.offset))?;
    let mut lines = BufReader::with_capacity(1 << 16, file.take(len - positions.offset));
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        if let Some((key, sequence)) = json::id_of(&line) {
            positions.advance_key(key, sequence);
        }
        line.clear();
    }
    positions.offset = len;
    Ok(())
}

/// Writes a reading for people: time, device, resource, payload, path.
fn pretty(out: &mut Vec<u8>, source: &Source, reading: &fieldgate_adapters::reading::Reading<'_>) {
    let time = json::rfc3339(reading.captured_at.unix_millis);
    let time = time.get(11..23).unwrap_or_default();
    let payload = match std::str::from_utf8(reading.payload) {
        Ok(text) => text
            .chars()
            .take(120)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect(),
        Err(_) => format!("{} bytes", reading.payload.len()),
    };
    // Writing to memory cannot fail.
    let _ = writeln!(
        out,
        "{time}  {}  {} = {payload}   [{}]",
        reading.device,
        reading.resource,
        source.path.join(" → ")
    );
}

/// Writes for people that readings are missing.
fn pretty_gap(out: &mut Vec<u8>, gap: &Gap, first: u64) {
    let count = gap.last - first + 1;
    // Writing to memory cannot fail.
    let _ = writeln!(
        out,
        "{count} {} readings of {} are missing: {}",
        json::class(gap.class),
        gap.source.name,
        gap.reason.word()
    );
}

/// Bytes of text that are enough for one write.
const WRITE_BYTES: usize = 1 << 20;
/// Bytes after which a checkpoint is written, so that a start never reads much more.
const CHECKPOINT_BYTES: usize = 16 << 20;
/// Time between attempts to write.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use fieldgate_adapters::{
        class::Class,
        reading::{Reading, UserProperties},
    };
    use fieldgate_proto::{identity::Identifier, time::WallTime, wire::put_bytes_varint};

    use super::*;
    use crate::sinks::{Batch, gap::GapReason};

    fn source() -> Arc<Source> {
        Arc::new(Source {
            index: 0,
            gateway: Identifier::from_bytes([5; 32]),
            name: "plant-7".to_owned(),
            journal: [6; 16],
            class: Class::Normal,
            path: vec!["plant-7".to_owned(), "hall".to_owned()],
        })
    }

    fn batch(source: &Arc<Source>, first: u64, count: u64) -> Delivery {
        let mut readings = Vec::new();
        for number in first..first + count {
            let mut body = Vec::new();
            let payload = number.to_string();
            let reading = Reading {
                device: "press \"1\"",
                resource: "temp",
                content_type: None,
                user_properties: UserProperties::EMPTY,
                payload: payload.as_bytes(),
                captured_at: WallTime::default(),
                class: Class::Normal,
            };
            reading.encode(&mut body).unwrap();
            put_bytes_varint(&mut readings, &body);
        }
        Delivery::Readings(Arc::new(Batch {
            source: Arc::clone(source),
            first,
            count,
            readings,
            seal: None,
        }))
    }

    fn payloads(path: &Path) -> Vec<u64> {
        let text = std::fs::read_to_string(path).unwrap();
        let value = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["payload"].clone();
        text.lines()
            .map(value)
            .filter_map(|value| value.as_str()?.parse().ok())
            .collect()
    }

    /// Runs a sink over `batches` and returns its last confirmation.
    fn run(path: &Path, positions: &Path, batches: Vec<Delivery>) -> u64 {
        let (confirmed, confirmations) = std::sync::mpsc::channel();
        let last = batches.last().unwrap().last();
        let confirm: Confirm = Box::new(move |confirmation| confirmed.send(confirmation.up_to).unwrap());
        let positions = Positions::load(positions.to_owned()).unwrap();
        let (handle, _) = spawn_file(0, path, Backend::Epoll, positions, confirm).unwrap();
        for batch in batches {
            handle.queue.blocking_send(batch).unwrap();
        }
        let mut up_to = 0;
        while up_to < last {
            up_to = confirmations.recv().unwrap();
        }
        drop(handle);
        // The thread is gone when the last sender is.
        while confirmations.recv().is_ok() {}
        up_to
    }

    #[test]
    fn each_reading_stands_in_the_file_once_across_restarts_and_torn_lines() {
        let directory = tempfile::tempdir().unwrap();
        let (path, positions) = (
            directory.path().join("out.jsonl"),
            directory.path().join("positions"),
        );
        let source = source();
        assert_eq!(
            run(
                &path,
                &positions,
                vec![batch(&source, 1, 10), batch(&source, 11, 5)]
            ),
            15
        );
        // Power went in the middle of a line, and the checkpoint was lost.
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"id\":\"fg1").unwrap();
        drop(file);
        std::fs::remove_file(&positions).unwrap();
        assert_eq!(run(&path, &positions, vec![batch(&source, 12, 8)]), 19);
        assert_eq!(payloads(&path), (1..=19).collect::<Vec<_>>());
        // With the checkpoint: the same, and of a gap that reaches back only what is not known.
        let gap = Gap {
            source: Arc::clone(&source),
            first: 15,
            last: 22,
            reason: GapReason::Discarded,
            class: Class::Normal,
            captured: Some((0, 1_000)),
        };
        assert_eq!(run(&path, &positions, vec![Delivery::Gap(Arc::new(gap))]), 22);
        let text = std::fs::read_to_string(&path).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(
            line,
            serde_json::json!({
                "id": source.gap_id(20, 22), "event": "gap", "gateway": "plant-7", "class": "normal",
                "reason": "discarded", "first": 20, "last": 22, "count": 3,
                "captured_from": "1970-01-01T00:00:00.000Z", "captured_to": "1970-01-01T00:00:01.000Z",
            })
        );
        // Its line is read like any other.
        std::fs::remove_file(&positions).unwrap();
        assert_eq!(run(&path, &positions, vec![batch(&source, 1, 25)]), 25);
        assert_eq!(payloads(&path), (1..=19).chain(23..=25).collect::<Vec<_>>());
    }
}
