//! Status lists and their parts (PROTOCOL.md §10.1, §11), and the frames they travel in.

use std::collections::BTreeMap;

use fieldgate_proto::channel::frames;
use fieldgate_proto::identity::Identifier;
use fieldgate_proto::time::WallTime;
use fieldgate_proto::trust::{
    ASSEMBLIES_MAX, Assembler, STATUS_LEN_MAX, Statement, StatementKind, StatusList, StatusPart, TrustError,
    TrustFrame, status_parts,
};

use crate::authority::{LIST_NUMBER, authority, patched};
use crate::world::{BEGIN_SECS, pieces};

/// Reads the input as a list, as changes to a genuine one, as the body of one, as a frame, and as parts from several
/// channels.
pub fn run(data: &[u8]) {
    list(data);
    list(&patched(&authority().list, data));
    body(data);
    frame(data);
    parts(data);
    cut(data);
}

fn list(bytes: &[u8]) {
    let mut trust = authority().believer();
    match trust.take_status(WallTime::default(), bytes) {
        Ok(taken) => {
            assert_eq!(bytes, authority().list, "a forged list was taken");
            assert_eq!((taken.newer, taken.revoked.len()), (true, 3));
            assert_eq!(taken.number, LIST_NUMBER);
        }
        Err(_) => assert!(
            trust.status().is_none() && trust.history().is_none(),
            "a refused list left something behind"
        ),
    }
}

fn body(bytes: &[u8]) {
    let statement = Statement {
        kind: StatementKind::StatusList,
        authority: authority().history.identifier(),
        number: 1,
        issued_at: BEGIN_SECS,
        not_after: BEGIN_SECS + 86_400,
        body: bytes,
    };
    let Ok(list) = StatusList::decode(&statement) else {
        return;
    };
    assert_eq!(list.encode(), bytes);
    for prefix in list.revoked() {
        let mut subject = [0xff; 32];
        subject[..16].copy_from_slice(prefix);
        assert!(list.is_revoked(&Identifier::from_bytes(subject)));
    }
}

/// The first byte is the kind.
fn frame(data: &[u8]) {
    let Some((&kind, body)) = data.split_first() else {
        return;
    };
    let Ok(Some(frame)) = TrustFrame::decode(kind, body) else {
        return;
    };
    let mut record = Vec::new();
    frame.put(&mut record);
    let written: Vec<_> = frames(&record).collect();
    assert_eq!(written, [Ok((kind, body))]);
}

/// Each piece is a part: channel, what differs from the usual list, offset, bytes. A list that is complete is the
/// bytes that came over its channel, in order.
fn parts(data: &[u8]) {
    let mut assembler = Assembler::default();
    let mut model: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    for piece in pieces(data) {
        let [channel, which, offset, bytes @ ..] = piece else {
            continue;
        };
        let channel = channel % 12;
        let part = StatusPart {
            authority: Identifier::from_bytes([which >> 7; 32]),
            number: u64::from(which >> 6 & 1),
            total: u32::from(which & 0x3f) * 8,
            offset: u32::from(*offset),
            bytes,
        };
        let got = assembler.handle_part(channel, part);
        let begun = model.entry(channel).or_default();
        if part.offset == 0 {
            begun.clear();
        }
        match got {
            Ok(complete) => {
                assert_eq!(begun.len(), usize::from(*offset), "a part was taken out of order");
                begun.extend_from_slice(bytes);
                if let Some(complete) = complete {
                    assert_eq!(complete, *begun, "a list was put together from other parts");
                    assert_eq!(complete.len() as u64, u64::from(part.total));
                    begun.clear();
                }
            }
            Err(_) => begun.clear(),
        }
        assert!(assembler.held_bytes() <= ASSEMBLIES_MAX * STATUS_LEN_MAX);
    }
}

/// Lets a genuine list arrive in parts as the input cuts it, with the last one altered if the input says so.
fn cut(data: &[u8]) {
    let Some((&alter, sizes)) = data.split_first() else {
        return;
    };
    let authority = authority();
    let mut assembler = Assembler::default();
    let mut rest = authority.list.as_slice();
    let mut sizes = sizes.iter().map(|size| usize::from(*size).max(1)).take(64);
    let mut complete = None;
    while !rest.is_empty() {
        let (bytes, after) = rest.split_at(sizes.next().unwrap_or(rest.len()).min(rest.len()));
        let offset = authority.list.len() - rest.len();
        let mut bytes = bytes.to_vec();
        if after.is_empty() {
            bytes[0] ^= alter & 1;
        }
        let part = StatusPart {
            authority: authority.history.identifier(),
            number: LIST_NUMBER,
            total: u32::try_from(authority.list.len()).expect("it is short"),
            offset: u32::try_from(offset).expect("it is short"),
            bytes: &bytes,
        };
        complete = assembler.handle_part(0_u8, part).expect("the parts are in order");
        rest = after;
    }
    let complete = complete.expect("all parts came");
    assert_eq!(complete == authority.list, alter & 1 == 0);
    if alter == 0 {
        let mut trust = authority.believer();
        assert!(trust.take_status(WallTime::default(), &complete).is_ok());
        let older = authority.sign(StatementKind::StatusList, LIST_NUMBER - 1, &[0; 4]);
        let refused = trust.take_status(WallTime::default(), &older.expect("it is within the limits"));
        assert!(matches!(
            refused,
            Err(TrustError::RolledBack {
                have: LIST_NUMBER,
                ..
            })
        ));
    }
    let again: usize = status_parts(authority.history.identifier(), LIST_NUMBER, &complete).count();
    assert_eq!(again, 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_list_is_genuine() {
        let committed = include_bytes!("../corpus/status_list/list");
        assert_eq!(committed, authority().list.as_slice());
        let mut trust = authority().believer();
        assert!(trust.take_status(WallTime::default(), committed).is_ok());
    }
}
