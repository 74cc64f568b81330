//! The journal's disk (`fieldgate_proto::journal`): any bytes, and hostile ones whose checksums are right.

use std::collections::BTreeMap;

use fieldgate_proto::journal::{
    Journal, JournalSettings, Output, Recovery, SECTOR, Scanned, SegmentHeader, WhenFull, scan_segment,
};
use fieldgate_proto::link::Class;
use fieldgate_proto::node::{Copied, RecordSource as _};
use fieldgate_proto::time::{Instant, Now, WallTime};

/// Reads the input as a segment, and as one whose checksums are right: the decoders alone, which is fast.
pub fn run_scan(data: &[u8]) {
    scan(data);
    let _ = SegmentHeader::decode(data);
    if let Some(fields) = data.get(..SCANNED_MAX.min(data.len())) {
        scan(&segment(1, fields));
    }
}

/// Reads the input as the files of a disk, as they are and with checksums made right; each is recovered, read to its end and
/// written to.
pub fn run(data: &[u8]) {
    let (&[kind, cursor_len, ..], Some(rest)) = (data, data.get(2..)) else {
        return;
    };
    let (cursor, rest) = rest.split_at(usize::from(cursor_len).min(rest.len()));
    let mut files = BTreeMap::new();
    let parts = usize::from(kind % 4) + 1;
    let part_len = rest.len().div_ceil(parts).max(1);
    for (number, part) in (1..).zip(rest.chunks(part_len)) {
        let file = if kind & 0x80 == 0 {
            part.to_vec()
        } else {
            segment(number, part)
        };
        scan(&file);
        files.insert(number, file);
    }
    let cursor = if kind & 0x40 == 0 {
        cursor.to_vec()
    } else {
        slots(cursor)
    };
    recover(&cursor, files);
}

/// What is reported lies in the segment and in its block.
fn scan(bytes: &[u8]) {
    let mut block = None;
    let mut before = 0;
    let end = scan_segment(bytes, &mut |scanned| match scanned {
        Scanned::Block { offset, header } => {
            assert!(offset < bytes.len() as u64 && offset.is_multiple_of(SECTOR as u64));
            (block, before) = (Some(header), 0);
        }
        Scanned::Record { sequence, body, .. } => {
            let block = block.expect("records stand in blocks");
            assert!((block.first..=block.last()).contains(&sequence) && sequence > before);
            assert!(body.len() <= bytes.len());
            before = sequence;
        }
        Scanned::Damage(_) => {}
    });
    assert!(end <= bytes.len().next_multiple_of(SECTOR) as u64 || block.is_some());
}

/// Makes a journal of the files, and uses it.
fn recover(cursor: &[u8], mut files: BTreeMap<u64, Vec<u8>>) {
    let mut recovery = Recovery::new(SETTINGS, Class::Normal, JOURNAL).uplinks(&[1, 2]);
    recovery.cursor(cursor);
    for (number, bytes) in &files {
        let head = bytes.get(..2 * SECTOR).unwrap_or(bytes);
        recovery.head(*number, head, bytes.len() as u64);
    }
    let mut asked = 0;
    while let Some(number) = recovery.wanted() {
        asked += 1;
        assert!(asked <= files.len(), "a file is wanted once");
        recovery.whole(number, files.get(&number).expect("what was named is wanted"));
    }
    let (mut journal, report) = recovery.finish();
    assert!(report.first <= report.next);
    assert_eq!(
        (journal.first_available(), journal.committed()),
        (report.first, report.next - 1)
    );
    execute(&mut journal, &mut files);
    read_all(&mut journal, &mut files);
    let appended = journal.append(0, WallTime::default(), |body| {
        body.extend_from_slice(b"afterwards");
    });
    let Ok(sequence) = appended else {
        // Files of the largest sequences leave nothing to give out.
        return;
    };
    assert!(sequence >= report.next);
    journal.flush();
    execute(&mut journal, &mut files);
    assert_eq!(journal.committed(), sequence, "it can be written to again");
    assert_eq!(read_all(&mut journal, &mut files), sequence);
    for uplink in [0, 1, 2] {
        journal.handle_confirmed(Instant::START, uplink, sequence);
    }
    journal.handle_timeout(Now::default());
    execute(&mut journal, &mut files);
    assert_eq!((journal.released(), journal.gap_count()), (sequence, 0));
}

