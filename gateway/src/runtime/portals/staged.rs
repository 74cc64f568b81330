//! What comes out of streams while the node has the sockets for itself.

use fieldgate_proto::{
    delivery::{Batch, Lost, ShownKey},
    identity::Identifier,
    node::{PortalKey, ReadingSink, SourceInfo},
    portal::StreamId,
};

use crate::runtime::collector::Collecting;

/// Bytes of streams in the order they came, kept for its capacity.
#[derive(Default)]
pub(crate) struct Staged {
    bytes: Vec<u8>,
    /// Whose the bytes are, and up to where.
    ends: Vec<((PortalKey, StreamId), usize)>,
}

impl Staged {
    /// Returns the pieces, in the order they came.
    pub(super) fn pieces(&self) -> impl Iterator<Item = ((PortalKey, StreamId), &[u8])> {
        let mut begin = 0;
        self.ends.iter().map(move |(key, end)| {
            let piece = self.bytes.get(begin..*end).unwrap_or_default();
            begin = *end;
            (*key, piece)
        })
    }

    /// Returns it without content.
    pub(super) fn emptied(mut self) -> Self {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_MAX);
        self.ends.clear();
        self
    }

    fn push(&mut self, key: (PortalKey, StreamId), bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let end = self.bytes.len();
        match self.ends.last_mut() {
            Some((last, last_end)) if *last == key => *last_end = end,
            Some(_) | None => self.ends.push((key, end)),
        }
    }
}

/// Takes readings for the sinks, and bytes of streams for portals.
pub(crate) struct Takers<'a> {
    pub(crate) collecting: &'a mut Collecting,
    pub(crate) staged: &'a mut Staged,
}

impl ReadingSink for Takers<'_> {
    fn accept(&mut self, source: &SourceInfo, batch: Batch<'_>) -> bool {
        self.collecting.accept(source, batch)
    }

    fn gap(&mut self, source: &SourceInfo, lost: &Lost) -> bool {
        self.collecting.gap(source, lost)
    }

    fn seal_key(&mut self, gateway: &Identifier, key: ShownKey<'_>) {
        self.collecting.seal_key(gateway, key);
    }

    fn portal_data(&mut self, portal: PortalKey, stream: StreamId, bytes: &[u8]) {
        self.staged.push((portal, stream), bytes);
    }
}

/// Memory kept between calls: what a link brings at once is seldom more.
const KEPT_MAX: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_in_order_and_neighbours_are_joined() {
        let mut staged = Staged::default();
        let key = |outlet, stream| (PortalKey::Outlet(outlet), StreamId::new(stream));
        staged.push(key(0, 1), b"ab");
        staged.push(key(0, 1), b"c");
        staged.push(key(1, 1), b"d");
        staged.push(key(0, 1), b"e");
        let pieces: Vec<_> = staged.pieces().collect();
        assert_eq!(
            pieces,
            [
                (key(0, 1), &b"abc"[..]),
                (key(1, 1), &b"d"[..]),
                (key(0, 1), &b"e"[..])
            ]
        );
        assert_eq!(staged.emptied().pieces().count(), 0);
    }
}
