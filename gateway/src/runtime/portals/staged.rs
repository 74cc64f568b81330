//! What comes out of streams while the node has the sockets for itself.

use fieldgate_proto::{
    delivery::{Batch, Lost, ShownKey},
    identity::Identifier,
    node::{PortalKey, ReadingSink, SourceInfo},
    portal::StreamId,
};

use crate::runtime::collector::Collecting;

/// Bytes of streams in the order they came, kept for its capacity.
///
/// What comes for one stream goes on coming for it: so the send buffer of the socket that got something last is lent to this, and what
/// comes for it next stands there at once. Everything else is copied once more.
#[derive(Default)]
pub(crate) struct Staged {
    bytes: Vec<u8>,
    /// Whose the bytes are, and up to where.
    ends: Vec<((PortalKey, StreamId), usize)>,
    /// Whose send buffer is lent, and how much it held before.
    lent: Option<((PortalKey, StreamId), usize)>,
    /// The buffer that is lent; otherwise an empty one, which takes its place meanwhile.
    buffer: Vec<u8>,
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

    /// Borrows the send buffer of a stream's socket until [`Staged::give_back`].
    pub(super) fn borrow(&mut self, key: (PortalKey, StreamId), buffer: &mut Vec<u8>) {
        debug_assert!(self.lent.is_none(), "one is lent at a time");
        self.lent = Some((key, buffer.len()));
        std::mem::swap(&mut self.buffer, buffer);
    }

    /// Returns the stream whose buffer is borrowed, and how many bytes came for it since.
    pub(super) fn borrowed(&self) -> Option<((PortalKey, StreamId), usize)> {
        self.lent
            .map(|(key, before)| (key, self.buffer.len().saturating_sub(before)))
    }

    /// Gives the borrowed buffer back; without the place it came from what it holds is gone.
    pub(super) fn give_back(&mut self, buffer: Option<&mut Vec<u8>>) {
        self.lent = None;
        match buffer {
            Some(buffer) => {
                debug_assert!(
                    buffer.is_empty(),
                    "nobody writes to a socket whose buffer is lent"
                );
                std::mem::swap(&mut self.buffer, buffer);
            }
            None => self.buffer = Vec::new(),
        }
    }

    fn push(&mut self, key: (PortalKey, StreamId), bytes: &[u8]) {
        if self.lent.is_some_and(|(lent, _)| lent == key) {
            self.buffer.extend_from_slice(bytes);
            return;
        }
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

    #[test]
    fn what_comes_for_the_lent_buffer_stands_in_it() {
        let mut staged = Staged::default();
        let key = |stream| (PortalKey::Outlet(0), StreamId::new(stream));
        let mut buffer = b"before".to_vec();
        staged.borrow(key(1), &mut buffer);
        assert!(buffer.is_empty());
        staged.push(key(1), b"ab");
        staged.push(key(2), b"x");
        staged.push(key(1), b"c");
        assert_eq!(staged.borrowed(), Some((key(1), 3)));
        staged.give_back(Some(&mut buffer));
        assert_eq!(buffer, b"beforeabc");
        assert_eq!(staged.borrowed(), None);
        let pieces: Vec<_> = staged.pieces().collect();
        assert_eq!(pieces, [(key(2), &b"x"[..])]);
        // Its socket is gone: so is what came for it.
        staged.borrow(key(1), &mut buffer);
        staged.push(key(1), b"d");
        staged.give_back(None);
        staged.borrow(key(2), &mut Vec::new());
        assert_eq!(staged.borrowed(), Some((key(2), 0)));
    }
}