/// Reads from the first available to the last committed record; returns the last that was not lost.
fn read_all(journal: &mut Journal, files: &mut BTreeMap<u64, Vec<u8>>) -> u64 {
    let mut next = journal.first_available();
    let (mut found, mut steps) = (0, 0);
    while next <= journal.committed() {
        steps += 1;
        assert!(
            steps < STEPS_MAX,
            "reading does not come to an end at {next} of {}",
            journal.committed()
        );
        let mut out = Vec::new();
        match journal.copy_records(Class::Normal, next, BYTES_MAX, u64::from(u16::MAX), &mut out) {
            Copied::Records(count) => {
                assert!(count > 0 && next + count - 1 <= journal.committed());
                assert!(out.len() <= BYTES_MAX);
                next += count;
                found = next - 1;
            }
            Copied::Lost { last, .. } => {
                assert!(last >= next && last <= journal.committed());
                next = last + 1;
            }
            Copied::NotYet => execute(journal, files),
        }
    }
    found
}

/// Does what the journal wants, without any fault.
fn execute(journal: &mut Journal, files: &mut BTreeMap<u64, Vec<u8>>) {
    while let Some(output) = journal.poll_output() {
        match output {
            Output::Write {
                segment,
                offset,
                bytes,
            } => {
                let file = files.get_mut(&segment).expect("it was created");
                let offset = usize::try_from(offset).expect("segments are small");
                file[offset..offset + bytes.len()].copy_from_slice(&bytes);
                journal.handle_written(Instant::START, bytes, Ok(()));
            }
            Output::Create {
                segment,
                segment_bytes,
                mut header,
            } => {
                header.resize(usize::try_from(segment_bytes).expect("segments are small"), 0);
                assert!(
                    files.insert(segment, header).is_none(),
                    "a number was given out twice"
                );
                journal.handle_created(Instant::START, segment, Ok(()));
            }
            Output::WriteCursor { .. } => journal.handle_cursor_written(Instant::START, Ok(())),
            Output::Delete { segment } => drop(files.remove(&segment)),
            Output::Shrink { segment, bytes } => {
                let file = files.get_mut(&segment).expect("it was found");
                file.truncate(usize::try_from(bytes).expect("segments are small"));
            }
            Output::Read { segment, offset, len } => {
                let rest = files.get(&segment).and_then(|file| {
                    let rest = file.get(usize::try_from(offset).ok()?..)?;
                    Some(rest.get(..len).unwrap_or(rest).to_vec())
                });
                journal.handle_read(rest);
            }
            Output::Committed { .. } | Output::Discarded { .. } | Output::StateChanged(_) => {}
        }
    }
}

/// Makes a segment with a right header; each piece of 24 bytes of the input becomes a block whose checksums are right, whatever its
/// fields say.
fn segment(number: u64, data: &[u8]) -> Vec<u8> {
    let header = SegmentHeader {
        journal: JOURNAL,
        number,
        segment_bytes: SETTINGS.segment_bytes,
        lane: 1,
        next: 1,
        released: 0,
        seal: None,
    };
    let mut file = header.encode();
    for piece in data.chunks(BLOCK_FIELDS) {
        let mut fields = [0; BLOCK_FIELDS];
        fields[..piece.len()].copy_from_slice(piece);
        block(&mut file, &fields);
        if file.len() as u64 >= SETTINGS.segment_bytes / 2 {
            break;
        }
    }
    file
}

