use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use super::*;
use crate::sinks::{
    Delivery,
    positions::parse_id,
    record::{cbor_first_text, cbor_item_len},
    testing::{batch, gap, output, source},
    writers::writers,
};

/// A sink's directory.
struct Rig {
    directory: tempfile::TempDir,
    format: Format,
    rotate_bytes: Option<u64>,
    keep_files: Option<u32>,
}

impl Rig {
    fn new(format: Format) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            format,
            rotate_bytes: None,
            keep_files: None,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("out.dat")
    }

    fn checkpoint(&self) -> PathBuf {
        self.directory.path().join("positions")
    }

    /// Runs a sink over deliveries until it has confirmed them; returns what it shows.
    fn run(&self, deliveries: Vec<Delivery>) -> Arc<SinkStats> {
        let (confirmed, confirmations) = std::sync::mpsc::channel();
        let last = deliveries.last().map_or(0, Delivery::last);
        let confirm: Confirm = Box::new(move |confirmation| confirmed.send(confirmation.up_to).unwrap());
        let positions = Positions::load(self.checkpoint()).unwrap();
        let settings = FileSink {
            path: self.path(),
            rotate_bytes: self.rotate_bytes,
            rotate_after: None,
            keep_files: self.keep_files,
        };
        let (handle, _) = spawn(
            0,
            &settings,
            output(self.format),
            Backend::Epoll,
            positions,
            confirm,
            writers().0,
        )
        .unwrap();
        for delivery in deliveries {
            handle.queue.try_send(delivery).unwrap();
        }
        let mut up_to = 0;
        while up_to < last {
            up_to = confirmations.recv().unwrap();
        }
        let stats = Arc::clone(&handle.stats);
        drop(handle);
        // The thread is gone when the last sender is.
        while confirmations.recv().is_ok() {}
        stats
    }

    /// Closed files, oldest first.
    fn closed(&self) -> Vec<PathBuf> {
        let closed = names::Names::new(&self.path()).unwrap().list_closed().unwrap();
        closed.into_iter().map(|(_, path)| path).collect()
    }

    /// The ranges of all records in all files, in order.
    fn ranges(&self) -> Vec<(u64, u64)> {
        let files = self.closed().into_iter().chain([self.path()]);
        files
            .flat_map(|path| match self.format {
                Format::Cbor => cbor_ranges(&path),
                Format::Raw | Format::Json | Format::CloudEvents => json_ranges(&path),
            })
            .collect()
    }
}

fn json_ranges(path: &Path) -> Vec<(u64, u64)> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    let range = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let (_, first, last) = parse_id(record["id"].as_str().unwrap()).unwrap();
        (first, last)
    };
    text.lines().map(range).collect()
}

fn cbor_ranges(path: &Path) -> Vec<(u64, u64)> {
    let bytes = fs::read(path).unwrap();
    let mut rest = bytes.as_slice();
    let mut ranges = Vec::new();
    while !rest.is_empty() {
        let len = cbor_item_len(rest).expect("only whole items");
        let (item, after) = rest.split_at(len);
        let (_, first, last) = parse_id(cbor_first_text(item, "id").unwrap()).unwrap();
        ranges.push((first, last));
        rest = after;
    }
    ranges
}

fn each(range: std::ops::RangeInclusive<u64>) -> Vec<(u64, u64)> {
    range.map(|sequence| (sequence, sequence)).collect()
}

#[test]
fn each_reading_stands_in_the_file_once_across_restarts_and_torn_records() {
    for (format, torn) in [
        (Format::Json, &b"{\"id\":\"fg1"[..]),
        (Format::CloudEvents, b"{\"id\":\"fg1"),
        (Format::Cbor, b"\xaa\x62id\x78\x6e"),
    ] {
        let rig = Rig::new(format);
        let source = source();
        rig.run(vec![batch(&source, 1, 10), batch(&source, 11, 5)]);
        // Power went in the middle of a record, and the checkpoint was lost.
        let mut file = OpenOptions::new().append(true).open(rig.path()).unwrap();
        file.write_all(torn).unwrap();
        drop(file);
        fs::remove_file(rig.checkpoint()).unwrap();
        let stats = rig.run(vec![batch(&source, 12, 8)]);
        assert_eq!(rig.ranges(), each(1..=19));
        assert_eq!(stats.duplicates.load(std::sync::atomic::Ordering::Relaxed), 4);
        // With the checkpoint: the same, and of a gap that reaches back only what is not known.
        rig.run(vec![gap(&source, 15, 22)]);
        fs::remove_file(rig.checkpoint()).unwrap();
        rig.run(vec![batch(&source, 1, 25)]);
        let mut wanted = each(1..=19);
        wanted.push((20, 22));
        wanted.extend(each(23..=25));
        assert_eq!(rig.ranges(), wanted);
    }
}

#[test]
fn a_full_file_is_closed_and_numbered_and_nothing_is_lost_or_doubled() {
    for format in [Format::Json, Format::Cbor] {
        let mut rig = Rig::new(format);
        rig.rotate_bytes = Some(2_000);
        let source = source();
        for first in [1, 11, 21] {
            rig.run(vec![batch(&source, first, 10)]);
        }
        assert_eq!(rig.closed().len(), 3);
        assert_eq!(fs::metadata(rig.path()).unwrap().len(), 0);
        rig.run(vec![batch(&source, 31, 2)]);
        assert_eq!(rig.ranges(), each(1..=32));
        // The numbers go on though the closed files were moved away.
        for path in rig.closed() {
            fs::remove_file(path).unwrap();
        }
        rig.run(vec![batch(&source, 25, 20)]);
        let name = rig.closed()[0].file_name().unwrap().to_str().unwrap().to_owned();
        assert!(
            name.starts_with("out-00000004-") && name.ends_with("Z.dat"),
            "{name}"
        );
        assert_eq!(rig.ranges(), each(31..=44));
    }
}

