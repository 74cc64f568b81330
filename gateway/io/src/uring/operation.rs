use crate::connection::{BufferClass, ConnectionId};

/// What a completion is about; the topmost byte of its 64 bits of user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Accept,
    CancelAccept,
    ReceiveDevice,
    ReceiveLink,
    CancelReceive,
    Send,
    Connect,
    CancelAll,
    Wake,
    Write,
    CancelAny,
    ReceiveDatagrams,
    PollDatagrams,
    CancelDatagrams,
}

impl Operation {
    const ALL: [Self; 14] = [
        Self::Accept,
        Self::CancelAccept,
        Self::ReceiveDevice,
        Self::ReceiveLink,
        Self::CancelReceive,
        Self::Send,
        Self::Connect,
        Self::CancelAll,
        Self::Wake,
        Self::Write,
        Self::CancelAny,
        Self::ReceiveDatagrams,
        Self::PollDatagrams,
        Self::CancelDatagrams,
    ];

    pub(super) const fn receive(class: BufferClass) -> Self {
        match class {
            BufferClass::Device => Self::ReceiveDevice,
            BufferClass::Link => Self::ReceiveLink,
        }
    }

    /// Packs the operation with an index below 2^24 and, for connections, a generation.
    pub(super) const fn token(self, id: ConnectionId) -> u64 {
        ((self as u64) << 56) | ((id.index as u64) << 32) | id.generation as u64
    }

    /// Packs an operation that is about no connection.
    pub(super) const fn token_of(self, index: u32) -> u64 {
        self.token(ConnectionId { index, generation: 0 })
    }

    /// Undoes [`Self::token`].
    #[expect(clippy::cast_possible_truncation, reason = "the parts are taken apart")]
    pub(super) fn from_token(token: u64) -> Option<(Self, ConnectionId)> {
        let operation = Self::ALL.get((token >> 56) as usize)?;
        Some((
            *operation,
            ConnectionId {
                index: (token >> 32) as u32 & 0x00ff_ffff,
                generation: token as u32,
            },
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_keep_what_was_put_in() {
        let id = ConnectionId {
            index: 0x00ab_cdef,
            generation: 0x7fff_fffe,
        };
        for operation in Operation::ALL {
            assert_eq!(Operation::from_token(operation.token(id)), Some((operation, id)));
        }
        assert_eq!(Operation::from_token(u64::MAX), None);
    }
}
