//! Reading back what stands in a file: the ids of its records.

use std::{
    fs::File,
    io::{self, BufReader, Read as _, Seek as _, SeekFrom},
};

use super::store::Framing;
use crate::sinks::{
    positions::{Positions, parse_id},
    record::{cbor_first_text, cbor_item_len},
};

/// Reads the records of `file` from `offset` to `len` and takes their ids for what was made safe. Returns where the last whole
/// record ends.
///
/// # Errors
/// Those of reading, and `InvalidData` for a file of CBOR that holds something else.
pub(crate) fn records(
    file: &mut File,
    framing: Framing,
    offset: u64,
    len: u64,
    positions: &mut Positions,
) -> io::Result<u64> {
    file.seek(SeekFrom::Start(offset))?;
    let reader = BufReader::with_capacity(BUFFER_BYTES, file.take(len - offset));
    let whole = match framing {
        Framing::Lines => lines(reader, positions)?,
        Framing::Sequence => sequence(reader, positions)?,
    };
    Ok(offset + whole)
}

fn take_id(id: &str, positions: &mut Positions) {
    if let Some((key, _, last)) = parse_id(id) {
        positions.advance_key(key, last);
    }
}

/// Reads lines; of each only its beginning is kept, as the id stands there.
fn lines(mut reader: impl io::BufRead, positions: &mut Positions) -> io::Result<u64> {
    let mut start = Vec::with_capacity(START_BYTES);
    let (mut read, mut whole) = (0_u64, 0_u64);
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(whole);
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let line = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
        let room = START_BYTES - start.len();
        start.extend_from_slice(line.get(..room.min(line.len())).unwrap_or_default());
        let used = line.len() + usize::from(end.is_some());
        reader.consume(used);
        read += used as u64;
        if end.is_some() {
            whole = read;
            if let Some(id) = id_of_line(&start) {
                take_id(id, positions);
            }
            start.clear();
        }
    }
}

/// Returns the id that a line begins with.
fn id_of_line(line: &[u8]) -> Option<&str> {
    let rest = line.strip_prefix(b"{\"id\":\"")?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(rest.get(..end)?).ok()
}

fn sequence(mut reader: impl io::Read, positions: &mut Positions) -> io::Result<u64> {
    let mut bytes = Vec::with_capacity(BUFFER_BYTES);
    let mut whole = 0_u64;
    loop {
        let read = reader
            .by_ref()
            .take(BUFFER_BYTES as u64)
            .read_to_end(&mut bytes)?;
        let mut used = 0;
        while let Some(len) = cbor_item_len(bytes.get(used..).unwrap_or_default()) {
            let item = bytes.get(used..used + len).unwrap_or_default();
            let id = cbor_first_text(item, "id").ok_or_else(|| foreign(whole + used as u64))?;
            take_id(id, positions);
            used += len;
        }
        bytes.drain(..used);
        whole += used as u64;
        if bytes.len() > RECORD_BYTES_MAX {
            // Longer than any record, so it is none that was cut off.
            return Err(foreign(whole));
        }
        if read == 0 {
            return Ok(whole);
        }
    }
}

fn foreign(at: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "what stands at byte {at} was not written by this sink; choose another `path`, or move the file away"
        ),
    )
}

/// Bytes read at a time.
const BUFFER_BYTES: usize = 64 << 10;
/// Bytes of a line in which its id ends: the id is at most 63 + 1 + 32 + 1 + 41 bytes long.
const START_BYTES: usize = 256;
/// Longest record: that of the largest reading with six bytes for each of its own, and its names.
const RECORD_BYTES_MAX: usize = 1 << 20;