#[test]
fn a_checkpoint_from_a_backup_costs_reading_and_nothing_else() {
    for format in [Format::Json, Format::Cbor] {
        let mut rig = Rig::new(format);
        rig.rotate_bytes = Some(2_000);
        let source = source();
        rig.run(vec![batch(&source, 1, 4)]);
        let backup = fs::read(rig.checkpoint()).unwrap();
        // The file that was open then is closed since, and another one after it.
        rig.run(vec![batch(&source, 5, 10)]);
        rig.run(vec![batch(&source, 15, 10)]);
        rig.run(vec![batch(&source, 25, 3)]);
        assert_eq!(rig.closed().len(), 2);
        fs::write(rig.checkpoint(), backup).unwrap();
        let stats = rig.run(vec![batch(&source, 5, 30)]);
        assert_eq!(rig.ranges(), each(1..=34));
        assert_eq!(stats.duplicates.load(std::sync::atomic::Ordering::Relaxed), 23);
        assert!(stats.condition().notices.is_empty());
    }
}

#[test]
fn a_file_from_a_backup_is_told_and_nothing_is_doubled() {
    for format in [Format::Json, Format::Cbor] {
        let rig = Rig::new(format);
        let source = source();
        rig.run(vec![batch(&source, 1, 10)]);
        let backup = fs::read(rig.path()).unwrap();
        rig.run(vec![batch(&source, 11, 10)]);
        let len = fs::metadata(rig.path()).unwrap().len();
        fs::write(rig.path(), &backup).unwrap();
        // The gateway has forgotten 11 to 20: they were confirmed.
        let stats = rig.run(vec![batch(&source, 21, 5)]);
        let mut wanted = each(1..=10);
        wanted.extend(each(21..=25));
        assert_eq!(rig.ranges(), wanted);
        let missing = len - backup.len() as u64;
        let notice = stats.condition().notices[&Subject::SetBack].clone();
        assert!(notice.contains(&format!("{missing} bytes shorter")), "{notice}");
        // Both from the same backup: what stands in the file counts.
        fs::write(rig.path(), &backup).unwrap();
        fs::remove_file(rig.checkpoint()).unwrap();
        let stats = rig.run(vec![batch(&source, 5, 10)]);
        assert_eq!(rig.ranges(), each(1..=14));
        assert!(stats.condition().notices.is_empty());
    }
}

#[test]
fn old_files_go_only_if_the_settings_say_so() {
    let mut rig = Rig::new(Format::Json);
    rig.rotate_bytes = Some(1);
    let source = source();
    for first in 1..=5 {
        rig.run(vec![batch(&source, first, 1)]);
    }
    assert_eq!(rig.closed().len(), 5);
    rig.keep_files = Some(2);
    rig.run(vec![batch(&source, 6, 1)]);
    assert_eq!(rig.ranges(), each(5..=6));
}

#[test]
fn an_old_file_is_closed_though_nothing_is_written() {
    let rig = Rig::new(Format::Json);
    let settings = FileSink {
        path: rig.path(),
        rotate_bytes: None,
        rotate_after: Some(Duration::from_millis(50)),
        keep_files: None,
    };
    let (confirmed, confirmations) = std::sync::mpsc::channel();
    let confirm: Confirm = Box::new(move |confirmation| confirmed.send(confirmation.up_to).unwrap());
    let positions = Positions::load(rig.checkpoint()).unwrap();
    let (handle, _) = spawn(
        0,
        &settings,
        output(Format::Json),
        Backend::Epoll,
        positions,
        confirm,
        writers().0,
    )
    .unwrap();
    handle.queue.try_send(batch(&source(), 1, 3)).unwrap();
    assert_eq!(confirmations.recv(), Ok(3));
    // Nothing else comes. The confirmation's channel has no news either, so it serves as the clock: a minute at least.
    let closed = (0..3_000).any(|_| {
        let _ = confirmations.recv_timeout(Duration::from_millis(20));
        rig.closed().len() == 1
    });
    assert!(closed, "it is still open");
    drop(handle);
    while confirmations.recv().is_ok() {}
    assert_eq!(rig.ranges(), each(1..=3));
}

#[test]
fn a_file_of_something_else_is_refused() {
    let rig = Rig::new(Format::Cbor);
    fs::write(rig.path(), b"\xa1\x61x\x01").unwrap();
    let settings = FileSink {
        path: rig.path(),
        rotate_bytes: None,
        rotate_after: None,
        keep_files: None,
    };
    let positions = Positions::load(rig.checkpoint()).unwrap();
    let confirm: Confirm = Box::new(|_| {});
    let error = spawn(
        0,
        &settings,
        output(Format::Cbor),
        Backend::Epoll,
        positions,
        confirm,
        writers().0,
    )
    .map(drop)
    .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(
        error.to_string().contains("out.dat") && error.to_string().contains("byte 0"),
        "{error}"
    );
    assert_eq!(fs::read(rig.path()).unwrap(), b"\xa1\x61x\x01", "it is as it was");
}
