//! Primitive fields (PROTOCOL.md §1): a value read is the value that would be written, and nothing is read twice.

use fieldgate_proto::wire::{Reader, WireError, put_bytes_varint, put_bytes8, put_bytes16, put_varint};

/// Reads fields of the kinds that the input's bytes name, until one is refused.
pub fn run(data: &[u8]) {
    let Some((kinds, fields)) = data.split_at_checked(data.len().min(8)) else {
        return;
    };
    let mut reader = Reader::new(fields);
    for kind in kinds {
        let before = reader.rest();
        let Ok(written) = read(&mut reader, *kind) else {
            return;
        };
        let used = before.len() - reader.rest().len();
        assert_eq!(written, before[..used], "field of kind {kind}");
    }
}

/// Reads one field and writes it again.
fn read(reader: &mut Reader<'_>, kind: u8) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::new();
    match kind % 8 {
        0 => out.push(reader.u8("u8")?),
        1 => out.extend(reader.u16("u16")?.to_be_bytes()),
        2 => out.extend(reader.u32("u32")?.to_be_bytes()),
        3 => out.extend(reader.u64("u64")?.to_be_bytes()),
        4 => put_varint(&mut out, reader.varint("varint")?),
        5 => put_bytes8(&mut out, reader.bytes8("bytes8")?),
        6 => put_bytes16(&mut out, reader.bytes16("bytes16")?),
        _ => put_bytes_varint(&mut out, reader.bytes_varint("bytes")?),
    }
    Ok(out)
}