/// Appends a block: the first eight bytes choose the first sequence, the others counts, lengths and indices.
fn block(file: &mut Vec<u8>, fields: &[u8; BLOCK_FIELDS]) {
    let [scale, high, low, count, lie, released, class, bodies @ ..] = fields;
    let small = u64::from(*high) << 8 | u64::from(*low);
    let first = match scale {
        0..0xf0 => small,
        0xf0..0xf8 => (1 << 62) - small,
        _ => u64::MAX - small,
    };
    let mut payload = Vec::new();
    for (index, len) in bodies.iter().take(usize::from(*count % 16)).enumerate() {
        let body = vec![*len; usize::from(*len)];
        let index = u32::try_from(index).unwrap_or(0) + u32::from(*lie & 0x0f);
        let len = u32::try_from(body.len()).unwrap_or(0);
        let sequence = first.wrapping_add(u64::from(index));
        let mut summed = sequence.to_be_bytes().to_vec();
        summed.push(*class);
        summed.extend_from_slice(&len.to_be_bytes());
        summed.extend_from_slice(&body);
        payload.extend_from_slice(&len.to_be_bytes());
        payload.extend_from_slice(&crc32c::crc32c(&summed).to_be_bytes());
        payload.extend_from_slice(&index.to_be_bytes());
        payload.push(*class);
        payload.extend_from_slice(&body);
    }
    let count = if *lie & 0x80 == 0 {
        u32::from(*count % 16)
    } else {
        u32::MAX - u32::from(*count)
    };
    let payload_len = if *lie & 0x40 == 0 {
        u32::try_from(payload.len()).unwrap_or(0)
    } else {
        u32::from(*lie) << 12
    };
    let mut header = b"FGB2".to_vec();
    header.extend_from_slice(&first.to_be_bytes());
    header.extend_from_slice(&count.to_be_bytes());
    header.extend_from_slice(&payload_len.to_be_bytes());
    header.extend_from_slice(&u64::from(*released).to_be_bytes());
    for time in [small, small + u64::from(*high), u64::from(*lie), 0, u64::MAX] {
        header.extend_from_slice(&time.to_be_bytes());
    }
    header.extend_from_slice(&u32::from(*lie & 3).to_be_bytes());
    let checksum = crc32c::crc32c(&header);
    file.extend_from_slice(&header);
    file.extend_from_slice(&checksum.to_be_bytes());
    file.extend_from_slice(&payload);
    file.resize(file.len().next_multiple_of(SECTOR), 0);
}

/// Makes a cursor's file: each sixteen bytes of the input are a slot with a right checksum. Two of them say what was released,
/// two each what an uplink has, and two each how long a gap is and why it is there.
fn slots(data: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    for piece in data.chunks(16).take(2) {
        let mut fields = [0; 16];
        fields[..piece.len()].copy_from_slice(piece);
        let [counter, released, sealed, uplinks, gaps @ ..] = fields;
        let mut slot = b"FGC2".to_vec();
        slot.extend_from_slice(&JOURNAL);
        for number in [counter, released, 0, 0, 0, 0] {
            slot.extend_from_slice(&u64::from(number).to_be_bytes());
        }
        let uplinks = uplinks % 10;
        slot.push(uplinks);
        for name in 0..uplinks {
            slot.extend_from_slice(&u64::from(name).to_be_bytes());
            slot.extend_from_slice(&u64::from(released.wrapping_add(name)).to_be_bytes());
        }
        slot.extend_from_slice(&u64::from(sealed).to_be_bytes());
        let list: Vec<&[u8]> = gaps.chunks(2).take_while(|gap| gap[0] > 0).collect();
        slot.push(u8::try_from(list.len()).expect("six at the most"));
        let mut first = u64::from(released) + 1;
        for gap in list {
            let last = first + u64::from(gap[0]) - 1;
            for number in [first, last, u64::from(gap[1]), u64::from(gap[0])] {
                slot.extend_from_slice(&number.to_be_bytes());
            }
            slot.push(gap[1]);
            first = last + 1;
        }
        slot.resize(SECTOR - 4, 0);
        let checksum = crc32c::crc32c(&slot);
        slot.extend_from_slice(&checksum.to_be_bytes());
        file.extend_from_slice(&slot);
    }
    file
}

const JOURNAL: [u8; 16] = [7; 16];
const SETTINGS: JournalSettings = JournalSettings {
    bytes_max: 8 << 16,
    segment_bytes: 1 << 16,
    tail_bytes_max: 4096,
    pending_bytes_max: 4096,
    ttl: None,
    when_full: WhenFull::DropOldest,
};
/// Bytes of input that describe a block.
const BLOCK_FIELDS: usize = 24;
/// Blocks of a segment that is only scanned: enough for each kind of neighbour.
const SCANNED_MAX: usize = 4 * BLOCK_FIELDS;
const BYTES_MAX: usize = 60_000;
/// Far more than a disk of so few files holds stretches of.
const STEPS_MAX: usize = 100_000;
